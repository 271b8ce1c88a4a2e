"""Optimizer updates: one pass over all parameters of a model, cut into chunks for the threads.

What else an update does happens in the same pass, while a chunk lies in the cache: penalties on the
weights, clipping, weight decay, and the moving average of the weights. Only where gradients are
clipped to a norm, a pass before it finds the norm.
"""

import numpy as np

from cython.parallel cimport parallel, prange
from libc.math cimport INFINITY, pow, sqrt
from libc.stdlib cimport calloc, free

from fastconv._native.dispatch cimport (
    f32, f64, fc_pull, fc_rule, flush_denormals_on, flush_denormals_restore, thread_count,
)

from fastconv._native.checks import number, whole

cdef enum:
    CHUNK = 8192  # elements: 32 KB of each array
    MAX_STATES = 3
    PARALLEL = 65536  # elements from which on threads pay

ctypedef struct Chunk:
    Py_ssize_t count, owner  # owner: the number of the parameter
    char *param
    char *grad
    char *state[MAX_STATES]
    char *mean

cdef enum:
    SGD, ADAM, NADAM, ADAMAX, RMSPROP, ADAGRAD, ADADELTA, LION
    SQUARE, SUMS  # no rules: sums over the gradients and over the weights

MOMENTUM_DECAY = 0.96  # Nadam's


cdef class Segments:
    """Parameters with their gradients and states, kept alive and cut into chunks.

    Parameters
    ----------
    params, grads, *states : sequences of arrays
        The i-th arrays of all of them have one shape; all are C-contiguous and of one dtype,
        float32 or float64. The steps below write params and states.
    means : sequence of arrays, optional
        The moving averages of params, written by every step with ``mean_momentum``.

    Attributes
    ----------
    weight_decay : float
        ``w −= lr · weight_decay · w`` beside the rule's own step, from the same w.
    clip_value : float
        Gradients are clamped to ±clip_value.
    clip_norm, global_clip_norm : float
        The largest norm of each parameter's gradient, and of all of them together.
    mean_momentum : float
        ``mean = mean_momentum · mean + (1 − mean_momentum) · w``, after the step.
    """

    cdef readonly tuple arrays
    cdef readonly object dtype
    cdef public double weight_decay, clip_value, clip_norm, global_clip_norm, mean_momentum
    cdef Chunk *chunks
    cdef double *sums  # two of each chunk
    cdef fc_pull *pulls  # one of each parameter
    cdef unsigned char *decays
    cdef Py_ssize_t count, elements
    cdef int states
    cdef bint averaged

    def __cinit__(self, params, grads, *states, means=None):
        lists = [list(arrays) for arrays in (params, grads, *states)]
        if len(states) > MAX_STATES or len({len(arrays) for arrays in lists}) > 1:
            raise ValueError(f"params, grads and at most {MAX_STATES} states have one length")
        self.states, self.averaged = len(states), means is not None
        if self.averaged:
            lists.append(list(means))
            if len(means) != len(lists[0]):
                raise ValueError(f"there are {len(means)} means for {len(lists[0])} params")
        self.arrays = tuple(map(tuple, lists))
        dtypes = {array.dtype for arrays in lists for array in arrays}
        if len(dtypes) > 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
            raise ValueError("arrays are all float32 or all float64, not "
                             f"{sorted(map(str, dtypes))}")
        self.dtype = dtypes.pop() if dtypes else np.dtype(np.float32)
        self.check(lists)
        sizes = [array.size for array in lists[0]]
        self.elements = sum(sizes)
        self.count = sum(-(-size // CHUNK) for size in sizes)
        self.chunks = <Chunk *> calloc(self.count + 1, sizeof(Chunk))
        self.sums = <double *> calloc(2 * self.count + 1, sizeof(double))
        self.pulls = <fc_pull *> calloc(len(sizes) + 1, sizeof(fc_pull))
        self.decays = <unsigned char *> calloc(len(sizes) + 1, 1)
        if not self.chunks or not self.sums or not self.pulls or not self.decays:
            raise MemoryError
        self.cut(lists)
        self.clip_value = self.clip_norm = self.global_clip_norm = INFINITY
        for i in range(len(sizes)):
            self.terms(i)

    def __dealloc__(self):
        free(self.chunks)
        free(self.sums)
        free(self.pulls)
        free(self.decays)

    def __len__(self):
        return len(self.arrays[0])

    def terms(self, Py_ssize_t index, l1=0.0, l2=0.0, bint decay=True):
        """Add the gradient of ``l1 Σ|w| + l2/2 Σw²`` to parameter ``index``'s; without ``decay``
        ``weight_decay`` passes it by."""
        if not 0 <= index < len(self):
            raise ValueError(f"there is no parameter {index}")
        self.pulls[index] = fc_pull(number("l1", l1, 0), number("l2", l2, 0), 1, INFINITY, 0)
        self.decays[index] = decay

    cdef check(self, lists):
        for group in zip(*lists):
            if len({array.shape for array in group}) > 1:
                raise ValueError(f"shapes differ: {[array.shape for array in group]}")
            for k, array in enumerate(group):
                if not array.flags.c_contiguous or not array.dtype.isnative:
                    raise ValueError("arrays are C-contiguous and native")
                if k != 1 and not array.flags.writeable:
                    raise ValueError("params and states are writeable")

    cdef cut(self, lists):
        cdef Chunk *chunk = self.chunks
        cdef Py_ssize_t start, size, itemsize = self.dtype.itemsize
        cdef size_t address
        last = len(lists) - 1 if self.averaged else -1
        for owner, group in enumerate(zip(*lists)):
            size = group[0].size
            for start in range(0, size, CHUNK):
                chunk.count, chunk.owner = min(CHUNK, size - start), owner
                for k, array in enumerate(group):
                    address = <size_t> array.ctypes.data + start * itemsize
                    if k == 0:
                        chunk.param = <char *> address
                    elif k == 1:
                        chunk.grad = <char *> address
                    elif k == last:
                        chunk.mean = <char *> address
                    else:
                        chunk.state[<int> k - 2] = <char *> address
                chunk += 1

    cdef step(self, int kind, fc_rule *rule, int states, double lr):
        """Clip, decay and run the rule; ``lr`` is the learning rate as weight decay sees it."""
        cdef Py_ssize_t i, n = len(self)
        cdef bint clipped = self.clip_norm != INFINITY or self.global_clip_norm != INFINITY
        if n and self.states < states:
            raise ValueError(f"this update needs {states} states, the segments have {self.states}")
        for i in range(n):
            self.pulls[i].scale, self.pulls[i].limit = 1, INFINITY
            self.pulls[i].decay = lr * self.weight_decay if self.decays[i] else 0
        if clipped:
            self.sweep(SQUARE, rule)
            self.scale_to_norm()
        for i in range(n):
            self.pulls[i].limit = self.clip_value
        self.sweep(kind, rule)

    cdef scale_to_norm(self):
        """Set the parameters' scales from the squares of their chunks, added in order."""
        cdef Py_ssize_t i, n = len(self)
        cdef double total = 0
        squares = np.zeros(n)
        for i in range(self.count):
            squares[self.chunks[i].owner] += self.sums[2 * i]
        total = squares.sum()
        for i in range(n):
            self.pulls[i].scale = (shrink(squares[i], self.clip_norm)
                                   * shrink(total, self.global_clip_norm))

    cdef sweep(self, int kind, const fc_rule *rule):
        """The chunks over the threads: each element is touched by one of them, once."""
        cdef Py_ssize_t i
        cdef unsigned mode = 0
        cdef int threads = thread_count() if self.elements > PARALLEL else 1
        cdef bint double_ = self.dtype.itemsize == 8
        if threads == 1:
            with nogil:
                mode = flush_denormals_on()
                for i in range(self.count):
                    self.visit(i, double_, kind, rule)
                flush_denormals_restore(mode)
            return
        with nogil, parallel(num_threads=threads):
            mode = flush_denormals_on()
            for i in prange(self.count, schedule="static"):
                self.visit(i, double_, kind, rule)
            flush_denormals_restore(mode)

    cdef void visit(self, Py_ssize_t i, bint double_, int kind, const fc_rule *rule) noexcept nogil:
        cdef const Chunk *k = self.chunks + i
        cdef const fc_pull *p = self.pulls + k.owner
        if double_:
            visit_f64(k, p, kind, rule, self.sums + 2 * i)
            if k.mean and kind < SQUARE:
                f64.average(k.count, self.mean_momentum, <double *> k.param, <double *> k.mean)
        else:
            visit_f32(k, p, kind, rule, self.sums + 2 * i)
            if k.mean and kind < SQUARE:
                f32.average(k.count, self.mean_momentum, <float *> k.param, <float *> k.mean)


cdef fc_rule settings(double rate, double first=0, double second=0, double eps=0, int form=0,
                      double third=0, double fourth=0):
    return fc_rule(rate, first, second, third, fourth, eps, form)


cdef double shrink(double square, double limit):
    """The factor that makes a norm whose square is given ``limit`` at most; NaN and infinity, which
    no factor mends, make it NaN and 0."""
    cdef double norm = sqrt(square)
    return 1 if norm <= limit or limit == INFINITY else limit / norm


def sgd(Segments segments not None, lr, momentum=0.0, bint nesterov=False) -> None:
    """``w −= lr g``, or with momentum ``m = momentum m − lr g`` and ``w += m``, in Nesterov's form
    ``w += momentum m − lr g``. One state, m, where momentum is not 0."""
    cdef fc_rule r = settings(number("lr", lr, 0), number("momentum", momentum, 0, 1))
    r.form = nesterov
    segments.step(SGD, &r, 1 if r.first else 0, r.rate)


def adam(Segments segments not None, lr, beta1, beta2, eps, t, bint amsgrad=False) -> None:
    """``m += (1 − beta1) (g − m)``, ``v += (1 − beta2) (g² − v)``,
    ``w −= lr sqrt(1 − beta2^t) / (1 − beta1^t) · m / (sqrt(v) + eps)``, t = 1 in the first step.
    Two states, m and v; with ``amsgrad`` a third one, the largest v so far, which stands for v in
    the last formula."""
    cdef double b1 = number("beta1", beta1, 0, 1, True), b2 = number("beta2", beta2, 0, 1, True)
    cdef double steps = whole("t", t), rate = number("lr", lr, 0)
    cdef double scaled = rate * sqrt(1 - pow(b2, steps)) / (1 - pow(b1, steps))
    cdef fc_rule r = settings(scaled, 1 - b1, 1 - b2, number("eps", eps, 0), amsgrad)
    segments.step(ADAM, &r, 3 if amsgrad else 2, rate)


def nadam(Segments segments not None, lr, beta1, beta2, eps, t) -> None:
    """m and v as in `adam`; with ``u_t = beta1 (1 − 0.96^t / 2)`` and ``U_t = u_1 … u_t``
    ``w −= lr (u_(t+1) m / (1 − U_(t+1)) + (1 − u_t) g / (1 − U_t)) / (sqrt(v') + eps)``, where
    ``v' = v / (1 − beta2^t)``. Two states, m and v."""
    cdef double b1 = number("beta1", beta1, 0, 1, True), b2 = number("beta2", beta2, 0, 1, True)
    cdef double steps = whole("t", t), rate = number("lr", lr, 0), product = 1, now, ahead
    cdef Py_ssize_t i
    for i in range(1, <Py_ssize_t> steps + 1):
        product *= b1 * (1 - 0.5 * pow(MOMENTUM_DECAY, i))
        if product < 1e-300:  # nothing beside 1 for long
            break
    now = b1 * (1 - 0.5 * pow(MOMENTUM_DECAY, steps))
    ahead = b1 * (1 - 0.5 * pow(MOMENTUM_DECAY, steps + 1))
    cdef fc_rule r = settings(1 / (1 - pow(b2, steps)), 1 - b1, 1 - b2, number("eps", eps, 0))
    r.third, r.fourth = rate * ahead / (1 - product * ahead), rate * (1 - now) / (1 - product)
    segments.step(NADAM, &r, 2, rate)


def adamax(Segments segments not None, lr, beta1, beta2, eps, t) -> None:
    """``m += (1 − beta1) (g − m)``, ``u = max(beta2 u, |g|)``,
    ``w −= lr / (1 − beta1^t) · m / (u + eps)``. Two states, m and u."""
    cdef double b1 = number("beta1", beta1, 0, 1, True), rate = number("lr", lr, 0)
    cdef double steps = whole("t", t)
    cdef double b2 = number("beta2", beta2, 0, 1, True)
    cdef fc_rule r = settings(rate / (1 - pow(b1, steps)), 1 - b1, b2, number("eps", eps, 0))
    segments.step(ADAMAX, &r, 2, rate)


def rmsprop(Segments segments not None, lr, rho, momentum, eps, bint centered=False) -> None:
    """``v = rho v + (1 − rho) g²``, ``step = lr g / sqrt(v + eps)``, centered
    ``lr g / sqrt(v − a² + eps)`` with ``a = rho a + (1 − rho) g``; ``w −= step``, or with momentum
    ``m = momentum m + step`` and ``w −= m``. States: v, then m and a as far as there are."""
    cdef fc_rule r = settings(number("lr", lr, 0), number("rho", rho, 0, 1))
    r.second, r.third = 1 - r.first, number("momentum", momentum, 0, 1)
    r.eps, r.form = number("eps", eps, 0), centered
    segments.step(RMSPROP, &r, 1 + (r.third != 0) + centered, r.rate)


def adagrad(Segments segments not None, lr, eps) -> None:
    """``a += g²``, ``w −= lr g / sqrt(a + eps)``. One state, a."""
    cdef fc_rule r = settings(number("lr", lr, 0), 0, 0, number("eps", eps, 0))
    segments.step(ADAGRAD, &r, 1, r.rate)


def adadelta(Segments segments not None, lr, rho, eps) -> None:
    """``a = rho a + (1 − rho) g²``, ``u = g sqrt(d + eps) / sqrt(a + eps)``,
    ``d = rho d + (1 − rho) u²``, ``w −= lr u``. Two states, a and d."""
    cdef fc_rule r = settings(number("lr", lr, 0), number("rho", rho, 0, 1))
    r.second, r.eps = 1 - r.first, number("eps", eps, 0)
    segments.step(ADADELTA, &r, 2, r.rate)


def lion(Segments segments not None, lr, beta1, beta2) -> None:
    """``w −= lr sign(beta1 m + (1 − beta1) g)``, ``m = beta2 m + (1 − beta2) g``. One state, m."""
    cdef fc_rule r = settings(number("lr", lr, 0), number("beta1", beta1, 0, 1),
                              number("beta2", beta2, 0, 1))
    segments.step(LION, &r, 1, r.rate)


def weight_sums(Segments segments not None):
    """Σ|w| and Σw² of every parameter, (parameters, 2), in double; the gradients are not read."""
    cdef fc_rule none = settings(0)
    cdef Py_ssize_t i
    segments.sweep(SUMS, &none)
    sums = np.zeros((len(segments), 2))
    for i in range(segments.count):
        sums[segments.chunks[i].owner, 0] += segments.sums[2 * i]
        sums[segments.chunks[i].owner, 1] += segments.sums[2 * i + 1]
    return sums


cdef inline void visit_f32(const Chunk *k, const fc_pull *p, int kind, const fc_rule *r,
                           double *sums) noexcept nogil:
    cdef float *w = <float *> k.param
    cdef const float *g = <const float *> k.grad
    cdef float *const *state = <float *const *> k.state
    if kind == SGD:
        f32.sgd(k.count, r, p, w, g, state)
    elif kind == ADAM:
        f32.adam(k.count, r, p, w, g, state)
    elif kind == NADAM:
        f32.nadam(k.count, r, p, w, g, state)
    elif kind == ADAMAX:
        f32.adamax(k.count, r, p, w, g, state)
    elif kind == RMSPROP:
        f32.rmsprop(k.count, r, p, w, g, state)
    elif kind == ADAGRAD:
        f32.adagrad(k.count, r, p, w, g, state)
    elif kind == ADADELTA:
        f32.adadelta(k.count, r, p, w, g, state)
    elif kind == LION:
        f32.lion(k.count, r, p, w, g, state)
    elif kind == SQUARE:
        sums[0] = f32.pull_square(k.count, p, w, g)
    else:
        f32.weight_sums(k.count, w, sums)


cdef inline void visit_f64(const Chunk *k, const fc_pull *p, int kind, const fc_rule *r,
                           double *sums) noexcept nogil:
    cdef double *w = <double *> k.param
    cdef const double *g = <const double *> k.grad
    cdef double *const *state = <double *const *> k.state
    if kind == SGD:
        f64.sgd(k.count, r, p, w, g, state)
    elif kind == ADAM:
        f64.adam(k.count, r, p, w, g, state)
    elif kind == NADAM:
        f64.nadam(k.count, r, p, w, g, state)
    elif kind == ADAMAX:
        f64.adamax(k.count, r, p, w, g, state)
    elif kind == RMSPROP:
        f64.rmsprop(k.count, r, p, w, g, state)
    elif kind == ADAGRAD:
        f64.adagrad(k.count, r, p, w, g, state)
    elif kind == ADADELTA:
        f64.adadelta(k.count, r, p, w, g, state)
    elif kind == LION:
        f64.lion(k.count, r, p, w, g, state)
    elif kind == SQUARE:
        sums[0] = f64.pull_square(k.count, p, w, g)
    else:
        f64.weight_sums(k.count, w, sums)

"""Optimizer updates: one pass over all parameters of a model, cut into chunks for the threads."""

import numpy as np

from cython.parallel cimport parallel, prange
from libc.math cimport pow, sqrt
from libc.stdlib cimport calloc, free

from fastconv._native.dispatch cimport (
    f32, f64, flush_denormals_on, flush_denormals_restore, thread_count,
)

from fastconv._native.checks import number, whole

cdef enum:
    CHUNK = 8192  # elements: 32 KB of each array
    MAX_STATES = 2

ctypedef struct Chunk:
    Py_ssize_t count
    char *param
    char *grad
    char *state[MAX_STATES]

ctypedef struct Settings:
    double rate, first, second, eps
    bint nesterov

cdef enum:
    SGD, ADAM, ADADELTA


cdef class Segments:
    """Parameters with their gradients and states, kept alive and cut into chunks.

    Parameters
    ----------
    params, grads, *states : sequences of arrays
        The i-th arrays of all of them have one shape; all are C-contiguous and of one dtype,
        float32 or float64. The steps below write params and states.
    """

    cdef readonly tuple arrays
    cdef readonly object dtype
    cdef Chunk *chunks
    cdef Py_ssize_t count, elements
    cdef int states

    def __cinit__(self, params, grads, *states):
        lists = [list(arrays) for arrays in (params, grads, *states)]
        if len(states) > MAX_STATES or len({len(arrays) for arrays in lists}) > 1:
            raise ValueError(f"params, grads and at most {MAX_STATES} states have one length")
        self.arrays, self.states = tuple(map(tuple, lists)), len(states)
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
        if self.chunks is NULL:
            raise MemoryError
        self.cut(lists)

    def __dealloc__(self):
        free(self.chunks)

    def __len__(self):
        return len(self.arrays[0])

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
        for group in zip(*lists):
            size = group[0].size
            for start in range(0, size, CHUNK):
                chunk.count = min(CHUNK, size - start)
                for k, array in enumerate(group):
                    address = <size_t> array.ctypes.data + start * itemsize
                    if k == 0:
                        chunk.param = <char *> address
                    elif k == 1:
                        chunk.grad = <char *> address
                    else:
                        chunk.state[<int> k - 2] = <char *> address
                chunk += 1


def sgd(Segments segments not None, lr, momentum=0.0, bint nesterov=False) -> None:
    """``w −= lr g``, or with momentum ``m = momentum m − lr g`` and ``w += m``, in Nesterov's form
    ``w += momentum m − lr g``. One state, m, where momentum is not 0."""
    cdef Settings s
    s.rate, s.first = number("lr", lr, 0), number("momentum", momentum, 0, 1)
    s.nesterov = nesterov
    _need(segments, 1 if s.first else 0)
    update(segments, SGD, s)


def adam(Segments segments not None, lr, beta1, beta2, eps, t) -> None:
    """``m += (1 − beta1) (g − m)``, ``v += (1 − beta2) (g² − v)``,
    ``w −= lr sqrt(1 − beta2^t) / (1 − beta1^t) · m / (sqrt(v) + eps)``, t = 1 in the first step.
    Two states, m and v."""
    cdef Settings s
    cdef double b1 = number("beta1", beta1, 0, 1, True), b2 = number("beta2", beta2, 0, 1, True)
    cdef double steps = whole("t", t)
    s.rate = number("lr", lr, 0) * sqrt(1 - pow(b2, steps)) / (1 - pow(b1, steps))
    s.first, s.second, s.eps = 1 - b1, 1 - b2, number("eps", eps, 0)
    _need(segments, 2)
    update(segments, ADAM, s)


def adadelta(Segments segments not None, lr, rho, eps) -> None:
    """``a = rho a + (1 − rho) g²``, ``u = g sqrt(d + eps) / sqrt(a + eps)``,
    ``d = rho d + (1 − rho) u²``, ``w −= lr u``. Two states, a and d."""
    cdef Settings s
    s.rate, s.first, s.eps = number("lr", lr, 0), number("rho", rho, 0, 1), number("eps", eps, 0)
    s.second = 1 - s.first
    _need(segments, 2)
    update(segments, ADADELTA, s)


cdef _need(Segments segments, int states):
    if len(segments) and segments.states < states:
        raise ValueError(f"this update needs {states} states, the segments have {segments.states}")


cdef update(Segments segments, int rule, Settings s):
    """The chunks over the threads: each element is touched by one of them, once."""
    cdef Py_ssize_t i
    cdef unsigned mode = 0
    cdef int threads = thread_count() if segments.elements > 65536 else 1
    cdef bint double_ = segments.dtype.itemsize == 8
    if threads == 1:
        with nogil:
            mode = flush_denormals_on()
            for i in range(segments.count):
                update_chunk(segments.chunks + i, double_, rule, &s)
            flush_denormals_restore(mode)
        return
    with nogil, parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(segments.count, schedule="static"):
            update_chunk(segments.chunks + i, double_, rule, &s)
        flush_denormals_restore(mode)


cdef inline void update_chunk(const Chunk *k, bint double_, int rule,
                              const Settings *s) noexcept nogil:
    if double_:
        update_f64(k, rule, s)
    else:
        update_f32(k, rule, s)


cdef inline void update_f32(const Chunk *k, int rule, const Settings *s) noexcept nogil:
    cdef float *w = <float *> k.param
    cdef const float *g = <const float *> k.grad
    cdef float *a = <float *> k.state[0]
    cdef float *b = <float *> k.state[1]
    if rule == SGD:
        f32.sgd(k.count, <float> s.rate, <float> s.first, s.nesterov, w, g, a if s.first else NULL)
    elif rule == ADAM:
        f32.adam(k.count, <float> s.rate, <float> s.first, <float> s.second, <float> s.eps, w, g,
                 a, b)
    else:
        f32.adadelta(k.count, <float> s.rate, <float> s.first, <float> s.second, <float> s.eps, w,
                     g, a, b)


cdef inline void update_f64(const Chunk *k, int rule, const Settings *s) noexcept nogil:
    cdef double *w = <double *> k.param
    cdef const double *g = <const double *> k.grad
    cdef double *a = <double *> k.state[0]
    cdef double *b = <double *> k.state[1]
    if rule == SGD:
        f64.sgd(k.count, s.rate, s.first, s.nesterov, w, g, a if s.first else NULL)
    elif rule == ADAM:
        f64.adam(k.count, s.rate, s.first, s.second, s.eps, w, g, a, b)
    else:
        f64.adadelta(k.count, s.rate, s.first, s.second, s.eps, w, g, a, b)

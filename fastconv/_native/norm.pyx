"""Batch normalisation: statistics, the map itself and its gradients.

A residual and a piecewise linear activation behind the normalisation can go with it in its passes.

Rows are all pixels of the batch, n · pixels of them. Sums over rows are cut into at most PIECES
pieces by their number alone and merged in a fixed tree, so that threads change no bit. Scratch
holds two results a piece and channel: ``scratch(channels)`` elements, whatever the batch.
"""

from fastconv._native.activation cimport carried
from fastconv._native.dispatch cimport f32, f64, fc_activation, real
from fastconv._native.mask cimport Mask, drop, mask_of
from fastconv._native.split cimport COLUMNS, PIECE, PIECES, SplitStep, blocks, piece_rows
from fastconv._native.step cimport Context

from fastconv._native.checks import (
    distinct, extent, in_place, number, stride_of, strided, whole,
)

cdef enum:
    MAP_ROWS = 32   # rows of one piece of a map, at least: a piece begins with roots and divisions

cdef enum:  # phases of a step
    SUM, MERGE, MAP


cdef inline real *at(const Context *c, Py_ssize_t slot, Py_ssize_t element, real *_) noexcept nogil:
    """The address of an element of a slot; NULL for slot −1."""
    return <real *> c.ptr[slot] + element if slot >= 0 else NULL


cdef class _Statistics(SplitStep):
    """A sum over rows: pieces, then their merge over blocks of channels."""

    cdef Py_ssize_t pixels, channels

    @staticmethod
    def scratch(channels):
        """Elements of scratch that a step for so many channels needs."""
        return 2 * PIECES * whole("channels", channels)

    cdef void sums(self, Context *c) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.pixels, block = piece_rows(rows)
        self.split(c, SUM, blocks(rows, block), 1, 2.0 * block * self.channels)
        self.split(c, MERGE, self.channels, COLUMNS, 4.0 * blocks(rows, block))


cdef class BatchNormStatistics(_Statistics):
    """Mean and biased variance of each channel over n · pixels rows.

    Parameters
    ----------
    pixels, channels : int
        Of one sample.
    x, x_stride : int
        Slot, (n, pixels, channels), and elements from one pixel to the next.
    mean, variance : int
        Slots, (channels,), written.
    scratch : int
        Slot of ``scratch(channels)`` elements.
    """

    cdef Py_ssize_t x, x_stride, mean, variance, scratch_

    def __init__(self, pixels, channels, x, x_stride, mean, variance, scratch):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        distinct(x=x, mean=mean, variance=variance, scratch=scratch)
        self.reads = (strided(x, pixels, channels, x_stride),)
        self.writes = (extent(mean, 0, channels), extent(variance, 0, channels),
                       extent(scratch, 0, self.scratch(channels)))
        self.x, self.mean, self.variance, self.scratch_ = x, mean, variance, scratch

    cdef void run(self, Context *c) noexcept nogil:
        self.sums(c)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.pixels, block = piece_rows(rows), i
        if phase == MERGE:
            if c.f64:
                f64.moments_merge(rows, block, self.channels, first, last,
                                  <double *> c.ptr[self.scratch_], <double *> c.ptr[self.mean],
                                  <double *> c.ptr[self.variance])
            else:
                f32.moments_merge(rows, block, self.channels, first, last,
                                  <float *> c.ptr[self.scratch_], <float *> c.ptr[self.mean],
                                  <float *> c.ptr[self.variance])
            return
        for i in range(first, last):
            self.piece(c, i * block, min(block, rows - i * block), 2 * i * self.channels)

    cdef void piece(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                    Py_ssize_t out) noexcept nogil:
        cdef Py_ssize_t x = first * self.x_stride
        cdef double *d = <double *> c.ptr[self.scratch_] + out
        cdef float *f = <float *> c.ptr[self.scratch_] + out
        if c.f64:
            f64.moments(rows, self.channels, <double *> c.ptr[self.x] + x, self.x_stride, d,
                        d + self.channels)
        else:
            f32.moments(rows, self.channels, <float *> c.ptr[self.x] + x, self.x_stride, f,
                        f + self.channels)


cdef class BatchNormForward(SplitStep):
    """y = f(gamma (x − mean) / sqrt(variance + eps) + beta + residual); y may be x's slot.

    Parameters
    ----------
    pixels, channels : int
        Of one sample.
    eps : float
    x, y : int
        Slots, (n, pixels, channels).
    x_stride, y_stride : int
        Elements from one pixel to the next.
    mean, variance : int
        Slots, (channels,): the batch's in training, the running ones at inference.
    gamma, beta : int
        Slots, (channels,); −1: ones, zeros.
    activation : (kind, alpha, beta, gamma), optional
        f as in `activation.ActivationForward`: linear (None), relu or leaky_relu.
    residual, residual_stride : int
        Slot, (n, pixels, channels), and its pixel stride; −1: none.
    dropout : (rate, stream), optional
        Of a dropout that follows: y is dropped too, by the mask of `random.DropoutForward`.
    """

    cdef double eps
    cdef fc_activation f
    cdef Mask mask
    cdef Py_ssize_t pixels, channels, x, x_stride, mean, variance, gamma, beta, y, y_stride
    cdef Py_ssize_t residual, residual_stride

    def __init__(self, pixels, channels, eps, x, x_stride, mean, variance, gamma, beta, y,
                 y_stride, activation=None, residual=-1, residual_stride=None, dropout=None):
        self.mask = mask_of(dropout)
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.eps = number("eps", eps, 0)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        in_place(x, x_stride, y, y_stride)
        self.reads = (strided(x, pixels, channels, x_stride), *_vectors(channels, mean, variance),
                      *_vectors(channels, gamma, beta, absent=True))
        self.writes = (strided(y, pixels, channels, y_stride),)
        self.x, self.y, self.mean, self.variance = x, y, mean, variance
        self.gamma, self.beta = gamma, beta
        self.f = carried(activation)
        self.residual, self.residual_stride = whole("residual", residual, -1), channels
        if residual >= 0:
            distinct(residual=residual, y=y)
            self.residual_stride = stride_of("residual_stride", residual_stride, channels)
            self.reads += (strided(residual, pixels, channels, residual_stride),)

    cdef void run(self, Context *c) noexcept nogil:
        self.split(c, MAP, c.n * self.pixels, max(MAP_ROWS, PIECE // self.channels),
                   2.0 * self.channels)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if c.f64:
            norm_forward(self, c, first, last - first, <double *> NULL)
        else:
            norm_forward(self, c, first, last - first, <float *> NULL)
        if self.mask.rate:  # what was written is still in the cache
            drop(c, &self.mask, first * self.channels, last * self.channels, self.channels, self.y,
                 self.y_stride, self.y, self.y_stride)


cdef void norm_forward(BatchNormForward s, Context *c, Py_ssize_t first, Py_ssize_t rows,
                       real *_) noexcept nogil:
    cdef real *x = at(c, s.x, first * s.x_stride, _)
    cdef real *y = at(c, s.y, first * s.y_stride, _)
    cdef real *residual = at(c, s.residual, first * s.residual_stride, _)
    cdef real *mean = at(c, s.mean, 0, _)
    cdef real *variance = at(c, s.variance, 0, _)
    cdef real *gamma = at(c, s.gamma, 0, _)
    cdef real *beta = at(c, s.beta, 0, _)
    if real is float:
        f32.norm_forward(rows, s.channels, <float> s.eps, x, s.x_stride, mean, variance, gamma,
                         beta, residual, s.residual_stride, &s.f, y, s.y_stride)
    else:
        f64.norm_forward(rows, s.channels, s.eps, x, s.x_stride, mean, variance, gamma, beta,
                         residual, s.residual_stride, &s.f, y, s.y_stride)


def _vectors(channels, *slots, absent=False):
    """Extents of slots of one value a channel; with ``absent`` a slot may be −1."""
    for slot in slots:
        whole("slot", slot, -1 if absent else 0)
    return tuple(extent(slot, 0, channels) for slot in slots if slot >= 0)


cdef class BatchNormScale(SplitStep):
    """scale = gamma / sqrt(variance + eps): what the epilogue of a product multiplies by.

    Parameters
    ----------
    channels : int
    eps : float
    variance, gamma, scale : int
        Slots, (channels,); gamma −1: ones.
    """

    cdef double eps
    cdef Py_ssize_t channels, variance, gamma, scale

    def __init__(self, channels, eps, variance, gamma, scale):
        self.channels, self.eps = whole("channels", channels), number("eps", eps, 0)
        self.reads = (*_vectors(channels, variance), *_vectors(channels, gamma, absent=True))
        self.writes = _vectors(channels, scale)
        self.variance, self.gamma, self.scale = variance, gamma, scale

    cdef void run(self, Context *c) noexcept nogil:
        if c.f64:
            f64.norm_scales(self.channels, self.eps, <double *> c.ptr[self.variance],
                            at(c, self.gamma, 0, <double *> NULL), <double *> c.ptr[self.scale])
        else:
            f32.norm_scales(self.channels, <float> self.eps, <float *> c.ptr[self.variance],
                            at(c, self.gamma, 0, <float *> NULL), <float *> c.ptr[self.scale])


cdef class BatchNormUpdateRunning(SplitStep):
    """running = momentum · running + (1 − momentum) · batch, for mean and variance.

    Parameters
    ----------
    channels : int
    momentum : float
        Weight of the old value.
    mean, variance, running_mean, running_variance : int
        Slots, (channels,).
    """

    cdef double momentum
    cdef Py_ssize_t channels, mean, variance, running_mean, running_variance

    def __init__(self, channels, momentum, mean, variance, running_mean, running_variance):
        self.channels = whole("channels", channels)
        self.momentum = number("momentum", momentum, 0, 1)
        distinct(mean=mean, variance=variance, running_mean=running_mean,
                 running_variance=running_variance)
        running = _vectors(channels, running_mean, running_variance)
        self.reads = (*_vectors(channels, mean, variance), *running)
        self.writes = running
        self.mean, self.variance = mean, variance
        self.running_mean, self.running_variance = running_mean, running_variance

    cdef void run(self, Context *c) noexcept nogil:
        self.update(c, self.mean, self.running_mean)
        self.update(c, self.variance, self.running_variance)

    cdef void update(self, Context *c, Py_ssize_t batch, Py_ssize_t running) noexcept nogil:
        if c.f64:
            f64.norm_update_running(self.channels, self.momentum, <double *> c.ptr[batch],
                                    <double *> c.ptr[running])
        else:
            f32.norm_update_running(self.channels, <float> self.momentum, <float *> c.ptr[batch],
                                    <float *> c.ptr[running])


cdef class BatchNormBackward(_Statistics):
    """Gradients of `BatchNormForward`; dy and dx may be one slot.

    With x̂ the normalised x, m = n · pixels and g = dy f': dbeta = Σ g, dgamma = Σ g x̂ and
    dx = gamma / sqrt(variance + eps) · (g − dbeta / m − x̂ dgamma / m). The residual receives g.

    Parameters
    ----------
    pixels, channels, eps, x, x_stride, mean, variance, gamma
        As in `BatchNormForward`.
    dy, dy_stride, dx, dx_stride : int
        Slots, (n, pixels, channels), and their pixel strides; dx −1: not wanted.
    dgamma, dbeta : int
        Slots, (channels,); −1: not wanted.
    scratch : int
        Slot of ``scratch(channels)`` elements.
    accumulate : bool
        Add to dgamma and dbeta, as a run with ``accumulate`` does; else they are overwritten.
    batch_statistics : bool
        Mean and variance are the batch's own; False: constants, dx = gamma / sqrt(…) · g.
    activation, beta
        As in `BatchNormForward`: f' is taken from its value, which is computed again from x.
    y, y_stride, dz, dz_stride : int
        Where forward added a residual: slots of its output, from which f' is taken instead, and of
        g, which is written; dz may be dy's slot. −1: no residual.
    """

    cdef double eps
    cdef fc_activation f
    cdef bint accumulate, batch_statistics
    cdef Py_ssize_t x, x_stride, mean, variance, gamma, beta, dy, dy_stride, dx, dx_stride
    cdef Py_ssize_t y, y_stride, dz, dz_stride, dgamma, dbeta, scratch_

    def __init__(self, pixels, channels, eps, x, x_stride, mean, variance, gamma, dy, dy_stride,
                 dx, dx_stride, dgamma, dbeta, scratch, bint accumulate=False,
                 bint batch_statistics=True, activation=None, beta=-1, y=-1, y_stride=None, dz=-1,
                 dz_stride=None):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.eps = number("eps", eps, 0)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.dy_stride = stride_of("dy_stride", dy_stride, channels)
        self.dx_stride = stride_of("dx_stride", dx_stride, channels)
        in_place(dy, dy_stride, dx, dx_stride)
        in_place(x, x_stride, dx, dx_stride)
        grads = _vectors(channels, dgamma, dbeta, absent=True)
        self.reads = (strided(x, pixels, channels, x_stride), *_vectors(channels, mean, variance),
                      *_vectors(channels, gamma, beta, absent=True),
                      strided(dy, pixels, channels, dy_stride))
        self.writes = (*grads, extent(scratch, 0, self.scratch(channels)))
        if whole("dx", dx, -1) >= 0:
            self.writes += (strided(dx, pixels, channels, dx_stride),)
        self.x, self.mean, self.variance, self.gamma, self.beta = x, mean, variance, gamma, beta
        self.dy, self.dx, self.dgamma, self.dbeta, self.scratch_ = dy, dx, dgamma, dbeta, scratch
        self.accumulate, self.batch_statistics = accumulate, batch_statistics
        self.f = carried(activation)
        self.take_residual(y, y_stride, dz, dz_stride)

    cdef take_residual(self, y, y_stride, dz, dz_stride):
        self.y, self.dz = whole("y", y, -1), whole("dz", dz, -1)
        self.y_stride = self.dz_stride = self.channels
        if (y < 0) != (dz < 0):
            raise ValueError(f"y and dz come together, not {y} and {dz}")
        if y < 0:
            return
        distinct(x=self.x, y=y, dz=dz)
        self.y_stride = stride_of("y_stride", y_stride, self.channels)
        self.dz_stride = stride_of("dz_stride", dz_stride, self.channels)
        in_place(self.dy, self.dy_stride, dz, dz_stride)
        in_place(dz, dz_stride, self.dx, self.dx_stride)
        self.reads += (strided(y, self.pixels, self.channels, y_stride),)
        self.writes += (strided(dz, self.pixels, self.channels, dz_stride),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef bint sums = self.dgamma >= 0 or self.dbeta >= 0 or self.dz >= 0
        if sums or (self.dx >= 0 and self.batch_statistics):
            self.sums(c)
        if self.dx >= 0:
            self.split(c, MAP, c.n * self.pixels, max(MAP_ROWS, PIECE // self.channels),
                       3.0 * self.channels)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.pixels, block = piece_rows(rows), i
        if phase == SUM:
            for i in range(first, last):
                if c.f64:
                    norm_sums(self, c, i, block, min(block, rows - i * block), <double *> NULL)
                else:
                    norm_sums(self, c, i, block, min(block, rows - i * block), <float *> NULL)
        elif phase == MERGE:
            self.merge(c, blocks(rows, block), first, last)
        elif c.f64:
            norm_backward(self, c, first, last - first, 1.0 / rows, <double *> NULL)
        else:
            norm_backward(self, c, first, last - first, 1.0 / rows, <float *> NULL)

    cdef void merge(self, Context *c, Py_ssize_t pieces, Py_ssize_t first,
                    Py_ssize_t last) noexcept nogil:
        cdef bint add = self.accumulate or c.accumulate
        if c.f64:
            f64.norm_sums_merge(pieces, self.channels, first, last, add,
                                <double *> c.ptr[self.scratch_],
                                at(c, self.dgamma, 0, <double *> NULL),
                                at(c, self.dbeta, 0, <double *> NULL))
        else:
            f32.norm_sums_merge(pieces, self.channels, first, last, add,
                                <float *> c.ptr[self.scratch_],
                                at(c, self.dgamma, 0, <float *> NULL),
                                at(c, self.dbeta, 0, <float *> NULL))


cdef void norm_sums(BatchNormBackward s, Context *c, Py_ssize_t piece, Py_ssize_t block,
                    Py_ssize_t rows, real *_) noexcept nogil:
    """The two sums of a piece, and its g where that is wanted."""
    cdef Py_ssize_t first = piece * block
    cdef real *x = at(c, s.x, first * s.x_stride, _)
    cdef real *y = at(c, s.y, first * s.y_stride, _)
    cdef real *dy = at(c, s.dy, first * s.dy_stride, _)
    cdef real *dz = at(c, s.dz, first * s.dz_stride, _)
    cdef real *out = at(c, s.scratch_, 2 * piece * s.channels, _)
    cdef real *mean = at(c, s.mean, 0, _)
    cdef real *variance = at(c, s.variance, 0, _)
    cdef real *gamma = at(c, s.gamma, 0, _)
    cdef real *beta = at(c, s.beta, 0, _)
    if real is float:
        f32.norm_sums(rows, s.channels, <float> s.eps, x, s.x_stride, mean, variance, gamma, beta,
                      &s.f, y, s.y_stride, dy, s.dy_stride, dz, s.dz_stride, out, out + s.channels)
    else:
        f64.norm_sums(rows, s.channels, s.eps, x, s.x_stride, mean, variance, gamma, beta,
                      &s.f, y, s.y_stride, dy, s.dy_stride, dz, s.dz_stride, out, out + s.channels)


cdef void norm_backward(BatchNormBackward s, Context *c, Py_ssize_t first, Py_ssize_t rows,
                        double weight, real *_) noexcept nogil:
    """dx from dy; from g, where the sums have written it."""
    cdef fc_activation f = s.f
    cdef real *x = at(c, s.x, first * s.x_stride, _)
    cdef real *dy = at(c, s.dy, first * s.dy_stride, _)
    cdef real *dx = at(c, s.dx, first * s.dx_stride, _)
    cdef real *sums = at(c, s.scratch_ if s.batch_statistics else -1, 0, _)
    cdef real *mean = at(c, s.mean, 0, _)
    cdef real *variance = at(c, s.variance, 0, _)
    cdef real *gamma = at(c, s.gamma, 0, _)
    cdef real *beta = at(c, s.beta, 0, _)
    cdef Py_ssize_t dy_stride = s.dy_stride
    if s.dz >= 0:
        dy, dy_stride = at(c, s.dz, first * s.dz_stride, _), s.dz_stride
        f.kind = 0  # linear
    if real is float:
        f32.norm_backward(rows, s.channels, <float> s.eps, <float> weight, x, s.x_stride, mean,
                          variance, gamma, beta, &f, sums,
                          sums + s.channels if sums is not NULL else NULL, dy, dy_stride, dx,
                          s.dx_stride)
    else:
        f64.norm_backward(rows, s.channels, s.eps, weight, x, s.x_stride, mean, variance, gamma,
                          beta, &f, sums, sums + s.channels if sums is not NULL else NULL, dy,
                          dy_stride, dx, s.dx_stride)

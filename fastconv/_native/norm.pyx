"""Batch normalisation: statistics, the map itself and its gradients.

Rows are all pixels of the batch, n · pixels of them. Sums over rows are cut into at most PIECES
pieces by their number alone and merged in a fixed tree, so that threads change no bit. Scratch
holds two results a piece and channel: ``scratch(channels)`` elements, whatever the batch.
"""

from fastconv._native.dispatch cimport f32, f64
from fastconv._native.split cimport PIECE, RowStep, SplitStep, blocks
from fastconv._native.step cimport Context

from fastconv._native.checks import (
    distinct, extent, in_place, number, stride_of, strided, whole,
)

cdef enum:
    PIECES = 64     # of a sum, at most: as many threads find work
    SHORTEST = 128  # rows of a piece, at least
    COLUMNS = 64    # channels of one piece of a merge

cdef enum:  # phases of a step
    SUM, MERGE, MAP


cdef inline Py_ssize_t piece_rows(Py_ssize_t rows) noexcept nogil:
    """Rows of one piece of a sum over ``rows``."""
    return max(SHORTEST, blocks(rows, PIECES))


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


cdef class BatchNormForward(RowStep):
    """y = gamma (x − mean) / sqrt(variance + eps) + beta; y may be x's slot.

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
    """

    cdef double eps
    cdef Py_ssize_t x, x_stride, mean, variance, gamma, beta, y, y_stride

    def __init__(self, pixels, channels, eps, x, x_stride, mean, variance, gamma, beta, y,
                 y_stride):
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
        self.cost = 2

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t x = first * self.x_stride, y = first * self.y_stride
        if c.f64:
            f64.norm_forward(rows, cols, self.eps, <double *> c.ptr[self.x] + x, self.x_stride,
                             <double *> c.ptr[self.mean], <double *> c.ptr[self.variance],
                             <double *> c.ptr[self.gamma] if self.gamma >= 0 else NULL,
                             <double *> c.ptr[self.beta] if self.beta >= 0 else NULL,
                             <double *> c.ptr[self.y] + y, self.y_stride)
        else:
            f32.norm_forward(rows, cols, <float> self.eps, <float *> c.ptr[self.x] + x,
                             self.x_stride, <float *> c.ptr[self.mean],
                             <float *> c.ptr[self.variance],
                             <float *> c.ptr[self.gamma] if self.gamma >= 0 else NULL,
                             <float *> c.ptr[self.beta] if self.beta >= 0 else NULL,
                             <float *> c.ptr[self.y] + y, self.y_stride)


def _vectors(channels, *slots, absent=False):
    """Extents of slots of one value a channel; with ``absent`` a slot may be −1."""
    for slot in slots:
        whole("slot", slot, -1 if absent else 0)
    return tuple(extent(slot, 0, channels) for slot in slots if slot >= 0)


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

    With x̂ the normalised x and m = n · pixels: dbeta = Σ dy, dgamma = Σ dy x̂ and
    dx = gamma / sqrt(variance + eps) · (dy − dbeta / m − x̂ dgamma / m).

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
        Mean and variance are the batch's own; False: constants, dx = gamma / sqrt(…) · dy.
    """

    cdef double eps
    cdef bint accumulate, batch_statistics
    cdef Py_ssize_t x, x_stride, mean, variance, gamma, dy, dy_stride, dx, dx_stride
    cdef Py_ssize_t dgamma, dbeta, scratch_

    def __init__(self, pixels, channels, eps, x, x_stride, mean, variance, gamma, dy, dy_stride,
                 dx, dx_stride, dgamma, dbeta, scratch, bint accumulate=False,
                 bint batch_statistics=True):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.eps = number("eps", eps, 0)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.dy_stride = stride_of("dy_stride", dy_stride, channels)
        self.dx_stride = stride_of("dx_stride", dx_stride, channels)
        in_place(dy, dy_stride, dx, dx_stride)
        in_place(x, x_stride, dx, dx_stride)
        grads = _vectors(channels, dgamma, dbeta, absent=True)
        self.reads = (strided(x, pixels, channels, x_stride), *_vectors(channels, mean, variance),
                      *_vectors(channels, gamma, absent=True),
                      strided(dy, pixels, channels, dy_stride))
        self.writes = (*grads, extent(scratch, 0, self.scratch(channels)))
        if whole("dx", dx, -1) >= 0:
            self.writes += (strided(dx, pixels, channels, dx_stride),)
        self.x, self.mean, self.variance, self.gamma = x, mean, variance, gamma
        self.dy, self.dx, self.dgamma, self.dbeta, self.scratch_ = dy, dx, dgamma, dbeta, scratch
        self.accumulate, self.batch_statistics = accumulate, batch_statistics

    cdef void run(self, Context *c) noexcept nogil:
        if self.dgamma >= 0 or self.dbeta >= 0 or (self.dx >= 0 and self.batch_statistics):
            self.sums(c)
        if self.dx >= 0:
            self.split(c, MAP, c.n * self.pixels, max(1, PIECE // self.channels),
                       3.0 * self.channels)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.pixels, block = piece_rows(rows), i
        if phase == SUM:
            for i in range(first, last):
                self.piece(c, i * block, min(block, rows - i * block), 2 * i * self.channels)
        elif phase == MERGE:
            self.merge(c, blocks(rows, block), first, last)
        elif self.batch_statistics:
            self.map(c, first, last - first, 1.0 / rows)
        else:
            self.map_constant(c, first, last - first)

    cdef void piece(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                    Py_ssize_t out) noexcept nogil:
        cdef Py_ssize_t x = first * self.x_stride, dy = first * self.dy_stride
        cdef double *d = <double *> c.ptr[self.scratch_] + out
        cdef float *f = <float *> c.ptr[self.scratch_] + out
        if c.f64:
            f64.norm_sums(rows, self.channels, self.eps, <double *> c.ptr[self.x] + x,
                          self.x_stride, <double *> c.ptr[self.mean],
                          <double *> c.ptr[self.variance], <double *> c.ptr[self.dy] + dy,
                          self.dy_stride, d, d + self.channels)
        else:
            f32.norm_sums(rows, self.channels, <float> self.eps, <float *> c.ptr[self.x] + x,
                          self.x_stride, <float *> c.ptr[self.mean],
                          <float *> c.ptr[self.variance], <float *> c.ptr[self.dy] + dy,
                          self.dy_stride, f, f + self.channels)

    cdef void merge(self, Context *c, Py_ssize_t pieces, Py_ssize_t first,
                    Py_ssize_t last) noexcept nogil:
        cdef bint add = self.accumulate or c.accumulate
        if c.f64:
            f64.norm_sums_merge(pieces, self.channels, first, last, add,
                                <double *> c.ptr[self.scratch_],
                                <double *> c.ptr[self.dgamma] if self.dgamma >= 0 else NULL,
                                <double *> c.ptr[self.dbeta] if self.dbeta >= 0 else NULL)
        else:
            f32.norm_sums_merge(pieces, self.channels, first, last, add,
                                <float *> c.ptr[self.scratch_],
                                <float *> c.ptr[self.dgamma] if self.dgamma >= 0 else NULL,
                                <float *> c.ptr[self.dbeta] if self.dbeta >= 0 else NULL)

    cdef void map(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                  double weight) noexcept nogil:
        cdef Py_ssize_t x = first * self.x_stride, dy = first * self.dy_stride
        cdef Py_ssize_t dx = first * self.dx_stride
        cdef double *d = <double *> c.ptr[self.scratch_]
        cdef float *f = <float *> c.ptr[self.scratch_]
        if c.f64:
            f64.norm_backward(rows, self.channels, self.eps, weight,
                              <double *> c.ptr[self.x] + x, self.x_stride,
                              <double *> c.ptr[self.mean], <double *> c.ptr[self.variance],
                              <double *> c.ptr[self.gamma] if self.gamma >= 0 else NULL,
                              d, d + self.channels, <double *> c.ptr[self.dy] + dy,
                              self.dy_stride, <double *> c.ptr[self.dx] + dx, self.dx_stride)
        else:
            f32.norm_backward(rows, self.channels, <float> self.eps, <float> weight,
                              <float *> c.ptr[self.x] + x, self.x_stride,
                              <float *> c.ptr[self.mean], <float *> c.ptr[self.variance],
                              <float *> c.ptr[self.gamma] if self.gamma >= 0 else NULL,
                              f, f + self.channels, <float *> c.ptr[self.dy] + dy,
                              self.dy_stride, <float *> c.ptr[self.dx] + dx, self.dx_stride)

    cdef void map_constant(self, Context *c, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
        cdef Py_ssize_t dy = first * self.dy_stride, dx = first * self.dx_stride
        if c.f64:
            f64.norm_backward_constant(
                rows, self.channels, self.eps, <double *> c.ptr[self.variance],
                <double *> c.ptr[self.gamma] if self.gamma >= 0 else NULL,
                <double *> c.ptr[self.dy] + dy, self.dy_stride,
                <double *> c.ptr[self.dx] + dx, self.dx_stride)
        else:
            f32.norm_backward_constant(
                rows, self.channels, <float> self.eps, <float *> c.ptr[self.variance],
                <float *> c.ptr[self.gamma] if self.gamma >= 0 else NULL,
                <float *> c.ptr[self.dy] + dy, self.dy_stride,
                <float *> c.ptr[self.dx] + dx, self.dx_stride)

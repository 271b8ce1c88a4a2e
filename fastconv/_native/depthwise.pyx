"""Depthwise convolutions: the rows and pieces that are handed to the kernels.

Every channel has a window of its own: the geometry is a `ConvGeometry` whose groups, channels and
filters are one number. Forward and the input gradient are cut into rows of what they write. The
weight gradient adds over the batch: its rows fall into pieces, a function of shape and batch size
only, each with a copy of dw; the copies are added in order.
"""

from fastconv._native.dispatch cimport f32, f64, fc_epilogue, fc_window, real
from fastconv._native.epilogue cimport Epilogue
from fastconv._native.split cimport SplitStep, blocks
from fastconv._native.step cimport FMAS, Context

import math

from fastconv._native.checks import distinct, extent, stride_of, strided, whole

cdef enum:
    ROWS = 4            # of an image are one task: neighbours share what they read
    PIECES = 32         # of a batch, at most,
    PIECE = 64          # each of about so many pixels
    MERGED = 1024       # weights of one task when pieces are added
    PIXELS = 64         # of one task when channels are repeated


cdef class _Depthwise(SplitStep):
    """What the three directions share: the geometry as the kernels read it."""

    algorithm = "depthwise"
    cdef object geometry
    cdef fc_window window
    cdef Py_ssize_t channels, x_stride, y_stride, taps
    cdef Py_ssize_t[3] size     # of the image whose rows are counted

    cdef take(self, geometry, size):
        if not geometry.groups == geometry.channels == geometry.filters:
            raise ValueError(
                f"a depthwise geometry has as many groups as channels and filters, not groups="
                f"{geometry.groups}, channels={geometry.channels}, filters={geometry.filters}")
        self.window.in_, self.window.out = geometry.in_size, geometry.out_size
        self.window.window, self.window.stride = geometry.kernel, geometry.strides
        self.window.dilation = geometry.dilation
        self.window.pad = [before for before, _ in geometry.pads]
        self.channels, self.taps = geometry.channels, math.prod(geometry.kernel)
        self.x_stride, self.y_stride = geometry.x_stride, geometry.y_stride
        self.size, self.geometry = size, geometry

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef double row = self.size[2] * self.channels * (2 + self.taps / <double> FMAS)
        self.split(c, 0, c.n * self.size[0] * self.size[1], ROWS, row)


cdef class DepthwiseForward(_Depthwise):
    """y = x ∗ weight, channel by channel, and the epilogue.

    Parameters
    ----------
    geometry : ConvGeometry
        With as many groups as channels and filters.
    x, y : slot
        (N, D, H, W, C) and (N, OD, OH, OW, C), with the geometry's pixel strides.
    weight : slot
        (KD, KH, KW, C).
    bias, activation, norm, residual, residual_stride
        Of `epilogue.Epilogue`.
    """

    cdef Py_ssize_t x, weight, y
    cdef Epilogue epilogue

    def __init__(self, geometry, *, x, weight, y, **epilogue):
        self.take(geometry, geometry.out_size)
        distinct(x=x, weight=weight, y=y)
        self.epilogue = Epilogue(math.prod(self.size), self.channels, y, **epilogue)
        self.reads = (geometry.x_extent(x), extent(weight, 0, geometry.weight_size),
                      *self.epilogue.reads)
        self.writes = (geometry.y_extent(y),)
        self.x, self.weight, self.y = x, weight, y

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef fc_epilogue e = self.epilogue.bound(c)
        if c.f64:
            f64.depthwise_forward(&self.window, self.channels, <double *> c.ptr[self.x],
                                  self.x_stride, <double *> c.ptr[self.weight], &e,
                                  <double *> c.ptr[self.y], self.y_stride, first, last)
        else:
            f32.depthwise_forward(&self.window, self.channels, <float *> c.ptr[self.x],
                                  self.x_stride, <float *> c.ptr[self.weight], &e,
                                  <float *> c.ptr[self.y], self.y_stride, first, last)


cdef class DepthwiseInputGradient(_Depthwise):
    """dx: each pixel receives from every output whose window covered it; overwritten.

    Parameters
    ----------
    geometry : ConvGeometry
        With as many groups as channels and filters.
    dy, dx : slot
        (N, OD, OH, OW, C) and (N, D, H, W, C), with the geometry's pixel strides.
    weight : slot
        (KD, KH, KW, C).
    """

    cdef Py_ssize_t dy, weight, dx

    def __init__(self, geometry, *, dy, weight, dx):
        self.take(geometry, geometry.in_size)
        distinct(dy=dy, weight=weight, dx=dx)
        self.reads = (geometry.y_extent(dy), extent(weight, 0, geometry.weight_size))
        self.writes = (geometry.x_extent(dx),)
        self.dy, self.weight, self.dx = dy, weight, dx

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if c.f64:
            f64.depthwise_input_gradient(&self.window, self.channels, <double *> c.ptr[self.dy],
                                         self.y_stride, <double *> c.ptr[self.weight],
                                         <double *> c.ptr[self.dx], self.x_stride, first, last)
        else:
            f32.depthwise_input_gradient(&self.window, self.channels, <float *> c.ptr[self.dy],
                                         self.y_stride, <float *> c.ptr[self.weight],
                                         <float *> c.ptr[self.dx], self.x_stride, first, last)


cdef class DepthwiseWeightGradient(_Depthwise):
    """dw: each weight's gradient is the sum over the outputs that it touched of x · dy.

    Parameters
    ----------
    geometry : ConvGeometry
        With as many groups as channels and filters.
    x, dy : slot
        (N, D, H, W, C) and (N, OD, OH, OW, C), with the geometry's pixel strides.
    dw : slot
        (KD, KH, KW, C).
    scratch : slot
        ``DepthwiseWeightGradient.scratch_size(geometry)`` elements.
    accumulate : bool
        Add to dw instead of overwriting it; so does a pass that accumulates.
    """

    cdef Py_ssize_t x, dy, dw, scratch
    cdef bint accumulate

    def __init__(self, geometry, *, x, dy, dw, scratch, bint accumulate=False):
        self.take(geometry, geometry.out_size)
        distinct(x=x, dy=dy, dw=dw, scratch=scratch)
        self.reads = (geometry.x_extent(x), geometry.y_extent(dy))
        self.writes = (extent(dw, 0, geometry.weight_size),
                       extent(scratch, 0, self.scratch_size(geometry)))
        self.x, self.dy, self.dw, self.scratch = x, dy, dw, scratch
        self.accumulate = accumulate

    @staticmethod
    def scratch_size(geometry):
        """Elements of scratch for this geometry and any batch."""
        return PIECES * geometry.weight_size

    cdef Py_ssize_t pieces(self, Py_ssize_t n) noexcept nogil:
        cdef Py_ssize_t rows = n * self.size[0] * self.size[1]
        return min(min(rows, PIECES), blocks(rows * self.size[2], PIECE))

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t pieces = self.pieces(c.n), size = self.taps * self.channels
        cdef double pixels = c.n * self.size[0] * self.size[1] * self.size[2]
        self.split(c, 0, pieces, 1,
                   pixels / pieces * self.channels * (2 + self.taps / <double> FMAS))
        self.split(c, 1, size, MERGED, pieces)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t piece, pieces = self.pieces(c.n), size = self.taps * self.channels
        cdef bint accumulate = self.accumulate or c.accumulate
        if phase == 0:
            for piece in range(first, last):
                self.piece(c, piece, pieces)
        elif c.f64:
            f64.sum_pieces(pieces, size, first, last, accumulate,
                           <double *> c.ptr[self.scratch], <double *> c.ptr[self.dw])
        else:
            f32.sum_pieces(pieces, size, first, last, accumulate,
                           <float *> c.ptr[self.scratch], <float *> c.ptr[self.dw])

    cdef void piece(self, Context *c, Py_ssize_t piece, Py_ssize_t pieces) noexcept nogil:
        """One piece of the rows, into its copy of dw."""
        cdef Py_ssize_t rows = c.n * self.size[0] * self.size[1]
        cdef Py_ssize_t first = rows * piece // pieces, last = rows * (piece + 1) // pieces
        cdef Py_ssize_t copy = piece * self.taps * self.channels
        if c.f64:
            f64.depthwise_weight_gradient(
                &self.window, self.channels, <double *> c.ptr[self.x], self.x_stride,
                <double *> c.ptr[self.dy], self.y_stride, <double *> c.ptr[self.scratch] + copy,
                first, last)
        else:
            f32.depthwise_weight_gradient(
                &self.window, self.channels, <float *> c.ptr[self.x], self.x_stride,
                <float *> c.ptr[self.dy], self.y_stride, <float *> c.ptr[self.scratch] + copy,
                first, last)


# ---- depth multipliers ---------------------------------------------------------------------------

cdef void repeat(const real *x, Py_ssize_t x_stride, Py_ssize_t channels, Py_ssize_t times,
                 real *y, Py_ssize_t y_stride, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t p, i, m
    for p in range(first, last):
        for i in range(channels):
            for m in range(times):
                y[p * y_stride + i * times + m] = x[p * x_stride + i]


cdef void fold(const real *y, Py_ssize_t y_stride, Py_ssize_t channels, Py_ssize_t times,
               real *x, Py_ssize_t x_stride, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    cdef Py_ssize_t p, i, m
    cdef real s
    for p in range(first, last):
        for i in range(channels):
            s = 0
            for m in range(times):
                s += y[p * y_stride + i * times + m]
            x[p * x_stride + i] = s


cdef class _Repeated(SplitStep):
    """Pixels of ``channels``, and of each channel ``times`` over, side by side."""

    cdef Py_ssize_t pixels, channels, times, narrow_stride, wide_stride, narrow, wide

    cdef take(self, pixels, channels, times, narrow, narrow_stride, wide, wide_stride):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.times = whole("times", times)
        self.narrow_stride = stride_of("stride", narrow_stride, channels)
        self.wide_stride = stride_of("stride", wide_stride, channels * times)
        distinct(narrow=narrow, wide=wide)
        self.narrow, self.wide = narrow, wide
        return (strided(narrow, pixels, channels, narrow_stride),
                strided(wide, pixels, channels * times, wide_stride))

    cdef void run(self, Context *c) noexcept nogil:
        self.split(c, 0, c.n * self.pixels, PIXELS, self.channels * self.times)


cdef class RepeatChannels(_Repeated):
    """y[p, c · times + m] = x[p, c]: what a depth multiplier makes of its input.

    Parameters
    ----------
    pixels, channels, times : int
    x, x_stride, y, y_stride : int
        Slots (n, pixels, channels) and (n, pixels, channels · times) with their pixel strides.
    """

    def __init__(self, pixels, channels, times, x, x_stride, y, y_stride):
        read, write = self.take(pixels, channels, times, x, x_stride, y, y_stride)
        self.reads, self.writes = (read,), (write,)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if c.f64:
            repeat(<double *> c.ptr[self.narrow], self.narrow_stride, self.channels, self.times,
                   <double *> c.ptr[self.wide], self.wide_stride, first, last)
        else:
            repeat(<float *> c.ptr[self.narrow], self.narrow_stride, self.channels, self.times,
                   <float *> c.ptr[self.wide], self.wide_stride, first, last)


cdef class FoldChannels(_Repeated):
    """dx[p, c] = Σ_m dy[p, c · times + m]: the gradient of `RepeatChannels`.

    Parameters
    ----------
    pixels, channels, times : int
    dy, dy_stride, dx, dx_stride : int
        Slots (n, pixels, channels · times) and (n, pixels, channels) with their pixel strides.
    """

    def __init__(self, pixels, channels, times, dy, dy_stride, dx, dx_stride):
        write, read = self.take(pixels, channels, times, dx, dx_stride, dy, dy_stride)
        self.reads, self.writes = (read,), (write,)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if c.f64:
            fold(<double *> c.ptr[self.wide], self.wide_stride, self.channels, self.times,
                 <double *> c.ptr[self.narrow], self.narrow_stride, first, last)
        else:
            fold(<float *> c.ptr[self.wide], self.wide_stride, self.channels, self.times,
                 <float *> c.ptr[self.narrow], self.narrow_stride, first, last)

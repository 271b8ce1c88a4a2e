"""Copies, sums and scalings of tensors; transposes; padding; the casts that bring samples in."""

import numpy as np

from cython cimport floating
from libc.stdint cimport int32_t, int64_t

from fastconv._native.activation cimport carried
from fastconv._native.dispatch cimport f32, f64, fc_activation
from fastconv._native.mask cimport Mask, drop, mask_of
from fastconv._native.split cimport PIECE, RowStep, SplitStep, blocks
from fastconv._native.step cimport Context, fail

from fastconv._native.checks import (
    distinct, extent, in_place, number, pairs, stride_of, strided, triple, whole,
)


cdef class Copy(RowStep):
    """y = x, for tensors that do not overlap.

    Parameters
    ----------
    pixels, channels : int
        Of one sample.
    x, y : int
        Slots, (n, pixels, channels).
    x_stride, y_stride : int
        Elements from one pixel to the next.
    """

    cdef Py_ssize_t x, x_stride, y, y_stride

    def __init__(self, pixels, channels, x, x_stride, y, y_stride):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        distinct(x=x, y=y)
        self.reads = (strided(x, pixels, channels, x_stride),)
        self.writes = (strided(y, pixels, channels, y_stride),)
        self.x, self.y = x, y
        self.flat = x_stride == y_stride == channels
        self.cost = 1

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        copy(c, rows, cols, self.x, self.at(first, self.x_stride), self.x_stride,
             self.y, self.at(first, self.y_stride), self.y_stride)


cdef inline void copy(Context *c, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t x_slot, Py_ssize_t x,
                      Py_ssize_t x_stride, Py_ssize_t y_slot, Py_ssize_t y,
                      Py_ssize_t y_stride) noexcept nogil:
    """Rows at elements x and y of two slots."""
    if c.f64:
        f64.copy(rows, cols, <double *> c.ptr[x_slot] + x, x_stride,
                 <double *> c.ptr[y_slot] + y, y_stride)
    else:
        f32.copy(rows, cols, <float *> c.ptr[x_slot] + x, x_stride,
                 <float *> c.ptr[y_slot] + y, y_stride)


cdef inline void fill(Context *c, Py_ssize_t rows, Py_ssize_t cols, double value, Py_ssize_t y_slot,
                      Py_ssize_t y, Py_ssize_t y_stride) noexcept nogil:
    """Rows at element y of a slot."""
    if c.f64:
        f64.fill(rows, cols, value, <double *> c.ptr[y_slot] + y, y_stride)
    else:
        f32.fill(rows, cols, <float> value, <float *> c.ptr[y_slot] + y, y_stride)


cdef class Add(RowStep):
    """y = f(a + b); y may be the slot of a or b.

    Parameters as in `Copy`; f is linear (None), relu or leaky_relu, as (kind, alpha, beta, gamma)
    of `activation.ActivationForward`. ``dropout``, (rate, stream), is one that follows: y is
    dropped too, by the mask of `random.DropoutForward`.
    """

    cdef fc_activation f
    cdef Mask mask
    cdef Py_ssize_t a, a_stride, b, b_stride, y, y_stride

    def __init__(self, pixels, channels, a, a_stride, b, b_stride, y, y_stride, activation=None,
                 dropout=None):
        self.f = carried(activation)
        self.mask = mask_of(dropout)
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.a_stride = stride_of("a_stride", a_stride, channels)
        self.b_stride = stride_of("b_stride", b_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        in_place(a, a_stride, y, y_stride)
        in_place(b, b_stride, y, y_stride)
        self.reads = (strided(a, pixels, channels, a_stride),
                      strided(b, pixels, channels, b_stride))
        self.writes = (strided(y, pixels, channels, y_stride),)
        self.a, self.b, self.y = a, b, y
        self.flat = a_stride == b_stride == y_stride == channels
        self.cost = 5 if self.mask.rate else 1

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t a = self.at(first, self.a_stride), b = self.at(first, self.b_stride)
        cdef Py_ssize_t y = self.at(first, self.y_stride)
        if c.f64:
            f64.add(rows, cols, <double *> c.ptr[self.a] + a, self.a_stride,
                    <double *> c.ptr[self.b] + b, self.b_stride, &self.f,
                    <double *> c.ptr[self.y] + y, self.y_stride)
        else:
            f32.add(rows, cols, <float *> c.ptr[self.a] + a, self.a_stride,
                    <float *> c.ptr[self.b] + b, self.b_stride, &self.f,
                    <float *> c.ptr[self.y] + y, self.y_stride)
        if self.mask.rate:  # what was written is still in the cache
            a = first if self.flat else first * self.channels
            drop(c, &self.mask, a, a + rows * cols, self.channels, self.y, self.y_stride, self.y,
                 self.y_stride)


cdef class Affine(RowStep):
    """y = scale · x + offset, two numbers for all elements; y may be the slot of x.

    Parameters as in `Copy`.
    """

    cdef Py_ssize_t x, x_stride, y, y_stride
    cdef double scale, offset

    def __init__(self, pixels, channels, x, x_stride, y, y_stride, scale=1.0, offset=0.0):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        self.scale, self.offset = number("scale", scale), number("offset", offset)
        in_place(x, x_stride, y, y_stride)
        self.reads = (strided(x, pixels, channels, x_stride),)
        self.writes = (strided(y, pixels, channels, y_stride),)
        self.x, self.y = x, y
        self.flat = x_stride == y_stride == channels
        self.cost = 1

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t x = self.at(first, self.x_stride), y = self.at(first, self.y_stride)
        if c.f64:
            f64.affine(rows, cols, self.scale, self.offset,
                       <double *> c.ptr[self.x] + x, self.x_stride,
                       <double *> c.ptr[self.y] + y, self.y_stride)
        else:
            f32.affine(rows, cols, <float> self.scale, <float> self.offset,
                       <float *> c.ptr[self.x] + x, self.x_stride,
                       <float *> c.ptr[self.y] + y, self.y_stride)


cdef class Fill(SplitStep):
    """y = value, in ``fixed + n * per_sample`` elements."""

    cdef Py_ssize_t per_sample, fixed, y
    cdef double value

    def __init__(self, per_sample, fixed, y, value):
        self.per_sample, self.fixed = whole("per_sample", per_sample, 0), whole("fixed", fixed, 0)
        self.value = float(value)
        self.writes = (extent(y, per_sample, fixed),)
        self.y = y

    cdef void run(self, Context *c) noexcept nogil:
        self.split(c, 0, self.fixed + c.n * self.per_sample, PIECE, 1)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        fill(c, 1, last - first, self.value, self.y, first, 0)


cdef enum:
    BAND = 16  # rows of a transpose at a time: their elements of one column fill a cache line


cdef class Transpose(SplitStep):
    """y[c, p] = x[p, c] in every sample: channels last becomes channels first, and back.

    Parameters
    ----------
    pixels, channels : int
        Of one sample of x.
    x, y : int
        Slots, (n, pixels, channels) and (n, channels, pixels).
    x_stride : int
        Elements of x from one pixel to the next; y has no gaps.
    """

    cdef Py_ssize_t pixels, channels, x, x_stride, y

    def __init__(self, pixels, channels, x, x_stride, y):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        distinct(x=x, y=y)
        self.reads = (strided(x, pixels, channels, x_stride),)
        self.writes = (extent(y, pixels * channels),)
        self.x, self.y = x, y

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t cost = min(self.pixels, BAND) * self.channels
        self.split(c, 0, c.n * blocks(self.pixels, BAND), max(1, PIECE // cost), 2 * cost)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t bands = blocks(self.pixels, BAND), i, sample, row, x, y
        for i in range(first, last):
            sample, row = i // bands, i % bands * BAND
            x = (sample * self.pixels + row) * self.x_stride
            y = sample * self.pixels * self.channels + row
            row = min(BAND, self.pixels - row)
            if c.f64:
                self.band(<const double *> c.ptr[self.x] + x, <double *> c.ptr[self.y] + y, row)
            else:
                self.band(<const float *> c.ptr[self.x] + x, <float *> c.ptr[self.y] + y, row)

    cdef void band(self, const floating *x, floating *y, Py_ssize_t rows) noexcept nogil:
        cdef Py_ssize_t p, channel
        for channel in range(self.channels):
            for p in range(rows):
                y[channel * self.pixels + p] = x[p * self.x_stride + channel]


cdef class PadCopy(SplitStep):
    """y = x with a border of zeros: ZeroPadding.

    Parameters
    ----------
    in_size : (int, int, int)
        D, H, W of x.
    pads : three pairs (before, after)
        The border's width in D, H, W.
    channels : int
    x, y : int
        Slots, (n, D, H, W, channels) and (n, D + pads, H + pads, W + pads, channels).
    x_stride, y_stride : int
        Elements from one pixel to the next.
    """

    cdef Py_ssize_t[3] size, before, out
    cdef Py_ssize_t channels, x, x_stride, y, y_stride

    def __init__(self, in_size, pads, channels, x, x_stride, y, y_stride):
        sizes, borders = triple("in_size", in_size), pairs("pads", pads)
        for i in range(3):
            self.size[i], self.before[i] = sizes[i], borders[i][0]
            self.out[i] = sizes[i] + sum(borders[i])
        self.channels = whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        distinct(x=x, y=y)
        self.reads = (strided(x, sizes[0] * sizes[1] * sizes[2], channels, x_stride),)
        out = self.out_size
        self.writes = (strided(y, out[0] * out[1] * out[2], channels, y_stride),)
        self.x, self.y = x, y

    @property
    def out_size(self):
        """D, H, W of y."""
        return self.out[0], self.out[1], self.out[2]

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t line = self.out[2] * self.channels
        self.split(c, 0, c.n * self.out[0] * self.out[1], max(1, PIECE // line), line)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t row
        for row in range(first, last):
            self.line(c, row)

    cdef void line(self, Context *c, Py_ssize_t row) noexcept nogil:
        """Row `row` of (n, OD, OH) of y."""
        cdef Py_ssize_t sample = row // (self.out[0] * self.out[1])
        cdef Py_ssize_t d = row // self.out[1] % self.out[0] - self.before[0]
        cdef Py_ssize_t h = row % self.out[1] - self.before[1], w = self.before[2]
        cdef Py_ssize_t y = row * self.out[2] * self.y_stride
        cdef Py_ssize_t source = ((sample * self.size[0] + d) * self.size[1] + h) * self.size[2]
        if not (0 <= d < self.size[0] and 0 <= h < self.size[1]):
            self.blank(c, y, self.out[2])
            return
        self.blank(c, y, w)
        y += w * self.y_stride
        if self.x_stride == self.channels and self.y_stride == self.channels:
            copy(c, 1, self.size[2] * self.channels, self.x, source * self.x_stride, 0, self.y, y,
                 0)
        else:
            copy(c, self.size[2], self.channels, self.x, source * self.x_stride, self.x_stride,
                 self.y, y, self.y_stride)
        self.blank(c, y + self.size[2] * self.y_stride, self.out[2] - w - self.size[2])

    cdef void blank(self, Context *c, Py_ssize_t y, Py_ssize_t pixels) noexcept nogil:
        if self.y_stride == self.channels:
            fill(c, 1, pixels * self.channels, 0, self.y, y, 0)
        else:
            fill(c, pixels, self.channels, 0, self.y, y, self.y_stride)


cdef class CropCopy(SplitStep):
    """y = x without a border: cropping, and the gradient of zero padding.

    Parameters
    ----------
    in_size : (int, int, int)
        D, H, W of x, the border included.
    pads : three pairs (before, after)
        The border's width in D, H, W.
    channels, x, x_stride, y, y_stride : int
        As in `PadCopy`; y is (n, D − pads, H − pads, W − pads, channels).
    """

    cdef Py_ssize_t[3] size, before, out
    cdef Py_ssize_t channels, x, x_stride, y, y_stride

    def __init__(self, in_size, pads, channels, x, x_stride, y, y_stride):
        sizes, borders = triple("in_size", in_size), pairs("pads", pads)
        for i in range(3):
            self.size[i], self.before[i] = sizes[i], borders[i][0]
            self.out[i] = sizes[i] - sum(borders[i])
            if self.out[i] < 1:
                raise ValueError(f"pads {borders[i]} leave nothing of in_size {sizes[i]}")
        self.channels = whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        distinct(x=x, y=y)
        self.reads = (strided(x, sizes[0] * sizes[1] * sizes[2], channels, x_stride),)
        out = self.out_size
        self.writes = (strided(y, out[0] * out[1] * out[2], channels, y_stride),)
        self.x, self.y = x, y

    @property
    def out_size(self):
        """D, H, W of y."""
        return self.out[0], self.out[1], self.out[2]

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t line = self.out[2] * self.channels
        self.split(c, 0, c.n * self.out[0] * self.out[1], max(1, PIECE // line), line)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t row, sample, d, h, x
        for row in range(first, last):
            sample = row // (self.out[0] * self.out[1])
            d = row // self.out[1] % self.out[0] + self.before[0]
            h = row % self.out[1] + self.before[1]
            x = ((sample * self.size[0] + d) * self.size[1] + h) * self.size[2] + self.before[2]
            if self.x_stride == self.channels and self.y_stride == self.channels:
                copy(c, 1, self.out[2] * self.channels, self.x, x * self.x_stride, 0,
                     self.y, row * self.out[2] * self.y_stride, 0)
            else:
                copy(c, self.out[2], self.channels, self.x, x * self.x_stride, self.x_stride,
                     self.y, row * self.out[2] * self.y_stride, self.y_stride)


# dtype kind and size in bytes → the kinds of csrc/kernels/elementwise.inl
_KINDS = {
    "f4": 0, "f8": 1, "i1": 2, "i2": 3, "i4": 4, "i8": 5, "u1": 6, "u2": 7, "u4": 8, "u8": 9,
    "b1": 6,
}


cdef class _Rows(SplitStep):
    """Rows of an array from outside, chosen by index and cast."""

    cdef int kind
    cdef Py_ssize_t elements, source_rows, itemsize, source, index, y

    cdef bind_rows(self, kind, elements, rows, source, index, y, itemsize):
        try:
            dtype = np.dtype(kind)
        except TypeError:
            raise ValueError(f"kind is a numpy dtype or its letter, not {kind!r}") from None
        name = f"{dtype.kind}{dtype.itemsize}"
        if name not in _KINDS or not dtype.isnative:
            raise ValueError(f"rows of dtype {dtype.str!r} cannot be read; cast them first")
        self.kind, self.itemsize = _KINDS[name], dtype.itemsize
        self.elements, self.source_rows = whole("elements", elements), whole("rows", rows)
        self.source, self.index, self.y = source, whole("index", index, -1), y
        self.reads = (extent(source, 0, rows * elements, dtype.itemsize),)
        if index >= 0:
            self.reads += (extent(index, 1, 0, 8),)
        self.writes = (extent(y, elements, 0, itemsize),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const int64_t *index = <const int64_t *> c.ptr[self.index] if self.index >= 0 else NULL
        cdef Py_ssize_t i, row
        for i in range(c.n):
            row = index[i] if index is not NULL else i
            if not 0 <= row < self.source_rows:
                with gil:
                    fail(c, IndexError(f"row {row} of an array of {self.source_rows} rows"))
                return
        # a row of many elements is cut as well
        self.split(c, 0, c.n * blocks(self.elements, PIECE), max(1, PIECE // self.elements),
                   min(self.elements, PIECE))

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef const int64_t *index = <const int64_t *> c.ptr[self.index] if self.index >= 0 else NULL
        cdef Py_ssize_t cuts = blocks(self.elements, PIECE), i, row, start, count
        for i in range(first, last):
            row = i // cuts
            start = i % cuts * PIECE
            count = min(PIECE, self.elements - start)
            start += row * self.elements
            if index is not NULL:
                self.cast(c, count, start + (index[row] - row) * self.elements, start)
            else:
                self.cast(c, count, start, start)

    cdef void cast(self, Context *c, Py_ssize_t count, Py_ssize_t x, Py_ssize_t y) noexcept nogil:
        pass


cdef class Gather(_Rows):
    """y[i] = source[index[i]] for i < n, cast to the pass' real: how samples come in.

    A row outside ``0..rows`` raises IndexError and writes nothing.

    Parameters
    ----------
    kind : dtype or its letter
        The source's elements: bool, integers of 8 to 64 bits, float32 or float64, native.
    elements : int
        Of one row.
    rows : int
        Of the source.
    source : int
        Slot, (rows, elements).
    index : int
        Slot, (n,) int64; −1: the rows in their order.
    y : int
        Slot, (n, elements).
    """

    def __init__(self, kind, elements, rows, source, index, y):
        self.bind_rows(kind, elements, rows, source, index, y, 0)

    cdef void cast(self, Context *c, Py_ssize_t count, Py_ssize_t x, Py_ssize_t y) noexcept nogil:
        cdef const char *source = <const char *> c.ptr[self.source] + x * self.itemsize
        if c.f64:
            f64.cast(self.kind, count, source, <double *> c.ptr[self.y] + y)
        else:
            f32.cast(self.kind, count, source, <float *> c.ptr[self.y] + y)


cdef class GatherLabels(_Rows):
    """y[i] = source[index[i]] for i < n, cast to int32: how labels come in.

    What is no int32 (too large, a fraction, NaN) becomes the smallest one, which is no class.
    Parameters as in `Gather`; y is int32.
    """

    def __init__(self, kind, elements, rows, source, index, y):
        self.bind_rows(kind, elements, rows, source, index, y, 4)

    cdef void cast(self, Context *c, Py_ssize_t count, Py_ssize_t x, Py_ssize_t y) noexcept nogil:
        cdef const char *source = <const char *> c.ptr[self.source] + x * self.itemsize
        f32.cast_labels(self.kind, count, source, <int32_t *> c.ptr[self.y] + y)

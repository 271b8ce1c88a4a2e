"""Output pixels abreast: a convolution of few channels to few filters with several pixels as one.

P neighbours in a row of y, which lie side by side in memory, are one pixel of P · OC channels. They
see a window that is P − 1 columns wider, with a stride of P; the weight is repeated in it, a column
further for each, and zero elsewhere. The products with these zeros cost less than tiles, pointers
and sums of half-empty vectors did: the walks of `conv` and `weight_gradient` are what they were.
"""

from libc.string cimport memcpy, memset

from fastconv._native.dispatch cimport real
from fastconv._native.geometry cimport ConvGeometry
from fastconv._native.step cimport Context, Step

from fastconv._native.geometry import ConvGeometry as Geometry
from fastconv._native.step import Extent

cdef enum:
    FEW_CHANNELS = 1    # at most: with more, a deeper sum per tap pays for tile and pointers
    LANES = 16          # that the channels of all pixels may fill


def pixels(ConvGeometry geometry not None) -> int:
    """How many output pixels go abreast; 1 where that does not pay."""
    cdef Py_ssize_t most = min(LANES // geometry.filters, geometry.kernel[2] - 1)
    if (geometry.groups > 1 or geometry.channels > FEW_CHANNELS
            or geometry.dilation[2] > 1 or geometry.strides[2] > 1
            or geometry.x_stride > geometry.channels or geometry.y_stride > geometry.filters):
        return 1
    return max((p for p in range(2, most + 1) if geometry.out_size[2] % p == 0), default=1)


def widened(ConvGeometry geometry not None, Py_ssize_t count):
    """The geometry of ``count`` pixels as one."""
    return Geometry(
        in_size=geometry.in_size, pads=geometry.pads, dilation=geometry.dilation,
        kernel=(*geometry.kernel[:2], geometry.kernel[2] + count - 1),
        strides=(*geometry.strides[:2], count),
        channels=geometry.channels, filters=geometry.filters * count)


cdef struct Wide:
    # rows of the kernel, its columns, channels and filters, pixels abreast
    Py_ssize_t rows, columns, channels, filters, count


cdef Wide wide_of(ConvGeometry g, Py_ssize_t count):
    cdef Wide a
    if count < 1 or g.out_size[2] % count or g.groups > 1:
        raise ValueError(f"{count} pixels of a row of {g.out_size[2]} cannot go abreast")
    a.rows, a.columns = g.kernel[0] * g.kernel[1], g.kernel[2]
    a.channels, a.filters, a.count = g.channels, g.filters, count
    return a


cdef void widen(const Wide *a, const real *w, real *wide) noexcept nogil:
    """wide[row, k + p, i, p, o] = w[row, k, i, o], and zeros."""
    cdef Py_ssize_t width = a.columns + a.count - 1, row, k, i, p
    memset(wide, 0, a.rows * width * a.channels * a.count * a.filters * sizeof(real))
    for row in range(a.rows):
        for k in range(a.columns):
            for i in range(a.channels):
                for p in range(a.count):
                    memcpy(wide + (((row * width + k + p) * a.channels + i) * a.count + p)
                           * a.filters, w, a.filters * sizeof(real))
                w += a.filters


cdef void narrow(const Wide *a, const real *wide, real *dw, bint accumulate) noexcept nogil:
    """dw[row, k, i, o] (+)= Σ_p wide[row, k + p, i, p, o]."""
    cdef Py_ssize_t width = a.columns + a.count - 1, row, k, i, p, o
    cdef real s
    for row in range(a.rows):
        for k in range(a.columns):
            for i in range(a.channels):
                for o in range(a.filters):
                    s = 0
                    for p in range(a.count):
                        s += wide[(((row * width + k + p) * a.channels + i) * a.count + p)
                                  * a.filters + o]
                    dw[o] = dw[o] + s if accumulate else s
                dw += a.filters


cdef class AbreastWeights(Step):
    """The weight (KD, KH, KW, IC, OC) and the bias (OC,) of a geometry as `widened` has them.

    Parameters
    ----------
    geometry : ConvGeometry
    count : int
        Pixels abreast.
    weight, wide : slot
        (KD, KH, KW, IC, OC) and (KD, KH, KW + count − 1, IC, count · OC).
    bias, wide_bias : slot, optional
        (OC,) and (count · OC,); −1 for none.
    """

    cdef Wide shape
    cdef Py_ssize_t weight, wide, bias, wide_bias

    def __init__(self, ConvGeometry geometry not None, Py_ssize_t count, *, Py_ssize_t weight,
                 Py_ssize_t wide, Py_ssize_t bias=-1, Py_ssize_t wide_bias=-1):
        self.shape = wide_of(geometry, count)
        self.weight, self.wide, self.bias, self.wide_bias = weight, wide, bias, wide_bias
        self.reads = (Extent(weight, 0, geometry.weight_size),)
        self.writes = (Extent(wide, 0, widened(geometry, count).weight_size),)
        if bias >= 0:
            self.reads += (Extent(bias, 0, geometry.filters),)
            self.writes += (Extent(wide_bias, 0, count * geometry.filters),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Wide *a = &self.shape
        cdef Py_ssize_t size = a.filters * (sizeof(double) if c.f64 else sizeof(float)), p
        if c.f64:
            widen(a, <const double *> c.ptr[self.weight], <double *> c.ptr[self.wide])
        else:
            widen(a, <const float *> c.ptr[self.weight], <float *> c.ptr[self.wide])
        if self.bias >= 0:
            for p in range(a.count):
                memcpy(<char *> c.ptr[self.wide_bias] + p * size, c.ptr[self.bias], size)


cdef class AbreastGradient(Step):
    """dw from the gradient of the wide weight: the sum over the places where each weight stands.

    Parameters
    ----------
    geometry : ConvGeometry
    count : int
        Pixels abreast.
    wide, dw : slot
        As ``wide`` and ``weight`` of `AbreastWeights`.
    accumulate : bool
        Add to dw instead of overwriting it; so does a pass that accumulates.
    """

    cdef Wide shape
    cdef Py_ssize_t wide, dw
    cdef bint accumulate

    def __init__(self, ConvGeometry geometry not None, Py_ssize_t count, *, Py_ssize_t wide,
                 Py_ssize_t dw, bint accumulate=False):
        self.shape = wide_of(geometry, count)
        self.wide, self.dw, self.accumulate = wide, dw, accumulate
        self.reads = (Extent(wide, 0, widened(geometry, count).weight_size),)
        self.writes = (Extent(dw, 0, geometry.weight_size),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef bint accumulate = self.accumulate or c.accumulate
        if c.f64:
            narrow(&self.shape, <const double *> c.ptr[self.wide], <double *> c.ptr[self.dw],
                   accumulate)
        else:
            narrow(&self.shape, <const float *> c.ptr[self.wide], <float *> c.ptr[self.dw],
                   accumulate)

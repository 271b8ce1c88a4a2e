"""Dropout, and numbers in [0, 1), from a counter-based generator (Philox4x32-10)."""

import numpy as np

from libc.stdint cimport uint32_t, uint64_t

from fastconv._native.dispatch cimport f32, f64
from fastconv._native.mask cimport Mask, drop, mask_of
from fastconv._native.split cimport PIECE, SplitStep
from fastconv._native.step cimport Context, Step

from fastconv._native.checks import extent, in_place, stride_of, strided, whole


def philox(uint64_t key, uint64_t block, uint64_t step) -> np.ndarray:
    """The words of the counters (block + j, step), j < 16, under ``key``: (16, 4) uint32."""
    cdef uint32_t[64] words
    cdef Py_ssize_t i
    f32.philox_group(key, block, step, words)
    return np.array([words[i] for i in range(64)], np.uint32).reshape(4, 16).T


cdef class _Dropout(SplitStep):
    """Forward and backward are one map: y = mask · x / (1 − rate)."""

    cdef Mask mask
    cdef Py_ssize_t per_sample, channels, x, x_stride, y, y_stride

    cdef choose(self, rate, per_sample, stream, x, y, channels, x_stride, y_stride):
        self.mask = mask_of((rate, stream))
        self.per_sample = whole("per_sample", per_sample)
        self.channels = whole("channels", channels or per_sample)
        if per_sample % self.channels:
            raise ValueError(f"{channels} channels do not divide a sample of {per_sample}")
        self.x_stride = stride_of("x_stride", x_stride or self.channels, self.channels)
        self.y_stride = stride_of("y_stride", y_stride or self.channels, self.channels)
        in_place(x, self.x_stride, y, self.y_stride)
        pixels = per_sample // self.channels
        self.reads = (strided(x, pixels, self.channels, self.x_stride),)
        self.writes = (strided(y, pixels, self.channels, self.y_stride),)
        self.x, self.y = x, y

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t count = c.n * self.per_sample
        if not c.training or self.mask.rate == 0:
            if self.x != self.y:
                self.split(c, 1, count // self.channels, max(1, PIECE // self.channels),
                           self.channels)
            return
        self.split(c, 0, count, PIECE, 4)   # whole groups of the generator

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t x = first * self.x_stride, y = first * self.y_stride
        if phase == 0:
            drop(c, &self.mask, first, last, self.channels, self.x, self.x_stride, self.y,
                 self.y_stride)
        elif c.f64:
            f64.copy(last - first, self.channels, <double *> c.ptr[self.x] + x, self.x_stride,
                     <double *> c.ptr[self.y] + y, self.y_stride)
        else:
            f32.copy(last - first, self.channels, <float *> c.ptr[self.x] + x, self.x_stride,
                     <float *> c.ptr[self.y] + y, self.y_stride)


cdef class DropoutForward(_Dropout):
    """y = m x / (1 − rate), where m is 0 with probability ``rate`` and else 1; y may be x's slot.

    The mask is a function of the run's seed and step, the stream and the element's place in the
    batch. Outside of training y = x.

    Parameters
    ----------
    rate : float
        0 ≤ rate < 1.
    per_sample : int
        Elements of one sample.
    stream : int
        Which random numbers: one for each node.
    x, y : int
        Slots, (n, per_sample).
    channels, x_stride, y_stride : int, optional
        Where a sample is pixels × channels with gaps: elements from one pixel to the next.
    """

    def __init__(self, rate, per_sample, stream, x, y, channels=None, x_stride=None, y_stride=None):
        self.choose(rate, per_sample, stream, x, y, channels, x_stride, y_stride)


cdef class DropoutBackward(_Dropout):
    """dx = m dy / (1 − rate), with the mask of the forward step of the same run and stream.

    Parameters as in `DropoutForward`.
    """

    def __init__(self, rate, per_sample, stream, dy, dx, channels=None, dy_stride=None,
                 dx_stride=None):
        self.choose(rate, per_sample, stream, dy, dx, channels, dy_stride, dx_stride)


cdef class Uniform(Step):
    """y = numbers in [0, 1), multiples of 2^−24: the same in float32 and float64.

    They are a function of the run's seed and step, the stream and their place in the batch.

    Parameters
    ----------
    per_sample : int
        Numbers of one sample.
    stream : int
        Which random numbers: one for each node.
    y : int
        Slot, (n, per_sample).
    """

    cdef Mask mask
    cdef Py_ssize_t per_sample, y

    def __init__(self, per_sample, stream, y):
        self.mask = mask_of((0, stream))
        self.per_sample = whole("per_sample", per_sample)
        self.y = y
        self.writes = (extent(y, per_sample),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t i, count = c.n * self.per_sample
        cdef uint32_t[64] words
        cdef double u
        for i in range(count):
            if i % 64 == 0:     # sixteen counters of four words
                f32.philox_group(c.seed ^ self.mask.stream, <uint64_t> (i // 4), c.step, words)
            u = (words[i % 64] >> 8) * (1.0 / 16777216.0)
            if c.f64:
                (<double *> c.ptr[self.y])[i] = u
            else:
                (<float *> c.ptr[self.y])[i] = <float> u

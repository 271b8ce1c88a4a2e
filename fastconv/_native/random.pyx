"""Dropout from a counter-based generator (Philox4x32-10)."""

import numpy as np

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from fastconv._native.dispatch cimport f32, f64
from fastconv._native.split cimport PIECE, SplitStep, blocks
from fastconv._native.step cimport Context

from fastconv._native.checks import extent, number, whole

cdef enum:
    GROUP = 64  # elements that one call of the generator serves


def philox(uint64_t key, uint64_t block, uint64_t step) -> np.ndarray:
    """The words of the counters (block + j, step), j < 16, under ``key``: (16, 4) uint32."""
    cdef uint32_t[64] words
    cdef Py_ssize_t i
    f32.philox_group(key, block, step, words)
    return np.array([words[i] for i in range(64)], np.uint32).reshape(4, 16).T


cdef uint64_t mixed(uint64_t stream) noexcept nogil:
    """Neighbouring streams, far apart: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    stream += <uint64_t> 0x9E3779B97F4A7C15
    stream = (stream ^ (stream >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    stream = (stream ^ (stream >> 27)) * <uint64_t> 0x94D049BB133111EB
    return stream ^ (stream >> 31)


cdef class _Dropout(SplitStep):
    """Forward and backward are one map: y = mask · x / (1 − rate)."""

    cdef double rate
    cdef uint64_t stream
    cdef Py_ssize_t per_sample, x, y

    cdef choose(self, rate, per_sample, stream, x, y):
        self.rate = number("rate", rate, 0, 1, True)
        self.per_sample = whole("per_sample", per_sample)
        # any integer names a stream
        self.stream = mixed(whole("stream", stream, 0, 2**128) % 2**64)
        self.reads = (extent(x, per_sample),)
        self.writes = (extent(y, per_sample),)
        self.x, self.y = x, y

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t count = c.n * self.per_sample
        if not c.training or self.rate == 0:
            if self.x != self.y:
                self.split(c, 1, count, PIECE, 1)
            return
        self.split(c, 0, blocks(count, GROUP), PIECE // GROUP, 4 * GROUP)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef uint32_t threshold = <uint32_t> (self.rate * 4294967296.0)
        cdef uint64_t key = c.seed ^ self.stream
        cdef Py_ssize_t count = c.n * self.per_sample, size = 8 if c.f64 else 4
        if phase == 1:
            memcpy(<char *> c.ptr[self.y] + first * size, <char *> c.ptr[self.x] + first * size,
                   (last - first) * size)
        elif c.f64:
            f64.dropout(key, c.step, threshold, 1 / (1 - self.rate), first, last, count,
                        <double *> c.ptr[self.x], <double *> c.ptr[self.y])
        else:
            f32.dropout(key, c.step, threshold, <float> (1 / (1 - self.rate)), first, last, count,
                        <float *> c.ptr[self.x], <float *> c.ptr[self.y])


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
    """

    def __init__(self, rate, per_sample, stream, x, y):
        self.choose(rate, per_sample, stream, x, y)


cdef class DropoutBackward(_Dropout):
    """dx = m dy / (1 − rate), with the mask of the forward step of the same run and stream.

    Parameters as in `DropoutForward`.
    """

    def __init__(self, rate, per_sample, stream, dy, dx):
        self.choose(rate, per_sample, stream, dy, dx)

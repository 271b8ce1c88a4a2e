"""The mask of dropout: a function of the run's seed and step, a stream, and an element's place in
the batch. So whoever writes or reads an element can apply it, in any order."""

from libc.stdint cimport uint32_t, uint64_t

from fastconv._native.dispatch cimport f32, f64
from fastconv._native.step cimport Context

from fastconv._native.checks import number, whole


cdef uint64_t mixed(uint64_t stream) noexcept nogil:
    """Neighbouring streams, far apart: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    stream += <uint64_t> 0x9E3779B97F4A7C15
    stream = (stream ^ (stream >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    stream = (stream ^ (stream >> 27)) * <uint64_t> 0x94D049BB133111EB
    return stream ^ (stream >> 31)


cdef Mask mask_of(dropout):
    """The mask of (rate, stream), checked; None: nothing is dropped."""
    cdef Mask m
    rate, stream = dropout or (0, 0)
    m.rate = number("rate", rate, 0, 1, True)
    # any integer names a stream
    m.stream = mixed(whole("stream", stream, 0, 2**128) % 2**64)
    return m


cdef void drop(const Context *c, const Mask *m, Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols,
               Py_ssize_t x, Py_ssize_t x_stride, Py_ssize_t y, Py_ssize_t y_stride) noexcept nogil:
    cdef uint32_t threshold = <uint32_t> (m.rate * 4294967296.0)
    cdef uint64_t key = c.seed ^ m.stream
    if not c.training or m.rate == 0:
        return
    if c.f64:
        f64.dropout(key, c.step, threshold, 1 / (1 - m.rate), first, last, cols,
                    <double *> c.ptr[x], x_stride, <double *> c.ptr[y], y_stride)
    else:
        f32.dropout(key, c.step, threshold, <float> (1 / (1 - m.rate)), first, last, cols,
                    <float *> c.ptr[x], x_stride, <float *> c.ptr[y], y_stride)

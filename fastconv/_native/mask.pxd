"""The mask of dropout, for its own steps and for those that carry it."""

from libc.stdint cimport uint64_t

from fastconv._native.step cimport Context

cdef struct Mask:
    double rate         # 0: nothing is dropped
    uint64_t stream

cdef Mask mask_of(dropout)

# Elements first..last of a batch, in rows of cols: slot y = mask · slot x / (1 − rate).
cdef void drop(const Context *c, const Mask *m, Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols,
               Py_ssize_t x, Py_ssize_t x_stride, Py_ssize_t y, Py_ssize_t y_stride) noexcept nogil

"""What a product's sums go through on their way out."""

from fastconv._native.dispatch cimport fc_activation, fc_epilogue
from fastconv._native.step cimport Context

cdef class Epilogue:
    cdef Py_ssize_t bias, mean, scale, shift, residual, residual_stride
    cdef fc_activation f
    cdef readonly tuple reads
    cdef fc_epilogue bound(self, Context *c) noexcept nogil

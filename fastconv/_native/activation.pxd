"""Activations that other kernels apply in their own pass."""

from fastconv._native.dispatch cimport fc_activation

cdef fc_activation carried(activation, bint dropped=*)

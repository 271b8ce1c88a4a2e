"""The kernel tables and the thread count, for the other extensions."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, int32_t, uint8_t

ctypedef fused real:
    float
    double

cdef extern from "dispatch.h" nogil:
    ctypedef struct fc_window:
        Py_ssize_t[3] out
        Py_ssize_t[3] window
        Py_ssize_t[3] stride
        Py_ssize_t[3] dilation
        Py_ssize_t[3] pad

    ctypedef struct fc_walk:
        Py_ssize_t[3] count
        Py_ssize_t[3] x_step
        Py_ssize_t[3] dy_step

    ctypedef struct fc_kernels_f32:
        const char *isa
        Py_ssize_t gather_mr, gather_nr, outer_mr, outer_nr
        void (*pack_panel)(const float *w, Py_ssize_t row_stride, Py_ssize_t col_stride,
                           Py_ssize_t rows, Py_ssize_t cols, float *panel) noexcept nogil
        void (*gather_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t ic,
                            const float *const *x, const float *const *w, Py_ssize_t w_stride,
                            const float *bias, bint accumulate, int activation, float slope,
                            float *const *y) noexcept nogil
        void (*outer_tile)(Py_ssize_t m, Py_ssize_t n, const fc_walk *walk, const float *x,
                           const float *dy, float *dw, Py_ssize_t dw_stride,
                           bint accumulate) noexcept nogil

    ctypedef struct fc_kernels_f64:
        const char *isa
        Py_ssize_t gather_mr, gather_nr, outer_mr, outer_nr
        void (*pack_panel)(const double *w, Py_ssize_t row_stride, Py_ssize_t col_stride,
                           Py_ssize_t rows, Py_ssize_t cols, double *panel) noexcept nogil
        void (*gather_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t ic,
                            const double *const *x, const double *const *w, Py_ssize_t w_stride,
                            const double *bias, bint accumulate, int activation, double slope,
                            double *const *y) noexcept nogil
        void (*outer_tile)(Py_ssize_t m, Py_ssize_t n, const fc_walk *walk, const double *x,
                           const double *dy, double *dw, Py_ssize_t dw_stride,
                           bint accumulate) noexcept nogil

# The tables in use; a forced change of ISA is seen at once by everyone who cimports these.
cdef const fc_kernels_f32 *f32
cdef const fc_kernels_f64 *f64

cdef int thread_count() noexcept nogil

# Denormals are flushed to zero between on and restore; on returns the caller's mode. Each thread
# has its own mode, so every parallel region sets and restores it.
cdef unsigned flush_denormals_on() noexcept nogil
cdef void flush_denormals_restore(unsigned mode) noexcept nogil

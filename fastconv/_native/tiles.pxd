"""What walks around the micro-kernels share: the tables' matrix kernels, per element type."""

from fastconv._native.dispatch cimport f32, f64, fc_epilogue, fc_walk, real
from fastconv._native.step cimport Context

cdef enum:
    WIDEST = 32         # every table's gather_nr and outer_nr divide this
    TALLEST = 16        # no table's gather_mr or outer_mr is larger
    LINE = 64           # bytes of a cache line, and of the widest vector
    FAR = 1 << 21       # an array of so many elements is written past the caches


cdef inline Py_ssize_t gather_mr(const real *_) noexcept nogil:
    return f32.gather_mr if real is float else f64.gather_mr


cdef inline Py_ssize_t gather_nr(const real *_) noexcept nogil:
    return f32.gather_nr if real is float else f64.gather_nr


cdef inline Py_ssize_t outer_mr(const real *_) noexcept nogil:
    return f32.outer_mr if real is float else f64.outer_mr


cdef inline Py_ssize_t outer_nr(const real *_) noexcept nogil:
    return f32.outer_nr if real is float else f64.outer_nr


cdef inline void pack_panel(const real *w, Py_ssize_t row_stride, Py_ssize_t col_stride,
                            Py_ssize_t rows, Py_ssize_t cols, real *panel) noexcept nogil:
    if real is float:
        f32.pack_panel(w, row_stride, col_stride, rows, cols, panel)
    else:
        f64.pack_panel(w, row_stride, col_stride, rows, cols, panel)


cdef inline void gather_tile(Py_ssize_t m, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t depth,
                             const real *const *x, const real *const *next,
                             const real *const *w, Py_ssize_t w_stride, const fc_epilogue *e,
                             bint accumulate, bint final, const real *const *residual,
                             bint stream, real *const *y) noexcept nogil:
    if real is float:
        f32.gather_tile(m, n, taps, depth, x, next, w, w_stride, e, accumulate, final, residual,
                        stream, y)
    else:
        f64.gather_tile(m, n, taps, depth, x, next, w, w_stride, e, accumulate, final, residual,
                        stream, y)


cdef inline void fence(const real *_) noexcept nogil:
    if real is float:
        f32.fence()
    else:
        f64.fence()


cdef inline void pack_pixels(const Py_ssize_t *count, const Py_ssize_t *step, Py_ssize_t cols,
                             Py_ssize_t width, Py_ssize_t pitch, const real *x, real *to,
                             Py_ssize_t stride) noexcept nogil:
    if real is float:
        f32.pack_pixels(count, step, cols, width, pitch, x, to, stride)
    else:
        f64.pack_pixels(count, step, cols, width, pitch, x, to, stride)


cdef inline void fetch_pixels(const Py_ssize_t *count, const Py_ssize_t *step, Py_ssize_t first,
                              Py_ssize_t last, Py_ssize_t cols, const real *x) noexcept nogil:
    if real is float:
        f32.fetch_pixels(count, step, first, last, cols, x)
    else:
        f64.fetch_pixels(count, step, first, last, cols, x)


cdef inline void outer_tile_ahead(Py_ssize_t m, Py_ssize_t n, const fc_walk *walk, const real *x,
                                  const real *dy, const real *const *next, Py_ssize_t lines,
                                  real *dw, Py_ssize_t dw_stride, bint accumulate,
                                  bint stream) noexcept nogil:
    """Fetches so many lines of what comes ``next`` meanwhile, one with each pixel."""
    if real is float:
        f32.outer_tile(m, n, walk, x, dy, next, lines, dw, dw_stride, accumulate, stream)
    else:
        f64.outer_tile(m, n, walk, x, dy, next, lines, dw, dw_stride, accumulate, stream)


cdef inline void outer_tile(Py_ssize_t m, Py_ssize_t n, const fc_walk *walk, const real *x,
                            const real *dy, real *dw, Py_ssize_t dw_stride, bint accumulate,
                            bint stream) noexcept nogil:
    outer_tile_ahead(m, n, walk, x, dy, <const real *const *> NULL, 0, dw, dw_stride,
                     accumulate, stream)


cdef inline Py_ssize_t dot_mr(const real *_) noexcept nogil:
    return f32.dot_mr if real is float else f64.dot_mr


cdef inline Py_ssize_t dot_nr(const real *_) noexcept nogil:
    return f32.dot_nr if real is float else f64.dot_nr


cdef inline void dot_tile(Py_ssize_t m, Py_ssize_t n, Py_ssize_t depth, const real *x,
                          Py_ssize_t x_stride, const real *w, Py_ssize_t w_stride, real *y,
                          Py_ssize_t y_stride) noexcept nogil:
    if real is float:
        f32.dot_tile(m, n, depth, x, x_stride, w, w_stride, y, y_stride)
    else:
        f64.dot_tile(m, n, depth, x, x_stride, w, w_stride, y, y_stride)


cdef inline Py_ssize_t sweep_mr(const real *_) noexcept nogil:
    return f32.sweep_mr if real is float else f64.sweep_mr


cdef inline Py_ssize_t sweep_k(const real *_) noexcept nogil:
    return f32.sweep_k if real is float else f64.sweep_k


cdef inline void sweep_tile(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, const real *x,
                            Py_ssize_t x_stride, const real *w, Py_ssize_t w_stride, real *y,
                            Py_ssize_t y_stride) noexcept nogil:
    if real is float:
        f32.sweep_tile(m, k, n, x, x_stride, w, w_stride, y, y_stride)
    else:
        f64.sweep_tile(m, k, n, x, x_stride, w, w_stride, y, y_stride)


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t share(Py_ssize_t i, Py_ssize_t parts, Py_ssize_t total) noexcept nogil:
    """Where part i begins when total is cut into parts that differ by at most one."""
    return total // parts * i + min(i, total % parts)


cdef inline void *address(const Context *c, Py_ssize_t slot) noexcept nogil:
    """Where a slot lies; NULL for no slot."""
    return c.ptr[slot] if slot >= 0 else NULL


cdef inline fc_epilogue columns_from(const fc_epilogue *e, Py_ssize_t first,
                                     const real *_) noexcept nogil:
    """The epilogue of the columns from ``first`` on, as if they were all."""
    cdef fc_epilogue part = e[0]
    if e.bias is not NULL:
        part.bias = <const real *> e.bias + first
    if e.scale is not NULL:
        part.mean, part.scale = <const real *> e.mean + first, <const real *> e.scale + first
    if e.shift is not NULL:
        part.shift = <const real *> e.shift + first
    if e.residual is not NULL:
        part.residual = <const real *> e.residual + first
    if e.moments is not NULL:
        part.moments = <real *> e.moments + first
    return part

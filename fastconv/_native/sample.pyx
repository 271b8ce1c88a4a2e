"""Images read along affine maps, each with its own: rotations, shifts, zooms; and the gradient."""

import numpy as np

from cython.parallel cimport parallel, prange

from fastconv._native.dispatch cimport (
    f32, f64, flush_denormals_on, flush_denormals_restore, real, thread_count,
)

EDGES = ("constant", "nearest", "wrap", "reflect")     # as csrc/kernels/sample.inl numbers them

cdef double FARTHEST = 2**30    # pixels from the image: places are whole numbers, too
cdef Py_ssize_t SMALL = 1 << 16     # elements that wake no other thread
cdef Py_ssize_t ROWS = 32           # of an image that are one task


def affine(x, y, maps, edge, bint linear, double fill=0) -> None:
    """y[i] at column c and row r = x[i] at column a c + b r + u and row d c + e r + v.

    Parameters
    ----------
    x, y : ndarray, (n, H, W, C), float32 or float64, C-contiguous
        y is overwritten; they do not overlap.
    maps : ndarray, (n, 6), float64
        a, b, u, d, e, v of each image.
    edge : {"constant", "nearest", "wrap", "reflect"}
        What stands where there is no pixel; "constant": ``fill``.
    linear : bool
        Between four pixels; else the nearest one.
    """
    cdef int kind = checked(x, y, maps, edge)
    if x.dtype == np.float32:
        sample[float](x, y, maps, kind, linear, <float> fill)
    else:
        sample[double](x, y, maps, kind, linear, fill)


def affine_gradient(dy, dx, maps, edge, bint linear) -> None:
    """The gradient at x of `affine` from that at y; arguments as there, dx is overwritten."""
    cdef int kind = checked(dy, dx, maps, edge)
    if dy.dtype == np.float32:
        spread[float](dy, dx, maps, kind, linear)
    else:
        spread[double](dy, dx, maps, kind, linear)


cdef int checked(x, y, maps, edge) except -1:
    if edge not in EDGES:
        raise ValueError(f"edge is one of {', '.join(EDGES)}, not {edge!r}")
    if x.ndim != 4 or x.shape != y.shape or x.dtype != y.dtype or x.size == 0:
        raise ValueError(f"two arrays of images of one shape and type, not {x.shape} {x.dtype} and "
                         f"{y.shape} {y.dtype}")
    if x.dtype not in (np.float32, np.float64):
        raise ValueError(f"images are float32 or float64, not {x.dtype}")
    if max(x.shape) > FARTHEST or np.shares_memory(x, y):
        raise ValueError("images are smaller than 2^30 pixels, and y is apart from x")
    if maps.shape != (len(x), 6) or not (np.abs(maps) <= FARTHEST).all():
        raise ValueError(f"{len(x)} images need as many maps of six finite numbers")
    return EDGES.index(edge)


cdef void sample(const real[:, :, :, ::1] x, real[:, :, :, ::1] y, const double[:, ::1] maps,
                 int edge, int linear, real fill) noexcept:
    cdef Py_ssize_t rows = x.shape[1], cols = x.shape[2], channels = x.shape[3]
    cdef Py_ssize_t i, bands = (rows + ROWS - 1) // ROWS, tasks = x.shape[0] * bands
    cdef int threads = thread_count() if tasks * ROWS * cols * channels > SMALL else 1
    cdef unsigned mode = 0
    with nogil, parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(tasks, schedule="static"):
            band(edge, linear, rows, cols, channels, &maps[i // bands, 0], fill,
                 &x[i // bands, 0, 0, 0], &y[i // bands, 0, 0, 0], i % bands * ROWS)
        flush_denormals_restore(mode)


cdef void band(int edge, int linear, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t channels,
               const double *map, real fill, const real *x, real *y,
               Py_ssize_t first) noexcept nogil:
    cdef Py_ssize_t last = min(first + ROWS, rows)
    if real is float:
        f32.affine_sample(edge, linear, rows, cols, channels, map, fill, x, y, first, last)
    else:
        f64.affine_sample(edge, linear, rows, cols, channels, map, fill, x, y, first, last)


cdef void spread(const real[:, :, :, ::1] dy, real[:, :, :, ::1] dx, const double[:, ::1] maps,
                 int edge, int linear) noexcept:
    cdef Py_ssize_t rows = dy.shape[1], cols = dy.shape[2], channels = dy.shape[3], i
    cdef int threads = thread_count() if dy.shape[0] * rows * cols * channels > SMALL else 1
    cdef unsigned mode = 0
    with nogil, parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(dy.shape[0], schedule="static"):
            whole_image(edge, linear, rows, cols, channels, &maps[i, 0], &dy[i, 0, 0, 0],
                        &dx[i, 0, 0, 0])
        flush_denormals_restore(mode)


cdef void whole_image(int edge, int linear, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t channels,
                      const double *map, const real *dy, real *dx) noexcept nogil:
    if real is float:
        f32.affine_spread(edge, linear, rows, cols, channels, map, dy, dx)
    else:
        f64.affine_spread(edge, linear, rows, cols, channels, map, dy, dx)

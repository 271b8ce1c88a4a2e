"""What this machine can do at most: multiply-adds per second, and bytes per second from memory.

Both are the best of several short rounds on all threads that kernels may use. The multiply-adds
touch registers alone, so no real kernel reaches their rate; the stream is McCalpin's triad over
arrays far larger than the caches, counted as STREAM does: two arrays read, one written.
"""

import numpy as np

from cython.parallel cimport parallel, prange

from fastconv._native.dispatch cimport (
    f32, f64, flush_denormals_on, flush_denormals_restore, thread_count,
)
from fastconv._native.step cimport clock_seconds

ctypedef double double_t    # where an argument is called double

cdef enum:
    WIDEST = 16             # no table's vector is wider
    ARRAY = 64 << 20        # bytes of each of the triad's three arrays
    PIECE = 1 << 16         # elements of them that one call passes over
    ROUNDS = 9              # of which the best one counts

cdef double ROUND = 0.015   # seconds of a round of multiply-adds, at least
cdef double PATIENCE = 1    # seconds until every thread has found a processor of its own, at most


cdef double multiply_adds(Py_ssize_t rounds, int threads, bint double_) noexcept nogil:
    """Seconds that ``rounds`` on each thread take."""
    cdef int _i
    cdef double start = clock_seconds()
    for _i in prange(threads, num_threads=threads, schedule="static"):
        chain(rounds, double_)
    return clock_seconds() - start


cdef void chain(Py_ssize_t rounds, bint double_) noexcept nogil:
    cdef float[WIDEST] out_f32
    cdef double[WIDEST] out_f64
    if double_:
        f64.multiply_add(rounds, 0.999, 1e-3, out_f64)
    else:
        f32.multiply_add(rounds, <float> 0.999, <float> 1e-3, out_f32)


cdef double stream(char *a, char *b, char *y, Py_ssize_t pieces, int threads,
                   bint double_) noexcept nogil:
    """Seconds of one triad over ``pieces`` pieces."""
    cdef Py_ssize_t i, step = PIECE * (8 if double_ else 4)
    cdef unsigned mode = 0
    cdef double start = clock_seconds()
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(pieces, schedule="static"):
            triad_piece(a + i * step, b + i * step, y + i * step, double_)
        flush_denormals_restore(mode)
    return clock_seconds() - start


cdef void triad_piece(char *a, char *b, char *y, bint double_) noexcept nogil:
    if double_:
        f64.triad(PIECE, 1.5, <double *> a, <double *> b, <double *> y)
    else:
        f32.triad(PIECE, <float> 1.5, <float *> a, <float *> b, <float *> y)


def multiply_add(Py_ssize_t rounds, double scale, double offset, bint double=False):
    """The kernel of `flops_per_second` by itself: every lane of its total over the chains."""
    out = np.full(WIDEST, np.nan, np.float64 if double else np.float32)
    cdef char *address = <char *> <size_t> out.ctypes.data
    if rounds < 0:
        raise ValueError(f"rounds are 0 or more, not {rounds}")
    if double:
        f64.multiply_add(rounds, scale, offset, <double_t *> address)
    else:
        f32.multiply_add(rounds, <float> scale, <float> offset, <float *> address)
    return out


def triad(a, b, y, double scale):
    """The kernel of `bytes_per_second` by itself: y = a + scale · b."""
    if not a.dtype == b.dtype == y.dtype or a.dtype not in (np.float32, np.float64):
        raise ValueError("arrays are all float32 or all float64")
    if not a.size == b.size == y.size or not y.flags.writeable:
        raise ValueError("arrays have one size, and y can be written")
    if not all(array.flags.c_contiguous for array in (a, b, y)):
        raise ValueError("arrays are C-contiguous")
    cdef size_t to = y.ctypes.data, one = a.ctypes.data, other = b.ctypes.data
    if a.dtype == np.float64:
        f64.triad(a.size, scale, <double_t *> one, <double_t *> other, <double_t *> to)
    else:
        f32.triad(a.size, <float> scale, <float *> one, <float *> other, <float *> to)


cdef Py_ssize_t spread_out(int threads, bint double_):
    """Keep the team busy until its threads run side by side; returns how many rounds last long
    enough for the clock. A thread that was just started may share its parent's processor until the
    system's scheduler looks again, which can take half a second."""
    cdef Py_ssize_t rounds = 1 << 10
    cdef double alone = 0, together = 0, start
    with nogil:
        while alone < ROUND:
            rounds *= 2
            alone = multiply_adds(rounds, 1, double_)
        start = clock_seconds()
        while True:
            together = multiply_adds(rounds, threads, double_)
            if together < 1.5 * alone or clock_seconds() - start > PATIENCE:
                return rounds


def flops_per_second(bint double=False) -> float:
    """Floating-point operations of the best round of multiply-adds, on all threads."""
    cdef int threads = thread_count()
    cdef Py_ssize_t rounds
    cdef double seconds = 0, best = 0, work
    work = <double> (f64.peak_flops if double else f32.peak_flops) * threads
    rounds = spread_out(threads, double)
    for _ in range(ROUNDS):
        with nogil:
            seconds = multiply_adds(rounds, threads, double)
        best = max(best, work * rounds / seconds)
    return best


def bytes_per_second(bint double=False) -> float:
    """Bytes of the best round of the triad, on all threads."""
    cdef int threads = thread_count()
    cdef Py_ssize_t pieces = ARRAY // (PIECE * (8 if double else 4))
    arrays = [np.zeros(ARRAY, np.uint8) for _ in range(3)]
    cdef char *a = <char *> <size_t> arrays[0].ctypes.data
    cdef char *b = <char *> <size_t> arrays[1].ctypes.data
    cdef char *y = <char *> <size_t> arrays[2].ctypes.data
    cdef double seconds = 0, best = 0
    for array in arrays:
        array.fill(0)   # a page that was never written is not in memory
    spread_out(threads, double)
    for _ in range(ROUNDS):
        with nogil:
            seconds = stream(a, b, y, pieces, threads, double)
        best = max(best, 3.0 * ARRAY / seconds)
    return best

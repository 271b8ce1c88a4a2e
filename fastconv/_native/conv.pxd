"""Where the tiles of a gather read and write, for the walks that use it."""

from fastconv._native.dispatch cimport fc_epilogue, real
from fastconv._native.geometry cimport Gather, Lattice
from fastconv._native.tiles cimport TALLEST

cdef enum:
    BLOCK = 32          # tiles that share a chunk of a panel, at most

cdef struct Pixels:
    # of a block: elements into the source (where a shift of 0 reads), pixels into the destination,
    # coordinates of that source pixel, and whether every tap stays inside the image
    Py_ssize_t[BLOCK * TALLEST] src, dst, d, h, w
    char[BLOCK * TALLEST] inside

cdef struct Chunk:
    # taps t0..t1, channels i0..i1: one stretch of the sum
    Py_ssize_t t0, t1, i0, i1
    bint first, final

cdef void list_pixels(const Gather *g, const Lattice *s, Py_ssize_t first, Py_ssize_t count,
                      Pixels *pixels) noexcept nogil

cdef bint all_inside(const Pixels *pixels, Py_ssize_t first, Py_ssize_t m) noexcept nogil

cdef Py_ssize_t list_sources(const Gather *g, const Lattice *s, const Pixels *pixels,
                             Py_ssize_t first, Py_ssize_t m, Py_ssize_t t0, Py_ssize_t t1,
                             Py_ssize_t hop, bint inside, const real *x, const real **rows,
                             short *kept) noexcept nogil

cdef inline bint goes_on(const fc_epilogue *e) noexcept nogil:
    """Whether anything follows the sums, with whose beginning the bias has gone."""
    return e.scale is not NULL or e.residual is not NULL or e.f.kind != 0

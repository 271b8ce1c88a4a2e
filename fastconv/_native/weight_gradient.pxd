"""How a weight gradient cuts its sums, for the walks that copy what they read."""

from fastconv._native.dispatch cimport fc_walk, real
from fastconv._native.geometry cimport Outer, Rectangle
from fastconv._native.step cimport Context

cdef struct Box:
    # some pixels of y and what a tap sees there: a walk, a loop around it, and where it starts
    fc_walk walk
    Py_ssize_t count, x_step, dy_step, x, dy
    bint empty

cdef struct Cut:
    # samples and pixels of y cut into chunks
    Py_ssize_t[4] extent, parts
    Py_ssize_t chunks

cdef struct Block:
    Py_ssize_t tap, group, tile0, tile1, panel0, panel1

cdef inline Py_ssize_t pixels_of(const Box *box) noexcept nogil:
    """Of one walk."""
    return box.walk.count[0] * box.walk.count[1] * box.walk.count[2]

cdef Cut cut_pixels(const Outer *o, Py_ssize_t samples, Py_ssize_t room) noexcept nogil

cdef Box chunk_box(const Outer *o, const Rectangle *tap, const Cut *cut, Py_ssize_t chunk,
                   Py_ssize_t sample) noexcept nogil

cdef Py_ssize_t copied_blocks(const Outer *o, Py_ssize_t height, Py_ssize_t width,
                              Py_ssize_t wanted, const real *x, Py_ssize_t *rows,
                              Py_ssize_t *cols) noexcept nogil

cdef Block block_at(const Outer *o, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t cols,
                    const real *x) noexcept nogil

cdef void add_pieces(const Context *c, const real *copies, Py_ssize_t pieces, Py_ssize_t size,
                     real *total, bint accumulate) noexcept nogil

"""Steps whose work is split over the threads, and how."""

from fastconv._native.step cimport Context, Step

cdef enum:
    PIECE = 4096  # elements of a piece, about: 16 KB of floats

cdef inline Py_ssize_t blocks(Py_ssize_t count, Py_ssize_t size) noexcept nogil:
    """Blocks of `size` that hold `count`."""
    return (count + size - 1) // size

cdef enum:
    PIECES = 64     # of a sum over rows, at most: as many threads find work
    SHORTEST = 128  # rows of a piece, at least
    COLUMNS = 64    # channels of one piece of a merge

cdef inline Py_ssize_t piece_rows(Py_ssize_t rows) noexcept nogil:
    """Rows of one piece of a sum over `rows`."""
    return max(SHORTEST, blocks(rows, PIECES))

cdef class SplitStep(Step):
    cdef void split(self, Context *c, int phase, Py_ssize_t count, Py_ssize_t block,
                    double cost) noexcept nogil
    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil

cdef class RowStep(SplitStep):
    cdef Py_ssize_t pixels, channels
    cdef bint flat
    cdef double cost
    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil
    cdef inline Py_ssize_t at(self, Py_ssize_t first, Py_ssize_t stride) noexcept nogil:
        """Where unit `first` starts in a tensor of this pixel stride."""
        return first if self.flat else first * stride

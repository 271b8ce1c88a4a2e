"""Steps whose work is split over the threads, and how.

The one parallel loop of all kernels that are not matrix products. Work is a count of units (pixels,
rows of an image, pieces of a sum) cut into blocks by their shape alone: which thread runs a block,
and how many threads there are, changes nothing in it.
"""

from cython.parallel cimport parallel, prange

from fastconv._native.dispatch cimport flush_denormals_on, flush_denormals_restore
from fastconv._native.step cimport team


cdef class SplitStep(Step):
    """A step that hands blocks of units to ``part``, which runs on any thread."""

    cdef void split(self, Context *c, int phase, Py_ssize_t count, Py_ssize_t block,
                    double cost) noexcept nogil:
        """Run ``part`` over ``count`` units; ``cost`` is one unit's work in plain operations."""
        cdef Py_ssize_t i
        cdef unsigned mode = 0
        cdef int threads = team(c, cost * count)
        if threads == 1 or count <= block:  # the calling thread's mode is set already
            for i in range(blocks(count, block)):
                self.part(c, phase, i * block, min(count, (i + 1) * block))
            return
        with parallel(num_threads=threads):
            mode = flush_denormals_on()
            for i in prange(blocks(count, block), schedule="static"):
                self.part(c, phase, i * block, min(count, (i + 1) * block))
            flush_denormals_restore(mode)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        pass


cdef class RowStep(SplitStep):
    """A step over rows (pixels) × columns (channels) whose elements or rows are independent.

    Where no gaps divide the pixels (``flat``) a block is one long row, so that few channels fill
    whole vectors; else it is some rows.
    """

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t count = c.n * self.pixels
        if self.flat:
            self.split(c, 0, count * self.channels, PIECE, self.cost)
        else:
            self.split(c, 0, count, max(1, PIECE // self.channels), self.cost * self.channels)

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if self.flat:
            self.rows(c, first, 1, last - first)
        else:
            self.rows(c, first, last - first, self.channels)

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        pass

"""A step is one kernel call with its arguments bound; a context is what changes from run to run."""

from libc.stdint cimport uint64_t

ctypedef struct Context:
    void **ptr          # slot → address
    Py_ssize_t n        # samples of this run
    int f64             # doubles, for the reference; else floats
    int training
    int accumulate      # gradients of parameters are added to, not overwritten
    int threads
    uint64_t seed       # of this run's random numbers, with the step below
    uint64_t step
    int failed          # a step raised; the program stops

cdef class Step:
    cdef readonly tuple reads       # of Extent
    cdef readonly tuple writes      # of Extent
    cdef void run(self, Context *c) noexcept nogil

# Stop the program after this step; Pass.run raises `error`. Called with the GIL.
cdef void fail(Context *c, object error) noexcept

# Seconds of a clock that never goes back.
cdef double clock_seconds() noexcept nogil

# A parallel region opens only when its work, in elements moved, pays for waking the team: about ten
# microseconds. Of a matrix product so many multiply-adds weigh as much as one element moved.
cdef enum:
    FMAS = 8

cdef inline int team(const Context *c, double work) noexcept nogil:
    return c.threads if work > 65536.0 else 1

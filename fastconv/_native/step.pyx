"""Steps and the programs and passes that run them.

Design. A *step* is a kernel call with its arguments bound. It names its buffers by slot: an index
into the pointer table of a pass, so that one list of steps serves any number of passes that are
alive together. A *program* is a flat list of steps, run by one loop with the GIL released (a step
costs about 60 ns). A *pass* owns the memory of one walk through the network: an arena, placed once
for a capacity of samples, and the table of addresses.

What a step touches is said in Python by its extents, ``fixed + n * per_sample`` elements of a slot
for a batch of n; the plan derives lifetimes and sizes from them, and every array that comes from
outside is checked against them, so that C never trusts a size.
"""

import re
from collections import namedtuple

import numpy as np

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport PyObject
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #include <time.h>
    #include <sys/mman.h>

    static double fc_seconds(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + 1e-9 * now.tv_nsec;
    }

    static int fc_huge_pages(void *start, size_t bytes)
    {
    #ifdef MADV_HUGEPAGE
        return madvise(start, bytes, MADV_HUGEPAGE);
    #else
        return -1;
    #endif
    }
    """
    double fc_seconds() nogil
    int fc_huge_pages(void *start, size_t bytes) nogil     # 0: the system heard it

from fastconv._native.dispatch cimport (
    flush_denormals_on, flush_denormals_restore, thread_count,
)

Extent = namedtuple("Extent", "slot per_sample fixed itemsize", defaults=(0, 0, 0))
Extent.__doc__ = """A run with n samples touches fixed + n * per_sample elements of this slot.

``itemsize`` is the size of one element in bytes; 0 stands for the pass' own real, float32 or
float64. Labels, indexes, losses and data from outside have a size of their own."""

cdef size_t LINE = 64  # bytes: a cache line and the widest vector
ALIGNMENT = LINE
cdef size_t LARGE_PAGE = 2 << 20


cdef double clock_seconds() noexcept nogil:
    return fc_seconds()


cdef class Step:
    """Base of all steps: does nothing. Subclasses set ``reads`` and ``writes`` in ``__init__``.

    What a profile says of a step it says itself: ``title`` is its class' name in words, and
    subclasses with arithmetic worth counting override ``flops``; where there is a choice of
    algorithms, ``algorithm`` names it: "direct", "winograd".
    """

    algorithm = ""

    def __cinit__(self):
        self.reads = ()
        self.writes = ()

    @property
    def title(self):
        """What it does, in words: "conv input gradient"."""
        return " ".join(re.findall("[A-Z][^A-Z]*", type(self).__name__)).lower()

    def flops(self, n):
        """Additions and multiplications of its matrix products over n samples, as its algorithm
        has them; 0 where memory is what a step waits for."""
        return 0

    cdef void run(self, Context *c) noexcept nogil:
        pass


cdef class PythonStep(Step):
    """A step in Python, for users' own layers: ``function(arrays, training, accumulate)``.

    Parameters
    ----------
    function : callable
        Called with a list of numpy views, one per slot in ``slots``, and two bools of the run.
    slots : sequence of (slot, per-sample shape or None, fixed shape or None[, dtype])
        An entry with a per-sample shape is seen as ``(n, *shape)``, one with a fixed shape as is;
        without a dtype as reals.
    reads, writes : sequence of Extent
    """

    cdef object function
    cdef tuple slots

    def __init__(self, function, slots, reads, writes):
        self.function = function
        self.slots = tuple(slots)
        self.reads, self.writes = tuple(reads), tuple(writes)

    cdef void run(self, Context *c) noexcept nogil:
        with gil:
            try:
                self.call(c)
            except BaseException as error:
                fail(c, error)

    cdef call(self, Context *c):
        arrays = []
        real = np.float64 if c.f64 else np.float32
        for slot, per_sample, fixed, *dtype in self.slots:
            shape = fixed if per_sample is None else (c.n, *per_sample)
            arrays.append(_view(c.ptr[<Py_ssize_t> slot], shape, dtype[0] if dtype else real))
        self.function(arrays, bool(c.training), bool(c.accumulate))


_raised = {}  # what a step of each pass raised, until its program has stopped


cdef void fail(Context *c, object error) noexcept:
    """Stop the program after this step; its ``run`` raises ``error``."""
    c.failed = 1
    _raised[<size_t> c] = error


cdef _view(void *address, shape, dtype):
    """A numpy array over memory that a pass owns."""
    cdef Py_ssize_t size = np.dtype(dtype).itemsize
    for extent in shape:
        size *= extent
    if size == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(<unsigned char[:size]> address, dtype).reshape(shape)


cdef class Program:
    """A flat list of steps, run in order with the GIL released."""

    cdef readonly list steps
    cdef PyObject **raw
    cdef Py_ssize_t count

    def __cinit__(self, steps):
        self.steps = list(steps)
        self.count = len(self.steps)
        self.raw = <PyObject **> calloc(self.count + 1, sizeof(PyObject *))
        if self.raw is NULL:
            raise MemoryError
        for i, step in enumerate(self.steps):
            if not isinstance(step, Step):
                raise TypeError(f"a program is made of steps, not {type(step).__name__}")
            self.raw[i] = <PyObject *> step

    def __dealloc__(self):
        free(self.raw)

    def __len__(self):
        return self.count


cdef class Pass:
    """The memory of one walk through a network: an arena and the table of addresses.

    Parameters
    ----------
    slots : int
        Length of the table of addresses.
    nbytes : int
        Size of the arena.
    double : bool
        The pass computes in float64.
    """

    cdef Context c
    cdef Py_ssize_t slots, size
    cdef object arena
    cdef char *base
    cdef dict held          # slot → array from outside, kept alive while bound
    cdef object __weakref__

    def __cinit__(self, Py_ssize_t slots, Py_ssize_t nbytes, bint double=False):
        if slots < 0 or nbytes < 0:
            raise ValueError("a pass has no negative sizes")
        self.slots = slots
        self.c.ptr = <void **> calloc(slots + 1, sizeof(void *))
        if self.c.ptr is NULL:
            raise MemoryError
        self.c.f64 = double
        self.held = {}
        # an arena of several large pages begins with one, and asks for them: a five-hundredth of
        # the page faults when it is first written. A system that has none gives small ones.
        cdef size_t unit = LARGE_PAGE if nbytes >= <Py_ssize_t> (2 * LARGE_PAGE) else LINE
        self.size = nbytes
        self.arena = np.empty(nbytes + unit, np.uint8)
        cdef size_t address = <size_t> self.arena.ctypes.data
        self.base = <char *> ((address + unit - 1) // unit * unit)
        if unit == LARGE_PAGE:
            fc_huge_pages(self.base, nbytes)

    def __dealloc__(self):
        free(self.c.ptr)

    @property
    def nbytes(self):
        return self.size

    @property
    def dtype(self):
        return np.dtype(np.float64 if self.c.f64 else np.float32)

    cdef _check_slot(self, Py_ssize_t slot):
        if not 0 <= slot < self.slots:
            raise ValueError(f"no slot {slot} in a table of {self.slots}")

    def place(self, Py_ssize_t slot, Py_ssize_t offset):
        """Slot lies at ``offset`` bytes into the arena."""
        self._check_slot(slot)
        if not 0 <= offset <= self.nbytes:
            raise ValueError(f"offset {offset} lies outside an arena of {self.nbytes} bytes")
        self.c.ptr[slot] = self.base + offset

    def bind(self, Py_ssize_t slot, array):
        """Slot is a C-contiguous array from outside, kept alive while it is bound."""
        cdef Py_buffer view
        self._check_slot(slot)
        try:
            PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
        except ValueError:
            raise ValueError(f"slot {slot} needs a C-contiguous array") from None
        self.c.ptr[slot] = view.buf     # as long as the array lives, which is held here
        self.held[slot] = array
        PyBuffer_Release(&view)

    def unbind(self, Py_ssize_t slot):
        self._check_slot(slot)
        self.c.ptr[slot] = NULL
        self.held.pop(slot, None)

    def view(self, Py_ssize_t slot, shape, dtype=None):
        """A numpy view of what slot holds; valid while the pass lives."""
        self._check_slot(slot)
        if self.c.ptr[slot] is NULL:
            raise ValueError(f"slot {slot} is not placed")
        view = _view(self.c.ptr[slot], tuple(shape), dtype or self.dtype)
        return view

    def run(self, Program program not None, Py_ssize_t n, bint training=False,
            bint accumulate=False, uint64_t seed=0, uint64_t step=0, double[::1] seconds=None):
        """Run a program over n samples; ``seconds``, one per step, receives what each took."""
        cdef unsigned mode
        cdef Context *c = &self.c
        if n < 1:
            raise ValueError(f"a run has at least one sample, not {n}")
        if seconds is not None and seconds.shape[0] != program.count:
            raise ValueError(f"{program.count} steps need as many seconds, "
                             f"not {seconds.shape[0]}")
        c.n, c.training, c.accumulate, c.seed, c.step = n, training, accumulate, seed, step
        c.threads = thread_count()
        c.failed = 0
        with nogil:
            mode = flush_denormals_on()
            if seconds is None:
                walk(program, c)
            else:
                walk_timed(program, c, &seconds[0] if program.count else NULL)
            flush_denormals_restore(mode)
        if c.failed:
            raise _raised.pop(<size_t> c)


cdef void walk(Program program, Context *c) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(program.count):
        (<Step> program.raw[i]).run(c)
        if c.failed:
            break


cdef void walk_timed(Program program, Context *c, double *seconds) noexcept nogil:
    """The same walk with a look at the clock after each step."""
    cdef Py_ssize_t i
    cdef double now, before = fc_seconds()
    for i in range(program.count):
        (<Step> program.raw[i]).run(c)
        if c.failed:
            break
        now = fc_seconds()
        seconds[i] = now - before
        before = now


def execute(Step step not None, arrays, Py_ssize_t n, *, bint training=False,
            bint accumulate=False, uint64_t seed=0, uint64_t step_number=0):
    """Run one step on numpy arrays: the kernel alone.

    Parameters
    ----------
    step : Step
    arrays : dict of slot → array
        C-contiguous; all float32, or all float64 for the reference (slots with an element size of
        their own aside). Each is checked against what the step says that it touches.
    n : int
        Samples.
    """
    extents = step.reads + step.writes
    for extent in extents:
        if extent.slot not in arrays:
            raise ValueError(f"{type(step).__name__} needs an array for slot {extent.slot}")
    own = {extent.slot for extent in extents if extent.itemsize}
    reals = {array.dtype for slot, array in arrays.items() if slot not in own}
    if len(reals) > 1 or not reals <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise ValueError(f"arrays are all float32 or all float64, not {sorted(map(str, reals))}")
    runner = Pass(max(arrays, default=-1) + 1, 0, np.dtype(np.float64) in reals)
    for extent in extents:
        array = arrays[extent.slot]
        itemsize = extent.itemsize or runner.dtype.itemsize
        if array.itemsize != itemsize:
            raise ValueError(f"{type(step).__name__}: slot {extent.slot} holds elements of "
                             f"{array.itemsize} bytes, not {itemsize}")
        need = extent.fixed + n * extent.per_sample
        if array.size < need:
            raise ValueError(f"{type(step).__name__}: slot {extent.slot} holds "
                             f"{array.size} elements, {need} are needed")
    for extent in step.writes:
        if not arrays[extent.slot].flags.writeable:
            raise ValueError(f"{type(step).__name__}: slot {extent.slot} is read-only")
    for slot, array in arrays.items():
        runner.bind(slot, array)
    runner.run(Program([step]), n, training, accumulate, seed, step_number)

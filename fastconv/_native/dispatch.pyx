"""Which kernel table runs, and on how many threads: decided here and nowhere else.

This extension alone links the C objects. The table is the best one that the CPU can run, unless
``FASTCONV_ISA`` names another. The thread count is ``set_num_threads``, then what
`fastconv.cpus.default_num_threads` finds.
"""

import os

from fastconv.cpus import MAX_THREADS, default_num_threads

cdef extern from "dispatch.h" nogil:
    const char *fc_isa_name(int i)
    const fc_kernels_f32 *fc_kernels_by_name(const char *name)
    const fc_kernels_f64 *fc_reference()
    const char *fc_compiler()
    const char *fc_flags()
    unsigned fc_flush_denormals_on()
    void fc_flush_denormals_restore(unsigned mode)

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define FC_OPENMP _OPENMP
    static void fc_teams_as_asked(void) { omp_set_dynamic(0); }
    #else
    #define FC_OPENMP 0
    static void fc_teams_as_asked(void) {}
    #endif
    """
    const long FC_OPENMP
    void fc_teams_as_asked()    # also what loads the OpenMP runtime with this extension

cdef int threads = 1
cdef object threads_why = ""
cdef bint forked = False
f64 = fc_reference()


def isa_names() -> tuple[str, ...]:
    """The tables that this build has and this CPU can run, best first."""
    names = []
    while fc_isa_name(len(names)) is not NULL:
        names.append(fc_isa_name(len(names)).decode())
    return tuple(names)


def isa() -> str:
    """The table in use."""
    return f32.isa.decode()


def set_isa(str name not None) -> None:
    """Use the table ``name`` from now on (one of `isa_names`)."""
    global f32
    cdef const fc_kernels_f32 *table = fc_kernels_by_name(name.encode())
    if table is NULL:
        raise ValueError(f"no kernel table {name!r} here; there are {', '.join(isa_names())}")
    f32 = table


def peak_flops() -> int:
    """Flops of one round of the table's `multiply_add`."""
    return f32.peak_flops


def compiler() -> str:
    return fc_compiler().decode()


def flags() -> str:
    return fc_flags().decode()


def openmp() -> int:
    """The OpenMP version (yyyymm) of the build, 0 for a serial build."""
    return FC_OPENMP


cdef int thread_count() noexcept nogil:
    return threads


cdef unsigned flush_denormals_on() noexcept nogil:
    return fc_flush_denormals_on()


cdef void flush_denormals_restore(unsigned mode) noexcept nogil:
    fc_flush_denormals_restore(mode)


def num_threads() -> int:
    return threads


def num_threads_why() -> str:
    """Where the thread count comes from, in words."""
    return threads_why


def set_num_threads(n, why: str = "set_num_threads") -> None:
    """Use ``n`` threads from now on. Results are the same bits for every ``n``."""
    global threads, threads_why
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise ValueError(f"the number of threads is an integer, not {n!r}")
    if not 1 <= n.__index__() <= MAX_THREADS:
        raise ValueError(f"the number of threads lies in 1..{MAX_THREADS}, not {n}")
    if forked and n > 1:
        raise RuntimeError("a forked process has one thread, since OpenMP's threads do not survive "
                           "a fork; start workers by multiprocessing's 'spawn' to give them more")
    if not FC_OPENMP:
        threads, threads_why = 1, "this build has no OpenMP"
    else:
        threads, threads_why = n.__index__(), why


def _after_fork() -> None:
    # GNU OpenMP's threads do not survive fork; a child that opened a region would hang
    global forked
    forked = True
    set_num_threads(1, "after a fork, where OpenMP's threads are gone")


cdef _start():
    wanted = os.environ.get("FASTCONV_ISA", "").strip()
    try:
        set_isa(wanted or isa_names()[0])
    except ValueError as error:
        raise ImportError(f"FASTCONV_ISA: {error}") from None
    try:
        set_num_threads(*default_num_threads())
    except ValueError as error:
        raise ImportError(str(error)) from None
    fc_teams_as_asked()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


_start()

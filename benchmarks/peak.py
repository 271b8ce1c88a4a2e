"""What the machine can do at most: multiply-add peak and memory bandwidth, measured.

A small C file is written, compiled with the system's compiler for the instruction set that fastconv
uses, and run on as many threads. The peak is a loop of independent multiply-adds on registers
alone; no real kernel reaches it. The bandwidth is McCalpin's triad, ``c = a + s·b`` on arrays far
larger than the caches, counted as STREAM does: two arrays read, one written. The same loop on
smaller arrays says what the caches give.

    python benchmarks/peak.py --threads 2
"""

import argparse
import ctypes
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from report import Report, Table

LEVELS = (32 << 10, 256 << 10, 1 << 20, 16 << 20)  # floats of each of a thread's three arrays

# instruction set: compiler flags, bytes of a vector, independent chains that fit the registers
ISA = {
    "avx512": (["-mavx512f", "-mfma", "-mprefer-vector-width=512"], 64, 24),
    "avx2": (["-mavx2", "-mfma"], 32, 12),
    "neon": ([], 16, 24),
    "baseline": ([], 16, 12),
}
SOURCE = r"""
#include <stddef.h>
#include <string.h>
typedef float vec __attribute__((vector_size(BYTES)));
enum { LANES = BYTES / sizeof(float) };

/* n rounds of CHAINS multiply-adds that do not wait for one another. */
double multiply_add(long n)
{
    vec sum[CHAINS], a, b;
    for (int l = 0; l < LANES; l++) {
        a[l] = 0.999f + l * 1e-6f;
        b[l] = 1e-3f;
    }
#pragma GCC unroll 32
    for (int c = 0; c < CHAINS; c++)
        sum[c] = b * (float)c;
    for (long i = 0; i < n; i++) {
#pragma GCC unroll 32
        for (int c = 0; c < CHAINS; c++)
            sum[c] = sum[c] * a + b;
    }
    double total = 0; /* what is not used is not computed */
#pragma GCC unroll 32
    for (int c = 0; c < CHAINS; c++)
        for (int l = 0; l < LANES; l++)
            total += sum[c][l];
    return total;
}

/* c = a + s b, rounds times. */
void triad(float *restrict c, const float *restrict a, const float *restrict b, ptrdiff_t n,
           long rounds)
{
    for (long r = 0; r < rounds; r++) {
        const float s = 1.5f + r;
        for (ptrdiff_t i = 0; i < n; i++)
            c[i] = a[i] + s * b[i];
        __asm__ volatile("" ::: "memory");
    }
}
"""


def compile_probe(isa: str, folder: str) -> ctypes.CDLL:
    """The probe as a shared library for this instruction set."""
    flags, width, chains = ISA[isa]
    source, library = Path(folder, "probe.c"), Path(folder, "probe.so")
    source.write_text(SOURCE)
    command = [
        *os.environ.get("CC", "cc").split(), "-O3", "-ffp-contract=fast",
        "-shared", "-fPIC", *flags, f"-DBYTES={width}", f"-DCHAINS={chains}",
        str(source), "-o", str(library),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    probe = ctypes.CDLL(str(library))
    probe.multiply_add.argtypes = [ctypes.c_long]
    probe.multiply_add.restype = ctypes.c_double
    pointer = ctypes.c_void_p
    probe.triad.argtypes = [pointer, pointer, pointer, ctypes.c_ssize_t, ctypes.c_long]
    return probe


def together(work, threads: int) -> float:
    """Seconds from the common start of ``work(thread)`` on all threads to the last one's end."""
    gate = threading.Barrier(threads + 1)

    def run(thread: int) -> None:
        gate.wait()
        work(thread)

    pool = [threading.Thread(target=run, args=(t,)) for t in range(threads)]
    for thread in pool:
        thread.start()
    gate.wait()
    start = time.perf_counter()
    for thread in pool:
        thread.join()
    return time.perf_counter() - start


def measure(isa: str, threads: int, rounds: int = 9) -> dict[str, Any]:
    """The best of several rounds: GFLOP/s of multiply-adds and GB/s of the triad.

    ``levels`` has the triad's GB/s by the bytes that all threads together touch; ``gbytes`` is that
    of the largest, memory's.
    """
    import numpy as np

    width, chains = ISA[isa][1:]
    arrays = [[np.full(LEVELS[-1], 1.0, np.float32) for _ in range(3)] for _ in range(threads)]
    with tempfile.TemporaryDirectory() as folder:
        probe = compile_probe(isa, folder)
        count = 2_000_000
        flop = 2.0 * count * chains * (width // 4) * threads
        fma = [flop / together(lambda _: probe.multiply_add(count), threads) for _ in range(rounds)]
        levels = []
        for size in LEVELS:
            again = max(4, (LEVELS[-1] // size) // 4)

            def triad(thread: int, size: int = size, again: int = again) -> None:
                probe.triad(*(array.ctypes.data for array in arrays[thread]), size, again)

            footprint = 4 * 3 * size * threads
            best = min(together(triad, threads) for _ in range(rounds))
            levels.append((footprint, footprint * again / best / 1e9))
    return {
        "isa": isa,
        "threads": threads,
        "gflops": max(fma) / 1e9,
        "gbytes": levels[-1][1],
        "levels": levels,
    }


def measure_in_use(threads: int, rounds: int = 9) -> dict[str, Any]:
    """The limits for the instruction set that fastconv uses in this process, printed."""
    from fastconv._native import dispatch

    limit = measure(dispatch.isa(), threads, rounds)
    print(describe(limit), flush=True)
    return limit


def describe(limit: dict[str, Any]) -> str:
    return (
        f"{limit['isa']}, {limit['threads']} threads: {limit['gflops']:.1f} GFLOP/s of fp32 "
        f"multiply-adds, {limit['gbytes']:.1f} GB/s triad"
    )


def run(args: argparse.Namespace) -> Report:
    """The limits for one thread, two, … as many as asked for."""
    counts = sorted({1, *(2**i for i in range(1, 8) if 2**i < args.threads), args.threads})
    found = [measure_in_use(count, args.rounds) for count in counts]
    header = ["threads", "GFLOP/s", *(f"GB/s at {12 * size >> 10} KiB a thread" for size in LEVELS)]
    rows = [
        [str(limit["threads"]), f"{limit['gflops']:.1f}", *(f"{g:.1f}" for _, g in limit["levels"])]
        for limit in found
    ]
    title = f"Limits of the machine, {found[0]['isa']}"
    return Report(
        "peak", title, [Table("Multiply-adds and triad", header, rows)], data={"rows": found}
    )


def main() -> None:
    from fastconv._native import dispatch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=dispatch.num_threads())
    parser.add_argument("--isa", choices=sorted(ISA), default=dispatch.isa())
    args = parser.parse_args()
    print(describe(measure(args.isa, args.threads)))


if __name__ == "__main__":
    main()

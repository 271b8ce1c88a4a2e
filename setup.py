"""Build: every csrc/isa/*.c once with its own flags, every fastconv/_native/*.pyx once.

Only the extension ``dispatch`` links the C objects; the others reach the kernel tables through it.
Environment: ``FASTCONV_DEBUG=1`` turns Cython's checks on, ``FASTCONV_SANITIZE=1`` builds with the
address and undefined-behaviour sanitizers, ``FASTCONV_OPENMP=0`` builds without threads.
"""

import os
import platform
import subprocess
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

X86 = ["-mavx2", "-mfma"]
# One line per instruction set: the table's name and the flags that its file alone is compiled with.
ISA_FLAGS = {
    "x86_64": {
        "baseline": [],
        "avx2": X86,
        "avx512": [*X86, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl",
                   "-mprefer-vector-width=512"],
    },
    "aarch64": {"baseline": [], "neon": []},
}  # fmt: skip
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
TABLES = {**ISA_FLAGS.get(MACHINE, {"baseline": []}), "reference_f64": []}

DEBUG = os.environ.get("FASTCONV_DEBUG") == "1"
SANITIZE = os.environ.get("FASTCONV_SANITIZE") == "1"

# fma happens where the text says so and nowhere else: the same bits from every compiler.
CFLAGS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]
if SANITIZE:
    CFLAGS += ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
               "-fno-sanitize-recover=undefined"]  # fmt: skip
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": not DEBUG,
    "embedsignature": True,
    "binding": False,
}


def openmp_flags() -> list[str]:
    """``["-fopenmp"]`` where the compiler and its runtime take it, else none: a serial build."""
    if os.environ.get("FASTCONV_OPENMP") == "0":
        return []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }")
        command = [*os.environ.get("CC", "cc").split(), "-fopenmp", str(source)]
        try:
            done = subprocess.run([*command, "-o", f"{folder}/probe"], capture_output=True)
        except OSError:
            return []
    return ["-fopenmp"] if done.returncode == 0 else []


OPENMP = openmp_flags()


class BuildKernels(build_ext):
    """Compile the kernel tables, each with its own flags, and hand the objects to ``dispatch``."""

    def build_extension(self, ext: Extension) -> None:
        if ext.name.endswith(".dispatch"):
            ext.extra_objects = [
                *self.compile_c(["csrc/dispatch.c"], []),
                *(o for isa, flags in TABLES.items()
                  for o in self.compile_c([f"csrc/isa/{isa}.c"], flags)),
            ]  # fmt: skip
        super().build_extension(ext)

    def compile_c(self, sources: list[str], flags: list[str]) -> list[str]:
        return self.compiler.compile(
            sources,
            output_dir=self.build_temp,
            include_dirs=["csrc"],
            macros=[("FC_FLAGS", '"' + " ".join([*CFLAGS, *OPENMP]) + '"')]
            + [(f"FC_HAVE_{isa.upper()}", "1") for isa in TABLES],
            extra_postargs=[*CFLAGS, *flags],
            depends=[str(p) for p in Path("csrc").rglob("*") if p.suffix in {".h", ".inl"}],
        )


def extensions() -> list[Extension]:
    link = [*OPENMP, *(["-fsanitize=address,undefined"] if SANITIZE else [])]
    kernels = [str(p) for p in sorted(Path("csrc").rglob("*")) if p.suffix in {".c", ".h", ".inl"}]
    return [
        Extension(
            f"fastconv._native.{source.stem}",
            [str(source)],
            include_dirs=["csrc"],
            depends=kernels,
            extra_compile_args=[*CFLAGS, *OPENMP, "-Wno-unused-function"],
            extra_link_args=link,
        )
        for source in sorted(Path("fastconv/_native").glob("*.pyx"))
    ]


setup(
    ext_modules=cythonize(extensions(), compiler_directives=DIRECTIVES, quiet=True),
    cmdclass={"build_ext": BuildKernels},
)

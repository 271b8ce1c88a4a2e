"""Build: every csrc/isa/*.c once with its own flags, every fastconv/_native/*.pyx once.

Only the extension ``dispatch`` links the C objects; the others reach the kernel tables through it.
Environment: ``FASTCONV_DEBUG=1`` turns Cython's checks on, ``FASTCONV_SANITIZE=1`` adds the address
and undefined-behaviour sanitizers, ``FASTCONV_OPENMP=0`` builds without threads,
``FASTCONV_EXTENSIONS=0`` leaves the extensions out (for an editable install whose extensions are
built in place). CC chooses the compiler.
"""

import os
import platform
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

SANITIZE = os.environ.get("FASTCONV_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("FASTCONV_DEBUG") == "1"
OPENMP = os.environ.get("FASTCONV_OPENMP") != "0"
EXTENSIONS = os.environ.get("FASTCONV_EXTENSIONS") != "0"

# The one table of flags. Contraction off: fma happens where the text says so and nowhere else,
# the same bits from every compiler. No link-time optimisation: it would mix instruction sets.
COMMON = ["-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-fno-lto"]
CYTHON = ["-Wno-unused-function", "-Wno-unused-but-set-variable"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FLAGS = {  # of the kernels, then of the code around them, which -O3 would only make longer
    "release": (["-O3", "-g0"], ["-O2", "-g0"]),
    "debug": (["-O1", "-g"],) * 2,
    # tracking variables through the unrolled tiles would take minutes
    "sanitize": (["-O1", "-g", "-fno-var-tracking", "-fno-omit-frame-pointer", *SANITIZERS],) * 2,
}
X86 = ["-mavx2", "-mfma"]
AVX512 = [*X86, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl",
          "-mprefer-vector-width=512"]  # fmt: skip
# One line per instruction set: the table's name and the flags that its file alone is compiled with.
ISA_FLAGS = {
    "x86_64": {
        "baseline": [],
        "avx2": X86,
        "avx512": AVX512,
        "avx512_bf16": [*AVX512, "-mavx512bf16"],
    },
    "aarch64": {"baseline": [], "neon": []},
}

MODE = "sanitize" if SANITIZE else "debug" if DEBUG else "release"
KERNEL_CFLAGS = [*COMMON, *FLAGS[MODE][0]]
CYTHON_CFLAGS = [*COMMON, *FLAGS[MODE][1], *CYTHON]
LINK = SANITIZERS if SANITIZE else []
BUILD = "build" if MODE == "release" else f"build/{MODE}"  # apart: objects carry no flags
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
TABLES = {**ISA_FLAGS.get(MACHINE, {"baseline": []}), "reference_f64": []}
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,  # in every build: else a checked build would divide otherwise
    "embedsignature": True,
    "binding": False,
}
# What is newer than its product is built again: an extension sees the headers of csrc, a kernel
# object all that is included there.
HEADERS = ["setup.py", *map(str, sorted(Path("csrc").glob("*.h"))), "csrc/table.inl"]
INCLUDED = [
    "setup.py",
    *(str(p) for p in sorted(Path("csrc").rglob("*")) if p.suffix in {".h", ".inl"}),
]


class BuildKernels(build_ext):
    """Compile the kernel tables, each with its own flags, and hand the objects to ``dispatch``."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count() or 1

    def build_extensions(self) -> None:
        self.openmp = self.openmp_flags()
        self.tables = {isa: flags for isa, flags in TABLES.items() if self.takes(isa, flags)}
        for ext in self.extensions:
            ext.depends += HEADERS
            ext.extra_compile_args += self.openmp
            ext.extra_link_args += self.openmp
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        if ext.name.endswith(".dispatch"):
            sources = {"csrc/dispatch.c": []}
            sources.update((f"csrc/isa/{isa}.c", flags) for isa, flags in self.tables.items())
            with ThreadPoolExecutor(self.parallel) as pool:
                ext.extra_objects = list(pool.map(self.compile_c, sources, sources.values()))
            ext.depends += ext.extra_objects
        super().build_extension(ext)

    def compile_c(self, source: str, flags: list[str]) -> str:
        [target] = self.compiler.object_filenames([source], output_dir=self.build_temp)
        if self.force or newer_group([source, *INCLUDED], target):
            self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=["csrc"],
                macros=[("FC_FLAGS", '"' + " ".join([*KERNEL_CFLAGS, *self.openmp]) + '"')]
                + [(f"FC_HAVE_{isa.upper()}", "1") for isa in self.tables],
                extra_postargs=[*KERNEL_CFLAGS, *flags],
            )
        return target

    def takes(self, isa: str, flags: list[str]) -> bool:
        """Whether the compiler knows the flags of a table; an old one builds without it."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text("int main(void) { return 0; }")
            command = [*self.compiler.compiler, *flags, "-c", str(source), "-o", f"{folder}/probe"]
            if not flags or subprocess.run(command, capture_output=True).returncode == 0:
                return True
        self.warn(f"without the kernel table {isa}: {self.compiler.compiler[0]} is too old for it")
        return False

    def openmp_flags(self) -> list[str]:
        """``["-fopenmp"]`` where the compiler has it and its runtime; else none, a serial build."""
        if not OPENMP:
            return []
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads(); }")
            command = [*self.compiler.compiler, "-fopenmp", str(source), "-o", f"{folder}/probe"]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return ["-fopenmp"]
        self.warn(f"a serial build: {self.compiler.compiler[0]} finds no OpenMP runtime")
        return []


def extensions() -> list[Extension]:
    return [
        Extension(
            f"fastconv._native.{source.stem}",
            [str(source)],
            include_dirs=["csrc"],
            extra_compile_args=[*CYTHON_CFLAGS],
            extra_link_args=[*LINK],
        )
        for source in sorted(Path("fastconv/_native").glob("*.pyx"))
    ]


if __name__ == "__main__":  # Cython's workers import this file
    setup(
        ext_modules=cythonize(
            extensions(),
            compiler_directives=DIRECTIVES,
            build_dir=f"{BUILD}/cython",
            nthreads=os.cpu_count() or 1,
            quiet=True,
        )
        if EXTENSIONS
        else [],
        cmdclass={"build_ext": BuildKernels},
        options={"build": {"build_base": BUILD}},
    )

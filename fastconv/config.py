"""What this build runs on: instruction set, threads, compiler, versions; and Keras' switches."""

import os
import platform
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastconv._native import dispatch
from fastconv.version import __version__

if TYPE_CHECKING:
    from fastconv.backend import (
        epsilon,
        floatx,
        image_data_format,
        set_epsilon,
        set_floatx,
        set_image_data_format,
    )
    from fastconv.precision import dtype_policy, set_dtype_policy

# Keras' switches → who has them; what a build is can be told without them, and without numpy
_SWITCHES = {
    "dtype_policy": "fastconv.precision",
    "epsilon": "fastconv.backend",
    "floatx": "fastconv.backend",
    "image_data_format": "fastconv.backend",
    "set_dtype_policy": "fastconv.precision",
    "set_epsilon": "fastconv.backend",
    "set_floatx": "fastconv.backend",
    "set_image_data_format": "fastconv.backend",
}

__all__ = [
    "config_info", "dtype_policy", "epsilon", "floatx", "get_num_threads", "image_data_format",
    "set_dtype_policy", "set_epsilon", "set_floatx", "set_image_data_format", "set_num_threads",
    "show_config",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _SWITCHES:
        raise AttributeError(f"fastconv.config has no {name!r}")
    return getattr(import_module(_SWITCHES[name]), name)


def set_num_threads(n: int) -> None:
    """Use ``n`` threads from now on; results are the same bits for every ``n``.

    Parameters
    ----------
    n : int
        At least 1. A build without OpenMP keeps to one thread, and `show_config` says so.
    """
    dispatch.set_num_threads(n)


def get_num_threads() -> int:
    """Threads that a kernel may use.

    `set_num_threads` decides, then ``OMP_NUM_THREADS``, then the smaller of the process' CPU
    affinity and the container's CPU quota.
    """
    return dispatch.num_threads()


def config_info() -> dict[str, object]:
    """The facts that `show_config` prints, for benchmark files and bug reports.

    Returns
    -------
    dict
        Plain values that json can write; a package that is not installed has version None.
    """
    openmp = dispatch.openmp()
    return {
        "fastconv": __version__,
        "isa": dispatch.isa(),
        "isa_available": list(dispatch.isa_names()),
        "bf16": dispatch.has_bf16(),
        "threads": dispatch.num_threads(),
        "threads_why": dispatch.num_threads_why(),
        "openmp": f"{openmp // 100}-{openmp % 100:02d}" if openmp else None,
        "compiler": dispatch.compiler(),
        "flags": dispatch.flags(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: _installed(name) for name in ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu")},
    }


def show_config() -> None:
    """Print what this build runs on; goes into every bug report."""
    info = config_info()
    info["isa_available"] = ", ".join(dispatch.isa_names())
    info["threads"] = f"{info['threads']} ({info.pop('threads_why')})"
    info["openmp"] = info["openmp"] or "none: a serial build"
    width = max(map(len, info))
    for name, value in info.items():
        print(f"{name:<{width}}  {'not installed' if value is None else value}")


def _installed(name: str) -> str | None:
    """The version of an installed package, read from its metadata: it is not imported."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, rarely wanted

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in {"model name", "Model", "cpu model"}:
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

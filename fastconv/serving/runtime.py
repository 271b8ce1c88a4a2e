"""onnxruntime and its providers: what is installed, what a device needs, how it is asked for.

All that fastconv knows of packages, libraries and provider options stands here. onnxruntime itself
is no help when something is missing: asked for CUDA on a machine without it, it gives a session on
the CPU, and its list of available providers names what it was built with, not what would run. So
the machine is asked first, the runtime is told not to fall back, and what it chose is checked.
"""

import contextlib
import ctypes
import glob
import importlib.metadata
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from fastconv import filetypes
from fastconv.serving.errors import SessionError

log = logging.getLogger("fastconv.serving")

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
PACKAGES = ("onnxruntime", "onnxruntime-gpu")  # both are the module `onnxruntime`

INSTALL = "pip install 'fastconv[runtime]'"
INSTALL_GPU = "pip install 'fastconv[gpu]'"
EXCHANGE = f"pip uninstall -y onnxruntime && {INSTALL_GPU}"
LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
REINSTALL = "pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'"
DRIVER = (
    "install NVIDIA's driver (Debian: apt install nvidia-driver), or start the container with "
    "its GPUs (docker run --gpus all)"
)

DOCTOR = "fastconv doctor --device cuda tells more"

Providers = list[tuple[str, dict[str, str]]]


def installed_packages() -> dict[str, str]:
    """Name → version of the onnxruntime packages that are installed, read from their metadata."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def load() -> ModuleType:
    """The module onnxruntime.

    Raises
    ------
    SessionError
        It is not installed, or twice, or broken.
    """
    packages = installed_packages()
    if len(packages) > 1:
        raise SessionError(
            "onnxruntime and onnxruntime-gpu are both installed; they are the same module, and "
            "whichever was installed last has overwritten parts of the other",
            f"pip uninstall -y onnxruntime onnxruntime-gpu && {INSTALL_GPU}",
        )
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # builds that have it ask this variable
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise SessionError("onnxruntime is not installed", INSTALL) from error
        package = next(iter(packages), "onnxruntime")
        raise SessionError(
            f"{package} is installed and cannot be imported: {first_line(error)}",
            f"pip install --force-reinstall {package}",
        ) from error
    return onnxruntime


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]


# -- the machine ----------------------------------------------------------------------------------


def has_driver() -> bool:
    """Whether NVIDIA's driver is installed here; it is not started."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def gpu_count() -> int:
    """GPUs that NVIDIA's driver shows this process.

    Raises
    ------
    SessionError
        There is no driver, it does not start, or it shows none.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise SessionError("there is no NVIDIA driver here (no libcuda.so.1)", DRIVER) from error
    status = driver.cuInit(0)
    count = ctypes.c_int()
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status == 100 or (status == 0 and count.value == 0):  # CUDA_ERROR_NO_DEVICE
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None:
            raise SessionError(
                f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU", "unset CUDA_VISIBLE_DEVICES"
            )
        raise SessionError("the NVIDIA driver shows no GPU", "see what nvidia-smi says")
    if status:
        raise SessionError(
            f"the NVIDIA driver does not start (cuInit gives error {status})",
            "see what nvidia-smi says; a reboot helps after an update of the driver",
        )
    return count.value


def require_provider(runtime: ModuleType, device: str) -> None:
    """SessionError where the package was built without the device's provider."""
    provider, version = PROVIDERS[device], runtime.__version__
    if provider in runtime.get_available_providers():
        return
    if "onnxruntime-gpu" in installed_packages():
        raise SessionError(f"this build of onnxruntime-gpu {version} has no {provider}", REINSTALL)
    raise SessionError(f"onnxruntime {version} is the package without {provider}", EXCHANGE)


def require_libraries(runtime: ModuleType, device: str) -> None:
    """Load the libraries of CUDA and cuDNN that pip installed; SessionError where one is missing
    there and everywhere else."""
    preload(runtime)
    if library := missing_library(runtime, device):
        mend = "pip install tensorrt" if "nvinfer" in library else LIBRARIES
        raise SessionError(f"a library of {device} is missing: {library}", mend)


def preload(runtime: ModuleType) -> str:
    """Load the CUDA and cuDNN libraries of pip's packages; gives what onnxruntime says to it."""
    said = io.StringIO()  # it prints
    if hasattr(runtime, "preload_dlls"):  # since 1.21
        with contextlib.redirect_stdout(said):
            runtime.preload_dlls()
    if text := said.getvalue().strip():
        log.debug("preload_dlls: %s", text)
    return said.getvalue()


def missing_library(runtime: ModuleType, device: str) -> str | None:
    """The library that a provider's own library cannot be loaded for, in the loader's words.

    Where nothing is missing, the loader refuses too, for a symbol that only onnxruntime can give:
    then the provider is left to onnxruntime, untouched.
    """
    folder = os.path.join(os.path.dirname(str(runtime.__file__)), "capi")
    name = "tensorrt" if device == "tensorrt" else "cuda"
    for path in glob.glob(os.path.join(folder, f"libonnxruntime_providers_{name}.so")):
        try:
            ctypes.CDLL(path)
        except OSError as error:
            if "cannot open shared object file" in str(error):
                return first_line(error)
    return None


# -- how a provider is asked for ------------------------------------------------------------------


def providers(
    device: str,
    *,
    tf32: bool = False,
    memory_limit: int | None = None,
    prefer_nhwc: bool = False,
    cuda_graphs: bool = False,
) -> Providers:
    """onnxruntime's list of providers with their options; the CPU is never on it beside a GPU."""
    if device == "cpu":
        return [(CPU, {})]
    cuda = {
        # EXHAUSTIVE, the default, tries every algorithm again for each new shape
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": str(int(tf32)),
        "prefer_nhwc": str(int(prefer_nhwc)),
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(cuda_graphs)),
    }
    if memory_limit is not None:
        cuda["gpu_mem_limit"] = str(memory_limit)
    if device == "cuda":
        return [(CUDA, cuda)]
    tensorrt = {"trt_fp16_enable": "0"}
    if not tf32:  # TensorRT has TF32 on, and its provider no option for it
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if memory_limit is not None:
        tensorrt["trt_max_workspace_size"] = str(memory_limit)
    return [(TENSORRT, tensorrt), (CUDA, cuda)]


def create(
    runtime: ModuleType, path: str, wanted: Providers, threads: int, config: Mapping[str, str] = {}
) -> Any:
    """A session with the first of the wanted providers, or a SessionError.

    Parameters
    ----------
    threads : int
        Of the CPU provider, for one operator.
    config : mapping of str to str
        Further entries of onnxruntime's session configuration.
    """
    device = next(key for key, value in PROVIDERS.items() if value == wanted[0][0])
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised, too
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if device != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    try:
        # its own way of falling back, to a session on the CPU and a printed line, is turned off
        session = runtime.InferenceSession(path, options, providers=wanted, enable_fallback=0)
    except Exception as error:  # the runtime has a class of its own for every kind
        raise _explained(error, runtime, path, device) from error
    got = session.get_providers()
    if got[0] != wanted[0][0]:
        raise SessionError(f"onnxruntime chose {got[0]} in place of {wanted[0][0]}", DOCTOR)
    return session


def _explained(error: Exception, runtime: ModuleType, path: str, device: str) -> SessionError:
    """Why a session could not be made, in our words where the case is known."""
    text, version = str(error), runtime.__version__
    if found := re.search(r"Opset (\d+) is under development.*?is till opset (\d+)", text, re.S):
        return SessionError(
            f"{path} is written in opset {found[1]}, onnxruntime {version} takes at most "
            f"{found[2]}",
            "export it again with a lower opset= (fastconv's default is 17), or "
            f"pip install -U {_package()}",
        )
    if found := re.search(r"model IR version: (\d+), max supported IR version: (\d+)", text):
        return SessionError(
            f"{path} has IR version {found[1]}, onnxruntime {version} takes at most {found[2]}",
            "export it again with a lower opset= (fastconv's default, 17, has IR version 8), or "
            f"pip install -U {_package()}",
        )
    if "disable_cpu_ep_fallback" in text or "fallback to CPU EP has been" in text:
        return SessionError(
            f"{path}: the GPU does not take every operator of the file, and the CPU is not allowed",
            f"{DOCTOR}, or allow the CPU (allow_cpu=True, --allow-cpu)",
        )
    kind = filetypes.kind_of(path)
    if kind == filetypes.MODEL:
        return SessionError(
            f"{path}: {kind}, not {filetypes.ONNX}", f"fastconv export {path} OUT.onnx writes one"
        )
    if kind not in (None, filetypes.ONNX):
        return SessionError(f"{path}: {kind}, not {filetypes.ONNX}")
    return SessionError(f"{path}: not a usable ONNX file: {first_line(error)}")


def _package() -> str:
    return next(iter(installed_packages()), "onnxruntime")


def check_device(device: str, choices: Sequence[str] = ("auto", *PROVIDERS)) -> str:
    if device not in choices:
        raise ValueError(f"device is one of {', '.join(choices)}, not {device!r}")
    return device

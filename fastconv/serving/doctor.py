"""What stands between this machine and a network on its GPU, found out by trying.

Nothing is taken from what a package says of itself where it can be tried: the newest opset and IR
version by loading tiny models of each, the provider of every operator by a profile of a run, TF32
by a product whose last bits it would lose.
"""

import ctypes
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastconv.serving import runtime, tiny
from fastconv.serving.errors import SessionError
from fastconv.serving.session import Session

# Of CUDA and cuDNN, by the beginnings of their names; whether a provider needs it is the loader's
# business
LIBRARIES = ("libcudart", "libcublas", "libcublasLt", "libcurand", "libcufft", "libnvrtc",
             "libcudnn")  # fmt: skip
NEWEST = 64  # no opset or IR version beyond is tried

Node = tuple[str, str, str]  # name, operator, provider


@dataclass
class Diagnosis:
    """What was found. `problems` is empty where all is well for the device that was asked for.

    Attributes
    ----------
    device : str
        "cpu", "cuda" or "tensorrt": the one asked for, or what "auto" comes to.
    driver : dict
        ``found``, and where it is: ``version``, ``cuda`` (the newest it knows), ``gpus``,
        ``nvidia_smi``.
    packages : dict
        Installed onnxruntime packages with their versions.
    providers : list of str
        What the package was built with.
    cuda : str or None
        The CUDA version that it was built for.
    libraries : dict
        Name → where it was loaded from, or None.
    opset, ir_version : int or None
        The newest that the runtime takes.
    nodes : list of (name, operator, provider)
        Of a run on the device; of the file where one was given, else of a tiny network.
    tf32 : bool or None
        Whether the device rounds factors to TF32 in a session as fastconv makes it; None where it
        could not be tried.
    problems : list of (reason, mend)
    """

    device: str
    driver: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    providers: list[str] = field(default_factory=list)
    cuda: str | None = None
    libraries: dict[str, str | None] = field(default_factory=dict)
    opset: int | None = None
    ir_version: int | None = None
    nodes: list[Node] = field(default_factory=list)
    tf32: bool | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def ask(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function; what it complains of is a problem."""
        try:
            function(*arguments)
        except SessionError as error:
            self.problems.append((error.reason, error.mend))
        except ValueError as error:  # a file whose free sizes nobody knows
            self.problems.append((str(error), ""))

    def as_dict(self) -> dict[str, Any]:
        """Plain values that json can write."""
        problems = [{"reason": reason, "mend": mend} for reason, mend in self.problems]
        return asdict(self) | {"ok": self.ok, "problems": problems}


def examine(device: str = "auto", path: str | None = None, tf32: bool = False) -> Diagnosis:
    """Look at driver, packages, libraries and runtime, and run a network on the device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "tensorrt"}
        "auto" is CUDA where there is a driver or the GPU package, else the CPU.
    path : str, optional
        Run this file in place of a tiny network.
    tf32 : bool
        Ask for TF32, to see whether the device has it.
    """
    runtime.check_device(device)
    packages = runtime.installed_packages()
    if device == "auto":
        gpu = runtime.has_driver() or "onnxruntime-gpu" in packages
        device = "cuda" if gpu else "cpu"
    found = Diagnosis(device, driver=_driver(), packages=packages)
    try:
        module = runtime.load()
    except SessionError as error:
        found.problems.append((error.reason, error.mend))
        return found
    found.providers = module.get_available_providers()
    found.cuda = getattr(module, "cuda_version", "") or None
    found.opset = _newest(module, lambda version: tiny.relu(version, 8), 7)
    found.ir_version = _newest(module, lambda version: tiny.relu(17, version), 3)
    if device != "cpu":
        # each by itself: all that is missing is told at once
        found.ask(runtime.gpu_count)
        found.ask(runtime.require_provider, module, device)
        found.ask(runtime.require_libraries, module, device)
        found.libraries = _loaded_libraries()
    if found.ok:
        found.ask(_try, found, module, path, tf32)
    return found


def _try(found: Diagnosis, module: ModuleType, path: str | None, tf32: bool) -> None:
    """Run a network on the device, the CPU allowed: who ran what?"""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = os.path.join(folder, "tiny.onnx")
            Path(path).write_bytes(tiny.network())
        found.nodes = _profile(module, found.device, path, folder)
        wanted = runtime.PROVIDERS[found.device]
        if elsewhere := [
            op for _, op, provider in found.nodes if provider == runtime.CPU != wanted
        ]:
            found.problems.append(
                (
                    f"{', '.join(sorted(set(elsewhere)))} ran on the CPU, not on {wanted}",
                    "allow it (allow_cpu=True, --allow-cpu), or export the network without",
                )
            )
        found.tf32 = found.device != "cpu" and _rounds(module, found.device, folder, tf32)


def _newest(module: ModuleType, model: Callable[[int], bytes], lowest: int) -> int | None:
    """The newest version with which the runtime takes a model."""
    options = module.SessionOptions()
    options.log_severity_level = 4
    newest = None
    for version in range(lowest, NEWEST):
        try:
            module.InferenceSession(model(version), options, providers=[runtime.CPU])
        except Exception:  # the runtime has a class of its own for every kind
            if newest is not None:
                break
        else:
            newest = version
    return newest


def _profile(module: ModuleType, device: str, path: str, folder: str) -> list[Node]:
    """Who ran each operator of one run of a file."""
    providers = [*runtime.providers(device), *([(runtime.CPU, {})] if device != "cpu" else [])]
    with Session(path, "cpu", prove=False) as on_cpu:
        feeds = on_cpu.example(1)
    options = module.SessionOptions()
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = os.path.join(folder, "profile")
    try:
        session = module.InferenceSession(path, options, providers=providers, enable_fallback=0)
        session.run(None, feeds)
    except Exception as error:  # the runtime has a class of its own for every kind
        raise SessionError(f"{path} cannot be run: {runtime.first_line(error)}") from error
    with open(session.end_profiling(), encoding="utf-8") as file:
        events = json.load(file)
    suffix = "_kernel_time"
    return [
        (event["name"].removesuffix(suffix), event["args"]["op_name"], event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(suffix)
    ]


def _rounds(module: ModuleType, device: str, folder: str, tf32: bool) -> bool:
    """Whether 1 + 2⁻¹², which TF32 cannot hold, is rounded on its way through a product."""
    path = os.path.join(folder, "product.onnx")
    Path(path).write_bytes(tiny.product())
    session = runtime.create(module, path, runtime.providers(device, tf32=tf32), threads=1)
    a = np.full((64, 64), 1 + 2**-12, np.float32)
    (y,) = session.run(None, {"a": a, "b": np.eye(64, dtype=np.float32)})
    return bool((y != a).any())


# -- driver and libraries -------------------------------------------------------------------------


def _driver() -> dict[str, Any]:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"found": False, "nvidia_smi": shutil.which("nvidia-smi")}
    return {
        "found": True,
        "version": _driver_version(),
        "cuda": _cuda_version(driver),
        "gpus": _gpus(driver),
        "library": _mapped().get("libcuda.so.1"),
        "nvidia_smi": shutil.which("nvidia-smi"),
    }


def _driver_version() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
    return found[1] if found else None


def _cuda_version(driver: ctypes.CDLL) -> str | None:
    number = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(number)):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _gpus(driver: ctypes.CDLL) -> list[str]:
    """Names of the GPUs that the driver shows; empty where it does not start."""
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for number in range(count.value):
        name = ctypes.create_string_buffer(128)
        device = ctypes.c_int()
        known = not driver.cuDeviceGet(ctypes.byref(device), number) and not driver.cuDeviceGetName(
            name, len(name), device
        )
        names.append(name.value.decode(errors="replace") if known else "unknown")
    return names


def _loaded_libraries() -> dict[str, str | None]:
    mapped = _mapped()
    return {
        prefix: next((path for name, path in mapped.items() if name.startswith(prefix + ".")), None)
        for prefix in LIBRARIES
    }


def _mapped() -> Mapping[str, str]:
    """Name → path of the shared libraries that this process has loaded."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    paths = {line[line.index("/") :] for line in lines if ".so" in line and "/" in line}
    return {os.path.basename(path): path for path in sorted(paths)}


# -- in plain words -------------------------------------------------------------------------------


def rows(found: Diagnosis) -> list[tuple[str, str]]:
    """The diagnosis as names and sentences."""
    driver = found.driver
    out = [("device", found.device), ("driver", _driver_words(driver))]
    if driver["found"]:
        out.append(("GPUs", ", ".join(driver["gpus"]) or "none"))
    packages = [f"{name} {version}" for name, version in found.packages.items()]
    out.append(("runtime", " and ".join(packages) or "not installed"))
    if found.providers:
        out.append(("built with", ", ".join(found.providers)))
    if found.cuda:
        out.append(("built for", f"CUDA {found.cuda}"))
    out += [(name, path or "not found") for name, path in found.libraries.items()]
    if found.opset is not None:
        out.append(("newest opset", f"{found.opset} (IR version {found.ir_version})"))
    out += [(f"{op} ran on", who) for op, who in _summed(found.nodes)]
    if found.tf32 is not None:
        out.append(("TF32", "on" if found.tf32 else "off"))
    return out


def _driver_words(driver: Mapping[str, Any]) -> str:
    if not driver["found"]:
        smi = driver["nvidia_smi"]
        return "not found: no libcuda.so.1" + (f", though there is {smi}" if smi else "")
    version, cuda = driver["version"] or "of unknown version", driver["cuda"]
    return f"{version}, for CUDA up to {cuda}, from {driver['library']}"


def _summed(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """Operators in the order of their first run, with the providers that ran them."""
    who: dict[str, dict[str, None]] = {}
    for _, op, provider in nodes:
        who.setdefault(op, {})[provider] = None
    return [(op, ", ".join(providers)) for op, providers in who.items()]

"""What the tests of serving share: files to serve, drivers that are not there, processes."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnx
import pytest

from fastconv import layers, set_random_seed
from fastconv.model import Model, Sequential
from fastconv.serving import SessionError, runtime

NAMES = ["cat", "dog", "owl"]


def small_network(size=(12, 10), name="small") -> Sequential:
    """A convolutional classifier of bytes."""
    set_random_seed(3)
    return Sequential(
        [
            layers.Input((*size, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ],
        name=name,
    )


def two_inputs() -> Model:
    set_random_seed(3)
    a, b = layers.Input((4,), name="a"), layers.Input((6,), name="b")
    joined = layers.Concatenate()([a, b])
    outputs = [layers.Dense(2, name="u")(joined), layers.Dense(3, name="v")(joined)]
    return Model([a, b], outputs)


def edited(source: Path, target: Path, edit) -> Path:
    """A copy of an ONNX file after ``edit(model)``."""
    model = onnx.load(source)
    edit(model)
    onnx.save(model, target)
    return target


def scale_weights(model: onnx.ModelProto, factor: float) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            value = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def process(code: str, *, path: Path | None = None, **environment: str):
    """Python code in a process of its own; ``path`` comes before all that is installed."""
    env = os.environ | environment
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(path), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )


def fake_driver(folder: Path, init: int = 0, count: int = 1, status: int = 0) -> Path:
    """A library that answers as NVIDIA's driver would; gives the folder for LD_LIBRARY_PATH."""
    source = (
        f"int cuInit(unsigned flags) {{ return {init}; }}\n"
        f"int cuDeviceGetCount(int *n) {{ *n = {count}; return {status}; }}\n"
        "int cuDriverGetVersion(int *v) { *v = 13010; return 0; }\n"
        "int cuDeviceGet(int *d, int n) { *d = n; return 0; }\n"
        "int cuDeviceGetName(char *s, int n, int d) { s[0] = 'G'; return s[1] = 0; }\n"
    )
    shared_library(folder / "libcuda.so.1", source)
    return folder


def shared_library(path: Path, source: str, *needed: Path) -> Path:
    """Compile C text to a library that needs others; skips the test without a compiler."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    text = path.with_suffix(".c")
    text.write_text(source)
    command = [compiler, "-shared", "-fPIC", "-Wl,--no-as-needed", "-o", path, text, *needed]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler for a library of the tests' own: {error}")
    return path


def why_no_gpu() -> str | None:
    """Why tests marked gpu cannot run here."""
    try:
        module = runtime.load()
        runtime.gpu_count()
        runtime.require_provider(module, "cuda")
        runtime.require_libraries(module, "cuda")
    except SessionError as error:
        return str(error)
    return None

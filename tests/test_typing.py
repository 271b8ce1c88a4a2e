"""What a type checker sees of the package: a user's script, checked by mypy from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

import fastconv

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
from typing import Any

import numpy as np
import fastconv as fc
from fastconv import applications, callbacks, layers, models, optimizers, own, utils
from fastconv.functional import conv2d

Array = np.ndarray[Any, Any]
Shape = tuple[int | None, ...]
x = np.zeros((4, 8, 8, 1), np.uint8)
model = fc.Sequential([layers.Conv2D(4, 3, input_shape=(8, 8, 1)), layers.Flatten(),
                       layers.Dense(2, activation="softmax")])
model.compile(optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(x, np.zeros(4), callbacks=[callbacks.EarlyStopping(patience=2)])
reveal_type(history)
reveal_type(history.history)
reveal_type(model)
reveal_type(model.class_names)
reveal_type(model.get_weights())
reveal_type(applications.ResNet20())
reveal_type(fc.load_model("m.fc"))
reveal_type(models.clone_model(model))
reveal_type(fc.Dataset.from_tensor_slices(x).batch(2))
reveal_type(utils.to_categorical([1], 2))
inputs = layers.Input((8, 8, 1))
reveal_type(layers.Conv2D(4, 3)(inputs))


class Scale(own.NumpyLayer):
    def build(self, shape: Shape) -> None:
        self.g = self.add_parameter("g", shape[-1:], "ones")

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def call(self, x: Array) -> Array:
        return np.asarray(self.g.value * x)

    def gradient(self, x: Array, y: Array, dy: Array) -> Array:
        self.g.grad += (dy * x).reshape(-1, x.shape[-1]).sum(axis=0)
        return np.asarray(self.g.value * dy)


class Square(own.NumpyLoss):
    def value(self, target: Array, y: Array) -> Array:
        return np.asarray(np.square(target - y).mean(axis=1))

    def gradient(self, target: Array, y: Array) -> Array:
        return np.asarray(2 * (y - target) / y.shape[1])
"""
SEEN = [
    "fastconv.history.History", "dict[str, list[float]]", "fastconv.model.Sequential",
    "list[str] | None", "list[numpy.ndarray[", "fastconv.model.Model", "fastconv.model.Model",
    "fastconv.model.Model", "fastconv.dataset.Dataset", "numpy.ndarray[",
    "fastconv.layer.Tensor",
]  # fmt: skip


def mypy(script: str, folder: Path) -> str:
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "script.py",
         "--cache-dir", str(ROOT / ".mypy_cache" / "user")],
        cwd=folder, capture_output=True, text=True, env={"MYPYPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_a_users_script_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    lines = [line for line in mypy(SCRIPT, tmp_path).splitlines() if line.startswith("script.py")]
    assert not [line for line in lines if ": error:" in line], lines
    notes = [line for line in lines if "Revealed type" in line]
    assert len(notes) == len(SEEN)
    for note, wanted in zip(notes, SEEN, strict=True):
        assert wanted in note.replace("builtins.", "").replace("Union[list[str], None]", SEEN[3])


def test_every_public_name_is_known(tmp_path: Path) -> None:
    """A name that the lazy modules give at run time, and that a checker does not see, is an error
    in every script that uses it."""
    pytest.importorskip("mypy")
    import importlib

    modules = ("layers", "models", "applications", "callbacks", "utils", "datasets", "onnx")
    names = [f"fastconv.{name}" for name in fastconv.__all__]
    for module in modules:
        public = importlib.import_module(f"fastconv.{module}").__all__
        names += [f"fastconv.{module}.{name}" for name in public]
    imports = "".join(f"import fastconv.{module}\n" for module in modules)
    found = mypy(imports + "\n".join(f"print({name})" for name in [*names, "a_typo"]), tmp_path)
    lines = [line for line in found.splitlines() if line.startswith("script.py")]
    assert [line for line in lines if "a_typo" not in line] == []
    assert len(lines) == 1


def test_every_extension_has_a_stub() -> None:
    native = ROOT / "fastconv" / "_native"
    sources = {path.stem for path in native.glob("*.pyx")}
    stubs = {path.stem for path in native.glob("*.pyi")}
    assert sources - stubs == set(SILENT)
    assert (ROOT / "fastconv" / "py.typed").exists()


SILENT: tuple[str, ...] = ()

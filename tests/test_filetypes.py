"""A file of another kind is called by its name, with what to do."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv as fc
from fastconv import cli, filetypes, layers
from fastconv.models import model_from_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind, those of fastconv real."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("kinds")
    model = made()
    model.save(path / "m.fc")
    model.export(path / "m.onnx")
    model.save_weights(path / "w.safetensors")
    model.save_weights(path / "w.npz")
    np.save(path / "x.npy", np.zeros((1, 4, 4, 1), np.float32))
    (path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (path / "p.pkl").write_bytes(b"\x80\x04cos\nsystem\n")
    (path / "k.keras").write_bytes(zipped("metadata.json", "config.json", "model.weights.h5"))
    (path / "t.pt").write_bytes(zipped("t/data.pkl", "t/version"))
    (path / "noise").write_bytes(b"hello world" * 9)
    (path / "empty").write_bytes(b"")
    return path


def made() -> Any:
    model = fc.Sequential([layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return file.getvalue()


KINDS = {
    "m.fc": filetypes.MODEL, "m.onnx": filetypes.ONNX, "w.safetensors": filetypes.WEIGHTS,
    "w.npz": filetypes.ARRAYS, "x.npy": filetypes.ARRAY, "old.h5": filetypes.HDF5,
    "x.png": filetypes.PICTURE, "p.pkl": filetypes.PICKLE, "k.keras": filetypes.KERAS,
    "t.pt": filetypes.TORCH, "noise": None, "empty": None, "nowhere": None,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_kinds(folder: Path, name: str) -> None:
    assert filetypes.kind_of(folder / name) == KINDS[name]


LOADED = {
    "m.onnx": "m.onnx: an ONNX file, not a model saved by fastconv: fastconv predict",
    "k.keras": r"a model of Keras, not .*set_weights\(other\.get_weights\(\)\)",
    "old.h5": "HDF5, as older Keras",
    "t.pt": "a file of PyTorch, not",
    "w.npz": "arrays of numpy, not .*load_weights",
    "noise": "noise: not a whole model file",
}


@pytest.mark.parametrize("name", LOADED)
def test_load_model_says_what_it_is(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match=LOADED[name]):
        fc.load_model(folder / name)


def test_the_command_line_says_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, network, x = (str(folder / name) for name in ("m.fc", "m.onnx", "x.npy"))
    assert cli.main(["export", network, str(folder / "out.onnx")]) == 2
    assert "m.onnx: an ONNX file, not a model saved by fastconv" in capsys.readouterr().err
    assert cli.main(["predict", model, x]) == 2
    said = capsys.readouterr().err
    assert "m.fc: a model saved by fastconv, not an ONNX file" in said
    assert f"fastconv export {model} OUT.onnx writes one" in said
    assert cli.main(["predict", str(folder / "k.keras"), x]) == 2
    assert "a model of Keras, not an ONNX file" in capsys.readouterr().err
    assert cli.main(["info", str(folder / "x.png")]) == 2
    assert "a picture, not an ONNX file" in capsys.readouterr().err


def test_endings_that_promise_something_else(tmp_path: Path) -> None:
    model = made()
    with pytest.warns(UserWarning, match=r"fastconv, not a model of Keras: .*model\.fc") as caught:
        model.save(tmp_path / "m.keras")
    assert caught[0].filename == __file__
    assert fc.load_model(tmp_path / "m.keras").count_params() == model.count_params()
    with pytest.raises(ValueError, match=r"model\.export writes an ONNX file"):
        model.save(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"model\.save writes a model"):
        model.export(tmp_path / "m.fc")
    with pytest.warns(UserWarning, match=r"go by the ending \.onnx") as caught:
        model.export(tmp_path / "x.txt")
    assert caught[0].filename == __file__
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.keras", "x.txt"]


@pytest.mark.parametrize("config", [{"a": 1}, {"class": "Model", "name": "m"}, [], None,
                                    {"class": "Model", "name": "m", "graph": {}}])  # fmt: skip
def test_a_config_that_is_none(config: Any) -> None:
    with pytest.raises(ValueError, match="does not describe a model"):
        fc.Sequential.from_config(config)


def test_a_text_that_is_no_config() -> None:
    with pytest.raises(ValueError, match="does not describe a model: it lacks 'class'"):
        model_from_json('{"a": 1}')

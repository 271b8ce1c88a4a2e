"""Scripts as Keras' documentation has them, written anew, with nothing changed but the imports."""

import math
import runpy
import struct
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc

SCRIPTS = sorted((Path(__file__).parent / "keras_scripts").glob("*.py"))


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A small MNIST where `load_data` looks: bright bars, whose place is the class."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 400), ("t10k", 100)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 7, 4:24] = 250
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    monkeypatch.setenv("FASTCONV_DATA", str(folder.parent))


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A folder of small pictures where a script looks: cats are brighter above, dogs below."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    rng = np.random.default_rng(0)
    for name, rows in (("Cat", slice(0, 20)), ("Dog", slice(20, 40))):
        folder = tmp_path / "PetImages" / name
        folder.mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 100, (40, 50, 3)).astype(np.uint8)
            pixels[rows] += 120
            image.fromarray(pixels).save(folder / f"{i}.jpg")
        (folder / "broken.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)


def run(path):
    fc.set_random_seed(0)
    return runpy.run_path(str(path))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(path, digits, pets, capsys):
    found = run(path)
    if "history" in found:
        assert {"loss", "val_loss"} <= set(found["history"].history)
    if "score" in found:
        assert all(map(math.isfinite, found["score"]))
    assert "Epoch 1/" in capsys.readouterr().out


def test_the_classic_script_learns_slowly_as_its_default_rate_has_it(digits, capsys):
    found = run(SCRIPTS[0].with_name("mnist_cnn.py"))
    losses = found["history"].history["loss"]
    assert found["model"].optimizer.learning_rate == 0.001  # Adadelta's default in Keras 3
    assert 2.0 < losses[1] < losses[0] < 2.5
    text = capsys.readouterr().out
    assert "Test loss:" in text
    assert "4/4 ━━━━━━━━━━━━━━━━━━━━" in text


def test_both_branches_of_the_classic_script_are_the_same_network(digits, capsys):
    path = SCRIPTS[0].with_name("mnist_cnn.py")
    last = run(path)
    try:
        fc.backend.set_image_data_format("channels_first")
        first = run(path)
    finally:
        fc.backend.set_image_data_format("channels_last")
    assert (last["input_shape"], first["input_shape"]) == ((28, 28, 1), (1, 28, 28))
    assert first["model"].layers[1].output.shape == (None, 64, 24, 24)
    assert first["score"] == last["score"]
    assert first["history"].history == last["history"].history
    for a, b in zip(last["model"].get_weights(), first["model"].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_of_the_surface():
    from fastconv import backend as K
    from fastconv.models import Model, Sequential, clone_model, load_model
    from fastconv.optimizers.schedules import CosineDecay
    from fastconv.utils import set_random_seed

    assert Model is fc.Model
    assert Sequential is fc.Sequential
    assert load_model is fc.load_model
    assert clone_model is fc.models.clone_model
    assert CosineDecay is fc.optimizers.schedules.CosineDecay is fc.schedules.CosineDecay
    assert set_random_seed is fc.set_random_seed
    assert (K.floatx(), K.epsilon()) == ("float32", 1e-7)
    K.clear_session()
    assert fc.layers.Dense(3).name == "dense"
    for name in fc.__all__:
        assert getattr(fc, name) is not None

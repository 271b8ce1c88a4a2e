"""The examples run as a user runs them: a process each, on little data."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from server_tools import ServerProcess
from serving_tools import NAMES, small_network

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory):
    """MNIST's format, 300 and 60 images: class c is a bright square at its own place."""
    folder = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 60)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[8 * row + 2 : 8 * row + 8, 7 * column : 7 * column + 6] = 250
        for name, magic, array in (("images-idx3", 0x803, images), ("labels-idx1", 0x801, labels)):
            header = np.array([magic, *array.shape], ">u4").tobytes()
            path = folder / f"{split}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def run(name, *options):
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_mnist_convnet(idx_folder, tmp_path):
    log, model = tmp_path / "log.jsonl", tmp_path / "net.onnx"
    options = ("--data", idx_folder, "--batch-size", 16, "--optimizer", "adam", "--lr", 0.001)
    done = run(
        "mnist_convnet", *options, "--epochs", 3, "--check", 0.9, "--log", log, "--export", model
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert model.stat().st_size > 4_000_000
    *epochs, last = map(json.loads, log.read_text().splitlines())
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    assert epochs[2]["loss"] < epochs[0]["loss"]
    assert last["test_accuracy"] >= 0.9
    assert last["first_loss"] == epochs[0]["loss"]


def test_a_failed_check_is_an_exit_code(idx_folder):
    options = ("--data", idx_folder, "--epochs", 1, "--images", 64, "--lr", 0, "--check", 0.99)
    done = run("mnist_convnet", *options)
    assert done.returncode == 1
    assert "is below 0.99" in done.stderr


def test_matlab_teaching_net(idx_folder):
    done = run("matlab_teaching_net", "--data", idx_folder, "--epochs", 2, "--check")
    assert done.returncode == 1  # six steps an epoch are too few, and it says so
    assert "after epoch 1 the test error" in done.stderr
    assert "epoch 2: loss" in done.stdout


@pytest.mark.parametrize("name", ["resnet_block", "custom_layer"])
def test_on_digits(name, tmp_path):
    pytest.importorskip("sklearn")
    model = tmp_path / "net.onnx"
    done = run(name, "--epochs", 6, "--check", 0.9, "--export", model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert model.exists()


def test_gan():
    pytest.importorskip("sklearn")
    done = run("gan", "--steps", 20)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 20: discriminator" in done.stdout
    assert run("gan", "--steps", 1, "--check", 0.999).returncode == 1


def test_serving_client(tmp_path):
    pytest.importorskip("starlette")
    model = tmp_path / "digits.onnx"
    small_network((28, 28)).export(model, class_names=NAMES, input_range=(0, 255))
    Image.new("L", (28, 28), 200).save(tmp_path / "grey.png")
    with ServerProcess(model) as server:
        url = f"http://{server.address}"
        done = run("serving_client", tmp_path / "grey.png", "--url", url, "--count", 5)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'grey.png'}: " in done.stdout
    assert "digits: [1, 1, 28, 28] gives [1, 3]" in done.stdout


def test_visualize(idx_folder, tmp_path):
    pytest.importorskip("matplotlib")
    done = run("visualize", "--data", idx_folder, "--epochs", 1, "--out", tmp_path / "pictures")
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == 10
    assert min(path.stat().st_size for path in pictures) > 2000

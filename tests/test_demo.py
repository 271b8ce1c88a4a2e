"""The main job end to end, as a user runs it: `fastconv demo`, and its pictures."""

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastconv import datasets, layers, plots
from fastconv.model import load_model
from fastconv.serving import Session

FILES = {"demo.fastconv", "demo.onnx", "demo.png", "digit.png"}


def fastconv(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "fastconv", *map(str, arguments)],
        capture_output=True, text=True, timeout=600, cwd=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as it is; one thread is quick enough, and no slower on a busy machine."""
    folder = tmp_path_factory.mktemp("demo")
    done = fastconv("demo", "--threads", "1", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, folder / "out" / "demo"


def test_demo_says_what_it_does(demo):
    text, out = demo
    for words in (
        "1,438 images to train, 359 to test, 8 × 8, 10 classes",
        "conv2d (Conv2D)", "Parameters: 151,306", "Epoch 20/20", "images/s",
        "ONNX opset 17, IR 8", "onnxruntime", "tolerance 1e-05", "image  true  predicted",
    ):  # fmt: skip
        assert words in text
    assert {path.name for path in out.iterdir()} == FILES


def test_demo_is_accurate_and_the_exported_file_as_well(demo):
    text, out = demo
    accuracy = float(re.search(r"Test accuracy: ([\d.]+) %", text).group(1))
    assert accuracy >= 98
    _, (x, y) = datasets.digits.load_data()
    probabilities = Session(out / "demo.onnx", device="cpu").predict(x[:, None])
    hits = int((probabilities.argmax(1) == y).sum())
    assert f"{hits:,} of {len(y):,} right" in text
    assert accuracy == pytest.approx(100 * hits / len(y), abs=0.01)
    model = load_model(out / "demo.fastconv")
    np.testing.assert_allclose(probabilities, model.predict(x[..., None]), rtol=0, atol=1e-5)
    assert model.optimizer.iterations == 20 * 41  # and what is trained on goes on from there


def test_demo_exports_a_network_that_tells_its_classes(demo):
    _, out = demo
    model = onnx.load(out / "demo.onnx")
    onnx.checker.check_model(model, full_check=True)
    props = {item.key: item.value for item in model.metadata_props}
    assert json.loads(props["fastconv.class_names"]) == [str(i) for i in range(10)]
    assert "Dropout" not in {node.op_type for node in model.graph.node}


def test_what_the_demo_says_to_try_works(demo):
    text, out = demo
    _, (_, y) = datasets.digits.load_data()
    commands = re.findall(r"fastconv ((?:info|predict) .*)", text)
    assert len(commands) == 2
    for command in commands:
        done = fastconv(*command.split(), folder=out.parents[1])
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[1] == str(y[0])


def test_demo_draws(demo):
    _, out = demo
    with Image.open(out / "demo.png") as image:
        assert image.size >= (1200, 700)
        pixels = np.asarray(image.convert("RGB"), int)
    assert (pixels == 255).all(-1).mean() < 0.9  # not an empty page
    red, green, blue = np.moveaxis(pixels, -1, 0)
    for colour in (red > blue + 80, blue > red + 80, (red < 60) & (green < 60) & (blue < 60)):
        assert colour.mean() > 0.005  # filters in red and blue, digits in black


@pytest.fixture
def idx_folder(tmp_path):
    """Squares and crosses in MNIST's format."""
    rng = np.random.default_rng(0)

    def images(n):
        y = rng.integers(0, 2, n).astype(np.uint8)
        x = rng.integers(0, 60, (n, 16, 16), np.uint8)
        x[y == 0, 4:12, 4:12] = 255
        x[y == 1, 7:9] = x[y == 1, :, 7:9] = 255
        return x, y

    folder = tmp_path / "shapes"
    folder.mkdir()
    for split, n in (("train", 300), ("t10k", 50)):
        for kind, array in zip(("images-idx3", "labels-idx1"), images(n), strict=True):
            datasets.idx.write_idx(folder / f"{split}-{kind}-ubyte.gz", array)
    return folder


def test_demo_on_idx_files(idx_folder, tmp_path):
    arguments = ["demo", "--data", idx_folder, "--out", "o", "--epochs", 4, "--threads", 1]
    done = fastconv(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "shapes, 300 images to train, 50 to test, 16 × 16, 2 classes" in done.stdout
    assert "Test accuracy: 100.00 %" in done.stdout
    assert {path.name for path in (tmp_path / "o").iterdir()} == FILES


def test_a_seed_gives_the_same_bytes_for_any_number_of_threads(idx_folder, tmp_path):
    for threads in (1, 3):
        arguments = ["--data", idx_folder, "--out", threads, "--epochs", 1, "--require", 0]
        done = fastconv("demo", *arguments, "--threads", threads, "--seed", 5, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    for name in ("demo.fastconv", "demo.onnx"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_demo_that_falls_short(idx_folder, tmp_path):
    arguments = ["--data", idx_folder, "--out", "o", "--epochs", 1, "--require", 101]
    done = fastconv("demo", *arguments, "--threads", 1, folder=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"fastconv: the test accuracy [\d.]+ % is below the 101 % required\n",
                        done.stderr)  # fmt: skip


def test_demo_whose_proof_fails(idx_folder, tmp_path):
    program = f"""
import sys
from fastconv import node
from fastconv.cli import main
from fastconv.model import Model
def export(self, path, **options):
    raise node.ExportError("out of tolerance")
Model.export = export
sys.exit(main(["demo", "--data", {str(idx_folder)!r}, "--epochs", "1", "--threads", "1"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (1, "fastconv: out of tolerance\n")


@pytest.mark.parametrize("module", ["onnxruntime", "matplotlib", "PIL", "sklearn"])
def test_what_is_missing_is_said_before_the_training(module, tmp_path):
    program = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == {module!r} else found(name)
from fastconv.cli import main
sys.exit(main(["demo"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "pip install 'fastconv[demo]'" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


# ---- pictures ----


def layer_of(channels, filters=6, size=3):
    layer = layers.Conv2D(filters, size)
    layer(layers.Input((8, 8, channels)))
    return layer


def test_history_is_drawn_as_it_is():
    history = {"loss": [2.0, 1.0, 0.5], "val_loss": [2.1, 1.2, 0.9], "accuracy": [0.3, 0.6, 0.9]}
    figure = plots.plot_history(history)
    assert isinstance(figure, Figure)
    loss, accuracy = figure.axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [
        history["loss"], history["val_loss"]
    ]  # fmt: skip
    assert [line.get_xdata().tolist() for line in accuracy.lines] == [[1, 2, 3]]
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert accuracy.get_legend() is None


def test_filters_share_one_scale():
    layer = layer_of(1)
    figure = plots.plot_filters(layer)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    drawn = [image for image in images if image.get_array().shape == (3, 3)]
    assert len(drawn) == 6
    bound = np.abs(layer.weight.value).max()
    for number, image in enumerate(drawn):
        assert image.get_clim() == pytest.approx((-bound, bound))
        np.testing.assert_array_equal(image.get_array(), layer.weight.value[:, :, 0, number])


def test_filters_over_colours_are_in_colour():
    layer = layer_of(3, filters=20)
    images = [axes.images[0] for axes in plots.plot_filters(layer).axes if axes.images]
    assert len(images) == 20
    values = np.stack([image.get_array() for image in images])
    assert values.min() >= 0
    assert values.max() <= 1
    assert np.abs(values - 0.5).max() == pytest.approx(0.5)


def test_predictions_mark_the_errors():
    x = np.zeros((3, 8, 8, 1), np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    figure = plots.plot_predictions(x, [0, 0, 0], probabilities, ["cat", "dog"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat  90 %", "dog  80 %\ntrue: cat", "cat  70 %"]
    colours = [axes.title.get_color() for axes in figure.axes]
    assert colours == ["black", plots.RED, "black"]


def test_pictures_are_written_without_a_display(tmp_path):
    history = {"loss": [1.0], "accuracy": [0.5]}
    x = np.random.default_rng(0).random((40, 6, 7, 3))
    probabilities = np.eye(4)[np.arange(40) % 4]
    labels = np.arange(40) % 3
    figure = plots.plot_overview(history, layer_of(3), x, labels, probabilities, title="title")
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 20_000
    assert "matplotlib.pyplot" not in sys.modules


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="history is empty"):
        plots.plot_history({})
    with pytest.raises(ValueError, match="no filters over one or three channels"):
        plots.plot_filters(layer_of(2))
    with pytest.raises(ValueError, match="no filters"):
        plots.plot_filters(layers.Flatten())
    one = np.ones((1, 2))
    with pytest.raises(ValueError, match="grey or RGB images"):
        plots.plot_predictions(np.zeros((1, 8, 8, 2)), [0], one)
    with pytest.raises(ValueError, match="do not belong together"):
        plots.plot_predictions(np.zeros((2, 8, 8)), [0], one)
    with pytest.raises(ValueError, match="do not belong together"):
        plots.plot_predictions(np.zeros((0, 8, 8)), [], np.ones((0, 2)))

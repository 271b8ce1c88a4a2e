"""Walk the whole way on real data: train, save, export to ONNX with proof, predict, draw.

The data are the handwritten digits that come with scikit-learn, or MNIST-format files in DIR. The
exit code is 1 where the test accuracy or the proof of the export falls short.
"""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastconv.commands._common import natural, positive
from fastconv.tables import table

if TYPE_CHECKING:
    import numpy as np

    from fastconv.model import Sequential

SUMMARY = "train, save, export with proof and predict, on real data"
EXAMPLES = """examples:
  fastconv demo                       a few seconds
  fastconv demo --data mnist          on the IDX files in the folder mnist, gz or not
  fastconv demo --seed 7 --threads 1  the same seed gives the same bits, for any thread count
"""
NEEDS = {"onnxruntime": "onnxruntime", "matplotlib": "matplotlib", "PIL": "pillow"}
SHOWN = 8  # predictions in the table
MANY = 10_000  # images, from which on batches are larger
LARGE = 16  # pixels, from which on an image is made smaller early


class Data(NamedTuple):
    """Images (n, H, W, 1) of uint8 from 0 to ``white``, and labels (n,)."""

    title: str
    x: "np.ndarray"
    y: "np.ndarray"
    x_test: "np.ndarray"
    y_test: "np.ndarray"
    white: int

    @property
    def classes(self) -> int:
        return int(max(self.y.max(), self.y_test.max())) + 1

    def __str__(self) -> str:
        height, width = self.x.shape[1:3]
        return (
            f"Data: {self.title}, {len(self.x):,} images to train, {len(self.x_test):,} to test, "
            f"{height} × {width}, {self.classes} classes"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="a folder of MNIST-format (IDX) files")
    parser.add_argument(
        "--out", default="out/demo", metavar="DIR", help="where to write (default: out/demo)"
    )
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="default: 20 for the digits, 3 for --data"
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="default: 0")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: see fastconv info")
    parser.add_argument(
        "--require",
        type=float,
        default=98.0,
        metavar="PERCENT",
        help="test accuracy below which the exit code is 1 (default: 98)",
    )


def run(arguments: argparse.Namespace) -> int:
    _check_packages(arguments.data is None)
    from fastconv import backend, config

    if arguments.threads is not None:
        config.set_num_threads(arguments.threads)
    backend.set_random_seed(arguments.seed)
    data = _load(arguments.data)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    facts = config.config_info()
    print(f"fastconv {facts['fastconv']}: {facts['isa']}, threads: {facts['threads']}")
    print(f"{data}\n")
    model = _network(data)
    history = _train(model, data, arguments.epochs or (3 if arguments.data else 20))
    accuracy = _test(model, data)
    model.save(out / "demo.fastconv")
    print(f"Saved {out / 'demo.fastconv'}: weights, optimizer, compile settings\n")
    if not _export(model, data, out / "demo.onnx"):
        return 1
    _predict(model, data, history, out, accuracy)
    if 100 * accuracy < arguments.require:
        print(
            f"fastconv: the test accuracy {100 * accuracy:.2f} % is below the "
            f"{arguments.require:g} % required",
            file=sys.stderr,
        )
        return 1
    return 0


def _check_packages(digits: bool) -> None:
    """Say what is missing before, not after, the training."""
    needs = NEEDS | ({"sklearn": "scikit-learn"} if digits else {})
    if missing := [name for module, name in needs.items() if find_spec(module) is None]:
        raise ImportError(f"the demo also needs {', '.join(missing)}: pip install 'fastconv[demo]'")


def _load(folder: str | None) -> Data:
    if folder is None:
        from fastconv.datasets import digits

        (x, y), (x_test, y_test) = digits.load_data()
        title, white = "scikit-learn's handwritten digits", 16
    else:
        from fastconv.datasets import idx

        (x, y), (x_test, y_test) = idx.load_folder(folder)
        title, white = Path(folder).resolve().name, 255
    return Data(title, x[..., None], y, x_test[..., None], y_test, white)


def _network(data: Data) -> "Sequential":
    """Two convolutions and two dense layers; the pixels' range is the network's own business."""
    from fastconv import layers
    from fastconv.model import Sequential

    large = min(data.x.shape[1:3]) >= LARGE
    filters = 16 if large else 32
    model = Sequential(
        [
            layers.Input(data.x.shape[1:]),
            layers.Rescaling(1 / data.white),
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            *([layers.MaxPooling2D(2)] if large else []),
            layers.Conv2D(2 * filters, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(data.classes, activation="softmax"),
        ],
        name="demo",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    return model


def _train(model: "Sequential", data: Data, epochs: int) -> Any:
    print("\nTraining")
    verbose = 1 if sys.stdout.isatty() else 2  # a bar for people, lines for files
    batch = 32 if len(data.x) < MANY else 64
    start = time.perf_counter()
    history = model.fit(
        data.x, data.y, batch_size=batch, epochs=epochs, validation_split=0.1, verbose=verbose
    )
    print(f"Trained in {time.perf_counter() - start:.1f} s\n")
    return history


def _test(model: "Sequential", data: Data) -> float:
    loss, accuracy = model.evaluate(data.x_test, data.y_test, batch_size=128, verbose=0)
    wrong = round((1 - accuracy) * len(data.y_test))
    print(
        f"Test accuracy: {100 * accuracy:.2f} % ({wrong} of {len(data.y_test):,} wrong), "
        f"loss {loss:.4f}"
    )
    return float(accuracy)


def _export(model: "Sequential", data: Data, path: Path) -> bool:
    """Write the ONNX file; False where its proof fails and no file is left."""
    from fastconv.node import ExportError

    names = [str(label) for label in range(data.classes)]
    try:
        report = model.export(
            path, class_names=names, input_range=(0, data.white), samples=data.x_test
        )
    except ExportError as error:
        print(f"fastconv: {error}", file=sys.stderr)
        return False
    print(report, end="\n\n")
    return True


def _predict(model: "Sequential", data: Data, history: Any, out: Path, accuracy: float) -> None:
    """Ask the exported file as its users will, and draw what it answers."""
    from fastconv import plots
    from fastconv.serving import Session

    session = Session(out / "demo.onnx", device="cpu")
    probabilities: Any = session.predict(data.x_test.transpose(0, 3, 1, 2))
    guesses = probabilities.argmax(1)
    hits = int((guesses == data.y_test).sum())
    print(f"The exported file, run by onnxruntime: {hits:,} of {len(guesses):,} right")
    rows = [
        [str(i), str(data.y_test[i]), str(guesses[i]), f"{100 * probabilities[i].max():.1f} %"]
        + (["wrong"] if guesses[i] != data.y_test[i] else [""])
        for i in range(min(SHOWN, len(guesses)))
    ]
    print("\n".join(f"  {line}" for line in table(["image", "true", "predicted", "", ""], rows)))

    first = next(layer for layer in model.layers if getattr(layer, "weight", None) is not None)
    figure = plots.plot_overview(
        history, first, data.x_test, data.y_test, probabilities,
        title=f"{data.title}: test accuracy {100 * accuracy:.2f} %",
    )  # fmt: skip
    figure.savefig(out / "demo.png", dpi=110)
    # as it was started: not everyone has it on the path
    program = sys.argv[0] if Path(sys.argv[0]).name == "fastconv" else "fastconv"
    _write_sample(data, out / "digit.png")
    print(
        f"\nDrawn: {out / 'demo.png'}\n"
        f"Try:   {program} info {out / 'demo.onnx'}\n"
        f"       {program} predict {out / 'demo.onnx'} {out / 'digit.png'}"
    )


def _write_sample(data: Data, path: Path) -> None:
    """The first test image as a PNG, for a first ``fastconv predict``."""
    import numpy as np
    from PIL import Image

    pixels = data.x_test[0, ..., 0] * (255 / data.white)
    Image.fromarray(np.rint(pixels).astype(np.uint8)).save(path)

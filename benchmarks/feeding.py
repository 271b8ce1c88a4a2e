"""What training costs beside the kernels: input work, the bar and callbacks, a folder of JPEGs.

- *Input work*: all that an epoch of `fit` does before its forward steps, alone: the order of the
  samples, the rows of every batch read and cast into the pass. Beside the time of the epoch.
- *Bar and callbacks*: epochs with and without, in turns.
- *Folder*: `image_dataset_from_directory` with augmentation, beside the same images as an array
  that lies ready, in turns. The JPEGs are drawn anew: smooth random pictures.
- *Command*: the training of `fastconv train`, which writes a table and a backup every epoch, beside
  the same `fit` alone, in turns; and the whole command, with all that it reads and writes.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import fastconv_networks as networks
import numpy as np
from report import Report, Table

import fastconv as fc
from fastconv import backend, callbacks, utils

BATCH = 64
FOLDER_BATCH = 32
EPOCHS = 5  # of the command
QUALITY = 90  # of the JPEGs


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count)


def compiled(make: Callable[..., fc.Model], size: int) -> fc.Model:
    fc.set_random_seed(0)
    model = make(size=size)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def seconds(task: Callable[[], Any]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def in_turns(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each task in every round, after one that is not counted; the order moves on."""
    names, times = list(tasks), {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name in names:
            times[name].append(seconds(tasks[name]))
        names.append(names.pop(0))
    return times


# -- input work -----------------------------------------------------------------------------------


def feed(model: fc.Model, source: Any) -> None:
    """An epoch's input work, and nothing else."""
    from fastconv.fitting import Lane

    lane = Lane(model, "fit", source.largest)
    try:
        for batch in source.epoch(backend.next_seed()):
            runner, running = lane.use(batch)
            for entry, rows in zip(runner.plan.inputs, batch.x, strict=True):
                running.read(entry, rows, batch.index, batch.n)
            for entry, rows in zip(runner.heads.targets, batch.y, strict=True):
                running.read(entry, rows, batch.index, batch.n)
    finally:
        lane.close()


def input_work(rounds: int, count: int) -> list[dict[str, Any]]:
    from fastconv.sources import source

    rows = []
    x, y = digits(count)
    for name, images in (("uint8", x), ("float32", x.astype(np.float32) / 255)):
        model = compiled(networks.lenet5, 28)
        given = source(model, images, y, None, batch_size=BATCH, shuffle=True)

        def epoch(model: fc.Model = model, images: np.ndarray = images) -> None:
            model.fit(images, y, batch_size=BATCH, verbose=0)

        def check(model: fc.Model = model, images: np.ndarray = images) -> None:
            source(model, images, y, None, batch_size=BATCH, shuffle=True)

        tasks = {
            "epoch": epoch,
            "input": lambda model=model, given=given: feed(model, given),
            "check": check,
        }
        rows.append({"name": f"LeNet-5, {count:,} images of {name}", **in_turns(tasks, rounds)})
        print(f"  {rows[-1]['name']}: done", flush=True)
    return rows


# -- bar and callbacks ----------------------------------------------------------------------------


def shown(rounds: int, count: int, folder: Path) -> list[dict[str, Any]]:
    x, y = digits(count)
    model = compiled(networks.lenet5, 28)

    def listed(checkpoint: bool) -> list[Any]:
        saved = [callbacks.ModelCheckpoint(folder / "model.fastconv")]
        return [
            callbacks.EarlyStopping("loss", patience=5),
            callbacks.ReduceLROnPlateau("loss"),
            callbacks.CSVLogger(folder / "log.csv"),
            callbacks.TerminateOnNaN(),
            callbacks.TensorBoard(folder / "logs"),
            *(saved if checkpoint else []),
        ]

    def epoch(verbose: int, given: list[Any] | None = None) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(x, y, batch_size=BATCH, verbose=verbose, callbacks=given)

    tasks = {
        "bare": lambda: epoch(0),
        "bar": lambda: epoch(1),
        "bar, callbacks": lambda: epoch(1, listed(False)),
        "bar, callbacks, checkpoint": lambda: epoch(1, listed(True)),
    }
    times = in_turns(tasks, rounds)
    print("  bar and callbacks: done", flush=True)
    return [{"name": name, "seconds": times[name], "bare": times["bare"]} for name in tasks]


# -- a folder of pictures -------------------------------------------------------------------------


def draw(folder: Path, count: int, size: int) -> None:
    """JPEGs in two classes, as smooth as photographs: noise of several scales."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        picture = np.zeros((size, size, 3))
        for scale in (4, 16, 64):
            small = rng.random((scale, scale, 3)) * 255
            grown = [
                np.asarray(Image.fromarray(small[..., c].astype(np.uint8)).resize((size, size)))
                for c in range(3)
            ]
            picture += np.stack(grown, -1) / 3
        path = folder / f"class{i % 2}" / f"{i:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(path, quality=QUALITY)


def pictures(rounds: int, count: int, size: int, folder: Path) -> list[dict[str, Any]]:
    draw(folder, count, 2 * size)
    data = utils.image_dataset_from_directory(
        folder, image_size=(size, size), batch_size=FOLDER_BATCH, verbose=False
    )
    augment = utils.Augmentation(flip=True, shift=0.1, brightness=0.1, contrast=0.1)
    fed = data.map(augment, random=True).prefetch(2)
    batches = list(data)
    x, y = (np.concatenate([batch[i] for batch in batches]) for i in (0, 1))
    model = compiled(networks.resnet20, size)
    tasks = {
        "array": lambda: model.fit(x, y, batch_size=FOLDER_BATCH, verbose=0),
        "folder": lambda: model.fit(fed, verbose=0),
        "loading alone": lambda: [None for _ in fed],
    }
    times = in_turns(tasks, rounds)
    print("  folder of JPEGs: done", flush=True)
    return [{"name": name, "images": count, "seconds": times[name]} for name in tasks]


# -- the command ----------------------------------------------------------------------------------


def command(rounds: int, count: int, folder: Path) -> list[dict[str, Any]]:
    from fastconv.commands._training import Training
    from fastconv.commands.train import DEFAULTS
    from fastconv.datasets import idx

    data = folder / "idx"
    data.mkdir()
    for split, n in (("train", count), ("t10k", count // 6)):
        x, y = digits(n)
        idx.write_idx(data / f"{split}-images-idx3-ubyte", x)
        idx.write_idx(data / f"{split}-labels-idx1-ubyte", y.astype(np.uint8))
    options = {
        **DEFAULTS,
        "model": "lenet5",
        "data": str(data),
        "epochs": EPOCHS,
        "batch_size": BATCH,
    }
    times: dict[str, list[float]] = {"fit alone": [], "its fit": [], "the whole command": []}
    for _ in range(rounds + 1):
        with contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            training = Training.fresh(folder / "out", options, overwrite=True)
            training.run(0)
            times["the whole command"].append(time.perf_counter() - start)
            times["its fit"].append(training.seconds)
            model = training._model()
        train, held = training.data.train, training.data.held

        def alone(model: Any = model, train: Any = train, held: Any = held) -> None:
            model.fit(
                train.images, train.labels, batch_size=BATCH, epochs=EPOCHS, verbose=0,
                validation_data=(held.images, held.labels),
            )  # fmt: skip

        times["fit alone"].append(seconds(alone))
    print("  fastconv train: done", flush=True)
    return [{"name": name, "seconds": values[1:]} for name, values in times.items()]


# -- the report -----------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> Report:
    """Measure the four."""
    fc.set_num_threads(args.threads)
    count = 640 if args.quick else 60_000
    data: dict[str, Any] = {}
    tables = []
    middle = statistics.median
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if common.chosen("input", args.only):
            data["input"] = input_work(args.rounds, count)
            tables.append(
                Table(
                    "Input work",
                    ["epoch of", "epoch s", "input work s", "share %", "look for NaN, once, s"],
                    [
                        [r["name"], f"{middle(r['epoch']):.3f}", f"{middle(r['input']):.4f}",
                         f"{100 * middle(r['input']) / middle(r['epoch']):.2f}",
                         f"{middle(r['check']):.4f}"]
                        for r in data["input"]
                    ],
                )
            )  # fmt: skip
        if common.chosen("callbacks", args.only):
            data["callbacks"] = shown(args.rounds, count, folder)
            tables.append(
                Table(
                    "Bar and callbacks, an epoch of LeNet-5",
                    ["with", "median s", "least s", "more than bare %", "of the least %"],
                    [
                        [r["name"], f"{middle(r['seconds']):.3f}", f"{min(r['seconds']):.3f}",
                         *(f"{100 * (f(r['seconds']) / f(r['bare']) - 1):.2f}"
                           for f in (middle, min))]
                        for r in data["callbacks"]
                    ],
                )
            )  # fmt: skip
        if common.chosen("folder", args.only):
            pool = folder / "pictures"
            pool.mkdir()
            images, size = (64, 32) if args.quick else (2000, 128)
            data["folder"] = pictures(max(1, args.rounds // 3), images, size, pool)
            base = middle(data["folder"][0]["seconds"])
            tables.append(
                Table(
                    f"ResNet-20 on {images:,} JPEGs {2 * size}×{2 * size}, made {size}×{size}",
                    ["from", "median s", "images/s", "speed of the array %"],
                    [
                        [r["name"], f"{middle(r['seconds']):.2f}",
                         f"{images / middle(r['seconds']):.0f}",
                         f"{100 * base / middle(r['seconds']):.1f}"]
                        for r in data["folder"]
                    ],
                )
            )  # fmt: skip
        if common.chosen("command", args.only):
            images = count if args.quick else 6000
            data["command"] = command(args.rounds, images, folder)
            base = middle(data["command"][0]["seconds"])
            tables.append(
                Table(
                    f"fastconv train: LeNet-5, {EPOCHS} epochs of {images:,} images, validated",
                    ["", "median s", "least s", "more than fit alone %"],
                    [
                        [r["name"], f"{middle(r['seconds']):.3f}", f"{min(r['seconds']):.3f}",
                         f"{100 * (middle(r['seconds']) / base - 1):.1f}"]
                        for r in data["command"]
                    ],
                )
            )  # fmt: skip
    data["rows"] = [row for rows in data.values() for row in rows]
    return Report(
        "feeding",
        "Feeding",
        tables=tables,
        notes=[
            f"Batches of {BATCH} (folder: {FOLDER_BATCH}). Callbacks: early stopping, plateau, "
            "CSV, NaN, TensorBoard; a checkpoint waits until the disk has it (fsync). "
            "Augmentation: flip, shift by a tenth, brightness, contrast."
        ],
        data=data,
    )

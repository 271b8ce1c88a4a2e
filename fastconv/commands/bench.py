"""Time every layer of a network, beside the limits of this very machine.

NETWORK is a model saved by fastconv, or the name of a built-in one. A whole training step is timed
(reading the batch, forward, loss, backward, update), or with --inference the forward pass alone.
The data is random: how long a step takes does not depend on it. The file is left as it is.

"of peak" is the share of what this machine could do at best: multiply-adds at their measured peak
(FMA), or bytes at the measured bandwidth of memory, whichever takes longer. Data that still lies in
a cache can move faster than memory.
"""

import argparse
from pathlib import Path
from typing import Any

from fastconv.commands._common import positive

SUMMARY = "time every layer of a network, beside the limits of this machine"
EXAMPLES = """examples:
  fastconv bench                         the limits of this machine alone
  fastconv bench resnet20                a training step of a built-in network
  fastconv bench model.fastconv --inference --batch 1 --threads 1
  fastconv bench cifar-vgg --steps --json vgg.json --png vgg.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network",
        nargs="?",
        metavar="NETWORK",
        help="a saved model, or lenet5, mnist, cifar-vgg or resnet20; without it the limits alone",
    )
    purpose = parser.add_mutually_exclusive_group()
    purpose.add_argument(
        "--training",
        action="store_true",
        help="time a training step (default, where the model is compiled)",
    )
    purpose.add_argument("--inference", action="store_true", help="time the forward pass")
    parser.add_argument(
        "--batch", type=positive, metavar="N", help="samples (default: the network's usual, or 32)"
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="threads (default: what this process may use)"
    )
    parser.add_argument(
        "--repeat", type=positive, default=20, metavar="N", help="runs; medians count (default: 20)"
    )
    parser.add_argument(
        "--input-shape",
        metavar="SIZES",
        help="one sample's shape, 224x224x3, where the model leaves sizes open",
    )
    parser.add_argument("--steps", action="store_true", help="a line for every single step")
    parser.add_argument("--json", metavar="FILE", help="write everything there as JSON")
    parser.add_argument("--png", metavar="FILE", help="draw the roofline there")


def run(arguments: argparse.Namespace) -> int:
    import fastconv as fc
    from fastconv.profile import peaks

    if arguments.threads:
        fc.set_num_threads(arguments.threads)
    if arguments.network is None:
        for option in ("training", "inference", "batch", "input_shape", "steps", "json", "png"):
            if getattr(arguments, option):
                raise ValueError(f"--{option.replace('_', '-')} is for a network: name one")
        print(peaks())
        return 0
    if arguments.png:
        from fastconv.plots import new_figure

        new_figure(1, 1)  # what is missing is said before the work, not after it
    model, usual = _network(arguments.network)
    compiled = model.compile_config() is not None
    if arguments.training and not compiled:
        raise ValueError(f"{arguments.network}: was saved without being compiled: use --inference")
    training = compiled and not arguments.inference
    shape = _shape(arguments.input_shape) if arguments.input_shape else None
    x, y = _batch(model, arguments.batch or usual, training, shape)
    profile = model.profile(x, y, arguments.batch or usual, arguments.repeat)
    print(profile.table(steps=arguments.steps))
    if arguments.json:
        from fastconv.files import replacing

        with replacing(Path(arguments.json)) as file:
            file.write(f"{profile.to_json()}\n".encode())
    if arguments.png:
        profile.save_png(arguments.png)
    return 0


def _network(name: str) -> tuple[Any, int]:
    """The model, and the batch that it is usually trained with."""
    from fastconv.commands._networks import NETWORKS, named
    from fastconv.model import load_model

    if name.replace("_", "-") in NETWORKS:
        network = named(name)
        model = network.make()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model, network.batch
    if not Path(name).exists() and Path(name).name == name and not Path(name).suffix:
        try:
            named(name)
        except ValueError as error:
            raise ValueError(f"no file {name!r}, and {error}") from None
    return load_model(name), 32


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise ValueError(f"--input-shape is written as 224x224x3, not {text!r}")
    return tuple(map(int, sizes))


def _batch(
    model: Any, n: int, training: bool, shape: tuple[int, ...] | None
) -> tuple[list[Any], list[Any] | None]:
    """Random samples, and for training random targets of the losses' kinds."""
    import numpy as np

    rng = np.random.default_rng(0)
    sizes = model._given_shapes(shape)
    x = [rng.random((n, *size), dtype=np.float32) for size in sizes]
    if not training:
        return x, None
    known = model.graph.shapes(sizes)
    y: list[Any] = []
    for tensor, loss in zip(model.graph.outputs, model._need_compiled().losses, strict=True):
        out = known[tensor]
        if loss.labels:
            y.append(rng.integers(0, out[-1], (n, *out[:-1])))
        else:  # one class of each row: a target of every other loss, too
            y.append(np.eye(out[-1], dtype=np.float32)[rng.integers(0, out[-1], (n, *out[:-1]))])
    return x, y

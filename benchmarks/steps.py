"""Time whole training steps: fastconv's `train_on_batch` beside an ordinary PyTorch loop.

A step is forward, loss, backward and update of one batch, and the loss as a Python number. Both
sides have the same network, optimizer, batches and number of threads, and are timed in turns.
PyTorch runs with contiguous and with channels-last tensors; its batches lie ready as float32
tensors, so that reading the data costs it nothing.

    python benchmarks/steps.py --threads 2 --rounds 15 --json steps.json
"""

import argparse
import itertools
from collections.abc import Callable
from math import prod
from typing import Any

import common
import numpy as np
import peak

BATCHES = 8  # different batches, taken in turns


# -- the networks, each written for both sides ------------------------------------------------


def fastconv_mnist() -> Any:
    """The convolutional network of Keras' MNIST example."""
    import fastconv as fc
    from fastconv import layers

    return fc.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def torch_mnist(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip


def fastconv_lenet5() -> Any:
    """LeNet-5 with average pooling and tanh."""
    import fastconv as fc
    from fastconv import layers

    return fc.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="tanh"),
            layers.Dense(84, activation="tanh"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def torch_lenet5(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def fastconv_resnet20() -> Any:
    """ResNet-20 for CIFAR (He et al., 2015): three stages of three blocks."""
    import fastconv as fc
    from fastconv import layers

    def conv(x: Any, filters: int, stride: int = 1, size: int = 3) -> Any:
        pad = size // 2
        x = layers.Conv2D(filters, size, strides=stride, padding=pad, use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = layers.Input((32, 32, 3))
    x = layers.ReLU()(conv(inputs, 16))
    for filters, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, 1, 1):
            y = layers.ReLU()(conv(x, filters, stride))
            y = conv(y, filters)
            skip = x if x.shape == y.shape else conv(x, filters, stride, 1)
            x = layers.ReLU()(layers.Add()([y, skip]))
    x = layers.GlobalAveragePooling2D()(x)
    return fc.Model(inputs, layers.Dense(10, activation="softmax")(x))


def torch_resnet20(nn: Any) -> Any:
    def conv(channels: int, filters: int, stride: int = 1, size: int = 3) -> Any:
        return nn.Sequential(
            nn.Conv2d(channels, filters, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01),
        )

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, channels: int, filters: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = conv(channels, filters, stride), conv(filters, filters)
            same = channels == filters and stride == 1
            self.skip = nn.Identity() if same else conv(channels, filters, stride, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.relu(self.second(self.relu(self.first(x))) + self.skip(x))

    blocks, channels = [conv(3, 16), nn.ReLU(inplace=True)], 16
    for filters, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, 1, 1):
            blocks.append(Block(channels, filters, stride))
            channels = filters
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


# name: both networks, one sample's shape, batch, optimizer with its rate
STEPS: dict[str, tuple[Callable, Callable, tuple[int, ...], int, tuple[str, float]]] = {
    "keras_mnist_128": (fastconv_mnist, torch_mnist, (28, 28, 1), 128, ("adadelta", 1.0)),
    "lenet5_1": (fastconv_lenet5, torch_lenet5, (28, 28, 1), 1, ("sgd", 0.01)),
    "lenet5_64": (fastconv_lenet5, torch_lenet5, (28, 28, 1), 64, ("sgd", 0.01)),
    "resnet20_128": (fastconv_resnet20, torch_resnet20, (32, 32, 3), 128, ("sgd", 0.01)),
}


# -- one step of each side --------------------------------------------------------------------


def fastconv_step(model: Any, optimizer: tuple[str, float], x: Any, y: Any) -> Callable[[], float]:
    from fastconv import optimizers

    name, rate = optimizer
    model.compile(
        optimizer=optimizers.get({"name": name, "learning_rate": rate}),
        loss="sparse_categorical_crossentropy",
    )
    batches = itertools.cycle(list(zip(x, y, strict=True)))
    return lambda: model.train_on_batch(*next(batches))


def torch_step(
    network: Callable, optimizer: tuple[str, float], x: Any, y: Any, channels_last: bool
) -> Callable[[], float]:
    import torch

    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = network(torch.nn).to(memory_format=layout).train()
    name, rate = optimizer
    update = {
        "adadelta": lambda p: torch.optim.Adadelta(p, lr=rate, rho=0.95, eps=1e-7),
        "sgd": lambda p: torch.optim.SGD(p, lr=rate),
    }[name](model.parameters())
    images = [torch.from_numpy(b).permute(0, 3, 1, 2).contiguous(memory_format=layout) for b in x]
    batches = itertools.cycle(list(zip(images, map(torch.from_numpy, y), strict=True)))
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> float:
        images, labels = next(batches)
        update.zero_grad(set_to_none=True)
        loss = cross_entropy(model(images), labels)
        loss.backward()
        update.step()
        return loss.item()

    return step


def step_gflop(model: Any, batch: int) -> float:
    """Work of the convolutions and dense layers in one step: three products each, but two for
    those on the input, whose gradient nobody needs."""
    total = 0
    inputs = set(model.graph.inputs)
    for node in model.graph.nodes:
        weight = getattr(node.layer, "weight", None)
        if weight is not None:
            products = 2 if inputs & set(node.inputs) else 3
            total += 2 * products * prod(node.output.shape[:-1]) * weight.value.size
    return 1e-9 * batch * total


# -- the benchmark ----------------------------------------------------------------------------


def time_step(name: str, rounds: int) -> dict[str, Any]:
    ours, theirs, shape, batch, optimizer = STEPS[name]
    rng = np.random.default_rng(0)
    x = rng.random((BATCHES, batch, *shape), np.float32)
    y = rng.integers(0, 10, (BATCHES, batch))
    model = ours()
    candidates = {"fastconv": fastconv_step(model, optimizer, x, y)}
    if common.optional_torch() is not None:
        for layout in ("contiguous", "channels_last"):
            last = layout == "channels_last"
            candidates[f"torch {layout}"] = torch_step(theirs, optimizer, x, y, last)
    times = common.interleave(candidates, rounds)
    return {
        "step": name,
        "batch": batch,
        "optimizer": optimizer,
        "parameters": model.count_params(),
        "gflop": step_gflop(model, batch),
        "times": common.as_json(times),
        "speedup": common.speedup(times),
    }


def format_row(row: dict[str, Any], limit: dict[str, Any]) -> list[str]:
    times = row["times"]
    mine = times["fastconv"]
    rate = row["gflop"] / mine["median"]

    def cell(name: str) -> str:
        return common.ms(times[name]["median"]) if name in times else "-"

    return [
        row["step"], common.ms(mine["median"]), common.ms(mine["min"]),
        f"{100 * mine['spread']:.0f}", f"{rate:.0f}", f"{100 * rate / limit['gflops']:.0f}",
        cell("torch contiguous"), cell("torch channels_last"),
        f"{row['speedup']:.2f}" if row["speedup"] else "-",
    ]  # fmt: skip


HEADER = [
    "training step", "fastconv ms", "min", "spread %", "GFLOP/s", "% of peak",
    "torch contiguous", "channels_last", "x torch",
]  # fmt: skip


def run(steps: list[str], rounds: int, limit: dict[str, Any]) -> dict[str, Any]:
    """Time these steps, print the table and return what was measured."""
    foreign = common.Foreign()
    rows = []
    for name in steps:
        rows.append(time_step(name, rounds))
        print(f"  {name}: done", flush=True)
    print(common.table(HEADER, [format_row(row, limit) for row in rows]))
    return {"rows": rows, "foreign_cpus": foreign.report()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="NAME",
        help=f"training steps to time; there are {', '.join(STEPS)}",
    )  # fmt: skip


def main() -> None:
    parser = common.parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    common.prepare(args)
    limit = peak.measure_in_use(args.threads)
    steps = run(args.steps, args.rounds, limit)
    common.write_json(args, {"limit": limit, "steps": steps})


if __name__ == "__main__":
    main()

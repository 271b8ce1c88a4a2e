"""The networks that are timed: sizes, optimizers, and where they are written.

Every network is there twice under one name, in `fastconv_networks.py` with fastconv's layers and in
`torch_networks.py` as one writes it in PyTorch, so that nobody has to trust a translator. That both
are the same work is checked before anything is timed: the same number of parameters and of
multiply-adds, and from the same weights the same losses over the first training steps.
"""

import argparse
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import common
import numpy as np


@dataclass(frozen=True)
class Network:
    """One row of the tables.

    Attributes
    ----------
    name : str
        Of the row: the function's name, and the batch where there are several.
    function : str
        In both modules, called with ``size``, ``width`` and ``dropout``.
    size, channels, classes : int
        Of the images; ``classes`` of each pixel where ``dense`` is true.
    batch : int
    optimizer : dict
        Name and arguments, as fastconv names them.
    width : float
        Factor of all channel counts.
    """

    name: str
    function: str
    size: int
    channels: int
    classes: int
    batch: int
    optimizer: dict[str, Any] = field(default_factory=dict)
    width: float = 1.0
    dense: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """One sample: (H, W, channels)."""
        return (self.size, self.size, self.channels)

    def data(self, batches: int) -> tuple[np.ndarray, np.ndarray]:
        """Images and class numbers, the same on every side: (batches, n, H, W, C) and
        (batches, n) or (batches, n, H, W)."""
        rng = np.random.default_rng(0)
        x = rng.random((batches, self.batch, *self.shape), np.float32)
        pixels = self.shape[:2] if self.dense else ()
        return x, rng.integers(0, self.classes, (batches, self.batch, *pixels))

    def options(self, dropout: bool) -> dict[str, Any]:
        """The arguments of both builders."""
        return {"size": self.size, "width": self.width, "dropout": dropout}


SGD = {"name": "sgd", "learning_rate": 0.01}
MOMENTUM = {"name": "sgd", "learning_rate": 0.0003, "momentum": 0.9}
ADAM = {"name": "adam", "learning_rate": 0.001}
ADADELTA = {"name": "adadelta", "learning_rate": 0.1}

ALL = [
    Network("lenet5_1", "lenet5", 28, 1, 10, 1, SGD),
    Network("lenet5_64", "lenet5", 28, 1, 10, 64, SGD),
    Network("mnist", "mnist", 28, 1, 10, 128, ADADELTA),
    Network("cifar_vgg", "cifar_vgg", 32, 3, 10, 64, ADAM),
    Network("resnet20", "resnet20", 32, 3, 10, 128, MOMENTUM),
    Network("resnet18", "resnet18", 224, 3, 1000, 8, MOMENTUM),
    Network("resnet50", "resnet50", 224, 3, 1000, 8, MOMENTUM),
    Network("vgg16", "vgg16", 224, 3, 1000, 4, MOMENTUM),
    Network("alexnet", "alexnet", 224, 3, 1000, 16, MOMENTUM),
    Network("mobilenet", "mobilenet", 224, 3, 1000, 8, MOMENTUM),
    Network("unet", "unet", 128, 1, 2, 4, ADAM, dense=True),
]
NETWORKS = {network.name: network for network in ALL}


def quick(network: Network) -> Network:
    """The same network small: an eighth of the channels, images as small as it takes, batch 4."""
    size = {224: 96, 128: 32}.get(network.size, network.size)
    return replace(network, size=size, width=0.125, batch=min(network.batch, 4))


def states(optimizer: dict[str, Any]) -> int:
    """Arrays that an optimizer keeps per parameter."""
    return 2 if optimizer["name"] != "sgd" else int(bool(optimizer.get("momentum")))


def chosen(args: argparse.Namespace) -> list[Network]:
    """The networks of ``--only``, small ones with ``--quick``."""
    nets = [net for net in ALL if common.chosen(net.name, args.only)]
    return [quick(net) for net in nets] if args.quick else nets


def initial_weight(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """The weight of the network's layer ``number``, the same on every side (He et al., 2015).

    ``shape`` is fastconv's, the fan-in all axes but the last; a depthwise weight, (KH, KW, C, 1),
    sums over its taps alone.
    """
    fan_in = prod(shape[:2]) if len(shape) == 4 and shape[-1] == 1 else prod(shape[:-1])
    rng = np.random.default_rng(number)
    return rng.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)


# -- fastconv -----------------------------------------------------------------------------------


def fastconv_model(network: Network, dropout: bool = True) -> Any:
    """fastconv's model, uncompiled, with the common weights."""
    import fastconv_networks

    model = getattr(fastconv_networks, network.function)(**network.options(dropout))
    weighted = [layer for layer in model.layers if getattr(layer, "weight", None) is not None]
    for number, layer in enumerate(weighted):
        layer.weight.assign(initial_weight(number, layer.weight.shape))
    return model


def fastconv_optimizer(network: Network) -> Any:
    from fastconv import optimizers

    return optimizers.get(network.optimizer)


# -- PyTorch ------------------------------------------------------------------------------------


def torch_model(network: Network, dropout: bool = True) -> Any:
    """PyTorch's module with the common weights, contiguous."""
    import torch_networks

    model = getattr(torch_networks, network.function)(**network.options(dropout))
    torch_networks.set_weights(model, network.shape, initial_weight)
    return model


def torch_optimizer(network: Network, parameters: Any) -> Any:
    """The same update as fastconv's; the fused form where PyTorch has one for CPUs."""
    import torch

    options = dict(network.optimizer)
    name, rate = options.pop("name"), options.pop("learning_rate")
    if name == "adadelta":
        return torch.optim.Adadelta(parameters, lr=rate, rho=0.95, eps=1e-7)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=rate, eps=1e-7, fused=True)
    return torch.optim.SGD(parameters, lr=rate, **options, fused=True)

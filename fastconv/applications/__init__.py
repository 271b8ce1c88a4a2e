"""Keras' ``applications``: networks with a name, as functions that make them.

They come without trained weights. Each takes the shape of its images and the number of classes::

    model = fc.applications.ResNet20((64, 64, 3), classes=5, include_preprocessing=True)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

`fastconv train` and `fastconv bench` know them as lenet5, mnist, cifar-vgg and resnet20.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.applications.cifar_vgg import CifarVGG
    from fastconv.applications.lenet5 import LeNet5
    from fastconv.applications.mnist import MNISTNet
    from fastconv.applications.resnet20 import ResNet20

# public name → module that has it
_NAMES = {
    "CifarVGG": "fastconv.applications.cifar_vgg",
    "LeNet5": "fastconv.applications.lenet5",
    "MNISTNet": "fastconv.applications.mnist",
    "ResNet20": "fastconv.applications.resnet20",
}

__all__ = ["CifarVGG", "LeNet5", "MNISTNet", "ResNet20"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

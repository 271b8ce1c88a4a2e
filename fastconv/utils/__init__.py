"""Keras' ``utils``: labels as rows, image folders, pictures of models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.backend import set_random_seed
    from fastconv.utils.arrays import normalize, to_categorical
    from fastconv.utils.augmentation import Augmentation
    from fastconv.utils.drawing import model_to_dot, plot_model
    from fastconv.utils.images import image_dataset_from_directory
    from fastconv.utils.sequence import PyDataset, Sequence

# public name → module that has it
_NAMES = {
    "Augmentation": "fastconv.utils.augmentation",
    "PyDataset": "fastconv.utils.sequence",
    "Sequence": "fastconv.utils.sequence",
    "image_dataset_from_directory": "fastconv.utils.images",
    "model_to_dot": "fastconv.utils.drawing",
    "normalize": "fastconv.utils.arrays",
    "plot_model": "fastconv.utils.drawing",
    "set_random_seed": "fastconv.backend",
    "to_categorical": "fastconv.utils.arrays",
}

__all__ = [
    "Augmentation", "PyDataset", "Sequence", "image_dataset_from_directory", "model_to_dot",
    "normalize", "plot_model", "set_random_seed", "to_categorical",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Keras' ``utils``: labels as rows, image folders, pictures of models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.backend import set_random_seed
    from fastconv.utils.arrays import normalize, to_categorical
    from fastconv.utils.augmentation import Augmentation
    from fastconv.utils.drawing import model_to_dot, plot_model
    from fastconv.utils.images import image_dataset_from_directory
    from fastconv.utils.pictures import array_to_img, img_to_array, load_img, save_img
    from fastconv.utils.sequence import PyDataset, Sequence

# public name → module that has it
_NAMES = {
    "Augmentation": "fastconv.utils.augmentation",
    "PyDataset": "fastconv.utils.sequence",
    "Sequence": "fastconv.utils.sequence",
    "array_to_img": "fastconv.utils.pictures",
    "image_dataset_from_directory": "fastconv.utils.images",
    "img_to_array": "fastconv.utils.pictures",
    "load_img": "fastconv.utils.pictures",
    "model_to_dot": "fastconv.utils.drawing",
    "normalize": "fastconv.utils.arrays",
    "plot_model": "fastconv.utils.drawing",
    "save_img": "fastconv.utils.pictures",
    "set_random_seed": "fastconv.backend",
    "to_categorical": "fastconv.utils.arrays",
}

__all__ = [
    "Augmentation", "PyDataset", "Sequence", "array_to_img", "image_dataset_from_directory",
    "img_to_array", "load_img", "model_to_dot", "normalize", "plot_model", "save_img",
    "set_random_seed", "to_categorical",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

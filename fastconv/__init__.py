"""fastconv: train a convolutional network on a CPU, write it to ONNX, serve it on a GPU.

The package is lazy: a name is imported when it is first used, so ``import fastconv`` costs little
and ``import fastconv.datasets`` loads no training code.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastconv.version import __version__

if TYPE_CHECKING:
    from fastconv import (
        applications,
        backend,
        callbacks,
        config,
        constraints,
        datasets,
        functional,
        initializers,
        layers,
        losses,
        metrics,
        models,
        optimizers,
        own,
        regularizers,
        saving,
        schedules,
        serving,
        sklearn,
        utils,
        visualize,
    )
    from fastconv.backend import floatx, set_floatx, set_random_seed
    from fastconv.checking import check_gradients
    from fastconv.config import get_num_threads, set_num_threads, show_config
    from fastconv.dataset import Dataset
    from fastconv.initializers import Initializer
    from fastconv.layer import Layer
    from fastconv.layers.input import Input
    from fastconv.learning_rate import find_learning_rate
    from fastconv.losses import Loss
    from fastconv.metrics import Metric
    from fastconv.model import Model, Sequential, load_model
    from fastconv.optimizers import Optimizer
    from fastconv.precision import dtype_policy, set_dtype_policy
    from fastconv.regularizers import Regularizer
    from fastconv.saving import save_model

# public name → module that has it
_NAMES = {
    "Dataset": "fastconv.dataset",
    "check_gradients": "fastconv.checking",
    "find_learning_rate": "fastconv.learning_rate",
    "Initializer": "fastconv.initializers",
    "Input": "fastconv.layers.input",
    "Layer": "fastconv.layer",
    "Loss": "fastconv.losses",
    "Metric": "fastconv.metrics",
    "Optimizer": "fastconv.optimizers",
    "Regularizer": "fastconv.regularizers",
    "Model": "fastconv.model",
    "Sequential": "fastconv.model",
    "dtype_policy": "fastconv.precision",
    "floatx": "fastconv.backend",
    "get_num_threads": "fastconv.config",
    "load_model": "fastconv.model",
    "save_model": "fastconv.saving",
    "set_dtype_policy": "fastconv.precision",
    "set_floatx": "fastconv.backend",
    "set_num_threads": "fastconv.config",
    "set_random_seed": "fastconv.backend",
    "show_config": "fastconv.config",
}
_MODULES = {
    "applications", "backend", "callbacks", "config", "constraints", "datasets", "functional",
    "initializers", "layers", "losses", "metrics", "models", "optimizers", "own", "regularizers",
    "saving", "schedules", "serving", "sklearn", "utils", "visualize",
}  # fmt: skip

__all__ = [
    "Dataset", "Initializer", "Input", "Layer", "Loss", "Metric", "Model", "Optimizer",
    "Regularizer", "Sequential", "__version__", "applications", "backend", "callbacks",
    "check_gradients", "config", "constraints", "datasets", "dtype_policy",
    "find_learning_rate", "floatx", "functional", "get_num_threads", "initializers", "layers",
    "load_model", "losses", "metrics", "models", "optimizers", "own", "regularizers",
    "save_model", "saving", "schedules", "serving", "set_dtype_policy", "set_floatx",
    "set_num_threads", "set_random_seed", "show_config", "sklearn", "utils", "visualize",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"fastconv.{name}")
    else:
        raise AttributeError(f"fastconv has no {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

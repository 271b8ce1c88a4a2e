"""Losses, with Keras 3's formulas, names and defaults: as strings, functions or objects.

``losses.Huber(delta=2)`` is a loss with settings, ``losses.huber(y_true, y_pred)`` gives the values
of a batch's rows, and either of them, or the string ``"huber"``, is what `Model.compile` takes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import arguments, shapes
from fastconv.losses.base import (
    CLASSES,
    EPSILON,
    READABLE,
    Loss,
    as_array,
    check_labels,
    check_values,
    emit_numpy,
    located,
    real_array,
)  # fmt: skip
from fastconv.losses.crossentropy import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    SparseCategoricalCrossentropy,
)  # fmt: skip
from fastconv.losses.margin import CategoricalHinge, Hinge, MultiClassHinge, SquaredHinge
from fastconv.losses.overlap import Dice, Tversky
from fastconv.losses.regression import (
    CosineSimilarity,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
)  # fmt: skip

__all__ = [
    "CLASSES", "EPSILON", "READABLE", "BinaryCrossentropy", "BinaryFocalCrossentropy",
    "CategoricalCrossentropy", "CategoricalFocalCrossentropy", "CategoricalHinge",
    "CosineSimilarity", "Dice", "Hinge", "Huber", "KLDivergence", "LogCosh", "Loss",
    "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError",
    "MeanSquaredLogarithmicError", "MultiClassHinge", "Poisson", "SparseCategoricalCrossentropy",
    "SquaredHinge", "Tversky", "as_array", "check_labels", "check_values", "emit_numpy",
    "get", "located", "real_array", "to_config",
]  # fmt: skip

ALL: tuple[type[Loss], ...] = (
    SparseCategoricalCrossentropy, CategoricalCrossentropy, BinaryCrossentropy,
    CategoricalFocalCrossentropy, BinaryFocalCrossentropy, MeanSquaredError, MeanAbsoluteError,
    MeanAbsolutePercentageError, MeanSquaredLogarithmicError, Huber, LogCosh, Poisson,
    KLDivergence, CosineSimilarity, Hinge, SquaredHinge, CategoricalHinge, MultiClassHinge, Dice,
    Tversky,
)  # fmt: skip
SHORT: dict[str, type[Loss]] = {
    "mse": MeanSquaredError, "mae": MeanAbsoluteError, "mape": MeanAbsolutePercentageError,
    "msle": MeanSquaredLogarithmicError, "kld": KLDivergence, "bce": BinaryCrossentropy,
    "logcosh": LogCosh,
}  # fmt: skip
NAMES: dict[str, type[Loss]] = {cls.name: cls for cls in ALL} | SHORT


def _function(cls: type[Loss]) -> Callable[..., np.ndarray]:
    """Keras' function of a loss: the values of rows."""

    def values(y_true: Any, y_pred: Any, *arguments: Any, **named: Any) -> np.ndarray:
        named["reduction"] = "none"
        return cls(*arguments, **named)(y_true, y_pred)

    values.__name__ = values.__qualname__ = cls.name
    values.__doc__ = f"The values of rows, (n, …), with the arguments of `{cls.__name__}`."
    return values


FUNCTIONS = {name: _function(cls) for name, cls in NAMES.items()}
_of_function = {FUNCTIONS[name]: NAMES[name] for name in NAMES}


def __getattr__(name: str) -> Any:
    """The functions, by their names: ``losses.categorical_crossentropy``."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name.lower() in SHORT:  # MSE, MAE …
        return FUNCTIONS[name.lower()]
    raise AttributeError(f"fastconv.losses has no {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *FUNCTIONS])


def get(identifier: Any) -> Loss:
    """A loss from its name, its function, its config ``{"name": …, **arguments}``, or itself."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if isinstance(identifier, dict):
        config = dict(identifier)
        return _class(config.pop("name", None)).from_config(config)
    if callable(identifier) and identifier in _of_function:
        return _of_function[identifier]()
    if callable(identifier):
        raise ValueError(
            f"a loss needs its gradient, which the function {identifier!r} does not have: subclass "
            "fastconv.own.NumpyLoss"
        )
    return _class(identifier)()


def _class(identifier: Any) -> type[Loss]:
    if isinstance(identifier, str):
        if identifier in CLASSES:
            return CLASSES[identifier]
        if identifier.lower() in SHORT:
            return SHORT[identifier.lower()]
    return NAMES[shapes.choice(identifier, NAMES, "loss")]


def to_config(loss: Loss) -> dict[str, Any]:
    """What `get` makes the same loss from."""
    names = {cls: cls.name for cls in ALL}
    cls = type(loss)
    return {"name": names.get(cls, cls.__name__), **loss.get_config()}


arguments.explain(globals())

"""Constraints on weights: what each update is followed by, with Keras 3's formulas.

An axis says over which axis norms are taken: 0 for `Dense`, whose weight is (inputs, units), and
``[0, 1, 2]`` for `Conv2D`, (KH, KW, IC, OC), so that each unit has a norm of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import arguments, shapes
from fastconv.backend import epsilon

CLASSES: dict[str, type["Constraint"]] = {}


class Constraint:
    """Base: a subclass defines ``__call__(w)`` → the nearest weight that is allowed.

    It is known by its class' name where a model is loaded; `get_config` gives its arguments.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls

    def __call__(self, w: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Constraint":
        return cls(**config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class NonNeg(Constraint):
    """No weight below 0."""

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return np.maximum(w, 0)


class _Norm(Constraint):
    axis: int | list[int]

    def _norms(self, w: np.ndarray) -> np.ndarray:
        axis = self.axis if isinstance(self.axis, int) else tuple(self.axis)
        return np.sqrt(np.square(w).sum(axis=axis, keepdims=True))


class MaxNorm(_Norm):
    """Norms of ``max_value`` at most (Srivastava et al. 2014).

    Parameters
    ----------
    max_value : float
    axis : int or sequence of int
    """

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0) -> None:
        self.max_value = shapes.real(max_value, "max_value", 0)
        self.axis = _axis(axis)

    def __call__(self, w: np.ndarray) -> np.ndarray:
        norms = self._norms(w)
        return w * (np.clip(norms, 0, self.max_value) / (epsilon() + norms))


class UnitNorm(_Norm):
    """Norms of 1.

    Parameters
    ----------
    axis : int or sequence of int
    """

    def __init__(self, axis: int | Sequence[int] = 0) -> None:
        self.axis = _axis(axis)

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return w / (epsilon() + self._norms(w))


class MinMaxNorm(_Norm):
    """Norms between ``min_value`` and ``max_value``.

    Parameters
    ----------
    min_value, max_value : float
    rate : float
        How much of the way each update goes there; 1 is all of it.
    axis : int or sequence of int
    """

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ) -> None:
        self.min_value = shapes.real(min_value, "min_value", 0)
        self.max_value = shapes.real(max_value, "max_value", self.min_value)
        self.rate = shapes.real(rate, "rate", 0, 1)
        self.axis = _axis(axis)

    def __call__(self, w: np.ndarray) -> np.ndarray:
        norms = self._norms(w)
        inside = np.clip(norms, self.min_value, self.max_value)
        return w * ((self.rate * inside + (1 - self.rate) * norms) / (epsilon() + norms))


max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm

NAMES: dict[str, type[Constraint]] = {
    "max_norm": MaxNorm,
    "min_max_norm": MinMaxNorm,
    "non_neg": NonNeg,
    "unit_norm": UnitNorm,
}


def get(identifier: Any, name: str = "constraint") -> Constraint | None:
    """A constraint from its name, its config ``{"name": …, **arguments}``, itself, or None."""
    if identifier is None or isinstance(identifier, Constraint):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Constraint):
        return identifier()
    if isinstance(identifier, dict):
        config = dict(identifier)
        return _class(config.pop("name", None), name).from_config(config)
    return _class(identifier, name)()


def _class(identifier: Any, name: str) -> type[Constraint]:
    if isinstance(identifier, str) and identifier in CLASSES:
        return CLASSES[identifier]
    return NAMES[shapes.choice(identifier, NAMES, name)]


def to_config(constraint: Constraint | None) -> dict[str, Any] | None:
    """What `get` makes the same constraint from."""
    if constraint is None:
        return None
    return {"name": type(constraint).__name__, **constraint.get_config()}


def _axis(axis: Any) -> int | list[int]:
    """An axis, or a list of them: what JSON can hold."""
    if isinstance(axis, (list, tuple)):
        return [shapes.integer(item, "axis", -8) for item in axis]
    return shapes.integer(axis, "axis", -8)


arguments.explain(globals())

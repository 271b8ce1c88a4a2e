"""Penalties on weights: numbers that `fit` adds to the loss, with Keras 3's formulas.

The loss that training and evaluation report has the penalties of all trained weights in it. Their
gradients come in with the update: those of L1 and L2 in the optimizer's own pass over the weights,
for nothing, the others in a pass before it. ``Parameter.grad`` after `Model.backward` is the
gradient of the data's loss alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import arguments, shapes
from fastconv._native import update
from fastconv.backend import epsilon
from fastconv.parameter import Parameter

CLASSES: dict[str, type["Regularizer"]] = {}


class Regularizer:
    """Base: a subclass defines ``__call__(w)``, the penalty, and `gradient`.

    It is known by its class' name where a model is loaded; `get_config` gives its arguments.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls

    def __call__(self, w: np.ndarray) -> float:
        """The penalty of a weight."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """The derivative of the penalty by each element of the weight."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient")

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError where no weight of this shape can have it."""

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Regularizer":
        return cls(**config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class L1L2(Regularizer):
    """``l1 · Σ |w| + l2 · Σ w²``, with the gradient ``l1 · sign w + 2 · l2 · w``.

    Parameters
    ----------
    l1, l2 : float
    """

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1 = shapes.real(0.0 if l1 is None else l1, "l1", 0)
        self.l2 = shapes.real(0.0 if l2 is None else l2, "l2", 0)

    def __call__(self, w: np.ndarray) -> float:
        w = np.asarray(w, np.float64)
        return float(self.l1 * np.abs(w).sum() + self.l2 * np.square(w).sum())

    def gradient(self, w: np.ndarray) -> np.ndarray:
        return self.l1 * np.sign(w) + 2 * self.l2 * w


class L1(L1L2):
    """``l1 · Σ |w|``."""

    def __init__(self, l1: float | None = 0.01) -> None:
        super().__init__(0.01 if l1 is None else l1, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


class L2(L1L2):
    """``l2 · Σ w²``."""

    def __init__(self, l2: float | None = 0.01) -> None:
        super().__init__(0.0, 0.01 if l2 is None else l2)

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """``factor · mean |cos(a, b)|`` over all pairs of rows a, b of a matrix (or of its columns).

    With U the rows divided by their norms, C = U Uᵀ without its diagonal and P = rows · (rows − 1)
    / 2 pairs, the penalty is factor · ½ Σ |C| / P. A pair appears twice in C, so
    ``dU = factor / P · sign(C) U``, and through each row's norm
    ``dw = (dU − U (U · dU)) / ‖w‖``: what points along a row cannot turn it.

    Parameters
    ----------
    factor : float
    mode : {"rows", "columns"}
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = shapes.real(factor, "factor", 0)
        self.mode = shapes.choice(mode, ["rows", "columns"], "mode")

    def check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2:
            raise ValueError(f"OrthogonalRegularizer takes a matrix, not the shape {shape}")

    def _rows(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of norm 1, the norms, and the cosines of the pairs."""
        w = np.asarray(w)
        self.check(w.shape)
        rows = (w if self.mode == "rows" else w.T).astype(np.float64)
        norms = np.maximum(np.sqrt((rows * rows).sum(axis=1, keepdims=True)), epsilon())
        rows = rows / norms
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, 0)
        return rows, norms, cosines

    def __call__(self, w: np.ndarray) -> float:
        _, _, cosines = self._rows(w)
        count = len(cosines)
        return float(self.factor * 0.5 * np.abs(cosines).sum() / max(count * (count - 1) / 2, 1))

    def gradient(self, w: np.ndarray) -> np.ndarray:
        rows, norms, cosines = self._rows(w)
        count = len(cosines)
        slope = self.factor / max(count * (count - 1) / 2, 1) * (np.sign(cosines) @ rows)
        turned = (slope - rows * (rows * slope).sum(axis=1, keepdims=True)) / norms
        return turned if self.mode == "rows" else turned.T


l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer  # Keras' other names

NAMES: dict[str, type[Regularizer]] = {
    "l1": L1,
    "l2": L2,
    "l1_l2": L1L2,
    "l1l2": L1L2,
    "orthogonal_regularizer": OrthogonalRegularizer,
}


def get(identifier: Any, name: str = "regularizer") -> Regularizer | None:
    """A regularizer from its name, its config ``{"name": …, **arguments}``, itself, or None."""
    if identifier is None or isinstance(identifier, Regularizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Regularizer):
        return identifier()
    if isinstance(identifier, dict):
        config = dict(identifier)
        return _class(config.pop("name", None), name).from_config(config)
    return _class(identifier, name)()


def _class(identifier: Any, name: str) -> type[Regularizer]:
    if isinstance(identifier, str) and identifier in CLASSES:
        return CLASSES[identifier]
    return NAMES[shapes.choice(identifier, NAMES, name)]


def to_config(regularizer: Regularizer | None) -> dict[str, Any] | None:
    """What `get` makes the same regularizer from."""
    if regularizer is None:
        return None
    return {"name": type(regularizer).__name__, **regularizer.get_config()}


def gradient_of(regularizer: Regularizer, w: np.ndarray, name: str) -> np.ndarray:
    """The gradient of a penalty by the weight ``name``, in its shape, or a ValueError."""
    gradient = np.asarray(regularizer.gradient(w))
    if gradient.shape != w.shape:
        raise ValueError(
            f"{name}: {type(regularizer).__name__}.gradient gives the shape {gradient.shape}, the "
            f"weight has {w.shape}"
        )
    return gradient


def fused(regularizer: Regularizer | None) -> tuple[float, float] | None:
    """The factors l1 and l2 of a penalty that the optimizer's own pass can take."""
    if type(regularizer) in (L1, L2, L1L2):
        return regularizer.l1, regularizer.l2  # type: ignore[union-attr]
    return None


class Penalties:
    """The sum of the penalties of some parameters, in one pass where they are L1 and L2.

    Parameters
    ----------
    parameters : sequence of Parameter
        Those without a regularizer are passed by.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        penalized = [p for p in parameters if p.regularizer is not None]
        plain = [p for p in penalized if fused(p.regularizer) is not None]
        self.others = [
            (p, p.regularizer)
            for p in penalized
            if p.regularizer is not None and fused(p.regularizer) is None
        ]
        values = [p.value for p in plain]
        self.segments = update.Segments(values, values)
        self.factors = np.array([fused(p.regularizer) for p in plain])

    def __bool__(self) -> bool:
        return bool(self.others) or len(self.segments) > 0

    def __call__(self) -> float:
        """The sum for the weights as they are now."""
        total = 0.0
        if len(self.segments):
            total += float((self.factors * update.weight_sums(self.segments)).sum())
        return total + sum(float(penalty(p.value)) for p, penalty in self.others)


arguments.explain(globals())

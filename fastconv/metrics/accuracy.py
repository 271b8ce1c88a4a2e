"""Accuracies: shares of predictions that are right."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv._native import loss as native
from fastconv.metrics.base import MeanOf, classes_of

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


class Accuracy(MeanOf):
    """The share of outputs that are their target."""

    name = "accuracy"

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (y_true == y_pred).astype(np.float64)


class _Compiled(MeanOf):
    """A share that a compiled step counts in training where samples have no weights: hits alone,
    the rows are known."""

    step: type[native.SparseAccuracy | native.CategoricalAccuracy | native.BinaryAccuracy]

    def emit(self, b: "Builder", y: "Value", target: "Value", total: int, weight: int = -1) -> None:
        if weight >= 0:
            super().emit(b, y, target, total, weight)
            return
        b.emit(
            self.step(
                rows_per_sample=y.pixels, classes=y.channels, y=y.slot, y_stride=y.stride,
                targets=target.slot, total=total, **self._settings(),
            )
        )  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        return {}

    def outcome(self, state: np.ndarray, rows: int) -> float:
        return float(state[0]) / (state[1] or rows)  # the weights, or none were counted


class SparseCategoricalAccuracy(_Compiled):
    """Share of rows whose largest output is the class of that number."""

    name = "sparse_categorical_accuracy"
    labels = True
    step = native.SparseAccuracy

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return classes_of(y_true, y_pred.shape[:-1]) == y_pred.argmax(axis=-1)


class CategoricalAccuracy(_Compiled):
    """Share of rows whose largest output stands where the largest target does."""

    name = "categorical_accuracy"
    labels = False
    step = native.CategoricalAccuracy

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)


class BinaryAccuracy(_Compiled):
    """Share of outputs that lie on the target's side of the threshold.

    Parameters
    ----------
    threshold : float
        An output above it stands for 1.
    """

    name = "binary_accuracy"
    labels = False
    step = native.BinaryAccuracy

    def __init__(self, name: str | None = None, *, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = shapes.real(threshold, "threshold")

    def _settings(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (y_true == (y_pred > self.threshold)).mean(axis=-1)


class TopKCategoricalAccuracy(MeanOf):
    """Share of rows whose right class is among the ``k`` largest outputs.

    Parameters
    ----------
    k : int
    """

    name = "top_k_categorical_accuracy"
    labels = False

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = shapes.integer(k, "k")

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return in_top(y_true.argmax(axis=-1), y_pred, self.k)


class SparseTopKCategoricalAccuracy(MeanOf):
    """`TopKCategoricalAccuracy` for class numbers.

    Parameters
    ----------
    k : int
    """

    name = "sparse_top_k_categorical_accuracy"
    labels = True

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = shapes.integer(k, "k")

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return in_top(classes_of(y_true, y_pred.shape[:-1]), y_pred, self.k)


def in_top(classes: np.ndarray, y_pred: np.ndarray, k: int) -> np.ndarray:
    """Whether fewer than k outputs are larger than that of the class, which is a number."""
    own = np.take_along_axis(y_pred, classes[..., None], axis=-1)
    return ((y_pred > own).sum(axis=-1) < k) & (own == own)[..., 0]

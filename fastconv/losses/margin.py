"""Hinges: losses that end where the margin is wide enough.

At the corner itself the derivative is 0.
"""

import numpy as np

from fastconv import shapes
from fastconv.losses.base import Loss, check_labels
from fastconv.losses.crossentropy import one_hot
from fastconv.shapes import Shape


def signs(y_true: np.ndarray) -> np.ndarray:
    """Targets −1 and 1: those that are all 0 and 1 become −1 and 1, as in Keras."""
    return 2 * y_true - 1 if ((y_true == 0) | (y_true == 1)).all() else y_true


class Hinge(Loss):
    """``mean max(1 − t y, 0)`` over a row's C outputs, targets −1 and 1 (or 0 and 1), with the
    gradient ``−t / C`` where it is above 0."""

    name = "hinge"

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.maximum(1 - signs(y_true) * y_pred, 0).mean(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t = signs(y_true)
        return -t * (t * y_pred < 1) / y_pred.shape[-1]


class SquaredHinge(Loss):
    """``mean max(1 − t y, 0)²``, targets −1 and 1 (or 0 and 1), with the gradient
    ``−2 t max(1 − t y, 0) / C``."""

    name = "squared_hinge"

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.square(np.maximum(1 - signs(y_true) * y_pred, 0)).mean(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t = signs(y_true)
        return -2 * t * np.maximum(1 - t * y_pred, 0) / y_pred.shape[-1]


class CategoricalHinge(Loss):
    """``max(max((1 − t) y) − Σ t y + 1, 0)`` of a row: the best wrong class against the right one.

    Gradient, where it is above 0: −t, and 1 − t at the best wrong class.
    """

    name = "categorical_hinge"

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        right = (y_true * y_pred).sum(axis=-1)
        return np.maximum(((1 - y_true) * y_pred).max(axis=-1) - right + 1, 0)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        wrong = (1 - y_true) * y_pred
        best = np.arange(y_pred.shape[-1]) == wrong.argmax(axis=-1)[..., None]
        active = self.call(y_true, y_pred)[..., None] > 0
        return ((1 - y_true) * best - y_true) * active


class MultiClassHinge(Loss):
    """``Σ_{j ≠ label} max(0, y_j − y_label + margin)`` of a row: the multi-class SVM of Weston and
    Watkins (1999), for class numbers and scores without a softmax. Beyond Keras.

    Gradient: 1 for every wrong class whose term is above 0, and minus their number at the label.

    Parameters
    ----------
    margin : float
    """

    name = "multi_class_hinge"
    labels = True

    def __init__(
        self,
        margin: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.margin = shapes.real(margin, "margin", 0)

    def target_shape(self, output: Shape) -> Shape:
        return output[:-1] or (1,)

    def check(self, y: np.ndarray, output: Shape, name: str = "y") -> np.ndarray:
        return check_labels(y, output, f"{name} for the loss {self.name}")

    def _margins(self, t: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        right = (t * y_pred).sum(axis=-1, keepdims=True)
        return (1 - t) * np.maximum(y_pred - right + self.margin, 0)

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return self._margins(one_hot(y_true, y_pred), y_pred).sum(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t = one_hot(y_true, y_pred)
        over = (self._margins(t, y_pred) > 0).astype(y_pred.dtype)
        return over - t * over.sum(axis=-1, keepdims=True)

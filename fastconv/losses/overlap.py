"""Losses of masks: how little two sets overlap. They look at many outputs at once."""

from collections.abc import Sequence

import numpy as np

from fastconv import shapes
from fastconv.losses.base import EPSILON, Loss


class _Overlap(Loss):
    """1 − a quotient of sums over ``axis``; what is left of the axes are the rows."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        axis: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(reduction, name)
        if axis is not None:
            given = [axis] if isinstance(axis, int) else list(axis)
            axis = [shapes.integer(item, "axis", -8) for item in given]
        self.axis = axis

    def parts(
        self, t: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The quotient's two sums, kept as broadcastable, and their derivatives by each y."""
        raise NotImplementedError(f"{type(self).__name__} must define parts")

    def _axes(self, ndim: int) -> tuple[int, ...]:
        axes = range(ndim) if self.axis is None else self.axis
        return tuple(sorted(axis % ndim for axis in axes))

    def _sum(self, x: np.ndarray) -> np.ndarray:
        return x.sum(axis=self._axes(x.ndim), keepdims=True)

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        above, below, *_ = self.parts(y_true, y_pred)
        return np.squeeze(1 - above / below, axis=self._axes(y_pred.ndim))

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        above, below, d_above, d_below = self.parts(y_true, y_pred)
        return -(d_above * below - above * d_below) / np.square(below)

    def shares(
        self, y_true: np.ndarray, rows: tuple[int, ...], weight: np.ndarray | None
    ) -> np.ndarray:
        if weight is not None and 0 in self._axes(y_true.ndim):
            # the samples are one row, and their weights are factors of it
            weight = np.asarray(weight, np.float64)
            if rows:
                raise ValueError(f"{self.name} over the samples has no weights of samples")
            return np.asarray(weight.sum() if self.reduction == "sum" else weight.mean())
        return super().shares(y_true, rows, weight)

    def spread(self, share: np.ndarray, ndim: int) -> np.ndarray:
        return share if not share.ndim else np.expand_dims(share, self._axes(ndim))


class Dice(_Overlap):
    """``1 − 2 Σ t y / (Σ t + Σ y + 1e-7)`` (Milletari et al. 2016).

    Gradient, with I = Σ t y and S = Σ t + Σ y + 1e-7: ``−2 (t S − I) / S²``.

    Parameters
    ----------
    axis : int or sequence of int, optional
        What is added up: all of the batch by default; ``(1, 2, 3)`` gives each image a value of its
        own.
    """

    name = "dice"

    def parts(
        self, t: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        below = self._sum(t) + self._sum(y) + EPSILON
        return 2 * self._sum(t * y), below, 2 * t, np.ones_like(below)


class Tversky(_Overlap):
    """``1 − I / (I + alpha Σ t (1 − y) + beta Σ y (1 − t) + 1e-7)`` with I = Σ t y (Salehi et al.
    2017): alpha is what a miss costs, beta what a false alarm does. (Keras says so, too; its own
    text calls the sums by each other's name.)

    Gradient, with D the divisor: ``−(t D − I (t − alpha t + beta (1 − t))) / D²``.

    Parameters
    ----------
    alpha, beta : float
    axis
        As in `Dice`.
    """

    name = "tversky"

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        axis: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(reduction, name, axis)
        self.alpha = shapes.real(alpha, "alpha", 0)
        self.beta = shapes.real(beta, "beta", 0)

    def parts(
        self, t: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        above = self._sum(t * y)
        missed, false = self._sum(t * (1 - y)), self._sum(y * (1 - t))
        below = above + self.alpha * missed + self.beta * false + EPSILON
        return above, below, t, t - self.alpha * t + self.beta * (1 - t)

"""Losses of numbers: the mean over a row's C outputs of a function of output y and target t."""

from typing import TYPE_CHECKING

import numpy as np

from fastconv import shapes
from fastconv._native import loss as native
from fastconv.losses.base import EPSILON, MEANS, Loss, only_last

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


class _Pointwise(Loss):
    """``mean f(y, t)`` with the gradient ``f'(y, t) / C``."""

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The function of each output."""
        raise NotImplementedError(f"{type(self).__name__} must define f")

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Its derivative by y."""
        raise NotImplementedError(f"{type(self).__name__} must define df")

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return self.f(y_true, y_pred).mean(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return self.df(y_true, y_pred) / y_pred.shape[-1]


class MeanSquaredError(_Pointwise):
    """``mean (y − t)²``, with the gradient ``2 (y − t) / C``."""

    name = "mean_squared_error"

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.square(y - t)

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 2 * (y - t)

    def emit(
        self, b: "Builder", y: "Value", target: "Value", value: int, dy: "Value | None",
        fused: bool, scale: float, weight: int = -1,
    ) -> None:  # fmt: skip
        if self.reduction not in MEANS:
            super().emit(b, y, target, value, dy, fused, scale, weight)
            return
        b.emit(
            native.MeanSquaredError(
                pixels=y.pixels, channels=y.channels, scale=scale, y=y.slot, y_stride=y.stride,
                targets=target.slot, loss=value, dx=dy.slot if dy else -1,
                dx_stride=dy.stride if dy else y.channels, weight=weight,
                scratch=b.buffer(0, native.SCRATCH, 8),
            )
        )  # fmt: skip


class MeanAbsoluteError(_Pointwise):
    """``mean |y − t|``, with the gradient ``sign(y − t) / C``."""

    name = "mean_absolute_error"

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.abs(y - t)

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sign(y - t)


class MeanAbsolutePercentageError(_Pointwise):
    """``100 mean |y − t| / max(|t|, 1e-7)``, with the gradient
    ``100 sign(y − t) / max(|t|, 1e-7) / C``."""

    name = "mean_absolute_percentage_error"

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 100 * np.abs(y - t) / np.maximum(np.abs(t), EPSILON)

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 100 * np.sign(y - t) / np.maximum(np.abs(t), EPSILON)


class MeanSquaredLogarithmicError(_Pointwise):
    """``mean (log(1 + y) − log(1 + t))²`` with y and t at least 1e-7, and the gradient
    ``2 (log(1 + y) − log(1 + t)) / (1 + y) / C`` where y is above it."""

    name = "mean_squared_logarithmic_error"

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.square(self._difference(t, y))

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 2 * self._difference(t, y) / (np.maximum(y, EPSILON) + 1) * (y > EPSILON)

    def _difference(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.log1p(np.maximum(y, EPSILON)) - np.log1p(np.maximum(t, EPSILON))


class Huber(_Pointwise):
    """``mean ½ e²`` with e = y − t where |e| ≤ delta, and ``delta |e| − ½ delta²`` beyond (Huber
    1964). Its gradient is e, clamped to ± delta, over C.

    Parameters
    ----------
    delta : float
    """

    name = "huber"

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.delta = shapes.real(delta, "delta", 0)

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        e = np.abs(y - t)
        return np.where(e <= self.delta, 0.5 * e * e, self.delta * e - 0.5 * self.delta**2)

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.clip(y - t, -self.delta, self.delta)


class LogCosh(_Pointwise):
    """``mean log cosh(y − t)``, with the gradient ``tanh(y − t) / C``."""

    name = "log_cosh"

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        e = np.abs(y - t)  # log cosh e = e + log(1 + exp(−2 e)) − log 2, even in e
        return e + np.log1p(np.exp(-2 * e)) - np.log(2).astype(e.dtype)

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.tanh(y - t)


class Poisson(_Pointwise):
    """``mean (y − t log(y + 1e-7))``, with the gradient ``(1 − t / (y + 1e-7)) / C``."""

    name = "poisson"

    def f(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return y - t * np.log(y + EPSILON)

    def df(self, t: np.ndarray, y: np.ndarray) -> np.ndarray:
        return 1 - t / (y + EPSILON)


class KLDivergence(Loss):
    """``Σ t log(t / y)`` over a row, both clipped to [1e-7, 1], with the gradient ``−t / y`` where
    the clip leaves y as it is."""

    name = "kl_divergence"

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t, y = np.clip(y_true, EPSILON, 1), np.clip(y_pred, EPSILON, 1)
        return (t * np.log(t / y)).sum(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t, y = np.clip(y_true, EPSILON, 1), np.clip(y_pred, EPSILON, 1)
        return -t / y * ((y_pred >= EPSILON) & (y_pred <= 1))


class CosineSimilarity(Loss):
    """``−t · y / (‖t‖ ‖y‖)`` of a row: −1 where both point the same way.

    Gradient, with t̂ and ŷ of norm 1: ``−(t̂ − ŷ (t̂ · ŷ)) / ‖y‖``.
    """

    name = "cosine_similarity"

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        only_last(axis, type(self).__name__)

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return -(y_true / _norm(y_true) * (y_pred / _norm(y_pred))).sum(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        norm = _norm(y_pred)
        t, y = y_true / _norm(y_true), y_pred / norm
        return -(t - y * (t * y).sum(axis=-1, keepdims=True)) / norm


def _norm(x: np.ndarray) -> np.ndarray:
    """Norms of rows, at least 1e-7."""
    return np.maximum(np.sqrt(np.square(x).sum(axis=-1, keepdims=True)), EPSILON)

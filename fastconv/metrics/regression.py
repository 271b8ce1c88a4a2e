"""Metrics of numbers, and losses as metrics."""

from typing import Any

import numpy as np

from fastconv import losses, shapes
from fastconv.losses import Loss
from fastconv.metrics.base import MeanOf, Stateful, divide, spread
from fastconv.shapes import Shape


class OfLoss(MeanOf):
    """The mean of a loss' values over samples.

    Parameters
    ----------
    name : str, optional
    **arguments
        Those of the loss.
    """

    loss_class: type[Loss] = Loss
    sign = 1

    def __init__(self, name: str | None = None, **arguments: Any) -> None:
        super().__init__(name)
        self.loss = self.loss_class(**arguments)

    @property
    def labels(self) -> bool:  # type: ignore[override]
        return self.loss_class.labels

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return self.sign * self.loss.call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        config = {k: v for k, v in super().get_config().items() if k == "title"}
        return {**config, **self.loss.get_config()}


class MeanSquaredError(OfLoss):
    """``mean (y − t)²``."""

    name, loss_class = "mean_squared_error", losses.MeanSquaredError


class MeanAbsoluteError(OfLoss):
    """``mean |y − t|``."""

    name, loss_class = "mean_absolute_error", losses.MeanAbsoluteError


class MeanAbsolutePercentageError(OfLoss):
    """``100 mean |y − t| / |t|``."""

    name = "mean_absolute_percentage_error"
    loss_class = losses.MeanAbsolutePercentageError


class MeanSquaredLogarithmicError(OfLoss):
    """``mean (log(1 + y) − log(1 + t))²``."""

    name = "mean_squared_logarithmic_error"
    loss_class = losses.MeanSquaredLogarithmicError


class LogCoshError(OfLoss):
    """``mean log cosh(y − t)``."""

    name, loss_class = "logcosh", losses.LogCosh


class CosineSimilarity(OfLoss):
    """``t · y / (‖t‖ ‖y‖)``: the loss of this name with the other sign, 1 where both agree."""

    name, loss_class, sign = "cosine_similarity", losses.CosineSimilarity, -1


class Poisson(OfLoss):
    """``mean (y − t log y)``."""

    name, loss_class = "poisson", losses.Poisson


class KLDivergence(OfLoss):
    """``Σ t log(t / y)``."""

    name, loss_class = "kl_divergence", losses.KLDivergence


class Hinge(OfLoss):
    """``mean max(1 − t y, 0)``."""

    name, loss_class = "hinge", losses.Hinge


class SquaredHinge(OfLoss):
    """``mean max(1 − t y, 0)²``."""

    name, loss_class = "squared_hinge", losses.SquaredHinge


class CategoricalHinge(OfLoss):
    """``max(max((1 − t) y) − Σ t y + 1, 0)``."""

    name, loss_class = "categorical_hinge", losses.CategoricalHinge


class BinaryCrossentropy(OfLoss):
    """The loss of this name; takes ``from_logits`` and ``label_smoothing``."""

    name, loss_class = "binary_crossentropy", losses.BinaryCrossentropy


class CategoricalCrossentropy(OfLoss):
    """The loss of this name; takes ``from_logits`` and ``label_smoothing``."""

    name, loss_class = "categorical_crossentropy", losses.CategoricalCrossentropy


class SparseCategoricalCrossentropy(OfLoss):
    """The loss of this name; takes ``from_logits``."""

    name = "sparse_categorical_crossentropy"
    loss_class = losses.SparseCategoricalCrossentropy


class RootMeanSquaredError(MeanOf):
    """``√ mean (y − t)²`` over all outputs of all samples."""

    name = "root_mean_squared_error"
    labels = False

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.square(y_pred - y_true)

    def compute(self, state: np.ndarray) -> Any:
        return np.sqrt(super().compute(state))


class R2Score(Stateful):
    """``1 − Σ (y − t)² / Σ (t − mean t)²`` of each output: the share of the targets' variance that
    is explained.

    Parameters
    ----------
    class_aggregation : {"uniform_average", "variance_weighted_average"}, optional
        How the scores of several outputs become one; None: a score for each, ``<name>_0`` and so on
        in the logs.
    num_regressors : int
        Above 0: the score adjusted for so many independent variables.
    """

    name = "r2_score"
    labels = False

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if class_aggregation is not None:
            ways = ["uniform_average", "variance_weighted_average"]
            shapes.choice(class_aggregation, ways, "class_aggregation")
        self.class_aggregation = class_aggregation
        self.num_regressors = shapes.integer(num_regressors, "num_regressors", 0)

    def size(self, output: Shape) -> int:
        if len(output) != 1:
            raise ValueError(
                f"{self.name} takes outputs (n, numbers), not {shapes.shape_text(output)}"
            )
        return 4 * shapes.known(output, self.name)[0] + 1

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        t, y, w = y_true.astype(np.float64), y_pred, spread(weight, y_pred.shape)
        total, square, rest, count = state[:-1].reshape(4, -1)
        total += (w * t).sum(axis=0)
        square += (w * t * t).sum(axis=0)
        rest += (w * (t - y) ** 2).sum(axis=0)
        count += w.sum(axis=0)
        state[-1] += t.size

    def compute(self, state: np.ndarray) -> Any:
        total, square, rest, count = state[:-1].reshape(4, -1)
        spread_ = square - total * divide(total, count)
        scores = np.where(spread_ == 0, 0, 1 - divide(rest, spread_))
        found: Any = scores
        if self.class_aggregation == "uniform_average":
            found = scores.mean()
        elif self.class_aggregation is not None:
            found = divide((spread_ * scores).sum(), spread_.sum())
        n, p = state[-1], self.num_regressors
        return 1 - (1 - found) * (n - 1) / (n - p - 1) if p and n > p + 1 else found

    def log_names(self, name: str, output: Shape) -> list[str]:
        if self.class_aggregation is not None:
            return [name]
        return [f"{name}_{i}" for i in range(shapes.known(output, self.name)[0])]

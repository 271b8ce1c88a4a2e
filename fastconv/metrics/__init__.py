"""Metrics: numbers for people, counted while batches pass, as Keras 3 names and defines them.

In `Model.compile` as strings or objects; by themselves with ``update_state(y_true, y_pred)``,
``result()`` and ``reset_state()``.
"""

import warnings
from typing import Any

import numpy as np

from fastconv import arguments, shapes
from fastconv.losses import FUNCTIONS, SHORT, Loss
from fastconv.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)  # fmt: skip
from fastconv.metrics.base import (
    CLASSES,
    Mean,
    MeanMetricWrapper,
    MeanOf,
    Metric,
    OfUpdates,
    Stateful,
    Sum,
)  # fmt: skip
from fastconv.metrics.confusion import (
    AUC,
    BinaryIoU,
    ConfusionMatrix,
    DiceScore,
    F1Score,
    FalseNegatives,
    FalsePositives,
    FBetaScore,
    IoU,
    MeanIoU,
    OneHotIoU,
    OneHotMeanIoU,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)  # fmt: skip
from fastconv.metrics.regression import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    OfLoss,
    Poisson,
    R2Score,
    RootMeanSquaredError,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)  # fmt: skip
from fastconv.shapes import Shape

__all__ = [
    "AUC", "CLASSES", "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "BinaryIoU",
    "CategoricalAccuracy", "CategoricalCrossentropy", "CategoricalHinge", "ConfusionMatrix",
    "CosineSimilarity", "DiceScore", "F1Score", "FBetaScore", "FalseNegatives",
    "FalsePositives", "Hinge", "IoU", "KLDivergence", "LogCoshError", "Mean", "MeanAbsoluteError",
    "MeanAbsolutePercentageError", "MeanIoU", "MeanMetricWrapper", "MeanOf", "MeanSquaredError",
    "MeanSquaredLogarithmicError", "Metric", "OneHotIoU", "OneHotMeanIoU", "Poisson",
    "Precision", "R2Score", "Recall", "RootMeanSquaredError", "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy", "SparseTopKCategoricalAccuracy", "SquaredHinge",
    "Stateful", "Sum", "TopKCategoricalAccuracy", "TrueNegatives", "TruePositives", "get",
    "to_config",
]  # fmt: skip

ALL: tuple[type[Metric], ...] = (
    SparseCategoricalAccuracy, CategoricalAccuracy, BinaryAccuracy, TopKCategoricalAccuracy,
    SparseTopKCategoricalAccuracy, Precision, Recall, AUC, FBetaScore, F1Score, TruePositives,
    FalsePositives, TrueNegatives, FalseNegatives, ConfusionMatrix, IoU, MeanIoU, OneHotIoU,
    OneHotMeanIoU, BinaryIoU, DiceScore, MeanSquaredError, RootMeanSquaredError, MeanAbsoluteError,
    MeanAbsolutePercentageError, MeanSquaredLogarithmicError, R2Score, CosineSimilarity,
    LogCoshError, Hinge, SquaredHinge, CategoricalHinge, KLDivergence, Poisson, BinaryCrossentropy,
    CategoricalCrossentropy, SparseCategoricalCrossentropy,
)  # fmt: skip
OF_LOSSES = {cls.loss_class: cls for cls in ALL if issubclass(cls, OfLoss)}
NAMES: dict[str, type[Metric]] = {cls.name: cls for cls in ALL} | {
    name: OF_LOSSES[loss] for name, loss in SHORT.items()
}


# -- functions: a number for every row ------------------------------------------------------------


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> np.ndarray:
    """1 for every output on its target's side of the threshold, 0 for the others."""
    return (np.asarray(y_true) == (np.asarray(y_pred) > threshold)).astype(np.float64)


def categorical_accuracy(y_true: Any, y_pred: Any) -> np.ndarray:
    """1 for every row whose largest output stands where the largest target does."""
    return (np.argmax(y_true, axis=-1) == np.argmax(y_pred, axis=-1)).astype(np.float64)


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> np.ndarray:
    """1 for every row whose largest output is the class of that number."""
    found = np.argmax(y_pred, axis=-1)
    return (np.reshape(y_true, found.shape) == found).astype(np.float64)


ACCURACIES = {
    function.__name__: function
    for function in (binary_accuracy, categorical_accuracy, sparse_categorical_accuracy)
}


def get(identifier: Any, loss: Loss, output: Shape) -> tuple[str, Metric]:
    """The name to report and the metric; "accuracy" and "crossentropy" take the form that fits loss
    and output."""
    if identifier in ("accuracy", "acc"):
        if loss.labels:
            return identifier, SparseCategoricalAccuracy()
        return identifier, BinaryAccuracy() if output[-1] == 1 else CategoricalAccuracy()
    if identifier in ("crossentropy", "ce"):
        if loss.labels:
            return identifier, SparseCategoricalCrossentropy()
        return identifier, BinaryCrossentropy() if output[-1] == 1 else CategoricalCrossentropy()
    metric = _of(identifier)
    if isinstance(metric, Sum):
        raise ValueError(f"the metric {metric.name} is told values by a loop of your own")
    if getattr(type(metric), "update_state", None) not in (None, Stateful.update_state):
        metric = OfUpdates(metric)
    if metric.labels is not None and metric.labels != loss.labels:
        takes = "class numbers" if metric.labels else "arrays of the output's shape"
        raise ValueError(f"the metric {metric.name} takes {takes}, the loss {loss.name} does not")
    return identifier if isinstance(identifier, str) else metric.name, metric


def _of(identifier: Any) -> Metric:
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if isinstance(identifier, dict):
        config = dict(identifier)
        return _class(config.pop("name", None)).from_config(config)
    if callable(identifier):
        for known in (ACCURACIES, FUNCTIONS):  # losses.mean_absolute_error and the like
            for name, function in known.items():
                if identifier is function and name in NAMES:
                    return NAMES[name]()
        return MeanMetricWrapper(identifier)
    return _class(identifier)()


def _class(identifier: Any) -> type[Metric]:
    if isinstance(identifier, str):
        if identifier in CLASSES:
            return CLASSES[identifier]
        if identifier.lower() in NAMES:
            return NAMES[identifier.lower()]
    return NAMES[shapes.choice(identifier, ["accuracy", *NAMES], "metric")]


def to_config(name: str, metric: Metric) -> Any:
    """What `get` makes the same metric from, where it is reported as ``name``; None for a function,
    with a warning."""
    metric = metric.metric if isinstance(metric, OfUpdates) else metric
    if isinstance(metric, MeanMetricWrapper):
        warnings.warn(
            f"the metric {name} is a function, which a file cannot hold: it is left out. A "
            "subclass of fastconv.own.NumpyMetric is kept by its name",
            stacklevel=2,
        )
        return None
    config = metric.get_config()
    if name in ("accuracy", "acc", "crossentropy", "ce") or (not config and name in NAMES):
        return name
    return {"name": type(metric).__name__, **config}


arguments.explain(globals())

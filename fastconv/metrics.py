"""Metrics: numbers for people, counted while a batch passes."""

from typing import TYPE_CHECKING, Any

from fastconv import shapes
from fastconv._native import loss as native
from fastconv.losses import Loss
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


CLASSES: dict[str, type["Metric"]] = {}


class Metric:
    """Base: a step that adds to a double slot; the metric is that sum over the number of rows."""

    name: str = "metric"
    labels: bool | None = None  # whether targets are class numbers

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls

    def emit(self, b: "Builder", y: "Value", target: "Value", total: int) -> None:
        """Emit the step that adds this batch's hits to the double slot ``total``."""
        raise NotImplementedError(f"{type(self).__name__} must define emit")


class SparseCategoricalAccuracy(Metric):
    """Share of rows whose largest output is the class of that number."""

    name = "sparse_categorical_accuracy"
    labels = True
    step: type[native.SparseAccuracy | native.CategoricalAccuracy | native.BinaryAccuracy] = (
        native.SparseAccuracy
    )

    def emit(self, b: "Builder", y: "Value", target: "Value", total: int) -> None:
        b.emit(
            self.step(
                rows_per_sample=y.pixels, classes=y.channels, y=y.slot, y_stride=y.stride,
                targets=target.slot, total=total,
            )
        )  # fmt: skip


class CategoricalAccuracy(SparseCategoricalAccuracy):
    """Share of rows whose largest output stands where the largest target does."""

    name = "categorical_accuracy"
    labels = False
    step = native.CategoricalAccuracy


class BinaryAccuracy(SparseCategoricalAccuracy):
    """Share of outputs that lie on the target's side of the threshold ½."""

    name = "binary_accuracy"
    labels = False
    step = native.BinaryAccuracy


NAMES: dict[str, type[Metric]] = {
    cls.name: cls for cls in (SparseCategoricalAccuracy, CategoricalAccuracy, BinaryAccuracy)
}


def get(identifier: Any, loss: Loss, output: Shape) -> tuple[str, Metric]:
    """The name to report and the metric; "accuracy" takes the form that fits loss and output."""
    if identifier in ("accuracy", "acc"):
        if loss.labels:
            return identifier, SparseCategoricalAccuracy()
        return identifier, BinaryAccuracy() if output[-1] == 1 else CategoricalAccuracy()
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        identifier = identifier()
    if isinstance(identifier, Metric):
        metric = identifier
    elif isinstance(identifier, str) and identifier in CLASSES:
        metric = CLASSES[identifier]()
    else:
        metric = NAMES[shapes.choice(identifier, ["accuracy", *NAMES], "metric")]()
    if metric.labels is not None and metric.labels != loss.labels:
        takes = "class numbers" if metric.labels else "arrays of the output's shape"
        raise ValueError(f"the metric {metric.name} takes {takes}, the loss {loss.name} does not")
    return metric.name, metric

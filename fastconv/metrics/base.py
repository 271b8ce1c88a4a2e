"""The contract of a metric: a vector of sums that batches add to, and the number made of it.

The vector (`Metric.size` doubles) is all that a metric remembers. In training it lies in the pass
and a step adds to it; a metric that is used by itself keeps one of its own, with `update_state`,
`result` and `reset_state`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.losses.base import check_labels, check_values, emit_numpy, real_array
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


CLASSES: dict[str, type["Metric"]] = {}


class Metric:
    """Base of all metrics: a step that adds to doubles, and what they come to.

    Attributes
    ----------
    name : str
        What it is called in logs.
    labels : bool or None
        Whether targets are class numbers; None: whatever the loss has.
    """

    name: str = "metric"
    labels: bool | None = None

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        if name is not None:
            self.name = name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls

    def size(self, output: Shape) -> int:
        """How many doubles it keeps for outputs of this shape."""
        return 1

    def emit(self, b: "Builder", y: "Value", target: "Value", total: int, weight: int = -1) -> None:
        """Emit the step that adds this batch to the doubles at the slot ``total``; ``weight``: the
        slot of the samples' weights, (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define emit")

    def outcome(self, state: np.ndarray, rows: int) -> Any:
        """The number (or several) that the doubles come to, after so many rows."""
        return float(state[0]) / rows

    def log_names(self, name: str, output: Shape) -> list[str]:
        """What its numbers are called in logs, where it is called ``name``."""
        return [name]

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this metric again."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Metric":
        config = dict(config)
        if "title" in config:
            config["name"] = config.pop("title")
        return cls(**config)


class Stateful(Metric):
    """A metric in numpy: a subclass defines `add`, `compute` and where needed `size`.

    Parameters
    ----------
    name : str, optional
    """

    _state: np.ndarray | None = None
    columns = False  # numbers without an axis of outputs are columns of one

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            self.name = name

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        """Add a batch to the sums; ``weight`` is (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define add")

    def compute(self, state: np.ndarray) -> Any:
        """What the sums come to."""
        raise NotImplementedError(f"{type(self).__name__} must define compute")

    def outcome(self, state: np.ndarray, rows: int) -> Any:
        return self.compute(state)

    def emit(self, b: "Builder", y: "Value", target: "Value", total: int, weight: int = -1) -> None:
        def run(arrays: list[np.ndarray], training: bool, accumulate: bool) -> None:
            y, t, state, *rest = arrays
            self.add(state, t, y, rest[0].astype(np.float64) if rest else None)

        emit_numpy(b, run, y, target, total, weight=weight, doubles=self.size(y.shape))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        y_true, y_pred : array
        sample_weight : array (n,), optional
        """
        y_pred = real_array(y_pred, "y_pred")
        if y_pred.dtype.kind != "f":
            y_pred = y_pred.astype(np.float32)
        if self.columns and y_pred.ndim == 1:
            y_pred = y_pred[:, None]
        y_true = self._targets(y_true, y_pred.shape[1:])
        if sample_weight is not None:
            sample_weight = real_array(sample_weight, "sample_weight").astype(np.float64)
            if sample_weight.shape != y_pred.shape[:1]:
                raise ValueError(
                    f"sample_weight has the shape {sample_weight.shape}, not ({len(y_pred)},)"
                )
        if self._state is None:
            self._state = np.zeros(self.size(y_pred.shape[1:]))
        self.add(self._state, y_true, y_pred, sample_weight)

    def _targets(self, y_true: Any, output: Shape) -> np.ndarray:
        if self.labels:
            return check_labels(y_true, output or (None,), f"y_true for the metric {self.name}")
        y_true = real_array(y_true, "y_true")
        return check_values(y_true, output, f"y_true for the metric {self.name}")

    def result(self) -> Any:
        """What all batches since `reset_state` come to: a number, or an array of them."""
        if self._state is None:
            return 0.0
        found = self.compute(self._state)
        return float(found) if np.ndim(found) == 0 else np.asarray(found)

    def reset_state(self) -> None:
        """Begin anew."""
        self._state = None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Add a batch, and what all of them come to."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def get_config(self) -> dict[str, Any]:
        config = {k: v for k, v in vars(self).items() if k not in ("name", "_state")}
        if self.name != type(self).name:
            config["title"] = self.name
        return config

    def __repr__(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class OfUpdates(Metric):
    """In a plan: a metric that defines `update_state`, `result` and `reset_state`, as Keras' do.

    What it remembers is in itself. The one double tells that an epoch has begun.
    """

    def __init__(self, metric: Any) -> None:
        self.metric, self.name, self.labels = metric, metric.name, metric.labels

    def emit(self, b: "Builder", y: "Value", target: "Value", total: int, weight: int = -1) -> None:
        def run(arrays: list[np.ndarray], training: bool, accumulate: bool) -> None:
            y, t, begun, *weights = arrays
            if not begun[0]:
                self.metric.reset_state()
                begun[0] = 1
            self.metric.update_state(t, y, *weights)

        emit_numpy(b, run, y, target, total, weight=weight)

    def outcome(self, state: np.ndarray, rows: int) -> Any:
        return self.metric.result()

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.metric.get_config()
        return config


class MeanOf(Stateful):
    """The mean of a number per row over all samples: a subclass defines `values`."""

    columns = True

    def size(self, output: Shape) -> int:
        return 2

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The number of every row, (n, …)."""
        raise NotImplementedError(f"{type(self).__name__} must define values")

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        values = np.asarray(self.values(y_true, y_pred), np.float64)
        samples = values.reshape(len(values), -1).mean(axis=1)
        state[0] += samples.sum() if weight is None else samples @ weight
        state[1] += len(samples) if weight is None else weight.sum()

    def compute(self, state: np.ndarray) -> Any:
        return divide(state[0], state[1])


class Sum(Stateful):
    """The sum of values, each with its weight: for loops of your own."""

    name = "sum"

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add values of any shape; weights in their shape, or one for each of the first axis."""
        values = np.asarray(values, np.float64)
        weight = np.ones(()) if sample_weight is None else np.asarray(sample_weight, np.float64)
        weight = weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
        weight = np.broadcast_to(weight, values.shape)
        found = np.array([(values * weight).sum(), weight.sum()])
        self._state = found if self._state is None else self._state + found

    def compute(self, state: np.ndarray) -> Any:
        return state[0]

    def __call__(self, values: Any, sample_weight: Any = None) -> Any:  # type: ignore[override]
        """Add values, and what all of them come to."""
        self.update_state(values, sample_weight)
        return self.result()


class Mean(Sum):
    """The mean of values, each with its weight: for loops of your own."""

    name = "mean"

    def compute(self, state: np.ndarray) -> Any:
        return divide(state[0], state[1])


class MeanMetricWrapper(MeanOf):
    """The mean of a function's numbers over all samples: what a function is in ``metrics=``.

    Parameters
    ----------
    fn : callable
        ``fn(y_true, y_pred, **arguments)`` → a number for every row, (n, …).
    name : str, optional
        By default the function's.
    **arguments
        Of the function.
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None, **arguments: Any) -> None:
        super().__init__(name or getattr(fn, "__name__", type(fn).__name__))
        self.fn = fn
        self.arguments = arguments

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        found = np.asarray(self.fn(y_true, y_pred, **self.arguments))
        if found.shape[:1] != (len(y_pred),):
            raise ValueError(
                f"the metric {self.name} returns the shape {found.shape} for {len(y_pred)} "
                "samples: it gives each of them a number"
            )
        return found


def divide(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


def spread(weight: np.ndarray | None, shape: Sequence[int]) -> np.ndarray:
    """The samples' weights for every element of an array of this shape."""
    if weight is None:
        return np.ones(tuple(shape))
    return np.broadcast_to(weight.reshape(-1, *(1,) * (len(shape) - 1)), tuple(shape))


def classes_of(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Labels in the shape of rows, (n, …)."""
    return labels.reshape(tuple(shape)).astype(np.intp)

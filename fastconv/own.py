"""Parts of your own, in numpy: layers, losses and metrics as functions of arrays.

They run as steps of the plan, between the compiled ones, and see the plan's buffers: nothing is
copied on the way. Each says its value and its gradient; `fastconv.check_gradients` compares them.
The contract of `fastconv.layer.Layer`, whose methods emit steps themselves, can do more.
"""

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import arguments
from fastconv.layer import Frame, Layer
from fastconv.losses.base import Loss
from fastconv.metrics.base import MeanOf

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


class NumpyLayer(Layer, abstract=True):
    """A layer of arrays: define `call` and `gradient`; `build` and `output_shape` where needed.

    It saves and loads, is checked and trained like every other, and exports where it defines
    ``to_onnx``. Arguments of its own belong into ``get_config``.

    Examples
    --------
    >>> class Swish(NumpyLayer):
    ...     def build(self, shape):
    ...         self.beta = self.add_parameter("beta", shape[-1:], initializers.get("ones"))
    ...
    ...     def call(self, x):
    ...         return x / (1 + np.exp(-self.beta.value * x))
    ...
    ...     def gradient(self, x, y, dy):
    ...         s = 1 / (1 + np.exp(-self.beta.value * x))
    ...         self.beta.grad += np.sum(dy * x * y * (1 - s), axis=tuple(range(x.ndim - 1)))
    ...         return dy * (s + self.beta.value * y * (1 - s))
    """

    def output_shape(self, *inputs: Any, **options: Any) -> Any:
        """One sample's shape of the output; by default that of the first input."""
        return inputs[0]

    def call(self, *inputs: Any, **options: Any) -> Any:
        """The output (n, *shape) for inputs (n, *shape), which must stay as they are.

        With an argument ``training`` it is told whether dropout and the like should act.
        """
        raise NotImplementedError(f"{type(self).__name__} must define call")

    def gradient(self, *arrays: Any, **options: Any) -> Any:
        """From inputs, output and the gradient at the output: that at the input, or a list of them.

        Gradients of parameters are added: ``self.beta.grad += …``. They are zero before, unless
        they are to be accumulated. None stands for an input without a gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} must define gradient")

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        y = b.value(self._known(frame))
        count = len(frame.inputs)
        told = "training" in inspect.signature(self.call).parameters

        def run(arrays: list[np.ndarray], training: bool) -> None:
            more = {"training": training} if told else {}
            arrays[-1][...] = self._fits(
                "call", self.call(*arrays[:count], **more), arrays[-1].shape
            )

        b.python(run, reads=[*frame.inputs, *self.parameters], writes=[y])
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        wanted = [b.value(x.shape) if n else None for x, n in zip(frame.inputs, frame.needs,
                                                                  strict=True)]  # fmt: skip
        writes = [dx for dx in wanted if dx is not None]
        trained = [p for p in self.parameters if p.trainable]
        reads = [*frame.inputs, frame.output, dy]
        first = len(reads) + len(self.parameters)

        def run(arrays: list[np.ndarray], training: bool) -> None:
            found = self.gradient(*arrays[: len(reads)])
            given = list(found) if isinstance(found, (list, tuple)) else [found]
            if len(given) != len(wanted):
                raise ValueError(
                    f"{self.name}: gradient returns {len(given)} arrays for {len(wanted)} inputs"
                )
            places = iter(arrays[first : first + len(writes)])
            for value, dx in zip(given, wanted, strict=True):
                if dx is not None:
                    place = next(places)
                    place[...] = 0 if value is None else self._fits("gradient", value, place.shape)

        b.python(run, reads=[*reads, *self.parameters], writes=writes, gradients=trained)
        return list(wanted)

    def _known(self, frame: Frame) -> tuple[int, ...]:
        found: tuple[int, ...] = self.output_shape(*(x.shape for x in frame.inputs))
        return found

    def _fits(self, method: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        array = np.asarray(value)
        if array.shape != shape:
            raise ValueError(
                f"{self.name}: {method} returns the shape {array.shape} where {shape} is due"
            )
        return array


class NumpyLoss(Loss):
    """A loss of arrays: define `value` and `gradient`.

    The loss of a batch is the mean over its samples, each with its weight, or what ``reduction``
    says. With ``labels = True`` in the class, targets are class numbers, (n, 1).
    """

    def value(self, target: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The loss of every sample, (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define value")

    def gradient(self, target: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The derivative of each sample's loss by the outputs, in their shape."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient")

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        n = len(y_pred)
        found = np.asarray(self.value(y_true, y_pred), np.float64)
        if found.shape != (n,):
            raise ValueError(
                f"{self.name}: value returns the shape {found.shape}, {n} samples take ({n},): the "
                "mean over a sample's outputs is the loss' own"
            )
        return found

    def spread(self, share: np.ndarray, ndim: int) -> np.ndarray:
        return share.reshape(-1, *(1,) * (ndim - 1))


class NumpyMetric(MeanOf):
    """A metric of arrays: define `value`; the mean over all samples of an epoch is reported."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name or type(self).__name__)

    def value(self, target: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The number of every sample, (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define value")

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        found = np.asarray(self.value(y_true, y_pred), np.float64)
        if found.shape != (len(y_pred),):
            raise ValueError(
                f"{self.name}: value returns the shape {found.shape}, not ({len(y_pred)},)"
            )
        return found

    def get_config(self) -> dict[str, Any]:
        return {"title": self.name} if self.name != type(self).__name__ else {}


arguments.explain(globals())

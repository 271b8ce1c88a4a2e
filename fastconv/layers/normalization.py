"""Normalization."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, initializers, shapes
from fastconv.layer import Frame
from fastconv.layers._image_layer import OnArrays
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.parameter import Parameter
    from fastconv.plan import Builder, Value

ROWS = 256  # of an array that are looked at together


class Normalization(OnArrays):
    """``y = (x − mean) / max(√variance, 1e-7)``, in training and at inference.

    Mean and variance are given, or `adapt` takes them from data. They are not trained.

    Shapes: y has x's. Gradient: ``dx = dy / max(√variance, 1e-7)``.

    Parameters
    ----------
    axis : int, tuple of int, or None
        Axes of a batch whose every place has a mean and a variance of its own: −1, one for each
        channel; None, one for all.
    mean, variance : float or array, optional
        One number, or one for each place of the axes.
    invert : bool
        ``y = mean + x · max(√variance, 1e-7)`` instead.
    """

    def __init__(
        self,
        axis: Any = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        axes = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        self.axis = tuple(shapes.integer(a, "axis", -(1 << 30)) for a in axes)
        if (mean is None) != (variance is None):
            raise ValueError("mean and variance are given both, or neither")
        self.input_mean = self.input_variance = None
        if mean is not None:
            self.input_mean, self.input_variance = _numbers(mean), _numbers(variance)
            if self.input_mean.shape != self.input_variance.shape:
                raise ValueError(
                    f"mean {self.input_mean.shape} and variance {self.input_variance.shape} have "
                    "different shapes"
                )
            if self.input_mean.ndim > len(self.axis):
                raise ValueError(f"mean {self.input_mean.shape} has more axes than {self.axis}")
            if (self.input_variance < 0).any():
                raise ValueError("a variance is 0 or more")
        self.invert = bool(invert)
        self._sizes: tuple[int, ...] = ()  # of the kept axes, and 1 for the others
        self.mean: Parameter | None = None
        self.variance: Parameter | None = None

    # -- its numbers --------------------------------------------------------------------------

    def build(self, *inputs: Shape) -> None:
        kept, rank = self._kept(inputs[0]), len(inputs[0])
        sizes = tuple(inputs[0][a] if a in kept else 1 for a in range(rank))
        self._sizes = shapes.known(sizes, f"{self.name} along axis {self.axis}")
        if self.input_mean is not None:
            self._given(self.input_mean)  # raises where it does not fit
            return
        shape = tuple(self._sizes[a] for a in kept)
        zeros, ones = initializers.get("zeros"), initializers.get("ones")
        self.mean = self.add_parameter("mean", shape, zeros, trainable=False)
        self.variance = self.add_parameter("variance", shape, ones, trainable=False)
        self.add_parameter("count", (), zeros, trainable=False)  # Keras' weights have it, unused

    def adapt(self, data: Any) -> None:
        """Take mean and variance from data; what it knew before is forgotten.

        Parameters
        ----------
        data : array, Dataset, or iterable of batches
            Of batches ``(x, y)`` the x.

        Raises
        ------
        ValueError
            Mean and variance were given, there are no data, or they have another shape.
        """
        if self.input_mean is not None:
            raise ValueError(
                f"{self.name} was given its mean and variance: there is nothing to adapt"
            )
        count, mean, squares = 0, np.zeros(()), np.zeros(())
        for batch in _batches(data):
            if not self.built:
                self.build(batch.shape[1:])
                self.built = True
            self.output_shape(batch.shape[1:])
            kept = self._kept(batch.shape[1:])
            reduced = (0, *(a + 1 for a in range(batch.ndim - 1) if a not in kept))
            n = int(np.prod([batch.shape[a] for a in reduced]))
            own = batch.mean(axis=reduced)
            spread = np.square(batch - batch.mean(axis=reduced, keepdims=True)).sum(axis=reduced)
            squares = squares + spread + np.square(own - mean) * (count * n / (count + n))
            mean = mean + (own - mean) * (n / (count + n))
            count += n
        if not count:
            raise ValueError(f"{self.name}: there are no data to adapt to")
        assert self.mean is not None
        assert self.variance is not None
        self.mean.assign(mean)
        self.variance.assign(squares / count)

    def _kept(self, shape: Shape) -> list[int]:
        """The kept axes of one sample, in order."""
        rank, kept = len(shape), set()
        for a in self.axis:
            place = a if a < 0 else a - rank - 1
            if not -rank <= place < 0:
                raise ValueError(
                    f"{self.name}: axis {a} is none of a sample's in {shapes.shape_text(shape)}; 0 "
                    "is the batch"
                )
            kept.add(place + rank)
        return sorted(kept)

    def _given(self, values: np.ndarray) -> np.ndarray:
        """Numbers that were given, in a sample's rank."""
        rank = len(self._sizes)
        kept = [a for a in range(rank) if a in self._kept(self._sizes)]
        full = [1] * rank
        for a, size in zip(reversed(kept), reversed(values.shape), strict=False):
            full[a] = size
        try:
            return np.broadcast_to(values.reshape(full), self._sizes)
        except ValueError:
            raise ValueError(
                f"{self.name}: mean {values.shape} does not fit axis {self.axis} of an input with "
                f"the sizes {tuple(self._sizes[a] for a in kept)} there"
            ) from None

    def _mean_and_deviation(self) -> tuple[np.ndarray, np.ndarray]:
        """Both in a sample's rank, in double."""
        if self.input_mean is not None and self.input_variance is not None:
            mean, variance = self._given(self.input_mean), self._given(self.input_variance)
        else:
            assert self.mean is not None
            assert self.variance is not None
            mean = self.mean.value.reshape(self._sizes).astype(np.float64)
            variance = self.variance.value.reshape(self._sizes).astype(np.float64)
        return mean, np.maximum(np.sqrt(variance), backend.epsilon())

    # -- its work -----------------------------------------------------------------------------

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = inputs[0]
        kept = self._kept(shape)
        if self.built and (
            len(shape) != len(self._sizes) or any(shape[a] != self._sizes[a] for a in kept)
        ):
            raise ValueError(
                f"{self.name} was built for {shapes.shape_text(self._sizes)}, where 1 stands for "
                f"any size, its input has the shape {shapes.shape_text(shape)}"
            )
        return shape

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(x.shape)
        b.python(lambda arrays, training: self._apply(*arrays), reads=[x], writes=[y])
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        dx = b.value(dy.shape)
        b.python(lambda arrays, training: self._spread(*arrays), reads=[dy], writes=[dx])
        return [dx]

    def _apply(self, x: np.ndarray, y: np.ndarray) -> None:
        mean, deviation = (_spread_out(v, x) for v in self._mean_and_deviation())
        x, y = x.reshape(len(x), -1), y.reshape(len(x), -1)
        if self.invert:
            np.multiply(x, deviation, out=y)
            y += mean
        else:
            np.subtract(x, mean, out=y)
            y /= deviation

    def _spread(self, dy: np.ndarray, dx: np.ndarray) -> None:
        deviation = _spread_out(self._mean_and_deviation()[1], dy)
        n = len(dy)
        way = np.multiply if self.invert else np.divide
        way(dy.reshape(n, -1), deviation, out=dx.reshape(n, -1))

    def of_array(self, x: np.ndarray, training: bool) -> np.ndarray:
        if not self.built:
            self.build(x.shape[1:])
            self.built = True
        single = x.ndim == len(self._sizes)
        batch = np.array(x[None] if single else x, backend.floatx(), order="C")
        self.output_shape(batch.shape[1:])
        if batch.size:
            self._apply(batch, batch)
        return batch[0] if single else batch

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        y = inputs[0]
        mean, deviation = (
            scope.constant(
                y.permute(v) if v.size > 1 and y.rank == 1 else v.transpose(y.order), name
            )
            for v, name in zip(self._mean_and_deviation(), ("mean", "deviation"), strict=True)
        )
        if self.invert:
            return scope.node("Add", [scope.node("Mul", [y, deviation], y), mean], y)
        return scope.node("Div", [scope.node("Sub", [y, mean], y), deviation], y)

    def get_config(self) -> dict[str, Any]:
        mean, variance = self.input_mean, self.input_variance
        return {
            **super().get_config(),
            "axis": list(self.axis),
            "mean": None if mean is None else mean.tolist(),
            "variance": None if variance is None else variance.tolist(),
            "invert": self.invert,
        }


def _numbers(value: Any) -> np.ndarray:
    found = np.asarray(value, np.float64)
    if not np.isfinite(found).all():
        raise ValueError("mean and variance are finite numbers")
    return found


def _spread_out(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One number for each of a sample's: inner loops over samples, not over channels."""
    return np.broadcast_to(values, x.shape[1:]).ravel().astype(x.dtype)


def _batches(data: Any) -> Iterator[np.ndarray]:
    """The data in double, a few rows of an array at a time."""
    if not isinstance(data, Iterable):
        raise ValueError(f"adapt takes an array or batches, not {type(data).__name__}")
    for element in [data] if isinstance(data, np.ndarray) else data:
        x = np.asarray(element[0] if isinstance(element, (tuple, list)) else element)
        if x.dtype.kind not in "buif" or x.ndim == 0:
            raise ValueError(f"adapt takes batches of numbers, not {x.dtype} of shape {x.shape}")
        for first in range(0, len(x), ROWS):
            yield x[first : first + ROWS].astype(np.float64)

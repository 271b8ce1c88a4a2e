"""What layers that prepare images share: they draw lots, and they take arrays as well as tensors.

In a model they are steps of the plan. Their random numbers are a function of the model's seed, the
training step, the node and a sample's place in the batch, as a dropout's are, so that backward, a
run that is resumed and any number of threads see the same ones.

In a data pipeline they are called on arrays. There the numbers follow `fastconv.set_random_seed`,
or the layer's own seed; within `Dataset.map` they belong to the element and the epoch.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastconv import backend, shapes
from fastconv._native import random
from fastconv.layer import Frame, Layer, Tensor, one_of, stream_of
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class OnArrays(Layer, abstract=True):
    """A layer that an array can be given to: it computes at once and gives an array."""

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """A symbolic tensor of a symbolic tensor; an array of an array.

        Parameters
        ----------
        inputs : Tensor or array
            An array of a batch or of one sample, of any real type.
        training : bool, optional
            Of an array: False does what inference does, by default lots are drawn. Of a tensor:
            False lets the layer act as at inference always; `fit` decides otherwise.
        """
        given = inputs[0] if isinstance(inputs, (list, tuple)) and inputs else inputs
        if isinstance(given, Tensor):
            return super().__call__(inputs, training)
        x = np.asarray(inputs)
        if x.dtype.kind not in "buif":
            raise ValueError(
                f"{self.name} is called on a symbolic tensor or on an array of numbers, not on "
                f"{type(inputs).__name__}"
            )
        return self.of_array(x, training is not False)

    def of_array(self, x: np.ndarray, training: bool) -> np.ndarray:
        raise NotImplementedError


class ImageLayer(OnArrays, abstract=True):
    """Images to images. A subclass defines `apply` and `spread`, and says what it draws.

    ``lots`` are a sample's random numbers in [0, 1), (n, ``numbers``), or None at inference.
    """

    numbers: ClassVar[int] = 0  # random ones, of each sample
    always: ClassVar[bool] = False  # whether it acts at inference too
    seed: int | None = None

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = backend.data_format_of(data_format)

    def apply(self, x: np.ndarray, lots: np.ndarray | None, y: np.ndarray) -> None:
        """Fill y (n, H, W, C) from x."""
        raise NotImplementedError

    def spread(
        self, x: np.ndarray, lots: np.ndarray | None, dy: np.ndarray, dx: np.ndarray
    ) -> None:
        """Fill dx, the gradient at x, from that at y."""
        raise NotImplementedError

    def output_shape(self, *inputs: Shape) -> Shape:
        return one_of(self, inputs[0], (3,), "images (H, W, channels)")

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        lots = frame.saved.lots = self._drawn(b, frame)
        if lots is None and not self.always:
            return x
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))

        def run(arrays: list[np.ndarray], training: bool) -> None:
            self.apply(arrays[0], arrays[1] if lots else None, arrays[-1])

        b.python(run, reads=[x, lots] if lots else [x], writes=[y])
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        lots = frame.saved.lots
        if lots is None and not self.always:
            return [dy]
        x = frame.inputs[0]
        dx = b.value(x.shape)

        def run(arrays: list[np.ndarray], training: bool) -> None:
            self.spread(arrays[0], arrays[2] if lots else None, arrays[1], arrays[-1])

        b.python(run, reads=[x, dy, lots] if lots else [x, dy], writes=[dx])
        return [dx]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return inputs[0]  # at inference nothing is changed

    def of_array(self, x: np.ndarray, training: bool) -> np.ndarray:
        if x.ndim not in (3, 4):
            raise ValueError(f"{self.name} takes images, (n, H, W, C) or (H, W, C), not {x.shape}")
        images = x if x.ndim == 4 else x[None]
        if self.channels_first:
            images = np.moveaxis(images, 1, -1)
        images = np.array(images, backend.floatx(), order="C")
        shape = shapes.known(self.output_shape(images.shape[1:]), self.name)
        lots = None
        if training and self.numbers:
            lots = self._generator().random((len(images), self.numbers))
        y = images
        if lots is not None or self.always:
            y = np.empty((len(images), *shape), images.dtype)
            if y.size:
                self.apply(images, lots, y)
        if self.channels_first:
            y = np.moveaxis(y, -1, 1)
        return y if x.ndim == 4 else y[0]

    def _drawn(self, b: "Builder", frame: Frame) -> "Value | None":
        if not self.numbers or not b.training or frame.inference:
            return None
        lots = b.value((self.numbers,))
        b.emit(random.Uniform(self.numbers, stream_of(self.seed, frame.stream), lots.slot))
        return lots

    def _generator(self) -> np.random.Generator:
        return backend.generator()


class RandomImageLayer(ImageLayer, abstract=True):
    """One that draws lots; with a ``seed`` of its own those of its own."""

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = None if seed is None else shapes.integer(seed, "seed", 0)
        self._own = None if seed is None else np.random.default_rng(self.seed)

    def _generator(self) -> np.random.Generator:
        return backend.generator(self.seed, self._own)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def bounds(value: Any, name: str, low: float, high: float) -> tuple[float, float]:
    """The ends of a range: a pair in [low, high], or a number, which stands for −|v| and |v|."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ValueError(f"{name} is a number or two of them, not {value!r}")
        first, second = sorted(shapes.real(v, name, low, high) for v in value)
        return first, second
    size = abs(shapes.real(value, name, low, high))
    return -size, size


def between(lots: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Numbers in [0, 1) as numbers between the ends, in double."""
    low, high = ends
    return low + lots.astype(np.float64) * (high - low)

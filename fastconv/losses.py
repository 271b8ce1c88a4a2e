"""Losses. Each says what targets it takes and emits one step: the value and the gradient.

The value is the mean over the batch (and over pixels, where the output has them), and the gradient
is that of this mean. Cross-entropy after a softmax is one step on the logits' side: its gradient
there is ``(p − t) / rows``, exact where the two taken apart would divide by tiny probabilities.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv._native import loss as native
from fastconv.shapes import Shape, fits, shape_text

# dtypes that the input kernel casts by itself; others are converted once
READABLE = "fdbBhHiIlLqQ?"
EPSILON = 1e-7  # probabilities are clipped to [EPSILON, 1 − EPSILON]
FEW_LABELS = 64  # so many are looked at one by one

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


CLASSES: dict[str, type["Loss"]] = {}


class Loss:
    """Base of all losses. One of your own (see `fastconv.own`) is known by its class' name where a
    model is loaded.

    Attributes
    ----------
    name : str
        Keras' name.
    labels : bool
        Targets are class numbers instead of arrays of the output's shape.
    after_softmax : bool
        The loss can take its gradient before a softmax that ends the network.
    """

    name = "loss"
    labels = False
    after_softmax = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls

    def target_shape(self, output: Shape) -> Shape:
        """One sample's shape of the targets for an output of this shape."""
        return output

    def check(self, y: np.ndarray, output: Shape, name: str = "y") -> np.ndarray:
        """Targets ready to be read by rows, or a ValueError that says what was expected."""
        return check_values(y, self.target_shape(output), f"{name} for the loss {self.name}")

    def emit(
        self, b: "Builder", y: "Value", target: "Value", value: int, dy: "Value | None",
        fused: bool, scale: float, weight: int = -1,
    ) -> None:  # fmt: skip
        """Emit the step that writes the mean into the double slot ``value`` and ``scale`` times the
        gradient into ``dy`` (None: only the value); ``fused``: before the softmax; ``weight``: the
        slot of the samples' weights, (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define emit")

    def get_config(self) -> dict[str, Any]:
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _CrossEntropy(Loss):
    after_softmax = True

    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = bool(from_logits)
        self.after_softmax = not self.from_logits

    def get_config(self) -> dict[str, Any]:
        return {"from_logits": self.from_logits}

    def emit(
        self, b: "Builder", y: "Value", target: "Value", value: int, dy: "Value | None",
        fused: bool, scale: float, weight: int = -1,
    ) -> None:  # fmt: skip
        make = native.SparseCrossEntropy if self.labels else native.CategoricalCrossEntropy
        b.emit(
            make(
                y.pixels, y.channels, self.from_logits, y.slot, y.stride, target.slot, value,
                b.buffer(0, native.SCRATCH, 8), weight=weight, fused=fused, scale=scale,
                dx=dy.slot if dy else -1, dx_stride=dy.stride if dy else y.channels,
            )
        )  # fmt: skip


class SparseCategoricalCrossentropy(_CrossEntropy):
    """``−log p[label]`` for class numbers.

    Parameters
    ----------
    from_logits : bool
        The outputs are logits, and the softmax belongs to the loss.
    """

    name = "sparse_categorical_crossentropy"
    labels = True

    def target_shape(self, output: Shape) -> Shape:
        return output[:-1] or (1,)

    def check(self, y: np.ndarray, output: Shape, name: str = "y") -> np.ndarray:
        return check_labels(y, output, f"{name} for the loss {self.name}")


class CategoricalCrossentropy(_CrossEntropy):
    """``−Σ t log p`` for targets that are distributions over the classes (one-hot, for example).

    Parameters
    ----------
    from_logits : bool
        The outputs are logits, and the softmax belongs to the loss.
    """

    name = "categorical_crossentropy"


class MeanSquaredError(Loss):
    """``mean (y − t)²`` over all outputs."""

    name = "mean_squared_error"

    def emit(
        self, b: "Builder", y: "Value", target: "Value", value: int, dy: "Value | None",
        fused: bool, scale: float, weight: int = -1,
    ) -> None:  # fmt: skip
        b.emit(
            native.MeanSquaredError(
                pixels=y.pixels, channels=y.channels, scale=scale, y=y.slot, y_stride=y.stride,
                targets=target.slot, loss=value, weight=weight, dx=dy.slot if dy else -1,
                dx_stride=dy.stride if dy else y.channels, scratch=b.buffer(0, native.SCRATCH, 8),
            )
        )  # fmt: skip


NAMES: dict[str, type[Loss]] = {
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
}


def get(identifier: Any) -> Loss:
    """A loss from its name, its config ``{"name": …, **arguments}``, or itself."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    name = getattr(identifier, "__name__", "")
    if callable(identifier) and globals().get(name) is identifier:  # one of the functions below
        return NAMES[name]()
    if isinstance(identifier, dict):
        config = dict(identifier)
        name = config.pop("name", "")
        if name in CLASSES:
            return CLASSES[name](**config)
        return NAMES[shapes.choice(name, NAMES, "loss")](**config)
    if isinstance(identifier, str) and identifier in CLASSES:
        return CLASSES[identifier]()
    return NAMES[shapes.choice(identifier, NAMES, "loss")]()


def to_config(loss: Loss) -> dict[str, Any]:
    """What `get` makes the same loss from."""
    own = NAMES.get(loss.name) is not type(loss)
    return {"name": type(loss).__name__ if own else loss.name, **loss.get_config()}


# -- losses as functions of arrays, a number per sample ------------------------------------------


def categorical_crossentropy(y_true: Any, y_pred: Any) -> np.ndarray:
    """``−Σ t log p`` of each row, for probabilities; `compile` takes it as ``loss`` too."""
    p = np.asarray(y_pred, np.float64)
    p = np.clip(p / p.sum(axis=-1, keepdims=True), EPSILON, 1 - EPSILON)
    return -(np.asarray(y_true) * np.log(p)).sum(axis=-1)


def sparse_categorical_crossentropy(y_true: Any, y_pred: Any) -> np.ndarray:
    """``−log p[label]`` of each row, for probabilities; `compile` takes it as ``loss`` too."""
    p = np.asarray(y_pred, np.float64)
    return categorical_crossentropy(np.eye(p.shape[-1])[np.asarray(y_true, np.int64)], p)


def mean_squared_error(y_true: Any, y_pred: Any) -> np.ndarray:
    """The mean of ``(y − t)²`` over the last axis; `compile` takes it as ``loss`` too."""
    return np.square(np.asarray(y_pred) - np.asarray(y_true)).mean(axis=-1)


# -- targets --------------------------------------------------------------------------------------


def check_values(y: Any, shape: Shape, what: str) -> np.ndarray:
    """An array (n, *shape) of real numbers, C-contiguous, in native byte order."""
    y = real_array(y, what)
    if y.ndim == 1 and shape == (1,):
        y = y[:, None]
    if not fits(shape, y.shape[1:]):
        raise ValueError(
            f"{what} must have the shape {shape_text(shape)}, not {y.shape}"
            + ("; class numbers go with sparse_categorical_crossentropy" if y.ndim == 1 else "")
        )
    return y


def check_labels(y: Any, output: Shape, what: str) -> np.ndarray:
    """Class numbers (n,) or (n, *pixels), each in 0 … classes − 1."""
    y = real_array(y, what)
    want = output[:-1] or (1,)
    if y.ndim == len(want) + 2 and y.shape[-1] == 1:
        y = y[..., 0]
    if y.ndim == 1 and want == (1,):
        y = y[:, None]
    if y.dtype.kind == "f" and not np.array_equal(y, np.floor(y)):
        raise ValueError(f"{what} must be whole class numbers")
    if not fits(want, y.shape[1:]):
        raise ValueError(
            f"{what} must be class numbers of shape {shape_text(want)}, not {y.shape}"
            + ("; one-hot rows go with categorical_crossentropy" if y.ndim == len(want) + 1 else "")
        )
    classes = output[-1]
    if y.size and classes is not None:
        few = y.size <= FEW_LABELS  # then numpy's reductions take longer than the look at each
        low, high = (f(y.ravel().tolist()) for f in (min, max)) if few else (y.min(), y.max())
        if not (low >= 0 and high < classes):
            bad = low if low < 0 else high
            raise ValueError(f"{what} must lie in 0..{classes - 1}, there is {bad}")
    return y if y.dtype.kind in "iu" else y.astype(np.int32)


def real_array(x: Any, what: str) -> np.ndarray:
    """``x`` as a C-contiguous array of real numbers in native byte order; copies only if needed."""
    if type(x) is np.ndarray and x.ndim and x.flags.c_contiguous:
        dtype = x.dtype
        if dtype.isnative and dtype.char in READABLE:
            return x  # nearly always; the rest takes longer than a small network's layer
    try:
        x = np.asarray(x)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{what} must be an array of real numbers: {error}") from error
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{what} must be real numbers, not {x.dtype}")
    if x.ndim == 0:
        raise ValueError(f"{what} must be an array of samples, not a single number")
    dtype = x.dtype.newbyteorder("=")
    if dtype == np.longdouble:
        dtype = np.dtype(np.float64)
    return np.ascontiguousarray(x, dtype)

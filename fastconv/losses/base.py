"""The contract of a loss: values and gradients of rows, and how they become one number.

A row is one prediction: a sample, or a pixel of it where the output has pixels. A loss says each
row's value (`Loss.call`) and its derivative by the outputs (`Loss.gradient`), in numpy; the mean
over rows with their weights, and the gradient of that mean, are here. Where a kernel does all of it
in one pass, a loss overrides `Loss.emit`.
"""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv._native.step import Extent, PythonStep
from fastconv.shapes import Shape, fits, shape_text

# dtypes that the input kernel casts by itself; others are converted once
READABLE = "fdbBhHiIlLqQ?"
EPSILON = 1e-7  # probabilities are clipped to [EPSILON, 1 − EPSILON]
FEW_LABELS = 64  # so many are looked at one by one
ROUNDED = 1e-6  # so far from 0 and 1 shares may lie
ONES: dict[str, tuple[Any, int]] = {  # by dtype: its bits as a number, and those of 1
    "f": (np.uint32, 0x3F800000), "d": (np.uint64, 0x3FF0000000000000), "B": (np.uint8, 1),
    "?": (np.uint8, 1),
}  # fmt: skip
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none")
MEANS = ("sum_over_batch_size", "mean")

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


CLASSES: dict[str, type["Loss"]] = {}


class Loss:
    """Base of all losses. One of your own (see `fastconv.own`) is known by its class' name where a
    model is loaded.

    Parameters
    ----------
    reduction : {"sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none"}
        How the values of rows, each times its weight, become one number: their sum, divided by how
        many there are (the first two), by nothing, or by the sum of the weights. With "none" (or
        None) calling the loss gives the values of rows; training needs one number.
    name : str, optional

    Attributes
    ----------
    name : str
        Keras' name.
    labels : bool
        Targets are class numbers instead of arrays of the output's shape.
    passes : str
        An activation that ends the network and that the loss' gradient can pass at once: it is then
        that at the activation's input, where nothing is divided by a tiny probability.
    """

    name = "loss"
    labels = False
    passes = ""
    reduction = "sum_over_batch_size"

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = None
    ) -> None:
        given = "none" if reduction is None else reduction
        self.reduction = shapes.choice(given, REDUCTIONS, "reduction")
        if name is not None:
            self.name = name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def target_shape(self, output: Shape) -> Shape:
        """One sample's shape of the targets for an output of this shape."""
        return (output[:-1] or (1,)) if self.labels else output

    def check(self, y: np.ndarray, output: Shape, name: str = "y") -> np.ndarray:
        """Targets ready to be read by rows, or a ValueError that says what was expected."""
        if self.labels:
            return check_labels(y, output, f"{name} for the loss {self.name}")
        return check_values(y, self.target_shape(output), f"{name} for the loss {self.name}")

    # -- the formula ------------------------------------------------------------------------------

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The value of every row, (n, …): the outputs' shape without the channels."""
        raise NotImplementedError(f"{type(self).__name__} must define call")

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The derivative of every row's value by its outputs, in their shape."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient")

    def gradient_before(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The same at the input of the activation `passes`, of which ``y_pred`` is the output."""
        raise NotImplementedError(f"{type(self).__name__} must define gradient_before")

    def valid(self, y_true: np.ndarray) -> np.ndarray | None:
        """Which rows count; None: all."""
        return None

    def shares(
        self, y_true: np.ndarray, rows: tuple[int, ...], weight: np.ndarray | None
    ) -> np.ndarray:
        """The factor of each row's value in the loss."""
        share = np.ones(rows)
        count: Any = share.size
        if weight is not None:
            weight = np.asarray(weight, np.float64)
            share *= weight.reshape(weight.shape + (1,) * (len(rows) - weight.ndim))
        valid = self.valid(y_true)
        if valid is not None:
            share *= valid
            count = valid.sum()
        if self.reduction in ("sum", "none"):
            return share
        if self.reduction == "mean_with_sample_weight":
            count = share.sum()
        return share / count if count else 0 * share

    def spread(self, share: np.ndarray, ndim: int) -> np.ndarray:
        """Shares of rows, to be multiplied with gradients of so many axes."""
        return share[..., None]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss of a batch: a number, or with the reduction "none" the values of its rows."""
        y_pred = real_array(y_pred, "y_pred")
        y_pred = y_pred if y_pred.dtype.kind == "f" else y_pred.astype(np.float32)
        y_true = self.check(y_true, y_pred.shape[1:], "y_true")
        if not self.labels:
            y_true = y_true.astype(y_pred.dtype, copy=False)
        rows = np.asarray(self.call(y_true, y_pred))
        values = rows * self.shares(y_true, rows.shape, sample_weight)
        return values if self.reduction == "none" else float(values.sum())

    # -- as a step --------------------------------------------------------------------------------

    def emit(
        self, b: "Builder", y: "Value", target: "Value", value: int, dy: "Value | None",
        fused: bool, scale: float, weight: int = -1,
    ) -> None:  # fmt: skip
        """Emit the step that writes the mean into the double slot ``value`` and ``scale`` times the
        gradient into ``dy`` (None: only the value); ``fused``: at the input of the activation
        `passes`; ``weight``: the slot of the samples' weights, (n,)."""
        if self.reduction == "none":
            raise ValueError(f"the loss {self.name} has no reduction: training needs one number")
        derivative = self.gradient_before if fused else self.gradient

        def run(arrays: list[np.ndarray], training: bool, accumulate: bool) -> None:
            y, t, total, *rest = arrays
            weights = rest.pop(0) if weight >= 0 else None
            rows = np.asarray(self.call(t, y))
            share = self.shares(t, rows.shape, weights)
            total[0] = (rows * share).sum(dtype=np.float64)
            if rest:
                factor = (scale * self.spread(share, y.ndim)).astype(y.dtype)
                slope = np.asarray(derivative(t, y))
                if slope.shape != y.shape:
                    raise ValueError(
                        f"{self.name}: gradient returns the shape {slope.shape}, the outputs have "
                        f"{y.shape}"
                    )
                np.multiply(slope, factor, out=rest[0], casting="same_kind")

        emit_numpy(b, run, y, target, value, dy, weight)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this loss again."""
        config = {key: value for key, value in vars(self).items() if key != "name"}
        if self.reduction == Loss.reduction:
            config.pop("reduction", None)
        if self.name != type(self).name:
            config["title"] = self.name
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Loss":
        config = dict(config)
        if "title" in config:
            config["name"] = config.pop("title")
        return cls(**config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


def emit_numpy(
    b: "Builder", run: Callable[[list[np.ndarray], bool, bool], None], y: "Value", target: "Value",
    number: int, dy: "Value | None" = None, weight: int = -1, doubles: int = 1,
) -> None:  # fmt: skip
    """Emit ``run`` on views of outputs, targets and ``doubles`` doubles, then of the samples'
    weights and of the gradient, as far as they are wanted."""
    y = b.contiguous(y)
    reads = [Extent(y.slot, prod(y.shape), 0), Extent(target.slot, prod(target.shape), 0)]
    counter = Extent(number, 0, doubles, 8)
    writes = [counter]
    labels = b.holds_labels(target)
    if labels:
        reads[1] = Extent(target.slot, prod(target.shape), 0, 4)
    read = (np.int32,) if labels else ()
    views: list[tuple[Any, ...]] = [
        (y.slot, y.shape, None), (target.slot, target.shape, None, *read),
        (number, None, (doubles,), np.float64),
    ]  # fmt: skip
    if weight >= 0:
        reads.append(Extent(weight, 1, 0))
        views.append((weight, (), None))
    if dy is not None:
        writes.append(Extent(dy.slot, prod(dy.shape), 0))
        views.append((dy.slot, dy.shape, None))
    b.emit(PythonStep(run, views, reads, writes))


def only_last(axis: Any, who: str) -> int:
    """Keras' ``axis``: the channels are the last one here."""
    if axis != -1:
        raise ValueError(f"{who}: axis must be -1 (the channels), not {axis!r}")
    return -1


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


def check_shares(y: np.ndarray, what: str, otherwise: str = "") -> np.ndarray:
    """Numbers from 0 to 1, up to rounding, as they are."""
    if y.dtype.char in ONES:
        # bits of floats from 0 to 1 are ordered as they are; those of NaN and whatever is negative
        # are larger, so one pass over unsigned numbers sees all
        unsigned, one = ONES[y.dtype.char]
        if np.maximum.reduce(y.reshape(-1).view(unsigned), initial=0) <= one:
            return y
    wrong = ~((y >= -ROUNDED) & (y <= 1 + ROUNDED))
    if wrong.any():
        bad, where = y[wrong][0], located(wrong)
        if not np.isfinite(bad):
            raise ValueError(f"{what} holds {bad} in {where}")
        raise ValueError(f"{what} must lie in 0..1, there is {bad} in {where}{otherwise}")
    return y


def located(wrong: np.ndarray, first: int = 0) -> str:
    """Where the first true element is: "sample 3 at (1, 2)", samples counted from ``first``."""
    place = np.unravel_index(int(wrong.argmax()), wrong.shape)
    row, rest = first + int(place[0]), tuple(map(int, place[1:]))
    return f"sample {row}" + (f" at {rest}" if wrong[0].size > 1 else "")


def check_labels(y: Any, output: Shape, what: str, ignored: int | None = None) -> np.ndarray:
    """Class numbers (n,) or (n, *pixels), each in 0 … classes − 1 or ``ignored``."""
    y = real_array(y, what)
    want = output[:-1] or (1,)
    if y.ndim == len(want) + 2 and y.shape[-1] == 1:
        y = y[..., 0]
    if y.ndim == 1 and want == (1,):
        y = y[:, None]
    if y.dtype.kind == "f" and not np.array_equal(y, np.floor(y)):
        wrong = y != np.floor(y)  # NaN too
        bad = y[wrong][0]
        if not np.isfinite(bad):
            raise ValueError(f"{what} holds {bad} in {located(wrong)}")
        raise ValueError(f"{what} must be whole class numbers, there is {bad} in {located(wrong)}")
    if not fits(want, y.shape[1:]):
        raise ValueError(
            f"{what} must be class numbers of shape {shape_text(want)}, not {y.shape}"
            + ("; one-hot rows go with categorical_crossentropy" if y.ndim == len(want) + 1 else "")
        )
    classes = output[-1]
    if y.size and classes is not None:
        looked = y if ignored is None else y[y != ignored]
        if not looked.size:
            return y.astype(np.int32)
        few = y.size <= FEW_LABELS  # then numpy's reductions take longer than the look at each
        small = looked.ravel().tolist() if few else looked
        low, high = (min(small), max(small)) if few else (looked.min(), looked.max())
        if not (low >= 0 and high < classes):
            bad = low if low < 0 else high
            where = located(y == bad)
            raise ValueError(f"{what} must lie in 0..{classes - 1}, there is {bad} in {where}")
    return y if y.dtype.kind in "iu" else y.astype(np.int32)


def _mend(x: np.ndarray, what: str) -> str:
    """What to do with data that are no numbers."""
    if x.dtype.kind == "O":
        return (
            ": np.stack(list(x)) joins arrays of one shape, x.astype(np.float32) turns Python's "
            "numbers"
        )
    if x.dtype.kind == "c":
        return ": np.abs(x), or x.real and x.imag as two channels"
    if x.dtype.kind not in "US":
        return ""
    if x.ndim == 0:
        return ": files are read by np.load, or by utils.image_dataset_from_directory"
    if what.startswith("y"):
        return ": words become class numbers by names, y = np.unique(y, return_inverse=True)"
    return ": x.astype(np.float32) turns numbers that are written as words"


def as_array(x: Any, what: str) -> np.ndarray:
    """What numpy makes of x, or a ValueError that names it."""
    if x is None:
        raise ValueError(f"{what} is missing: it is None")
    if isinstance(x, np.ndarray) and hasattr(x, "mask") and np.any(x.mask):
        raise ValueError(
            f"{what} has masked values, in {located(x.mask)}: fill them, "
            "x.filled(0); sample_weight 0 leaves a sample out"
        )
    try:
        return np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths, torch's
        raise ValueError(f"{what} must be an array of real numbers: {error}") from error


def real_array(x: Any, what: str) -> np.ndarray:
    """``x`` as a C-contiguous array of real numbers in native byte order; copies only if needed."""
    if type(x) is np.ndarray and x.ndim and x.flags.c_contiguous:
        dtype = x.dtype
        if dtype.isnative and dtype.char in READABLE:
            return x  # nearly always; the rest takes longer than a small network's layer
    x = as_array(x, what)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{what} must be real numbers, not {x.dtype}{_mend(x, what)}")
    if x.ndim == 0:
        raise ValueError(f"{what} must be an array of samples, not a single number")
    dtype = x.dtype.newbyteorder("=")
    if dtype == np.longdouble:
        dtype = np.dtype(np.float64)
    return np.ascontiguousarray(x, dtype)

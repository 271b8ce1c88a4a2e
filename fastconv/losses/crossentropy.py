"""Cross-entropies: from probabilities, from logits, and focal.

From probabilities they are clipped to [1e-7, 1 − 1e-7], as Keras does, and outside of the clip the
gradient is 0. Behind a sigmoid or a softmax that ends the network the gradient is taken at its
input instead, where it is p − t whatever p is. Derived in docs/gradients.md.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv._native import loss as native
from fastconv.losses.base import EPSILON, MEANS, Loss, check_labels, check_shares, only_last
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


OTHERWISE = "; class numbers of several classes go with sparse_categorical_crossentropy"


def sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def inside(p: np.ndarray) -> np.ndarray:
    """Where the clip leaves a probability as it is."""
    return (p >= EPSILON) & (p <= 1 - EPSILON)


def clipped(p: np.ndarray) -> np.ndarray:
    return np.clip(p, EPSILON, 1 - EPSILON)


# -- two classes ----------------------------------------------------------------------------------


class BinaryCrossentropy(Loss):
    """``−mean (t log p + (1 − t) log(1 − p))`` over a row's outputs.

    Gradients, with C outputs in a row: ``((1 − t) / (1 − p) − t / p) / C`` by p, and at logits, or
    before a sigmoid, ``(p − t) / C``.

    Parameters
    ----------
    from_logits : bool
        The outputs are logits, and the sigmoid belongs to the loss.
    label_smoothing : float
        Targets become ``t (1 − smoothing) + smoothing / 2``.
    """

    name = "binary_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = bool(from_logits)
        self.label_smoothing = shapes.real(label_smoothing, "label_smoothing", 0, 1)
        only_last(axis, type(self).__name__)

    @property
    def passes(self) -> str:  # type: ignore[override]
        return "" if self.from_logits else "sigmoid"

    def check(self, y: np.ndarray, output: Shape, name: str = "y") -> np.ndarray:
        found = super().check(y, output, name)
        return check_shares(found, f"{name} for the loss {self.name}", OTHERWISE)

    def _targets(self, y_true: np.ndarray) -> np.ndarray:
        s = self.label_smoothing
        return y_true * (1 - s) + 0.5 * s if s else y_true

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t, x = self._targets(y_true), y_pred
        if self.from_logits:
            return (np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).mean(axis=-1)
        p = clipped(x)
        return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if self.from_logits:
            return self.gradient_before(y_true, sigmoid(y_pred))
        t, p = self._targets(y_true), clipped(y_pred)
        return ((1 - t) / (1 - p) - t / p) * inside(y_pred) / y_pred.shape[-1]

    def gradient_before(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (y_pred - self._targets(y_true)) / y_pred.shape[-1]

    def emit(
        self, b: "Builder", y: "Value", target: "Value", value: int, dy: "Value | None",
        fused: bool, scale: float, weight: int = -1,
    ) -> None:  # fmt: skip
        if type(self).call is not BinaryCrossentropy.call or self.reduction not in MEANS:
            super().emit(b, y, target, value, dy, fused, scale, weight)
            return
        b.emit(
            native.BinaryCrossEntropy(
                pixels=y.pixels, channels=y.channels, from_logits=self.from_logits, p=y.slot,
                p_stride=y.stride, targets=target.slot, loss=value, weight=weight, fused=fused,
                scratch=b.buffer(0, native.SCRATCH, 8), dx=dy.slot if dy else -1,
                dx_stride=dy.stride if dy else y.channels, scale=scale,
                label_smoothing=self.label_smoothing,
            )
        )  # fmt: skip


class BinaryFocalCrossentropy(BinaryCrossentropy):
    """Binary cross-entropy times ``(1 − p_t)^gamma``, with p_t the probability of the class that is
    right: what is easy counts less (Lin et al. 2017).

    Gradient by p, with B the cross-entropy: ``(1 − p_t)^gamma · dB/dp −
    gamma (1 − p_t)^(gamma − 1) · (2 t − 1) · B``; at logits times ``p (1 − p)``.

    Parameters
    ----------
    apply_class_balancing : bool
        Also times alpha for the class 1 and 1 − alpha for the class 0.
    alpha, gamma : float
    from_logits, label_smoothing
        As in `BinaryCrossentropy`.
    """

    name = "binary_focal_crossentropy"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name)
        self.apply_class_balancing = bool(apply_class_balancing)
        self.alpha = shapes.real(alpha, "alpha", 0, 1)
        self.gamma = shapes.real(gamma, "gamma", 0)

    @property
    def passes(self) -> str:  # type: ignore[override]
        return ""

    def _parts(
        self, y_true: np.ndarray, y_pred: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Targets, probabilities, 1 − p_t, the cross-entropy and the classes' weights."""
        t = self._targets(y_true)
        p = sigmoid(y_pred) if self.from_logits else y_pred
        c = clipped(p)
        entropy = -(t * np.log(c) + (1 - t) * np.log(1 - c))
        miss = 1 - (t * p + (1 - t) * (1 - p))
        weight = np.ones_like(t)
        if self.apply_class_balancing:
            weight = t * self.alpha + (1 - t) * (1 - self.alpha)
        return t, p, miss, entropy, weight

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        _, _, miss, entropy, weight = self._parts(y_true, y_pred)
        return (weight * miss**self.gamma * entropy).mean(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t, p, miss, entropy, weight = self._parts(y_true, y_pred)
        c, g = clipped(p), self.gamma
        slope = miss**g * ((1 - t) / (1 - c) - t / c) * inside(p)
        if g:
            slope -= g * miss ** (g - 1) * (2 * t - 1) * entropy
        if self.from_logits:
            slope *= p * (1 - p)
        return weight * slope / y_pred.shape[-1]


# -- several classes ------------------------------------------------------------------------------


def through_sum(g: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The gradient by p from that by q = p / Σ p."""
    total = p.sum(axis=-1, keepdims=True)
    return (g - (g * p / total).sum(axis=-1, keepdims=True)) / total


class _OverClasses(Loss):
    """−Σ t log p over the classes of a row."""

    from_logits: bool

    @property
    def passes(self) -> str:  # type: ignore[override]
        return "" if self.from_logits else "softmax"

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return y_true

    def _in_kernel(self) -> dict[str, Any] | None:
        """What the compiled step is told beside, where it computes just this."""
        return {} if self.reduction in MEANS else None

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t, x = self._targets(y_true, y_pred), y_pred
        if self.from_logits:
            top = x.max(axis=-1, keepdims=True)
            x = x - top
            return (t * (np.log(np.exp(x).sum(axis=-1, keepdims=True)) - x)).sum(axis=-1)
        return -(t * np.log(clipped(x / x.sum(axis=-1, keepdims=True)))).sum(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if self.from_logits:
            return self.gradient_before(y_true, softmax(y_pred))
        t = self._targets(y_true, y_pred)
        q = y_pred / y_pred.sum(axis=-1, keepdims=True)
        return through_sum(-t / clipped(q) * inside(q), y_pred)

    def gradient_before(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        t = self._targets(y_true, y_pred)
        return y_pred * t.sum(axis=-1, keepdims=True) - t

    def emit(
        self, b: "Builder", y: "Value", target: "Value", value: int, dy: "Value | None",
        fused: bool, scale: float, weight: int = -1,
    ) -> None:  # fmt: skip
        more = self._in_kernel()
        if more is None:
            super().emit(b, y, target, value, dy, fused, scale, weight)
            return
        make = native.SparseCrossEntropy if self.labels else native.CategoricalCrossEntropy
        b.emit(
            make(
                y.pixels, y.channels, self.from_logits, y.slot, y.stride, target.slot, value,
                b.buffer(0, native.SCRATCH, 8), weight=weight, fused=fused, scale=scale,
                dx=dy.slot if dy else -1, dx_stride=dy.stride if dy else y.channels, **more,
            )
        )  # fmt: skip


class CategoricalCrossentropy(_OverClasses):
    """``−Σ t log p`` for targets that are distributions over the classes (one-hot, for example).

    Parameters
    ----------
    from_logits : bool
        The outputs are logits, and the softmax belongs to the loss.
    label_smoothing : float
        Targets become ``t (1 − smoothing) + smoothing / classes``.
    """

    name = "categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = bool(from_logits)
        self.label_smoothing = shapes.real(label_smoothing, "label_smoothing", 0, 1)
        only_last(axis, type(self).__name__)

    def check(self, y: np.ndarray, output: Shape, name: str = "y") -> np.ndarray:
        return check_shares(super().check(y, output, name), f"{name} for the loss {self.name}")

    def _in_kernel(self) -> dict[str, Any] | None:
        return None if super()._in_kernel() is None else {"label_smoothing": self.label_smoothing}

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        s = self.label_smoothing
        return y_true * (1 - s) + s / y_true.shape[-1] if s else y_true


class SparseCategoricalCrossentropy(_OverClasses):
    """``−log p[label]`` for class numbers.

    Parameters
    ----------
    from_logits : bool
        The outputs are logits, and the softmax belongs to the loss.
    ignore_class : int, optional
        Rows of this label (255 or −1, often) have no loss, and the mean is over the others.
    """

    name = "sparse_categorical_crossentropy"
    labels = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = bool(from_logits)
        if ignore_class is not None:
            ignore_class = shapes.integer(ignore_class, "ignore_class", -(1 << 31))
        self.ignore_class = ignore_class
        only_last(axis, type(self).__name__)

    def target_shape(self, output: Shape) -> Shape:
        return output[:-1] or (1,)

    def check(self, y: np.ndarray, output: Shape, name: str = "y") -> np.ndarray:
        return check_labels(y, output, f"{name} for the loss {self.name}", self.ignore_class)

    def _in_kernel(self) -> dict[str, Any] | None:
        return None if super()._in_kernel() is None else {"ignore": self.ignore_class}

    def valid(self, y_true: np.ndarray) -> np.ndarray | None:
        if self.ignore_class is None:
            return None
        valid = y_true != self.ignore_class
        return valid[..., 0] if valid.ndim == 2 and valid.shape[1] == 1 else valid

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """One-hot; nothing for labels that do not count, whatever they are."""
        return one_hot(y_true, y_pred, self.ignore_class)


class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    """``−Σ alpha (1 − p)^gamma t log p`` over the classes of a row (Lin et al. 2017).

    Gradient by p (scaled to sum 1):
    ``alpha t (gamma (1 − p)^(gamma − 1) log p − (1 − p)^gamma / p)``; at logits through the
    softmax.

    Parameters
    ----------
    alpha, gamma : float
    from_logits, label_smoothing
        As in `CategoricalCrossentropy`.
    """

    name = "categorical_focal_crossentropy"

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name)
        self.alpha = shapes.real(alpha, "alpha", 0)
        self.gamma = shapes.real(gamma, "gamma", 0)

    @property
    def passes(self) -> str:  # type: ignore[override]
        return ""

    def _in_kernel(self) -> dict[str, Any] | None:
        return None

    def call(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        p = softmax(y_pred) if self.from_logits else y_pred
        q = clipped(p / p.sum(axis=-1, keepdims=True))
        terms = -self._targets(y_true, y_pred) * np.log(q)
        return (self.alpha * (1 - q) ** self.gamma * terms).sum(axis=-1)

    def gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        p = softmax(y_pred) if self.from_logits else y_pred
        share = p / p.sum(axis=-1, keepdims=True)
        q, g = clipped(share), self.gamma
        slope = -((1 - q) ** g) / q
        if g:
            slope += g * (1 - q) ** (g - 1) * np.log(q)
        slope *= self.alpha * self._targets(y_true, y_pred) * inside(share)
        dp = through_sum(slope, p)
        if self.from_logits:
            dp = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
        return dp


def one_hot(labels: np.ndarray, y_pred: np.ndarray, ignored: int | None = None) -> np.ndarray:
    """Labels as rows of 0 and 1 of y_pred's shape and type; the ignored ones as rows of 0."""
    flat = labels.reshape(-1).astype(np.intp)
    out = np.zeros((len(flat), y_pred.shape[-1]), y_pred.dtype)
    rows = np.arange(len(flat)) if ignored is None else np.flatnonzero(flat != ignored)
    out[rows, flat[rows]] = 1
    return out.reshape(y_pred.shape)

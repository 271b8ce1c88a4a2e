"""Metrics of hits and misses: counts, precision, recall, F-scores, areas under curves, overlaps.

All of them count true and false positives and negatives, by thresholds or in a confusion matrix,
and take a quotient at the end; where nothing was counted it is 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import shapes
from fastconv.losses.crossentropy import sigmoid
from fastconv.metrics.base import Stateful, classes_of, divide, spread
from fastconv.shapes import Shape

EPSILON = 1e-7


# -- by thresholds --------------------------------------------------------------------------------


class _AtThresholds(Stateful):
    """Counts at one or several thresholds: an output above one stands for 1.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        By default ½; where ``top_k`` is given, no threshold.
    top_k : int, optional
        Only the k largest outputs of a row count as 1.
    class_id : int, optional
        Look at this output alone.
    """

    labels = False

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if thresholds is not None:
            given = [thresholds] if isinstance(thresholds, (int, float)) else list(thresholds)
            thresholds = [shapes.real(item, "thresholds", 0, 1) for item in given]
        self.thresholds = thresholds
        self.top_k = None if top_k is None else shapes.integer(top_k, "top_k")
        self.class_id = None if class_id is None else shapes.integer(class_id, "class_id", 0)

    @property
    def cuts(self) -> np.ndarray:
        if self.thresholds is None:
            return np.array([0.5 if self.top_k is None else -np.inf])
        return np.array(self.thresholds)

    def size(self, output: Shape) -> int:
        return 4 * len(self.cuts)

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        t, y, w = y_true, y_pred, spread(weight, y_pred.shape)
        if self.top_k is not None:
            others = np.argsort(-y, axis=-1, kind="stable")[..., self.top_k :]
            y = y.copy()  # of equal outputs the first ones count
            np.put_along_axis(y, others, -np.inf, axis=-1)
        if self.class_id is not None:
            if self.class_id >= y.shape[-1]:
                raise ValueError(f"class_id is {self.class_id}, there are {y.shape[-1]} outputs")
            t, y, w = (a[..., self.class_id] for a in (t, y, w))
        t, counts = t.astype(bool), state.reshape(len(self.cuts), 4)
        for count, cut in zip(counts, self.cuts, strict=True):
            positive = y > cut
            for k, cell in enumerate((t & positive, ~t & positive, t & ~positive, ~t & ~positive)):
                count[k] += w[cell].sum()

    def compute(self, state: np.ndarray) -> Any:
        found = self.of(*state.reshape(-1, 4).T)
        return found[0] if len(found) == 1 else found

    def of(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        """The numbers at all thresholds from true and false positives, then negatives."""
        raise NotImplementedError(f"{type(self).__name__} must define of")

    def log_names(self, name: str, output: Shape) -> list[str]:
        count = len(self.cuts)
        return [name] if count == 1 else [f"{name}_{i}" for i in range(count)]


class Precision(_AtThresholds):
    """``tp / (tp + fp)``: the share of what is called positive that is.

    Parameters
    ----------
    thresholds : float or sequence of float, optional
        An output above one stands for 1: by default above ½.
    top_k : int, optional
        Only the k largest outputs of a row count as 1.
    class_id : int, optional
        Look at this output alone.
    """

    name = "precision"

    def of(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        return divide(tp, tp + fp)


class Recall(_AtThresholds):
    """``tp / (tp + fn)``: the share of what is positive that is called so.

    Parameters
    ----------
    thresholds, top_k, class_id
        As in `Precision`.
    """

    name = "recall"

    def of(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        return divide(tp, tp + fn)


class _Count(_AtThresholds):
    def __init__(
        self, thresholds: float | Sequence[float] | None = None, name: str | None = None
    ) -> None:
        super().__init__(thresholds, name=name)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {k: v for k, v in config.items() if k not in ("top_k", "class_id")}


class TruePositives(_Count):
    """How many are positive and called so, at one or several ``thresholds``."""

    name = "true_positives"

    def of(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        return tp


class FalsePositives(_Count):
    """How many are called positive and are not, at one or several ``thresholds``."""

    name = "false_positives"

    def of(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        return fp


class TrueNegatives(_Count):
    """How many are negative and called so, at one or several ``thresholds``."""

    name = "true_negatives"

    def of(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        return tn


class FalseNegatives(_Count):
    """How many are positive and not called so, at one or several ``thresholds``."""

    name = "false_negatives"

    def of(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        return fn


class AUC(Stateful):
    """The area under the ROC curve (recall over false positive rate) or the precision-recall curve,
    from counts at many thresholds.

    Parameters
    ----------
    num_thresholds : int
        Evenly spaced in [0, 1]: more of them come nearer to the true area.
    curve : {"ROC", "PR"}
    summation_method : {"interpolation", "minoring", "majoring"}
        Heights between two thresholds: their mean (the PR curve as Davis and Goadrich 2006), the
        smaller, the larger.
    thresholds : sequence of float, optional
        Instead of evenly spaced ones.
    multi_label : bool
        An area for every output, and the mean of them.
    label_weights : sequence of float, optional
        Weights of the outputs: in that mean, or of all they add to the counts.
    from_logits : bool
        Outputs go through a sigmoid first.
    """

    name = "auc"
    columns = True
    labels = False

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        *,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name)
        self.num_thresholds = shapes.integer(num_thresholds, "num_thresholds", 2)
        self.curve = shapes.choice(str(curve).upper(), ["ROC", "PR"], "curve")
        methods = ["interpolation", "minoring", "majoring"]
        self.summation_method = shapes.choice(
            str(summation_method).lower(), methods, "summation_method"
        )
        if thresholds is not None:
            thresholds = sorted(shapes.real(item, "thresholds", 0, 1) for item in thresholds)
        self.thresholds = thresholds
        self.multi_label = bool(multi_label)
        self.label_weights = None if label_weights is None else list(map(float, label_weights))
        self.from_logits = bool(from_logits)

    @property
    def cuts(self) -> np.ndarray:
        inner = self.thresholds
        if inner is None:
            inner = [i / (self.num_thresholds - 1) for i in range(1, self.num_thresholds - 1)]
        return np.array([-EPSILON, *inner, 1 + EPSILON])

    def size(self, output: Shape) -> int:
        (count,) = shapes.known(output[-1:], self.name)
        return 2 * (len(self.cuts) + 1) * (count if self.multi_label else 1)

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        """Count outputs between neighbouring thresholds: of positives and of negatives."""
        y = sigmoid(y_pred) if self.from_logits else y_pred
        if y.size and not (y.min() >= 0 and y.max() <= 1):
            raise ValueError(
                f"the metric {self.name} takes outputs in [0, 1], there is {y.min():g} … "
                f"{y.max():g}; from_logits=True is for logits"
            )
        w, columns = spread(weight, y.shape), y.shape[-1]
        if self.label_weights is not None and not self.multi_label:
            w = w * np.asarray(self.label_weights)
        places = len(self.cuts) + 1
        place = np.searchsorted(self.cuts, y.reshape(-1), side="left")  # thresholds below each
        if self.multi_label:
            place = place * columns + np.tile(np.arange(columns), y.size // columns)
            places *= columns
        t = y_true.reshape(-1).astype(np.float64)
        for half, share in zip(state.reshape(2, -1), (t, 1 - t), strict=True):
            half += np.bincount(place, share * w.reshape(-1), minlength=places)

    def compute(self, state: np.ndarray) -> Any:
        counts = state.reshape(2, len(self.cuts) + 1, -1)
        # positive at threshold i: all outputs that have more than i thresholds below them
        above = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
        tp, fp = above[0, 1:], above[1, 1:]
        fn, tn = above[0, :1] - tp, above[1, :1] - fp
        areas = self._areas(tp, fp, fn, tn)
        if self.multi_label and self.label_weights is not None:
            return divide(areas @ self.label_weights, np.sum(self.label_weights))
        return areas.mean()

    def _areas(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> np.ndarray:
        recall = divide(tp, tp + fn)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return self._interpolated(tp, fp, fn)
        x, y = recall, divide(tp, tp + fp)
        if self.curve == "ROC":
            x, y = divide(fp, fp + tn), recall
        heights = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }[self.summation_method]
        return ((x[:-1] - x[1:]) * heights).sum(axis=0)

    def _interpolated(self, tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
        """Between two thresholds tp is linear in tp + fp, the precision is not."""
        called = tp + fp
        gained = tp[:-1] - tp[1:]
        slope = divide(gained, np.maximum(called[:-1] - called[1:], 0))
        intercept = tp[1:] - slope * called[1:]
        both = (called[:-1] > 0) & (called[1:] > 0)
        ratio = np.where(both, divide(called[:-1], called[1:]), 1)
        terms = slope * (gained + intercept * np.log(ratio))
        return divide(terms, np.maximum(tp[1:] + fn[1:], 0)).sum(axis=0)


# -- class by class -------------------------------------------------------------------------------


class FBetaScore(Stateful):
    """``(1 + beta²) · precision · recall / (beta² · precision + recall)`` for outputs (n, classes).

    Parameters
    ----------
    average : {"micro", "macro", "weighted"}, optional
        One score from the counts of all classes, the mean of the classes' scores, or that mean
        weighted by how many of each there are. None: a score for each class, ``<name>_0`` and so on
        in the logs.
    beta : float
        How much more recall weighs than precision.
    threshold : float, optional
        An output above it stands for 1. None: the largest output of a row does.
    """

    name = "fbeta_score"
    labels = False

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if average is not None:
            shapes.choice(average, ["micro", "macro", "weighted"], "average")
        self.average = average
        self.beta = shapes.real(beta, "beta", 0)
        self.threshold = None if threshold is None else shapes.real(threshold, "threshold", 0, 1)

    def size(self, output: Shape) -> int:
        if len(output) != 1:
            raise ValueError(
                f"{self.name} takes outputs (n, classes), not {shapes.shape_text(output)}"
            )
        return 3 * shapes.known(output, self.name)[0]

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        if self.threshold is None:
            positive = (y_pred >= y_pred.max(axis=-1, keepdims=True)) & (np.abs(y_pred) > 1e-9)
        else:
            positive = y_pred > self.threshold
        w, tp_fp_fn = spread(weight, y_pred.shape), state.reshape(3, -1)
        for sums, cell in zip(
            tp_fp_fn,
            (positive * y_true, positive * (1 - y_true), ~positive * y_true),
            strict=True,
        ):
            sums += (cell * w).sum(axis=0)

    def compute(self, state: np.ndarray) -> Any:
        tp, fp, fn = state.reshape(3, -1)
        present = tp + fn
        if self.average == "micro":
            tp, fp, fn = tp.sum(), fp.sum(), fn.sum()
        precision, recall = tp / (tp + fp + EPSILON), tp / (tp + fn + EPSILON)
        square = self.beta**2
        scores = (1 + square) * precision * recall / (square * precision + recall + EPSILON)
        if self.average == "weighted":
            return (scores * present).sum() / (present.sum() + EPSILON)
        return scores if self.average is None else scores.mean()

    def log_names(self, name: str, output: Shape) -> list[str]:
        if self.average is not None:
            return [name]
        return [f"{name}_{i}" for i in range(self.size(output) // 3)]


class F1Score(FBetaScore):
    """`FBetaScore` with beta 1: the harmonic mean of precision and recall.

    Parameters
    ----------
    average, threshold
        As in `FBetaScore`.
    """

    name = "f1_score"

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name)

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "beta"}


class ConfusionMatrix(Stateful):
    """How often class i (row) was taken for class j (column). Beyond Keras.

    A matrix is no number for logs: use it after `predict`, with `update_state` and `result`.

    Parameters
    ----------
    num_classes : int
    ignore_class : int, optional
        Targets that do not count.
    sparse_y_true, sparse_y_pred : bool
        Class numbers; False: one output per class, of which the largest counts.
    """

    name = "confusion_matrix"

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = False,
    ) -> None:
        super().__init__(name)
        self.num_classes = shapes.integer(num_classes, "num_classes")
        self.ignore_class = ignore_class
        self.sparse_y_true = bool(sparse_y_true)
        self.sparse_y_pred = bool(sparse_y_pred)

    @property
    def labels(self) -> bool:  # type: ignore[override]
        return self.sparse_y_true

    def size(self, output: Shape) -> int:
        return self.num_classes**2

    def _targets(self, y_true: Any, output: Shape) -> np.ndarray:
        array = np.asarray(y_true)
        if array.dtype.kind not in "iufb":
            raise ValueError(f"y_true for the metric {self.name} must be real numbers")
        return array

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        y = y_pred if self.sparse_y_pred else y_pred.argmax(axis=-1)
        t = y_true if self.sparse_y_true else y_true.argmax(axis=-1)
        if t.size != y.size:
            raise ValueError(
                f"the metric {self.name}: {t.size} classes of y_true meet {y.size} of y_pred; is "
                "sparse_y_true or sparse_y_pred wrong?"
            )
        t, y = classes_of(t, y.shape), y.astype(np.intp)
        w = spread(weight, y.shape)
        if self.ignore_class is not None:
            w, t = w * (t != self.ignore_class), np.where(t == self.ignore_class, 0, t)
        for what, classes in (("y_true", t), ("y_pred", y)):
            if classes.size and not (classes.min() >= 0 and classes.max() < self.num_classes):
                raise ValueError(
                    f"the metric {self.name}: {what} has classes {classes.min()} … "
                    f"{classes.max()}, num_classes is {self.num_classes}"
                )
        place = t.reshape(-1) * self.num_classes + y.reshape(-1)
        state += np.bincount(place, w.reshape(-1), minlength=len(state))

    def compute(self, state: np.ndarray) -> Any:
        return state.reshape(self.num_classes, self.num_classes).copy()

    def log_names(self, name: str, output: Shape) -> list[str]:
        if type(self) is ConfusionMatrix:
            raise ValueError(
                "a confusion matrix is no number for compile: give it y_true and model.predict(x) "
                "with update_state"
            )
        return [name]


class IoU(ConfusionMatrix):
    """The mean over some classes of ``tp / (tp + fp + fn)``: how far prediction and truth overlap.

    Classes that neither has do not count.

    Parameters
    ----------
    num_classes : int
    target_class_ids : sequence of int
    ignore_class : int, optional
    sparse_y_true, sparse_y_pred : bool
        Class numbers (Keras' default for both); False: one output per class, as a softmax gives.
    """

    name = "io_u"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        *,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
    ) -> None:
        super().__init__(num_classes, name, ignore_class, sparse_y_true, sparse_y_pred)
        self.target_class_ids = [shapes.integer(c, "target_class_ids", 0) for c in target_class_ids]
        if max(self.target_class_ids) >= self.num_classes:
            raise ValueError(
                f"target_class_ids has {max(self.target_class_ids)} of {num_classes} classes"
            )

    def compute(self, state: np.ndarray) -> Any:
        matrix = super().compute(state)
        tp = np.diag(matrix)
        union = (matrix.sum(axis=0) + matrix.sum(axis=1) - tp)[self.target_class_ids]
        there = union > 1e-9
        scores = np.where(there, tp[self.target_class_ids] / (union + EPSILON), 0)
        return scores.sum() / (there.sum() + EPSILON)


class MeanIoU(IoU):
    """`IoU` of all classes.

    Parameters
    ----------
    num_classes, ignore_class, sparse_y_true, sparse_y_pred
        As in `IoU`.
    """

    name = "mean_io_u"

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        *,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
    ) -> None:
        super().__init__(
            num_classes, range(num_classes), name, ignore_class=ignore_class,
            sparse_y_true=sparse_y_true, sparse_y_pred=sparse_y_pred,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "target_class_ids"}


class OneHotIoU(IoU):
    """`IoU` for one-hot targets, and one output per class.

    Parameters
    ----------
    num_classes, target_class_ids, ignore_class, sparse_y_pred
        As in `IoU`.
    """

    name = "one_hot_io_u"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        *,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
    ) -> None:
        super().__init__(
            num_classes, target_class_ids, name, ignore_class=ignore_class, sparse_y_true=False,
            sparse_y_pred=sparse_y_pred,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "sparse_y_true"}


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` for one-hot targets, and one output per class.

    Parameters
    ----------
    num_classes, ignore_class, sparse_y_pred
        As in `IoU`.
    """

    name = "one_hot_mean_io_u"

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        *,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
    ) -> None:
        super().__init__(
            num_classes, name, ignore_class=ignore_class, sparse_y_true=False,
            sparse_y_pred=sparse_y_pred,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        return {k: v for k, v in super().get_config().items() if k != "sparse_y_true"}


class BinaryIoU(IoU):
    """`IoU` of two classes, the second one where an output is at least the threshold.

    Parameters
    ----------
    target_class_ids : sequence of int
    threshold : float
    """

    name = "binary_io_u"
    labels = False

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
    ) -> None:
        super().__init__(2, target_class_ids, name)
        self.threshold = shapes.real(threshold, "threshold")

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        super().add(state, y_true, (y_pred >= self.threshold).astype(np.int8), weight)

    def get_config(self) -> dict[str, Any]:
        kept = ("target_class_ids", "threshold", "title")
        return {k: v for k, v in super().get_config().items() if k in kept}


class DiceScore(Stateful):
    """``2 Σ t y / (Σ t + Σ y)`` of each output, and the mean over those that are there: with a
    threshold the F1 score of masks, without one its soft form. Beyond Keras.

    Parameters
    ----------
    threshold : float, optional
        An output above it stands for 1. None: outputs count as they are.
    """

    name = "dice_score"
    labels = False

    def __init__(self, threshold: float | None = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = None if threshold is None else shapes.real(threshold, "threshold")

    def size(self, output: Shape) -> int:
        return 2 * shapes.known(output[-1:], self.name)[0]

    def add(
        self, state: np.ndarray, y_true: np.ndarray, y_pred: np.ndarray, weight: np.ndarray | None
    ) -> None:
        y = y_pred if self.threshold is None else y_pred > self.threshold
        w, axes = spread(weight, y.shape), tuple(range(y.ndim - 1))
        both, each = state.reshape(2, -1)
        both += (2 * w * y_true * y).sum(axis=axes)
        each += (w * (y_true + y)).sum(axis=axes)

    def compute(self, state: np.ndarray) -> Any:
        both, each = state.reshape(2, -1)
        return divide(divide(both, each).sum(), (each > 0).sum())

"""Which classes are taken for which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastconv.data import check_finite
from fastconv.plots import plot_confusion_matrix
from fastconv.visualize._images import names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 100  # classes


def labels_of(y: Any, name: str) -> tuple[np.ndarray, int | None]:
    """Class numbers (n,), and how many classes there are where y tells.

    ``y`` holds numbers, one-hot rows, probabilities, or the probability of the second of two.
    """
    y = np.asarray(y)
    if y.dtype.kind not in "fiub" or y.ndim not in (1, 2) or not len(y):
        raise ValueError(f"{name} are class numbers (n,) or rows (n, classes), not {y.shape}")
    check_finite(y, name)
    if y.ndim == 2 and y.shape[1] > 1:
        return y.argmax(axis=1), y.shape[1]
    y = y.reshape(len(y))
    if y.dtype.kind == "f" and not np.array_equal(y, np.floor(y)):
        if y.min() < 0 or y.max() > 1:
            raise ValueError(f"{name} holds {y.max():g}: neither class numbers nor probabilities")
        return (y > 0.5).astype(np.int64), 2
    if y.min() < 0:
        raise ValueError(f"{name} holds {y.min():g}; classes are numbered from 0")
    return y.astype(np.int64), None


def confusion_counts(y_true: Any, y_pred: Any, classes: int | None = None) -> np.ndarray:
    """How often each true class (row) was taken for each class (column).

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, classes)
        Class numbers, one-hot rows, or what `Model.predict` gives: probabilities, or (n, 1) those
        of the second of two classes.
    classes : int, optional
        How many there are; by default as many as are seen.

    Returns
    -------
    ndarray of int, (classes, classes)
        Its sum is n, its trace the number of those that are right.
    """
    true, given = labels_of(y_true, "y_true")
    predicted, known = labels_of(y_pred, "y_pred")
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} true classes and {len(predicted)} predictions")
    seen = max(int(true.max()), int(predicted.max())) + 1
    count = classes or max(seen, given or 0, known or 0)
    if seen > count:
        raise ValueError(f"there is a class {seen - 1}, where {count} classes are 0 to {count - 1}")
    counts = np.bincount(true * count + predicted, minlength=count * count)
    return counts.reshape(count, count)


def confusion_matrix(
    y_true: Any, y_pred: Any, class_names: Sequence[str] | None = None, title: str | None = None
) -> "Figure":
    """True classes by predicted ones; the colour is the share of the row, blue where it is right
    and orange where it is not.

    Parameters
    ----------
    y_true, y_pred : array (n,) or (n, classes)
        As in `confusion_counts`.
    class_names : sequence of str, optional
        Default: the numbers of the classes.
    title : str, optional
        Default: how many are right.

    Returns
    -------
    Figure
    """
    named = len(class_names) if class_names is not None else None
    counts = confusion_counts(y_true, y_pred, named)
    size = len(counts)
    if size > MOST:
        raise ValueError(f"{size} classes do not fit on a picture, {MOST} do")
    names = names_of(class_names, size)
    if title is None:
        right, whole = int(np.trace(counts)), int(counts.sum())
        title = f"{right:,} of {whole:,} right, {100 * right / whole:.2f} %"
    return cast("Figure", plot_confusion_matrix(counts, names, title))

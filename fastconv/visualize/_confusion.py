"""Which classes are taken for which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.plots import BLUE, ORANGE, new_figure
from fastconv.visualize._images import INK, names_of

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
    longest = max(map(len, names))
    inches = min(2.2 + 0.5 * size, 14)
    figure = new_figure(inches + min(0.08 * longest, 2.5), inches)
    axes = figure.add_subplot()
    _draw(axes, counts)
    _label(axes, names, longest)
    axes.set_title(title, fontsize=11, color=INK, pad=10)
    return figure


def _draw(axes: Any, counts: np.ndarray) -> None:
    """Cells, each with its count where there is room."""
    from matplotlib.colors import LinearSegmentedColormap

    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = LinearSegmentedColormap.from_list("wrong or right", [ORANGE, "white", BLUE])
    # errors are rare: one in a hundred is to be seen, and the orange of a quarter is full
    signed = np.where(np.eye(size, dtype=bool), shares, -np.minimum(2 * np.sqrt(shares), 1))
    axes.imshow(signed, cmap=colors, vmin=-1, vmax=1)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e5e7eb", linewidth=0.8)
    if size > 30:
        return
    font = 10 if size <= 12 else 7
    for row, column in zip(*np.nonzero(counts), strict=True):
        light = row == column and shares[row, column] > 0.6
        axes.text(
            column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=font,
            color="white" if light else INK,
        )  # fmt: skip


def _label(axes: Any, names: Sequence[str], longest: int) -> None:
    size = len(names)
    font = 10 if size <= 12 else 8 if size <= 30 else 5
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(size), names, fontsize=font, **(turned if longest > 4 else {}))
    axes.set_yticks(range(size), names, fontsize=font)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)

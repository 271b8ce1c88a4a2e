"""The images that were taken for something else."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.lettering import columns_for, fitted, room_for
from fastconv.plots import new_figure
from fastconv.visualize._confusion import labels_of
from fastconv.visualize._images import INK, PAGE, as_images, names_of, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def wrong_predictions(
    x: Any, y_true: Any, y_pred: Any, class_names: Sequence[str] | None = None, count: int = 32
) -> "Figure":
    """A sheet of the images that were predicted wrongly, those of which the network was surest
    first.

    Parameters
    ----------
    x : array, (n, H, W), (n, H, W, 1) or (n, H, W, 3)
        The images.
    y_true : array (n,) or (n, classes)
        Class numbers or one-hot rows.
    y_pred : array (n, classes), (n, 1) or (n,)
        What `Model.predict` gives; or class numbers, whose errors come as they stand.
    class_names : sequence of str, optional
        Default: the numbers of the classes.
    count : int
        So many at most.

    Returns
    -------
    Figure
        Above each image what it was taken for, with the probability, and below it what it is. One
        that says so where nothing is wrong.
    """
    images, outputs = as_images(x), np.asarray(y_pred)
    true, given = labels_of(y_true, "y_true")
    predicted, known = labels_of(y_pred, "y_pred")
    if not len(images) == len(true) == len(predicted):
        raise ValueError(
            f"{len(images)} images, {len(true)} true classes and {len(predicted)} predictions do "
            "not belong together"
        )
    if count < 1:
        raise ValueError(f"count is 1 or more, not {count!r}")
    seen = max(int(true.max()), int(predicted.max())) + 1
    names = names_of(
        class_names, len(class_names) if class_names else max(seen, given or known or 0)
    )
    if seen > len(names):
        raise ValueError(f"there is a class {seen - 1}, class_names names {len(names)}")
    sure = _sureness(outputs, predicted)
    wrong = np.flatnonzero(true != predicted)
    if sure is not None:
        wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    title = f"{len(wrong):,} of {len(true):,} wrong, {100 * len(wrong) / len(true):.2f} %"
    if len(wrong) > count:
        title += f"; the {count} surest" if sure is not None else f"; {count} of them"
    chosen = wrong[:count]
    asked = {f"{names[i]}: 100 %" for i in predicted[chosen]}
    asked |= {f"is {names[i]}" for i in true[chosen]}
    room = room_for(asked, 9, 1.15, 2)
    above, below = [], []
    for i in chosen:
        end = f": {100 * sure[i]:.0f} %" if sure is not None else ""
        above.append(fitted(names[predicted[i]], room - 0.1, 9, lines=2, end=end))
        below.append(fitted(f"is {names[true[i]]}", room - 0.1, 9, lines=2))
    lines = sum(max((words.count("\n") for words in part), default=0) for part in (above, below))
    columns = columns_for(len(chosen), room, PAGE)
    rows = math.ceil(len(chosen) / columns)
    tall = images.shape[1] / images.shape[2]
    height = (0.92 * room * tall + 0.5 + 0.16 * lines) * rows + 0.5 if rows else 0.8
    figure = new_figure(max(room * columns, 4.2), height)
    figure.suptitle(title, fontsize=12, color=INK)
    for number, (i, over, under) in enumerate(zip(chosen, above, below, strict=True), 1):
        axes = figure.add_subplot(rows, columns, number)
        show(axes, images[i])
        axes.set_title(over, fontsize=9, color="#b45309", pad=3)
        axes.set_xlabel(under, fontsize=9, color=INK, labelpad=3)
    return figure


def _sureness(outputs: np.ndarray, predicted: np.ndarray) -> np.ndarray | None:
    """The probability of what was predicted, where the outputs are probabilities."""
    if outputs.dtype.kind != "f" or outputs.min() < 0 or outputs.max() > 1:
        return None
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        return outputs[np.arange(len(outputs)), predicted]
    p = outputs.reshape(len(outputs))
    return None if np.array_equal(p, np.floor(p)) else np.where(predicted == 1, p, 1 - p)

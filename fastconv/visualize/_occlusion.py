"""What a network no longer recognises when a part of the image is hidden."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.model import Model
from fastconv.shapes import integer, integers
from fastconv.visualize._images import INK, MOST, SIGNED, Pairs, show
from fastconv.visualize._parts import chosen, classifier, images_of, outputs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_ONCE = 1 << 24  # numbers of hidden images that are made at a time


def occlusion_map(
    model: Model, x: Any, classes: Any = None, size: Any = None, stride: int | None = None,
    value: Any = None,
) -> np.ndarray:  # fmt: skip
    """How much the output for a class falls where a patch hides the image.

    Parameters
    ----------
    model : Model
        One input, one output with a number per class.
    x : array (n, H, W, C), or one image (H, W, C)
    classes : int, or array of int (n,); optional
        Whose output; by default that of the predicted class.
    size : int or (int, int), optional
        The patch's height and width; by default a quarter of the image's.
    stride : int, optional
        From one place of the patch to the next; by default half of the smaller side.
    value : float or array (C,), optional
        What the patch is filled with; by default each image's median, its background as a rule.

    Returns
    -------
    ndarray, (n, H, W)
        For each pixel the mean fall of the output over the places where the patch hides it:
        positive where hiding it speaks against the class.

    References
    ----------
    Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV (2014).
    """
    array = images_of(classifier(model), x, MOST)
    height, width, channels = array.shape[1:]
    sides = (-(-height // 4), -(-width // 4)) if size is None else integers(size, 2, "size")
    if sides[0] > height or sides[1] > width:
        raise ValueError(f"size {sides} is larger than the images, {height}×{width}")
    step = max(1, min(sides) // 2) if stride is None else integer(stride, "stride")
    if step > min(sides):
        raise ValueError(f"stride {step} leaves pixels that no patch of {sides} hides")
    places = [(r, c) for r in _starts(height, sides[0], step)
              for c in _starts(width, sides[1], step)]  # fmt: skip
    if value is None:
        filling = np.median(array, axis=(1, 2))
    else:
        filling = np.broadcast_to(np.asarray(value, np.float64), (len(array), channels))
    outputs = outputs_of(model, array)
    labels = chosen(model, outputs, classes)
    maps = np.empty(array.shape[:3])
    for image, fill, before, label, found in zip(
        array, filling, outputs, labels, maps, strict=True
    ):
        falls = before[label] - _hidden(model, image, fill, places, sides)[:, label]
        found[...] = _spread(falls, places, sides, (height, width))
    return maps


def occlusion(
    model: Model, x: Any, classes: Any = None, size: Any = None, stride: int | None = None,
    value: Any = None, class_names: Sequence[str] | None = None,
) -> "Figure":  # fmt: skip
    """Images, and below each how much the output falls (red) or rises (blue) where it is hidden.

    Parameters
    ----------
    model, x, classes, size, stride, value
        As in `occlusion_map`.
    class_names : sequence of str, optional
        Default: the numbers of the classes.

    Returns
    -------
    Figure
        All maps are on one scale.
    """
    maps = occlusion_map(model, x, classes, size, stride, value)
    pairs = Pairs(model, x, classes, class_names, "Occlusion: what falls when a part is hidden")
    bound = float(np.abs(maps).max()) or 1.0
    drawn = None
    for axes, image, values in zip(pairs.below, pairs.images, maps, strict=True):
        if image.ndim == 3:  # a photograph shines through, of a drawing the outline is enough
            show(axes, 0.5 * (1 - image.mean(axis=-1)))
        drawn = show(
            axes, values, cmap=SIGNED, vmin=-bound, vmax=bound, alpha=0.6 if image.ndim == 3 else 1
        )
        if image.ndim == 2 and image.max() > image.min():
            level = 0.5 * (image.min() + image.max())
            axes.contour(image, levels=[level], colors=INK, linewidths=0.6, alpha=0.7)
    pairs.bar(drawn, "fall of the output")
    return pairs.figure


def _starts(length: int, size: int, step: int) -> list[int]:
    """Where the patch begins; the last place touches the edge."""
    found = list(range(0, length - size, step))
    return [*found, length - size]


def _hidden(
    model: Model, image: np.ndarray, fill: np.ndarray, places: Sequence[tuple[int, int]],
    sides: Sequence[int],
) -> np.ndarray:  # fmt: skip
    """The outputs for the image with the patch at each place."""
    dtype = np.result_type(image.dtype, np.float32)
    count = max(1, AT_ONCE // image.size)
    found = []
    for first in range(0, len(places), count):
        some = places[first : first + count]
        copies = np.repeat(image[None].astype(dtype), len(some), axis=0)
        for copy, (row, column) in zip(copies, some, strict=True):
            copy[row : row + sides[0], column : column + sides[1]] = fill
        found.append(outputs_of(model, copies))
    return np.concatenate(found)


def _spread(
    falls: np.ndarray, places: Sequence[tuple[int, int]], sides: Sequence[int],
    shape: tuple[int, int],
) -> np.ndarray:  # fmt: skip
    """The mean of the falls over the places that hide a pixel."""
    total, count = np.zeros(shape), np.zeros(shape)
    for fall, (row, column) in zip(falls, places, strict=True):
        part = slice(row, row + sides[0]), slice(column, column + sides[1])
        total[part] += fall
        count[part] += 1
    return total / count

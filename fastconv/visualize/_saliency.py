"""Which pixels a class' score hangs on: its gradient at the image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.model import Model
from fastconv.shapes import integer, real
from fastconv.visualize._images import MOST, Pairs, heat, show
from fastconv.visualize._parts import (
    chosen,
    classifier,
    images_of,
    input_gradients,
    outputs_of,
    scores,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def saliency_map(
    model: Model, x: Any, classes: Any = None, *, samples: int = 1, noise: float = 0.15,
    seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """``max over channels |∂ score[class] / ∂ x|`` of each image.

    The score is the output before a softmax or sigmoid.

    Parameters
    ----------
    model : Model
        One input, one output with a number per class.
    x : array (n, H, W, C), or one image (H, W, C)
    classes : int, or array of int (n,); optional
        The class whose score it is about; by default the predicted one.
    samples : int
        Gradients over which the mean is taken, of images with noise: SmoothGrad.
    noise : float
        Its standard deviation, as a share of the image's range.
    seed : int
        Of the noise.

    Returns
    -------
    ndarray, (n, H, W)

    References
    ----------
    Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks. ICLR workshop (2014).
    Smilkov et al.: SmoothGrad. arXiv:1706.03825 (2017).
    """
    array, above = images_of(classifier(model), x, MOST), scores(model)
    samples, noise = integer(samples, "samples"), real(noise, "noise", 0)
    labels = chosen(model, outputs_of(model, array), classes)
    if samples == 1:
        gradient = input_gradients(above, [array], labels)
    else:
        rng = np.random.default_rng(seed)
        axes = (1, 2, 3)
        width = np.ptp(array.astype(np.float64), axis=axes, keepdims=True) * noise
        gradient = np.zeros(array.shape)
        for _ in range(samples):
            noisy = array + width * rng.standard_normal(array.shape)
            gradient += input_gradients(above, [noisy], labels) / samples
    return np.abs(gradient).max(axis=-1)


def saliency(
    model: Model, x: Any, classes: Any = None, *, samples: int = 1, noise: float = 0.15,
    seed: int = 0, class_names: Sequence[str] | None = None,
) -> "Figure":  # fmt: skip
    """Images, and below each how much its pixels move the score of a class.

    Parameters
    ----------
    model, x, classes, samples, noise, seed
        As in `saliency_map`.
    class_names : sequence of str, optional
        Default: the numbers of the classes.

    Returns
    -------
    Figure
        Each map has a scale of its own.
    """
    maps = saliency_map(model, x, classes, samples=samples, noise=noise, seed=seed)
    pairs = Pairs(model, x, classes, class_names, "Saliency: how a pixel moves the score")
    drawn = None
    for axes, values in zip(pairs.below, maps, strict=True):
        drawn = show(axes, values / (values.max() or 1.0), cmap=heat(), vmin=0, vmax=1)
    pairs.bar(drawn, "|gradient|", ("0", "most"))
    return pairs.figure

"""Where in the image a convolution saw what speaks for a class: Grad-CAM."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.layer import Tensor
from fastconv.layers.input import InputLayer
from fastconv.model import Model
from fastconv.visualize._images import INK, MOST, Pairs, glow, show
from fastconv.visualize._parts import (
    chosen,
    classifier,
    images_of,
    input_gradients,
    outputs_of,
    part,
    scores,
    tensor_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# what may follow the last map of features without making it another one
AFTERWARDS = (
    "MaxPooling2D", "AveragePooling2D", "Dropout", "ZeroPadding2D", "Flatten", "Reshape",
)  # fmt: skip


def grad_cam_map(
    model: Model, x: Any, classes: Any = None, layer: Any = None, *, averaged: bool = True
) -> np.ndarray:
    """``ReLU(Σ_k a_k A_k)`` over the channels k of a layer's maps A, where ``a_k`` is the mean over
    the map of ``∂ score[class] / ∂ A_k``.

    The score is the output before a softmax or sigmoid.

    Parameters
    ----------
    model : Model
        One input, one output with a number per class.
    x : array (n, H, W, C), or one image (H, W, C)
    classes : int, or array of int (n,); optional
        The class to be explained; by default the predicted one.
    layer : str, int, Layer or Model; optional
        Whose maps; by default the last ones before pooling and flattening.
    averaged : bool
        False weighs every place by its own gradient instead of the mean (HiResCAM). For networks
        that flatten their maps, where a channel may speak for a class at one place and against it
        at another; where the maps' means make the classes, both are the same.

    Returns
    -------
    ndarray, (n, h, w)
        As large as the layer's maps, in units of the score; nowhere negative.

    References
    ----------
    Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization. ICCV (2017). Draelos, Carin: Use HiResCAM instead of Grad-CAM for Faithful
    Explanations of Convolutional Neural Networks. arXiv:2011.08891 (2020).
    """
    array = images_of(classifier(model), x, MOST)
    tensor = _last_maps(model) if layer is None else _maps_of(model, layer)
    labels = chosen(model, outputs_of(model, array), classes)
    maps = outputs_of(part(model, tensor), array)
    above = scores(model, tensor)
    around = [array] * (len(above.inputs) - 1)  # a way around the layer starts at the image
    slopes = input_gradients(above, [maps, *around], labels)
    if averaged:
        slopes = slopes.mean(axis=(1, 2), keepdims=True)
    return np.maximum((maps * slopes).sum(axis=-1), 0)


def grad_cam(
    model: Model, x: Any, classes: Any = None, layer: Any = None,
    class_names: Sequence[str] | None = None, *, averaged: bool = True,
) -> "Figure":  # fmt: skip
    """Images, and below each where a layer saw what speaks for a class, laid over it.

    Parameters
    ----------
    model, x, classes, layer, averaged
        As in `grad_cam_map`.
    class_names : sequence of str, optional
        Default: the numbers of the classes.

    Returns
    -------
    Figure
        Each map has a scale of its own. One that says so is empty: every channel that sees
        something there speaks against the class.
    """
    maps = grad_cam_map(model, x, classes, layer, averaged=averaged)
    tensor = _last_maps(model) if layer is None else _maps_of(model, layer)
    name = "Grad-CAM" if averaged else "HiResCAM"
    where = f"{name} at {tensor.node.layer.name}: what speaks for the class"
    pairs = Pairs(model, x, classes, class_names, where)
    height, width = pairs.images.shape[1:3]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    drawn = None
    for axes, image, values in zip(pairs.below, pairs.images, maps, strict=True):
        grey = image if image.ndim == 2 else 1 - image.mean(axis=-1)
        show(axes, 0.45 * grey)  # pale, so that the colours are the map's alone
        drawn = show(
            axes, values / (values.max() or 1.0), cmap=glow(), vmin=0, vmax=1, extent=extent,
            interpolation="bilinear",
        )  # fmt: skip
        if not values.any():
            axes.text(0.5, 0.5, "nothing here\nspeaks for it", transform=axes.transAxes, fontsize=7,
                      ha="center", va="center", color=INK)  # fmt: skip
    pairs.bar(drawn, "speaks for the class", ("0", "most"))
    return pairs.figure


def _maps_of(model: Model, layer: Any) -> Tensor:
    tensor = tensor_of(model, layer)
    if len(tensor.sample_shape) != 3 or isinstance(tensor.node.layer, InputLayer):
        raise ValueError(
            f"{tensor.node.layer.name} has no maps of features: choose a layer whose output has "
            "height, width and channels"
        )
    return tensor


def _last_maps(model: Model) -> Tensor:
    """The last maps that are larger than a pixel, before what only gathers them."""
    for node in reversed(model.graph.nodes):
        shape = node.output.sample_shape
        if len(shape) == 3 and shape[:2] != (1, 1) and not isinstance(node.layer, InputLayer):
            while type(node.layer).__name__ in AFTERWARDS and len(node.inputs) == 1:
                before = node.inputs[0].node
                if len(before.output.sample_shape) != 3 or isinstance(before.layer, InputLayer):
                    break
                node = before
            return node.output
    raise ValueError(f"{model.name} has no layer with maps of features: Grad-CAM needs one")

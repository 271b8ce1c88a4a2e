"""What the layers make of an image."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.layer import Tensor
from fastconv.layers.input import InputLayer
from fastconv.model import Model
from fastconv.plots import new_figure
from fastconv.shapes import integer
from fastconv.visualize._images import INK, SIGNED, as_images, heat, show, show_mosaic
from fastconv.visualize._parts import images_of, outputs_of, part, single, tensor_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = 64  # channels of one layer's picture
ROWS = 12  # layers of one picture


def feature_maps(model: Model, x: Any, layers: Any = None, channels: int | None = None) -> "Figure":
    """The maps of features that the layers make of an image.

    Each layer has a scale of its own, from white, 0, to dark; red and blue where there are
    negative numbers.

    Parameters
    ----------
    model : Model
    x : array (H, W, C) or (1, H, W, C)
        One image.
    layers : str, int, Layer, or a list of them; optional
        One layer is drawn as a sheet of its channels, several as rows. By default all that change
        the picture: convolutions, poolings, norms and activations, but not what reshapes, pads
        or drops.
    channels : int, optional
        So many of each layer, the first ones: 10 of several, 64 of one.

    Returns
    -------
    Figure
    """
    single(model)
    array = images_of(model, x, 1)
    one = layers is not None and not isinstance(layers, (list, tuple))
    if layers is None:
        tensors = _telling(model)
    else:
        tensors = [_spatial(model, layer) for layer in ([layers] if one else layers)]
    if not tensors:
        raise ValueError(f"{model.name} has no layer whose output has height and width")
    most = integer(channels, "channels") if channels is not None else (ALL if one else 10)
    maps = [outputs_of(part(model, tensor), array)[0] for tensor in tensors]
    if one:
        return _sheet(tensors[0], maps[0], most)
    return _overview(as_images(array)[0], tensors, maps, most)


def _telling(model: Model) -> list[Tensor]:
    """The tensors with height and width whose layers compute something."""
    dull = ("Dropout", "Flatten", "Reshape", "ZeroPadding2D", "Rescaling", "Concatenate")
    found = [
        node.output
        for node in model.graph.nodes
        if len(node.output.sample_shape) == 3
        and not isinstance(node.layer, InputLayer)
        and type(node.layer).__name__ not in dull
    ]
    step = math.ceil(len(found) / ROWS)  # deep networks: every so many, and the last
    return found[::-1][::step][::-1] if found else []


def _spatial(model: Model, layer: Any) -> Tensor:
    tensor = tensor_of(model, layer)
    if len(tensor.sample_shape) != 3:
        name = tensor.node.layer.name
        raise ValueError(
            f"{name} makes {len(tensor.sample_shape)} dimensions of an image, not a map"
        )
    return tensor


def _scale(maps: np.ndarray) -> dict[str, Any]:
    """Colours of a layer's maps: of one sign or of both."""
    low, high = float(maps.min()), float(maps.max())
    if low < 0:
        bound = max(-low, high)
        return {"cmap": SIGNED, "vmin": -bound, "vmax": bound}
    return {"cmap": heat(), "vmin": 0, "vmax": high or 1.0}


def _words(tensor: Tensor, maps: np.ndarray) -> str:
    return f"{tensor.node.layer.name}\n{'×'.join(map(str, maps.shape))}"


def _sheet(tensor: Tensor, maps: np.ndarray, most: int) -> "Figure":
    """All channels of one layer."""
    height, width, channels = maps.shape
    count = min(most, channels)
    columns = min(8, count) if count <= 16 else math.ceil(math.sqrt(1.6 * count))
    rows = -(-count // columns)
    tiles = np.full((rows * columns, height, width), np.nan)
    tiles[:count] = np.moveaxis(maps, -1, 0)[:count]
    figure = new_figure(max(0.95 * columns, 3) + 1, 0.95 * height / width * rows + 0.6)
    axes, tops, lefts = show_mosaic(
        figure, tiles.reshape(rows, columns, height, width), "activation", **_scale(maps)
    )
    for number in range(count):
        row, column = divmod(number, columns)
        axes.text(lefts[column] + 1, tops[row] + 1, str(number), fontsize=7, ha="left", va="top",
                  color=INK)  # fmt: skip
    more = f", the first {count}" if count < channels else ""
    figure.suptitle(_words(tensor, maps).replace("\n", ": ") + more, fontsize=11, color=INK)
    return figure


def _overview(
    image: np.ndarray, tensors: Sequence[Tensor], maps: Sequence[np.ndarray], most: int
) -> "Figure":
    """A row for each layer, the image above them."""
    columns = min(most, max(m.shape[2] for m in maps))
    rows = len(maps) + 1
    tall = image.shape[0] / image.shape[1]
    figure = new_figure(0.85 * columns + 1.6, (0.85 * tall + 0.03) * rows + 0.2)
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    labels = ["image", *(_words(t, m) for t, m in zip(tensors, maps, strict=True))]
    for row, (line, words) in enumerate(zip(grid, labels, strict=True)):
        shown = [image] if row == 0 else np.moveaxis(maps[row - 1], -1, 0)[:columns]
        options = {} if row == 0 else _scale(maps[row - 1])
        for axes, values in zip(line, shown, strict=False):
            axes.set_axis_on()
            show(axes, values, **options)
        line[0].set_ylabel(words, fontsize=8, rotation=0, ha="right", va="center", color=INK)
    return figure

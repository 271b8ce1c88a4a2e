"""What a convolution looks for."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import plots
from fastconv.model import Model
from fastconv.visualize._images import INK, SIGNED, show_mosaic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16  # rows and columns


def filters(layer: Any, name: str | int | None = None) -> "Figure":
    """The weights of a convolution, each filter as a small image.

    Filters over one channel are drawn on one scale, blue below zero and red above it; over three
    channels in colour, grey being zero; over more as rows, a filter each, of one image per channel,
    16 by 16 at most.

    Parameters
    ----------
    layer : Conv2D, or a model
        Of a model, the convolution called ``name``, by default the first one.
    name : str or int, optional

    Returns
    -------
    Figure
    """
    found = _layer(layer, name)
    weight = getattr(getattr(found, "weight", None), "value", None)  # (KH, KW, IC, OC)
    if weight is None or weight.ndim != 4:
        raise ValueError(f"{found.name} ({type(found).__name__}) has no filters to be seen")
    height, width, channels, count = weight.shape
    title = f"{found.name}: {count} filters of {height}×{width}"
    if channels in (1, 3):
        figure: Any = plots.plot_filters(found)
    else:
        figure = _rows(weight[:, :, :MOST, :MOST])
        title += f" over {channels} channels"
        if max(channels, count) > MOST:
            title += f"\nthe first {min(count, MOST)}, over the first {min(channels, MOST)}"
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _layer(layer: Any, name: str | int | None) -> Any:
    if not isinstance(layer, Model):
        if not hasattr(layer, "parameters"):
            raise ValueError(f"layer is a layer or a model, not {type(layer).__name__}")
        return layer
    if name is not None:
        return layer.get_layer(name) if isinstance(name, str) else layer.get_layer(index=name)
    for found in layer.graph.layers:
        if getattr(getattr(found, "weight", None), "value", np.empty(0)).ndim == 4:
            return found
    raise ValueError(f"{layer.name} has no convolution")


def _rows(weight: np.ndarray) -> "Figure":
    """A row per filter, a column per channel; one scale for all."""
    tiles = weight.transpose(3, 2, 0, 1)
    rows, columns = tiles.shape[:2]
    bound = float(np.abs(weight).max()) or 1.0
    figure = plots.new_figure(0.4 * columns + 1.6, 0.4 * rows + 0.9)
    axes, tops, _ = show_mosaic(figure, tiles, "weight", cmap=SIGNED, vmin=-bound, vmax=bound)
    for number, top in enumerate(tops):
        axes.text(-4, top + 12, str(number), fontsize=8, ha="right", va="center", color=INK)
    return figure

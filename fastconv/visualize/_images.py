"""Drawing shared by the pictures: images as they are, maps beside or over them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.data import check_finite
from fastconv.lettering import columns_for, fitted, room_for
from fastconv.model import Model
from fastconv.plots import INK, new_figure
from fastconv.visualize._parts import chosen, images_of, outputs_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAME = "#d1d5db"
SIGNED = "RdBu_r"  # white is zero
MOST = 64  # images of one picture
PAGE = 10.5  # inches across


def as_images(x: Any) -> np.ndarray:
    """Images ready to be drawn on one scale from 0 to 1: (n, H, W) grey or (n, H, W, 3).

    Other numbers of channels are shown as their mean.
    """
    images = np.asarray(x)
    if images.dtype.kind not in "fiub" or images.ndim not in (3, 4) or not len(images):
        raise ValueError(f"x are images (n, H, W) or (n, H, W, channels), not {images.shape}")
    check_finite(images, "x")
    images = images.astype(np.float64)
    if images.ndim == 4 and images.shape[-1] != 3:
        images = images.mean(axis=-1)
    low, high = float(images.min()), float(images.max())
    return (images - low) / ((high - low) or 1.0)


def names_of(class_names: Sequence[str] | None, count: int) -> list[str]:
    """The classes' names; their numbers where there are none."""
    if class_names is None:
        return [str(i) for i in range(count)]
    if isinstance(class_names, str) or len(class_names) != count:
        raise ValueError(f"class_names names {len(class_names)} classes, there are {count}")
    return [str(name) for name in class_names]


def show(axes: "Axes", image: np.ndarray, **options: Any) -> Any:
    """Draw an image without ticks, in a thin frame; grey ones as ink on paper."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=FRAME, linewidth=0.8)
    if image.ndim == 2:
        options = {"cmap": "gray_r", "vmin": 0, "vmax": 1, **options}
    return axes.imshow(image, interpolation=options.pop("interpolation", "nearest"), **options)


def title_of(names: Sequence[str], label: int, outputs: np.ndarray, room: float) -> str:
    """``cat: 97 %``: the class that is explained, and what the network makes of it; ``room`` in
    inches."""
    value = outputs[label]
    share = outputs.min() >= 0 and outputs.max() <= 1
    end = f": {100 * value:.0f} %" if share else f": {value:.3g}"
    return fitted(names[label], room - 0.1, 9, lines=2, end=end)


class Pairs:
    """A figure of images, each with its class above and room for its map below.

    Attributes
    ----------
    figure : Figure
    images : ndarray, (n, H, W) or (n, H, W, 3)
        On one scale from 0 to 1.
    above, below : list of Axes
        Of the images and of their maps.
    """

    def __init__(
        self, model: Model, x: Any, classes: Any, class_names: Sequence[str] | None, title: str
    ) -> None:
        array = images_of(model, x, MOST)
        outputs = outputs_of(model, array)
        names, labels = names_of(class_names, outputs.shape[1]), chosen(model, outputs, classes)
        self.images = images = as_images(array)
        count = len(images)
        tall = images.shape[1] / images.shape[2]
        width = room_for((f"{names[i]}: 100 %" for i in labels), 9, 1.3 if count > 4 else 1.8, 1.8)
        titles = [title_of(names, *of, width) for of in zip(labels, outputs, strict=True)]
        columns = columns_for(count, width, PAGE)
        rows = 2 * math.ceil(count / columns)
        self.figure: Figure = new_figure(
            max(width * columns, 3.2) + 1.0, (0.97 * width * tall + 0.14) * rows + 0.35
        )
        self.figure.suptitle(title, fontsize=11, color=INK)
        grid: Any = self.figure.subplots(rows, columns, squeeze=False)
        self.above: list[Any] = list(grid[::2].ravel())[:count]
        self.below: list[Any] = list(grid[1::2].ravel())[:count]
        self.grid = grid
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, words in zip(self.above, images, titles, strict=True):
            axes.set_axis_on()
            show(axes, image)
            axes.set_title(words, fontsize=9, color=INK, pad=3)
        for axes in self.below:
            axes.set_axis_on()

    def bar(self, drawn: Any, label: str, ends: tuple[str, str] | None = None) -> None:
        """One scale for all maps, at the right."""
        bar = self.figure.colorbar(drawn, ax=self.grid, shrink=0.85, pad=0.02, aspect=30)
        bar.set_label(label, fontsize=9, color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=2)
        if ends:
            bar.set_ticks(drawn.get_clim(), labels=ends)


def heat() -> Any:
    """From white through red to black: read without telling red from green."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    share = np.linspace(0, 1, 256)[:, None]
    colors = colormaps["magma_r"](0.1 + 0.85 * share[:, 0])
    white = np.clip(1 - 5 * share, 0, 1)
    return ListedColormap(white + (1 - white) * colors, name="heat")


def glow() -> Any:
    """`heat` that lets through what is cold, to be laid over an image."""
    from matplotlib.colors import ListedColormap

    colors = heat()(np.linspace(0, 0.85, 256))
    colors[:, 3] = np.linspace(0, 0.8, 256)
    return ListedColormap(colors, name="glow")


def mosaic(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles (rows, columns, h, w) as one image, with gaps of NaN; where a row and a column of it
    begin. One image is drawn many times faster than hundreds."""
    times = -(-24 // min(tiles.shape[2:]))  # so that a gap may be thin
    tiles = tiles.repeat(times, axis=2).repeat(times, axis=3)
    rows, columns, height, width = tiles.shape
    gap = max(2, min(height, width) // (10 if times == 1 else 4))
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    tops, lefts = np.arange(rows) * (height + gap), np.arange(columns) * (width + gap)
    for row, column in np.ndindex(rows, columns):
        part = slice(tops[row], tops[row] + height), slice(lefts[column], lefts[column] + width)
        whole[part] = tiles[row, column]
    return whole, tops, lefts


def show_mosaic(figure: "Figure", tiles: np.ndarray, label: str, **options: Any) -> Any:
    """Draw tiles, each in a thin frame, on one scale, which stands at the right; returns the axes,
    and where rows and columns begin. Tiles of NaN stay empty."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    whole, tops, lefts = mosaic(tiles)
    axes = figure.add_subplot()
    axes.set_axis_off()
    drawn = axes.imshow(whole, interpolation="nearest", **options)
    height, width = whole.shape[0] - tops[-1], whole.shape[1] - lefts[-1]
    frames = [
        Rectangle((float(lefts[column]) - 0.5, float(tops[row]) - 0.5), width, height)
        for row, column in np.ndindex(tiles.shape[:2])
        if np.isfinite(tiles[row, column, 0, 0])
    ]
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=FRAME, linewidth=0.6, clip_on=False),
        autolim=False,
    )
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85, pad=0.02, aspect=30)
    bar.set_label(label, fontsize=9, color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
    return axes, tops, lefts

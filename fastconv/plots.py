"""Pictures of a training: curves, predictions, filters, speed. Needs matplotlib, the extra ``viz``.

Every function draws into a figure of its own and returns it (`figure.savefig("a.png")`), or into
the part of a figure that it is given. Nothing here opens a window or touches pyplot's state.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase, SubFigure

    from fastconv.layer import Layer
    from fastconv.learning_rate import LearningRates
    from fastconv.profile import Profile

BLUE, ORANGE, RED, GREY = "#2f6db5", "#e07b1a", "#c62828", "#6b7280"
INK = "#1f2937"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, drawn by Agg."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib, which is not installed: pip install 'fastconv[viz]'"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    # a notebook shows pyplot's figures; this is how it learns of others
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: "Figure") -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def plot_history(history: Any, figure: "FigureBase | None" = None) -> "FigureBase":
    """The loss and each metric over the epochs, of training and validation.

    Parameters
    ----------
    history : History or dict of str to list of float
        What `Model.fit` returns, or its ``history``.
    figure : Figure or SubFigure, optional
        Where to draw.
    """
    curves: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    names = [name for name in curves if not name.startswith("val_") and len(curves[name])]
    names = [name for name in names if name != "learning_rate"]
    if not names:
        raise ValueError("the history is empty: train the model first")
    figure = figure or new_figure(4.2 * len(names), 3.2)
    from matplotlib.ticker import MaxNLocator

    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), number)
        shown = [("training", name, BLUE), ("validation", f"val_{name}", ORANGE)]
        for label, key, color in shown:
            if values := curves.get(key):
                epochs = np.arange(1, len(values) + 1)
                axes.plot(epochs, values, color=color, marker="o", markersize=3, label=label)
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if "accuracy" in name:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(color="#e5e7eb", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if f"val_{name}" in curves:
            axes.legend(frameon=False)
    return figure


def plot_learning_rates(found: "LearningRates", figure: "FigureBase | None" = None) -> "FigureBase":
    """The losses over the learning rates, and the rate that is suggested.

    Parameters
    ----------
    found : LearningRates
        What `fastconv.find_learning_rate` returns.
    figure : Figure or SubFigure, optional
        Where to draw.
    """
    figure = figure or new_figure(6, 3.6)
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, color=BLUE, alpha=0.3, linewidth=1, label="batch")
    axes.plot(found.rates, found.smoothed, color=BLUE, label="smoothed")
    if np.isfinite(found.suggestion):
        axes.axvline(found.suggestion, color=ORANGE, label=f"suggested: {found.suggestion:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    low, high = found.smoothed.min(), found.smoothed[0]
    axes.set_ylim(max(0, low - 0.2 * (high - low)), high + 0.5 * (high - low) or None)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def plot_predictions(
    x: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str] | None = None,
    figure: "FigureBase | None" = None,
) -> "FigureBase":
    """Images with the predicted class and its probability; a wrong one is framed in red.

    Parameters
    ----------
    x : ndarray, (n, H, W), (n, H, W, 1) or (n, H, W, 3)
        Shown from the smallest to the largest value; all images on one scale.
    labels : sequence of int, (n,)
        The true classes.
    probabilities : ndarray, (n, classes)
    class_names : sequence of str, optional
        Default: the numbers of the classes.
    figure : Figure or SubFigure, optional
        Where to draw.
    """
    images, labels, probabilities = np.asarray(x), np.asarray(labels), np.asarray(probabilities)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(f"x are grey or RGB images (n, H, W) or (n, H, W, 3), not {images.shape}")
    if not len(images) == len(labels) == len(probabilities) > 0 or probabilities.ndim != 2:
        raise ValueError(
            f"{len(images)} images, {len(labels)} labels and probabilities of shape "
            f"{probabilities.shape} do not belong together"
        )
    names = class_names or [str(i) for i in range(probabilities.shape[1])]
    low, high = float(images.min()), float(images.max())
    if images.ndim == 4:
        images, low, high = (images - low) / ((high - low) or 1), 0, 1

    columns = math.ceil(math.sqrt(1.2 * len(images)))
    rows = -(-len(images) // columns)
    figure = figure or new_figure(1.15 * columns, 1.35 * rows)
    for number, (image, label, p) in enumerate(zip(images, labels, probabilities, strict=True), 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(image, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        guess = int(p.argmax())
        right = guess == label
        words = f"{names[guess]}  {100 * p[guess]:.0f} %"
        if not right:
            words += f"\ntrue: {names[int(label)]}"
        axes.set_title(words, fontsize=9, color="black" if right else RED, pad=3)
        for spine in axes.spines.values():
            spine.set(color="#d1d5db" if right else RED, linewidth=0.8 if right else 2.5)
    return figure


def plot_filters(layer: "Layer", figure: "FigureBase | None" = None) -> "FigureBase":
    """The weights of a convolution over one or three channels, each filter a small image.

    All filters share one scale, symmetric around zero: blue takes away, red adds, white leaves
    alone. Filters over three channels are shown in colour, grey being zero.

    Parameters
    ----------
    layer : Conv2D
        With its weights.
    figure : Figure or SubFigure, optional
        Where to draw.
    """
    weight = getattr(getattr(layer, "weight", None), "value", None)  # (KH, KW, IC, OC)
    if weight is None or weight.ndim != 4 or weight.shape[2] not in (1, 3):
        raise ValueError(f"{layer.name} has no filters over one or three channels to be seen")
    filters = np.moveaxis(weight, -1, 0)
    bound = float(np.abs(filters).max()) or 1.0
    columns = min(8, len(filters)) if len(filters) <= 16 else math.ceil(math.sqrt(2 * len(filters)))
    rows = -(-len(filters) // columns)
    figure = figure or new_figure(0.8 * columns + 0.8, 0.8 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    picture = None
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, kernel in zip(grid.flat, filters, strict=False):
        if kernel.shape[2] == 3:
            axes.imshow(0.5 + 0.5 * kernel / bound, interpolation="nearest")
        else:
            picture = axes.imshow(
                kernel[..., 0], cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest"
            )
    if picture is not None:
        figure.colorbar(picture, ax=grid, shrink=0.9, pad=0.02, label="weight")
    return figure


def plot_confusion_matrix(
    matrix: np.ndarray,
    class_names: Sequence[str] | None = None,
    title: str = "",
    figure: "FigureBase | None" = None,
) -> "FigureBase":
    """True classes by predicted ones: counts; the colour is the share of the row, blue where it is
    right and orange where it is not.

    Parameters
    ----------
    matrix : ndarray of int, (classes, classes)
        Row by row a true class, column by column what it was taken for.
    class_names : sequence of str, optional
        Default: the numbers of the classes.
    title : str
    figure : Figure or SubFigure, optional
        Where to draw.
    """
    matrix = np.asarray(matrix)
    count = len(matrix)
    if matrix.shape != (count, count) or not count:
        raise ValueError(f"a confusion matrix has as many rows as columns, not {matrix.shape}")
    names = list(class_names) if class_names is not None else [str(i) for i in range(count)]
    size, longest = min(2.2 + 0.5 * count, 14), max(map(len, names))
    figure = figure or new_figure(size + min(0.08 * longest, 2.5), size)
    axes = figure.add_subplot()
    _draw_counts(axes, matrix)
    font = 10 if count <= 12 else 8 if count <= 30 else 5
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(count), names, fontsize=font, **(turned if longest > 4 else {}))
    axes.set_yticks(range(count), names, fontsize=font)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=11, color=INK, pad=10)
    return figure


def _draw_counts(axes: Any, counts: np.ndarray) -> None:
    """Cells of a confusion matrix, each with its count where there is room."""
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


def plot_roofline(profile: "Profile", figure: "FigureBase | None" = None) -> "FigureBase":
    """Steps with arithmetic: GFLOP/s over flops per byte, below the roof of this machine.

    A circle's area is the step's share of the time. Steps that only move data stand in the second
    part: how much of the memory's bandwidth they use.

    Parameters
    ----------
    profile : Profile
        From `Model.profile`.
    figure : Figure or SubFigure, optional
        Where to draw.
    """
    colors = {"forward": BLUE, "backward": ORANGE, "forward again": RED}
    rows = [row for row in profile.steps if row.flops and row.bytes and row.seconds]
    moving = [row for row in profile.steps if not row.flops and row.bytes and row.seconds]
    moving = sorted(moving, key=lambda row: -row.seconds)[:12]
    whole, peaks = profile.total.seconds, profile.peaks
    figure = figure or new_figure(13, 5.5)
    from matplotlib.ticker import LogLocator

    roof: Any
    roof, bars = figure.subplots(1, 2, width_ratios=[1.6, 1])
    intensities = [row.flops / row.bytes for row in rows] or [peaks.flops / peaks.bytes]
    x = np.geomspace(min(intensities) / 3, max([*intensities, peaks.flops / peaks.bytes]) * 3, 200)
    roof.loglog(x, np.minimum(peaks.flops, x * peaks.bytes) / 1e9, color=GREY)
    seen: set[str] = set()
    for row in rows:
        label = None if row.direction in seen else row.direction
        seen.add(row.direction)
        roof.scatter(
            row.flops / row.bytes, row.flops / row.seconds / 1e9, s=20 + 1500 * row.seconds / whole,
            color=colors.get(row.direction, GREY), alpha=0.55, linewidths=0, label=label,
        )  # fmt: skip
    for row in sorted(rows, key=lambda row: -row.seconds)[:5]:
        roof.annotate(
            f"{row.layer}, {row.step}", (row.flops / row.bytes, row.flops / row.seconds / 1e9),
            (0, 8), textcoords="offset points", fontsize=7, ha="center",
        )  # fmt: skip
    roof.set(xlabel="flops per byte", ylabel="GFLOP/s")
    for axis in (roof.xaxis, roof.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    roof.set_title(f"{profile.name}, batch {profile.batch_size}, {1e3 * whole:.2f} ms\n{peaks}")
    roof.grid(color="#e5e7eb", linewidth=0.8)
    if seen:
        for mark in roof.legend(frameon=False, loc="lower right").legend_handles:
            mark.set_sizes([50])
    names = [f"{row.layer}: {row.step}, {1e3 * row.seconds:.2f} ms" for row in reversed(moving)]
    speeds = [row.bytes / row.seconds / 1e9 for row in reversed(moving)]
    bars.barh(range(len(moving)), speeds, color=BLUE)
    bars.set_yticks(range(len(moving)), names, fontsize=7)
    bars.axvline(peaks.bytes / 1e9, color=GREY)
    bars.set(xlabel="GB/s", title="without products, the longest")
    for axes in (roof, bars):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_overview(
    history: Any,
    layer: "Layer",
    x: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> "Figure":
    """A training on one page: its curves, the filters of a layer, and predictions, some errors
    first."""
    wrong = np.asarray(probabilities).argmax(1) != labels
    shown = min(int(wrong.sum()), 12)
    order = np.concatenate([np.flatnonzero(wrong)[:shown], np.flatnonzero(~wrong)[: 30 - shown]])
    figure = new_figure(13.5, 7)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    left, right = _parts(figure, 1, 2, width_ratios=[1.15, 1])
    curves, filters = _parts(left, 2, 1, height_ratios=[1.3, 1])
    plot_history(history, curves)
    plot_filters(layer, filters)
    filters.suptitle(f"Filters of {layer.name}, one scale for all", fontsize=11)
    plot_predictions(x[order], labels[order], probabilities[order], class_names, right)
    right.suptitle(
        f"{len(order)} of {len(x):,} test images, predicted by the exported file\n"
        f"errors first: {shown} of {wrong.sum():,}, framed in red",
        fontsize=11,
    )
    return figure


def _parts(figure: "FigureBase", rows: int, columns: int, **ratios: Any) -> "list[SubFigure]":
    parts: Any = figure.subfigures(rows, columns, **ratios)  # an array; one part alone is none
    return list(parts)

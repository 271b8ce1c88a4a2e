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

from fastconv.lettering import fitted, room_for, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure, FigureBase, SubFigure

    from fastconv.layer import Layer
    from fastconv.learning_rate import LearningRates
    from fastconv.profile import Profile, Row

BLUE, ORANGE, RED, GREY = "#2f6db5", "#e07b1a", "#c62828", "#6b7280"
INK = "#1f2937"
DIRECTIONS = {"forward": BLUE, "backward": ORANGE, "forward again": RED}
LONGEST = 10  # steps of a roofline that are named
LABEL = 1.8  # inches of a class' name beside a matrix


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
    room = room_for((f"{name}  100 %" for name in names), 9, 1.15, 2) if figure is None else 1.15
    figure = figure or new_figure(room * columns, 1.35 * rows)
    for number, (image, label, p) in enumerate(zip(images, labels, probabilities, strict=True), 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(image, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        guess = int(p.argmax())
        right = guess == label
        words = fitted(names[guess], room - 0.1, 9, end=f"  {100 * p[guess]:.0f} %")
        if not right:
            words += "\n" + fitted(f"true: {names[int(label)]}", room - 0.1, 9)
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
    font = 10 if count <= 12 else 8 if count <= 30 else 5
    given = list(class_names) if class_names is not None else [str(i) for i in range(count)]
    names = [fitted(name, LABEL, font) for name in given]
    size, longest = min(1.7 + 0.5 * count, 14), max(width_of(name, font) for name in names)
    turn = longest > 0.35  # slanted names stand closer
    figure = figure or new_figure(size + longest, size + (0.7 * longest if turn else 0.2))
    axes = figure.add_subplot()
    _draw_counts(axes, matrix)
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(count), names, fontsize=font, **(turned if turn else {}))
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

    A circle's area is the step's share of the time; the longest have numbers, and their names stand
    below with what the machine could do at best. Steps that only move data stand in the last part:
    how much of the memory's bandwidth they use.

    Parameters
    ----------
    profile : Profile
        From `Model.profile`.
    figure : Figure or SubFigure, optional
        Where to draw.
    """
    timed = [row for row in profile.steps if row.bytes and row.seconds]
    timed.sort(key=lambda row: -row.seconds)
    rows = [row for row in timed if row.flops]
    moving = [row for row in timed if not row.flops][:LONGEST]
    named, peaks = rows[:LONGEST], profile.peaks
    figure = figure or new_figure(8, 9.5)
    above, below = _parts(figure, 2, 1, height_ratios=[1, 1.05])
    title = f"{profile.name}, batch {profile.batch_size}, {1e3 * profile.total.seconds:.2f} ms"
    figure.suptitle(f"{title}\n{peaks}", fontsize=11, color=INK)
    roof, heights = above.add_subplot(), [max(len(part), 1) + 1.5 for part in (named, moving)]
    products, others = below.subplots(2, 1, height_ratios=heights)

    _draw_roof(roof, rows, profile)
    numbers = {f"{n}": row for n, row in enumerate(named, 1)}
    _draw_bars(products, numbers, [row.flops / row.seconds / 1e9 for row in named])
    for place, row in enumerate(named):
        best = min(peaks.flops, peaks.bytes * row.flops / row.bytes) / 1e9
        products.plot([best, best], [place - 0.4, place + 0.4], color=GREY, linewidth=1.5)
    products.set_title("the longest products, GFLOP/s; grey: at best", fontsize=9, color=INK)
    _draw_bars(others, {" " * n: row for n, row in enumerate(moving)},
               [row.bytes / row.seconds / 1e9 for row in moving])  # fmt: skip
    others.axvline(peaks.bytes / 1e9, color=GREY, linewidth=1.5)
    others.set_title("the longest of the others, GB/s; grey: memory", fontsize=9, color=INK)
    _number(roof, [(row.flops / row.bytes, row.flops / row.seconds / 1e9) for row in named])
    return figure


def _draw_roof(axes: Any, rows: "Sequence[Row]", profile: "Profile") -> None:
    """A circle for each step below the two limits."""
    from matplotlib.ticker import LogLocator

    peaks, whole = profile.peaks, profile.total.seconds
    intensities = [*(row.flops / row.bytes for row in rows), peaks.flops / peaks.bytes]
    x = np.geomspace(min(intensities) / 3, max(intensities) * 3, 200)
    axes.loglog(x, np.minimum(peaks.flops, x * peaks.bytes) / 1e9, color=GREY)
    for direction, color in DIRECTIONS.items():
        some = [row for row in rows if row.direction == direction]
        if some:
            axes.scatter(
                [row.flops / row.bytes for row in some],
                [row.flops / row.seconds / 1e9 for row in some],
                s=[20 + 1500 * row.seconds / whole for row in some],
                color=color, alpha=0.55, linewidths=0, label=direction,
            )  # fmt: skip
    axes.set(xlabel="flops per byte", ylabel="GFLOP/s")
    axes.margins(y=0.1)  # room for numbers
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if rows:
        for mark in axes.legend(frameon=False, loc="lower right").legend_handles:
            mark.set_sizes([50])


def _draw_bars(axes: Any, rows: "Mapping[str, Row]", speeds: Sequence[float]) -> None:
    """A bar for each step, the longest at the top; the keys stand before their names."""
    names = [
        fitted(f"{key}  {row.layer}".strip(), 3.6, 8,
               end=f": {row.step}, {1e3 * row.seconds:.3f} ms")
        for key, row in rows.items()
    ]  # fmt: skip
    colors = [DIRECTIONS.get(row.direction, GREY) for row in rows.values()]
    axes.barh(range(len(names)), speeds, color=colors, alpha=0.75, height=0.7)
    axes.set_yticks(range(len(names)), names, fontsize=8, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _number(axes: Any, points: Sequence[tuple[float, float]]) -> None:
    """Numbers beside points, from 1, none upon another number or a numbered point."""
    axes.figure.figure.draw_without_rendering()  # so that it is known where the points lie
    pixels = 72 / axes.figure.dpi
    places = axes.transData.transform(points) * pixels if points else []
    ways = [
        (radius * math.cos(angle), radius * math.sin(angle))
        for radius in (11, 20, 29, 38, 47, 56)
        for angle in np.linspace(0.25, 2.25, 12, endpoint=False) * math.pi
    ]
    taken = [(x, y) for x, y in places]
    for number, ((x, y), point) in enumerate(zip(places, points, strict=True), 1):
        way = next(
            (way for way in ways if all(
                abs(x + way[0] - a) > 11 or abs(y + way[1] - b) > 10 for a, b in taken)),
            ways[-1],
        )  # fmt: skip
        taken.append((x + way[0], y + way[1]))
        axes.annotate(
            f"{number}", point, way, textcoords="offset points", fontsize=8, color=INK,
            ha="center", va="center",
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 4,
                        "shrinkB": 0},
        )  # fmt: skip


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

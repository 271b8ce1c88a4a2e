"""The input that excites a channel most, found by gradient ascent."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.layers.rescaling import Rescaling
from fastconv.layout import ChannelsLast
from fastconv.lettering import columns_for, fitted, room_for
from fastconv.model import Model
from fastconv.plots import new_figure
from fastconv.shapes import integer, real
from fastconv.visualize._images import INK, show
from fastconv.visualize._parts import image_shape, outputs_of, part, single, tensor_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST = 16  # channels, where none are named
MOST_ACROSS = 16  # inches
EVERY = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softmax")


def maximized_inputs(
    model: Model, layer: Any, channels: Any = None, *, steps: int = 128, rate: float = 0.05,
    decay: float = 0.01, jitter: int = 1, smooth: float = 1.0, input_shape: Any = None,
    value_range: tuple[float, float] | None = None, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Images that excite channels of a layer, by gradient ascent from faint noise.

    What grows is the channel's mean over its map, before the layer's activation, so that a channel
    which is dead at first has a gradient too. The gradient is smoothed, and scaled to a fixed size;
    the image is drawn to the middle of the range a little and shifted at random between the steps:
    without that, what comes out is noise that only the network sees. The mean over the image's
    pixels is taken off the gradient: what changes is the pattern, where an even black or white
    would excite many channels most.

    Parameters
    ----------
    model : Model
        With one input, an image.
    layer : str, int, Layer or Model
        The network's last layer, for example: a channel is a class there.
    channels : int or sequence of int, optional
        By default the first 16.
    steps : int
    rate : float
        A step's root mean square, as a share of the range.
    decay : float
        Share of the way to the middle of the range that each step goes.
    jitter : int
        Pixels of the random shift, each way.
    smooth : float
        Standard deviation, in pixels, of the Gauss filter over the gradient; 0 for none.
    input_shape : (int, int, int), optional
        Where the model leaves height and width open.
    value_range : (float, float), optional
        Of the pixels that the model was trained with. By default what a `Rescaling` at the model's
        beginning takes to 0…1, or with a negative offset to −1…1: (0, 255) for bytes; without one
        (0, 1).
    seed : int

    Returns
    -------
    images : ndarray (k, H, W, C)
    activations : ndarray (k,)
        The channel's mean over its map, of each image.

    References
    ----------
    Erhan, Bengio, Courville, Vincent: Visualizing Higher-Layer Features of a Deep Network.
    University of Montreal, 1341 (2009). Olah, Mordvintsev, Schubert: Feature Visualization.
    Distill (2017).
    """
    single(model)
    tensor = tensor_of(model, layer)
    below = part(model, tensor, without=EVERY)
    numbers = _numbers(channels, tensor.sample_shape[-1], tensor.node.layer.name)
    shape = image_shape(model, input_shape)
    low, high = _range(model, value_range)
    smooth = real(smooth, "smooth", 0)
    steps, jitter = integer(steps, "steps", 0), integer(jitter, "jitter", 0)
    rate, decay = real(rate, "rate", 0), real(decay, "decay", 0, 1)
    rng, middle = np.random.default_rng(seed), (low + high) / 2
    start = 0.05 * rng.standard_normal((1, *shape))  # the same for all: what differs is the channel
    images = middle + (high - low) * np.repeat(start, len(numbers), axis=0)
    rows = np.arange(len(numbers))
    for _ in range(steps):
        shift = rng.integers(-jitter, jitter + 1, 2)
        moved = np.roll(images, shift, axis=(1, 2))
        y, handle = below.forward(moved)
        dy = np.zeros_like(y)
        dy[rows, ..., numbers] = 1
        gradient = np.roll(below.backward(handle, dy), -shift, axis=(1, 2)).astype(np.float64)
        gradient -= gradient.mean(axis=(1, 2, 3), keepdims=True)
        gradient = _smoothed(gradient, smooth)
        size = np.sqrt(np.mean(np.square(gradient), axis=(1, 2, 3), keepdims=True))
        images += (high - low) * rate * gradient / np.maximum(size, 1e-12)
        images += decay * (middle - images)
        np.clip(images, low, high, out=images)
    y = outputs_of(below, images)
    return images, y.reshape(len(rows), -1, y.shape[-1])[rows, :, numbers].mean(axis=1)


def maximize_activation(
    model: Model, layer: Any, channels: Any = None, *, class_names: Sequence[str] | None = None,
    **options: Any,
) -> "Figure":  # fmt: skip
    """The images that excite channels of a layer most, as `maximized_inputs` finds them.

    Parameters
    ----------
    model, layer, channels
        As in `maximized_inputs`, whose options may be given too.
    class_names : sequence of str, optional
        What the channels are called, where the layer is the last one.

    Returns
    -------
    Figure
    """
    low, high = options["value_range"] = _range(single(model), options.get("value_range"))
    images, values = maximized_inputs(model, layer, channels, **options)
    tensor = tensor_of(model, layer)
    count = tensor.sample_shape[-1] or 0
    if class_names is not None and len(class_names) != count:
        raise ValueError(f"class_names names {len(class_names)}, the layer has {count} channels")
    numbers = _numbers(channels, count, tensor.node.layer.name)
    shown = (images - low) / (high - low)
    shown = shown if shown.shape[-1] == 3 else shown.mean(axis=-1)
    names = [class_names[number] if class_names is not None else str(number) for number in numbers]
    room = room_for((f"{name}: −0.123" for name in names), 8, 1.2, 1.8)
    most = 8 if len(numbers) <= 16 else math.ceil(math.sqrt(2 * len(numbers)))
    columns = columns_for(len(numbers), room, MOST_ACROSS, most)
    rows = -(-len(numbers) // columns)
    tall = shown.shape[1] / shown.shape[2]
    titles = [
        fitted(name, room - 0.1, 8, lines=2, end=f": {value:.3g}")
        for name, value in zip(names, values, strict=True)
    ]
    lines = 1 + max(words.count("\n") for words in titles)
    figure = new_figure(
        max(room * columns, 3.2), (0.94 * room * tall + 0.15 + 0.12 * lines) * rows + 0.3
    )
    for place, (words, image) in enumerate(zip(titles, shown, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        show(axes, image)
        axes.set_title(words, fontsize=8, color=INK, pad=3)
    title = f"What excites {tensor.node.layer.name}: channel and its activation"
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _numbers(channels: Any, count: int | None, name: str) -> list[int]:
    """The channels' numbers, each of 0 to count − 1."""
    known = count or 0
    if channels is None:
        return list(range(min(known, FIRST)))
    found = np.atleast_1d(np.asarray(channels))
    if found.dtype.kind not in "iu" or found.ndim != 1 or not len(found):
        raise ValueError(f"channels is a number or a list of them, not {channels!r}")
    for number in found.tolist():
        if not 0 <= number < known:
            raise ValueError(f"{name} has {known} channels, 0 to {known - 1}; not {number}")
    return found.tolist()


def _range(model: Model, given: Any) -> tuple[float, float]:
    """The least and the largest value of a pixel."""
    if given is None:
        return _taken(model)
    low, high = (float(bound) for bound in given)
    if not low < high:
        raise ValueError(f"value_range is (low, high), not {given!r}")
    return low, high


def _taken(model: Model) -> tuple[float, float]:
    """What a `Rescaling` that the image meets first takes to 0…1 or −1…1; (0, 1) without one."""
    tensor = model.inputs[0]
    for node in model.graph.nodes:
        if node.inputs and node.inputs[0] is tensor:
            if isinstance(node.layer, ChannelsLast):
                tensor = node.output
            elif isinstance(node.layer, Rescaling) and node.layer.scale:
                scale, offset = node.layer.scale, node.layer.offset
                ends = ((end - offset) / scale for end in (-1.0 if offset < 0 else 0.0, 1.0))
                low, high = sorted(ends)
                return low, high
            else:
                break
    return 0.0, 1.0


def _smoothed(images: np.ndarray, deviation: float) -> np.ndarray:
    """Images (n, H, W, C) through a Gauss filter; at the edges what lies there is repeated."""
    if not deviation:
        return images
    reach = math.ceil(2.5 * deviation)
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / deviation))
    weights /= weights.sum()
    for axis in (1, 2):
        pads = [(reach, reach) if dim == axis else (0, 0) for dim in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(images, pads, "edge"), len(weights), axis
        )
        images = windows @ weights
    return images

"""How the networks begin and end: the same arguments for all of them."""

from typing import Any

from fastconv import backend, shapes
from fastconv.layers import Dense, Input, Rescaling

ZERO_TO_ONE = (1 / 255, 0.0)  # of bytes
MINUS_ONE_TO_ONE = (1 / 127.5, -1.0)
MOMENTUM = 0.9  # of batch norm's statistics: there after dozens of steps, not hundreds


def image_shape(shape: Any, fixed: bool) -> tuple[int | None, ...]:
    """``input_shape``, checked: height, width, channels, or in the order of
    `fastconv.backend.image_data_format`; ``fixed`` where sizes must be known."""
    found = shapes.shape_of(shape, "input_shape")
    first = channel_axis() == 1
    if len(found) != 3 or found[0 if first else 2] is None:
        order = "(channels, height, width)" if first else "(height, width, channels)"
        raise ValueError(f"input_shape is {order}, not {shape!r}")
    if fixed and None in found:
        raise ValueError(f"input_shape {found}: this network needs images of one known size")
    return found


def channel_axis() -> int:
    """Where the channels are, for batch norm."""
    return 1 if backend.image_data_format() == "channels_first" else -1


def beginning(
    shape: Any, preprocessing: bool, scale: tuple[float, float], fixed: bool = True
) -> list[Any]:
    """The input, and what brings bytes to the range that the network is trained with."""
    first = Input(image_shape(shape, fixed))
    return [first, Rescaling(*scale, name="rescaling")] if preprocessing else [first]


def predictions(classes: int, activation: str | None) -> Dense:
    """The dense layer of the classes' scores."""
    return Dense(shapes.integer(classes, "classes"), activation=activation, name="predictions")

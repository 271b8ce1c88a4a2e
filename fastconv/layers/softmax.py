"""Softmax over the channels."""

from typing import Any

from fastconv import activations, shapes
from fastconv.layers.activation import Activation
from fastconv.shapes import Shape


class Softmax(Activation):
    """``y = e^(x − max x) / Σ e^(x − max x)`` over the last axis.

    Gradient: ``dx = y · (dy − Σ dy · y)``.

    Parameters
    ----------
    axis : int
        The last axis, −1, or 1: the channels of images that are shown channels first.
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(activations.SOFTMAX, **kwargs)
        self.axis = shapes.integer(axis, "axis", -1)

    @property
    def channels_first(self) -> bool:
        return self.axis == 1

    def output_shape(self, *inputs: Shape) -> Shape:
        shapes.check_channel_axis(self.name, self.axis, inputs[0])
        return inputs[0]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return {**config, "axis": self.axis}

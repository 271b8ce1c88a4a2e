"""Softmax over the channels."""

from typing import Any

from fastconv import activations
from fastconv.layers.activation import Activation


class Softmax(Activation):
    """``y = e^(x − max x) / Σ e^(x − max x)`` over the last axis.

    Gradient: ``dx = y · (dy − Σ dy · y)``.

    Parameters
    ----------
    axis : int
        The last axis, −1; others are not supported.
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        if axis != -1:
            raise ValueError(f"Softmax: axis must be -1 (the channels), not {axis!r}")
        super().__init__(activations.SOFTMAX, **kwargs)
        self.axis = axis

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return {**config, "axis": self.axis}

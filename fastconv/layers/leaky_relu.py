"""Leaky rectified linear unit."""

from typing import Any

from fastconv import activations, shapes
from fastconv.layers.activation import Activation


class LeakyReLU(Activation):
    """``y = x where x > 0, else negative_slope · x``; gradient 1 or negative_slope.

    Parameters
    ----------
    negative_slope : float
        ≥ 0; Keras' default for the layer is 0.3 (for the string "leaky_relu" it is 0.2).
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        negative_slope = kwargs.pop("alpha", negative_slope)  # Keras 2's name, which 3 takes, too
        self.negative_slope = shapes.real(negative_slope, "negative_slope", 0)
        super().__init__(activations.Activation("leaky_relu", self.negative_slope), **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return {**config, "negative_slope": self.negative_slope}

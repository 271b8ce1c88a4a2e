"""Rectified linear unit."""

import math
from typing import Any

from fastconv import activations, shapes
from fastconv.layers.activation import Activation


class ReLU(Activation):
    """``y = max_value where x ≥ max_value, x where x > threshold, else
    negative_slope · (x − threshold)``; gradient 1, or negative_slope below, or 0 at the cap.

    Parameters
    ----------
    max_value : float, optional
        Cap of the output, > 0 (6 gives ReLU6).
    negative_slope : float
        ≥ 0.
    threshold : float
        ≥ 0.
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        threshold = shapes.real(threshold, "threshold", 0)
        if max_value is not None and shapes.real(max_value, "max_value", 0) <= threshold:
            raise ValueError(f"max_value must be above the threshold {threshold:g}")
        cap = math.inf if max_value is None else float(max_value)
        slope = shapes.real(negative_slope, "negative_slope", 0)
        super().__init__(activations.Activation("relu", slope, cap, threshold), **kwargs)
        self.max_value = max_value
        self.negative_slope = slope
        self.threshold = threshold

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return {
            **config,
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }

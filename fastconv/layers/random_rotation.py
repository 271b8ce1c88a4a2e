"""Random rotations."""

import math
from typing import Any

import numpy as np

from fastconv.layers._affine import _Affine, centered
from fastconv.layers._image_layer import between, bounds


class RandomRotation(_Affine):
    """In training each image is turned about its middle; else ``y = x``.

    Shapes: (H, W, C) → the same. Gradient: see `fastconv.layers._affine`.

    Parameters
    ----------
    factor : float or pair of float
        In [−1, 1], shares of a full turn: 0.2 turns by −72° to 72°, a pair names both ends.
        Positive angles turn counter-clockwise.
    fill_mode : {"reflect", "wrap", "constant", "nearest"}
        What comes in over the edges.
    interpolation : {"bilinear", "nearest"}
    seed : int, optional
        Of this layer's own; by default it follows `fastconv.set_random_seed`.
    fill_value : float
        For "constant".
    """

    numbers = 1

    def __init__(
        self,
        factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.factor = bounds(factor, "factor", -1, 1)

    def maps(self, lots: np.ndarray, height: int, width: int) -> np.ndarray:
        angle = 2 * math.pi * between(lots[:, 0], self.factor)
        cos, sin = np.cos(angle), np.sin(angle)
        return centered(cos, -sin, sin, cos, height, width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": list(self.factor)}

"""Random shifts."""

from typing import Any

import numpy as np

from fastconv.layers._affine import _Affine
from fastconv.layers._image_layer import between, bounds


class RandomTranslation(_Affine):
    """In training each image is shifted; else ``y = x``.

    Shapes: (H, W, C) → the same. Gradient: see `fastconv.layers._affine`.

    Parameters
    ----------
    height_factor, width_factor : float or pair of float
        In [−1, 1], shares of the height and the width: 0.2 shifts by −20 % to 20 %, a pair names
        both ends. Positive: down, and to the right.
    fill_mode : {"reflect", "wrap", "constant", "nearest"}
        What comes in over the edges.
    interpolation : {"bilinear", "nearest"}
    seed : int, optional
        Of this layer's own; by default it follows `fastconv.set_random_seed`.
    fill_value : float
        For "constant".
    """

    numbers = 2

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor = bounds(height_factor, "height_factor", -1, 1)
        self.width_factor = bounds(width_factor, "width_factor", -1, 1)

    def maps(self, lots: np.ndarray, height: int, width: int) -> np.ndarray:
        down = height * between(lots[:, 0], self.height_factor)
        right = width * between(lots[:, 1], self.width_factor)
        one, zero = np.ones(len(lots)), np.zeros(len(lots))
        return np.stack([one, zero, -right, zero, one, -down], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "height_factor": list(self.height_factor),
            "width_factor": list(self.width_factor),
        }

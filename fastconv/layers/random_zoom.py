"""Random zooms."""

from typing import Any

import numpy as np

from fastconv.layers._affine import _Affine, centered
from fastconv.layers._image_layer import between, bounds


class RandomZoom(_Affine):
    """In training each image is zoomed about its middle; else ``y = x``.

    Shapes: (H, W, C) → the same. Gradient: see `fastconv.layers._affine`.

    Parameters
    ----------
    height_factor : float or pair of float
        In (−1, 1]: 0.2 shows between 80 % and 120 % of the height, a pair names both ends. Positive
        numbers zoom out, negative ones in.
    width_factor : float or pair of float, optional
        By default the height's, so that nothing is distorted.
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
        width_factor: Any = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._height = self._width = _zoom(height_factor, "height_factor")
        if width_factor is not None:
            self._width = _zoom(width_factor, "width_factor")

    def maps(self, lots: np.ndarray, height: int, width: int) -> np.ndarray:
        down = 1 + between(lots[:, 0], self._height)
        right = down if self.width_factor is None else 1 + between(lots[:, 1], self._width)
        zero = np.zeros(len(lots))
        return centered(right, zero, zero, down, height, width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "height_factor": self.height_factor,
            "width_factor": self.width_factor,
        }


def _zoom(factor: Any, name: str) -> tuple[float, float]:
    ends = bounds(factor, name, -1, 1)
    if min(factor if isinstance(factor, (list, tuple)) else [factor]) <= -1:
        raise ValueError(f"{name} must be above -1, which would show nothing, not {factor!r}")
    return ends

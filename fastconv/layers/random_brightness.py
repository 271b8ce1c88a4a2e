"""Random brightness."""

from typing import Any

import numpy as np

from fastconv.layers._image_layer import between, bounds
from fastconv.layers._light import _Light, per_image


class RandomBrightness(_Light):
    """In training ``y = clip(x + δ)``, δ one number an image; else ``y = x``.

    Shapes: (H, W, C) → the same. Gradient: dy where nothing was clipped, else 0.

    Parameters
    ----------
    factor : float or pair of float
        In [−1, 1], shares of the range: 0.2 draws δ from −20 % to 20 % of it, a pair names both
        ends.
    value_range : pair of float
        Of the images; y is clipped to it.
    seed : int, optional
        Of this layer's own; by default it follows `fastconv.set_random_seed`.
    """

    def __init__(
        self,
        factor: Any,
        value_range: Any = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range, seed, **kwargs)
        self.factor = bounds(factor, "factor", -1, 1)

    def light(self, x: np.ndarray, lots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.value_range
        delta = (high - low) * between(lots[:, 0], self.factor)
        return np.ones((len(x), 1, 1), x.dtype), per_image(delta, x)

    def back(self, dz: np.ndarray, scale: np.ndarray, dx: np.ndarray) -> None:
        dx[...] = dz

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": list(self.factor)}

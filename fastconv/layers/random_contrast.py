"""Random contrast."""

from typing import Any

import numpy as np

from fastconv.layers._image_layer import between, bounds
from fastconv.layers._light import _Light, per_image


class RandomContrast(_Light):
    """In training ``y = clip((x − m) · f + m)``, m the mean of each channel of an image; else
    ``y = x``.

    Shapes: (H, W, C) → the same. Gradient, with dz = dy where nothing was clipped, else 0:
    ``dx = f · dz + (1 − f) · mean(dz)``.

    Parameters
    ----------
    factor : float or pair of float
        0.2 draws f from [0.8, 1.2], a pair (lower, upper) from [1 − lower, 1 + upper].
    value_range : pair of float
        To which y is clipped.
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
        if isinstance(factor, (list, tuple)):
            self.factor = (-self.factor[0], self.factor[1])
        if self.factor[0] > self.factor[1]:
            raise ValueError(f"factor {factor!r}: 1 − lower must not be above 1 + upper")

    def light(self, x: np.ndarray, lots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        f = per_image(1 + between(lots[:, 0], self.factor), x)
        return f, (1 - f) * channel_means(x)

    def back(self, dz: np.ndarray, scale: np.ndarray, dx: np.ndarray) -> None:
        wide = (len(dz), len(dz[0]), -1)
        np.multiply(dz.reshape(wide), scale, out=dx.reshape(wide))
        dx.reshape(wide)[...] += (1 - scale) * channel_means(dz)

    def get_config(self) -> dict[str, Any]:
        lower, upper = self.factor
        return {**super().get_config(), "factor": [-lower, upper]}


def channel_means(x: np.ndarray) -> np.ndarray:
    """The mean of every channel of every image, once for each pixel of a row: (n, 1, W · C)."""
    n, height, width, channels = x.shape
    rows = x.reshape(n, height, width * channels).mean(axis=1)
    means = rows.reshape(n, width, channels).mean(axis=1)
    return np.tile(means, width)[:, None]

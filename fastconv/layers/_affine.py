"""Images read along random affine maps: what rotations, shifts and zooms share."""

from typing import Any

import numpy as np

from fastconv import shapes
from fastconv._native import sample
from fastconv.layers._image_layer import RandomImageLayer

FILL_MODES = ("reflect", "wrap", "constant", "nearest")
INTERPOLATIONS = ("nearest", "bilinear")


class _Affine(RandomImageLayer, abstract=True):
    """``y[r, c] = x[d c + e r + v, a c + b r + u]``, with a map of each image's own.

    Gradient: each pixel of dy goes, with the same weights, to the pixels that its value came from.

    Parameters
    ----------
    fill_mode : {"reflect", "wrap", "constant", "nearest"}
        What is read beyond the edges: ``d c b a | a b c d | d c b a``, ``a b c d | a b c d | a b c
        d``, the fill value, or the pixel of the edge.
    interpolation : {"bilinear", "nearest"}
    fill_value : float
        For "constant".
    """

    def __init__(
        self,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.fill_mode = shapes.choice(fill_mode, FILL_MODES, "fill_mode")
        self.interpolation = shapes.choice(interpolation, INTERPOLATIONS, "interpolation")
        self.fill_value = shapes.real(fill_value, "fill_value")

    def maps(self, lots: np.ndarray, height: int, width: int) -> np.ndarray:
        """a, b, u, d, e, v of each image, (n, 6)."""
        raise NotImplementedError

    def apply(self, x: np.ndarray, lots: np.ndarray | None, y: np.ndarray) -> None:
        assert lots is not None
        maps = self.maps(lots, *x.shape[1:3])
        sample.affine(x, y, maps, self.fill_mode, self._linear, self.fill_value)

    def spread(
        self, x: np.ndarray, lots: np.ndarray | None, dy: np.ndarray, dx: np.ndarray
    ) -> None:
        assert lots is not None
        maps = self.maps(lots, *dy.shape[1:3])
        sample.affine_gradient(dy, dx, maps, self.fill_mode, self._linear)

    @property
    def _linear(self) -> bool:
        return bool(self.interpolation == "bilinear")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "fill_mode": self.fill_mode,
            "interpolation": self.interpolation,
            "fill_value": self.fill_value,
        }


def centered(a: np.ndarray, b: np.ndarray, d: np.ndarray, e: np.ndarray, height: int, width: int
             ) -> np.ndarray:  # fmt: skip
    """The maps with these linear parts that leave the middle of an image where it is."""
    x, y = (width - 1) / 2, (height - 1) / 2
    return np.stack([a, b, x - a * x - b * y, d, e, y - d * x - e * y], axis=1)

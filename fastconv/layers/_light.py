"""What random brightness and contrast share: ``y = clip(scale · x + shift)``, by image."""

from typing import Any

import numpy as np

from fastconv import shapes
from fastconv.layers._image_layer import RandomImageLayer


class _Light(RandomImageLayer, abstract=True):
    numbers = 1

    def __init__(self, value_range: Any, seed: int | None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        if not isinstance(value_range, (list, tuple)) or len(value_range) != 2:
            raise ValueError(f"value_range is a pair of numbers, not {value_range!r}")
        low, high = sorted(shapes.real(v, "value_range") for v in value_range)
        self.value_range = low, high

    def light(self, x: np.ndarray, lots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift, to be spread over the images as (n, H, W · C)."""
        raise NotImplementedError

    def back(self, dz: np.ndarray, scale: np.ndarray, dx: np.ndarray) -> None:
        """Fill dx from the gradient before the clipping."""
        raise NotImplementedError

    def apply(self, x: np.ndarray, lots: np.ndarray | None, y: np.ndarray) -> None:
        self._unclipped(x, lots, y)
        np.clip(y, *self.value_range, out=y)

    def spread(
        self, x: np.ndarray, lots: np.ndarray | None, dy: np.ndarray, dx: np.ndarray
    ) -> None:
        scale = self._unclipped(x, lots, dx)
        low, high = self.value_range
        self.back(np.where((dx >= low) & (dx <= high), dy, 0), scale, dx)

    def _unclipped(self, x: np.ndarray, lots: np.ndarray | None, y: np.ndarray) -> np.ndarray:
        assert lots is not None
        scale, shift = self.light(x, lots)
        wide = (len(x), len(x[0]), -1)  # inner loops over rows, not over channels
        z = y.reshape(wide)
        np.multiply(x.reshape(wide), scale, out=z)
        z += shift
        return scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "value_range": list(self.value_range)}


def per_image(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A number for each image, in x's type, beside (n, H, W · C)."""
    return values.reshape(-1, 1, 1).astype(x.dtype)

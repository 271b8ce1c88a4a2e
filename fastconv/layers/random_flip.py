"""Random flips."""

from typing import Any

import numpy as np

from fastconv import shapes
from fastconv.layers._image_layer import RandomImageLayer

MODES = {
    "horizontal": (False, True),
    "vertical": (True, False),
    "horizontal_and_vertical": (True,) * 2,
}


class RandomFlip(RandomImageLayer):
    """In training one image of two is flipped; else ``y = x``.

    Shapes: (H, W, C) → the same. Gradient: dy, flipped back.

    Parameters
    ----------
    mode : {"horizontal_and_vertical", "horizontal", "vertical"}
        Left and right are exchanged, top and bottom, or both together, as in Keras: one lot an
        image.
    seed : int, optional
        Of this layer's own; by default it follows `fastconv.set_random_seed`.
    """

    numbers = 1

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.mode = shapes.choice(mode, MODES, "mode")

    def apply(self, x: np.ndarray, lots: np.ndarray | None, y: np.ndarray) -> None:
        assert lots is not None
        down, right = MODES[self.mode]
        flip(x, lots[:, 0] < 0.5, down, right, y)

    def spread(
        self, x: np.ndarray, lots: np.ndarray | None, dy: np.ndarray, dx: np.ndarray
    ) -> None:
        self.apply(dy, lots, dx)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}


def flip(x: np.ndarray, chosen: np.ndarray, down: bool, right: bool, y: np.ndarray) -> None:
    """y = x, the chosen images upside down or left to right."""
    rows = slice(None, None, -1 if down else 1)
    columns = slice(None, None, -1 if right else 1)
    for image, flipped, to in zip(x, chosen, y, strict=True):
        to[...] = image[rows, columns] if flipped else image

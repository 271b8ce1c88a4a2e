"""Random crops."""

from typing import Any

import numpy as np

from fastconv.layers._image_layer import RandomImageLayer
from fastconv.layers._resized import Region, _Resized, same_shape


class RandomCrop(RandomImageLayer, _Resized):
    """In training a window anywhere in the images, the same for all of a batch, as in Keras.

    At inference, and of images that are smaller in a direction: the largest window of the wanted
    shape in the middle, resized.

    Shapes: (H, W, C) → (height, width, C). Gradient: dy where y was cut out, else 0.

    Parameters
    ----------
    height, width : int
    seed : int, optional
        Of this layer's own; by default it follows `fastconv.set_random_seed`.
    """

    numbers = 2

    def __init__(
        self,
        height: int,
        width: int,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(height, width, seed=seed, data_format=data_format, **kwargs)

    def region(self, height: int, width: int, lots: np.ndarray | None) -> Region:
        down, right = height - self.height, width - self.width
        if lots is None or down < 0 or right < 0:
            return same_shape(height, width, self.to)
        top, left = (
            int(lot * (room + 1)) for lot, room in zip(lots[0], (down, right), strict=True)
        )
        return Region(top, left, *self.to)

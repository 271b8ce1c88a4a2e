"""The middle of images."""

import numpy as np

from fastconv.layers._resized import Region, _Resized, same_shape


class CenterCrop(_Resized):
    """The middle of an image, in training and at inference.

    Of an image that is smaller in a direction: the largest window of the wanted shape, resized.

    Shapes: (H, W, C) → (height, width, C). Gradient: dy where y was cut out, else 0.

    Parameters
    ----------
    height, width : int
    """

    def region(self, height: int, width: int, lots: np.ndarray | None) -> Region:
        if height < self.height or width < self.width:
            return same_shape(height, width, self.to)
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return Region(top, left, *self.to)

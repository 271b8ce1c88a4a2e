"""Resizing."""

from typing import Any

import numpy as np

from fastconv import shapes
from fastconv.layers._resampling import METHODS
from fastconv.layers._resized import Region, _Resized, same_shape


class Resizing(_Resized):
    """Images of the size that is asked for, in training and at inference.

    Shapes: (H, W, C) → (height, width, C). Gradient: each pixel of dy goes, with the same weights,
    to the pixels that it was made of.

    An array of integers stays one: values are rounded, and end where the type does.

    Parameters
    ----------
    height, width : int
    interpolation : {"bilinear", "nearest", "bicubic", "lanczos3", "lanczos5"}
    crop_to_aspect_ratio, pad_to_aspect_ratio : bool
        Instead of stretching, cut the middle out, or put a border around.
    fill_mode : "constant"
        Of the border.
    fill_value : float
    antialias : bool
        An image that shrinks is smoothed on the way.
    """

    def __init__(
        self,
        height: int,
        width: int,
        interpolation: str = "bilinear",
        crop_to_aspect_ratio: bool = False,
        pad_to_aspect_ratio: bool = False,
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        antialias: bool = False,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(height, width, data_format=data_format, **kwargs)
        self.interpolation = shapes.choice(interpolation, METHODS, "interpolation")
        self.crop_to_aspect_ratio = bool(crop_to_aspect_ratio)
        self.pad_to_aspect_ratio = bool(pad_to_aspect_ratio)
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise ValueError("crop_to_aspect_ratio and pad_to_aspect_ratio exclude each other")
        self.fill_mode = shapes.choice(fill_mode, ["constant"], "fill_mode")
        self.fill_value = shapes.real(fill_value, "fill_value")
        self.antialias = bool(antialias)

    @property
    def whole(self) -> bool:
        return not (self.crop_to_aspect_ratio or self.pad_to_aspect_ratio)

    def region(self, height: int, width: int, lots: np.ndarray | None) -> Region:
        if self.crop_to_aspect_ratio:
            return same_shape(height, width, self.to)
        if self.pad_to_aspect_ratio:  # as much above as below, so one row less where it is odd
            above = (max(height, width * self.height // self.width) - height) // 2
            left = 0 if above else (max(width, height * self.width // self.height) - width) // 2
            return Region(-above, -left, height + 2 * above, width + 2 * left)
        return Region(0, 0, height, width)

    def of_array(self, x: np.ndarray, training: bool) -> np.ndarray:
        y = super().of_array(x, training)
        if x.dtype.kind not in "iu":
            return y
        limits = np.iinfo(x.dtype)
        return np.clip(np.rint(y), limits.min, limits.max).astype(x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "interpolation": self.interpolation,
            "crop_to_aspect_ratio": self.crop_to_aspect_ratio,
            "pad_to_aspect_ratio": self.pad_to_aspect_ratio,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "antialias": self.antialias,
        }

"""Random changes to training images, on whole batches of bytes or floats."""

from typing import Any

import numpy as np

from fastconv import shapes
from fastconv.arguments import explained


class Augmentation:
    """Flip, shift, and change the light of each image of a batch by chance.

    An object is a function of ``(x, y, …, generator)``, as `Dataset.map` calls it::

        data = data.map(Augmentation(flip=True, shift=4), -1, random=True)

    bytes stay bytes. Labels and weights are handed through.

    Parameters
    ----------
    flip : bool
        Left and right are exchanged in one half of the images.
    shift : int or float
        Up to so many pixels (below 1: as a share of the size) in both directions; what comes in is
        the edge, repeated.
    brightness : float
        Every image is brighter or darker by up to this share of the range.
    contrast : float
        Every image's distance from its mean is larger or smaller by up to this share.
    erase : float
        A rectangle of up to this share of each side is filled with the image's mean.
    """

    @explained
    def __init__(
        self,
        flip: bool = False,
        shift: float = 0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        erase: float = 0.0,
    ) -> None:
        self.flip = bool(flip)
        self.shift = shapes.real(shift, "shift", 0)
        self.brightness = shapes.real(brightness, "brightness", 0, 1)
        self.contrast = shapes.real(contrast, "contrast", 0, 1)
        self.erase = shapes.real(erase, "erase", 0, 1)
        self.__qualname__ = f"Augmentation {vars(self)}"

    def __call__(self, x: np.ndarray, *rest: Any) -> Any:
        rng: np.random.Generator = rest[-1]
        single = x.ndim == 3
        images = np.array(x[None] if single else x)  # the caller's stay as they are
        if images.ndim != 4:
            raise ValueError(f"images are (n, H, W, C) or (H, W, C), not {x.shape}")
        n = len(images)
        if self.flip:
            chosen = rng.random(n) < 0.5
            images[chosen] = images[chosen, :, ::-1]
        if self.shift:
            images = self._shifted(images, rng)
        if self.brightness or self.contrast:
            images = self._lit(images, rng)
        if self.erase:
            self._erase(images, rng)
        found = images[0] if single else images
        return (found, *rest[:-1]) if len(rest) > 1 else found

    def _shifted(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, height, width, _ = images.shape
        down, right = (
            int(self.shift if self.shift >= 1 else self.shift * size) for size in (height, width)
        )
        padded = np.pad(images, [(0, 0), (down, down), (right, right), (0, 0)], mode="edge")
        rows: Any = rng.integers(0, 2 * down + 1, n)
        columns: Any = rng.integers(0, 2 * right + 1, n)
        out = np.empty_like(images)
        for i in range(n):
            top, left = rows[i], columns[i]
            out[i] = padded[i, top : top + height, left : left + width]
        return out

    def _lit(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """x · contrast + offset, of bytes by a table of 256 per image."""
        n, bytes_ = len(images), images.dtype == np.uint8
        span = 255.0 if bytes_ else 1.0
        factor = 1 + self.contrast * rng.uniform(-1, 1, n)
        offset = span * self.brightness * rng.uniform(-1, 1, n)
        mean = images.mean(axis=(1, 2, 3))
        if not bytes_:
            shape = (n, 1, 1, 1)
            out = (images - mean.reshape(shape)) * factor.reshape(shape)
            return (out + (mean + offset).reshape(shape)).astype(images.dtype)
        levels = np.arange(256.0)
        for i in range(n):
            table = (levels - mean[i]) * factor[i] + mean[i] + offset[i]
            images[i] = np.clip(np.rint(table), 0, 255).astype(np.uint8)[images[i]]
        return images

    def _erase(self, images: np.ndarray, rng: np.random.Generator) -> None:
        n, height, width, _ = images.shape
        for i in range(n):
            h, w = (1 + int(rng.random() * self.erase * size) for size in (height, width))
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            images[i, top : top + h, left : left + w] = images[i].mean(axis=(0, 1))

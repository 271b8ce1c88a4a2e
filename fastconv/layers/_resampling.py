"""Images of another size: which pixels make a new one, and with which weights.

Pixels are squares, and a place is that of their middle: new pixel i lies at (i + ½) · size / to − ½
of the old ones. Rows and columns are resampled one after the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, eq=False)
class Taps:
    """New pixel i is the sum over k of ``weight[i, k]`` · old pixel ``index[i, k]``."""

    index: np.ndarray
    weight: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether every new pixel is an old one."""
        return self.index.shape[1] == 1 and bool((self.weight == 1).all())

    def matrix(self, size: int) -> np.ndarray:
        """The weights as (to, size)."""
        found = np.zeros((len(self.index), size))
        np.add.at(found, (np.arange(len(found))[:, None], self.index), self.weight)
        return found


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - x)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys 1981 with a = −½."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x >= 2, 0, np.where(x >= 1, far, near))


def _lanczos(radius: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.where(x < radius, np.sinc(x) * np.sinc(x / radius), 0)


# method → half its width in pixels, and the weight of a pixel that lies so far away
KERNELS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1, _triangle),
    "bicubic": (2, _cubic),
    "lanczos3": (3, _lanczos(3)),
    "lanczos5": (5, _lanczos(5)),
}
METHODS = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")


def scale(size: int, to: int) -> np.float32:
    """New pixels to an old one, as runtimes have it."""
    return np.float32(to) / np.float32(size)


@lru_cache(maxsize=64)
def taps(size: int, to: int, method: str, antialias: bool = False) -> Taps:
    """How ``size`` pixels become ``to``; weights of pixels beyond the edges go to the others.

    With ``antialias`` an image that shrinks is read by kernels as wide as the new pixels.
    """
    if method == "nearest":
        middle = (2 * np.arange(to) + 1) * size // (2 * to)
        return Taps(middle[:, None], np.ones((to, 1)))
    radius, kernel = KERNELS[method]
    stretch = max(size / to, 1.0) if antialias else 1.0
    # rounded as runtimes round it: at 1000 pixels half a unit of the last place is 3e-5 of a pixel
    half = np.float32(0.5)
    at = ((np.arange(to, dtype=np.float32) + half) / scale(size, to) - half).astype(np.float64)
    first = np.floor(at - radius * stretch).astype(int) + 1
    index = first[:, None] + np.arange(int(np.ceil(2 * radius * stretch)) + 1)
    weight = kernel(np.abs(at[:, None] - index) / stretch)
    weight[(index < 0) | (index >= size)] = 0
    used = np.flatnonzero(weight.any(axis=0))
    index, weight = index[:, : used[-1] + 1], weight[:, : used[-1] + 1]
    weight = weight / weight.sum(axis=1, keepdims=True)
    return Taps(np.clip(index, 0, size - 1), weight)


@lru_cache(maxsize=64)
def transposed(size: int, to: int, method: str, antialias: bool = False) -> Taps:
    """The way back, of gradients: which new pixels an old one went into."""
    there = taps(size, to, method, antialias)
    new, k = np.nonzero(there.weight)
    old = there.index[new, k]
    order = np.argsort(old, kind="stable")
    count = np.bincount(old, minlength=size)
    place = np.arange(len(old)) - np.repeat(np.cumsum(count) - count, count)
    found = Taps(np.zeros((size, count.max()), int), np.zeros((size, count.max())))
    found.index[old[order], place] = new[order]
    found.weight[old[order], place] = there.weight[new[order], k[order]]
    return found


def along(x: np.ndarray, how: Taps, axis: int) -> np.ndarray:
    """x (n, H, W, C) with its rows (axis 1) or columns (2) resampled."""
    shape = [1, 1, 1, 1]
    shape[axis] = len(how.index)
    total = None
    for index, weight in zip(how.index.T, how.weight.T, strict=True):
        part = x.take(index, axis=axis)
        if not how.plain:
            part *= weight.reshape(shape).astype(x.dtype)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total

"""Argument checks of the steps: each raises ``ValueError`` naming the argument."""

import math
from collections.abc import Sequence
from operator import index
from typing import Any

from fastconv._native.step import Extent

LARGEST = 2**40  # elements or pixels; products of a few of them are caught by `extent`


def whole(name: str, value: Any, low: int = 1, high: int = LARGEST) -> int:
    """``value`` as an int in ``low..high``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{name} is an integer, not {value!r}")
    if not low <= index(value) <= high:
        raise ValueError(f"{name} lies in {low}..{high}, not {value}")
    return index(value)


def number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, open_end: bool = False
) -> float:
    """``value`` as a float in ``low..high`` (without ``high`` if ``open_end``), never NaN."""
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is a number, not {value!r}") from None
    if not low <= x <= high or (open_end and x == high):
        raise ValueError(f"{name} lies in {low:g}..{high:g}, not {value}")
    return x


def stride_of(name: str, stride: Any, channels: int) -> int:
    """A pixel stride: elements from one pixel to the next, at least the channels."""
    if whole(name, stride) < channels:
        raise ValueError(f"{name} is at least the {channels} channels, not {stride}")
    return index(stride)


def triple(name: str, values: Any, low: int = 1) -> tuple[int, ...]:
    """Three integers, one for each of D, H, W."""
    if not isinstance(values, Sequence) or len(values) != 3:
        raise ValueError(f"{name} has three entries (D, H, W), not {values!r}")
    return tuple(whole(name, v, low) for v in values)


def pairs(name: str, values: Any) -> tuple[tuple[int, int], ...]:
    """Three pairs (before, after) of integers ≥ 0, one for each of D, H, W."""
    if not isinstance(values, Sequence) or len(values) != 3:
        raise ValueError(f"{name} has three pairs (before, after), not {values!r}")
    for pair in values:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"{name} has three pairs (before, after), not {values!r}")
    return tuple((whole(name, b, 0), whole(name, a, 0)) for b, a in values)


def extent(slot: int, per_sample: int, fixed: int = 0, itemsize: int = 0) -> Extent:
    """An `Extent` of a size that memory can have."""
    whole("slot", slot, 0, 2**31)
    if per_sample > LARGEST or fixed > LARGEST:
        raise ValueError(f"a tensor of {max(per_sample, fixed)} elements is too large")
    return Extent(slot, per_sample, fixed, itemsize)


def strided(slot: int, pixels: int, channels: int, stride: int) -> Extent:
    """Pixels that lie ``stride`` elements apart: the last one ends with its channels."""
    return extent(slot, pixels * stride, channels - stride)


def in_place(x: int, x_stride: int, y: int, y_stride: int) -> None:
    """A step that reads slot x and writes slot y; where they are one, pixel meets pixel."""
    if x == y and x_stride != y_stride:
        raise ValueError(f"in place, both strides are the same, not {x_stride} and {y_stride}")


def distinct(**slots: int) -> None:
    """Slots that must not be the same."""
    if len(set(slots.values())) < len(slots):
        raise ValueError(f"{', '.join(slots)} are different slots, not {tuple(slots.values())}")

"""Arrays on their way into a model: checked once, then read by rows without a copy."""

import operator
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from fastconv.losses import READABLE, located, real_array
from fastconv.shapes import Shape, fits, real, shape_text


def readable(x: np.ndarray) -> np.ndarray:
    """``x`` in a dtype that the input kernel reads."""
    return x if x.dtype.char in READABLE else x.astype(np.float32)


def as_list(value: Any, names: Sequence[str], what: str) -> list[Any]:
    """One array, a list of them or a dict by name, as a list in the order of ``names``."""
    if type(value) is np.ndarray and len(names) == 1:
        return [value]
    if isinstance(value, Mapping):
        for name in value:
            if name not in names:
                raise ValueError(f"{what} names {name!r}; there are: {', '.join(names)}")
        missing = [name for name in names if name not in value]
        if missing:
            raise ValueError(f"{what} lacks {', '.join(missing)}")
        return [value[name] for name in names]
    if len(names) == 1:
        if (
            isinstance(value, (list, tuple))
            and len(value) == 1
            and (np.ndim(value[0]) > 1 or (isinstance(value[0], np.ndarray) and value[0].ndim))
        ):
            return list(value)
        return [value]
    if not isinstance(value, (list, tuple)) or len(value) != len(names):
        raise ValueError(f"{what} must be {len(names)} arrays: {', '.join(names)}")
    return list(value)


def inputs(
    x: Any, names: Sequence[str], shapes: Sequence[Shape], what: str = "x"
) -> list[np.ndarray]:
    """Input arrays (n, *shape), one per input, all of one length n ≥ 1."""
    arrays = []
    for name, shape, value in zip(names, shapes, as_list(x, names, what), strict=True):
        array = readable(real_array(value, f"{what} for {name}"))
        given = array.shape
        if array.ndim == len(shape) and shape[-1] == 1:
            array = array[..., None]  # images of one channel may come without it
        if not fits(shape, array.shape[1:]):
            hint = "; one sample is a batch of one: x[None]" if len(given) == len(shape) else ""
            if len(given) > 3 and fits(shape, (*given[2:], given[1])):
                hint = "; channels come last here: np.moveaxis(x, 1, -1)"
            raise ValueError(
                f"{what} for {name} must have the shape {shape_text(shape)}, not {given}{hint}"
            )
        arrays.append(array)
    length(arrays, what, names)
    return arrays


def first(value: Any) -> Any:
    """The first of several arrays, or the one that there is."""
    if isinstance(value, Mapping):
        return next(iter(value.values()), ())
    if isinstance(value, (list, tuple)) and value and getattr(value[0], "ndim", 0) > 1:
        return value[0]
    return value


def length(arrays: Sequence[np.ndarray], what: str, names: Sequence[str] = ()) -> int:
    """The common number of samples, or a ValueError that has each array's, by these names."""
    sizes = {len(array) for array in arrays}
    if len(sizes) > 1:
        called = names or [f"[{i}]" for i in range(len(arrays))]
        words = [f"{name} {len(array)}" for name, array in zip(called, arrays, strict=True)]
        raise ValueError(f"{what} have different lengths: {', '.join(words)}")
    (n,) = sizes
    if n == 0:
        raise ValueError(f"{what} holds no samples")
    return n


SMALL = 1 << 13  # elements that are looked at without a sum: it would take longer to begin
CHUNK = 1 << 18  # elements that are summed at a time: they stay in the cache for a second look
LARGEST = float(np.finfo(np.float32).max)


def check_finite(array: np.ndarray, what: str, narrow: bool = False) -> None:
    """A ValueError that names the first NaN or infinity, or with ``narrow`` the first double that
    float32 cannot hold.

    A sum is NaN or infinite where one of its terms is, one of squares is large where a term is, and
    both read memory once.
    """
    if array.dtype.kind != "f":
        return
    narrow = narrow and array.dtype == np.float64
    if array.size <= SMALL and not narrow and np.isfinite(array).all():
        return
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            if narrow:
                fine = np.einsum("i,i", part, part) <= LARGEST**2
            else:
                fine = np.isfinite(np.add.reduce(part))
            if not fine:
                _look(part, start, array.shape, what, narrow)


def _look(part: np.ndarray, start: int, shape: tuple[int, ...], what: str, narrow: bool) -> None:
    """Look at each element of a part, which begins at ``start`` of an array of this shape."""
    bad = ~(np.abs(part) <= (LARGEST if narrow else np.finfo(part.dtype).max))
    if not bad.any():
        return  # finite terms, an infinite sum
    first = int(bad.argmax())
    row, rest = divmod(start + first, max(1, prod(shape[1:])))
    place = tuple(map(int, np.unravel_index(rest, shape[1:]))) if shape[1:] else ()
    where = f"sample {row}" + (f" at {place}" if place else "")
    more = ""
    if np.isfinite(part[first]):
        more = (
            f", beyond float32 (± {LARGEST:.2g}), in which models compute: scale it, or call "
            'fastconv.set_floatx("float64") before the model is made'
        )
    raise ValueError(f"{what} holds {part[first]} in {where}{more}")


def check_weights(value: Any, n: int, what: str) -> np.ndarray:
    """Weights (n,) of samples: finite numbers ≥ 0."""
    weights = readable(real_array(value, what))
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.shape != (n,):
        raise ValueError(f"{what} has the shape {weights.shape}; {n} samples take ({n},)")
    fine = (weights >= 0) & (weights <= LARGEST)
    if not fine.all():
        bad = weights[~fine][0]
        raise ValueError(
            f"{what} must be finite numbers of 0 or more, there is {bad} in {located(~fine)}"
        )
    return weights


def class_weights(
    value: Any, y: np.ndarray, labels: bool, count: int | None = None, what: str = "class_weight"
) -> np.ndarray:
    """Weights (n,) of samples from those of their classes: ``{class: weight}``.

    ``y`` holds class numbers, 0 … ``count`` − 1 with ``labels``, or rows whose largest element
    stands at the class; a class that ``value`` does not name has the weight 1.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is a dict {{class: weight}}, not {value!r}")
    classes = y.reshape(len(y), -1)
    single = classes.shape[1] == 1
    if single and (labels or y.dtype.kind in "iub" or y.ndim == 2):
        numbers = classes[:, 0].astype(np.int64)
        count = count if labels else None  # 0 and 1, or −1 and 1: whatever there is
    elif not labels and y.ndim == 2:
        numbers, count = classes.argmax(axis=1), y.shape[1]
    else:
        raise ValueError(f"{what} needs one class per sample; use sample_weight")
    weights = np.ones(len(y), np.float32)
    given = {
        _class(key, count, what): real(weight, f"{what} of class {key}", 0, LARGEST)
        for key, weight in value.items()
    }
    if count is None:
        for number, weight in given.items():
            weights[numbers == number] = weight
        return weights
    table = np.ones(count, np.float32)
    table[list(given)] = list(given.values())
    known = (numbers >= 0) & (numbers < count)  # others are ignored by their loss
    weights[known] = table[numbers[known]]
    return weights


def _class(key: Any, count: int | None, what: str) -> int:
    """A key of class weights as the number of a class."""
    try:
        number = operator.index(key)
        if count is None or 0 <= number < count:
            return number
    except TypeError:
        pass
    there = "whole numbers" if count is None else f"0..{count - 1}"
    raise ValueError(f"{what} names the class {key!r}; the classes are {there}")

"""Arrays on their way into a model: checked once, then read by rows without a copy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.losses import READABLE, real_array
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
    length(arrays, what)
    return arrays


def first(value: Any) -> Any:
    """The first of several arrays, or the one that there is."""
    if isinstance(value, Mapping):
        return next(iter(value.values()), ())
    if isinstance(value, (list, tuple)) and value and getattr(value[0], "ndim", 0) > 1:
        return value[0]
    return value


def length(arrays: Sequence[np.ndarray], what: str) -> int:
    """The common number of samples, or a ValueError."""
    sizes = {len(array) for array in arrays}
    if len(sizes) > 1:
        raise ValueError(f"{what} have different lengths: {', '.join(map(str, sorted(sizes)))}")
    (n,) = sizes
    if n == 0:
        raise ValueError(f"{what} holds no samples")
    return n


SMALL = 1 << 13  # elements that are looked at without a sum: it would take longer to begin
CHUNK = 1 << 18  # elements that are summed at a time: they stay in the cache for a second look


def check_finite(array: np.ndarray, what: str, first: int = 0) -> None:
    """A ValueError that names the first NaN or infinity; rows are counted from ``first``.

    A sum is NaN or infinite where one of its terms is, and reads memory once.
    """
    if array.dtype.kind != "f" or (array.size <= SMALL and np.isfinite(array).all()):
        return
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            if np.isfinite(np.add.reduce(part)):
                continue
            (bad,) = np.nonzero(~np.isfinite(part))
            if bad.size:
                place = np.unravel_index(start + int(bad[0]), array.shape)
                row, rest = first + int(place[0]), tuple(map(int, place[1:]))
                where = f"sample {row}" + (f" at {rest}" if rest else "")
                raise ValueError(f"{what} holds {part[bad[0]]} in {where}")


def check_weights(value: Any, n: int, what: str) -> np.ndarray:
    """Weights (n,) of samples: finite numbers ≥ 0."""
    weights = readable(real_array(value, what))
    if weights.ndim == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if weights.shape != (n,):
        raise ValueError(f"{what} has the shape {weights.shape}; {n} samples take ({n},)")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"{what} must be finite numbers of 0 or more")
    return weights


def class_weights(
    value: Any, y: np.ndarray, labels: bool, what: str = "class_weight"
) -> np.ndarray:
    """Weights (n,) of samples from those of their classes: ``{class: weight}``.

    ``y`` holds class numbers, or rows whose largest element stands at the class; a class that
    ``value`` does not name has the weight 1.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is a dict {{class: weight}}, not {value!r}")
    classes = y.reshape(len(y), -1)
    if (labels or y.dtype.kind in "iub") and classes.shape[1] == 1:
        numbers = classes[:, 0].astype(np.int64)
    elif not labels and y.ndim == 2:
        numbers = classes[:, 0].astype(np.int64) if y.shape[1] == 1 else classes.argmax(axis=1)
    else:
        raise ValueError(f"{what} needs one class per sample; use sample_weight")
    table = np.ones(max([int(numbers.max(initial=0)), *map(int, value)]) + 1, np.float32)
    for number, weight in value.items():
        table[int(number)] = real(weight, f"{what} of class {number}", 0)
    return table[numbers]

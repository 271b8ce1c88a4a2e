"""Arrays on their way into a model: checked once, then read by rows without a copy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.losses import READABLE, real_array
from fastconv.shapes import Shape, fits, shape_text


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
            raise ValueError(
                f"{what} for {name} must have the shape {shape_text(shape)}, not {given}{hint}"
            )
        arrays.append(array)
    length(arrays, what)
    return arrays


def length(arrays: Sequence[np.ndarray], what: str) -> int:
    """The common number of samples, or a ValueError."""
    sizes = {len(array) for array in arrays}
    if len(sizes) > 1:
        raise ValueError(f"{what} have different lengths: {', '.join(map(str, sorted(sizes)))}")
    (n,) = sizes
    if n == 0:
        raise ValueError(f"{what} holds no samples")
    return n

"""Small changes to arrays that Keras' scripts make."""

from typing import Any

import numpy as np

from fastconv.arguments import explained


@explained
def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers as one-hot rows of float32.

    Parameters
    ----------
    x : array of int, (n,) or (n, 1) or of any shape
    num_classes : int, optional
        By default the largest number and one.

    Returns
    -------
    array (*x.shape, num_classes)

    Raises
    ------
    ValueError
        A number is negative, not whole, or not below ``num_classes``.
    """
    numbers = np.asarray(x)
    if numbers.ndim > 1 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    whole = numbers.astype(np.int64)
    if numbers.dtype.kind not in "fiub" or not np.array_equal(whole, numbers):
        raise ValueError(f"to_categorical takes whole class numbers, not {numbers.dtype}")
    largest = int(whole.max(initial=-1))
    count = largest + 1 if num_classes is None else int(num_classes)
    if whole.size and (whole.min() < 0 or largest >= count):
        bad = largest if largest >= count else int(whole.min())
        raise ValueError(f"class numbers lie in 0..{count - 1}, there is {bad}")
    rows = np.zeros((whole.size, count), np.float32)
    rows[np.arange(whole.size), whole.ravel()] = 1
    return rows.reshape(*whole.shape, count)


def normalize(x: Any, axis: int = -1, order: float = 2) -> np.ndarray:
    """``x`` over its norm along an axis; where that is 0, as it is."""
    array = np.asarray(x, np.float32)
    norm = np.linalg.norm(array, order, axis, keepdims=True)
    return array / np.where(norm == 0, 1, norm)

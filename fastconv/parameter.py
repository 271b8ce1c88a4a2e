"""A parameter: a named array that a layer owns, with the gradient that backward writes."""

import copy
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fastconv.backend import floatx

if TYPE_CHECKING:
    from fastconv.constraints import Constraint
    from fastconv.regularizers import Regularizer

LINE = 64  # bytes: a cache line and the widest vector


def zeros(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array of zeros that begins at a cache line: no vector of the kernels lies across two."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size].view(dtype).reshape(shape)


class Owner(Protocol):
    """Whoever can freeze a parameter: its layer."""

    trainable: bool


class Parameter:
    """A named array of a layer.

    Attributes
    ----------
    value : ndarray
        The same array for the parameter's whole life: views of it stay valid.
    grad : ndarray
        Gradient of the last backward pass, made when it is first asked for.
    trainable : bool
        False for statistics, which no optimizer touches, and while the owner is frozen.
    regularizer : Regularizer or None
        Its penalty on the value is part of the loss (`fastconv.regularizers`).
    constraint : Constraint or None
        What the value goes through after each update (`fastconv.constraints`).
    """

    regularizer: "Regularizer | None" = None
    constraint: "Constraint | None" = None

    def __init__(
        self, name: str, value: Any, trainable: bool = True, owner: "Owner | None" = None
    ) -> None:
        self.name = name
        value = np.asarray(value)
        self.value = zeros(value.shape, floatx())
        self.value[...] = value
        self._trainable = trainable
        self._owner = owner
        self._grad: np.ndarray | None = None

    @property
    def trainable(self) -> bool:
        return self._trainable and (self._owner is None or self._owner.trainable)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def grad(self) -> np.ndarray:
        if self._grad is None:
            self._grad = zeros(self.shape, self.value.dtype)
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not self._grad:  # as it is after ``parameter.grad += …``
            self.grad[...] = value

    @property
    def path(self) -> str:
        """Keras' name of ``name``."""
        return self.name

    @property
    def dtype(self) -> str:
        return self.value.dtype.name

    def numpy(self) -> np.ndarray:
        """A copy of the value."""
        return self.value.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.value, dtype, copy=True if copy is None else copy)

    def assign(self, value: Any) -> None:
        """Copy ``value`` in; its shape must be this parameter's."""
        self.value[...] = self.checked(value)

    def checked(self, value: Any) -> np.ndarray:
        """``value`` as an array that fits, or a ValueError that names this parameter."""
        value = np.asarray(value)
        if value.dtype.kind not in "fiub":
            raise ValueError(f"{self.name} takes real numbers, not {value.dtype}")
        if value.shape != self.shape:
            raise ValueError(f"{self.name} has shape {self.shape}, not {value.shape}")
        return value

    def copy(self, dtype: Any) -> "Parameter":
        """A parameter of the same name with the value in another type, and no gradient yet."""
        twin = copy.copy(self)
        twin.value = zeros(self.shape, dtype)
        twin.value[...] = self.value
        twin._grad = None
        return twin

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, trainable={self.trainable})"


def assign_all(parameters: Sequence[Parameter], values: Sequence[Any], who: str) -> None:
    """Copy a value into each parameter, or into none where one does not fit."""
    if len(values) != len(parameters):
        raise ValueError(f"{who} has {len(parameters)} parameters, not {len(values)}")
    arrays = [p.checked(value) for p, value in zip(parameters, values, strict=True)]
    for parameter, array in zip(parameters, arrays, strict=True):
        parameter.value[...] = array


def total(parameters: Sequence[Parameter]) -> int:
    """How many numbers the parameters hold."""
    return sum(parameter.value.size for parameter in parameters)

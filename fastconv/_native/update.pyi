"""Optimizer updates: one pass over all parameters of a model."""

from collections.abc import Sequence

import numpy as np

class Segments:
    arrays: tuple[tuple[np.ndarray, ...], ...]
    dtype: np.dtype
    def __init__(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        *states: Sequence[np.ndarray],
    ) -> None: ...
    def __len__(self) -> int: ...

def sgd(segments: Segments, lr: float, momentum: float = 0.0, nesterov: bool = False) -> None: ...
def adam(segments: Segments, lr: float, beta1: float, beta2: float, eps: float, t: int) -> None: ...
def adadelta(segments: Segments, lr: float, rho: float, eps: float) -> None: ...

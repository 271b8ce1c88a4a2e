from collections.abc import Sequence
from typing import Any

import numpy as np

class Segments:
    arrays: tuple[tuple[np.ndarray, ...], ...]
    dtype: np.dtype[Any]
    weight_decay: float
    clip_value: float
    clip_norm: float
    global_clip_norm: float
    mean_momentum: float

    def __init__(
        self,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        *states: Sequence[np.ndarray],
        means: Sequence[np.ndarray] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    def terms(self, index: int, l1: float = 0.0, l2: float = 0.0, decay: bool = True) -> None: ...

def sgd(segments: Segments, lr: float, momentum: float = 0.0, nesterov: bool = False) -> None: ...
def adam(
    segments: Segments,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    t: int,
    amsgrad: bool = False,
) -> None: ...
def nadam(
    segments: Segments, lr: float, beta1: float, beta2: float, eps: float, t: int
) -> None: ...
def adamax(
    segments: Segments, lr: float, beta1: float, beta2: float, eps: float, t: int
) -> None: ...
def rmsprop(
    segments: Segments,
    lr: float,
    rho: float,
    momentum: float,
    eps: float,
    centered: bool = False,
) -> None: ...
def adagrad(segments: Segments, lr: float, eps: float) -> None: ...
def adadelta(segments: Segments, lr: float, rho: float, eps: float) -> None: ...
def lion(segments: Segments, lr: float, beta1: float, beta2: float) -> None: ...
def weight_sums(segments: Segments) -> np.ndarray: ...

"""Dropout, and numbers in [0, 1), from a counter-based generator (Philox4x32-10)."""

import numpy as np

from fastconv._native.split import SplitStep
from fastconv._native.step import Step

def philox(key: int, block: int, step: int) -> np.ndarray: ...

class DropoutForward(SplitStep):
    def __init__(
        self,
        rate: float,
        per_sample: int,
        stream: int,
        x: int,
        y: int,
        channels: int | None = None,
        x_stride: int | None = None,
        y_stride: int | None = None,
    ) -> None: ...

class DropoutBackward(SplitStep):
    def __init__(
        self,
        rate: float,
        per_sample: int,
        stream: int,
        dy: int,
        dx: int,
        channels: int | None = None,
        dy_stride: int | None = None,
        dx_stride: int | None = None,
    ) -> None: ...

class Uniform(Step):
    def __init__(self, per_sample: int, stream: int, y: int) -> None: ...

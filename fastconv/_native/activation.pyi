"""Pointwise activations and softmax."""

from fastconv._native.split import RowStep, SplitStep

LINEAR: int
RELU: int
LEAKY_RELU: int
ELU: int
SIGMOID: int
TANH: int
RELU_DROPPED: int

class ActivationForward(RowStep):
    def __init__(
        self,
        kind: int,
        alpha: float,
        beta: float,
        gamma: float,
        pixels: int,
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int,
    ) -> None: ...

class ActivationBackward(RowStep):
    def __init__(
        self,
        kind: int,
        alpha: float,
        beta: float,
        gamma: float,
        pixels: int,
        channels: int,
        y: int,
        y_stride: int,
        dy: int,
        dy_stride: int,
        dx: int,
        dx_stride: int,
    ) -> None: ...

class BiasBackward(SplitStep):
    def __init__(
        self,
        activation: tuple[int, float, float, float] | None,
        pixels: int,
        channels: int,
        y: int,
        y_stride: int,
        dy: int,
        dy_stride: int,
        dz: int,
        dz_stride: int,
        db: int,
        scratch: int,
        accumulate: bool = False,
    ) -> None: ...
    @staticmethod
    def scratch(channels: int) -> int: ...

class SoftmaxForward(RowStep):
    def __init__(
        self,
        rows: int,
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int,
    ) -> None: ...

class SoftmaxBackward(RowStep):
    def __init__(
        self,
        rows: int,
        channels: int,
        y: int,
        y_stride: int,
        dy: int,
        dy_stride: int,
        dx: int,
        dx_stride: int,
    ) -> None: ...

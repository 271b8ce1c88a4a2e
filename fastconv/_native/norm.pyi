"""Batch normalisation: statistics, the map itself and its gradients."""

from fastconv._native.split import SplitStep

Pointwise = tuple[int, float, float, float]

class BatchNormStatistics(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        x: int,
        x_stride: int,
        mean: int,
        variance: int,
        scratch: int,
    ) -> None: ...
    @staticmethod
    def scratch(channels: int) -> int: ...

class BatchNormForward(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        eps: float,
        x: int,
        x_stride: int,
        mean: int,
        variance: int,
        gamma: int,
        beta: int,
        y: int,
        y_stride: int,
        activation: Pointwise | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
        dropout: tuple[float, int] | None = None,
    ) -> None: ...

class BatchNormScale(SplitStep):
    def __init__(
        self, channels: int, eps: float, variance: int, gamma: int, scale: int
    ) -> None: ...

class BatchNormUpdateRunning(SplitStep):
    def __init__(
        self,
        channels: int,
        momentum: float,
        mean: int,
        variance: int,
        running_mean: int,
        running_variance: int,
    ) -> None: ...

class BatchNormBackward(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        eps: float,
        x: int,
        x_stride: int,
        mean: int,
        variance: int,
        gamma: int,
        dy: int,
        dy_stride: int,
        dx: int,
        dx_stride: int,
        dgamma: int,
        dbeta: int,
        scratch: int,
        accumulate: bool = False,
        batch_statistics: bool = True,
        activation: Pointwise | None = None,
        beta: int = -1,
        y: int = -1,
        y_stride: int | None = None,
        dz: int = -1,
        dz_stride: int | None = None,
    ) -> None: ...
    @staticmethod
    def scratch(channels: int) -> int: ...

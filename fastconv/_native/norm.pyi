"""Batch normalisation: statistics, the map itself and its gradients."""

from fastconv._native.split import RowStep, SplitStep

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

class BatchNormForward(RowStep):
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
    ) -> None: ...
    @staticmethod
    def scratch(channels: int) -> int: ...

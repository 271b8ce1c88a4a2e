from fastconv._native.epilogue import Pointwise
from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Step

class DepthwiseForward(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        x: int,
        weight: int,
        y: int,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

class DepthwiseInputGradient(Step):
    def __init__(self, geometry: ConvGeometry, *, dy: int, weight: int, dx: int) -> None: ...

class DepthwiseWeightGradient(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        x: int,
        dy: int,
        dw: int,
        scratch: int,
        accumulate: bool = False,
    ) -> None: ...
    @staticmethod
    def scratch_size(geometry: ConvGeometry) -> int: ...

class RepeatChannels(Step):
    def __init__(
        self,
        pixels: int,
        channels: int,
        times: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int,
    ) -> None: ...

class FoldChannels(Step):
    def __init__(
        self,
        pixels: int,
        channels: int,
        times: int,
        dy: int,
        dy_stride: int,
        dx: int,
        dx_stride: int,
    ) -> None: ...

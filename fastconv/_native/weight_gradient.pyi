from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Step

class ConvWeightGradient(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        x: int,
        dy: int,
        dw: int,
        scratch: int = -1,
        accumulate: bool = False,
    ) -> None: ...

class BiasGradient(Step):
    def __init__(
        self,
        *,
        pixels: int,
        channels: int,
        dy_stride: int | None = None,
        dy: int,
        db: int,
        scratch: int,
        accumulate: bool = False,
    ) -> None: ...
    @staticmethod
    def scratch_size(channels: int) -> int: ...

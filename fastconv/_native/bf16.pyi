from fastconv._native.epilogue import Pointwise
from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Step

def gain() -> float: ...
def panel_size(geometry: ConvGeometry, backward: bool = False) -> int: ...

class Bf16Pack(Step):
    def __init__(
        self, geometry: ConvGeometry, *, weight: int, panel: int, backward: bool = False
    ) -> None: ...

class Bf16Forward(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        x: int,
        panel: int,
        y: int,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

class Bf16InputGradient(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        dy: int,
        panel: int,
        dx: int,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

class Bf16WeightGradient(Step):
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

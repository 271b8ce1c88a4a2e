from fastconv._native.epilogue import Pointwise
from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Step

def tile_sizes(double: bool = False) -> dict[str, int]: ...

class PackForward(Step):
    def __init__(self, geometry: ConvGeometry, *, weight: int, panel: int) -> None: ...

class PackBackward(Step):
    def __init__(self, geometry: ConvGeometry, *, weight: int, panel: int) -> None: ...

class ConvForward(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        x: int,
        panel: int,
        y: int,
        packed: bool = True,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

class ConvInputGradient(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        dy: int,
        panel: int,
        dx: int,
        packed: bool = True,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

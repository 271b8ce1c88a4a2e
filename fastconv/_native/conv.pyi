from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Step

NONE: int
RELU: int
LEAKY_RELU: int

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
        bias: int = -1,
        activation: int = 0,
        slope: float = 0.0,
        packed: bool = True,
    ) -> None: ...

class ConvInputGradient(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        *,
        dy: int,
        panel: int,
        dx: int,
        bias: int = -1,
        activation: int = 0,
        slope: float = 0.0,
        packed: bool = True,
    ) -> None: ...

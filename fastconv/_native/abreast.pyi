from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Step

def pixels(geometry: ConvGeometry) -> int: ...
def widened(geometry: ConvGeometry, count: int) -> ConvGeometry: ...

class AbreastWeights(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        count: int,
        *,
        weight: int,
        wide: int,
        bias: int = -1,
        wide_bias: int = -1,
    ) -> None: ...

class AbreastGradient(Step):
    def __init__(
        self,
        geometry: ConvGeometry,
        count: int,
        *,
        wide: int,
        dw: int,
        accumulate: bool = False,
    ) -> None: ...

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
        passing: bool = False,
    ) -> None: ...

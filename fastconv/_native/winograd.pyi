"""Convolutions of stride 1 by Winograd's minimal filtering: F(4×4, 3×3) and F(2×2, 5×5)."""

from fastconv._native.epilogue import Pointwise
from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Step

class WinogradGeometry:
    conv: ConvGeometry
    lanes: int
    wide: bool
    forward_window_size: int
    backward_window_size: int
    forward_scratch: int
    backward_scratch: int
    gradient_scratch: int
    moments_size: int
    window: int
    def __init__(self, conv: ConvGeometry) -> None: ...
    @staticmethod
    def possible(conv: ConvGeometry) -> bool: ...
    def multiplications(self, n: int, backward: bool = False) -> int: ...

class WinogradWindows(Step):
    def __init__(
        self, geometry: WinogradGeometry, *, weight: int, windows: int, backward: bool = False
    ) -> None: ...

class WinogradForward(Step):
    algorithm: str
    def __init__(
        self,
        geometry: WinogradGeometry,
        *,
        x: int,
        windows: int,
        y: int,
        scratch: int,
        moments: tuple[int, int, int] | None = None,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

class WinogradInputGradient(Step):
    algorithm: str
    def __init__(
        self,
        geometry: WinogradGeometry,
        *,
        dy: int,
        windows: int,
        dx: int,
        scratch: int,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

class WinogradWeightGradient(Step):
    algorithm: str
    def __init__(
        self,
        geometry: WinogradGeometry,
        *,
        x: int,
        dy: int,
        dw: int,
        scratch: int,
        accumulate: bool = False,
    ) -> None: ...

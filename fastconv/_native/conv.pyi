from collections.abc import Sequence

from fastconv._native.step import Extent as Extent
from fastconv._native.step import Step

NONE: int
RELU: int
LEAKY_RELU: int

Triple = tuple[int, int, int]
Pads = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

def tile_sizes(double: bool = False) -> dict[str, int]: ...
def panel_size(taps: int, groups: int, depth: int, width: int) -> int: ...

class ConvGeometry:
    in_size: Triple
    out_size: Triple
    kernel: Triple
    strides: Triple
    dilation: Triple
    pads: Pads
    channels: int
    filters: int
    groups: int
    x_stride: int
    y_stride: int
    weight_size: int
    forward_panel_size: int
    backward_panel_size: int
    def __init__(
        self,
        *,
        in_size: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int] = (1, 1, 1),
        dilation: Sequence[int] = (1, 1, 1),
        pads: Sequence[Sequence[int]] = ((0, 0), (0, 0), (0, 0)),
        channels: int,
        filters: int,
        groups: int = 1,
        x_stride: int | None = None,
        y_stride: int | None = None,
    ) -> None: ...
    @staticmethod
    def dense(
        inputs: int, units: int, x_stride: int | None = None, y_stride: int | None = None
    ) -> ConvGeometry: ...
    @property
    def scratch_size(self) -> int: ...
    def flops(self, n: int) -> int: ...
    def x_extent(self, slot: int) -> Extent: ...
    def y_extent(self, slot: int) -> Extent: ...

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
    ) -> None: ...

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

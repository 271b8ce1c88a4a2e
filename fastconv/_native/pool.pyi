"""Max and average pooling, over windows and over whole images."""

from collections.abc import Sequence

from fastconv._native.split import SplitStep
from fastconv._native.step import Extent

class PoolGeometry:
    channels: int
    x_stride: int
    y_stride: int
    in_size: tuple[int, int, int]
    out_size: tuple[int, int, int]
    def __init__(
        self,
        in_size: Sequence[int],
        window: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[tuple[int, int]],
        channels: int,
        x_stride: int,
        y_stride: int,
    ) -> None: ...
    @property
    def taps(self) -> int: ...
    def x_extent(self, slot: int) -> Extent: ...
    def y_extent(self, slot: int) -> Extent: ...
    @property
    def index_size(self) -> int: ...
    def index_extent(self, slot: int) -> Extent: ...

class MaxPoolForward(SplitStep):
    def __init__(
        self,
        geometry: PoolGeometry,
        x: int,
        y: int,
        index: int = -1,
        dropout: tuple[float, int] | None = None,
    ) -> None: ...

class MaxPoolBackward(SplitStep):
    def __init__(self, geometry: PoolGeometry, dy: int, index: int, dx: int) -> None: ...

class AveragePoolForward(SplitStep):
    def __init__(
        self,
        geometry: PoolGeometry,
        count_padding: bool,
        x: int,
        y: int,
        dropout: tuple[float, int] | None = None,
    ) -> None: ...

class AveragePoolBackward(SplitStep):
    def __init__(self, geometry: PoolGeometry, count_padding: bool, dy: int, dx: int) -> None: ...

class GlobalAveragePoolForward(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int | None = None,
    ) -> None: ...

class GlobalAveragePoolBackward(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        dy: int,
        dx: int,
        dx_stride: int,
        dy_stride: int | None = None,
    ) -> None: ...

class GlobalMaxPoolForward(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int | None = None,
        index: int = -1,
    ) -> None: ...

class GlobalMaxPoolBackward(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        dy: int,
        index: int,
        dx: int,
        dx_stride: int,
        dy_stride: int | None = None,
    ) -> None: ...

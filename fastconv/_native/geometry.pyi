from collections.abc import Sequence

from fastconv._native.step import Extent

Triple = tuple[int, int, int]
Pads = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

LARGEST: int

def count_of(name: str, value: int, least: int = 1) -> int: ...
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

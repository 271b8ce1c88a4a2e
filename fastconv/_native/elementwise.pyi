"""Copies, sums and scalings of tensors; transposes; padding; the casts that bring samples in."""

from collections.abc import Sequence
from typing import Any

from fastconv._native.split import RowStep, SplitStep

class Copy(RowStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int,
    ) -> None: ...

class Add(RowStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        a: int,
        a_stride: int,
        b: int,
        b_stride: int,
        y: int,
        y_stride: int,
        activation: tuple[int, float, float, float] | None = None,
        dropout: tuple[float, int] | None = None,
    ) -> None: ...

class Affine(RowStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int,
        scale: float = 1.0,
        offset: float = 0.0,
    ) -> None: ...

class Fill(SplitStep):
    def __init__(self, per_sample: int, fixed: int, y: int, value: float) -> None: ...

class Transpose(SplitStep):
    def __init__(self, pixels: int, channels: int, x: int, x_stride: int, y: int) -> None: ...

class PadCopy(SplitStep):
    def __init__(
        self,
        in_size: Sequence[int],
        pads: Sequence[tuple[int, int]],
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int,
    ) -> None: ...
    @property
    def out_size(self) -> tuple[int, int, int]: ...

class CropCopy(SplitStep):
    def __init__(
        self,
        in_size: Sequence[int],
        pads: Sequence[tuple[int, int]],
        channels: int,
        x: int,
        x_stride: int,
        y: int,
        y_stride: int,
    ) -> None: ...
    @property
    def out_size(self) -> tuple[int, int, int]: ...

class Gather(SplitStep):
    def __init__(
        self,
        kind: Any,
        elements: int,
        rows: int,
        source: int,
        index: int,
        y: int,
    ) -> None: ...

class GatherLabels(SplitStep):
    def __init__(
        self,
        kind: Any,
        elements: int,
        rows: int,
        source: int,
        index: int,
        y: int,
    ) -> None: ...

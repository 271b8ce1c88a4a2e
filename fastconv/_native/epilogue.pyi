"""What a product's sums go through on their way out."""

from fastconv._native.step import Extent

Pointwise = tuple[int, float, float, float]

class Epilogue:
    reads: tuple[Extent, ...]
    plain: bool
    def __init__(
        self,
        pixels: int,
        channels: int,
        y: int,
        bias: int = -1,
        activation: Pointwise | None = None,
        norm: tuple[int, int, int] | None = None,
        residual: int = -1,
        residual_stride: int | None = None,
    ) -> None: ...

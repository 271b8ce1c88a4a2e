"""Layers that give images another size: cut a window out, or put a border around, and resample."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv.layers import _resampling
from fastconv.layers._image_layer import ImageLayer
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope


@dataclass(frozen=True)
class Region:
    """Rows and columns of an image; negative numbers and those past its end are its border."""

    top: int
    left: int
    height: int
    width: int

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """The part of the image that it shows."""
        rows = slice(max(0, self.top), min(height, self.top + self.height))
        return rows, slice(max(0, self.left), min(width, self.left + self.width))

    def pads(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The border above and below, left and right."""
        below, right = self.top + self.height - height, self.left + self.width - width
        return (max(0, -self.top), max(0, below)), (max(0, -self.left), max(0, right))


def same_shape(height: int, width: int, to: tuple[int, int]) -> Region:
    """The largest window in the middle of an image that has the shape of ``to``."""
    high = max(min(height, width * to[0] // to[1]), 1)
    wide = max(min(width, height * to[1] // to[0]), 1)
    return Region((height - high) // 2, (width - wide) // 2, high, wide)


class _Resized(ImageLayer, abstract=True):
    """``y = resampled(x[region])``. Gradient: each pixel of dy goes, with the same weights, to the
    pixels that it was made of."""

    always = True
    interpolation: str = "bilinear"
    antialias: bool = False
    fill_value: float = 0.0

    def __init__(self, height: Any, width: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.height = shapes.integer(height, "height")
        self.width = shapes.integer(width, "width")

    @property
    def to(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def whole(self) -> bool:
        """Whether the region is the image, whatever its size."""
        return False

    def region(self, height: int, width: int, lots: np.ndarray | None) -> Region:
        """What is shown of an image of this size."""
        raise NotImplementedError

    def output_shape(self, *inputs: Shape) -> Shape:
        return (*self.to, super().output_shape(*inputs)[-1])

    def apply(self, x: np.ndarray, lots: np.ndarray | None, y: np.ndarray) -> None:
        size = height, width = x.shape[1:3]
        region = self.region(height, width, lots)
        window = x[:, *region.inside(*size)]
        if any(map(any, region.pads(*size))):
            around = [(0, 0), *region.pads(*size), (0, 0)]
            window = np.pad(window, around, constant_values=self.fill_value)
        for axis, of, to in self._steps(region):
            window = _resampling.along(window, self._taps(of, to), axis)
        y[...] = window

    def spread(
        self, x: np.ndarray, lots: np.ndarray | None, dy: np.ndarray, dx: np.ndarray
    ) -> None:
        size = height, width = dx.shape[1:3]
        region = self.region(height, width, lots)
        for axis, of, to in reversed(self._steps(region)):
            back = _resampling.transposed(of, to, self.interpolation, self.antialias)
            dy = _resampling.along(dy, back, axis)
        (above, _), (left, _) = region.pads(*size)
        rows, columns = region.inside(*size)
        high, wide = rows.stop - rows.start, columns.stop - columns.start
        dx[...] = 0
        dx[:, rows, columns] = dy[:, above : above + high, left : left + wide]

    def _steps(self, region: Region) -> list[tuple[int, int, int]]:
        """(axis, size, new size) of the axes that change: first the one that shrinks more."""
        sizes = zip((1, 2), (region.height, region.width), self.to, strict=True)
        changed = [step for step in sizes if step[1] != step[2]]
        return sorted(changed, key=lambda step: step[2] / step[1])

    def _taps(self, size: int, to: int) -> _resampling.Taps:
        return _resampling.taps(size, to, self.interpolation, self.antialias)

    # -- ONNX ---------------------------------------------------------------------------------

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        x = inputs[0]
        if None in x.shape[:2]:
            if not self.whole or self.antialias or self.interpolation not in MODES:
                raise scope.refuse("the window and the weights need an input of known size")
            return self._resize(scope, x)
        height, width = shapes.known(x.shape[:2], self.name)
        region = self.region(height, width, None)
        x = _window(scope, x, region, self.fill_value)
        steps = self._steps(region)
        if self.interpolation == "nearest":
            for axis, of, to in steps:
                x = self._pick(scope, x, axis - 1, of, to)
            return x
        if steps and not self.antialias and self.interpolation in MODES:
            return self._resize(scope, x)
        for axis, of, to in steps:
            x = self._mix(scope, x, axis - 1, of, to)
        return x

    def _resize(self, scope: "Scope", x: "OnnxTensor") -> "OnnxTensor":
        """The operator for images, which runtimes have kernels for."""
        x = scope.channels_first(x)
        like = replace(x, shape=(*self.to, x.shape[-1]))
        attributes = {"coordinate_transformation_mode": "half_pixel", **MODES[self.interpolation]}
        scales = _scales(x.shape[:2], self.to)
        if scales:
            given = scope.constant([1, 1, *scales], "scales")
            return scope.node("Resize", [x, "", given], like, **attributes)
        whole = scope.node("Shape", [x], like)
        ends = [scope.constant(v, n, np.int64) for n, v in (("first", [0]), ("end", [2]))]
        kept = scope.node("Slice", [whole, *ends], like)  # samples and channels
        to = scope.constant(self.to, "size", np.int64)
        size = scope.node("Concat", [kept, to], like, axis=0)
        return scope.node("Resize", [x, "", "", size], like, **attributes)

    def _pick(self, scope: "Scope", x: "OnnxTensor", axis: int, size: int, to: int) -> "OnnxTensor":
        index = scope.constant(self._taps(size, to).index[:, 0], f"pixels_{'hw'[axis]}", np.int64)
        return scope.node("Gather", [x, index], _with(x, axis, to), axis=x.axis(axis))

    def _mix(self, scope: "Scope", x: "OnnxTensor", axis: int, size: int, to: int) -> "OnnxTensor":
        """Rows: weights · x; columns: x · weights."""
        x = scope.channels_first(x)
        matrix = self._taps(size, to).matrix(size)
        weights = scope.constant(matrix.T if axis else matrix, f"weights_{'hw'[axis]}")
        factors: list[OnnxTensor | str] = [x, weights] if axis else [weights, x]
        return scope.node("MatMul", factors, _with(x, axis, to))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}


# interpolation → how ONNX' Resize is told of it (onnxruntime refuses "cubic" in some layouts)
MODES: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest", "nearest_mode": "round_prefer_ceil"},
    "bilinear": {"mode": "linear"},
}


def _scales(shape: Shape, to: tuple[int, int]) -> list[np.float32] | None:
    """New pixels to an old one; None where sizes are unknown, or would be one too small: runtimes
    cut size · scale off."""
    found = []
    for size, new in zip(shape, to, strict=True):
        if size is None or float(_resampling.scale(size, new)) * size < new:
            return None
        found.append(_resampling.scale(size, new))
    return found


def _with(x: "OnnxTensor", axis: int, size: int) -> "OnnxTensor":
    shape = [*x.shape]
    shape[axis] = size
    return replace(x, shape=tuple(shape))


def _window(scope: "Scope", x: "OnnxTensor", region: Region, fill: float) -> "OnnxTensor":
    """The region of an image, by a Slice or a Pad where it takes one."""
    size = shapes.known(x.shape[:2], "the window")
    rows, columns = region.inside(*size)
    like = replace(x, shape=(rows.stop - rows.start, columns.stop - columns.start, x.shape[-1]))
    if like.shape != x.shape:
        bounds = ([rows.start, columns.start], [rows.stop, columns.stop], [x.axis(0), x.axis(1)])
        names = ("starts", "ends", "axes")
        operands = [scope.constant(v, n, np.int64) for v, n in zip(bounds, names, strict=True)]
        x = scope.node("Slice", [x, *operands], like)
    pads = region.pads(*size)
    if any(map(any, pads)):
        around = [(0, 0), *((*pads, (0, 0))[axis] for axis in x.order)]
        flat = [before for before, _ in around] + [after for _, after in around]
        like = replace(x, shape=(region.height, region.width, x.shape[-1]))
        value = scope.constant(fill, "fill_value")
        x = scope.node("Pad", [x, scope.constant(flat, "pads", np.int64), value], like)
    return x

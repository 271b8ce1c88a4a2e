"""Rescaling."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, shapes
from fastconv._native import elementwise
from fastconv.layer import Frame
from fastconv.layers._image_layer import OnArrays
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Rescaling(OnArrays):
    """``y = scale · x + offset``: pixels to the range that the network was trained on.

    Shapes: y has x's. Gradient: ``dx = scale · dy``.

    Parameters
    ----------
    scale, offset : float
        ``Rescaling(1 / 255)`` brings bytes to [0, 1].
    """

    elementwise = True

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = shapes.real(scale, "scale")
        self.offset = shapes.real(offset, "offset")

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(x.shape)
        self._emit(b, x, y, self.offset)
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        dx = b.in_place(dy)
        self._emit(b, dy, dx, 0.0)
        return [dx]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        y = inputs[0]
        if self.scale != 1:
            y = scope.node("Mul", [y, scope.constant(self.scale, "scale")], y)
        if self.offset != 0:
            y = scope.node("Add", [y, scope.constant(self.offset, "offset")], y)
        return y

    def of_array(self, x: np.ndarray, training: bool) -> np.ndarray:
        y = np.multiply(x, self.scale, dtype=backend.floatx())
        return np.add(y, self.offset, out=y if y.ndim else None)

    def _emit(self, b: "Builder", x: "Value", y: "Value", offset: float) -> None:
        b.emit(
            elementwise.Affine(
                x.pixels, x.channels, x.slot, x.stride, y.slot, y.stride, self.scale, offset
            )
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}

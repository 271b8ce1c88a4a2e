"""Flatten."""

from math import prod
from typing import TYPE_CHECKING, Any

from fastconv import backend, shapes
from fastconv.layer import Frame, Layer
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Flatten(Layer):
    """All values of a sample as one vector, channels fastest; nothing is moved.

    Shapes: (H, W, C) → (H · W · C,). Gradient: dy seen in x's shape.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = backend.data_format_of(data_format)

    def output_shape(self, *inputs: Shape) -> Shape:
        return (prod(shapes.known(inputs[0], self.name)),)

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = b.contiguous(frame.inputs[0])
        return x.reshape((prod(x.shape),))

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        return [b.contiguous(dy).reshape(frame.inputs[0].shape)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return scope.flatten(inputs[0])

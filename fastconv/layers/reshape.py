"""Reshape."""

from math import prod
from typing import TYPE_CHECKING, Any

from fastconv import shapes
from fastconv.layer import Frame, Layer
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Reshape(Layer):
    """The same values in another shape, in C order; nothing is moved.

    Gradient: dy seen in x's shape.

    Parameters
    ----------
    target_shape : tuple of int
        One sample's shape; at most one −1, which takes what is left.
    """

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sizes = tuple(target_shape) if isinstance(target_shape, (tuple, list)) else (target_shape,)
        self.target_shape = tuple(
            -1 if isinstance(size, int) and size == -1 else shapes.integer(size, "target_shape")
            for size in sizes
        )
        if not self.target_shape or self.target_shape.count(-1) > 1:
            raise ValueError(f"target_shape has sizes and at most one -1, not {target_shape!r}")

    def output_shape(self, *inputs: Shape) -> Shape:
        total = prod(shapes.known(inputs[0], self.name))
        given = prod(size for size in self.target_shape if size != -1)
        if total % given or (-1 not in self.target_shape and total != given):
            raise ValueError(
                f"{self.name}: the {total} values of {shapes.shape_text(inputs[0])} do not fill "
                f"the shape {self.target_shape}"
            )
        return tuple(total // given if size == -1 else size for size in self.target_shape)

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = b.contiguous(frame.inputs[0])
        return x.reshape(shapes.known(self.output_shape(x.shape), self.name))

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        return [b.contiguous(dy).reshape(frame.inputs[0].shape)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        shape = self.output_shape(inputs[0].shape)
        return scope.flatten(inputs[0]) if len(shape) == 1 else scope.reshape(inputs[0], shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": list(self.target_shape)}

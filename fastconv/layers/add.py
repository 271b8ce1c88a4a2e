"""Sum of tensors."""

from typing import TYPE_CHECKING

from fastconv import shapes
from fastconv._native import elementwise
from fastconv.layer import Frame, Layer
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Add(Layer):
    """``y = x₁ + x₂ + …``, inputs of one shape (the join of a residual block).

    Gradient: each input receives dy itself.
    """

    arity = None
    elementwise = True

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(inputs) < 2 or any(shape != inputs[0] for shape in inputs):
            given = ", ".join(map(shapes.shape_text, inputs))
            raise ValueError(f"{self.name} needs two or more inputs of one shape, not {given}")
        return inputs[0]

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        y = b.output(frame.inputs[0].shape)
        left, *others = frame.inputs
        for right in others:
            last = right is others[-1]
            b.emit(
                elementwise.Add(
                    y.pixels, y.channels,
                    left.slot, left.stride, right.slot, right.stride, y.slot, y.stride,
                    activation=frame.activation.arguments if last else None,
                    dropout=frame.mask.arguments if last and frame.mask else None,
                )
            )  # fmt: skip
            left = y
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        f = frame.activation
        if frame.mask is not None:
            f, dy = frame.mask.behind(b, f, dy)
        dz = f.backward(b, frame.output, dy)
        return [dz.shared() for _ in frame.inputs]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        terms = scope.alike(inputs)
        return scope.node("Add" if len(terms) == 2 else "Sum", terms, terms[0])

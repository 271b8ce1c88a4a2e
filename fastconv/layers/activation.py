"""An activation as a layer of its own."""

from typing import TYPE_CHECKING, Any

from fastconv import activations
from fastconv.layer import Frame, Layer
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Activation(Layer):
    """``y = f(x)``, number by number (softmax: over the channels of each pixel).

    Shapes: y has x's. Gradient: from y alone, see `fastconv.activations`.

    Parameters
    ----------
    activation : str
        "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softmax" or "linear".
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.elementwise = self.activation.name != "softmax"

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        if self.activation.name == "linear":
            return x
        y = b.output(x.shape)
        self.activation.forward(b, x, y)
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        return [self.activation.backward(b, frame.output, dy)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return self.activation.to_onnx(scope, inputs[0])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": activations.to_config(self.activation),
        }

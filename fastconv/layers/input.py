"""Where data enters a graph."""

from typing import TYPE_CHECKING, Any

from fastconv import backend, shapes
from fastconv.arguments import explained
from fastconv.layer import Frame, Layer, Node, Tensor
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class InputLayer(Layer):
    """Where data enters: ``y = x`` cast to the compute type.

    Any real numeric dtype is cast when a batch is read; values are not scaled.

    Parameters
    ----------
    shape : tuple of int or None
        One sample's shape; images in the order of their layers' ``data_format``. ``None`` stands
        for a spatial size that may vary.
    """

    arity = 0

    def __init__(self, shape: Any, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.shape = shapes.shape_of(shape)
        first = backend.image_data_format() == "channels_first" and len(self.shape) > 1
        if self.shape[0 if first else -1] is None:
            which = "first" if first else "last"
            raise ValueError(f"{self.name}: the {which} size (channels) must be known")
        self.built = True

    def tensor(self) -> Tensor:
        """A new symbolic tensor of this input."""
        self._node = Node(self, (), self.shape)
        return self._node.output

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shape

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        raise TypeError("the plan reads inputs itself")

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        return []

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return scope.input(self.shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": list(self.shape)}


@explained
def Input(shape: Any, *, name: str | None = None) -> Tensor:
    """A symbolic input tensor of one sample's ``shape`` (see `InputLayer`)."""
    return InputLayer(shape, name=name).tensor()

"""Where data enters a graph."""

from typing import TYPE_CHECKING, Any

import numpy as np

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
def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    *,
    batch_shape: Any = None,
    name: str | None = None,
) -> Tensor:
    """A symbolic input tensor of one sample's ``shape`` (see `InputLayer`).

    Parameters
    ----------
    shape : tuple of int or None
        Of one sample.
    batch_size : None
        Batches may have any size.
    dtype : dtype, optional
        Of the data, any real one: whatever comes is cast as a batch is read.
    batch_shape : tuple, optional
        Instead of ``shape``, with the batch, None, in front.
    name : str, optional
    """
    if dtype is not None and np.dtype(dtype).kind not in "buif":
        raise ValueError(f"dtype of an Input is one of real numbers, not {dtype!r}")
    if batch_shape is not None:
        if shape is not None:
            raise ValueError("an Input has a shape or a batch_shape, not both")
        batch_size, *shape = batch_shape
    if shape is None:
        raise ValueError("an Input needs the shape of one sample")
    if batch_size is not None:
        raise ValueError(f"batch_size of an Input is None, any, not {batch_size!r}: fit has one")
    return InputLayer(shape, name=name).tensor()

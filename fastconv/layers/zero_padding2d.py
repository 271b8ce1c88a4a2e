"""2-D zero padding."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, shapes
from fastconv._native import elementwise
from fastconv.layer import Frame, Layer, one_of
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class ZeroPadding2D(Layer):
    """Rows and columns of zeros around an image.

    Shapes: (H, W, C) → (H + top + bottom, W + left + right, C). Gradient: the inner part of dy.

    Parameters
    ----------
    padding : int, pair of int or pair of (before, after)
    """

    rank = 2

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = backend.data_format_of(data_format)
        if isinstance(padding, str):
            raise ValueError(f"{self.name}: padding is a number of pixels, not {padding!r}")
        pads = shapes.check_padding(padding, self.rank)
        assert not isinstance(pads, str)
        self.padding = pads

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = one_of(self, inputs[0], (self.rank + 1,), "images (H, W, channels)")
        out = tuple(
            None if size is None else size + pad[0] + pad[1]
            for size, pad in zip(shape[:-1], self.padding, strict=True)
        )
        shapes.elements((*out, shape[-1]), f"the output of {self.name}")
        return (*out, shape[-1])

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        b.emit(elementwise.PadCopy(*self._arguments(x, y)))
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        dx = b.value(frame.inputs[0].shape)
        b.emit(elementwise.CropCopy(*self._arguments(dy, dx)))
        return [dx]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        x = inputs[0]
        around = (*self.padding, (0, 0))  # none around the channels
        pads = [(0, 0), *(around[axis] for axis in x.order)]  # of the file's axes
        flat = [before for before, _ in pads] + [after for _, after in pads]
        like = replace(x, shape=self.output_shape(x.shape))
        return scope.node("Pad", [x, scope.constant(flat, "pads", np.int64)], like)

    def _arguments(self, x: "Value", y: "Value") -> tuple[Any, ...]:
        size = shapes.three(x.shape[:-1], 1)
        pads = shapes.three(self.padding, (0, 0))
        return size, pads, x.channels, x.slot, x.stride, y.slot, y.stride

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}

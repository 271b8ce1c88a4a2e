"""2-D global average pooling."""

from typing import TYPE_CHECKING

from fastconv import shapes
from fastconv._native import pool
from fastconv.layer import Frame
from fastconv.layers._global_pooling import _GlobalPooling

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each channel: ``y[c] = Σ_{h, w} x[h, w, c] / (H · W)``.

    Shapes: (H, W, C) → (C,), or (1, 1, C) with ``keepdims``. Gradient: ``dx = dy / (H · W)``.

    Parameters
    ----------
    keepdims : bool
    """

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        b.emit(
            pool.GlobalAveragePoolForward(
                pixels=x.pixels, channels=x.channels,
                x=x.slot, x_stride=x.stride, y=y.slot, y_stride=y.stride,
            )
        )  # fmt: skip
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        dx = b.value(frame.inputs[0].shape)
        b.emit(
            pool.GlobalAveragePoolBackward(
                pixels=dx.pixels, channels=dx.channels,
                dy=dy.slot, dy_stride=dy.stride, dx=dx.slot, dx_stride=dx.stride,
            )
        )  # fmt: skip
        return [dx]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return self.global_to_onnx(scope, "GlobalAveragePool", inputs[0])

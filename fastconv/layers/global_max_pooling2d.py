"""2-D global max pooling."""

from typing import TYPE_CHECKING

from fastconv import shapes
from fastconv._native import pool
from fastconv.layer import Frame
from fastconv.layers._global_pooling import _GlobalPooling

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class GlobalMaxPooling2D(_GlobalPooling):
    """The largest value of each channel: ``y[c] = max_{h, w} x[h, w, c]``.

    Shapes: (H, W, C) → (C,), or (1, 1, C) with ``keepdims``. Gradient: dy at the first pixel that
    was the maximum; forward keeps its place.

    Parameters
    ----------
    keepdims : bool
    """

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        frame.saved.winner = b.buffer(x.channels, itemsize=4) if b.keep else -1
        b.emit(
            pool.GlobalMaxPoolForward(
                pixels=x.pixels, channels=x.channels, x=x.slot, x_stride=x.stride,
                y=y.slot, y_stride=y.stride, index=frame.saved.winner,
            )
        )  # fmt: skip
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        dx = b.value(frame.inputs[0].shape)
        b.emit(
            pool.GlobalMaxPoolBackward(
                pixels=dx.pixels, channels=dx.channels, dy=dy.slot, dy_stride=dy.stride,
                index=frame.saved.winner, dx=dx.slot, dx_stride=dx.stride,
            )
        )  # fmt: skip
        return [dx]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return self.global_to_onnx(scope, "GlobalMaxPool", inputs[0])

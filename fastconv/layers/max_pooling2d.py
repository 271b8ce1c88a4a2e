"""2-D max pooling."""

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from fastconv import shapes
from fastconv._native import pool
from fastconv.activations import LINEAR
from fastconv.layer import Frame
from fastconv.layers._pooling import _Pooling

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value

MOST_TAPS = 1 << 16  # the winner's place is kept in a byte or two


class MaxPooling2D(_Pooling):
    """The largest value of each window, channel by channel: ``y[o] = max_{t ∈ window} x[o·s + t]``.

    Shapes: (H, W, C) → (OH, OW, C). Padding never wins.

    Gradient: each input receives the gradient of every window whose maximum it was (the first one,
    where several are equal); windows may overlap. Forward keeps the winner's place in its window.

    Parameters
    ----------
    pool_size, strides : int or pair of int
        ``strides`` default to ``pool_size``.
    padding : {"valid", "same"}, int, pair of int or pair of (before, after)
    """

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        if b.keep and prod(self.pool_size) > MOST_TAPS:
            raise ValueError(
                f"{self.name}: a window of {prod(self.pool_size)} pixels is too large to train "
                f"with, at most {MOST_TAPS} are possible"
            )
        geometry = self.geometry(x, x.stride, y.stride)
        winner = b.buffer(prod(y.shape), itemsize=geometry.index_size) if b.keep else -1
        frame.saved.winner = winner
        mask = frame.mask.arguments if frame.mask else None
        b.emit(pool.MaxPoolForward(geometry, x=x.slot, y=y.slot, index=winner, dropout=mask))
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        x, f = frame.inputs[0], frame.input_activation
        passed = f != LINEAR
        if frame.mask is not None:
            f, dy = frame.mask.behind(b, f, dy)
        if f != LINEAR:  # the winners' values are y: a mask over the small map, not over x
            dy = f.backward(b, frame.output, dy)
        dx = b.value(x.shape)
        geometry = self.geometry(x, dx.stride, dy.stride)
        b.emit(pool.MaxPoolBackward(geometry, dy=dy.slot, index=frame.saved.winner, dx=dx.slot))
        return [replace(dx, pre_activation=passed)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return self.window_to_onnx(scope, "MaxPool", inputs[0])

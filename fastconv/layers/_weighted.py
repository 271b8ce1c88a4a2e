"""What convolution and dense share: a weight, a bias and an activation over one gather product."""

import math
from typing import TYPE_CHECKING, Any

from fastconv import algorithms
from fastconv._native import conv, winograd
from fastconv._native.geometry import ConvGeometry
from fastconv._native.weight_gradient import BiasGradient, ConvWeightGradient
from fastconv.activations import Activation
from fastconv.layer import Frame, Layer
from fastconv.parameter import Parameter

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


class _Weighted(Layer):
    """A layer ``y = f(bias + x ∗ weight)``.

    A subclass says by `geometry` how the product walks over x; everything else is the same whether
    the weight slides over an image or meets a vector once.
    """

    weight: Parameter | None = None
    bias: Parameter | None = None
    activation: Activation

    def geometry(
        self, x: "Value", x_stride: int, y_stride: int, padded: bool = False
    ) -> ConvGeometry:
        """The problem for inputs like ``x`` with these pixel strides; ``padded``: x has zeros."""
        raise NotImplementedError(f"{type(self).__name__} must define geometry")

    def emit_forward(self, b: "Builder", frame: Frame, x: "Value", y: "Value") -> None:
        """y = f(bias + x ∗ weight); f on the way out of the registers where that is free.

        ``x`` is the input, or a copy of it with its padding.
        """
        frame.saved.x, frame.saved.padded = x, x is not frame.inputs[0]
        geometry = self.geometry(x, x.stride, y.stride, frame.saved.padded)
        fused = self.activation.epilogue
        ends: dict[str, Any] = {
            "x": x.slot, "y": y.slot, "bias": b.parameter(self.bias),
            "activation": fused or 0, "slope": self.activation.alpha,
        }  # fmt: skip
        if algorithms.convolution(geometry, "forward", b.convolution) == "winograd":
            tiled = winograd.WinogradGeometry(geometry)
            windows = self._emit_windows(b, tiled)
            scratch = b.buffer(0, tiled.forward_scratch)
            b.emit(winograd.WinogradForward(tiled, windows=windows, scratch=scratch, **ends))
        else:
            panel = b.parameter(self.weight)
            packed = math.prod(geometry.kernel) > 1  # a single tap reads the weight where it lies
            if packed:
                panel = b.buffer(0, geometry.forward_panel_size)
                b.emit(conv.PackForward(geometry, weight=b.parameter(self.weight), panel=panel))
            b.emit(conv.ConvForward(geometry, panel=panel, packed=packed, **ends))
        if fused is None:
            self.activation.forward(b, y, y)

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        """dz through f, then the sums over outputs: for the bias, the weight and the input."""
        dz = self.activation.backward(b, frame.output, dy)
        if self.trainable:
            self._emit_parameter_gradients(b, frame, dz)
        return [self._emit_input_gradient(b, frame.inputs[0], dz) if frame.needs[0] else None]

    def _emit_parameter_gradients(self, b: "Builder", frame: Frame, dz: "Value") -> None:
        assert self.weight is not None
        x = frame.saved.x
        geometry = self.geometry(x, x.stride, dz.stride, frame.saved.padded)
        if self.bias is not None:
            db, add = b.gradient(self.bias)
            step = BiasGradient(
                pixels=dz.pixels, channels=dz.channels, dy_stride=dz.stride,
                dy=dz.slot, db=db, scratch=b.buffer(0, BiasGradient.scratch_size(dz.channels)),
                accumulate=add,
            )  # fmt: skip
            b.emit(step)
        dw, add = b.gradient(self.weight)
        ends: dict[str, Any] = {"x": x.slot, "dy": dz.slot, "dw": dw, "accumulate": add}
        if algorithms.convolution(geometry, "weight_gradient", b.convolution) == "winograd":
            tiled = winograd.WinogradGeometry(geometry)
            scratch = b.buffer(0, tiled.gradient_scratch)
            b.emit(winograd.WinogradWeightGradient(tiled, scratch=scratch, **ends))
        else:
            scratch = b.buffer(0, geometry.scratch_size)
            b.emit(ConvWeightGradient(geometry, scratch=scratch, **ends))

    def _emit_input_gradient(self, b: "Builder", x: "Value", dz: "Value") -> "Value":
        dx = b.value(x.shape)
        geometry = self.geometry(x, dx.stride, dz.stride)
        if algorithms.convolution(geometry, "input_gradient", b.convolution) == "winograd":
            tiled = winograd.WinogradGeometry(geometry)
            windows = self._emit_windows(b, tiled, backward=True)
            scratch = b.buffer(0, tiled.backward_scratch)
            b.emit(
                winograd.WinogradInputGradient(
                    tiled, dy=dz.slot, windows=windows, dx=dx.slot, scratch=scratch
                )
            )
            return dx
        panel = b.parameter(self.weight)
        packed = math.prod(geometry.kernel) > 1
        if packed:
            panel = b.buffer(0, geometry.backward_panel_size)
            b.emit(conv.PackBackward(geometry, weight=b.parameter(self.weight), panel=panel))
        step = conv.ConvInputGradient(
            geometry, dy=dz.slot, panel=panel, dx=dx.slot, packed=packed
        )  # fmt: skip
        b.emit(step)
        return dx

    def _emit_windows(
        self, b: "Builder", tiled: winograd.WinogradGeometry, backward: bool = False
    ) -> int:
        """The slot of the transformed weights; of the weights where steps transform them."""
        if tiled.wide:
            return b.parameter(self.weight)
        size = tiled.backward_window_size if backward else tiled.forward_window_size
        windows = b.buffer(0, size)
        weight = b.parameter(self.weight)
        b.emit(winograd.WinogradWindows(tiled, weight=weight, windows=windows, backward=backward))
        return windows

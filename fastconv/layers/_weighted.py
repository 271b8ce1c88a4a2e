"""What convolution and dense share: a weight, a bias and an activation over one gather product."""

import math
from typing import TYPE_CHECKING, Any

from fastconv import algorithms
from fastconv._native import activation, conv, winograd
from fastconv.activations import LINEAR, Activation
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
    ) -> conv.ConvGeometry:
        """The problem for inputs like ``x`` with these pixel strides; ``padded``: x has zeros."""
        raise NotImplementedError(f"{type(self).__name__} must define geometry")

    def emit_forward(self, b: "Builder", frame: Frame, x: "Value", y: "Value") -> None:
        """y = f(bias + x ∗ weight); f on the way out of the registers where that is free.

        ``x`` is the input, or a copy of it with its padding.
        """
        frame.saved.x, frame.saved.padded = x, x is not frame.inputs[0]
        geometry = self.geometry(x, x.stride, y.stride, frame.saved.padded)
        f = self.function(frame)
        fused = f.epilogue
        ends: dict[str, Any] = {
            "x": x.slot, "y": y.slot, "bias": b.parameter(self.bias),
            "activation": fused or 0, "slope": f.alpha,
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
            f.forward(b, y, y)

    def function(self, frame: Frame) -> Activation:
        """f: the layer's own, or that of a node which follows it."""
        return self.activation if frame.activation == LINEAR else frame.activation

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        """dz through f, then the sums over outputs: for the bias, the weight and the input."""
        f, y = self.function(frame), frame.output
        if self.trainable and self.bias is not None:
            dz = self._emit_bias_gradient(b, f, y, dy)
        else:
            dz = f.backward(b, y, dy)
        if self.trainable:
            self._emit_weight_gradient(b, frame, dz)
        return [self._emit_input_gradient(b, frame.inputs[0], dz) if frame.needs[0] else None]

    def _emit_bias_gradient(self, b: "Builder", f: Activation, y: "Value", dy: "Value") -> "Value":
        """dz, and its sum over the outputs in the same pass where f allows it."""
        assert self.bias is not None
        together = f.piecewise_linear and not dy.pre_activation
        dz = b.in_place(dy) if together else f.backward(b, y, dy)
        db, add = b.gradient(self.bias)
        b.emit(
            activation.BiasBackward(
                f.arguments if together else None, y.pixels, y.channels, y.slot, y.stride,
                dy.slot if together else dz.slot, dy.stride if together else dz.stride,
                dz.slot, dz.stride, db,
                b.buffer(0, activation.BiasBackward.scratch(y.channels)), accumulate=add,
            )
        )  # fmt: skip
        return dz

    def _emit_weight_gradient(self, b: "Builder", frame: Frame, dz: "Value") -> None:
        assert self.weight is not None
        x = frame.saved.x
        geometry = self.geometry(x, x.stride, dz.stride, frame.saved.padded)
        dw, add = b.gradient(self.weight)
        ends: dict[str, Any] = {"x": x.slot, "dy": dz.slot, "dw": dw, "accumulate": add}
        if algorithms.convolution(geometry, "weight_gradient", b.convolution) == "winograd":
            tiled = winograd.WinogradGeometry(geometry)
            scratch = b.buffer(0, tiled.gradient_scratch)
            b.emit(winograd.WinogradWeightGradient(tiled, scratch=scratch, **ends))
        else:
            scratch = b.buffer(0, geometry.scratch_size)
            b.emit(conv.ConvWeightGradient(geometry, scratch=scratch, **ends))

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
        panel = b.buffer(0, geometry.backward_panel_size)
        b.emit(conv.PackBackward(geometry, weight=b.parameter(self.weight), panel=panel))
        b.emit(conv.ConvInputGradient(geometry, dy=dz.slot, panel=panel, dx=dx.slot))
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

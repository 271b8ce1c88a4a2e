"""What convolution and dense share: a weight, a bias and an activation over one gather product."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fastconv import algorithms
from fastconv._native import abreast, activation, bf16, conv, depthwise, winograd
from fastconv._native.geometry import ConvGeometry
from fastconv._native.weight_gradient import ConvWeightGradient
from fastconv.activations import LINEAR, Activation
from fastconv.layer import Frame, Layer
from fastconv.parameter import Parameter
from fastconv.shapes import Shape, known

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


class _Weighted(Layer):
    """A layer ``y = f(bias + x ∗ weight)``.

    A subclass says by `geometry` how the product walks over x; everything else is the same whether
    the weight slides over an image or meets a vector once.
    """

    held: ClassVar[dict[str, str]] = {"kernel": "kernel", "bias": "bias"}

    weight: Parameter | None = None
    bias: Parameter | None = None
    activation: Activation

    @property
    def kernel(self) -> Parameter | None:
        """Keras' name of ``weight``."""
        return self.weight

    def geometry(
        self, x: "Value", x_stride: int, y_stride: int, padded: bool = False
    ) -> ConvGeometry:
        """The problem for inputs like ``x`` with these pixel strides; ``padded``: x has zeros."""
        raise NotImplementedError(f"{type(self).__name__} must define geometry")

    def multiply_adds(self, inputs: Sequence[Shape], output: Shape) -> int | None:
        return self._products(output)

    def _products(self, pixels: Shape) -> int | None:
        """Products where each of these pixels meets the whole weight."""
        if self.weight is None or None in pixels[:-1]:
            return None
        return math.prod(known(pixels[:-1], self.name)) * self.weight.value.size

    def emit_forward(self, b: "Builder", frame: Frame, x: "Value", y: "Value") -> None:
        """y = f(bias + x ∗ weight) and what else the frame carries out.

        ``x`` is the input, or a copy of it with its padding.
        """
        frame.saved.padded = None if x is frame.inputs[0] else x
        geometry = self.geometry(x, x.stride, y.stride, frame.saved.padded is not None)
        together = abreast.pixels(geometry) == 1
        epilogue = self._epilogue(b, frame, together)
        frame.saved.moments = self._emit_product(b, geometry, x, y, epilogue, frame.moments)
        self._emit_rest(b, frame, y, y, together)

    def function(self, frame: Frame) -> Activation:
        """f: the layer's own, or that of a node which follows it."""
        return self.activation if frame.activation == LINEAR else frame.activation

    def _epilogue(self, b: "Builder", frame: Frame, together: bool = True) -> dict[str, Any]:
        """What the product's step does on its way out of the registers, as its arguments.

        ``together``: the norm that the frame carries out, and what follows it, too. (Not where
        several pixels go abreast: they have a column for each of them.)
        """
        f = self.function(frame)
        found: dict[str, Any] = {"bias": b.parameter(self.bias)}
        if frame.norm is not None and not together:
            return found
        if f.piecewise_linear:
            found["activation"] = f.arguments
        if frame.norm is not None:
            found["norm"] = frame.norm.emit_scale(b)
            if len(frame.inputs) == 2:
                residual = frame.inputs[1]
                found.update(residual=residual.slot, residual_stride=residual.stride)
        return found

    def _emit_rest(
        self, b: "Builder", frame: Frame, z: "Value", y: "Value", together: bool = True
    ) -> None:
        """From z, the step's result, to y: what `_epilogue` left; they are one if it was all."""
        f = self.function(frame)
        if frame.norm is not None and not together:
            residual = frame.inputs[1] if len(frame.inputs) == 2 else None
            frame.norm.emit_map(b, z, residual, f, y)
        elif f != LINEAR and not f.piecewise_linear:
            f.forward(b, z, y)
        if frame.mask is not None:
            frame.mask.forward(b, y, y)

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        """dz through f, then the sums over outputs: for the bias, the weight and the input."""
        dz = self._emit_through(b, frame, dy)
        if self.trainable:
            padded = frame.saved.padded
            x = padded or frame.inputs[0]
            geometry = self.geometry(x, x.stride, dz.stride, padded is not None)
            self._emit_weight_gradient(b, geometry, x, dz)
        if not frame.needs[0]:
            return [None]
        dx = b.value(frame.inputs[0].shape)
        geometry = self.geometry(dx, dx.stride, dz.stride)
        self._emit_transposed(b, geometry, dz, dx)
        return [dx]

    def _emit_through(self, b: "Builder", frame: Frame, dy: "Value") -> "Value":
        """dz, the gradient before f, and its sum for the bias: in one pass where f allows it."""
        f, y = self.function(frame), frame.output
        if frame.mask is not None:
            f, dy = frame.mask.behind(b, f, dy)
        if self.bias is None or not self.trainable:
            return f.backward(b, y, dy)
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

    def _emit_product(
        self,
        b: "Builder",
        geometry: ConvGeometry,
        x: "Value",
        y: "Value",
        epilogue: dict[str, Any] | None = None,
        moments: bool = False,
    ) -> tuple[int, int] | None:
        """y = x ∗ weight, the convolution of ``geometry``.

        Returns the slots of y's mean and variance where ``moments`` are wanted and cost less on the
        way out than in a pass of their own.
        """
        found: tuple[int, int] | None = None
        ends: dict[str, Any] = {"x": x.slot, "y": y.slot, **(epilogue or {})}
        algorithm = algorithms.convolution(geometry, "forward", b.convolution, b.bf16)
        weight = b.parameter(self.weight)
        if algorithm == "depthwise":
            b.emit(depthwise.DepthwiseForward(geometry, weight=weight, **ends))
        elif algorithm == "winograd":
            tiled = winograd.WinogradGeometry(geometry)
            windows = self._emit_windows(b, tiled)
            scratch = b.buffer(0, tiled.forward_scratch)
            if moments:
                found = b.buffer(0, geometry.filters), b.buffer(0, geometry.filters)
                ends["moments"] = (*found, b.buffer(tiled.moments_size))
            b.emit(winograd.WinogradForward(tiled, windows=windows, scratch=scratch, **ends))
        elif algorithm == "bf16":
            panel = self._emit_pairs(b, geometry)
            b.emit(bf16.Bf16Forward(geometry, panel=panel, **ends))
        elif math.prod(geometry.kernel) == 1:  # a single tap reads the weight where it lies
            b.emit(conv.ConvForward(geometry, panel=weight, packed=False, **ends))
        else:
            count = abreast.pixels(geometry)
            if count > 1:
                weight, ends["bias"] = self._emit_abreast(b, geometry, count, ends.get("bias", -1))
                geometry = abreast.widened(geometry, count)
            panel = b.buffer(0, geometry.forward_panel_size)
            b.emit(conv.PackForward(geometry, weight=weight, panel=panel))
            b.emit(conv.ConvForward(geometry, panel=panel, **ends))
        return found

    def _emit_weight_gradient(
        self, b: "Builder", geometry: ConvGeometry, x: "Value", dy: "Value"
    ) -> None:
        """dweight = Σ x · dy over the outputs of ``geometry``."""
        assert self.weight is not None
        dw, add = b.gradient(self.weight)
        ends: dict[str, Any] = {"x": x.slot, "dy": dy.slot, "dw": dw, "accumulate": add}
        algorithm = algorithms.convolution(geometry, "weight_gradient", b.convolution, b.bf16)
        if algorithm == "depthwise":
            scratch = b.buffer(0, depthwise.DepthwiseWeightGradient.scratch_size(geometry))
            b.emit(depthwise.DepthwiseWeightGradient(geometry, scratch=scratch, **ends))
        elif algorithm == "winograd":
            tiled = winograd.WinogradGeometry(geometry)
            scratch = b.buffer(0, tiled.gradient_scratch)
            b.emit(winograd.WinogradWeightGradient(tiled, scratch=scratch, **ends))
        elif algorithm == "bf16":
            scratch = b.buffer(0, geometry.scratch_size)
            b.emit(bf16.Bf16WeightGradient(geometry, scratch=scratch, **ends))
        elif (count := abreast.pixels(geometry)) > 1:
            wide = abreast.widened(geometry, count)
            ends["dw"] = b.buffer(0, wide.weight_size)
            scratch = b.buffer(0, wide.scratch_size)
            b.emit(ConvWeightGradient(wide, scratch=scratch, passing=True, **ends))
            b.emit(abreast.AbreastGradient(geometry, count, wide=ends["dw"], dw=dw, accumulate=add))
        else:
            scratch = b.buffer(0, geometry.scratch_size)
            b.emit(ConvWeightGradient(geometry, scratch=scratch, **ends))

    def _emit_transposed(
        self,
        b: "Builder",
        geometry: ConvGeometry,
        dy: "Value",
        dx: "Value",
        epilogue: dict[str, Any] | None = None,
    ) -> None:
        """dx = the input's share of dy, by the weight turned around: ``geometry`` backwards."""
        ends: dict[str, Any] = {"dy": dy.slot, "dx": dx.slot, **(epilogue or {})}
        algorithm = algorithms.convolution(geometry, "input_gradient", b.convolution, b.bf16)
        weight = b.parameter(self.weight)
        if algorithm == "depthwise" and epilogue is None:
            b.emit(depthwise.DepthwiseInputGradient(geometry, weight=weight, **ends))
        elif algorithm == "winograd":
            tiled = winograd.WinogradGeometry(geometry)
            windows = self._emit_windows(b, tiled, backward=True)
            scratch = b.buffer(0, tiled.backward_scratch)
            b.emit(winograd.WinogradInputGradient(tiled, windows=windows, scratch=scratch, **ends))
        elif algorithm == "bf16":
            panel = self._emit_pairs(b, geometry, backward=True)
            b.emit(bf16.Bf16InputGradient(geometry, panel=panel, **ends))
        elif math.prod(geometry.kernel) == 1 and epilogue is None:  # a tap reads where it lies
            b.emit(conv.ConvInputGradient(geometry, panel=weight, packed=False, **ends))
        else:
            panel = b.buffer(0, geometry.backward_panel_size)
            b.emit(conv.PackBackward(geometry, weight=weight, panel=panel))
            b.emit(conv.ConvInputGradient(geometry, panel=panel, **ends))

    def _emit_abreast(
        self, b: "Builder", geometry: ConvGeometry, count: int, bias: int
    ) -> tuple[int, int]:
        """The slots of the weight and the bias for ``count`` output pixels as one."""
        wide = b.buffer(0, abreast.widened(geometry, count).weight_size)
        wide_bias = b.buffer(0, count * geometry.filters) if bias >= 0 else -1
        b.emit(
            abreast.AbreastWeights(
                geometry, count, weight=b.parameter(self.weight), wide=wide, bias=bias,
                wide_bias=wide_bias,
            )
        )  # fmt: skip
        return wide, wide_bias

    def _emit_pairs(self, b: "Builder", geometry: ConvGeometry, backward: bool = False) -> int:
        """The slot of the weights, rounded to bfloat16."""
        panel = b.buffer(0, bf16.panel_size(geometry, backward))
        weight = b.parameter(self.weight)
        b.emit(bf16.Bf16Pack(geometry, weight=weight, panel=panel, backward=backward))
        return panel

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

"""2-D transposed convolution."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import initializers, shapes
from fastconv._native.geometry import ConvGeometry
from fastconv.layer import Frame
from fastconv.layers._convolution import _Convolution
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Conv2DTranspose(_Convolution):
    """2-D transposed convolution: what the input gradient of a convolution computes, as a layer.

    Every input pixel is multiplied by the window and added to the outputs under it, windows
    ``strides`` apart: ``y[h·sh + kh·dh − ch, w·sw + kw·dw − cw, oc] += x[h, w, ic] ·
    weight[kh, kw, oc, ic]``, then bias and f. (ch, cw) is what the padding cuts off before.

    Shapes: x (H, W, IC) → y (OH, OW, OC); weight (KH, KW, OC, IC), bias (OC,). OH is H·sh with
    padding "same", (H − 1)·sh + max(KH, sh) with "valid" (KH counts dilation), and
    (H − 1)·sh + KH % 2 + output_padding or (H − 1)·sh + KH + output_padding where that is given.

    Gradients, with dz the gradient before the activation f: it is the transpose of the convolution
    with the same weight, so ``dx`` is that convolution of dz, and ``dweight`` its weight gradient
    with x and dz in each other's place; ``dbias = Σ dz``. Derived in docs/gradients.md.

    Parameters
    ----------
    filters : int
        Output channels OC.
    kernel_size, strides, dilation_rate : int or pair of int
    padding : {"valid", "same"}
    output_padding : int or pair of int, optional
        Sets the output's size, as above; smaller than the stride.
    activation : str, optional
        See `fastconv.activations`.
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        word = shapes.choice(str(padding).lower(), ["valid", "same"], "padding")
        super().__init__(
            kernel_size, strides, word, data_format, dilation_rate, activation, use_bias,
            bias_initializer, **kwargs,
        )  # fmt: skip
        self.filters = shapes.integer(filters, "filters")
        self.output_padding = shapes.check_output_padding(output_padding, self.strides)
        self.kernel_initializer = initializers.get(kernel_initializer, "kernel_initializer")

    def split(self, channels: int) -> tuple[int, int]:
        if self.weight is not None and self.weight.shape[-1] != channels:
            raise ValueError(
                f"{self.name} was built for {self.weight.shape[-1]} channels, "
                f"its input has {channels}"
            )
        return self.filters, 1

    def window(self, spatial: Shape) -> tuple[Shape, shapes.Pads]:
        """The output's spatial sizes, and (before, after) that are cut off in each dim."""
        return shapes.transposed_window(
            self.name, spatial, self.kernel_size, self.strides, self.dilation_rate,
            str(self.padding), self.output_padding,
        )  # fmt: skip

    def multiply_adds(self, inputs: Sequence[Shape], output: Shape) -> int | None:
        return self._products(inputs[0])

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.image(inputs[0])
        filters, _ = self.split(shapes.known(shape[-1:], self.name)[0])
        out = (*self.window(shape[:-1])[0], filters)
        shapes.elements(out, f"the output of {self.name}")
        return out

    def build(self, *inputs: Shape) -> None:
        channels = shapes.known(inputs[0][-1:], self.name)[0]
        shape = (*self.kernel_size, self.filters, channels)
        self.weight = self.add_parameter("kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_parameter("bias", (self.filters,), self.bias_initializer)

    def transpose_of(self, x: "Value", y: "Value") -> ConvGeometry:
        """The convolution from y to x, of which this layer is the transpose."""
        crops = self.window(x.shape[:-1])[1]
        pads = [(before, max(after, 0)) for before, after in crops]
        return ConvGeometry(
            in_size=shapes.three(y.shape[:-1], 1),
            kernel=shapes.three(self.kernel_size, 1),
            strides=shapes.three(self.strides, 1),
            dilation=shapes.three(self.dilation_rate, 1),
            pads=shapes.three(pads, (0, 0)),
            channels=self.filters,
            filters=x.channels,
            x_stride=y.stride,
            y_stride=x.stride,
        )

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        # a slice of a concatenation may be summed in another order than the norm's input would be
        together = frame.norm is None or y.contiguous
        z = y if together else b.value(y.shape)
        self._emit_transposed(b, self.transpose_of(x, z), x, z, self._epilogue(b, frame, together))
        self._emit_rest(b, frame, z, y, together)
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        x = frame.inputs[0]
        dz = self._emit_through(b, frame, dy)
        if self.trainable:
            self._emit_weight_gradient(b, self.transpose_of(x, dz), dz, x)
        if not frame.needs[0]:
            return [None]
        dx = b.value(x.shape)
        self._emit_product(b, self.transpose_of(dx, dz), dz, dx)
        return [dx]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        assert self.weight is not None
        x = scope.channels_first(inputs[0])
        crops = self.window(x.shape[:-1])[1]
        attributes: dict[str, Any] = {
            "kernel_shape": list(self.kernel_size),
            "strides": list(self.strides),
            "pads": [before for before, _ in crops] + [max(after, 0) for _, after in crops],
        }
        if any(after < 0 for _, after in crops):
            attributes["output_padding"] = [max(-after, 0) for _, after in crops]
        if any(step > 1 for step in self.dilation_rate):
            attributes["dilations"] = list(self.dilation_rate)
        # (KH, KW, OC, IC) → (IC, OC, KH, KW)
        weight = np.moveaxis(self.weight.value, (-1, -2), (0, 1))
        operands: list[OnnxTensor | str] = [x, scope.parameter(self.weight, weight)]
        if self.bias is not None:
            operands.append(scope.parameter(self.bias))
        like = replace(x, shape=self.output_shape(x.shape))
        y = scope.node("ConvTranspose", operands, like, **attributes)
        return self.activation.to_onnx(scope, y)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "output_padding": self.output_padding and list(self.output_padding),
            "kernel_initializer": initializers.to_config(self.kernel_initializer),
        }

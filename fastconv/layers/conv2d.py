"""2-D convolution."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import activations, initializers, shapes
from fastconv._native import elementwise
from fastconv._native.geometry import ConvGeometry
from fastconv.layer import Frame, check_data_format, one_of
from fastconv.layers._weighted import _Weighted
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value

FEW_CHANNELS = 4  # up to so many, a padded copy pays


class Conv2D(_Weighted):
    """2-D convolution (cross-correlation, as in every framework).

    ``y[oh, ow, oc] = f(bias[oc] + Σ_{kh, kw, ic} x[oh·sh + kh·dh − ph, ow·sw + kw·dw − pw, ic] ·
    weight[kh, kw, ic, oc])``, with zeros where the index falls outside.

    Shapes: x (H, W, IC) → y (OH, OW, OC); weight (KH, KW, IC / groups, OC), bias (OC,).

    Gradients, with dz the gradient before the activation f: every weight's is the sum over the
    outputs it touched, ``dweight[kh, kw, ic, oc] = Σ x[…] · dz[oh, ow, oc]``; the input's is the
    convolution of dz with the flipped weight; ``dbias = Σ dz``. Derived in docs/gradients.md.

    Parameters
    ----------
    filters : int
        Output channels OC.
    kernel_size, strides, dilation_rate : int or pair of int
    padding : {"valid", "same"}, int, pair of int or pair of (before, after)
        Explicit zeros go beyond Keras.
    groups : int
        Channels and filters fall into so many groups that do not see each other.
    activation : str, optional
        See `fastconv.activations`.
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    """

    rank = 2

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_data_format(data_format)
        self.filters = shapes.integer(filters, "filters")
        self.kernel_size = shapes.integers(kernel_size, self.rank, "kernel_size")
        self.strides = shapes.integers(strides, self.rank, "strides")
        self.dilation_rate = shapes.integers(dilation_rate, self.rank, "dilation_rate")
        self.padding = shapes.check_padding(padding, self.rank)
        self.groups = shapes.integer(groups, "groups")
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer, "kernel_initializer")
        self.bias_initializer = initializers.get(bias_initializer, "bias_initializer")
        if self.filters % self.groups:
            raise ValueError(f"{self.name}: filters {filters} is not a multiple of groups {groups}")

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = one_of(self, inputs[0], (self.rank + 1,), "images (H, W, channels)")
        channels = shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(
                f"{self.name}: {channels} channels do not fall into {self.groups} groups"
            )
        if self.weight is not None and self.weight.shape[-2] * self.groups != channels:
            raise ValueError(
                f"{self.name} was built for {self.weight.shape[-2] * self.groups} channels, "
                f"its input has {channels}"
            )
        spatial = shapes.window_shape(
            self.name, shape[:-1], self.kernel_size, self.strides, self.dilation_rate, self.padding
        )
        out = (*spatial, self.filters)
        shapes.elements(out, f"the output of {self.name}")
        return out

    def build(self, *inputs: Shape) -> None:
        channels = shapes.known(inputs[0][-1:], self.name)[0]
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.weight = self.add_parameter("kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_parameter("bias", (self.filters,), self.bias_initializer)

    def pads(self, spatial: tuple[int, ...]) -> shapes.Pads:
        """Zeros before and after each spatial dim for an input of this size."""
        return shapes.resolve_padding(
            self.padding, spatial, self.kernel_size, self.strides, self.dilation_rate
        )

    def geometry(
        self, x: "Value", x_stride: int, y_stride: int, padded: bool = False
    ) -> ConvGeometry:
        pads = ((0, 0),) * self.rank if padded else self.pads(x.shape[:-1])
        return ConvGeometry(
            in_size=shapes.three(x.shape[:-1], 1),
            kernel=shapes.three(self.kernel_size, 1),
            strides=shapes.three(self.strides, 1),
            dilation=shapes.three(self.dilation_rate, 1),
            pads=shapes.three(pads, (0, 0)),
            channels=x.channels,
            filters=self.filters,
            groups=self.groups,
            x_stride=x_stride,
            y_stride=y_stride,
        )

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        self.emit_forward(b, frame, self._padded(b, x), y)
        return y

    def _padded(self, b: "Builder", x: "Value") -> "Value":
        """A copy of x with its zeros where that pays, else x.

        With few channels the taps of a row, KW · IC numbers that lie side by side, are one longer
        tap wherever none of them falls outside the image.
        """
        pads = self.pads(x.shape[:-1])
        if not any(pads[-1]) or x.channels > FEW_CHANNELS or self.groups > 1:
            return x
        spatial = [size + sum(pad) for size, pad in zip(x.shape[:-1], pads, strict=True)]
        y = b.value((*spatial, x.channels))
        size, border = shapes.three(x.shape[:-1], 1), shapes.three(pads, (0, 0))
        b.emit(elementwise.PadCopy(size, border, x.channels, x.slot, x.stride, y.slot, y.stride))
        return y

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        assert self.weight is not None
        x = scope.channels_first(inputs[0])
        attributes = scope.window_attributes(
            x, self.kernel_size, self.strides, self.dilation_rate, self.padding
        )
        if self.groups > 1:
            attributes["group"] = self.groups
        # (KH, KW, IC / groups, OC) → (OC, IC / groups, KH, KW)
        weight = np.moveaxis(self.weight.value, (-1, -2), (0, 1))
        operands: list[OnnxTensor | str] = [x, scope.parameter(self.weight, weight)]
        if self.bias is not None:
            operands.append(scope.parameter(self.bias))
        like = replace(x, shape=self.output_shape(x.shape))
        return self.activation.to_onnx(scope, scope.node("Conv", operands, like, **attributes))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "dilation_rate": list(self.dilation_rate),
            "groups": self.groups,
            "activation": activations.to_config(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.to_config(self.kernel_initializer),
            "bias_initializer": initializers.to_config(self.bias_initializer),
        }

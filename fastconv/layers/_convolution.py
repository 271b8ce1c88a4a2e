"""What convolutions share: a window that slides over images, and its arguments."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import activations, backend, initializers, shapes
from fastconv._native.geometry import ConvGeometry
from fastconv.layer import Frame, one_of
from fastconv.layers._weighted import _Weighted
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class _Convolution(_Weighted):
    """A window that slides over x (H, W, IC), with its arguments checked.

    A subclass says by `split` into how many filters and groups the channels go, and makes the
    parameters.
    """

    rank = 2

    def __init__(
        self,
        kernel_size: Any,
        strides: Any,
        padding: Any,
        data_format: str | None,
        dilation_rate: Any,
        activation: Any,
        use_bias: bool,
        bias_initializer: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = backend.data_format_of(data_format)
        self.kernel_size = shapes.integers(kernel_size, self.rank, "kernel_size")
        self.strides = shapes.integers(strides, self.rank, "strides")
        self.dilation_rate = shapes.integers(dilation_rate, self.rank, "dilation_rate")
        self.padding = shapes.check_padding(padding, self.rank)
        self.activation = activations.get(activation)
        if self.channels_first and self.activation.name == "softmax":
            raise ValueError(
                f"{self.name}: softmax goes over the last axis, which are not the channels with "
                'data_format="channels_first"; follow it with Softmax(axis=1)'
            )
        self.use_bias = bool(use_bias)
        self.bias_initializer = initializers.get(bias_initializer, "bias_initializer")

    def split(self, channels: int) -> tuple[int, int]:
        """(filters, groups) over so many input channels."""
        raise NotImplementedError(f"{type(self).__name__} must define split")

    def convolved(self, channels: int) -> tuple[int, int]:
        """(filters, groups) of the convolution that is run over so many channels."""
        return self.split(channels)

    def image(self, shape: Shape) -> Shape:
        """The input's shape when it is an image with a known number of channels."""
        shape = one_of(self, shape, (self.rank + 1,), "images (H, W, channels)")
        if shape[-1] is None:
            raise ValueError(f"{self.name} needs a known number of channels")
        return shape

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = self.image(inputs[0])
        spatial = shapes.window_shape(
            self.name, shape[:-1], self.kernel_size, self.strides, self.dilation_rate, self.padding
        )
        out = (*spatial, self.split(shapes.known(shape[-1:], self.name)[0])[0])
        shapes.elements(out, f"the output of {self.name}")
        return out

    def pads(self, spatial: tuple[int, ...]) -> shapes.Pads:
        """Zeros before and after each spatial dim for an input of this size."""
        return shapes.resolve_padding(
            self.padding, spatial, self.kernel_size, self.strides, self.dilation_rate
        )

    def geometry(
        self, x: "Value", x_stride: int, y_stride: int, padded: bool = False
    ) -> ConvGeometry:
        pads = ((0, 0),) * self.rank if padded else self.pads(x.shape[:-1])
        filters, groups = self.convolved(x.channels)
        return ConvGeometry(
            in_size=shapes.three(x.shape[:-1], 1),
            kernel=shapes.three(self.kernel_size, 1),
            strides=shapes.three(self.strides, 1),
            dilation=shapes.three(self.dilation_rate, 1),
            pads=shapes.three(pads, (0, 0)),
            channels=x.channels,
            filters=filters,
            groups=groups,
            x_stride=x_stride,
            y_stride=y_stride,
        )

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        self.emit_forward(b, frame, x, y)
        return y

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        assert self.weight is not None
        x = scope.channels_first(inputs[0])
        attributes = scope.window_attributes(
            x, self.kernel_size, self.strides, self.dilation_rate, self.padding
        )
        filters, groups = self.split(shapes.known(x.shape[-1:], self.name)[0])
        if groups > 1:
            attributes["group"] = groups
        # (KH, KW, IC / groups, OC) → (OC, IC / groups, KH, KW)
        weight = self.weight.value.reshape(*self.kernel_size, -1, filters)
        weight = np.moveaxis(weight, (-1, -2), (0, 1))
        operands: list[OnnxTensor | str] = [x, scope.parameter(self.weight, weight)]
        if self.bias is not None:
            operands.append(scope.parameter(self.bias))
        like = replace(x, shape=self.output_shape(x.shape))
        return self.activation.to_onnx(scope, scope.node("Conv", operands, like, **attributes))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "dilation_rate": list(self.dilation_rate),
            "activation": activations.to_config(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": initializers.to_config(self.bias_initializer),
        }

"""2-D depthwise separable convolution."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from fastconv import backend, shapes
from fastconv.activations import LINEAR
from fastconv.layer import Frame, Layer
from fastconv.layers.conv2d import Conv2D
from fastconv.layers.depthwise_conv2d import DepthwiseConv2D
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class SeparableConv2D(Layer):
    """A `DepthwiseConv2D` without a bias, and a 1×1 `Conv2D` of what it makes.

    Shapes: x (H, W, C) → (OH, OW, C·M) → y (OH, OW, filters); weights (KH, KW, C, M) and
    (1, 1, C·M, filters), bias (filters,). Gradients: those of the two, one after the other.

    Parameters
    ----------
    filters : int
    kernel_size, strides, dilation_rate : int or pair of int
    padding : {"valid", "same"}, int, pair of int or pair of (before, after)
        Explicit zeros go beyond Keras.
    depth_multiplier : int
        Channels M that the first makes of each.
    activation : str, optional
        See `fastconv.activations`.
    use_bias : bool
    depthwise_initializer, pointwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, pointwise_regularizer, bias_regularizer : str or Regularizer, optional
    depthwise_constraint, pointwise_constraint, bias_constraint : str or Constraint, optional
    """

    held: ClassVar[dict[str, str]] = {
        "depthwise_kernel": "depthwise", "pointwise_kernel": "pointwise", "bias": "bias",
    }  # fmt: skip

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = backend.data_format_of(data_format)
        self.first = DepthwiseConv2D(
            kernel_size, strides, padding, depth_multiplier, self.data_format, dilation_rate,
            use_bias=False, depthwise_initializer=depthwise_initializer, name=self.name,
        )  # fmt: skip
        self.second = Conv2D(
            filters, 1, data_format=self.data_format, activation=activation, use_bias=use_bias,
            name=self.name,
            kernel_initializer=pointwise_initializer, bias_initializer=bias_initializer,
        )  # fmt: skip

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.second.output_shape(self.first.output_shape(*inputs))

    def build(self, *inputs: Shape) -> None:
        first, second = self.first, self.second
        channels = shapes.known(inputs[0][-1:], self.name)[0]
        wide = channels * first.depth_multiplier
        first.weight = self.add_parameter(
            "depthwise_kernel",
            (*first.kernel_size, channels, first.depth_multiplier),
            first.depthwise_initializer,
        )
        second.weight = self.add_parameter(
            "pointwise_kernel", (1, 1, wide, second.filters), second.kernel_initializer
        )
        if second.use_bias:
            second.bias = self.add_parameter("bias", (second.filters,), second.bias_initializer)

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        self.first.trainable = self.second.trainable = self.trainable
        inner = Frame(
            inputs=frame.inputs, needs=frame.needs, activation=LINEAR, input_activation=LINEAR,
            norm=None, mask=None, moments=False, given=None, inference=frame.inference,
            stream=frame.stream, saved=SimpleNamespace(),
        )  # fmt: skip
        with _apart(b):
            inner.output = self.first.forward(b, inner).shared()
        outer = Frame(**{**vars(inner), "saved": SimpleNamespace()})
        outer.inputs, outer.needs = [inner.output], [self.trainable or frame.needs[0]]
        outer.output = self.second.forward(b, outer)
        frame.saved.frames = inner, outer
        return outer.output

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        inner, outer = frame.saved.frames
        [between] = self.second.backward(b, outer, dy)
        return [None] if between is None else self.first.backward(b, inner, between)

    def multiply_adds(self, inputs: Sequence[Shape], output: Shape) -> int | None:
        between = self.first.output_shape(*inputs)
        parts = (
            self.first.multiply_adds(inputs, between),
            self.second.multiply_adds([between], output),
        )
        return None if None in parts else sum(part for part in parts if part is not None)

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return self.second.to_onnx(scope, [self.first.to_onnx(scope, inputs)])

    def get_config(self) -> dict[str, Any]:
        first, second = self.first.get_config(), self.second.get_config()
        shared = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier",
                  "depthwise_initializer")  # fmt: skip
        return {
            **super().get_config(),
            **{name: first[name] for name in shared},
            **{name: second[name] for name in ("filters", "activation", "use_bias")},
            "pointwise_initializer": second["kernel_initializer"],
            "bias_initializer": second["bias_initializer"],
        }


@contextmanager
def _apart(b: "Builder") -> Iterator[None]:
    """What is emitted within goes into a tensor of its own, not where the node's result goes."""
    tensor, b.tensor = b.tensor, None
    try:
        yield
    finally:
        b.tensor = tensor

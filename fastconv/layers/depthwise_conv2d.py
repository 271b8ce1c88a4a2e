"""2-D convolution of every channel by itself."""

from typing import TYPE_CHECKING, Any, ClassVar

from fastconv import initializers, shapes
from fastconv._native import abreast, depthwise
from fastconv.layer import Frame
from fastconv.layers._convolution import _Convolution
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value


class DepthwiseConv2D(_Convolution):
    """2-D convolution in which every channel has windows of its own and sees no other channel.

    ``y[oh, ow, c·M + m] = f(bias[c·M + m] + Σ_{kh, kw} x[oh·sh + kh·dh − ph, ow·sw + kw·dw − pw, c]
    · weight[kh, kw, c, m])`` with M the depth multiplier, and zeros where the index falls outside.

    Shapes: x (H, W, C) → y (OH, OW, C·M); weight (KH, KW, C, M), bias (C·M,).

    Gradients, with dz the gradient before the activation f: ``dweight[kh, kw, c, m] = Σ_{oh, ow}
    x[…, c] · dz[oh, ow, c·M + m]``; the input's is each channel's convolution of dz with its
    flipped windows, added over m; ``dbias = Σ dz``. Derived in docs/gradients.md.

    Parameters
    ----------
    kernel_size, strides, dilation_rate : int or pair of int
    padding : {"valid", "same"}, int, pair of int or pair of (before, after)
        Explicit zeros go beyond Keras.
    depth_multiplier : int
        Output channels M per input channel.
    activation : str, optional
        See `fastconv.activations`.
    use_bias : bool
    depthwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, bias_regularizer : str or Regularizer, optional
    depthwise_constraint, bias_constraint : str or Constraint, optional
    """

    held: ClassVar[dict[str, str]] = {"kernel": "depthwise", "bias": "bias"}

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = 1,
        padding: Any = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            bias_initializer, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = shapes.integer(depth_multiplier, "depth_multiplier")
        self.depthwise_initializer = initializers.get(
            depthwise_initializer, "depthwise_initializer"
        )

    def split(self, channels: int) -> tuple[int, int]:
        if self.weight is not None and self.weight.shape[-2] != channels:
            raise ValueError(
                f"{self.name} was built for {self.weight.shape[-2]} channels, "
                f"its input has {channels}"
            )
        return channels * self.depth_multiplier, channels

    def convolved(self, channels: int) -> tuple[int, int]:
        return channels, channels  # the channels are repeated before

    def _repeated(self, b: "Builder", x: "Value") -> "Value":
        """x with every channel M times, so that each window has a channel of its own.

        M windows over one channel fill no vector; M copies of it are cheap beside them.
        """
        if self.depth_multiplier == 1:
            return x
        y = b.value((*x.shape[:-1], x.channels * self.depth_multiplier))
        step = depthwise.RepeatChannels(
            x.pixels, x.channels, self.depth_multiplier, x.slot, x.stride, y.slot, y.stride
        )
        b.emit(step)
        return y

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        wide = self._repeated(b, x)
        geometry = self.geometry(wide, wide.stride, y.stride)
        together = abreast.pixels(geometry) == 1
        self._emit_product(b, geometry, wide, y, self._epilogue(b, frame, together))
        self._emit_rest(b, frame, y, y, together)
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        x = frame.inputs[0]
        dz = self._emit_through(b, frame, dy)
        if self.trainable:
            wide = self._repeated(b, x)
            geometry = self.geometry(wide, wide.stride, dz.stride)
            self._emit_weight_gradient(b, geometry, wide, dz)
        if not frame.needs[0]:
            return [None]
        dx = b.value(x.shape)
        if self.depth_multiplier == 1:
            self._emit_transposed(b, self.geometry(dx, dx.stride, dz.stride), dz, dx)
            return [dx]
        wide = b.value((*x.shape[:-1], x.channels * self.depth_multiplier))
        self._emit_transposed(b, self.geometry(wide, wide.stride, dz.stride), dz, wide)
        step = depthwise.FoldChannels(
            x.pixels, x.channels, self.depth_multiplier, wide.slot, wide.stride, dx.slot, dx.stride
        )
        b.emit(step)
        return [dx]

    def build(self, *inputs: Shape) -> None:
        channels = shapes.known(inputs[0][-1:], self.name)[0]
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.weight = self.add_parameter("kernel", shape, self.depthwise_initializer)
        if self.use_bias:
            size = (channels * self.depth_multiplier,)
            self.bias = self.add_parameter("bias", size, self.bias_initializer)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depth_multiplier": self.depth_multiplier,
            "depthwise_initializer": initializers.to_config(self.depthwise_initializer),
        }

"""2-D convolution of every channel by itself."""

from typing import Any

from fastconv import initializers, shapes
from fastconv.layers._convolution import _Convolution
from fastconv.shapes import Shape


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
    """

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

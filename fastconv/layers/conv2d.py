"""2-D convolution."""

from typing import TYPE_CHECKING, Any

from fastconv import initializers, shapes
from fastconv._native import elementwise
from fastconv.layer import Frame
from fastconv.layers._convolution import _Convolution
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.plan import Builder, Value

FEW_CHANNELS = 4  # up to so many, a padded copy pays


class Conv2D(_Convolution):
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
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional
    """

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
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias,
            bias_initializer, **kwargs,
        )  # fmt: skip
        self.filters = shapes.integer(filters, "filters")
        self.groups = shapes.integer(groups, "groups")
        self.kernel_initializer = initializers.get(kernel_initializer, "kernel_initializer")
        if self.filters % self.groups:
            raise ValueError(f"{self.name}: filters {filters} is not a multiple of groups {groups}")

    def split(self, channels: int) -> tuple[int, int]:
        if channels % self.groups:
            raise ValueError(
                f"{self.name}: {channels} channels do not fall into {self.groups} groups"
            )
        if self.weight is not None and self.weight.shape[-2] * self.groups != channels:
            raise ValueError(
                f"{self.name} was built for {self.weight.shape[-2] * self.groups} channels, "
                f"its input has {channels}"
            )
        return self.filters, self.groups

    def build(self, *inputs: Shape) -> None:
        channels = shapes.known(inputs[0][-1:], self.name)[0]
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.weight = self.add_parameter("kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_parameter("bias", (self.filters,), self.bias_initializer)

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

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "groups": self.groups,
            "kernel_initializer": initializers.to_config(self.kernel_initializer),
        }

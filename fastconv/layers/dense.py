"""Fully connected layer."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastconv import activations, initializers, shapes
from fastconv._native.geometry import ConvGeometry
from fastconv.layer import Frame
from fastconv.layers._weighted import _Weighted
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Dense(_Weighted):
    """Fully connected: ``y[j] = f(bias[j] + Σ_i x[i] · weight[i, j])`` on the last axis.

    Shapes: x (…, I) → y (…, units); weight (I, units), bias (units,).

    Gradients, with dz the gradient before f: ``dweight[i, j] = Σ_n x[n, i] · dz[n, j]``,
    ``dbias[j] = Σ_n dz[n, j]``, ``dx[n, i] = Σ_j dz[n, j] · weight[i, j]``.

    Parameters
    ----------
    units : int
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = shapes.integer(units, "units")
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer, "kernel_initializer")
        self.bias_initializer = initializers.get(bias_initializer, "bias_initializer")

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = inputs[0]
        if shape[-1] is None:
            raise ValueError(f"{self.name} needs a known number of inputs; is a Flatten missing?")
        if self.weight is not None and self.weight.shape[0] != shape[-1]:
            raise ValueError(
                f"{self.name} was built for {self.weight.shape[0]} inputs, it gets {shape[-1]}"
            )
        return (*shape[:-1], self.units)

    def build(self, *inputs: Shape) -> None:
        (count,) = shapes.known(inputs[0][-1:], self.name)
        self.weight = self.add_parameter("kernel", (count, self.units), self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_parameter("bias", (self.units,), self.bias_initializer)

    def geometry(
        self, x: "Value", x_stride: int, y_stride: int, padded: bool = False
    ) -> ConvGeometry:
        # a 1×1 convolution over whatever pixels there are
        return ConvGeometry(
            in_size=(1, 1, x.pixels),
            kernel=(1, 1, 1),
            strides=(1, 1, 1),
            dilation=(1, 1, 1),
            pads=((0, 0),) * 3,
            channels=x.channels,
            filters=self.units,
            groups=1,
            x_stride=x_stride,
            y_stride=y_stride,
        )

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output((*x.shape[:-1], self.units))
        self.emit_forward(b, frame, x, y)
        return y

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        assert self.weight is not None
        x, weight = inputs[0], self.weight.value
        like = replace(x, shape=self.output_shape(x.shape), elements=None)
        bias = [] if self.bias is None else [scope.parameter(self.bias)]
        if x.rank == 1:
            # rows in the file's order: no Transpose after a flattened channels-first image
            rows = scope.parameter(self.weight, x.permute(weight))
            y = scope.node("Gemm", [x, rows, *bias], like)
        elif x.rank > 2 and x.is_channels_first:
            pointwise = weight.T.reshape(self.units, -1, *(1,) * (x.rank - 1))
            kernel = scope.parameter(self.weight, pointwise)
            y = scope.node("Conv", [x, kernel, *bias], like, kernel_shape=[1] * (x.rank - 1))
        else:
            x = scope.plain(x)
            like = replace(like, order=x.order)
            y = scope.node("MatMul", [x, scope.parameter(self.weight)], like)
            if bias:
                y = scope.node("Add", [y, *bias], like)
        return self.activation.to_onnx(scope, y)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.to_config(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.to_config(self.kernel_initializer),
            "bias_initializer": initializers.to_config(self.bias_initializer),
        }

"""Batch normalization."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastconv import initializers, shapes
from fastconv._native import norm
from fastconv.activations import Activation, Mask
from fastconv.layer import Frame, Layer
from fastconv.parameter import Parameter
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class BatchNormalization(Layer):
    """``y = gamma · (x − mean) / √(variance + epsilon) + beta``, channel by channel.

    In training, mean and (biased) variance are those of the batch and its pixels, and the moving
    ones follow as ``moving = momentum · moving + (1 − momentum) · batch``. At inference, and where
    the layer is frozen, the moving ones are used (Ioffe and Szegedy 2015).

    Shapes: x (…, C) → y the same; gamma, beta, moving_mean, moving_variance (C,).

    Gradients in training, with x̂ the normalised x and m the number of values of a channel:
    ``dbeta = Σ dy``, ``dgamma = Σ dy · x̂``,
    ``dx = gamma / √(variance + epsilon) · (dy − dbeta / m − x̂ · dgamma / m)``.

    Parameters
    ----------
    axis : int
        The channels: the last axis, −1, or 1 where images are shown channels first.
    momentum : float
        Weight of the old value, in [0, 1].
    epsilon : float
    center, scale : bool
        Whether there are beta and gamma.
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
    beta_constraint, gamma_constraint : str or Constraint, optional
    """

    held: ClassVar[dict[str, str]] = {"beta": "beta", "gamma": "gamma"}

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = shapes.integer(axis, "axis", -1)
        self.momentum = shapes.real(momentum, "momentum", 0, 1)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)
        self.center, self.scale = bool(center), bool(scale)
        self.beta_initializer = initializers.get(beta_initializer, "beta_initializer")
        self.gamma_initializer = initializers.get(gamma_initializer, "gamma_initializer")
        self.moving_mean_initializer = initializers.get(
            moving_mean_initializer, "moving_mean_initializer"
        )
        self.moving_variance_initializer = initializers.get(
            moving_variance_initializer, "moving_variance_initializer"
        )
        self.gamma: Parameter | None = None
        self.beta: Parameter | None = None

    @property
    def channels_first(self) -> bool:
        return self.axis == 1

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = inputs[0]
        shapes.check_channel_axis(self.name, self.axis, shape)
        if self.built and shape[-1] != self.moving_mean.shape[0]:
            raise ValueError(
                f"{self.name} was built for {self.moving_mean.shape[0]} channels, "
                f"its input has {shape[-1]}"
            )
        return shape

    def build(self, *inputs: Shape) -> None:
        size = shapes.known(inputs[0][-1:], self.name)
        if self.scale:
            self.gamma = self.add_parameter("gamma", size, self.gamma_initializer)
        if self.center:
            self.beta = self.add_parameter("beta", size, self.beta_initializer)
        self.moving_mean = self.add_parameter(
            "moving_mean", size, self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_parameter(
            "moving_variance", size, self.moving_variance_initializer, trainable=False
        )

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        residual = frame.inputs[1] if len(frame.inputs) == 2 else None
        y = b.output(x.shape)
        c = x.channels
        frame.saved.from_batch = b.training and self.trainable and not frame.inference
        moving = b.parameter(self.moving_mean), b.parameter(self.moving_variance)
        if frame.first is not None:  # a second forward: the batch's statistics are kept
            mean, variance = frame.first.mean, frame.first.variance
        elif frame.saved.from_batch:
            mean, variance = frame.given or (b.buffer(0, c), b.buffer(0, c))
            if frame.given is None:
                scratch = b.buffer(0, norm.BatchNormStatistics.scratch(c))
                b.emit(
                    norm.BatchNormStatistics(x.pixels, c, x.slot, x.stride, mean, variance, scratch)
                )
            b.emit(norm.BatchNormUpdateRunning(c, self.momentum, mean, variance, *moving))
        else:
            mean, variance = moving
        frame.saved.mean, frame.saved.variance = mean, variance
        self._emit_map(b, x, mean, variance, residual, frame.activation, y, frame.mask)
        return y

    def _emit_map(
        self,
        b: "Builder",
        x: "Value",
        mean: int,
        variance: int,
        residual: "Value | None",
        f: Activation,
        y: "Value",
        mask: Mask | None = None,
    ) -> None:
        b.emit(
            norm.BatchNormForward(
                x.pixels, x.channels, self.epsilon, x.slot, x.stride, mean, variance,
                b.parameter(self.gamma), b.parameter(self.beta), y.slot, y.stride,
                activation=f.arguments,
                residual=residual.slot if residual else -1,
                residual_stride=residual.stride if residual else None,
                dropout=mask.arguments if mask else None,
            )
        )  # fmt: skip

    def emit_map(
        self, b: "Builder", x: "Value", residual: "Value | None", f: Activation, y: "Value"
    ) -> None:
        """y = f(the norm of x by the moving statistics + residual); x and y may be one."""
        moving = b.parameter(self.moving_mean), b.parameter(self.moving_variance)
        self._emit_map(b, x, *moving, residual, f, y)

    def emit_scale(self, b: "Builder") -> tuple[int, int, int]:
        """The slots (mean, scale, shift) by which the product before it normalizes its sums.

        The scale is made in every run: the parameters may have changed.
        """
        mean, variance = b.parameter(self.moving_mean), b.parameter(self.moving_variance)
        c = self.moving_mean.value.size
        scale = b.buffer(0, c)
        b.emit(norm.BatchNormScale(c, self.epsilon, variance, b.parameter(self.gamma), scale))
        return mean, scale, b.parameter(self.beta)

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        x, saved, f = frame.inputs[0], frame.saved, frame.activation
        dgamma, dbeta, add = -1, -1, False
        if self.trainable and self.gamma is not None:
            dgamma, add = b.gradient(self.gamma)
        if self.trainable and self.beta is not None:
            dbeta, add = b.gradient(self.beta)
        if frame.mask is not None:  # f' is looked for in two passes: the mask is made once, before
            dy = frame.mask.backward(b, dy)
        if not frame.needs[0] and dgamma == dbeta == -1:  # the residual's gradient alone
            return [None, f.backward(b, frame.output, dy).shared()]
        # without a residual, f' comes from x; with one it needs the output, and the residual needs
        # dz: it is written while the sums are taken
        dz, masked = dy, len(frame.inputs) == 2 and f.piecewise_linear
        if masked:
            dz = b.in_place(dy)
        shared = len(frame.inputs) == 2 and frame.needs[1]
        dx = b.in_place(dz.shared() if shared else dz) if frame.needs[0] else None
        b.emit(
            norm.BatchNormBackward(
                x.pixels, x.channels, self.epsilon, x.slot, x.stride, saved.mean, saved.variance,
                b.parameter(self.gamma), dy.slot, dy.stride,
                dx.slot if dx else -1, dx.stride if dx else x.channels,
                dgamma, dbeta, b.buffer(0, norm.BatchNormBackward.scratch(x.channels)),
                accumulate=add, batch_statistics=saved.from_batch,
                activation=f.arguments, beta=b.parameter(self.beta),
                y=frame.output.slot if masked else -1, y_stride=frame.output.stride,
                dz=dz.slot if masked else -1, dz_stride=dz.stride,
            )
        )  # fmt: skip
        return [dx, dz.shared() if shared else None][: len(frame.inputs)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        x = inputs[0]
        mean, variance = self.moving_mean.value, self.moving_variance.value
        gamma = np.ones_like(mean) if self.gamma is None else self.gamma.value
        beta = np.zeros_like(mean) if self.beta is None else self.beta.value
        if x.rank == 2 and not x.is_channels_first:
            # the operator normalises axis 1; here the channels come last and stay there
            factor = gamma / np.sqrt(variance + self.epsilon)
            x = scope.node("Mul", [x, scope.constant(factor, "factor")], x)
            return scope.node("Add", [x, scope.constant(beta - mean * factor, "shift")], x)
        x = scope.channels_first(x)
        vectors = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
        operands = [scope.constant(x.permute(vector), name) for name, vector in vectors.items()]
        return scope.node("BatchNormalization", [x, *operands], x, epsilon=self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.to_config(self.beta_initializer),
            "gamma_initializer": initializers.to_config(self.gamma_initializer),
            "moving_mean_initializer": initializers.to_config(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.to_config(self.moving_variance_initializer),
        }

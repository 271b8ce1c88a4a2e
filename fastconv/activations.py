"""Activations: one record each, shared by the layers that carry one.

Every derivative is taken from the output y alone, so that the input need not be kept:
ReLU'(x) = [y > 0], sigmoid' = y (1 − y), tanh' = 1 − y², ELU' = y + α where y ≤ 0, and softmax
gives dx = y · (dy − Σ dy · y).
"""

import math
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


@dataclass(frozen=True)
class Activation:
    """A function of each number (softmax: of the channels of each pixel).

    Attributes
    ----------
    name : str
        Keras' name, also the kernel's.
    alpha : float
        Slope below zero (relu, leaky_relu) or the α of ELU.
    beta, gamma : float
        Cap and threshold of relu.
    """

    name: str
    alpha: float = 0.0
    beta: float = math.inf
    gamma: float = 0.0

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, x: Any) -> np.ndarray:
        """f(x) of an array, in double."""
        x = np.asarray(x, np.float64)
        if self.name == "softmax":
            e = np.exp(x - x.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True)
        if self.name == "sigmoid":
            return 0.5 * (1 + np.tanh(0.5 * x))
        if self.name == "tanh":
            return np.tanh(x)
        if self.name == "elu":
            return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))
        if self.name == "linear":
            return x
        below = self.alpha * (x - self.gamma)
        return np.minimum(np.where(x > self.gamma, x, below), self.beta)

    @property
    def piecewise_linear(self) -> bool:
        """Whether other kernels can apply it, and its derivative, in their own pass."""
        return self.name in ("relu", "leaky_relu", "relu_dropped")

    @property
    def zero_or_free(self) -> bool:
        """Whether y > 0 tells where the derivative is 1, and it is 0 elsewhere."""
        return self.name == "relu" and self.alpha == 0 and self.beta == math.inf

    @property
    def arguments(self) -> tuple[int, float, float, float]:
        """How a step is told of it: kind, alpha, beta and gamma."""
        from fastconv._native import activation as native

        return getattr(native, self.name.upper()), self.alpha, self.beta, self.gamma

    def forward(self, b: "Builder", x: "Value", y: "Value") -> None:
        """Emit y = f(x); x and y may be the same."""
        from fastconv._native import activation as native

        if self.name == "softmax":
            b.emit(native.SoftmaxForward(y.pixels, y.channels, x.slot, x.stride, y.slot, y.stride))
            return
        b.emit(
            native.ActivationForward(
                *self.arguments, y.pixels, y.channels, x.slot, x.stride, y.slot, y.stride
            )
        )

    def backward(self, b: "Builder", y: "Value", dy: "Value") -> "Value":
        """Emit the gradient at f's input from that at its output; returns its buffer."""
        from fastconv._native import activation as native

        if self.name == "linear":
            return dy
        if dy.pre_activation:  # the loss has passed this activation, and no other one
            return replace(dy, pre_activation=False)
        dx = b.in_place(dy)
        if self.name == "softmax":
            b.emit(
                native.SoftmaxBackward(
                    y.pixels, y.channels, y.slot, y.stride, dy.slot, dy.stride, dx.slot, dx.stride
                )
            )
            return dx
        b.emit(
            native.ActivationBackward(
                *self.arguments, y.pixels, y.channels,
                y.slot, y.stride, dy.slot, dy.stride, dx.slot, dx.stride,
            )
        )  # fmt: skip
        return dx

    def to_onnx(self, scope: "Scope", x: "OnnxTensor") -> "OnnxTensor":
        """Append the operators of y = f(x); every one of them keeps the order of the axes."""
        if self.name == "linear":
            return x
        if self.name == "relu":
            return self._relu_to_onnx(scope, x)
        if self.name == "softmax":
            return scope.node("Softmax", [x], x, axis=x.axis(-1))
        if self.name == "leaky_relu":
            return scope.node("LeakyRelu", [x], x, alpha=self.alpha)
        if self.name == "elu":
            return scope.node("Elu", [x], x, alpha=self.alpha)
        return scope.node({"sigmoid": "Sigmoid", "tanh": "Tanh"}[self.name], [x], x)

    def _relu_to_onnx(self, scope: "Scope", x: "OnnxTensor") -> "OnnxTensor":
        cap = [] if self.beta == math.inf else [scope.constant(self.beta, "max_value")]
        if self.gamma == 0 and self.alpha == 0:
            if not cap:
                return scope.node("Relu", [x], x)
            return scope.node("Clip", [x, scope.constant(0, "min_value"), *cap], x)
        if self.gamma == 0:
            y = scope.node("LeakyRelu", [x], x, alpha=self.alpha)
        else:
            threshold = scope.constant(self.gamma, "threshold")
            passes = scope.node("Greater", [x, threshold], x)
            y = scope.node("Where", [passes, x, self._below_threshold(scope, x, threshold)], x)
        return scope.node("Min", [y, *cap], y) if cap else y

    def _below_threshold(
        self, scope: "Scope", x: "OnnxTensor", threshold: str
    ) -> "OnnxTensor | str":
        if self.alpha == 0:
            return scope.constant(0, "below")
        below = scope.node("Sub", [x, threshold], x)
        return scope.node("Mul", [below, scope.constant(self.alpha, "slope")], x)


@dataclass(frozen=True)
class Mask:
    """A dropout: ``y = m · x / (1 − rate)``, m from the run's seed and step and from this stream.

    Attributes
    ----------
    rate : float
    stream : int
        Which random numbers.
    """

    rate: float
    stream: int

    @property
    def arguments(self) -> tuple[float, int]:
        """How a step that carries the dropout is told of it."""
        return self.rate, self.stream

    def forward(self, b: "Builder", x: "Value", y: "Value") -> None:
        """Emit the dropout of x into y; x and y may be the same."""
        from fastconv._native import random

        b.emit(
            random.DropoutForward(
                self.rate, prod(x.shape), self.stream, x.slot, y.slot,
                x.channels, x.stride, y.stride,
            )
        )  # fmt: skip

    def backward(self, b: "Builder", dy: "Value") -> "Value":
        """Emit the gradient before the dropout from that behind it; returns its buffer."""
        from fastconv._native import random

        dx = b.in_place(dy)
        b.emit(
            random.DropoutBackward(
                self.rate, prod(dy.shape), self.stream, dy.slot, dx.slot,
                dy.channels, dy.stride, dx.stride,
            )
        )  # fmt: skip
        return dx

    def behind(self, b: "Builder", f: Activation, dy: "Value") -> "tuple[Activation, Value]":
        """What is left to do where this dropout follows f: the function whose derivative is to be
        applied, and to which gradient.

        What a ReLU stopped is 0, and so is what was dropped: one look at y tells both, and no
        random number is drawn again. Elsewhere the dropout's gradient is a step.
        """
        if f.zero_or_free:
            return Activation("relu_dropped", 1 / (1 - self.rate)), dy
        return f, self.backward(b, dy)


LINEAR = Activation("linear")
SOFTMAX = Activation("softmax")

linear, softmax = LINEAR, SOFTMAX
relu, leaky_relu = Activation("relu"), Activation("leaky_relu", 0.2)
elu, sigmoid, tanh = Activation("elu", 1.0), Activation("sigmoid"), Activation("tanh")

NAMES = {f.name: f for f in (linear, relu, leaky_relu, elu, sigmoid, tanh, softmax)}


def get(identifier: Any) -> Activation:
    """An activation from its name, None (linear), its config, a layer of one, or itself."""
    if identifier is None:
        return LINEAR
    if isinstance(identifier, Activation):
        return identifier
    if isinstance(of_layer := getattr(identifier, "activation", None), Activation):
        return of_layer  # Dense(8, activation=LeakyReLU(0.1))
    if callable(identifier):
        raise ValueError(
            f"an activation needs its derivative, which {identifier!r} does not say: one of "
            f"{', '.join(NAMES)}, or a layer of your own (fastconv.own.NumpyLayer)"
        )
    if isinstance(identifier, dict):
        config = dict(identifier)
        name = shapes.choice(config.pop("name", None), NAMES, "activation")
        return Activation(name, **{k: shapes.real(v, k, 0) for k, v in config.items()})
    return NAMES[shapes.choice(identifier, NAMES, "activation")]


def to_config(activation: Activation) -> str | dict[str, Any]:
    """What `get` makes the same activation from: its name where the name says it all."""
    if NAMES.get(activation.name) == activation:
        return activation.name
    defaults = Activation(activation.name)
    return {k: v for k, v in vars(activation).items() if k == "name" or v != getattr(defaults, k)}

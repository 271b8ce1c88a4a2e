"""Dropout."""

from typing import TYPE_CHECKING, Any

from fastconv import shapes
from fastconv.activations import Mask
from fastconv.layer import Frame, Layer, stream_of
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Dropout(Layer):
    """In training ``y = m · x / (1 − rate)``, m a random mask with P(m = 0) = rate; else ``y = x``.

    Shapes: y has x's. Gradient: ``dx = m · dy / (1 − rate)``. The mask is a function of seed, step
    and position by a counter-based generator, so backward makes it again instead of keeping it
    (Srivastava et al. 2014; Salmon et al. 2011 for the generator).

    Parameters
    ----------
    rate : float
        Share of the values that are dropped, 0 ≤ rate < 1.
    seed : int, optional
        Of this layer's own; by default it follows `fastconv.set_random_seed`.
    """

    elementwise = True

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = shapes.real(rate, "rate", 0, 1)
        if self.rate == 1:
            raise ValueError(f"{self.name}: a rate of 1 would drop everything")
        self.seed = None if seed is None else shapes.integer(seed, "seed", 0)

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        if not b.training or frame.inference or self.rate == 0:
            return x
        y = b.output(x.shape)
        self.mask(frame.stream).forward(b, x, y)
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        if not b.training or frame.inference or self.rate == 0:
            return [dy]
        return [self.mask(frame.stream).backward(b, dy)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        return inputs[0]  # at inference nothing is dropped

    def mask(self, number: int) -> Mask:
        """This dropout at the node of this number, for whoever carries it out."""
        return Mask(self.rate, stream_of(self.seed, number))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}

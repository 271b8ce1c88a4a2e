"""Concatenation."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv.layer import Frame, Layer, Tensor
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class Concatenate(Layer):
    """Inputs side by side along an axis.

    Shapes: (H, W, C₁), (H, W, C₂), … → (H, W, C₁ + C₂ + …). Gradient: each input's slice of dy.
    Along the channels nothing is copied: layers write straight into their slice of the result.

    Parameters
    ----------
    axis : int
        As in Keras: −1 are the channels, axis 0 would be the batch.
    """

    arity = None

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise ValueError(
                f"{self.name}: axis must be an integer but 0 (the batch), not {axis!r}"
            )
        self.axis = axis
        self._first = False  # images are shown channels first

    @property
    def channels_first(self) -> bool:
        return self._first

    def _takes_channels_first(self, tensors: Sequence[Tensor]) -> bool:
        # one layer, one order: the axis is counted in it
        self._first = self._first or any(tensor.channels_first for tensor in tensors)
        return self._first

    def _axis(self, rank: int) -> int:
        """The axis counted without the batch, channels last."""
        axis = self.axis - 1 if self.axis > 0 else self.axis + rank
        if not 0 <= axis < rank:
            raise ValueError(f"{self.name}: axis {self.axis} is outside inputs of rank {rank + 1}")
        return (axis - 1) % rank if self._first else axis

    def along_channels(self, inputs: Sequence[Shape]) -> bool:
        """Whether the inputs can be slices of one buffer's pixels."""
        return self._axis(len(inputs[0])) == len(inputs[0]) - 1

    def output_shape(self, *inputs: Shape) -> Shape:
        first = inputs[0]
        axis = self._axis(len(first))
        for shape in inputs:
            if len(shape) != len(first) or any(
                a != b for i, (a, b) in enumerate(zip(shape, first, strict=True)) if i != axis
            ):
                given = ", ".join(map(shapes.shape_text, inputs))
                raise ValueError(f"{self.name}: inputs differ beside axis {self.axis}: {given}")
        sizes = [shape[axis] for shape in inputs]
        total = None if None in sizes else sum(shapes.known(tuple(sizes), self.name))
        return (*first[:axis], total, *first[axis + 1 :])

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        inputs = frame.inputs
        shape = shapes.known(self.output_shape(*(x.shape for x in inputs)), self.name)
        y = b.output(shape) if self.along_channels([shape]) else b.value(shape)
        for x, part in zip(inputs, self._parts(b, inputs, y), strict=True):
            if not b.same_place(x, part):
                b.copy(self._rows(b, x), part)
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        if self.along_channels([dy.shape]):
            return list(self._parts(b, frame.inputs, dy))
        grads: list[Value | None] = []
        for x, part in zip(
            frame.inputs, self._parts(b, frame.inputs, b.contiguous(dy)), strict=True
        ):
            dx = b.value(x.shape)
            b.copy(part, self._rows(b, dx))
            grads.append(dx)
        return grads

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        # vectors may each have an order of their own: their result has them one after the other
        parts = inputs if inputs[0].rank == 1 else scope.alike(inputs)
        shape = self.output_shape(*(x.shape for x in inputs))
        like = replace(parts[0], shape=shape, elements=_joined_elements(parts))
        return scope.node("Concat", parts, like, axis=like.axis(self._axis(len(shape))))

    def _rows(self, b: "Builder", value: "Value") -> "Value":
        """The tensor as rows that the concatenation lays side by side: (outer, inner)."""
        axis = self._axis(len(value.shape))
        if axis == len(value.shape) - 1:
            return value
        return b.contiguous(value).reshape((prod(value.shape[:axis]), prod(value.shape[axis:])))

    def _parts(self, b: "Builder", inputs: "list[Value]", whole: "Value") -> "list[Value]":
        """Where each input lies in the rows of ``whole``."""
        rows = self._rows(b, whole)
        widths = [prod(x.shape[self._axis(len(x.shape)) :]) for x in inputs]
        return [b.slice(rows, sum(widths[:i]), width) for i, width in enumerate(widths)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


def _joined_elements(parts: "list[OnnxTensor]") -> np.ndarray | None:
    """Which element of the result stands at each place of the file; None: each at its own."""
    if all(x.elements is None for x in parts):
        return None
    starts = np.cumsum([0, *(shapes.elements(x.shape) for x in parts)])
    places = [x.permute(np.arange(shapes.elements(x.shape))) for x in parts]
    return np.concatenate([own + start for own, start in zip(places, starts, strict=False)])

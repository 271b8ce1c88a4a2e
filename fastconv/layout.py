"""Channels first: how images are shown to a script; they lie channels last all the same.

Kernels read pixels whose channels lie side by side. A layer with ``data_format="channels_first"``
does so too: it takes its input through a `ChannelsLast`, and says of its output that it is *shown*
channels first. The next layer of that kind takes it as it is, so that a network has one transpose
where images come in, and another where maps go out or a layer wants the values in the order shown.
"""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from fastconv._native import elementwise
from fastconv.layer import Call, Frame, Layer, Node, Tensor
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.graph import Graph
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class _Transpose(Layer):
    """Takes images in one order and makes them in the other."""

    makes_first: ClassVar[bool]

    def __call__(self, inputs: Any, training: bool | None = None) -> Tensor:
        output: Tensor = super().__call__(inputs, training)
        output.channels_first = self.makes_first
        return output

    def _takes_channels_first(self, tensors: Sequence[Tensor]) -> bool:
        return not self.makes_first


class ChannelsLast(_Transpose):
    """(C, H, W) → (H, W, C), shown channels first as before. Gradient: dy moved back."""

    makes_first = True

    def output_shape(self, *inputs: Shape) -> Shape:
        return (*inputs[0][1:], inputs[0][0])

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        return _to_last(b, frame.inputs[0])

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        return [_to_first(b, dy)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        x = inputs[0]
        return scope.seen(x, self.output_shape(x.shape), [(i - 1) % x.rank for i in x.order])


class ChannelsFirst(_Transpose):
    """(H, W, C), shown channels first → (C, H, W). Gradient: dy moved back."""

    makes_first = False

    def output_shape(self, *inputs: Shape) -> Shape:
        return (inputs[0][-1], *inputs[0][:-1])

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        return _to_first(b, frame.inputs[0])

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        return [_to_last(b, dy)]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        x = inputs[0]
        return scope.seen(x, self.output_shape(x.shape), [(i + 1) % x.rank for i in x.order])


def _to_last(b: "Builder", x: "Value") -> "Value":
    channels, *sizes = x.shape
    return _moved(b, b.contiguous(x).reshape((channels, prod(sizes))), (*sizes, channels))


def _to_first(b: "Builder", x: "Value") -> "Value":
    *sizes, channels = x.shape
    return _moved(b, x, (channels, *sizes))


def _moved(b: "Builder", x: "Value", shape: tuple[int, ...]) -> "Value":
    if x.pixels == 1 or x.channels == 1:  # the same order in memory
        return b.contiguous(x).reshape(shape)
    y = b.value(shape)
    b.emit(elementwise.Transpose(x.pixels, x.channels, x.slot, x.stride, y.slot))
    return y


def laid_out(tensor: Tensor, channels_first: bool) -> Tensor:
    """The tensor, shown as asked; vectors have but one order."""
    if tensor.channels_first == channels_first or len(tensor.sample_shape) < 2:
        return tensor
    before = tensor.node
    if is_transpose(before):  # there and back again
        return before.inputs[0]
    if tensor.other is None:
        kind = ChannelsLast if channels_first else ChannelsFirst
        layer = before.layer.transposes.get(kind)
        if layer is None:
            word = "channels_last" if channels_first else "channels_first"
            layer = before.layer.transposes[kind] = kind(name=f"{before.layer.name}_{word}")
        tensor.other = layer(tensor)
    return tensor.other


def shown_first(graph: "Graph") -> set[Tensor]:
    """Tensors that layers see as they are shown, channels first: where images come in and maps go
    out, up to the transposes."""
    found: set[Tensor] = set()
    readers = graph.consumers()
    for node in reversed(graph.nodes):
        if readers[node.output] and all(_reads_first(r, found) for r in readers[node.output]):
            found.add(node.output)
    for node in graph.nodes:
        rank = len(node.output.sample_shape)
        kept = (
            node.inputs
            and all(t in found and len(t.sample_shape) == rank for t in node.inputs)
            and not isinstance(node.layer, ChannelsLast)
        )
        if kept or isinstance(node.layer, ChannelsFirst):
            found.add(node.output)
    return found


def _reads_first(reader: Node, found: set[Tensor]) -> bool:
    return isinstance(reader.layer, ChannelsLast) or (
        reader.layer.elementwise and reader.output in found
    )


def is_transpose(item: Node | Call) -> bool:
    """Whether this only moves values: layers that nobody asked for are not listed."""
    return isinstance(item, Node) and isinstance(item.layer, (ChannelsLast, ChannelsFirst))

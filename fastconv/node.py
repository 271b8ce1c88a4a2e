"""ONNX as plain data: what layers say about themselves without the onnx package.

A layer describes its forward pass to a `Scope` in ONNX operators (`Layer.to_onnx`); the exporter
turns what the scope collected into a file.

A file is channels first, layers think channels last. Every tensor carries how its axes lie in the
file, and consumers absorb it: a convolution takes its weights in the file's order, a dense layer
after a flattened image has its rows permuted. A node that moves values appears only where an
operator has no form for the order at hand.
"""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.layer import Layer
    from fastconv.parameter import Parameter


class ExportError(ValueError):
    """The model cannot be written to ONNX, or what was written failed its proof."""


@dataclass
class OnnxNode:
    """One operator: tensors by name, attributes as Python numbers, strings and lists of them."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    name: str


@dataclass(frozen=True, eq=False)
class OnnxTensor:
    """A tensor of the file, and how it shows one of ours.

    Attributes
    ----------
    name : str
    shape : tuple of int or None
        One sample's shape as layers see it, channels last, without the batch axis.
    order : tuple of int
        Which of those axes stands at each axis of the file (behind the batch axis there):
        (2, 0, 1) is an image (H, W, C) stored as (C, H, W).
    elements : ndarray of int, optional
        Of a vector whose values stand in another order (a flattened channels-first image): which
        of our elements stands at each place of the file. None: each at its own.
    """

    name: str
    shape: Shape
    order: tuple[int, ...]
    elements: np.ndarray | None = None

    @property
    def file_shape(self) -> Shape:
        """One sample's shape as the file has it."""
        return tuple(self.shape[axis] for axis in self.order)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_channels_first(self) -> bool:
        return self.order == channels_first(self.rank)

    @property
    def is_plain(self) -> bool:
        """Whether the file has the axes and values in the order in which layers see them."""
        return self.order == plain(self.rank) and self.elements is None

    def axis(self, axis: int) -> int:
        """The file's axis (the batch is 0) of one of ours (0 is the first behind the batch)."""
        return 1 + self.order.index(axis % self.rank)

    def lies_like(self, other: "OnnxTensor") -> bool:
        """Whether values of equal place in both tensors are values of equal place in the file."""
        if self.elements is None or other.elements is None:
            return self.order == other.order and self.elements is other.elements
        return np.array_equal(self.elements, other.elements)

    def permute(self, rows: np.ndarray) -> np.ndarray:
        """Numbers (or rows) that belong to the last axis, one each, in the file's order."""
        return rows if self.elements is None else rows[self.elements]


@dataclass
class OnnxGraph:
    """Operators in order, and the constants that they read.

    ``image_order`` is how inputs and outputs of three and more axes lie: "NCHW" or "NHWC".
    """

    image_order: str = "NCHW"
    nodes: list[OnnxNode] = field(default_factory=list)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[OnnxTensor] = field(default_factory=list)
    outputs: list[OnnxTensor] = field(default_factory=list)

    def rename(self, old: str, new: str) -> None:
        """Give a tensor that nodes make and read another name."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
            node.outputs = [new if name == old else name for name in node.outputs]

    def producer(self, name: str) -> OnnxNode | None:
        """The node that makes the tensor; None for an input or an initializer."""
        return next((node for node in self.nodes if name in node.outputs), None)

    def readers(self, name: str) -> list[OnnxNode]:
        return [node for node in self.nodes if name in node.inputs]


class Scope:
    """What a layer sees while it describes itself.

    Nodes and tensors are named after the layer: the layer's first node and its result carry its
    name, what lies between carries ``<layer>/<operator>``, parameters ``<layer>/<parameter>``. A
    layer used again gets a number behind its name; its parameters stand in the file once.

    Parameters
    ----------
    opset : int
        The operator set of the file; ask `require` for what only newer ones have.
    reserved : iterable of str
        All layers' names, which no invented name may take.
    image_order : "NCHW" or "NHWC"
        How the file's inputs of three and more axes lie.
    """

    def __init__(self, opset: int, reserved: Sequence[str] = (), image_order: str = "NCHW") -> None:
        self.opset = opset
        self.graph = OnnxGraph(image_order)
        self._taken = set(reserved)
        self._uses: dict[str, int] = {}
        self._layer: Layer | None = None
        self._use = ""  # the name of this use of the layer
        self._named = False  # whether a node carries that name already
        self._first = False  # whether layers see the input or output at hand channels first
        self._reordered: dict[tuple[str, tuple[int, ...]], OnnxTensor] = {}

    # -- what layers call -----------------------------------------------------------------------

    def node(
        self, op: str, inputs: Sequence[OnnxTensor | str], like: OnnxTensor, **attributes: Any
    ) -> OnnxTensor:
        """Append an operator; its result has ``like``'s shape and order under a new name."""
        output = self._fresh(f"{self._use}/{op.lower()}")
        name = output if self._named else self._use
        self._named = True
        return self._append(op, inputs, like, output, name, attributes)

    def constant(self, array: Any, hint: str, dtype: Any = np.float32) -> str:
        """The name of an initializer ``<layer>/<hint>`` with these values."""
        assert self._layer is not None
        return self._initializer(f"{self._layer.name}/{hint}", np.asarray(array, dtype))

    def parameter(self, parameter: "Parameter", array: np.ndarray | None = None) -> str:
        """The name of an initializer for a parameter, where needed with its values moved about."""
        value = parameter.value if array is None else array
        return self._initializer(parameter.name, np.ascontiguousarray(value, np.float32))

    def input(self, shape: Shape) -> OnnxTensor:
        """An input of the file. Images and volumes lie in the image order, others as they are."""
        tensor = OnnxTensor(self._use, shape, self._outer(len(shape)))
        self.graph.inputs.append(tensor)
        return tensor

    def channels_first(self, x: OnnxTensor) -> OnnxTensor:
        """``x`` with the channels right behind the batch, for the operators that want it so."""
        return self._reorder(x, channels_first(x.rank))

    def plain(self, x: OnnxTensor) -> OnnxTensor:
        """``x`` with axes and values in the order in which layers see them."""
        if x.elements is None:
            return self._reorder(x, plain(x.rank))
        back = self._initializer(f"{x.name}/order", np.argsort(x.elements))
        name = self._fresh(f"{x.name}/gather")
        like = replace(x, elements=None)
        return self._append("Gather", [x, back], like, name, name, {"axis": 1})

    def alike(self, inputs: Sequence[OnnxTensor]) -> list[OnnxTensor]:
        """The inputs, all in one order: channels first where any of them is."""
        if all(x.lies_like(inputs[0]) for x in inputs):
            return list(inputs)
        if any(x.is_channels_first and x.elements is None and x.rank > 1 for x in inputs):
            return [self.channels_first(x) for x in inputs]
        return [self.plain(x) for x in inputs]

    def seen(self, x: OnnxTensor, shape: Shape, order: Sequence[int]) -> OnnxTensor:
        """The same values of the file, whose axes layers see in another order from here on."""
        return replace(x, shape=shape, order=tuple(order))

    def flatten(self, x: OnnxTensor) -> OnnxTensor:
        """All values of a sample as one vector, in the order in which the file has them."""
        if x.rank == 1:
            return x
        sizes = shapes.known(x.shape, self._use)
        places = np.arange(shapes.elements(sizes)).reshape(sizes).transpose(x.order).ravel()
        elements = None if np.array_equal(places, np.arange(places.size)) else places
        return self.node("Flatten", [x], OnnxTensor("", (places.size,), (0,), elements), axis=1)

    def reshape(self, x: OnnxTensor, shape: Shape) -> OnnxTensor:
        """The values of a sample, in the order in which layers see them, in another shape."""
        if x.elements is not None or _in_memory(x) != sorted(_in_memory(x)):
            x = self.plain(x)
        y = OnnxTensor("", shape, channels_first(len(shape)))
        if len(shape) < 3 or _in_memory(y) != sorted(_in_memory(y)):
            y = replace(y, order=plain(len(shape)))
        sizes = [0, *shapes.known(y.file_shape, self._use)]  # 0 keeps the batch's
        return self.node("Reshape", [x, self.constant(sizes, "shape", np.int64)], y)

    def window_attributes(
        self,
        x: OnnxTensor,
        kernel: Sequence[int],
        strides: Sequence[int],
        dilation: Sequence[int],
        padding: str | shapes.Pads,
    ) -> dict[str, Any]:
        """Attributes of an operator whose window slides over an image ``x``.

        ``"same"`` becomes explicit padding where it does not depend on an unknown size, else the
        operator's own ``auto_pad``. That one has no form for dilation, and onnxruntime refuses it
        at some sizes where a window is smaller than its stride.
        """
        attributes: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(strides)}
        if any(step > 1 for step in dilation):
            attributes["dilations"] = list(dilation)
        spatial = x.shape[:-1]
        unknown = padding == "same" and any(
            size is None and stride > 1 and window > 1
            for size, stride, window in zip(spatial, strides, kernel, strict=True)
        )
        if not unknown:
            # with stride 1, or windows of one pixel, any size gives the same padding
            sizes = [1 if size is None else size for size in spatial]
            pads = shapes.resolve_padding(padding, sizes, kernel, strides, dilation)
            attributes["pads"] = [before for before, _ in pads] + [after for _, after in pads]
        elif "dilations" in attributes or any(map(operator.lt, kernel, strides)):
            raise self.refuse(
                'padding="same" with strides over an image of unknown size, and with dilation or a '
                "window smaller than its stride; give explicit padding or the input's size"
            )
        else:
            attributes["auto_pad"] = "SAME_UPPER"
        return attributes

    def require(self, opset: int, what: str) -> None:
        """Refuse the export where the operator set is older than ``what`` needs."""
        if self.opset < opset:
            raise self.refuse(f"{what} needs opset {opset} or newer, the file has {self.opset}")

    def refuse(self, reason: str) -> ExportError:
        """The error to raise where the layer has no form in ONNX; it names the layer."""
        kind = type(self._layer).__name__
        return ExportError(f"{self._use} ({kind}) cannot be exported: {reason}")

    # -- what the exporter calls ----------------------------------------------------------------

    def describe(
        self, layer: "Layer", inputs: Sequence[OnnxTensor], shape: Shape, first: bool = False
    ) -> OnnxTensor:
        """The nodes of one use of a layer; returns its result, which carries the layer's name.

        ``first``: of an input that layers see channels first (`fastconv.layout`).
        """
        with self._using(layer, first):
            begin = len(self.graph.nodes)
            result = layer.to_onnx(self, list(inputs))
            if result.shape != shape:
                raise self.refuse(
                    f"to_onnx makes {shapes.shape_text(result.shape)}, "
                    f"the layer {shapes.shape_text(shape)}"
                )
            if any(result.name in node.outputs for node in self.graph.nodes[begin:]):
                self._rename(result.name, self._use)
                result = replace(result, name=self._use)
            return result

    def output(self, x: OnnxTensor, first: bool = False) -> OnnxTensor:
        """Make ``x`` an output of the file, in the image order, under its own name."""
        self._first = first
        moved = self.plain(x) if x.elements is not None else self._reorder(x, self._outer(x.rank))
        names = [t.name for t in (*self.graph.inputs, *self.graph.outputs)]
        if moved.name in names:  # an input or another output: one name cannot be both
            name = self._fresh(f"{x.name}/output")
            moved = self._append("Identity", [moved], moved, name, name, {})
        elif moved is not x and x.name not in names:
            inner = self._fresh(f"{x.name}/inner")
            self._rename(x.name, inner)
            self._rename(moved.name, x.name)
            moved = replace(moved, name=x.name)
        self.graph.outputs.append(moved)
        return moved

    # -- names and places -----------------------------------------------------------------------

    def _outer(self, rank: int) -> tuple[int, ...]:
        """The order of an input or output: images and volumes lie in the image order."""
        as_seen = self.graph.image_order == ("NCHW" if self._first else "NHWC")
        if rank < 3 or as_seen:
            return plain(rank)
        return (*range(1, rank), 0) if self._first else channels_first(rank)

    @contextmanager
    def _using(self, layer: "Layer", first: bool) -> Iterator[None]:
        self._first = first
        number = self._uses.get(layer.name, 0)
        self._uses[layer.name] = number + 1
        self._layer, self._named = layer, False
        self._use = self._fresh(f"{layer.name}_{number}") if number else layer.name
        yield

    def _fresh(self, name: str) -> str:
        number, fresh = 0, name
        while fresh in self._taken:
            number += 1
            fresh = f"{name}_{number}"
        self._taken.add(fresh)
        return fresh

    def _rename(self, old: str, new: str) -> None:
        self.graph.rename(old, new)
        self._taken.discard(old)
        self._taken.add(new)
        for key, tensor in self._reordered.items():
            if tensor.name == old:
                self._reordered[key] = replace(tensor, name=new)

    def _initializer(self, name: str, array: np.ndarray) -> str:
        # the same values under the same name are one initializer, however often they are used
        for known, value in self.graph.initializers.items():
            same_name = known == name or known.startswith(f"{name}_")
            if same_name and value.dtype == array.dtype and np.array_equal(value, array):
                return known
        fresh = self._fresh(name)
        self.graph.initializers[fresh] = array
        return fresh

    def _append(
        self,
        op: str,
        inputs: Sequence[OnnxTensor | str],
        like: OnnxTensor,
        output: str,
        name: str,
        attributes: dict[str, Any],
    ) -> OnnxTensor:
        names = [x if isinstance(x, str) else x.name for x in inputs]
        self.graph.nodes.append(OnnxNode(op, names, [output], attributes, name))
        return replace(like, name=output)

    def _reorder(self, x: OnnxTensor, order: tuple[int, ...]) -> OnnxTensor:
        """``x`` with its axes in another order; made once, however many read it."""
        if x.order == order:
            return x
        key = (x.name, order)
        if key not in self._reordered:
            like = replace(x, order=order)
            if None not in x.shape and _in_memory(x) == _in_memory(like):
                name = self._fresh(f"{x.name}/reshape")
                sizes = np.array([0, *like.file_shape], np.int64)
                shape = self._initializer(f"{x.name}/shape", sizes)
                moved = self._append("Reshape", [x, shape], like, name, name, {})
            else:
                name = self._fresh(f"{x.name}/transpose")
                perm = [0, *(x.axis(axis) for axis in order)]
                moved = self._append("Transpose", [x], like, name, name, {"perm": perm})
            self._reordered[key] = moved
        return self._reordered[key]


def plain(rank: int) -> tuple[int, ...]:
    """The order that changes nothing."""
    return tuple(range(rank))


def channels_first(rank: int) -> tuple[int, ...]:
    """The order that brings the last axis to the front."""
    return (rank - 1, *range(rank - 1))


def _in_memory(x: OnnxTensor) -> list[int]:
    """The axes in the order in which the file has them, without those of one element: where two
    tensors agree in it, their values stand in the same order."""
    return [axis for axis in x.order if x.shape[axis] != 1]

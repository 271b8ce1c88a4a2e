"""Which nodes of a graph are carried out together: batch norm, residual sum, activation and dropout
in one pass over memory instead of four, and at inference on the way out of the product before.

A *unit* is a chain of nodes whose first node's layer, the head, emits the steps of all of them. A
value between two of them is never written. So a chain ends where such a value has another reader or
is an output of the model. The head learns from its frame what it shall carry out: an activation to
apply (``frame.activation``), a batch norm before it (``frame.norm``), a residual to add (an input
behind its own), a dropout (``frame.mask``). What a unit computes are the same numbers, to the bit,
as its nodes would compute one by one.

``FASTCONV_FUSION=0`` makes every node a unit of its own.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastconv.activations import LINEAR, Mask
from fastconv.activations import Activation as Function
from fastconv.graph import Graph
from fastconv.layer import Layer, Node, Tensor
from fastconv.layers.activation import Activation
from fastconv.layers.add import Add
from fastconv.layers.average_pooling2d import AveragePooling2D
from fastconv.layers.batch_normalization import BatchNormalization
from fastconv.layers.conv2d import Conv2D
from fastconv.layers.conv2d_transpose import Conv2DTranspose
from fastconv.layers.dense import Dense
from fastconv.layers.depthwise_conv2d import DepthwiseConv2D
from fastconv.layers.dropout import Dropout
from fastconv.layers.flatten import Flatten
from fastconv.layers.leaky_relu import LeakyReLU
from fastconv.layers.max_pooling2d import MaxPooling2D
from fastconv.layers.relu import ReLU
from fastconv.layout import is_transpose

ACTIVATIONS = (Activation, ReLU, LeakyReLU)
PRODUCTS = (Conv2D, DepthwiseConv2D, Conv2DTranspose, Dense)
POOLINGS = (MaxPooling2D, AveragePooling2D)
HEADS = (BatchNormalization, Add, *PRODUCTS)  # these carry out an activation


@dataclass(frozen=True)
class Unit:
    """Nodes that one layer carries out.

    Attributes
    ----------
    layers : tuple of Layer
        Of the nodes; the first, the head, emits all steps.
    inputs : tuple of Tensor
        The head's own, then the residual if there is one.
    output : Tensor
        Of the last node.
    number : int
        The head's place in the graph.
    activation : activations.Activation
        To be applied behind the head, the norm and the residual; linear: none.
    norm : BatchNormalization, optional
        By moving statistics, behind a product.
    moments : bool
        Of a convolution: a batch norm that uses its batch's statistics reads the result.
    input_activation : activations.Activation
        Of the unit which made the input, whose derivative this one's backward passes.
    mask : activations.Mask or None
        The dropout to be applied last, in training.
    inference : bool
        The head acts as at inference, also in training.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[Tensor, ...]
    output: Tensor
    number: int
    activation: Function = LINEAR
    norm: BatchNormalization | None = None
    moments: bool = False
    input_activation: Function = LINEAR
    mask: Mask | None = None
    inference: bool = False

    @property
    def layer(self) -> Layer:
        """The head."""
        return self.layers[0]


def units(graph: Graph, inference: bool = False, training: bool = False) -> list[Unit]:
    """The graph's nodes as units, in an order in which they can run: each unit stands where its
    last node stood, when a residual has been computed too.

    ``inference``: batch norms use their moving statistics, and no backward follows. ``training``:
    those that are not frozen use the batch's.
    """
    # numbers choose random streams: a transpose that nobody asked for must not shift them
    moves = [node for node in graph.nodes if is_transpose(node)]
    others = [node for node in graph.nodes if not is_transpose(node)]
    number = {node: i for i, node in enumerate(others + moves)}
    alone = [
        Unit((node.layer,), node.inputs, node.output, number[node], inference=node.inference)
        for node in graph.nodes
    ]
    if os.environ.get("FASTCONV_FUSION") == "0":
        return alone
    readers = graph.consumers()
    found: dict[Tensor, Unit] = {}
    for node, unit in zip(graph.nodes, alone, strict=True):
        inner = {
            t: found[t] for t in node.inputs if readers[t] == [node] and t not in graph.outputs
        }
        if _dropout_behind_flatten(node, unit.number, inner, readers, graph, found):
            continue
        head = (
            _residual(node, inner) or _activation(node, inner) or _dropout(node, unit.number, inner)
        )
        if head is None and inference:
            head = _norm(node, inner)
        if head is not None:
            del found[next(t for t, u in inner.items() if u.number == head.number)]
        found[node.output] = head or _behind(unit, inner)
    if training:
        return [_with_moments(unit, readers[unit.output]) for unit in found.values()]
    return list(found.values())


def _with_moments(unit: Unit, readers: list[Node]) -> Unit:
    """A convolution whose sums a batch norm takes statistics of: while they are at hand."""
    plain = _function(unit.layer, (Conv2D,)) == LINEAR and len(unit.layers) == 1
    wanted = any(
        type(n.layer) is BatchNormalization and n.layer.trainable and not n.inference
        for n in readers
    )
    return replace(unit, moments=True) if plain and wanted else unit


def _norm(node: Node, inner: dict[Tensor, Unit]) -> Unit | None:
    """A product with the batch norm that follows: the statistics are known before its sums are.

    What is stored is the normalised value of the sum that would have been stored. (Scaled weights
    would round otherwise, and a model's outputs would depend on what else it gives out.)
    """
    head = inner.get(node.inputs[0]) if node.inputs else None
    if type(node.layer) is not BatchNormalization or head is None:
        return None
    if head.norm is not None or _function(head.layer, PRODUCTS) != LINEAR or not _is_plain(head):
        return None
    layers = (*head.layers, node.layer)
    return replace(head, layers=layers, output=node.output, norm=node.layer)


def _residual(node: Node, inner: dict[Tensor, Unit]) -> Unit | None:
    """Batch norm, or a product with one, and the sum that follows: the last of the summands that is
    one carries it out."""
    if type(node.layer) is not Add or len(node.inputs) != 2:
        return None
    for tensor, other in (node.inputs[::-1], node.inputs):
        head = inner.get(tensor)
        normed = head and (type(head.layer) is BatchNormalization or head.norm is not None)
        if head and normed and _is_plain(head):
            layers = (*head.layers, node.layer)
            return replace(head, layers=layers, inputs=(*head.inputs, other), output=node.output)
    return None


def _activation(node: Node, inner: dict[Tensor, Unit]) -> Unit | None:
    """A layer with the piecewise linear activation that follows."""
    f = _function(node.layer, ACTIVATIONS)
    if f is None or not f.piecewise_linear:
        return None
    head = inner.get(node.inputs[0])
    if head is None or not _is_free(head) or _function(head.layer, HEADS) != LINEAR:
        return None
    return replace(head, layers=(*head.layers, node.layer), output=node.output, activation=f)


def _dropout(node: Node, number: int, inner: dict[Tensor, Unit]) -> Unit | None:
    """A dropout with the layer before it."""
    mask = _mask(node, number)
    head = inner.get(node.inputs[0]) if mask else None
    if mask is None or head is None or not _drops(head):
        return None
    return replace(head, layers=(*head.layers, node.layer), output=node.output, mask=mask)


def _dropout_behind_flatten(
    node: Node,
    number: int,
    inner: dict[Tensor, Unit],
    readers: Mapping[Tensor, Sequence[Node]],
    graph: Graph,
    found: dict[Tensor, Unit],
) -> bool:
    """Whether ``found`` now has a dropout with the layer before the `Flatten` that it follows: an
    element's place in the batch is the same before and behind. What the two nodes make are views of
    the one tensor."""
    mask = _mask(node, number)
    view = inner.get(node.inputs[0]) if mask else None
    if mask is None or view is None or type(view.layer) is not Flatten:
        return False
    source = view.inputs[0]
    head = found[source]
    if len(readers[source]) > 1 or source in graph.outputs or not _drops(head):
        return False
    del found[view.output]
    found[source] = replace(head, mask=mask)
    found[node.output] = replace(view, layers=(*view.layers, node.layer), output=node.output)
    return True


def _mask(node: Node, number: int) -> Mask | None:
    layer = node.layer
    if type(layer) is not Dropout or layer.rate == 0 or node.inference:
        return None
    return layer.mask(number)


def _drops(head: Unit) -> bool:
    """Whether a unit can apply a dropout too: its own result must not be needed again. Backward
    looks at it for the derivative of an activation, but that of a ReLU can be seen behind the
    dropout as well, and batch norm without a residual finds it from its input."""
    if head.mask is not None:
        return False
    if type(head.layer) is BatchNormalization and len(head.inputs) == 1:
        return True
    if type(head.layer) in POOLINGS:
        f: Function | None = head.input_activation
    else:
        own = _function(head.layer, HEADS)
        f = own if own != LINEAR else head.activation
    return f is not None and (f == LINEAR or f.zero_or_free)


def _behind(unit: Unit, inner: dict[Tensor, Unit]) -> Unit:
    """Max pooling passes the ReLU of the product before it: what it hands to a pixel is masked by
    that pixel's value, and the value is the pooled one. (A slope would round otherwise where
    windows overlap.)"""
    maker = inner.get(unit.inputs[0]) if unit.inputs else None
    if type(unit.layer) is not MaxPooling2D or maker is None:
        return unit
    own = _function(maker.layer, PRODUCTS)
    f = own if own is not None and own != LINEAR else maker.activation
    if own is None or maker.mask is not None or not f.piecewise_linear or f.alpha != 0:
        return unit
    return replace(unit, input_activation=f)


def _function(layer: Layer, among: tuple[type[Layer], ...]) -> Function | None:
    """The layer's own activation if its class is one of these; a subclass may do otherwise."""
    return getattr(layer, "activation", LINEAR) if type(layer) in among else None


def _is_plain(unit: Unit) -> bool:
    return len(unit.inputs) == 1 and _is_free(unit)


def _is_free(unit: Unit) -> bool:
    """Whether nothing follows the head, or its residual, yet."""
    return unit.activation == LINEAR and unit.mask is None

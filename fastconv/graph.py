"""The graph is the model: layers applied to tensors, in an order in which they can run."""

from collections.abc import Iterable, Sequence
from typing import Any

from fastconv.layer import Layer, Node, Tensor, from_config
from fastconv.layers.input import InputLayer
from fastconv.parameter import Parameter
from fastconv.shapes import Shape, shape_text


def as_tensors(value: Any, name: str) -> list[Tensor]:
    """One symbolic tensor or a non-empty list of them, as a list."""
    tensors = list(value) if isinstance(value, (list, tuple)) else [value]
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} are symbolic tensors, not {type(tensor).__name__}")
    if not tensors:
        raise ValueError(f"{name} must not be empty")
    return tensors


class Graph:
    """Nodes in topological order between input and output tensors.

    Attributes
    ----------
    inputs, outputs : list of Tensor
    single : bool
        Whether the output was given by itself instead of in a list.
    nodes : list of Node
        Each after those whose outputs it reads; the input nodes are among them.
    layers : list of Layer
        Each once, in the order of first use.
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self.inputs = as_tensors(inputs, "inputs")
        self.outputs = as_tensors(outputs, "outputs")
        self.single = isinstance(outputs, Tensor)
        for tensor in self.inputs:
            if not isinstance(tensor.node.layer, InputLayer):
                raise ValueError(f"{tensor} is not an Input")
        if len(set(self.inputs)) != len(self.inputs):
            raise ValueError("the same Input is named twice")
        self.nodes = _ordered(self.outputs)
        for node in self.nodes:
            if isinstance(node.layer, InputLayer) and node.output not in self.inputs:
                raise ValueError(
                    f"the outputs also depend on the Input {node.layer.name!r}, "
                    "which is not among the inputs"
                )
        unused = [t.node for t in self.inputs if t.node not in self.nodes]
        self.nodes = unused + self.nodes
        self.layers: list[Layer] = list(dict.fromkeys(node.layer for node in self.nodes))
        self._shapes: tuple[tuple[Shape, ...], dict[Tensor, Shape]] | None = None
        seen: dict[str, Layer] = {}
        for layer in self.layers:
            if seen.setdefault(layer.name, layer) is not layer:
                raise ValueError(f"two layers are named {layer.name!r}; names must be unique")

    @property
    def parameters(self) -> list[Parameter]:
        return [parameter for layer in self.layers for parameter in layer.parameters]

    def shapes(self, inputs: Sequence[Shape]) -> dict[Tensor, Shape]:
        """The shape of every tensor for inputs of these shapes."""
        key = tuple(inputs)
        if self._shapes is not None and self._shapes[0] == key:
            return self._shapes[1]  # batch after batch asks for the same
        shapes: dict[Tensor, Shape] = {}
        for tensor, shape in zip(self.inputs, inputs, strict=True):
            if len(shape) != len(tensor.shape) or any(
                want not in (None, got) for want, got in zip(tensor.shape, shape, strict=True)
            ):
                raise ValueError(
                    f"{tensor.node.layer.name} takes {shape_text(tensor.shape)}, "
                    f"not {shape_text(shape)}"
                )
            shapes[tensor] = shape
        for node in self.nodes:
            if node.output not in shapes:
                given = [shapes[tensor] for tensor in node.inputs]
                shapes[node.output] = node.layer.output_shape(*given)
        self._shapes = key, shapes
        return shapes

    def consumers(self) -> dict[Tensor, list[Node]]:
        """Which nodes read each tensor; a node that reads it twice stands there twice."""
        readers: dict[Tensor, list[Node]] = {node.output: [] for node in self.nodes}
        for node in self.nodes:
            for tensor in node.inputs:
                readers[tensor].append(node)
        return readers

    def to_config(self) -> dict[str, Any]:
        """The graph as plain data: layers with their arguments, nodes by number."""
        number = {node.output: i for i, node in enumerate(self.nodes)}
        place = {layer: i for i, layer in enumerate(self.layers)}
        outputs = [number[tensor] for tensor in self.outputs]
        return {
            "layers": [
                {"class": type(layer).__name__, "config": layer.get_config()}
                for layer in self.layers
            ],
            "nodes": [
                {"layer": place[node.layer], "inputs": [number[t] for t in node.inputs]}
                for node in self.nodes
            ],
            "inputs": [number[tensor] for tensor in self.inputs],
            "outputs": outputs[0] if self.single else outputs,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Graph":
        """The graph that `to_config` described, with fresh parameters."""
        layers = [from_config(entry["class"], entry["config"]) for entry in config["layers"]]
        tensors: list[Tensor] = []
        for entry in config["nodes"]:
            layer = layers[_index(entry["layer"], layers)]
            inputs = [tensors[_index(i, tensors)] for i in entry["inputs"]]
            if isinstance(layer, InputLayer):
                tensors.append(layer.tensor())
            else:
                tensors.append(layer(inputs))
        inputs, outputs = config["inputs"], config["outputs"]
        single = not isinstance(outputs, list)
        made = [tensors[_index(i, tensors)] for i in ([outputs] if single else outputs)]
        return cls([tensors[_index(i, tensors)] for i in inputs], made[0] if single else made)


def _index(value: Any, items: Sequence[Any]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(items):
        raise ValueError(f"the graph names item {value!r} of {len(items)}")
    return value


def _ordered(outputs: Iterable[Tensor]) -> list[Node]:
    """All nodes that the outputs depend on, depth first, without recursion."""
    done: dict[Node, None] = {}
    stack = [tensor.node for tensor in reversed(list(outputs))]
    while stack:
        node = stack[-1]
        waiting = [t.node for t in node.inputs if t.node not in done]
        if node in done or not waiting:
            done[node] = None
            stack.pop()
        else:
            stack.extend(reversed(waiting))
    return list(done)

"""The graph is the model: layers applied to tensors, in an order in which they can run."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastconv.layer import Call, Layer, Node, Tensor, from_config
from fastconv.layers.input import InputLayer
from fastconv.layout import laid_out
from fastconv.parameter import Parameter
from fastconv.shapes import Shape, shape_text


def as_tensors(value: Any, name: str) -> list[Tensor]:
    """One symbolic tensor or a non-empty list of them (or of such lists), as a list."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    tensors = [t for i in items for t in (i if isinstance(i, (list, tuple)) else [i])]
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
        # outputs are what they are shown as
        self.outputs = [laid_out(tensor, False) for tensor in as_tensors(outputs, "outputs")]
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
                raise ValueError(
                    f"two layers are named {layer.name!r}; names must be unique, also within "
                    "models that are used as layers"
                )

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
            if len(shape) != len(tensor.sample_shape) or any(
                want not in (None, got)
                for want, got in zip(tensor.sample_shape, shape, strict=True)
            ):
                raise ValueError(
                    f"{tensor.node.layer.name} takes {shape_text(tensor.sample_shape)}, "
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

    def items(self) -> "list[Node | Call]":
        """The nodes, with a model that is used as a layer as one item, in an order in which they
        can run.

        Where a part of such a model is also used by itself, all its layers stand for themselves.
        """
        if not any(node.calls for node in self.nodes):
            return list(self.nodes)
        found = _items(self)
        inner = [layer for c in found if isinstance(c, Call) for layer in _layers_of(c.model)]
        direct = {node.layer for node in found if isinstance(node, Node)}
        models = {id(c.model): c.model for c in found if isinstance(c, Call)}
        apart = sum(len(_layers_of(model)) for model in models.values()) == len(set(inner))
        if apart and not direct & set(inner) and _closed(self, found):
            return found
        return list(self.nodes)

    def to_config(self) -> dict[str, Any]:
        """The graph as plain data: layers and models with their arguments, nodes by number."""
        items = self.items()
        models = list({id(c.model): c.model for c in items if isinstance(c, Call)}.values())
        layers = list(dict.fromkeys(node.layer for node in items if isinstance(node, Node)))
        number: dict[Tensor, int] = {}
        nodes: list[dict[str, Any]] = []
        for item in items:
            given = [number[tensor] for tensor in item.inputs]
            if isinstance(item, Call):
                entry: dict[str, Any] = {"model": models.index(item.model), "inputs": given}
            else:
                entry = {"layer": layers.index(item.layer), "inputs": given}
            nodes.append({**entry, "inference": True} if item.inference else entry)
            for tensor in _outputs(item):
                number[tensor] = len(number)
        outputs = [number[tensor] for tensor in self.outputs]
        config: dict[str, Any] = {
            "layers": [{"class": type(layer).__name__, "config": layer.get_config()}
                       for layer in layers],
            "nodes": nodes,
            "inputs": [number[tensor] for tensor in self.inputs],
            "outputs": outputs[0] if self.single else outputs,
        }  # fmt: skip
        if models:
            config["models"] = [model.get_config() for model in models]
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], make_model: "Callable[[dict[str, Any]], Any] | None" = None
    ) -> "Graph":
        """The graph that `to_config` described, with fresh parameters.

        ``make_model`` makes the models within, each from its own `Model.get_config`.
        """
        layers = [from_config(entry["class"], entry["config"]) for entry in config["layers"]]
        within = config.get("models", [])
        if within and make_model is None:
            raise ValueError("the graph has models within")
        models = [make_model(entry) for entry in within] if make_model else []
        tensors: list[Tensor] = []
        for entry in config["nodes"]:
            inputs = [tensors[_index(i, tensors)] for i in entry["inputs"]]
            if "model" in entry:
                training = False if entry.get("inference") else None
                made = models[_index(entry["model"], models)](inputs, training=training)
                tensors += made if isinstance(made, list) else [made]
                continue
            layer = layers[_index(entry["layer"], layers)]
            tensors.append(layer.tensor() if isinstance(layer, InputLayer) else layer(inputs))
            tensors[-1].node.inference = bool(entry.get("inference"))
        inputs, outputs = config["inputs"], config["outputs"]
        single = not isinstance(outputs, list)
        made = [tensors[_index(i, tensors)] for i in ([outputs] if single else outputs)]
        return cls([tensors[_index(i, tensors)] for i in inputs], made[0] if single else made)


def _outputs(item: "Node | Call") -> tuple[Tensor, ...]:
    return item.outputs if isinstance(item, Call) else (item.output,)


def _items(graph: Graph) -> "list[Node | Call]":
    """Nodes and uses of models that the outputs depend on, depth first, without recursion."""
    done: dict[Node | Call, None] = {tensor.node: None for tensor in graph.inputs}
    stack: list[Node | Call] = [_item(tensor) for tensor in reversed(graph.outputs)]
    while stack:
        item = stack[-1]
        waiting = [i for t in item.inputs if (i := _item(t)) not in done]
        if item in done or not waiting:
            done[item] = None
            stack.pop()
        else:
            stack.extend(reversed(waiting))
    return list(done)


def _item(tensor: Tensor) -> "Node | Call":
    return tensor.node.calls[0] if tensor.node.calls else tensor.node


def _closed(graph: Graph, items: "list[Node | Call]") -> bool:
    """Whether nobody looks at what lies within a model."""
    shown = {tensor for item in items for tensor in _outputs(item)}
    return all(t in shown for item in items for t in item.inputs) and all(
        t in shown for t in graph.outputs
    )


def _layers_of(model: Any) -> list[Layer]:
    return [layer for layer in model.graph.layers if not isinstance(layer, InputLayer)]


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

"""Rewrites of a described graph that span several layers."""

import numpy as np
from onnx import TensorProto, defs

from fastconv.node import ExportError, OnnxGraph, OnnxNode

# operator → the axis of its weight that counts the output channels
_FOLDS_INTO = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1}


def fold_batch_norm(graph: OnnxGraph) -> None:
    """Take every batch normalization that follows a convolution or dense layer into its weights.

    ``gamma · (W ∗ x + b − mean) / √(variance + ε) + beta`` is again a convolution, with the weights
    ``W · s`` and the bias ``(b − mean) · s + beta``, ``s = gamma / √(variance + ε)``. Done in
    float64 and rounded once. Where something else reads the convolution's output too, it stays.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    for norm in [node for node in graph.nodes if node.op == "BatchNormalization"]:
        before = graph.producer(norm.inputs[0])
        if before is None or before.op not in _FOLDS_INTO:
            continue
        if norm.inputs[0] in outputs or len(graph.readers(norm.inputs[0])) > 1:
            continue
        _fold(graph, before, norm)
    used = {name for node in graph.nodes for name in node.inputs}
    graph.initializers = {k: v for k, v in graph.initializers.items() if k in used}


def _fold(graph: OnnxGraph, before: OnnxNode, norm: OnnxNode) -> None:
    numbers = graph.initializers
    gamma, beta, mean, variance = (numbers[name].astype(np.float64) for name in norm.inputs[1:])
    scale = gamma / np.sqrt(variance + norm.attributes["epsilon"])
    weight = numbers[before.inputs[1]].astype(np.float64)
    bias = numbers[before.inputs[2]] if len(before.inputs) > 2 else np.zeros_like(mean)
    along = [1] * weight.ndim
    along[_FOLDS_INTO[before.op]] = -1
    # new names: a shared layer's own weights may be read at another place
    folded = {
        f"{norm.name}/folded_kernel": weight * scale.reshape(along),
        f"{norm.name}/folded_bias": (bias - mean) * scale + beta,
    }
    for name, value in folded.items():
        numbers[name] = value.astype(np.float32)
    before.inputs = [before.inputs[0], *folded]
    before.outputs = norm.outputs
    graph.nodes.remove(norm)


# -- float16 --------------------------------------------------------------------------------------

# What adds many numbers, squares them or takes their exponentials: float16 would run out of digits,
# or of range, which ends at 65504.
_IN_FLOAT32 = {
    "BatchNormalization", "InstanceNormalization", "LayerNormalization", "LRN",
    "Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal",
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceLogSumExp",
}  # fmt: skip


def to_float16(graph: OnnxGraph, opset: int) -> int:
    """Let the graph compute in float16, its inputs, its outputs and what is delicate in float32.

    Weights become float16, and a Cast stands wherever a tensor is read in the other type.

    Returns
    -------
    int
        Operators that compute in float16: how often a value is rounded on its way, at most.

    Raises
    ------
    ExportError
        A weight is beyond float16's range.
    """
    return _Halving(graph, opset).run()


class _Halving:
    """The walk of `to_float16`: which tensor is in which type, and the casts between them."""

    def __init__(self, graph: OnnxGraph, opset: int) -> None:
        self.graph, self.opset = graph, opset
        self.types: dict[str, type[np.floating]] = {t.name: np.float32 for t in graph.inputs}
        self.casts: dict[tuple[str, type[np.floating]], str] = {}
        self.nodes: list[OnnxNode] = []
        self.taken = {
            name for node in graph.nodes for name in (node.name, *node.inputs, *node.outputs)
        }

    def run(self) -> int:
        constants = self.graph.initializers
        count = 0
        for node in self.graph.nodes:
            wanted = np.float32 if node.op in _IN_FLOAT32 else np.float16
            formal = self._type_parameters(node)
            floats = {formal[i] for i, name in enumerate(node.inputs) if self._is_float(name)}
            # types that the operator fixes ("tensor(float)", a Resize's scales) stay as they are
            floats = {parameter for parameter in floats if not parameter.startswith("tensor(")}
            node.inputs = [
                self._as(name, wanted) if self._is_float(name) and formal[i] in floats else name
                for i, name in enumerate(node.inputs)
            ]
            self.nodes.append(node)
            for name, parameter in zip(
                node.outputs, self._type_parameters(node, True), strict=True
            ):
                if parameter in floats:
                    self.types[name] = wanted
            count += bool(floats) and wanted is np.float16
        for tensor in self.graph.outputs:
            self._give_out(tensor.name)
        self.graph.nodes = self.nodes
        used = {name for node in self.nodes for name in node.inputs}
        self.graph.initializers = {k: v for k, v in constants.items() if k in used}
        return count

    def _type_parameters(self, node: OnnxNode, outputs: bool = False) -> list[str]:
        """The operator's own name of the type ("T") of each input or output."""
        schema = defs.get_schema(node.op, self.opset)
        formal = schema.outputs if outputs else schema.inputs
        names = node.outputs if outputs else node.inputs
        return [formal[min(i, len(formal) - 1)].type_str for i in range(len(names))]  # variadic

    def _is_float(self, name: str) -> bool:
        value = self.graph.initializers.get(name)
        return name in self.types or (value is not None and value.dtype == np.float32)

    def _as(self, name: str, wanted: type[np.floating]) -> str:
        """The tensor in that type, cast or rounded once, however many read it."""
        if self.types.get(name, np.float32) is wanted:
            return name
        key = (name, wanted)
        if key not in self.casts:
            self.casts[key] = self._fresh(f"{name}/{wanted.__name__}")
            if name in self.graph.initializers:
                self.graph.initializers[self.casts[key]] = self._rounded(name)
            else:
                self._cast(name, self.casts[key], wanted)
        return self.casts[key]

    def _rounded(self, name: str) -> np.ndarray:
        value = self.graph.initializers[name]
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.isfinite(half).all():
            largest = float(np.abs(value).max())
            raise ExportError(
                f"{name} holds {largest:.3g}, float16 ends at 65504; export the network in float32"
            )
        return half

    def _give_out(self, name: str) -> None:
        """Cast an output of the file back, which keeps its name."""
        if self.types[name] is np.float32:
            return
        inner = self._fresh(f"{name}/float16")
        for node in self.nodes:
            node.inputs = [inner if n == name else n for n in node.inputs]
            node.outputs = [inner if n == name else n for n in node.outputs]
        self._cast(inner, name, np.float32)

    def _cast(self, source: str, target: str, wanted: type[np.floating]) -> None:
        to = TensorProto.FLOAT16 if wanted is np.float16 else TensorProto.FLOAT
        name = self._fresh(f"{target}/cast")
        self.nodes.append(OnnxNode("Cast", [source], [target], {"to": int(to)}, name))

    def _fresh(self, name: str) -> str:
        while name in self.taken or name in self.graph.initializers:
            name += "_"
        self.taken.add(name)
        return name

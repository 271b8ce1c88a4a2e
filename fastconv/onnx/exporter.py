"""Writing a graph to an ONNX file, with proof.

Each layer describes itself (`Layer.to_onnx`); what is left to do here is the walk through the
graph, the choices that concern the whole file, and the order of things: describe, measure the
trainer, write beside the target, prove that very file, move it into place.
"""

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from os import PathLike
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastconv import shapes
from fastconv.activations import LINEAR
from fastconv.arguments import explained
from fastconv.files import replacing
from fastconv.graph import Graph
from fastconv.layer import Tensor
from fastconv.layers._weighted import _Weighted
from fastconv.layers.activation import Activation
from fastconv.layout import shown_first
from fastconv.node import ExportError, OnnxGraph, OnnxTensor, Scope
from fastconv.onnx import metadata, proof, rewrites
from fastconv.onnx import samples as sampling
from fastconv.onnx.report import ExportReport
from fastconv.version import __version__

OPSETS = range(13, 22)
LARGEST_FILE = 2**31 - 2**20  # protobuf ends at 2 GiB
PROBABILITIES = ("softmax", "sigmoid")


@dataclass
class Description:
    """A graph in ONNX operators, and which tensor of the file shows which of the graph."""

    graph: OnnxGraph
    tensors: dict[Tensor, OnnxTensor]


def _check_ending(path: str | PathLike[str]) -> None:
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix in (".fc", ".fastconv"):
        raise ValueError(
            f"{os.fspath(path)}: model.export writes an ONNX file; model.save writes a model"
        )
    if suffix != ".onnx":
        warnings.warn(
            f"{os.fspath(path)}: what is written there is an ONNX file, and runtimes and servers "
            "go by the ending .onnx",
            UserWarning,
            stacklevel=5,
        )


@explained
def export(
    graph: Graph,
    path: str | PathLike[str],
    *,
    name: str = "fastconv",
    opset: int = 17,
    input_layout: str = "NCHW",
    output: str = "probabilities",
    dtype: str = "float32",
    fold_batch_norm: bool = False,
    class_names: Sequence[str] | None = None,
    input_range: Sequence[float] | None = None,
    samples: Any = None,
    time_cap: float = 120.0,
) -> ExportReport:
    """Write ``graph`` to an ONNX file that has stood its proof; else nothing is written.

    The file is channels first inside, its batch axis is symbolic ("batch"), so are spatial sizes
    that the graph leaves open. Tensors and nodes carry the layers' names.

    Parameters
    ----------
    graph : Graph
    path : path
    name : str
        Of the graph in the file.
    opset : int
        13 to 21. The default, 17, and its IR version 8 run in every onnxruntime of the last years.
    input_layout : {"NCHW", "NHWC"}
        How inputs and outputs of three and more axes lie; vectors and sequences stay as they are.
    output : {"probabilities", "logits"}
        "logits" leaves a final softmax or sigmoid out; "probabilities" is the model as it stands.
    dtype : {"float32", "float16"}
        Of weights and arithmetic. Inputs and outputs are float32 either way; a file in float16
        keeps softmax and statistics in float32, folds batch normalizations into the weights before
        they are rounded, and has a tolerance of its own.
    fold_batch_norm : bool
        Take batch normalizations into the convolutions before them. By default they stay:
        onnxruntime folds them by itself when it loads a file, and the file keeps the model's
        layers one by one, for those who want to look into it or train it further.
    class_names : sequence of str, optional
        Kept in the metadata; one per channel of the (first) output.
    input_range : (low, high), optional
        Of the inputs' values, for the metadata and for generated samples. Default: what a
        Rescaling that the model begins with tells (1/255: bytes); else the file says nothing, and
        samples are made from 0 to 1.
    samples : array or list of arrays, optional
        Real inputs for the proof, as `Model.predict` takes them; the first 16 are used.
    time_cap : float
        Seconds for onnx's reference evaluator, which runs the proof without onnxruntime.

    Raises
    ------
    ExportError
        A layer has no form in ONNX, or the file failed its proof.
    OSError
        The path cannot be written.
    """
    _check_ending(path)
    opset = _opset(opset)
    shapes.choice(input_layout, ("NCHW", "NHWC"), "input_layout")
    shapes.choice(output, ("probabilities", "logits"), "output")
    shapes.choice(dtype, ("float32", "float16"), "dtype")
    names = _class_names(class_names, graph)
    known_range = _range(input_range, graph)
    value_range = known_range or (0.0, 1.0)
    _check_weights(graph)
    source = _in_float32(_without_last_activation(graph) if output == "logits" else graph)
    described = describe(source, opset, input_layout)
    if fold_batch_norm or dtype == "float16":
        rewrites.fold_batch_norm(described.graph)
    halves = rewrites.to_float16(described.graph, opset) if dtype == "float16" else 0

    with replacing(path) as file:
        if samples is None:
            batches = sampling.made(source, described.graph.inputs, value_range)
        else:
            batches = [sampling.given(samples, source)]
        if halves:
            proof.check_float16_range(source, batches)
        about = {
            "version": __version__,
            "layout": input_layout,
            "output": output,
            "dtype": dtype,
            "inputs": {
                tensor.name: {"shape": _dims(described.graph, tensor)}
                | ({"range": list(known_range)} if known_range else {})  # a guess is no fact
                for tensor in described.graph.inputs
            },
            "class_names": names,
            "weights_sha256": metadata.weights_sha256(graph.parameters),
        }

        def attempt(reference: proof.Reference) -> tuple[onnx.ModelProto, proof.Proof]:
            about["samples"] = _samples(described.graph, reference, samples is None, value_range)
            model = to_proto(described.graph, name, opset, metadata.encode(about))
            file.seek(0)
            file.truncate()
            file.write(model.SerializeToString())
            file.flush()
            return model, proof.prove(
                file.name, source, described.graph, described.tensors, reference, time_cap
            )

        reference = proof.measure(source, batches, halves=halves)
        try:
            model, proved = attempt(reference)
        except proof.OutsideTolerance:
            if reference.complete:
                raise
            # float64 was asked about some samples only, for its slowness; another one may well lose
            # more digits than these
            model, proved = attempt(proof.measure(source, batches, thorough=True, halves=halves))
        return _report(os.fspath(path), model, described.graph, file.tell(), proved, dtype)


def describe(graph: Graph, opset: int, input_layout: str) -> Description:
    """Walk the graph in order; every layer appends its operators."""
    scope = Scope(opset, [layer.name for layer in graph.layers], input_layout)
    tensors: dict[Tensor, OnnxTensor] = {}
    first = shown_first(graph)
    for node in graph.nodes:
        inputs = [tensors[tensor] for tensor in node.inputs]
        y = node.output
        tensors[y] = scope.describe(node.layer, inputs, y.sample_shape, y in first)
    for tensor in graph.outputs:
        inner = tensors[tensor]
        outer = scope.output(inner, tensor in first)
        for key, value in tensors.items():
            if value.name == outer.name:  # renamed: what had the name shows the output now
                tensors[key] = outer if value.shape == outer.shape else _seen(value, inner, outer)
    scope.graph.inputs = [tensors[tensor] for tensor in graph.inputs]
    return Description(scope.graph, tensors)


def _seen(value: OnnxTensor, inner: OnnxTensor, outer: OnnxTensor) -> OnnxTensor:
    """``value``, the same tensor of the file as ``inner`` in another view, where ``outer`` is
    ``inner`` moved."""
    order = [value.order[inner.order.index(axis)] for axis in outer.order]
    return replace(outer, shape=value.shape, order=tuple(order))


def to_proto(graph: OnnxGraph, name: str, opset: int, props: dict[str, str]) -> onnx.ModelProto:
    """The described graph as an ONNX model, its opset and IR version explicit."""
    if sum(value.nbytes for value in graph.initializers.values()) > LARGEST_FILE:
        raise ExportError("the weights are larger than the 2 GiB that one ONNX file can hold")
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(n.op, n.inputs, n.outputs, name=n.name, **n.attributes)
                for n in graph.nodes
            ],
            name,
            [_value_info(graph, tensor) for tensor in graph.inputs],
            [_value_info(graph, tensor) for tensor in graph.outputs],
            [numpy_helper.from_array(value, key) for key, value in graph.initializers.items()],
            doc_string=f"Trained and exported by fastconv {__version__}",
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version(opset),
        producer_name="fastconv",
        producer_version=__version__,
    )
    helper.set_model_props(model, props)
    return model


def ir_version(opset: int) -> int:
    """The IR version that came with an operator set: what reads one reads the other."""
    return 8 if opset <= 18 else 9 if opset <= 20 else 10


def _value_info(graph: OnnxGraph, tensor: OnnxTensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, _dims(graph, tensor))


def _dims(graph: OnnxGraph, tensor: OnnxTensor) -> list[int | str]:
    """The shape in the file; open sizes are named after the axis, and after the tensor where there
    are several inputs or outputs, whose sizes need not agree."""
    spatial = ("height", "width") if tensor.rank == 3 else ("depth", "height", "width")
    prefix = "" if tensor in graph.inputs and len(graph.inputs) == 1 else f"{tensor.name}_"
    names = spatial if tensor.rank in (3, 4) else [f"axis_{i + 1}" for i in range(tensor.rank)]
    if graph.image_order == "NCHW" and tensor.rank in (3, 4):
        names = ["channels", *spatial]
    sizes: list[int | str] = ["batch"]
    for place, size in enumerate(tensor.file_shape):
        sizes.append(prefix + names[place] if size is None else size)
    return sizes


def _samples(
    graph: OnnxGraph,
    reference: proof.Reference,
    generated: bool,
    value_range: tuple[float, float],
) -> dict[str, Any]:
    """The first batch with the trainer's outputs and the tolerance, for whoever serves the file."""
    inputs = zip(graph.inputs, reference.batches[0], strict=True)
    outputs = zip(graph.outputs, reference.outputs[0], strict=True)
    names = [tensor.name for tensor in graph.outputs]
    return metadata.encode_samples(
        {tensor.name: sampling.to_file(x, tensor) for tensor, x in inputs},
        {tensor.name: sampling.to_file(y, tensor) for tensor, y in outputs},
        {
            "tolerance": dict(zip(names, reference.tolerance, strict=True)),
            "scale": dict(zip(names, reference.scale, strict=True)),
        },
        sampling.SEED if generated else None,
        value_range,
    )


def _report(
    path: str,
    model: onnx.ModelProto,
    graph: OnnxGraph,
    size: int,
    proved: proof.Proof,
    dtype: str,
) -> ExportReport:
    floats = [value for value in graph.initializers.values() if value.dtype.kind == "f"]
    return ExportReport(
        path=path,
        opset=model.opset_import[0].version,
        ir_version=model.ir_version,
        size_bytes=size,
        nodes=len(graph.nodes),
        parameters=sum(value.size for value in floats),
        **vars(proved),
        dtype=dtype,
        operators=Counter(node.op for node in graph.nodes),
        inputs={tensor.name: tuple(_dims(graph, tensor)) for tensor in graph.inputs},
        outputs={tensor.name: tuple(_dims(graph, tensor)) for tensor in graph.outputs},
    )


# -- the graph that is exported -------------------------------------------------------------------


def _in_float32(graph: Graph) -> Graph:
    """The graph itself, or its float32 twin where it was built in float64."""
    if any(parameter.value.dtype != np.float32 for parameter in graph.parameters):
        return proof.copy_in(graph, "float32")
    return graph


def _without_last_activation(graph: Graph) -> Graph:
    """A copy of the graph with the softmax or sigmoid at its ends left out."""
    copy = proof.copy_in(graph, "float32")
    readers = copy.consumers()
    uses = Counter(node.layer for node in copy.nodes)
    outputs = []
    for tensor in copy.outputs:
        layer = tensor.node.layer
        # an attribute of that name in a user's own layer is the user's business
        ours = layer if isinstance(layer, (Activation, _Weighted)) else None
        kind = ours.activation.name if ours else None
        if kind in PROBABILITIES and isinstance(layer, Activation):
            tensor = tensor.node.inputs[0]
        elif ours and kind in PROBABILITIES:
            if readers[tensor] or uses[layer] > 1:
                raise ExportError(
                    f'output="logits": the {kind} of {layer.name} is also used inside the network'
                )
            ours.activation = LINEAR
        outputs.append(tensor)
    return Graph(copy.inputs, outputs)


# -- checks of the options ------------------------------------------------------------------------


def _opset(opset: Any) -> int:
    opset = shapes.integer(opset, "opset")
    if opset not in OPSETS:
        raise ValueError(f"opset is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    return opset


def _class_names(names: Sequence[str] | None, graph: Graph) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names is a list of strings, not {names!r}")
    channels = graph.outputs[0].sample_shape[-1]
    if len(names) != channels:
        raise ValueError(f"{len(names)} class_names for an output of {channels} channels")
    return list(names)


def _range(value_range: Sequence[float] | None, graph: Graph) -> tuple[float, float] | None:
    if value_range is None:
        return sampling.known_range(graph)
    ends = tuple(shapes.real(end, "input_range") for end in value_range)
    if len(ends) != 2 or any(low >= high for low, high in pairwise(ends)):
        raise ValueError(f"input_range is (low, high) with low < high, not {value_range!r}")
    return ends[0], ends[1]


def _check_weights(graph: Graph) -> None:
    for parameter in graph.parameters:
        if not np.isfinite(parameter.value).all():
            raise ExportError(f"{parameter.name} holds NaN or infinity; nothing was written")

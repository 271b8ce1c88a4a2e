"""What an ONNX file says about itself, for people to read."""

import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError

from fastconv.filetypes import kind_of

TensorText = tuple[str, str, tuple[str, ...]]  # name, type, sizes


@dataclass(frozen=True)
class Described:
    """The facts of one file, as plain data.

    Attributes
    ----------
    producer : str
        Name and version; empty where the file does not tell.
    ir_version : int
    opsets : tuple of str
        ``"17"``; ``"com.example 1"`` for domains other than ONNX's own.
    inputs, outputs : tuple of (name, type, sizes)
    operators : tuple of (name, count)
        In the order of first use, those of subgraphs among them.
    parameters, parameter_bytes : int
        Numbers in initializers of a floating type.
    metadata : dict of str to str
    """

    producer: str
    ir_version: int
    opsets: tuple[str, ...]
    inputs: tuple[TensorText, ...]
    outputs: tuple[TensorText, ...]
    operators: tuple[tuple[str, int], ...]
    parameters: int
    parameter_bytes: int
    metadata: dict[str, str]


def describe(path: str | os.PathLike[str]) -> Described:
    """Read an ONNX file and list what it holds; weights in files beside it are not read.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is not an ONNX file.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        kind = kind_of(path)
        words = f"{kind}, not an ONNX file" if kind else "not an ONNX file"
        raise ValueError(f"{os.fspath(path)}: {words}") from error
    if not model.ir_version or not model.graph.node:
        raise ValueError(f"{os.fspath(path)}: not an ONNX file: it holds no network")
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    weights = [(math.prod(t.dims), size) for t in graph.initializer if (size := _float_size(t))]
    return Described(
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ir_version=model.ir_version,
        opsets=tuple(f"{item.domain} {item.version}".strip() for item in model.opset_import),
        inputs=tuple(_tensor(item) for item in graph.input if item.name not in constants),
        outputs=tuple(map(_tensor, graph.output)),
        operators=tuple(Counter(_operators(graph.node)).items()),
        parameters=sum(count for count, _ in weights),
        parameter_bytes=sum(count * size for count, size in weights),
        metadata={item.key: item.value for item in model.metadata_props},
    )


def _float_size(tensor: onnx.TensorProto) -> int:
    """Bytes of an element; 0 where it is not a floating type."""
    sizes: dict[int, int] = {
        onnx.TensorProto.FLOAT: 4,
        onnx.TensorProto.DOUBLE: 8,
        onnx.TensorProto.FLOAT16: 2,
        onnx.TensorProto.BFLOAT16: 2,
    }
    return sizes.get(tensor.data_type, 0)


def _operators(nodes: Iterable[onnx.NodeProto]) -> Iterable[str]:
    for node in nodes:
        yield node.op_type
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _operators(graph.node)


def _tensor(item: onnx.ValueInfoProto) -> TensorText:
    kind = item.type.tensor_type
    sizes = tuple(d.dim_param or str(d.dim_value or "?") for d in kind.shape.dim)
    names = onnx.TensorProto.DataType
    known = kind.elem_type in names.values()
    return item.name, names.Name(kind.elem_type).lower() if known else "unknown", sizes

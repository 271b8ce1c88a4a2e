"""Tiny ONNX models, written byte by byte, to try a runtime with.

ONNX files are protobuf messages: fields of (number << 3 | kind), of which two kinds are used here:
0, a varint, and 2, a length and that many bytes (strings, messages, arrays). So no onnx package is
needed where only a runtime is installed.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

FLOAT = 1  # TensorProto.DataType
Attributes = Mapping[str, Sequence[int]]
Shapes = Mapping[str, Sequence[int | str]]
NONE: Attributes = MappingProxyType({})


def network(opset: int = 17, ir_version: int = 8) -> bytes:
    """Convolution, ReLU, pooling, dense, softmax: x (batch, 1, 8, 8) → y (batch, 3)."""
    weights = np.random.Generator(np.random.Philox(0)).standard_normal
    constants = {
        "w1": weights((4, 1, 3, 3)), "b1": weights(4), "w2": weights((64, 3)), "b2": weights(3)
    }  # fmt: skip
    nodes = [
        _node("Conv", ["x", "w1", "b1"], "c", {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
        _node("Relu", ["c"], "r"),
        _node("MaxPool", ["r"], "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        _node("Flatten", ["p"], "f"),
        _node("Gemm", ["f", "w2", "b2"], "g"),
        _node("Softmax", ["g"], "y"),
    ]
    x, y = {"x": ("batch", 1, 8, 8)}, {"y": ("batch", 3)}
    return _model(nodes, x, y, constants, opset, ir_version)


def relu(opset: int, ir_version: int) -> bytes:
    """One operator, for asking which versions a runtime takes."""
    return _model([_node("Relu", ["x"], "y")], {"x": [1]}, {"y": [1]}, {}, opset, ir_version)


def product(size: int = 64) -> bytes:
    """A matrix product a · b of size², for asking how a device rounds."""
    node = _node("MatMul", ["a", "b"], "y")
    return _model([node], {"a": [size, size], "b": [size, size]}, {"y": [size, size]}, {}, 17, 8)


# -- messages -------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _model(
    nodes: Iterable[bytes],
    inputs: Shapes,
    outputs: Shapes,
    constants: Mapping[str, np.ndarray],
    opset: int,
    ir_version: int,
) -> bytes:
    """ModelProto: ir_version = 1, graph = 7, opset_import = 8."""
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, _tensor(name, value)) for name, value in constants.items())
    graph += b"".join(_field(11, _value(name, shape)) for name, shape in inputs.items())
    graph += b"".join(_field(12, _value(name, shape)) for name, shape in outputs.items())
    return _field(1, ir_version) + _field(7, graph) + _field(8, _field(1, "") + _field(2, opset))


def _node(op: str, inputs: Sequence[str], output: str, attributes: Attributes = NONE) -> bytes:
    """NodeProto: input = 1, output = 2, name = 3, op_type = 4, attribute = 5."""
    out = b"".join(_field(1, name) for name in inputs)
    out += _field(2, output) + _field(3, op.lower()) + _field(4, op)
    for name, values in attributes.items():  # AttributeProto: name = 1, ints = 8, type = 20 (INTS)
        ints = b"".join(_field(8, value) for value in values)
        out += _field(5, _field(1, name) + ints + _field(20, 7))
    return out


def _tensor(name: str, value: np.ndarray) -> bytes:
    """TensorProto: dims = 1, data_type = 2, name = 8, raw_data = 9."""
    dims = b"".join(_field(1, size) for size in value.shape)
    return dims + _field(2, FLOAT) + _field(8, name) + _field(9, value.astype("<f4").tobytes())


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """ValueInfoProto: name = 1, type = 2 {tensor_type = 1 {elem_type = 1, shape = 2 {dim = 1}}}."""
    dims = b"".join(_field(1, _field(1 if isinstance(d, int) else 2, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, dims)))

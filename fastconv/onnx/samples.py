"""Inputs for the proof: the user's, or made from a seed."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from fastconv import data
from fastconv.graph import Graph
from fastconv.layers._image_layer import ImageLayer
from fastconv.layers.rescaling import Rescaling
from fastconv.node import ExportError, OnnxTensor
from fastconv.onnx.metadata import generate
from fastconv.shapes import Shape, shape_text

Arrays = list[np.ndarray]

COUNT = 4  # samples that are made
MOST = 16  # samples of the user's that are used
SEED = 0
SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # tried where a size is symbolic


def to_file(array: np.ndarray, tensor: OnnxTensor) -> np.ndarray:
    """A batch as the trainer has it, in the order in which the file has it."""
    moved = array.transpose(0, *(1 + axis for axis in tensor.order))
    return np.ascontiguousarray(moved if tensor.elements is None else moved[:, tensor.elements])


def from_file(array: np.ndarray, tensor: OnnxTensor) -> np.ndarray:
    """A batch as the file has it, as the trainer has it; for inputs, whose elements stay put."""
    return np.ascontiguousarray(array.transpose(0, *(1 + np.argsort(tensor.order))))


def given(samples: Any, graph: Graph) -> Arrays:
    """The user's samples, checked: one array (n, *shape) per input, cast to float32."""
    names = [tensor.node.layer.name for tensor in graph.inputs]
    shapes = [tensor.sample_shape for tensor in graph.inputs]
    arrays = data.inputs(samples, names, shapes, "samples")
    if data.length(arrays, "samples") == 1:
        arrays = [np.repeat(array, 2, axis=0) for array in arrays]  # a batch is more than one
    graph.shapes([array.shape[1:] for array in arrays])
    return [np.ascontiguousarray(array[:MOST], np.float32) for array in arrays]


def made(
    graph: Graph, tensors: Sequence[OnnxTensor], value_range: tuple[float, float]
) -> list[Arrays]:
    """Generated batches, one for each of at most two choices of the symbolic sizes."""
    batches = []
    for shapes in _two_sizes(graph):
        batch = []
        for i, (shape, tensor) in enumerate(zip(shapes, tensors, strict=True)):
            sizes = (COUNT, *(shape[axis] for axis in tensor.order))
            batch.append(from_file(generate(SEED + i, sizes, *value_range), tensor))
        batches.append(batch)
    return batches


def known_range(graph: Graph) -> tuple[float, float] | None:
    """The inputs' range as a Rescaling that reads them tells it, or None.

    Numbers from 0 up are scaled to 0…1, or, with a negative offset, to −offset on both sides:
    1/255 tells 0…255, and so does 1/127.5 with the offset −1.
    """
    readers = graph.consumers()
    nodes = [node for tensor in graph.inputs for node in readers[tensor]]
    while any(isinstance(node.layer, ImageLayer) for node in nodes):  # they keep the range
        behind = [readers[n.output] if isinstance(n.layer, ImageLayer) else [n] for n in nodes]
        nodes = [node for some in behind for node in some]
    first = [node.layer for node in nodes]
    found = set()
    for layer in first:
        if not isinstance(layer, Rescaling) or layer.scale <= 0 or layer.offset > 0:
            return None
        width = -2 * layer.offset if layer.offset else 1.0
        found.add(float(f"{width / layer.scale:.6g}"))
    return (0.0, found.pop()) if len(found) == 1 else None


def _two_sizes(graph: Graph) -> list[list[tuple[int, ...]]]:
    """Shapes of the inputs that the network takes: the least of `SIZES`, and one with other and
    unequal sizes if it takes such."""
    given_shapes = [tensor.sample_shape for tensor in graph.inputs]
    if all(None not in shape for shape in given_shapes):
        return [[tuple(map(int, shape)) for shape in given_shapes]]  # type: ignore[arg-type]
    least = next((size for size in SIZES if _takes(graph, given_shapes, (size,))), None)
    if least is None:
        texts = ", ".join(map(shape_text, given_shapes))
        raise ExportError(
            f"no size of {SIZES} suits the inputs {texts}; give samples=, which the proof runs"
        )
    other = next(
        (pair for pair in _other_sizes(least) if _takes(graph, given_shapes, pair)), (least,)
    )
    choices = dict.fromkeys([(least,), other])
    return [[_filled(shape, sizes) for shape in given_shapes] for sizes in choices]


def _other_sizes(least: int) -> Iterator[tuple[int, ...]]:
    steps = (7, 8, 16, 32, least)  # odd sizes first; some networks only take multiples
    for first, second in product(steps, steps):
        yield least + first, least + 2 * second


def _takes(graph: Graph, shapes: Sequence[Shape], sizes: tuple[int, ...]) -> bool:
    try:
        graph.shapes([_filled(shape, sizes) for shape in shapes])
    except ValueError:
        return False
    return True


def _filled(shape: Shape, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with its unknown sizes taken from ``sizes`` in turn."""
    unknown = [axis for axis, size in enumerate(shape) if size is None]
    found = {axis: sizes[i % len(sizes)] for i, axis in enumerate(unknown)}
    return tuple(found[axis] if size is None else size for axis, size in enumerate(shape))

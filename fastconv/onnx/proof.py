"""The proof: the file is checked, run, and compared with the trainer.

The trainer's float32 outputs are what the file must give. How far they may lie apart is measured,
not guessed: four times the distance of the trainer's float32 from its own float64 (a copy of the
graph in double), or 1e-5 where that is less; both of the largest output.

A file that computes in float16 rounds more: its weights once, which is measured, in double again;
and every value that passes from one operator to the next. The latter errors are independent, so n
of them add up to √n roundings of 2⁻¹¹. Four times the larger of the two is what such a file may be
away.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fastconv.graph import Graph
from fastconv.layer import Node, Tensor
from fastconv.layers.batch_normalization import BatchNormalization
from fastconv.layers.input import InputLayer
from fastconv.layers.softmax import Softmax
from fastconv.node import ExportError, OnnxGraph, OnnxTensor
from fastconv.onnx.report import Proof
from fastconv.onnx.samples import to_file
from fastconv.plan import Plan
from fastconv.shapes import known

Arrays = dict[str, np.ndarray]


class OutsideTolerance(ExportError):
    """The file runs, and gives something else than the trainer."""


FLOOR = 1e-5  # no tolerance below this share of the scale
SLACK = 4  # how much further than float32 itself the file may be from the trainer
HALF_ROUNDING = 2.0**-11  # of float16, which keeps 11 bits
LARGEST_HALF = 65504.0
FLOAT64_WORK = 4e9  # multiply-adds spent on float64, beyond its first sample


@dataclass(frozen=True)
class Reference:
    """What the trainer gives.

    Attributes
    ----------
    batches : list of list of ndarray
        Inputs as the trainer takes them, each batch in one choice of symbolic sizes.
    outputs : list of list of ndarray
        Float32 outputs of each batch.
    scale, float32_error : list of float
        Per output: the largest magnitude, and float32's distance from float64 as a share of it.
    winograd_error : list of float
        Per output: how far Winograd's convolutions, by which the trainer predicts, lie from the
        direct ones, with which the file is compared.
    float16_error : list of float
        Per output: what rounding to float16 costs; 0 for a file in float32.
    complete : bool
        float64 was asked about every sample.
    """

    batches: list[list[np.ndarray]]
    outputs: list[list[np.ndarray]]
    scale: list[float]
    float32_error: list[float]
    winograd_error: list[float]
    float16_error: list[float]
    complete: bool

    @property
    def tolerance(self) -> list[float]:
        errors = zip(self.float32_error, self.float16_error, strict=True)
        return [max(FLOOR, SLACK * max(error)) for error in errors]


def run_trainer(
    graph: Graph,
    inputs: Sequence[np.ndarray],
    double: bool = False,
    convolution: str = "direct",
) -> list[Any]:
    """The graph's outputs at inference for one batch."""
    plan = Plan(
        graph, [x.shape[1:] for x in inputs],
        training=False, backward=False, double=double, convolution=convolution,
    )  # fmt: skip
    n = len(inputs[0])
    running = plan.borrow(n)
    for entry, rows in zip(plan.inputs, inputs, strict=True):
        running.read(entry, rows, None, n)
    running.forward(n)
    return [running.array(value).copy() for value in plan.outputs]


def copy_in(graph: Graph, dtype: str) -> Graph:
    """The graph with layers of its own, their weights in another type."""
    # layers are copied, not made anew from their configs: users' own may not have any
    memo: dict[int, Any] = {id(parameter): parameter.copy(dtype) for parameter in graph.parameters}
    layers = dict(zip(graph.layers, deepcopy(graph.layers, memo), strict=True))
    tensors: dict[Tensor, Tensor] = {}
    for node in graph.nodes:
        inputs = [tensors[tensor] for tensor in node.inputs]
        old = node.output
        new = Node(layers[node.layer], inputs, old.sample_shape, old.channels_first)
        tensors[old] = new.output
    return Graph([tensors[t] for t in graph.inputs], [tensors[t] for t in graph.outputs])


def measure(
    graph: Graph, batches: list[list[np.ndarray]], thorough: bool = False, halves: int = 0
) -> Reference:
    """Run the trainer in float32 and float64; in the latter, which is slow, all samples of a large
    network only where that is ``thorough``. ``halves`` counts the file's operators in float16."""
    outputs = [run_trainer(graph, batch) for batch in batches]
    twin = copy_in(graph, "float64")
    rounded = _with_float16_weights(twin) if halves else None
    scale = [0.0] * len(graph.outputs)
    distance = [0.0] * len(graph.outputs)
    by_weights = [0.0] * len(graph.outputs)
    complete = True
    for batch, found in zip(batches, outputs, strict=True):
        n = len(batch[0]) if thorough else _float64_samples(graph, batch)
        complete &= n == len(batch[0])
        exact = run_trainer(twin, [x[:n] for x in batch], double=True)
        for i, (y, z) in enumerate(zip(found, exact, strict=True)):
            if not np.isfinite(y).all():
                name = graph.outputs[i].node.layer.name
                raise ExportError(f"the trainer's own output of {name} is not finite")
            scale[i] = max(scale[i], float(np.abs(y).max()))
            distance[i] = max(distance[i], float(np.abs(y[:n] - z).max()))
        if rounded is not None:
            coarse = run_trainer(rounded, [x[:n] for x in batch], double=True)
            for i, (y, z) in enumerate(zip(coarse, exact, strict=True)):
                by_weights[i] = max(by_weights[i], float(np.abs(y - z).max()))
    scale = [value or 1.0 for value in scale]  # an output of zeros is compared as it is
    winograd = [
        float(np.abs(y - z).max())
        for y, z in zip(run_trainer(graph, batches[0], convolution="auto"), outputs[0], strict=True)
    ]
    lost, by_winograd, by_weights = (
        [value / size for value, size in zip(found, scale, strict=True)]
        for found in (distance, winograd, by_weights)
    )
    by_float16 = [
        max(error, halves**0.5 * HALF_ROUNDING) if halves else 0.0 for error in by_weights
    ]
    return Reference(batches, outputs, scale, lost, by_winograd, by_float16, complete)


def check_float16_range(graph: Graph, batches: list[list[np.ndarray]]) -> None:
    """ExportError where a layer's values are beyond float16.

    A runtime would not show it on every device: onnxruntime's CPU keeps float32 between operators
    for which it has no kernel in float16, a GPU gives infinity.
    """
    nodes = [node for node in graph.nodes if not isinstance(node.layer, Softmax)]
    opened = Graph(graph.inputs, [node.output for node in nodes])
    for batch in batches:
        for i in range(len(batch[0])):  # one by one: all layers' values are kept at a time
            values = run_trainer(opened, [x[i : i + 1] for x in batch])
            for node, y in zip(nodes, values, strict=True):
                if (largest := float(np.abs(y).max(initial=0.0))) > LARGEST_HALF:
                    raise ExportError(
                        f"{node.layer.name} gives {largest:.3g}, float16 ends at {LARGEST_HALF:g}; "
                        "export the network in float32, or scale its inputs"
                    )


def _with_float16_weights(graph: Graph) -> Graph:
    """A copy whose weights are those that float16 holds; statistics and what goes with them stay,
    since they are folded into weights or kept in float32."""
    copy = copy_in(graph, "float64")
    for layer in copy.layers:
        if not isinstance(layer, BatchNormalization):
            for parameter in layer.parameters:
                parameter.value[...] = parameter.value.astype(np.float16)
    return copy


def _float64_samples(graph: Graph, batch: Sequence[np.ndarray]) -> int:
    """How many samples of the batch are worth the slow float64 path: at least one."""
    shapes = graph.shapes([x.shape[1:] for x in batch])
    work = 1
    for node in graph.nodes:
        pixels = prod(known(shapes[node.output], node.layer.name)[:-1])
        work += pixels * sum(p.value.size for p in node.layer.parameters)
    return max(1, min(len(batch[0]), int(FLOAT64_WORK / work)))


# -- the file -------------------------------------------------------------------------------------


def check(path: str) -> None:
    """onnx's own checker in full, and strict shape inference with data propagation."""
    try:
        onnx.checker.check_model(path, full_check=True)
        onnx.shape_inference.infer_shapes(
            onnx.load(path), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        raise ExportError(f"onnx finds the file invalid: {error}") from error


def prove(
    path: str,
    graph: Graph,
    described: OnnxGraph,
    tensors: Mapping[Tensor, OnnxTensor],
    reference: Reference,
    time_cap: float,
) -> Proof:
    """Check and run the file at ``path`` and compare it with the trainer, or ExportError."""
    check(path)
    feeds, expected = _batches(described, reference)
    found, runtime, version = run_file(path, feeds, time_cap)
    worst = (-1.0, 0, 0.0)  # error as a share of its tolerance, which output, error
    for want, got in zip(expected, found, strict=True):
        for i, tensor in enumerate(described.outputs):
            error = _distance(want[tensor.name], got[tensor.name]) / reference.scale[i]
            share = error / reference.tolerance[i]
            if not share <= 1:
                where = _first_difference(path, graph, tensors, reference, time_cap)
                raise OutsideTolerance(
                    f"{runtime} gives an output {tensor.name!r} that is {error:.2g} of its scale "
                    f"away from the trainer's, in a batch of {len(got[tensor.name])} "
                    f"(tolerance {reference.tolerance[i]:.2g}){where}"
                )
            worst = max(worst, (share, i, error))
    _, i, error = worst
    return Proof(
        runtime=runtime,
        runtime_version=version,
        batch_sizes=tuple(sorted({len(next(iter(feed.values()))) for feed in feeds})),
        scale=reference.scale[i],
        largest_error=error,
        float32_error=reference.float32_error[i],
        winograd_error=reference.winograd_error[i],
        float16_error=reference.float16_error[i],
        tolerance=reference.tolerance[i],
    )


def _batches(described: OnnxGraph, reference: Reference) -> tuple[list[Arrays], list[Arrays]]:
    """Inputs and expected outputs of the file: each batch as it is, and its first sample alone."""
    feeds, expected = [], []
    for inputs, outputs in zip(reference.batches, reference.outputs, strict=True):
        for n in (len(inputs[0]), 1):
            feeds.append(_by_name(described.inputs, [x[:n] for x in inputs]))
            expected.append(_by_name(described.outputs, [y[:n] for y in outputs]))
    return feeds, expected


def _by_name(tensors: Sequence[OnnxTensor], arrays: Sequence[np.ndarray]) -> Arrays:
    return {t.name: to_file(array, t) for t, array in zip(tensors, arrays, strict=True)}


def _distance(want: np.ndarray, got: np.ndarray) -> float:
    if want.shape != got.shape:
        return np.inf
    return float(np.abs(want - got).max(initial=0.0))


def _first_difference(
    path: str,
    graph: Graph,
    tensors: Mapping[Tensor, OnnxTensor],
    reference: Reference,
    time_cap: float,
) -> str:
    """Where the file leaves the trainer: every layer's output of both, compared in order."""
    model = onnx.load(path)
    made = {name for node in model.graph.node for name in node.output}
    outputs = {value.name for value in model.graph.output}
    nodes = [
        node
        for node in graph.nodes
        if not isinstance(node.layer, InputLayer) and tensors[node.output].name in made
    ]
    for name in dict.fromkeys(tensors[node.output].name for node in nodes):
        if name not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    inputs = [x[:1] for x in reference.batches[0]]
    feed = _by_name([tensors[tensor] for tensor in graph.inputs], inputs)
    with tempfile.TemporaryDirectory() as folder:
        opened = os.path.join(folder, "all.onnx")
        onnx.save(model, opened)
        try:
            ((got,), _, _) = run_file(opened, [feed], time_cap)
        except ExportError:
            return ""
    wanted = run_trainer(Graph(graph.inputs, [node.output for node in nodes]), inputs)
    for node, want in zip(nodes, wanted, strict=True):
        tensor = tensors[node.output]
        bound = max(reference.tolerance) * (float(np.abs(want).max(initial=0.0)) or 1.0)
        if not _distance(to_file(want, tensor), got[tensor.name]) <= bound:
            kind = type(node.layer).__name__
            return f"; the first layer that differs is {node.layer.name} ({kind})"
    return ""


# -- runtimes -------------------------------------------------------------------------------------


def run_file(path: str, feeds: Sequence[Arrays], time_cap: float) -> tuple[list[Arrays], str, str]:
    """Outputs of the file for each batch, and who ran it in which version."""
    if find_spec("onnxruntime") is not None:
        return _run_onnxruntime(path, feeds)
    return _run_reference(path, feeds, time_cap)


def _run_onnxruntime(path: str, feeds: Sequence[Arrays]) -> tuple[list[Arrays], str, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]
    except Exception as error:  # onnxruntime's exceptions have no base but this
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} does not run the file: {error}"
        ) from error
    return found, "onnxruntime", onnxruntime.__version__


def _run_reference(
    path: str, feeds: Sequence[Arrays], time_cap: float
) -> tuple[list[Arrays], str, str]:
    """onnx's reference evaluator: numpy, slow, in a process of its own that can be stopped."""
    script = Path(__file__).with_name("_reference.py")
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in.npz"), os.path.join(folder, "out.npz")
        arrays: dict[str, Any] = {
            f"{i}/{name}": array for i, feed in enumerate(feeds) for name, array in feed.items()
        }
        np.savez(source, **arrays)
        command = [sys.executable, "-P", str(script), path, source, target]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=time_cap
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"onnx's reference evaluator did not end within {time_cap:g} s, so the file is "
                "not proved; install onnxruntime, or raise time_cap"
            ) from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ExportError(f"onnx's reference evaluator does not run the file: {reason}")
        names = json.loads(done.stdout)
        with np.load(target) as made:
            found = [{name: made[f"{i}/{name}"] for name in names} for i in range(len(feeds))]
    return found, "onnx.reference", onnx.__version__

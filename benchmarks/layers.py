"""Time single layers: forward, input gradient and weight gradient, fastconv beside PyTorch.

fastconv runs the very steps that a model's plan has for the layer, prebuilt, so that kernels alone
are timed; packing the weights belongs to them, since it happens at every training step. PyTorch
runs the operators that its autograd calls, with contiguous and with channels-last tensors, and with
glibc told to keep freed memory. All sides start from the same numbers, and their results are
compared before anything is timed.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import bound
import common
import networks
import numpy as np
import peak
import worker
from common import Shape
from report import Bars, Report, Table
from worker import Side, Worker

FORWARD, INPUT, WEIGHT, UPDATE = "forward", "input gradient", "weight gradient", "update"
EPSILON = 1e-3  # of batch norm
TOLERANCE = 1e-3  # of the result's scale: sums of a million products in another order
SAMPLE = 0.02  # seconds
RULES = {
    "sgd": networks.SGD, "momentum": networks.MOMENTUM, "adam": networks.ADAM,
    "adadelta": networks.ADADELTA,
}  # fmt: skip


# -- data ---------------------------------------------------------------------------------------


def make_data(shape: Shape) -> dict[str, np.ndarray]:
    """x, dy (n, …, channels), a second input b of an addition; weight and bias where the layer has
    them; of an optimizer, weight and gradient."""
    rng = np.random.default_rng(0)
    n = shape.batch

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32)

    if shape.kind == "optimizer":
        return {"weight": normal(*shape.size), "gradient": normal(*shape.size)}
    data = {"x": normal(n, *shape.size), "dy": normal(n, *shape.out)}
    if shape.kind in ("add", "addrelu"):
        data["b"] = normal(n, *shape.size)
    if shape.gflop:
        data["weight"] = normal(*shape.weight) / np.float32(prod(shape.weight[:-1]) ** 0.5)
        data["bias"] = normal(shape.out[-1])
    return data


def directions(shape: Shape) -> list[str]:
    if shape.kind == "optimizer":
        return [UPDATE]
    return [FORWARD, INPUT, WEIGHT] if shape.gflop else [FORWARD, INPUT]


# -- fastconv -----------------------------------------------------------------------------------


class FastconvLayer:
    """One layer's plan, its steps sorted by what they compute.

    Every buffer has an array of its own here (a model's plan lets buffers share memory), so that
    each direction can run any number of times. Where a gradient is made in place of dy, `refresh`
    puts dy back.
    """

    def __init__(self, shape: Shape, data: dict[str, np.ndarray]) -> None:
        from fastconv import layers
        from fastconv.graph import Graph
        from fastconv.plan import Plan

        self.n, self.data = shape.batch, data
        inputs = [layers.Input(shape.size) for name in ("x", "b") if name in data]
        stack = make_layers(shape)
        y = stack[0](inputs)
        for layer in stack[1:]:
            y = layer(y)
        self.plan = Plan(
            Graph(inputs, [y]), [shape.size] * len(inputs), training=True, backward=True,
            input_gradients=True,
        )  # fmt: skip
        if "weight" in data:
            stack[0].set_weights([data["weight"], data["bias"]])
        self.arrays = self._place()
        for entry, name in zip(self.plan.inputs, ("x", "b"), strict=False):
            self._value(entry.value)[:] = data[name]
        self.refresh()
        self.results = {FORWARD: self.plan.outputs[0].slot}
        self.results[INPUT] = self.plan.input_gradients[0].slot
        if "weight" in data:
            (self.results[WEIGHT],) = (
                number for number, slot in enumerate(self.plan.slots)
                if slot.array is stack[0].weight.grad
            )  # fmt: skip

    def refresh(self) -> None:
        self._value(self.plan.gradients[0])[:] = self.data["dy"]

    def _place(self) -> dict[int, np.ndarray]:
        from fastconv._native.step import Pass

        self.native = Pass(len(self.plan.slots), 0)
        buffers: dict[int, np.ndarray] = {}
        arrays = {}
        for number, slot in enumerate(self.plan.slots):
            array = slot.array
            if slot.buffer is not None:
                key = id(slot.buffer)
                if key not in buffers:
                    buffers[key] = aligned(slot.buffer.nbytes(self.n, 4))
                array = buffers[key][slot.offset * (slot.buffer.itemsize or 4) :]
            if array is not None:
                self.native.bind(number, array)
                arrays[number] = array
        return arrays

    def _value(self, value: Any) -> np.ndarray:
        return self.native.view(value.slot, (self.n, *value.shape))

    def runner(self, direction: str) -> Callable[[], None]:
        """A call that runs the steps of one direction."""
        from fastconv._native.step import Program

        steps = (self.plan.forward if direction == FORWARD else self.plan.backward).steps
        program = Program(steps_for(steps, self.results[direction]))
        run, n = self.native.run, self.n
        return lambda: run(program, n, True)

    def result(self, direction: str, like: tuple[int, ...]) -> np.ndarray:
        return self.native.view(self.results[direction], like)


def make_layers(shape: Shape) -> list[Any]:
    """fastconv's layer, or the two of a pair."""
    from fastconv import layers

    how = {"strides": shape.stride, "padding": shape.pad}
    if shape.kind == "dense":
        return [layers.Dense(shape.filters)]
    if shape.kind == "conv":
        how |= {"dilation_rate": shape.dilation, "groups": shape.groups}
        return [layers.Conv2D(shape.filters, shape.kernel, **how)]
    if shape.kind == "depthwise":
        return [layers.DepthwiseConv2D(shape.kernel, **how)]
    if shape.kind == "transposed":
        return [layers.Conv2DTranspose(shape.filters, shape.kernel, strides=shape.stride)]
    relu = [layers.ReLU()] if shape.kind.endswith("relu") else []
    if shape.kind in ("batchnorm", "normrelu"):
        return [layers.BatchNormalization(epsilon=EPSILON), *relu]
    if shape.kind in ("add", "addrelu"):
        return [layers.Add(), *relu]
    pooling = layers.MaxPooling2D if shape.kind == "maxpool" else layers.AveragePooling2D
    return [pooling(shape.kernel, **how)]


def steps_for(steps: list[Any], target: int) -> list[Any]:
    """Those steps without which the slot ``target`` would not be written, in their order."""
    wanted, kept = {target}, []
    for step in reversed(steps):
        if wanted & {extent.slot for extent in step.writes}:
            kept.append(step)
            wanted |= {extent.slot for extent in step.reads}
    return kept[::-1]


def aligned(nbytes: int) -> np.ndarray:
    """Bytes that start at a cache line, as a plan's arena does."""
    raw = np.zeros(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


class FastconvOptimizer:
    """One update of one large parameter."""

    def __init__(self, shape: Shape, data: dict[str, np.ndarray]) -> None:
        from fastconv import optimizers
        from fastconv.parameter import Parameter

        self.parameter = Parameter("weight", data["weight"])
        self.parameter.grad[...] = data["gradient"]
        self.optimizer = optimizers.get(RULES[shape.rule])
        self.optimizer.build([self.parameter])

    def refresh(self) -> None:
        """The next update goes on from the last one."""

    def runner(self, direction: str) -> Callable[[], None]:
        return self.optimizer.apply

    def result(self, direction: str, like: tuple[int, ...]) -> np.ndarray:
        return self.parameter.value


class FastconvLayers(Side):
    """fastconv's side: one layer at a time, one direction at a time."""

    layer: Any = None

    def __init__(self, threads: int) -> None:
        import fastconv

        fastconv.set_num_threads(threads)

    def prepare(self, shape: dict[str, Any]) -> None:
        self.layer = None  # the last layer's memory goes first
        self.shape = restored(shape)
        make = FastconvOptimizer if self.shape.kind == "optimizer" else FastconvLayer
        self.layer = make(self.shape, make_data(self.shape))
        if make is FastconvLayer:
            self.layer.runner(FORWARD)()  # backward reads what forward keeps

    def select(self, direction: str, path: str) -> None:
        """Time this direction from now on, and save one result."""
        self.task = self.layer.runner(direction)
        self.layer.refresh()
        self.task()
        np.save(path, self.layer.result(direction, result_shape(self.shape, direction)))

    def sample(self, calls: int, wake: bool) -> dict[str, float]:
        self.layer.refresh()
        return super().sample(calls, wake)


def restored(shape: dict[str, Any]) -> Shape:
    """A Shape that went through JSON."""
    return Shape(**{k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()})


def result_shape(shape: Shape, direction: str) -> tuple[int, ...]:
    if direction in (WEIGHT, UPDATE):
        return shape.size if direction == UPDATE else shape.weight
    return (shape.batch, *(shape.out if direction == FORWARD else shape.size))


# -- PyTorch ------------------------------------------------------------------------------------


class TorchLayer:
    """The same layer through PyTorch's operators, in one memory format."""

    def __init__(self, shape: Shape, data: dict[str, np.ndarray], channels_last: bool) -> None:
        import torch

        self.torch, self.aten, self.kind = torch, torch.ops.aten, shape.kind
        layout = torch.channels_last if channels_last else torch.contiguous_format
        tensors = {name: torch.from_numpy(array) for name, array in data.items()}
        if shape.kind == "dense":
            tensors["weight"] = tensors["weight"].T.contiguous()  # as nn.Linear has it
        for name, tensor in tensors.items():
            if tensor.ndim == 4:
                axes = self._weight_axes if name == "weight" else (0, 3, 1, 2)
                tensors[name] = tensor.permute(axes).contiguous(memory_format=layout)
        self.tensors = tensors
        self.x, self.dy = tensors.get("x"), tensors.get("dy")
        self.weight, self.bias = tensors.get("weight"), tensors.get("bias")
        self.calls = getattr(self, f"_{shape.kind}")(shape)

    @property
    def _weight_axes(self) -> tuple[int, ...]:
        """The axes of Keras' weight in PyTorch's order: (OC, IC, KH, KW), transposed
        (IC, OC, KH, KW), depthwise (C, 1, KH, KW)."""
        return (2, 3, 0, 1) if self.kind == "depthwise" else (3, 2, 0, 1)

    def _conv(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        x, dy, weight, bias = self.x, self.dy, self.weight, self.bias
        transposed = shape.kind == "transposed"
        how = ([shape.stride] * 2, [shape.pad] * 2, [shape.dilation] * 2, transposed, [0, 0])
        forward, backward = self.aten.convolution, self.aten.convolution_backward
        groups = shape.channels if shape.kind == "depthwise" else shape.groups
        out = [shape.out[-1]]
        only_x, only_weight = [True, False, False], [False, True, False]
        return {
            FORWARD: lambda: forward(x, weight, bias, *how, groups),
            INPUT: lambda: backward(dy, x, weight, out, *how, groups, only_x)[0],
            WEIGHT: lambda: backward(dy, x, weight, out, *how, groups, only_weight)[1],
        }

    _depthwise = _transposed = _conv

    def _dense(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        x, dy, weight, bias = self.x, self.dy, self.weight, self.bias
        linear = self.torch.nn.functional.linear
        return {
            FORWARD: lambda: linear(x, weight, bias),
            INPUT: lambda: dy.mm(weight),
            WEIGHT: lambda: dy.t().mm(x),
        }

    def _maxpool(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        x, dy = self.x, self.dy
        how = (list(shape.kernel), [shape.stride] * 2, [shape.pad] * 2, [1, 1], False)
        forward = self.aten.max_pool2d_with_indices
        backward = self.aten.max_pool2d_with_indices_backward
        winners = forward(x, *how)[1]
        return {
            FORWARD: lambda: forward(x, *how)[0],
            INPUT: lambda: backward(dy, x, *how, winners),
        }

    def _avgpool(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        x, dy = self.x, self.dy
        how = (list(shape.kernel), [shape.stride] * 2, [shape.pad] * 2, False, False, None)
        return {
            FORWARD: lambda: self.aten.avg_pool2d(x, *how),
            INPUT: lambda: self.aten.avg_pool2d_backward(dy, x, *how),
        }

    def _batchnorm(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        x, dy, torch = self.x, self.dy, self.torch
        gamma, beta = torch.ones(shape.channels), torch.zeros(shape.channels)
        mean, variance = torch.zeros(shape.channels), torch.ones(shape.channels)
        forward, backward = self.aten.native_batch_norm, self.aten.native_batch_norm_backward
        _, kept, kept_inverse = forward(x, gamma, beta, mean, variance, True, 0.01, EPSILON)
        saved = (gamma, mean, variance, kept, kept_inverse, True, EPSILON, [True] * 3)

        def normalized() -> Any:
            return forward(x, gamma, beta, mean, variance, True, 0.01, EPSILON)[0]

        if shape.kind == "batchnorm":
            return {FORWARD: normalized, INPUT: lambda: backward(dy, x, *saved)[0]}
        y, masked = normalized().relu_(), self.aten.threshold_backward
        return {
            FORWARD: lambda: normalized().relu_(),
            INPUT: lambda: backward(masked(dy, y, 0), x, *saved)[0],
        }

    _normrelu = _batchnorm

    def _add(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        x, b, dy = self.x, self.tensors["b"], self.dy
        if shape.kind == "add":  # the gradient is dy itself: nothing to do
            return {FORWARD: lambda: x + b}
        y, masked = (x + b).relu_(), self.aten.threshold_backward
        return {FORWARD: lambda: (x + b).relu_(), INPUT: lambda: masked(dy, y, 0)}

    _addrelu = _add

    def _optimizer(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        parameter = self.torch.nn.Parameter(self.weight)
        parameter.grad = self.tensors["gradient"]
        net = networks.Network("", "", 0, 0, 0, 0, RULES[shape.rule])
        optimizer = networks.torch_optimizer(net, [parameter])

        def update() -> Any:
            optimizer.step()
            return parameter.detach()

        return {UPDATE: update}

    def result(self, direction: str) -> np.ndarray:
        """The result in fastconv's order of axes."""
        tensor = self.calls[direction]()
        if tensor.ndim == 4 and direction == WEIGHT:
            tensor = tensor.permute(tuple(np.argsort(self._weight_axes)))
        elif tensor.ndim == 4:
            tensor = tensor.permute((0, 2, 3, 1))
        elif direction == WEIGHT:
            tensor = tensor.T
        return tensor.contiguous().numpy()


class TorchLayers(Side):
    """PyTorch's side in one memory format."""

    layer: Any = None

    def __init__(self, threads: int, channels_last: bool) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.channels_last = channels_last

    def prepare(self, shape: dict[str, Any]) -> None:
        self.layer = None
        restored_shape = restored(shape)
        self.layer = TorchLayer(restored_shape, make_data(restored_shape), self.channels_last)

    def select(self, direction: str, path: str) -> None:
        """Time this direction from now on, and save one result."""
        self.task = self.layer.calls[direction]
        np.save(path, self.layer.result(direction))


# -- the benchmark ------------------------------------------------------------------------------


def check(shape: Shape, direction: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """A speed of wrong results is worth nothing."""
    scale = float(np.abs(theirs).max())
    error = float(np.abs(ours - theirs).max()) / scale
    if not error <= TOLERANCE:
        raise RuntimeError(f"{shape}, {direction}: results differ by {error:.1e} of their scale")


def time_layer(shape: Shape, workers: dict[str, Worker], rounds: int) -> list[dict[str, Any]]:
    """One row per direction: times by side, and the speed beside the best of PyTorch's."""
    if len(shape.size) == 1:  # no layout to choose
        workers = {name: side for name, side in workers.items() if name != "torch channels last"}
    for side in workers.values():
        side.call("prepare", shape=asdict(shape))
    rows = []
    for direction in directions(shape):
        if shape.kind == "add" and direction == INPUT:
            continue
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder, f"{name}.npy") for name in workers}
            for name, side in workers.items():
                side.call("select", direction=direction, path=str(paths[name]))
            ours = np.load(paths.pop("fastconv"))
            for path in paths.values():
                check(shape, direction, ours, np.load(path))
        times, idle = worker.take_turns(workers, rounds, SAMPLE)
        rows.append(
            {
                "network": shape.network,
                "layer": str(shape),
                "batch": shape.batch,
                "direction": direction,
                "gflop": shape.gflop,
                "gbytes": shape.gbytes(direction),
                "group": group(shape),
                "times": worker.as_json(times),
                "best": worker.best_other(times),
                "speedup": worker.speedup(times),
                "idle_cpus": idle,
            }
        )
    return rows


def group(shape: Shape) -> str:
    """The kind of layer under which the summary has it."""
    if shape.kind == "conv":
        name = f"{shape.kernel[0]}x{shape.kernel[1]}" + (
            f", stride {shape.stride}" if shape.stride > 1 else ""
        )
        if shape.channels <= 4:
            return f"conv {name}, few channels"
        small = shape.kernel == (3, 3) and (shape.channels < 32 or min(shape.out[:2]) < 14)
        return f"conv {name}" + (", small" if small else "")
    return shape.kind


KEPT = {"keep_memory": True, "keep_spinning": True}


def run(args: argparse.Namespace) -> Report:
    """Time all chosen layers."""
    limit = peak.measure_in_use(args.threads)
    foreign = common.Foreign()
    sides: dict[str, dict[str, Any]] = {"fastconv": {"side": FastconvLayers}}
    if common.installed("torch"):
        sides["torch contiguous"] = {"side": TorchLayers, "channels_last": False}
        sides["torch channels last"] = {"side": TorchLayers, "channels_last": True}
    with worker.started(
        {name: {**KEPT, "threads": args.threads, **s} for name, s in sides.items()}
    ) as workers:
        found, failed = common.each(
            common.read_all(args), lambda shape: time_layer(shape, workers, args.rounds)
        )
    rows = list(chain.from_iterable(found))
    summary = summarize(rows)
    return Report(
        "layers",
        f"Layers, {args.threads} threads",
        tables=[
            Table("Layer by layer", HEADER, [format_row(row, limit) for row in rows]),
            Table("By kind of layer", SUMMARY, [summary_row(*item) for item in summary.items()]),
        ],
        bars=[
            Bars("Beside the better layout of PyTorch, geometric means",
                 [(name, found["mean"]) for name, found in summary.items()]),
        ],
        notes=[*NOTES, peak.describe(limit) + ".", *failed, *foreign.notes(),
               *worker.idle_notes(rows)],
        data={"limit": limit, "rows": rows, "summary": summary, "foreign_cpus": foreign.cpus()},
    )  # fmt: skip


NOTES = [
    "Medians of the rounds, glibc told to keep freed memory and GNU OpenMP to spin between calls, "
    "on both sides; x torch is PyTorch's better layout's time divided by fastconv's.",
    "The limit is max(multiply-adds of the direct algorithm / peak, least bytes / triad on as many "
    "bytes): Winograd can pass 100 %.",
]
HEADER = [
    "layer", "batch", "direction", "fastconv ms", "min", "spread %", "rate", "% of limit",
    "torch contiguous", "channels last", "x torch",
]  # fmt: skip
SUMMARY = ["kind, direction", "layers", "x torch, mean", "lowest", "where"]


def format_row(row: dict[str, Any], limit: dict[str, Any]) -> list[str]:
    times, best = row["times"], row["times"]["fastconv"]["median"]
    kernel = bound.Kernel(
        row["layer"], "", row["direction"], 1e9 * row["gbytes"], 1e9 * row["gflop"]
    )  # fmt: skip
    products, unit = (row["gflop"], "GFLOP/s") if row["gflop"] else (row["gbytes"], "GB/s")

    def cell(name: str) -> str:
        return common.ms(times[name]["median"]) if name in times else "-"

    return [
        f"{row['network']} {row['layer']}", str(row["batch"]), row["direction"],
        cell("fastconv"), common.ms(times["fastconv"]["min"]),
        common.percent(times["fastconv"]["spread"]), f"{products / best:.0f} {unit}",
        common.percent(kernel.seconds(limit) / best), cell("torch contiguous"),
        cell("torch channels last"), common.ratio(row["speedup"]),
    ]  # fmt: skip


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Speed beside PyTorch by kind of layer and direction."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["speedup"]:
            groups.setdefault(f"{row['group']}, {row['direction']}", []).append(row)
    summary = {}
    for name in sorted(groups):
        worst = min(groups[name], key=lambda row: row["speedup"])
        summary[name] = {
            "layers": len(groups[name]),
            "mean": common.geometric_mean([row["speedup"] for row in groups[name]]),
            "worst": worst["speedup"],
            "where": f"{worst['network']} {worst['layer']}",
        }
    return summary


def summary_row(name: str, found: dict[str, Any]) -> list[str]:
    mean, worst = common.ratio(found["mean"]), common.ratio(found["worst"])
    return [name, str(found["layers"]), mean, worst, found["where"]]

"""Time single layers: forward, input gradient and weight gradient, fastconv beside PyTorch.

fastconv runs the very steps that a model's plan has for the layer, prebuilt, so that kernels alone
are timed; packing the weights belongs to them, since it happens at every training step. PyTorch
runs the operators that its autograd calls, with contiguous and with channels-last tensors. All
candidates start from the same numbers, and their results are compared before anything is timed.

    python benchmarks/layers.py vgg16 resnet50 --threads 2 --rounds 15 --json layers.json
"""

import argparse
from collections.abc import Callable
from math import prod
from typing import Any

import common
import numpy as np
import peak
from common import Shape

FORWARD, INPUT, WEIGHT = "forward", "input gradient", "weight gradient"
EPSILON = 1e-3  # of batch norm
TOLERANCE = 1e-3  # of the result's scale: sums of a million products in another order


# -- data -------------------------------------------------------------------------------------


def make_data(shape: Shape) -> dict[str, np.ndarray]:
    """x, dy (n, …, channels), and weight and bias where the layer has them."""
    rng = np.random.default_rng(0)
    n = shape.batch

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size, np.float32)

    data = {"x": normal(n, *shape.size), "dy": normal(n, *shape.out)}
    if shape.kind == "batchnorm":
        # The gradient is made in place of dy. On an x of variance 1 (with epsilon) it is a
        # projection, so that it stays the same however often the step runs.
        x, axes = data["x"], tuple(range(len(shape.size)))
        data["x"] = (x - x.mean(axes)) / x.std(axes) * np.float32((1 - EPSILON) ** 0.5)
    if shape.gflop:
        data["weight"] = normal(*shape.weight) / np.float32(prod(shape.weight[:-1]) ** 0.5)
        data["bias"] = normal(shape.filters)
    return data


def directions(shape: Shape) -> list[str]:
    return [FORWARD, INPUT, WEIGHT] if shape.gflop else [FORWARD, INPUT]


# -- fastconv ---------------------------------------------------------------------------------


class FastconvLayer:
    """One layer's plan, its steps sorted by what they compute.

    Every buffer has an array of its own here (a model's plan lets buffers share memory), so that
    each direction can run any number of times on the same data.
    """

    def __init__(self, shape: Shape, data: dict[str, np.ndarray]) -> None:
        from fastconv import layers
        from fastconv.graph import Graph
        from fastconv.plan import Plan

        layer = make_layer(shape)
        x = layers.Input(shape.size)
        self.n = shape.batch
        self.plan = Plan(
            Graph([x], [layer(x)]), [shape.size], training=True, backward=True, input_gradients=True
        )
        if "weight" in data:
            layer.set_weights([data["weight"], data["bias"]])
        self.arrays = self._place()
        self._value(self.plan.inputs[0].value)[:] = data["x"]
        self._value(self.plan.gradients[0])[:] = data["dy"]
        self.results = {FORWARD: self.plan.outputs[0].slot}
        self.results[INPUT] = self.plan.input_gradients[0].slot
        if "weight" in data:
            (self.results[WEIGHT],) = (
                number for number, slot in enumerate(self.plan.slots)
                if slot.array is layer.weight.grad
            )  # fmt: skip

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

    def result(self, direction: str, like: np.ndarray) -> np.ndarray:
        return self.native.view(self.results[direction], like.shape)


def make_layer(shape: Shape) -> Any:
    from fastconv import layers

    if shape.kind == "dense":
        return layers.Dense(shape.filters)
    if shape.kind == "conv":
        return layers.Conv2D(
            shape.filters, shape.kernel, strides=shape.stride, padding=shape.pad,
            dilation_rate=shape.dilation, groups=shape.groups,
        )  # fmt: skip
    if shape.kind == "batchnorm":
        return layers.BatchNormalization(epsilon=EPSILON)
    pooling = layers.MaxPooling2D if shape.kind == "maxpool" else layers.AveragePooling2D
    return pooling(shape.kernel, strides=shape.stride, padding=shape.pad)


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


# -- PyTorch ----------------------------------------------------------------------------------


class TorchLayer:
    """The same layer through PyTorch's operators, in one memory format."""

    def __init__(self, shape: Shape, data: dict[str, np.ndarray], channels_last: bool) -> None:
        torch = common.optional_torch()
        self.torch, self.aten = torch, torch.ops.aten
        layout = torch.channels_last if channels_last else torch.contiguous_format
        tensors = {name: torch.from_numpy(array) for name, array in data.items()}
        if shape.kind == "dense":
            tensors["weight"] = tensors["weight"].T.contiguous()  # as nn.Linear has it
        for name, tensor in tensors.items():
            if tensor.ndim == 4:
                axes = (3, 2, 0, 1) if name == "weight" else (0, 3, 1, 2)
                tensors[name] = tensor.permute(axes).contiguous(memory_format=layout)
        self.x, self.dy = tensors["x"], tensors["dy"]
        self.weight, self.bias = tensors.get("weight"), tensors.get("bias")
        self.calls = getattr(self, f"_{shape.kind}")(shape)

    def _conv(self, shape: Shape) -> dict[str, Callable[[], Any]]:
        x, dy, weight, bias = self.x, self.dy, self.weight, self.bias
        how = ([shape.stride] * 2, [shape.pad] * 2, [shape.dilation] * 2, False, [0, 0])
        forward, backward = self.aten.convolution, self.aten.convolution_backward
        out, groups = [shape.filters], shape.groups
        only_x, only_weight = [True, False, False], [False, True, False]
        return {
            FORWARD: lambda: forward(x, weight, bias, *how, groups),
            INPUT: lambda: backward(dy, x, weight, out, *how, groups, only_x)[0],
            WEIGHT: lambda: backward(dy, x, weight, out, *how, groups, only_weight)[1],
        }

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
        return {
            FORWARD: lambda: forward(x, gamma, beta, mean, variance, True, 0.01, EPSILON)[0],
            INPUT: lambda: backward(dy, x, *saved)[0],
        }

    def result(self, direction: str) -> np.ndarray:
        """The result in fastconv's order of axes."""
        tensor = self.calls[direction]()
        if tensor.ndim == 4:
            tensor = tensor.permute((2, 3, 1, 0) if direction == WEIGHT else (0, 2, 3, 1))
        elif direction == WEIGHT:
            tensor = tensor.T
        return tensor.contiguous().numpy()


# -- the benchmark ----------------------------------------------------------------------------


def check(shape: Shape, direction: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """A speed of wrong results is worth nothing."""
    scale = float(np.abs(theirs).max())
    error = float(np.abs(ours - theirs).max()) / scale
    if not error <= TOLERANCE:
        raise RuntimeError(f"{shape}, {direction}: results differ by {error:.1e} of their scale")


def time_layer(shape: Shape, rounds: int) -> list[dict[str, Any]]:
    """One row per direction: times by candidate, and the speed beside the best of PyTorch's."""
    data = make_data(shape)
    ours = FastconvLayer(shape, data)
    theirs = {}
    if common.optional_torch() is not None:
        theirs["contiguous"] = TorchLayer(shape, data, channels_last=False)
        if len(shape.size) == 3:
            theirs["channels_last"] = TorchLayer(shape, data, channels_last=True)
    ours.runner(FORWARD)()  # backward reads what forward keeps
    rows = []
    for direction in directions(shape):
        candidates: dict[str, Callable[[], Any]] = {"fastconv": ours.runner(direction)}
        candidates["fastconv"]()
        for layout, layer in theirs.items():
            expected = layer.result(direction)
            check(shape, direction, ours.result(direction, expected), expected)
            candidates[f"torch {layout}"] = layer.calls[direction]
        times = common.interleave(candidates, rounds)
        rows.append(
            {
                "network": shape.network,
                "layer": str(shape),
                "batch": shape.batch,
                "direction": direction,
                "gflop": shape.gflop,
                "gbytes": shape.gbytes(direction),
                "target": is_target(shape),
                "times": common.as_json(times),
                "speedup": common.speedup(times),
            }
        )
    return rows


def is_target(shape: Shape) -> bool:
    """The layers that the project promises to be fast on: 3x3 with 32 channels and more."""
    return (
        shape.kind == "conv" and shape.kernel == (3, 3) and shape.groups == 1
        and shape.channels >= 32 and shape.filters >= 32
    )  # fmt: skip


def format_row(row: dict[str, Any], limit: dict[str, Any]) -> list[str]:
    times = row["times"]
    best = times["fastconv"]["median"]
    if row["gflop"]:
        rate, top, unit = row["gflop"] / best, limit["gflops"], "GFLOP/s"
    else:
        rate, top, unit = row["gbytes"] / best, limit["gbytes"], "GB/s"

    def cell(name: str) -> str:
        return common.ms(times[name]["median"]) if name in times else "-"

    return [
        f"{row['network']} {row['layer']}", str(row["batch"]), row["direction"],
        cell("fastconv"), common.ms(times["fastconv"]["min"]),
        f"{100 * times['fastconv']['spread']:.0f}", f"{rate:.0f} {unit}", f"{100 * rate / top:.0f}",
        cell("torch contiguous"), cell("torch channels_last"),
        f"{row['speedup']:.2f}" if row["speedup"] else "-",
    ]  # fmt: skip


HEADER = [
    "layer", "N", "direction", "fastconv ms", "min", "spread %", "rate", "% of limit",
    "torch contiguous", "channels_last", "x torch",
]  # fmt: skip


def run(networks: list[str], rounds: int, limit: dict[str, Any], only: str = "") -> dict[str, Any]:
    """Time all layers of these networks, print the table and return what was measured."""
    rows: list[dict[str, Any]] = []
    foreign = common.Foreign()
    for network in networks:
        for shape in common.read_shapes(network):
            if only in str(shape):
                rows += time_layer(shape, rounds)
                print(f"  {shape}: done", flush=True)
    print(common.table(HEADER, [format_row(row, limit) for row in rows]))
    summary = summarize(rows)
    for name, found in summary.items():
        print(
            f"{name}: {found['mean']:.2f} x the speed of PyTorch's better layout (geometric mean), "
            f"lowest {found['worst']:.2f} x ({found['where']})"
        )
    return {"rows": rows, "summary": summary, "foreign_cpus": foreign.report()}


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Speed beside PyTorch by direction, and of the layers with a promise."""
    groups = {
        "3x3 convolutions with 32 channels and more": [row for row in rows if row["target"]],
        **{d: [r for r in rows if r["direction"] == d] for d in (FORWARD, INPUT, WEIGHT)},
    }
    summary = {}
    for name, group in groups.items():
        known = [row for row in group if row["speedup"]]
        if known:
            worst = min(known, key=lambda row: row["speedup"])
            summary[name] = {
                "mean": common.geometric_mean([row["speedup"] for row in known]),
                "worst": worst["speedup"],
                "where": f"{worst['network']} {worst['layer']}, {worst['direction']}",
            }
    return summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = common.networks()
    parser.add_argument(
        "--networks", nargs="+", choices=names, default=names, metavar="NAME",
        help=f"shape files to time; there are {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--only", default="", metavar="TEXT", help="layers with TEXT in their name")


def main() -> None:
    parser = common.parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    common.prepare(args)
    limit = peak.measure_in_use(args.threads)
    layers = run(args.networks, args.rounds, limit, args.only)
    common.write_json(args, {"limit": limit, "layers": layers})


if __name__ == "__main__":
    main()

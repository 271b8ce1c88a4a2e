"""Time inference: `model.predict` beside onnxruntime on the exported file, and PyTorch.

onnxruntime has the file that `Model.export` writes, its CPU provider and as many threads; PyTorch
runs the module in its inference mode, with a softmax, in the four variants of training. All sides
give probabilities for the same batch, and these are compared first.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bound
import common
import networks
import numpy as np
import peak
import train
import worker
from networks import Network
from report import Bars, Report, Table
from worker import Side, Worker

TOLERANCE = 1e-3  # of the largest probability


# -- the sides ----------------------------------------------------------------------------------


class FastconvInference(Side):
    """`predict` with one batch."""

    def __init__(self, threads: int) -> None:
        import fastconv

        fastconv.set_num_threads(threads)

    def prepare(self, network: dict[str, Any], folder: str) -> dict[str, Any]:
        """Make the model, write its file ``model.onnx`` and its ``fastconv.npy``."""
        net = Network(**network)
        model = networks.fastconv_model(net)
        (x,), _ = net.data(1)
        tolerance = TOLERANCE
        if common.installed("onnxruntime"):
            # an untrained ResNet-50 loses so many digits that float32 alone is further away
            tolerance = max(tolerance, model.export(Path(folder, "model.onnx")).tolerance)
        self.task = lambda: model.predict(x, batch_size=net.batch)
        np.save(Path(folder, "fastconv.npy"), self.task())
        return {
            "multiply_adds": bound.multiply_adds(model),
            "kernels": bound.kernels(model, net.batch, training=False),
            "tolerance": tolerance,
        }


class OnnxruntimeInference(Side):
    """A session on the file that fastconv wrote."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def prepare(self, network: dict[str, Any], folder: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        session = onnxruntime.InferenceSession(
            Path(folder, "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        (x,), _ = Network(**network).data(1)
        feed = {session.get_inputs()[0].name: np.ascontiguousarray(np.moveaxis(x, -1, 1))}
        self.task = lambda: session.run(None, feed)[0]
        np.save(Path(folder, "onnxruntime.npy"), np.moveaxis(self.task(), 1, -1))


class TorchInference(Side):
    """The module in inference mode."""

    def __init__(self, threads: int, channels_last: bool) -> None:
        import torch

        torch.set_num_threads(threads)
        self.channels_last = channels_last
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def prepare(self, network: dict[str, Any], folder: str) -> None:
        import torch

        net = Network(**network)
        model = networks.torch_model(net).to(memory_format=self.layout).eval()
        (x,), _ = net.data(1)
        images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=self.layout)

        def task() -> Any:
            with torch.inference_mode():
                return torch.softmax(model(images), 1)

        self.task = task
        name = "torch-last.npy" if self.channels_last else "torch-first.npy"
        np.save(Path(folder, name), np.moveaxis(task().numpy(), 1, -1))


# -- the benchmark ------------------------------------------------------------------------------


@contextmanager
def sides(net: Network, threads: int) -> Iterator[tuple[dict[str, Worker], dict[str, Any]]]:
    """Workers that have made their call and agree in what it gives, and fastconv's facts."""
    arguments = train.variants(FastconvInference, TorchInference, threads)
    if common.installed("onnxruntime"):
        arguments["onnxruntime"] = {"side": OnnxruntimeInference, "threads": threads}
    with tempfile.TemporaryDirectory() as folder, worker.started(arguments) as workers:
        found = {
            name: side.call("prepare", network=asdict(net), folder=folder)
            for name, side in workers.items()
        }  # fastconv is the first: it writes the file
        ours = np.load(Path(folder, "fastconv.npy"))
        for path in Path(folder).glob("*.npy"):
            error = float(np.abs(ours - np.load(path)).max() / ours.max())
            if not error <= found["fastconv"]["tolerance"]:
                raise RuntimeError(f"{net.name}: {path.stem} differs by {error:.1e} of the scale")
        yield workers, found["fastconv"]


def time_predict(net: Network, rounds: int, threads: int) -> dict[str, Any]:
    with sides(net, threads) as (workers, facts):
        times, idle = worker.take_turns(workers, rounds)
    mine = times["fastconv"].median
    torch = [name for name in times if name.startswith("torch")]
    best = min(torch, key=lambda name: times[name].median, default=None)
    runtime = times.get("onnxruntime")
    return {
        "network": net.name,
        "batch": net.batch,
        **facts,
        "times": worker.as_json(times),
        "best_torch": best,
        "x_torch": times[best].median / mine if best else None,
        "x_onnxruntime": runtime.median / mine if runtime else None,
        "speedup": worker.speedup(times),
        "idle_cpus": idle,
    }


def run(args: argparse.Namespace) -> Report:
    """Time the chosen networks."""
    limit = peak.measure_in_use(args.threads)
    foreign = common.Foreign()
    rows, failed = common.each(
        networks.chosen(args), lambda net: time_predict(net, args.rounds, args.threads)
    )
    runtime = [(row["network"], row["x_onnxruntime"]) for row in rows if row["x_onnxruntime"]]
    return Report(
        "inference",
        f"Inference, {args.threads} threads",
        tables=[Table("A batch through predict", HEADER, [format_row(r, limit) for r in rows])],
        bars=[Bars("predict beside onnxruntime on the exported file", runtime)],
        notes=[
            "Medians of the rounds. x: the other's time divided by fastconv's. The bound is that "
            "of `bound.py` for the forward pass, batch norm folded.",
            peak.describe(limit) + ".", *failed, *foreign.notes(), *worker.idle_notes(rows),
        ],
        data={"limit": limit, "rows": rows, "foreign_cpus": foreign.cpus()},
    )  # fmt: skip


HEADER = [
    "network", "batch", "fastconv ms", "spread %", "onnxruntime ms", "torch ms", "its variant",
    "x onnxruntime", "x torch", "GFLOP/s", "bound ms", "share %",
]  # fmt: skip


def format_row(row: dict[str, Any], limit: dict[str, Any]) -> list[str]:
    times = row["times"]
    mine = times["fastconv"]
    least = bound.seconds(row["kernels"], limit)

    def cell(name: str | None) -> str:
        return common.ms(times[name]["median"]) if name in times else "-"

    return [
        row["network"], str(row["batch"]), cell("fastconv"), common.percent(mine["spread"]),
        cell("onnxruntime"), cell(row["best_torch"]), row["best_torch"] or "-",
        common.ratio(row["x_onnxruntime"]), common.ratio(row["x_torch"]),
        f"{bound.gflop(row['kernels']) / mine['median']:.0f}", common.ms(least),
        common.percent(least / mine["median"]),
    ]  # fmt: skip

"""The memory of a training run: its peak, beside PyTorch's.

Every run has a process of its own. What counts is the peak of the resident memory while a few
steps are trained, less what was resident after the import, less parameters, gradients and optimizer
state, which both sides have alike: what remains are activations, buffers and whatever the library
takes besides. The raw peak stands beside it.
"""

import argparse
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import common
import networks
import train
import worker
from networks import Network
from report import Bars, Report, Table

STEPS = 3


# -- what a process uses (Linux; elsewhere the peak since its start) ------------------------------


def resident() -> int:
    """Bytes of this process that are in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resident_peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def resident_peak() -> int:
    """The most that ever was, or was since `forget_peak`."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def forget_peak() -> None:
    """Let the peak begin anew, where the system can: making the weights is not training."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# -- the sides ----------------------------------------------------------------------------------


class FastconvMemory(train.FastconvTraining):
    def measure(self, network: dict[str, Any]) -> dict[str, int]:
        """Bytes: after the import, at the peak of training, of parameters, gradients, state."""
        from fastconv import Model  # noqa: F401  the classes that training needs are loaded

        base = resident()
        net = Network(**network)
        model, step = self._step(net, dropout=True, batches=1)
        forget_peak()
        for _ in range(STEPS):
            step()
        parameters = model.graph.parameters
        trained = [p for p in parameters if p.trainable]
        return {
            "base": base,
            "peak": resident_peak(),
            "parameters": sum(p.value.nbytes for p in parameters),
            "gradients": sum(p.grad.nbytes for p in trained),
            "state": networks.states(net.optimizer) * sum(p.value.nbytes for p in trained),
        }


class TorchMemory(train.TorchTraining):
    def measure(self, network: dict[str, Any]) -> dict[str, int]:
        """As `FastconvMemory.measure`."""
        base = resident()
        net = Network(**network)
        model, step = self._step(net, dropout=True, batches=1)
        forget_peak()
        for _ in range(STEPS):
            step()
        parameters = list(model.parameters())
        return {
            "base": base,
            "peak": resident_peak(),
            "parameters": sum(t.nbytes for t in (*parameters, *model.buffers())),
            "gradients": sum(p.grad.nbytes for p in parameters),
            "state": networks.states(net.optimizer) * sum(p.nbytes for p in parameters),
        }


# -- the benchmark ------------------------------------------------------------------------------


def measure(net: Network, threads: int) -> dict[str, Any]:
    """One row: every side in turn, each in a process that ends before the next one begins."""
    sides = train.variants(FastconvMemory, TorchMemory, threads)
    found = {}
    for name, arguments in sides.items():
        if not name.endswith(train.KEPT):
            with worker.Worker(**arguments) as side:
                found[name] = side.call("measure", network=vars(net))
    rest = {name: remaining(bytes_) for name, bytes_ in found.items()}
    others = [value for name, value in rest.items() if name != "fastconv"]
    return {
        "network": net.name,
        "batch": net.batch,
        "bytes": found,
        "remaining": rest,
        "ratio": rest["fastconv"] / min(others) if others and min(others) > 0 else None,
    }


def remaining(found: dict[str, int]) -> int:
    """The peak without what is there anyway."""
    return found["peak"] - sum(found[name] for name in ("base", "parameters", "gradients", "state"))


def run(args: argparse.Namespace) -> Report:
    """Measure the chosen networks."""
    rows, failed = common.each(networks.chosen(args), lambda net: measure(net, args.threads))
    less = [(row["network"], 1 / row["ratio"]) for row in rows if row["ratio"] and row["ratio"] > 0]
    return Report(
        "memory",
        f"Memory of training, {args.threads} threads",
        tables=[Table("Peak of the resident memory, MB", HEADER, list(map(format_row, rows)))],
        bars=[Bars("How many times less memory than PyTorch, beyond the parameters", less)],
        notes=[
            "Beyond: the peak less what is resident after the import, parameters, gradients and "
            "optimizer state. PyTorch is its better memory format, glibc as it is. One batch of "
            "data is in both.",
            *failed,
        ],
        data={"rows": rows},
    )


HEADER = [
    "network", "batch", "fastconv peak", "torch peak", "fastconv beyond", "torch beyond",
    "fastconv / torch", "parameters, gradients, state",
]  # fmt: skip


def format_row(row: dict[str, Any]) -> list[str]:
    mine, rest = row["bytes"]["fastconv"], row["remaining"]
    best = min((name for name in rest if name != "fastconv"), key=rest.get, default=None)
    fixed = sum(mine[name] for name in ("parameters", "gradients", "state"))

    def mega(value: int | None) -> str:
        return "-" if value is None else f"{value / 1e6:.1f}"

    return [
        row["network"], str(row["batch"]), mega(mine["peak"]),
        mega(row["bytes"][best]["peak"] if best else None), mega(rest["fastconv"]),
        mega(rest[best] if best else None), common.ratio(row["ratio"]), mega(fixed),
    ]  # fmt: skip

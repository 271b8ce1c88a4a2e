"""Time whole training steps: fastconv's `train_on_batch` beside an ordinary PyTorch loop.

A step is forward, loss, backward and update of one batch, and the loss as a Python number. PyTorch
runs in four variants, with contiguous and with channels-last tensors, each with glibc as it is and
told to keep freed memory; the best of them is what fastconv is compared with.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import bound
import common
import networks
import peak
import worker
from networks import Network
from report import Bars, Report, Table
from worker import Side, Worker

KEPT = ", kept"  # ends the names of variants with glibc told to keep memory
BATCHES = 4  # different batches, taken in turns
# Of the first losses. Sums in another order move the first one in its sixth digit; the next ones
# show gradients and updates, through which small differences grow: of a small ResNet-50 the third
# loss is 8.75 in float64 on both sides, 8.70 here and 8.35 to 8.58 in PyTorch's layouts in float32.
TOLERANCES = (1e-4, 1e-2, 1e-1)


# -- the sides ----------------------------------------------------------------------------------


class FastconvTraining(Side):
    """`train_on_batch`."""

    def __init__(self, threads: int) -> None:
        import fastconv

        fastconv.set_num_threads(threads)

    def losses(self, network: dict[str, Any]) -> list[float]:
        """Those of the first steps, without dropout: its masks are every side's own."""
        _, step = self._step(Network(**network), dropout=False)
        return [step() for _ in TOLERANCES]

    def prepare(self, network: dict[str, Any]) -> dict[str, Any]:
        """Make the timed step; returns what must agree with the other sides, and the bound."""
        net = Network(**network)
        model, self.task = self._step(net, dropout=True)
        states = networks.states(net.optimizer)
        return {
            "parameters": sum(p.value.size for p in model.graph.parameters if p.trainable),
            "multiply_adds": bound.multiply_adds(model),
            "kernels": bound.kernels(model, net.batch, training=True, states=states),
        }

    @staticmethod
    def _step(
        net: Network, dropout: bool, batches: int = BATCHES
    ) -> tuple[Any, Callable[[], float]]:
        """The model and a call that makes one step with it."""
        model = networks.fastconv_model(net, dropout)
        model.compile(
            optimizer=networks.fastconv_optimizer(net), loss="sparse_categorical_crossentropy"
        )
        pairs = itertools.cycle(list(zip(*net.data(batches), strict=True)))
        return model, lambda: model.train_on_batch(*next(pairs))


class TorchTraining(Side):
    """The ordinary loop on batches that lie ready in PyTorch's order of axes."""

    def __init__(self, threads: int, channels_last: bool) -> None:
        import torch

        torch.set_num_threads(threads)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def losses(self, network: dict[str, Any]) -> list[float]:
        """As `FastconvTraining.losses`."""
        _, step = self._step(Network(**network), dropout=False)
        return [step() for _ in TOLERANCES]

    def prepare(self, network: dict[str, Any]) -> dict[str, Any]:
        """As `FastconvTraining.prepare`."""
        import torch_networks

        net = Network(**network)
        model, self.task = self._step(net, dropout=True)
        return {
            "parameters": sum(p.numel() for p in model.parameters()),
            "multiply_adds": torch_networks.multiply_adds(model, net.shape),
        }

    def _step(
        self, net: Network, dropout: bool, batches: int = BATCHES
    ) -> tuple[Any, Callable[[], float]]:
        import torch

        model = networks.torch_model(net, dropout).to(memory_format=self.layout).train()
        update = networks.torch_optimizer(net, model.parameters())
        x, y = net.data(batches)
        images = [
            torch.from_numpy(b).permute(0, 3, 1, 2).contiguous(memory_format=self.layout) for b in x
        ]
        pairs = itertools.cycle(list(zip(images, map(torch.from_numpy, y), strict=True)))
        cross_entropy = torch.nn.functional.cross_entropy

        def step() -> float:
            images, labels = next(pairs)
            update.zero_grad(set_to_none=True)
            loss = cross_entropy(model(images), labels)
            loss.backward()
            update.step()
            return loss.item()

        return model, step


def variants(fastconv: type[Side], torch: type[Side], threads: int) -> dict[str, dict[str, Any]]:
    """The arguments of every worker: fastconv; PyTorch in both layouts, with memory kept or not."""
    sides: dict[str, dict[str, Any]] = {"fastconv": {"side": fastconv, "threads": threads}}
    if common.installed("torch"):
        for layout, last in (("contiguous", False), ("channels last", True)):
            for kept in (False, True):
                sides[f"torch {layout}{KEPT if kept else ''}"] = {
                    "side": torch, "keep_memory": kept, "threads": threads, "channels_last": last,
                }  # fmt: skip
    return sides


# -- the benchmark ------------------------------------------------------------------------------


def prepared(net: Network, workers: dict[str, Worker]) -> dict[str, Any]:
    """Let every side make its step, and see that all are as large; returns fastconv's facts."""
    facts = {name: side.call("prepare", network=asdict(net)) for name, side in workers.items()}
    ours = next(iter(facts.values()))
    for name, theirs in facts.items():
        for what in ("parameters", "multiply_adds"):
            if theirs[what] != ours[what]:
                raise RuntimeError(f"{net.name}: {what} {ours[what]}, of {name} {theirs[what]}")
    return ours


def compare_losses(net: Network, workers: dict[str, Worker]) -> dict[str, list[float]]:
    """See that all sides learn alike from the same weights; returns the losses."""
    compared = [name for name in workers if not name.endswith(KEPT)]  # memory changes no number
    losses = {name: workers[name].call("losses", network=asdict(net)) for name in compared}
    for name, theirs in losses.items():
        for step, tolerance in enumerate(TOLERANCES):
            a, b = losses["fastconv"][step], theirs[step]
            if not abs(a - b) <= tolerance * abs(b):
                raise RuntimeError(f"{net.name}: loss {step + 1} is {a}, that of {name} {b}")
    return losses


def time_step(net: Network, rounds: int, threads: int) -> dict[str, Any]:
    """One row: what the step is, and everybody's times."""
    with worker.started(variants(FastconvTraining, TorchTraining, threads)) as workers:
        losses = compare_losses(net, workers)
        facts = prepared(net, workers)
        times, idle = worker.take_turns(workers, rounds)
    return {
        "network": net.name,
        "batch": net.batch,
        "optimizer": net.optimizer,
        **facts,
        "losses": losses,
        "times": worker.as_json(times),
        "best": worker.best_other(times),
        "speedup": worker.speedup(times),
        "idle_cpus": idle,
    }


def run(args: argparse.Namespace) -> Report:
    """Time the chosen networks."""
    limit = peak.measure_in_use(args.threads)
    foreign = common.Foreign()
    rows, failed = common.each(
        networks.chosen(args), lambda net: time_step(net, args.rounds, args.threads)
    )
    return Report(
        "train",
        f"Training steps, {args.threads} threads",
        tables=[times_table(rows, limit), bound_table(rows, limit)],
        bars=[Bars("A training step beside the best of PyTorch", ratios(rows))],
        notes=[
            *NOTES,
            peak.describe(limit) + ".",
            *failed,
            *foreign.notes(),
            *worker.idle_notes(rows),
        ],
        data={"limit": limit, "rows": rows, "foreign_cpus": foreign.cpus()},
    )


NOTES = [
    "Medians of the rounds; spread is the interquartile range. Forward, loss, backward, update and "
    "the loss as a number. x torch: the best variant's time divided by fastconv's.",
    "GFLOP/s and % of peak count the direct algorithm's multiply-adds, so Winograd can pass 100 %. "
    "The bound is that of `bound.py`, with Winograd's; share is the bound divided by our time.",
]


def times_table(rows: list[dict[str, Any]], limit: dict[str, Any]) -> Table:
    lines = []
    for row in rows:
        mine, work = row["times"]["fastconv"], bound.gflop(row["kernels"])
        best = row["best"] and row["times"][row["best"]]
        rate, least = work / mine["median"], bound.seconds(row["kernels"], limit)
        lines.append(
            [
                row["network"], str(row["batch"]), common.ms(mine["median"]),
                common.percent(mine["spread"]), common.ms(best["median"]) if best else "-",
                common.percent(best["spread"]) if best else "-", row["best"] or "-",
                common.ratio(row["speedup"]), f"{rate:.0f}",
                common.percent(rate / limit["gflops"]), common.ms(least),
                common.percent(least / mine["median"]),
            ]
        )  # fmt: skip
    header = [
        "network", "batch", "fastconv ms", "spread %", "torch ms", "spread %", "its variant",
        "x torch", "GFLOP/s", "% of peak", "bound ms", "share %",
    ]  # fmt: skip
    return Table("A step of training", header, lines)


def bound_table(rows: list[dict[str, Any]], limit: dict[str, Any]) -> Table:
    """What the bound is made of."""
    lines = []
    for row in rows:
        parts = bound.by_kind(row["kernels"], limit)
        cells = [common.ms(parts[kind]) if parts[kind] else "-" for kind in bound.KINDS]
        lines.append([row["network"], *cells, common.ms(sum(parts.values()))])
    return Table("The bound by kind of kernel, ms", ["network", *bound.KINDS, "together"], lines)


def ratios(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(row["network"], row["speedup"]) for row in rows if row["speedup"]]

"""Time whole training steps by dtype policy: "mixed_bfloat16" beside "float32".

Each policy has a process of its own; they take turns. `train.py` has float32 beside PyTorch; this
says what rounding the operands of convolutions to bfloat16 adds, and how far the first losses move.
"""

import argparse
from dataclasses import asdict
from typing import Any

import common
import networks
import peak
import train
import worker
from networks import Network
from report import Bars, Report, Table

EXACT, MIXED = "float32", "mixed_bfloat16"


class PolicyTraining(train.FastconvTraining):
    def __init__(self, threads: int, policy: str) -> None:
        super().__init__(threads)
        import fastconv

        fastconv.set_dtype_policy(policy)

    def prepare(self, network: dict[str, Any]) -> dict[str, Any]:
        """Make the timed step; returns the share of convolutions' direct work that is rounded."""
        net = Network(**network)
        model, self.task = self._step(net, dropout=True)
        profile = model.profile(*(batch[0] for batch in net.data(1)))
        work = {row.algorithm: 0.0 for row in profile.steps}
        for row in profile.steps:
            work[row.algorithm] += row.seconds
        return {"rounded": work.get("bf16", 0.0) / sum(work.values())}


def time_policies(net: Network, rounds: int, threads: int) -> dict[str, Any]:
    """One row: both policies' times and first losses."""
    sides = {
        policy: {"side": PolicyTraining, "threads": threads, "policy": policy}
        for policy in (EXACT, MIXED)
    }
    with worker.started(sides) as workers:
        losses = {name: side.call("losses", network=asdict(net)) for name, side in workers.items()}
        facts = {name: side.call("prepare", network=asdict(net)) for name, side in workers.items()}
        times, idle = worker.take_turns(workers, rounds)
    return {
        "network": net.name,
        "batch": net.batch,
        "rounded": facts[MIXED]["rounded"],
        "losses": losses,
        "times": worker.as_json(times),
        "gain": times[EXACT].median / times[MIXED].median,
        "idle_cpus": idle,
    }


def run(args: argparse.Namespace) -> Report:
    """Time the chosen networks."""
    from fastconv import precision

    reason = precision.no_bf16()
    if reason:
        raise RuntimeError(f"{MIXED} cannot be had: {reason}")
    foreign = common.Foreign()
    rows, failed = common.each(
        networks.chosen(args), lambda net: time_policies(net, args.rounds, args.threads)
    )
    limit = peak.measure_in_use(args.threads)
    return Report(
        "policies",
        f"Training steps by dtype policy, {args.threads} threads",
        tables=[Table("A step of training", HEADER, list(map(format_row, rows)))],
        bars=[
            Bars(
                "A training step with mixed_bfloat16 beside float32",
                [(row["network"], row["gain"]) for row in rows],
            )
        ],
        notes=[
            "Medians of the rounds. Rounded: the share of a mixed step's time that products of "
            "bfloat16 take. Loss: the third one, from the same weights and batches, as a share of "
            "float32's.",
            peak.describe(limit) + ".",
            *failed,
            *foreign.notes(),
            *worker.idle_notes(rows),
        ],
        data={"rows": rows, "foreign_cpus": foreign.cpus()},
    )


HEADER = [
    "network", "batch", "float32 ms", "spread %", "mixed_bfloat16 ms", "spread %", "x float32",
    "rounded %", "loss",
]  # fmt: skip


def format_row(row: dict[str, Any]) -> list[str]:
    exact, mixed = row["times"][EXACT], row["times"][MIXED]
    losses = [row["losses"][policy][-1] for policy in (MIXED, EXACT)]
    return [
        row["network"], str(row["batch"]), common.ms(exact["median"]),
        common.percent(exact["spread"]), common.ms(mixed["median"]),
        common.percent(mixed["spread"]), common.ratio(row["gain"]),
        common.percent(row["rounded"]), f"{losses[0] / losses[1]:.4f}",
    ]  # fmt: skip

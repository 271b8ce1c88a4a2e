"""How the cost of a training step grows with batch, image, channels and threads.

Batch, image and channels are those of the small VGG for CIFAR (32x32, batch 16, width 1 where they
are not what changes). The slope is the exponent p of ``time ~ size^p``: of the work itself it is 1
for the batch, 2 for the image's side and close to 2 for the channels. Threads are compared on
larger networks, by the speed over one thread. PyTorch runs beside it with channels-last tensors
and kept memory, in most cases its best variant.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import bound
import common
import networks
import train
import worker
from networks import NETWORKS, Network
from report import Report, Table

BASE = replace(NETWORKS["cifar_vgg"], batch=16)
THREADED = ("resnet20", "resnet18", "resnet50", "vgg16")
FASTCONV, TORCH = "fastconv", "torch"


@dataclass(frozen=True)
class Axis:
    """What changes: the sizes, and the field of `Network` that takes them."""

    name: str
    field: str
    sizes: tuple[float, ...]
    work: float  # the exponent of the multiply-adds

    def networks(self, quick: bool) -> list[tuple[float, Network]]:
        sizes = self.sizes[:2] if quick else self.sizes
        base = replace(BASE, batch=2, width=0.25) if quick else BASE
        return [(size, replace(base, **{self.field: size})) for size in sizes]


AXES = [
    Axis("batch", "batch", (1, 2, 4, 8, 16, 32, 64, 128), 1),
    Axis("image", "size", (16, 32, 64, 128), 2),
    Axis("channels", "width", (0.25, 0.5, 1, 2, 4), 2),
]


def sides(threads: Iterable[int]) -> dict[str, dict[str, Any]]:
    """fastconv and PyTorch's usual best with each of these numbers of threads."""
    found: dict[str, dict[str, Any]] = {}
    for count in threads:
        found[f"{FASTCONV} {count}"] = {"side": train.FastconvTraining, "threads": count}
        if common.installed("torch"):
            found[f"{TORCH} {count}"] = {
                "side": train.TorchTraining, "threads": count, "channels_last": True,
                "keep_memory": True,
            }  # fmt: skip
    return found


def time_axis(axis: Axis, args: argparse.Namespace) -> dict[str, Any]:
    """Times by side at each size, and the slopes."""
    points = []
    with worker.started(sides([args.threads])) as workers:
        for size, net in axis.networks(args.quick):
            facts = train.prepared(net, workers)
            times, _ = worker.take_turns(workers, args.rounds)
            work = bound.gflop(facts["kernels"])
            points.append({"size": size, "gflop": work, "times": worker.as_json(times)})
    slopes = {
        name: common.slope([(p["size"], p["times"][name]["median"]) for p in points])
        for name in points[0]["times"]
    }
    slopes["work"] = common.slope([(p["size"], p["gflop"]) for p in points])
    return {"axis": axis.name, "points": points, "slopes": slopes}


def time_threads(net: Network, args: argparse.Namespace) -> dict[str, Any]:
    """Times by side and number of threads: 1, 2, 4 … as many as asked for."""
    counts = sorted({*(2**i for i in range(8) if 2**i < args.threads), args.threads})
    with worker.started(sides(counts)) as workers:
        train.prepared(net, workers)
        times, _ = worker.take_turns(workers, args.rounds)
    return {"network": net.name, "threads": counts, "times": worker.as_json(times)}


def run(args: argparse.Namespace) -> Report:
    """Time the chosen axes; "threads" is one of them."""
    foreign = common.Foreign()
    axes, failed = common.each(
        [axis for axis in AXES if common.chosen(axis.name, args.only)],
        lambda axis: time_axis(axis, args),
    )
    chosen = [NETWORKS[n] for n in THREADED if common.chosen(f"threads {n}", args.only)]
    if args.quick:
        chosen = [networks.quick(net) for net in chosen[:1]]
    rows, failed_too = common.each(chosen, lambda net: time_threads(net, args))
    tables = [axis_table(axis, args.threads) for axis in axes]
    if rows:
        tables.append(threads_table(rows))
    return Report(
        "scaling",
        f"Scaling, {args.threads} threads",
        tables=tables,
        notes=[
            f"A training step of the small VGG for CIFAR ({BASE.size}x{BASE.size}, batch "
            f"{BASE.batch}) where nothing else is said. Slopes are exponents, by least squares.",
            *failed, *failed_too, *foreign.notes(),
        ],
        data={"axes": axes, "threads": rows, "foreign_cpus": foreign.cpus()},
    )  # fmt: skip


def axis_table(axis: dict[str, Any], threads: int) -> Table:
    names = [name for name in (f"{FASTCONV} {threads}", f"{TORCH} {threads}")
             if name in axis["slopes"]]  # fmt: skip
    lines = []
    for point in axis["points"]:
        medians = [point["times"][name]["median"] for name in names]
        rates = [f"{point['gflop'] / median:.0f}" for median in medians]
        ratio = common.ratio(medians[1] / medians[0]) if len(medians) > 1 else "-"
        lines.append([f"{point['size']:g}", *map(common.ms, medians), *rates, ratio])
    slopes = [f"{axis['slopes'][name]:.2f}" for name in names]
    lines.append(["slope", *slopes, *[f"work {axis['slopes']['work']:.2f}"] * len(names), "-"])
    sides = [name.rsplit(" ", 1)[0] for name in names]
    units = [f"{side} {unit}" for unit in ("ms", "GFLOP/s") for side in sides]
    header = [axis["axis"], *units, "x torch"]
    return Table(f"Cost against {axis['axis']}", header, lines)


def threads_table(rows: list[dict[str, Any]]) -> Table:
    counts = rows[0]["threads"]
    lines = []
    for row in rows:
        for side in (FASTCONV, TORCH):
            if f"{side} 1" not in row["times"]:
                continue
            medians = [row["times"][f"{side} {count}"]["median"] for count in counts]
            over = [f"{medians[0] / median:.2f}" for median in medians[1:]]
            lines.append([f"{row['network']}, {side}", *map(common.ms, medians), *over])
    threads = [f"{count} threads, ms" for count in counts]
    header = ["network", *threads, *(f"{count} over 1" for count in counts[1:])]
    return Table("Speed against threads", header, lines)

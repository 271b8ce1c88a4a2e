"""Where the time of a batch goes, and how near each step comes to this machine's limits.

A step can go no faster than its arithmetic at the peak of multiply-adds, and no faster than its
bytes from memory: the longer of the two is its *bound*, and bound / time is its share of what is
possible (Williams, Waterman and Patterson 2009 draw it as a roof). Both limits are measured here,
on the threads and with the kernels in use. Bytes are those that must move: whatever a step reads
and writes, once, its own scratch aside. What still lies in a cache moves faster than that, so small
networks pass the limit of memory.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv._native import dispatch, peak
from fastconv._native.step import Step
from fastconv.files import replacing
from fastconv.plan import Origin, Plan, RunningPass
from fastconv.tables import RULE, html_table, table

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

    from fastconv.model import Model

WARM_UP = 3  # runs before any is counted


@dataclass(frozen=True)
class Peaks:
    """What this machine can do: ``flops`` and ``bytes`` per second, on ``threads`` threads."""

    isa: str
    threads: int
    flops: float
    bytes: float

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"{self.isa}, {threads}: {self.flops / 1e9:.0f} GFLOP/s of multiply-adds, "
            f"{self.bytes / 1e9:.0f} GB/s of memory"
        )


_best: dict[tuple[str, int], Peaks] = {}  # by kernel table and threads, in this process


def peaks(double: bool = False, again: bool = False) -> Peaks:
    """The limits with the kernel table and threads in use, measured once per process (0.3 s).

    ``again`` measures once more: the better one counts from then on, for what disturbs a
    measurement only ever makes it slower.
    """
    key = ("reference_f64" if double else dispatch.isa(), dispatch.num_threads())
    before = _best.get(key)
    if before is None or again:
        flops, moved = peak.flops_per_second(double), peak.bytes_per_second(double)
        if before is not None:
            flops, moved = max(flops, before.flops), max(moved, before.bytes)
        _best[key] = Peaks(*key, flops, moved)
    return _best[key]


@dataclass(frozen=True)
class Row:
    """Some steps of one layer in one direction.

    Attributes
    ----------
    layer : str
        The layer's name; "input", "loss" and "optimizer" for what belongs to none.
    direction : str
        "forward", "backward", "forward again" (of layers that are recomputed), "loss", "read" (rows
        of the data into the pass) or "update".
    step : str
        What is done, in words; several where steps were added up.
    algorithm : str
        How, where there is a choice ("direct", "winograd").
    seconds, bound : float
        The time; the least that the machine's limits allow.
    flops, bytes : float
        Arithmetic of matrix products as the algorithm has it; bytes that must move.
    """

    layer: str
    direction: str
    step: str
    algorithm: str
    seconds: float
    bound: float
    flops: float
    bytes: float

    @property
    def share(self) -> float:
        """Of what the machine could do at best."""
        return self.bound / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        speed = 1 / self.seconds if self.seconds else 0.0
        return {
            "layer": self.layer,
            "direction": self.direction,
            "step": self.step,
            "algorithm": self.algorithm,
            "ms": 1e3 * self.seconds,
            "bound_ms": 1e3 * self.bound,
            "share": self.share,
            "flops": self.flops,
            "bytes": self.bytes,
            "gflops_per_s": 1e-9 * self.flops * speed,
            "gbytes_per_s": 1e-9 * self.bytes * speed,
        }


@dataclass(frozen=True, repr=False)
class Profile:
    """The times of one batch; prints as a table of layers and directions.

    Attributes
    ----------
    name : str
    batch_size : int
    training : bool
    peaks : Peaks
    steps : list of Row
        In the order in which they run.
    """

    name: str
    batch_size: int
    training: bool
    peaks: Peaks
    steps: list[Row]

    @property
    def layers(self) -> list[Row]:
        """The steps added up by layer and direction, layer by layer in the order of forward."""
        first = list(dict.fromkeys(row.layer for row in self.steps))
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.steps:
            groups.setdefault((row.layer, row.direction), []).append(row)
        rows = [_sum(group) for group in groups.values()]
        return sorted(rows, key=lambda row: first.index(row.layer))

    @property
    def total(self) -> Row:
        """All steps added up."""
        return replace(_sum(self.steps), layer="total", direction="", step="", algorithm="")

    def table(self, steps: bool = False) -> str:
        """The times as text; with ``steps`` a line for each step instead of each direction."""
        header, rows, last = self._cells(steps)
        return "\n".join([*self._title, "", *table(header, [*rows, RULE, last])])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table."""
        header, rows, last = self._cells(steps=False)
        return html_table("\n".join(self._title), header, [*rows, last])

    @property
    def _title(self) -> list[str]:
        purpose = "training step" if self.training else "inference"
        return [
            f"Profile of {self.name}, {purpose} with a batch of {self.batch_size}",
            f"{self.peaks}",
        ]

    def _cells(self, steps: bool) -> tuple[list[str], list[list[str]], list[str]]:
        """Header, rows and the total of `table`."""
        rows, whole = (self.steps if steps else self.layers), self.total
        header = ["layer", "direction", *(["step"] if steps else []), "algorithm", "ms", "%"]
        header += ["GFLOP/s", "GB/s", "of peak"]

        def cells(row: Row) -> list[str]:
            d = row.to_dict()
            memory = row.bytes / self.peaks.bytes >= row.flops / self.peaks.flops
            return [
                row.layer, row.direction, *([row.step] if steps else []), row.algorithm,
                f"{d['ms']:.3f}", f"{100 * row.seconds / whole.seconds:.1f}",
                f"{d['gflops_per_s']:.1f}" if row.flops else "", f"{d['gbytes_per_s']:.1f}",
                f"{100 * row.share:.0f} %" + (" memory" if memory else " FMA"),
            ]  # fmt: skip

        last = cells(whole)
        last[-1] = f"{100 * whole.share:.0f} %"
        return header, list(map(cells, rows)), last

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def to_json(self) -> str:
        """Everything, as JSON: the machine's limits, the total, a record per step."""
        return json.dumps(
            {
                "name": self.name,
                "batch_size": self.batch_size,
                "training": self.training,
                "isa": self.peaks.isa,
                "threads": self.peaks.threads,
                "peak_gflops_per_s": 1e-9 * self.peaks.flops,
                "peak_gbytes_per_s": 1e-9 * self.peaks.bytes,
                "total": self.total.to_dict(),
                "steps": [row.to_dict() for row in self.steps],
            },
            indent=1,
        )

    def plot(self, figure: "FigureBase | None" = None) -> "FigureBase":
        """The roofline: each step's speed over its arithmetic per byte, below the machine's roof.

        Needs matplotlib (``pip install 'fastconv[viz]'``).
        """
        from fastconv.plots import plot_roofline

        return plot_roofline(self, figure)

    def save_png(self, path: str | PathLike[str]) -> None:
        """Write `plot`'s picture to a file."""
        figure: Any = self.plot()
        with replacing(Path(path)) as file:
            figure.savefig(file, format="png", dpi=130)


def _sum(rows: Sequence[Row]) -> Row:
    def words(field: Callable[[Row], str]) -> str:
        return ", ".join(dict.fromkeys(filter(None, map(field, rows))))

    return Row(
        rows[0].layer,
        rows[0].direction,
        words(lambda row: row.step),
        words(lambda row: row.algorithm),
        *(sum(getattr(row, key) for row in rows) for key in ("seconds", "bound", "flops", "bytes")),
    )


# -- measuring --------------------------------------------------------------------------------


def profile(
    model: "Model", x: list[np.ndarray], y: list[np.ndarray] | None, n: int, repeat: int
) -> Profile:
    """Time the passes of one batch; `Model.profile` has the arguments checked and the lock."""
    if y is None:
        plan, _ = model._plan("predict", x)
        peaks(plan.double)  # and again after the runs: one of the two may fall into a busy moment
        running = plan.borrow(n)
        try:
            return _inference(model, plan, running, x, n, repeat)
        finally:
            plan.give_back(running)
    optimizer = model.optimizer
    trained = model._trainable()
    optimizer.build(trained)
    plan, heads = model._plan("fit", x)
    peaks(plan.double)
    changed = [p.value for p in model.parameters()] + [p.grad for p in trained]
    changed += list(optimizer.variables(trained).values())
    before = [array.copy() for array in changed]
    iterations = optimizer.iterations
    running = plan.borrow(n)
    try:
        return _training(model, plan, heads, running, [*x, *(a[:n] for a in y)], n, repeat)
    finally:
        plan.give_back(running)
        for array, value in zip(changed, before, strict=True):
            array[...] = value
        optimizer.iterations = iterations


def _inference(
    model: "Model", plan: Plan, running: RunningPass, x: list[np.ndarray], n: int, repeat: int
) -> Profile:
    times = np.empty((repeat, 1 + len(plan.forward)))
    for row in _rounds(times):
        row[0] = _read(running, plan.inputs, x, n)
        running.forward(n, seconds=row[1:])
    read = Row("input", "read", "read rows", "", 0, 0, 0, _read_bytes(running, plan.inputs, x, n))
    return _profile(model, plan, n, times, [read], [])


def _training(
    model: "Model", plan: Plan, heads: Any, running: RunningPass, arrays: list[np.ndarray], n: int,
    repeat: int,
) -> Profile:  # fmt: skip
    optimizer, forward, backward = model.optimizer, len(plan.forward), len(plan.backward)
    entries = [*plan.inputs, *heads.targets]
    times = np.empty((repeat, forward + backward + 2))
    for row in _rounds(times):
        row[0] = _read(running, entries, arrays, n)
        running.forward(n, model.seed, optimizer.iterations, row[1 : 1 + forward])
        running.backward(seconds=row[1 + forward : -1])
        start = perf_counter()
        optimizer.apply()
        row[-1] = perf_counter() - start
    states = len(optimizer.states)
    numbers = sum(p.value.nbytes for p in model._trainable())
    moved = _read_bytes(running, entries, arrays, n)
    read = Row("input", "read", "read rows", "", 0, 0, 0, moved)
    # read: values, gradients, states; written: values, states
    update = Row("optimizer", "update", optimizer.name, "", 0, 0, 0, (3 + 2 * states) * numbers)
    return _profile(model, plan, n, times, [read], [update])


def _rounds(times: np.ndarray) -> Iterable[np.ndarray]:
    """The rows of ``times``, the first one several times."""
    yield from (times[0] for _ in range(WARM_UP))
    yield from times


def _read(running: RunningPass, entries: Sequence[Any], arrays: list[np.ndarray], n: int) -> float:
    start = perf_counter()
    for entry, rows in zip(entries, arrays, strict=True):
        running.read(entry, rows, None, n)
    return perf_counter() - start


def _read_bytes(
    running: RunningPass, entries: Sequence[Any], arrays: list[np.ndarray], n: int
) -> int:
    written = sum(
        entry.value.pixels
        * entry.value.channels
        * (4 if entry.labels else running.native.dtype.itemsize)
        for entry in entries
    )
    return n * written + sum(rows[:n].nbytes for rows in arrays)


def _profile(
    model: "Model", plan: Plan, n: int, times: np.ndarray, before: list[Row], after: list[Row]
) -> Profile:
    """Medians of the times, beside what each step has to do."""
    limits = peaks(plan.double, again=True)
    steps = [*plan.forward.steps, *plan.backward.steps]
    body = [_row(plan, step, origin, n) for step, origin in zip(steps, plan.origins, strict=True)]
    rows = [
        replace(
            row,
            seconds=float(seconds),
            bound=max(row.flops / limits.flops, row.bytes / limits.bytes),
        )
        for row, seconds in zip([*before, *body, *after], np.median(times, axis=0), strict=True)
    ]
    return Profile(model.name, n, plan.training, limits, rows)


def _row(plan: Plan, step: Step, origin: Origin, n: int) -> Row:
    real = 8 if plan.double else 4
    moved = sum(
        (extent.fixed + n * extent.per_sample) * (extent.itemsize or real)
        for extent in (*step.reads, *step.writes)
        if not plan.scratch(extent.slot)
    )
    return Row(
        origin.layer, origin.direction, step.title, step.algorithm, 0.0, 0.0, step.flops(n), moved
    )

"""What the benchmarks share: shape files, interleaved timing, what is known of the machine.

Two things make a comparison in one process honest. The candidates are timed in turns, round by
round, so that a slow minute of the machine hits all of them. And between two candidates there is a
pause: an OpenMP runtime lets its idle threads spin for some milliseconds, and every library brings
its own runtime, so without the pause each would be timed against the other's spinning threads.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import exp, log, prod
from pathlib import Path
from typing import Any

SHAPES = Path(__file__).with_name("shapes")
PAUSE = 0.02  # seconds between two candidates; idle OpenMP threads sleep after a few milliseconds
SAMPLE = 0.02  # seconds: a sample repeats a short call until it lasts about so long

# glibc keeps what is freed instead of giving it back to the system after every large tensor. The
# first dozen aligned allocations still take new memory, because the small pieces that they cut off
# stay in the thread's cache until it is full: hence more calls to warm up.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
WARM_UP, WARM_UP_KEPT = 2, 12  # calls before anything is timed


# -- shape files ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """One line of a shape file: ``name kind input [what] [option value]…`` (see README.md)."""

    network: str
    name: str
    kind: str  # conv, dense, maxpool, avgpool, batchnorm
    size: tuple[int, ...]  # one sample: (H, W, C), or (features,) of dense
    filters: int = 0  # of conv; units of dense
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pad: int = 0
    dilation: int = 1
    groups: int = 1
    batch: int = 1

    @property
    def channels(self) -> int:
        return self.size[-1]

    @property
    def out(self) -> tuple[int, ...]:
        """One sample's output shape."""
        if self.kind == "batchnorm":
            return self.size
        if self.kind == "dense":
            return (self.filters,)
        reach = [(k - 1) * self.dilation + 1 for k in self.kernel]
        spatial = (
            (s + 2 * self.pad - r) // self.stride + 1
            for s, r in zip(self.size[:2], reach, strict=True)
        )
        return (*spatial, self.filters or self.channels)

    @property
    def weight(self) -> tuple[int, ...]:
        """The weight's shape as fastconv has it: (KH, KW, IC / groups, OC) or (inputs, units)."""
        if self.kind == "dense":
            return (self.channels, self.filters)
        return (*self.kernel, self.channels // self.groups, self.filters)

    @property
    def gflop(self) -> float:
        """Multiplications and additions of one direction over the batch; 0 where memory decides."""
        if self.kind not in ("conv", "dense"):
            return 0.0
        return 2e-9 * self.batch * prod(self.out[:-1]) * prod(self.weight)

    def gbytes(self, direction: str) -> float:
        """What a layer without products must at least read and write: x and y, or x, dy and dx."""
        whole, made = prod(self.size), prod(self.out)
        values = whole + made if direction == "forward" or self.kind == "avgpool" else 2 * whole
        if self.kind == "batchnorm" and direction != "forward":
            values += made
        return 4e-9 * self.batch * values

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        if self.kind == "batchnorm":
            return f"{self.name} {size}"
        if self.kind == "dense":
            return f"{self.name} {size}>{self.filters}"
        what = "x".join(map(str, self.kernel)) + (f"/{self.stride}" if self.stride > 1 else "")
        grouped = f" g{self.groups}" if self.groups > 1 else ""
        return f"{self.name} {what} {size}" + (f">{self.filters}{grouped}" if self.filters else "")


def read_shapes(network: str) -> list[Shape]:
    """The layers of ``shapes/<network>.txt``; a ValueError names the line that is wrong."""
    shapes, batch = [], 1
    for number, line in enumerate((SHAPES / f"{network}.txt").read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        try:
            if words[:1] == ["batch"]:
                batch = int(words[1])
            elif words:
                shapes.append(parse_shape(network, words, batch))
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"shapes/{network}.txt, line {number}: {line!r} ({error})") from error
    return shapes


def parse_shape(network: str, words: list[str], batch: int) -> Shape:
    name, kind, size, *rest = words
    known: dict[str, Any] = {"size": numbers(size), "batch": batch}
    if kind == "conv":
        filters, kernel = rest.pop(0).split("@")
        known |= {"filters": int(filters), "kernel": numbers(kernel)}
    elif kind == "dense":
        known["filters"] = int(rest.pop(0))
    elif kind in ("maxpool", "avgpool"):
        known["kernel"] = numbers(rest.pop(0))
    elif kind != "batchnorm":
        raise ValueError(f"{kind!r} is no kind of layer")
    for option, value in zip(rest[::2], rest[1::2], strict=True):
        if option not in ("stride", "pad", "dilation", "groups", "batch"):
            raise ValueError(f"{option!r} is no option")
        known[option] = int(value)
    return Shape(network, name, kind, **known)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split("x"))


def networks() -> list[str]:
    """The names of all shape files."""
    return sorted(path.stem for path in SHAPES.glob("*.txt"))


# -- timing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over the rounds; ``spread`` is the interquartile range by the median."""

    median: float
    min: float
    spread: float
    calls: int  # in one sample
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: list[float], calls: int = 1) -> "Timing":
        median = statistics.median(samples)
        low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
        return cls(median, min(samples), (high - low) / median, calls, tuple(samples))


def interleave(
    candidates: dict[str, Callable[[], object]], rounds: int, sample: float = SAMPLE
) -> dict[str, Timing]:
    """Time the candidates in turns.

    A candidate's turn is a pause, one call that is not timed (it wakes the threads and fetches the
    data into the caches again), and then as many calls as fill ``sample`` seconds. The order
    within a round moves on by one from round to round.
    """
    calls = {}
    for name, call in candidates.items():
        seconds(call, WARM_UP_KEPT if memory_is_kept() else WARM_UP)
        calls[name] = max(1, min(10_000, round(sample / seconds(call, 1))))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds):
        for name in order:
            time.sleep(PAUSE)
            candidates[name]()
            samples[name].append(seconds(candidates[name], calls[name]))
        order.append(order.pop(0))
    return {name: Timing.of(samples[name], calls[name]) for name in candidates}


def seconds(call: Callable[[], object], count: int) -> float:
    """Seconds per call of ``count`` calls in a row."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def speedup(times: dict[str, Timing], name: str = "fastconv") -> float | None:
    """How often ``name`` is faster than the best of the others: the ratio of the medians."""
    others = [t.median for key, t in times.items() if key != name]
    return min(others) / times[name].median if name in times and others else None


def as_json(times: dict[str, Timing]) -> dict[str, Any]:
    return {name: asdict(timing) for name, timing in times.items()}


def geometric_mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


# -- the machine ------------------------------------------------------------------------------


def machine(threads: int) -> dict[str, Any]:
    """What a reader of the numbers must know: `fastconv.show_config`, PyTorch's build, settings."""
    from fastconv.config import config_info

    torch = optional_torch()
    return {
        **config_info(),
        "torch": torch and torch.__version__,
        "torch_build": torch and torch.__config__.show(),
        "threads_asked": threads,
        "memory_kept": memory_is_kept(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def memory_is_kept() -> bool:
    return all(os.environ.get(name) == value for name, value in KEEP_MEMORY.items())


def optional_torch() -> Any:
    """PyTorch where it is installed, else None: the benchmarks then time fastconv alone."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def set_threads(threads: int) -> None:
    """The same number of threads for both sides. The affinity is left as it is."""
    # PyTorch first: where both find one libgomp, whoever loads it decides how long its threads spin
    torch = optional_torch()
    import fastconv

    fastconv.set_num_threads(threads)
    if torch is not None:
        torch.set_num_threads(threads)


class Foreign:
    """How many CPUs other processes kept busy since this object was made (Linux; else None)."""

    def __init__(self) -> None:
        self.start = self.read()

    @staticmethod
    def read() -> tuple[float, float] | None:
        """CPU seconds of all other processes, and the clock."""
        try:
            words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _idle, _wait, irq, softirq = map(int, words[:7])
        busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return busy - mine, time.perf_counter()

    def cpus(self) -> float | None:
        now = self.read()
        if now is None or self.start is None:
            return None
        return max(0.0, (now[0] - self.start[0]) / (now[1] - self.start[1]))

    def report(self) -> float | None:
        """`cpus`, with a word on the screen where it spoils the numbers above."""
        cpus = self.cpus()
        if cpus is not None and cpus > 0.1:
            print(f"NOTE: other processes kept {cpus:.1f} CPUs busy: do not trust these times")
        return cpus


# -- tables -----------------------------------------------------------------------------------


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *rest]))
    return "\n".join(lines)


def ms(value: float) -> str:
    """Seconds as milliseconds with three digits that count."""
    value *= 1e3
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


# -- the command line -------------------------------------------------------------------------


def parser(doc: str) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    from fastconv._native import dispatch

    options = argparse.ArgumentParser(
        description=doc.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--threads", type=int, default=dispatch.default_num_threads()[0])
    options.add_argument("--rounds", type=int, default=15, help="timed rounds; medians are shown")
    options.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    options.add_argument(
        "--keep-memory", action="store_true",
        help="tell glibc to keep freed memory: spares PyTorch the page faults of its new tensors",
    )  # fmt: skip
    return options


def prepare(args: argparse.Namespace) -> None:
    """Set the threads; start again where the memory allocator must be told something first."""
    if args.keep_memory and not memory_is_kept():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})
    set_threads(args.threads)


def write_json(args: argparse.Namespace, results: dict[str, Any]) -> None:
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine(args.threads), **results}, indent=1)
        args.json.write_text(text + "\n")
        print(f"written: {args.json}")

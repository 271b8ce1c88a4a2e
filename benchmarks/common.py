"""What the benchmarks share: shape files, what is known of the machine, the command line."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import exp, log, prod
from pathlib import Path
from typing import Any

SHAPES = Path(__file__).with_name("shapes")
RESULTS = Path(__file__).with_name("results")
PEERS = ("torch", "onnxruntime")


# kinds of layers in the shape files
PRODUCTS = ("conv", "depthwise", "transposed", "dense")
POOLS = ("maxpool", "avgpool")
SAME = ("batchnorm", "normrelu", "add", "addrelu", "optimizer")  # the output has the input's shape
# numbers that an update reads and writes per parameter
OPTIMIZERS = {"sgd": 3, "momentum": 5, "adam": 7, "adadelta": 7}


# -- shape files ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """One line of a shape file: ``name kind input [what] [option value]…`` (see README.md)."""

    network: str
    name: str
    kind: str  # see `KINDS`
    size: tuple[int, ...]  # one sample: (H, W, C), (features,) of dense, (parameters,) of optimizer
    filters: int = 0  # of conv and transposed; units of dense
    kernel: tuple[int, ...] = (1, 1)
    stride: int = 1
    pad: int = 0
    dilation: int = 1
    groups: int = 1
    batch: int = 1
    rule: str = ""  # of optimizer: one of `OPTIMIZERS`

    @property
    def channels(self) -> int:
        return self.size[-1]

    @property
    def out(self) -> tuple[int, ...]:
        """One sample's output shape."""
        if self.kind in SAME:
            return self.size
        if self.kind == "dense":
            return (self.filters,)
        if self.kind == "transposed":
            spatial = ((s - 1) * self.stride + k - 2 * self.pad for s, k in self._axes)
        else:
            spatial = (
                (s + 2 * self.pad - (k - 1) * self.dilation - 1) // self.stride + 1
                for s, k in self._axes
            )
        return (*spatial, self.filters or self.channels)

    @property
    def _axes(self) -> list[tuple[int, int]]:
        return list(zip(self.size[:2], self.kernel, strict=True))

    @property
    def weight(self) -> tuple[int, ...]:
        """The weight's shape as fastconv has it (those of Keras)."""
        if self.kind == "dense":
            return (self.channels, self.filters)
        if self.kind == "depthwise":
            return (*self.kernel, self.channels, 1)
        if self.kind == "transposed":
            return (*self.kernel, self.filters, self.channels)
        return (*self.kernel, self.channels // self.groups, self.filters)

    @property
    def gflop(self) -> float:
        """Multiplications and additions of one direction over the batch by the direct algorithm;
        0 for layers without products."""
        if self.kind not in PRODUCTS:
            return 0.0
        pixels = prod((self.size if self.kind == "transposed" else self.out)[:-1])
        return 2e-9 * self.batch * pixels * prod(self.weight)

    def gbytes(self, direction: str) -> float:
        """What must at least be read and written, see README.md."""
        x, y = self.batch * prod(self.size), self.batch * prod(self.out)
        forward = direction == "forward"
        if self.kind in PRODUCTS:
            values: float = x + y + prod(self.weight)
        elif self.kind == "optimizer":
            values = OPTIMIZERS[self.rule] * prod(self.size)
        elif self.kind in ("batchnorm", "normrelu"):  # x (and dy) twice: first for the sums
            values = 3 * x if forward else 5 * x
        elif self.kind in ("add", "addrelu"):
            values = 3 * x
        else:
            values = x + y + (y / 4 if self.kind == "maxpool" else 0)  # a byte per maximum
        return 4e-9 * values

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        if self.kind == "optimizer":
            return f"{self.name} {self.rule} {size}"
        if self.kind in SAME:
            return f"{self.name} {self.kind} {size}"
        if self.kind == "dense":
            return f"{self.name} {size}>{self.filters}"
        what = "x".join(map(str, self.kernel)) + (f"/{self.stride}" if self.stride > 1 else "")
        what += {"transposed": " transposed", "depthwise": " depthwise"}.get(self.kind, "")
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
    if kind in ("conv", "transposed"):
        filters, kernel = rest.pop(0).split("@")
        known |= {"filters": int(filters), "kernel": numbers(kernel)}
    elif kind == "dense":
        known["filters"] = int(rest.pop(0))
    elif kind in (*POOLS, "depthwise"):
        known["kernel"] = numbers(rest.pop(0))
    elif kind == "optimizer":
        known |= {"rule": rest.pop(0), "batch": 1}
        if known["rule"] not in OPTIMIZERS:
            raise ValueError(f"{known['rule']!r} is no optimizer")
    elif kind not in SAME:
        raise ValueError(f"{kind!r} is no kind of layer")
    for option, value in zip(rest[::2], rest[1::2], strict=True):
        if option not in ("stride", "pad", "dilation", "groups", "batch"):
            raise ValueError(f"{option!r} is no option")
        known[option] = int(value)
    return Shape(network, name, kind, **known)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split("x"))


def shape_files() -> list[str]:
    """The names of all shape files."""
    return sorted(path.stem for path in SHAPES.glob("*.txt"))


def read_all(args: argparse.Namespace) -> list[Shape]:
    """The layers of ``--only``, every shape once; small ones with ``--quick``."""
    found: dict[tuple, Shape] = {}
    for name in shape_files():
        for shape in read_shapes(name):
            if chosen(f"{shape.network} {shape.kind} {shape}", args.only):
                found.setdefault(astuple(shape)[2:], shape)
    return [small(shape) for shape in found.values()] if args.quick else list(found.values())


def small(shape: Shape) -> Shape:
    """The same layer with few channels and a small map."""

    def few(n: int) -> int:
        return min(n, 16)

    spatial = [min(size, 24) for size in shape.size[:-1]]
    width = 4096 if shape.kind == "optimizer" else few(shape.channels)
    return replace(
        shape, size=(*spatial, width), filters=few(shape.filters), groups=few(shape.groups),
        batch=min(shape.batch, 2),
    )  # fmt: skip


# -- numbers ------------------------------------------------------------------------------------


def geometric_mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def slope(points: list[tuple[float, float]]) -> float:
    """The exponent p of ``y ~ x^p``: least squares through the logarithms."""
    logs = [(log(x), log(y)) for x, y in points]
    mx, my = (sum(axis) / len(logs) for axis in zip(*logs, strict=True))
    return sum((x - mx) * (y - my) for x, y in logs) / sum((x - mx) ** 2 for x, _ in logs)


def ms(seconds: float) -> str:
    """Seconds as milliseconds with three digits that count."""
    value = 1e3 * seconds
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def ratio(value: float | None) -> str:
    return f"{value:.2f}" if value else "-"


def percent(share: float) -> str:
    return f"{100 * share:.0f}"


# -- the machine --------------------------------------------------------------------------------


def installed(package: str) -> bool:
    """Whether a peer can be timed; it is not imported here, only in its own process."""
    return find_spec(package) is not None


def machine(threads: int) -> dict[str, Any]:
    """What a reader of the numbers must know: `fastconv.show_config`, the peers, the settings."""
    from fastconv.config import config_info

    return {
        **config_info(),
        **{name: _version(name) for name in PEERS},
        "libc": "-".join(platform.libc_ver()),
        "threads_asked": threads,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class Foreign:
    """How many CPUs other processes kept busy since this object was made (Linux; else None).

    Workers count as our own once they have ended.
    """

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

    def notes(self) -> list[str]:
        """A sentence for the report where other work spoils the numbers."""
        cpus = self.cpus()
        if cpus is None or cpus <= 0.1:
            return []
        return [f"**Other processes kept {cpus:.1f} CPUs busy meanwhile: do not trust the times.**"]


# -- rows ---------------------------------------------------------------------------------------


def each(items: Iterable[Any], measure: Callable[[Any], Any]) -> tuple[list[Any], list[str]]:
    """What ``measure`` says of every item with a ``name``; where one fails the others go on.

    Returns
    -------
    rows : list
    failed : list of str
        A sentence for the report each.
    """
    rows, failed = [], []
    for item in items:
        try:
            rows.append(measure(item))
            print(f"  {item.name}: done", flush=True)
        except RuntimeError as error:
            print(f"  {item.name}: {error}", flush=True)
            failed.append(f"{item.name} failed: {str(error).strip().splitlines()[-1]}")
    return rows, failed


# -- the command line ---------------------------------------------------------------------------


def parser(doc: str) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    from fastconv import cpus

    options = argparse.ArgumentParser(
        description=doc.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = options.add_argument
    add("--threads", type=int, default=cpus.default_num_threads()[0])
    add("--rounds", type=int, help="timed rounds; medians are shown; a number of each part's own")
    add("--only", nargs="+", default=[], metavar="TEXT", help="rows with one of these in the name")
    add("--quick", action="store_true", help="tiny shapes, two rounds: to see that all of it runs")
    add("--json", type=Path, metavar="FILE", help="write all samples there")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there")
    add("--svg", type=Path, metavar="FILE", help="draw the ratios there")
    add(
        "--save", type=Path, nargs="?", const=RESULTS / time.strftime("%Y-%m-%d"), metavar="FOLDER",
        help="write PART.md and PART.svg of every part there, by default under results/DATE",
    )  # fmt: skip
    return options


def chosen(name: str, only: list[str]) -> bool:
    """Whether ``--only`` lets this row through."""
    return not only or any(text in name for text in only)


def write_json(path: Path, results: dict[str, Any]) -> None:
    text = json.dumps(results, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")

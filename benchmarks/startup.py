"""What it costs to begin: import time, resident memory after it, and installed size.

Every import runs in fresh processes, several times, after one that fills the file cache; the median
is shown. The installed size is that of the distribution and of all that it requires.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import common
from report import Report, Table

# what is imported, and the distribution whose size belongs to it
IMPORTS = {
    "nothing": ("", None),
    "numpy": ("import numpy", "numpy"),
    "fastconv": ("import fastconv", "fastconv"),
    "fastconv, ready to train": (
        "import fastconv; from fastconv import layers; fastconv.Sequential", None
    ),
    "torch": ("import torch", "torch"),
    "onnxruntime": ("import onnxruntime", "onnxruntime"),
}  # fmt: skip
PROBE = """
import json, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
try:
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    rss = int(lines["VmRSS"].split()[0]) * 1024
except OSError:
    import resource
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, rss]))
"""


def time_import(statement: str, rounds: int) -> tuple[list[float], list[int]]:
    """Seconds of the import and bytes resident after it, of fresh processes."""
    samples = []
    for _ in range(rounds + 1):
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(statement=statement)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        samples.append(json.loads(done.stdout))
    seconds, rss = zip(*samples[1:], strict=True)
    return list(seconds), list(rss)


def installed(name: str) -> tuple[int, int] | None:
    """Bytes and number of the distribution and all that it requires; None if it is not there."""
    waiting, sizes = [name], {}
    while waiting:
        one = waiting.pop().lower().replace("_", "-")
        if one in sizes:
            continue
        try:
            found = importlib.metadata.distribution(one)
        except importlib.metadata.PackageNotFoundError:
            if not sizes:
                return None
            continue  # for another system, or not needed here
        sizes[one] = size_of(found)
        for line in found.requires or []:
            if "extra ==" not in line:
                waiting.append(re.split(r"[^A-Za-z0-9._-]", line)[0])
    return sum(sizes.values()), len(sizes)


def size_of(distribution: importlib.metadata.Distribution) -> int:
    """Bytes of the files; of the package's folder where it is installed in place."""
    files = [Path(str(file.locate())) for file in distribution.files or []]
    found = importlib.util.find_spec(distribution.metadata["Name"].replace("-", "_"))
    if found is not None and found.submodule_search_locations:
        folder = Path(found.submodule_search_locations[0])
        if folder not in {file.parent for file in files}:
            files += folder.rglob("*")
    return sum(file.stat().st_size for file in set(files) if file.is_file())


def run(args: argparse.Namespace) -> Report:
    """Measure all that is installed."""
    rows, lines = [], []
    for name, (statement, distribution) in IMPORTS.items():
        missing = distribution and not common.installed(distribution)
        if missing or not common.chosen(name, args.only):
            continue
        seconds, rss = time_import(statement, args.rounds)
        size = installed(distribution) if distribution else None
        rows.append({"import": name, "seconds": seconds, "rss": rss, "installed": size})
        lines.append(
            [
                name, f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f}",
                f"{statistics.median(rss) / 1e6:.1f}",
                f"{size[0] / 1e6:.0f}" if size else "-", str(size[1]) if size else "-",
            ]
        )  # fmt: skip
        print(f"  {name}: done", flush=True)
    header = ["import", "s", "min", "RSS MB", "installed MB", "distributions"]
    return Report(
        "import",
        "Importing",
        tables=[Table("Fresh processes", header, lines)],
        notes=["The median of the rounds; resident memory after the import; the size of all files, "
               "with everything that is required."],
        data={"rows": rows},
    )  # fmt: skip

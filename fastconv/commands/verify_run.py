"""Run the first steps of a training script several times and compare the bits.

The script runs in processes of its own, as `python SCRIPT ARGUMENT …` would run it, and is stopped
after its first steps: those of `fit` or `train_on_batch`, and in a loop of its own every
`optimizer.apply`. Initial weights, batches and the weights after every step must be the same each
time, with every number of threads. The exit code is 1 where they are not, and the first place is
said.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastconv.commands._common import positive
from fastconv.tables import table

SUMMARY = "repeat the first steps of a training script and compare the bits"
EXAMPLES = """examples:
  fastconv verify-run train.py                        20 steps, twice with 1 thread, once with 2
  fastconv verify-run --steps 100 --threads 1,4 train.py
  fastconv verify-run train.py --epochs 3             what follows SCRIPT is the script's
"""
SHORT = 12  # characters of a fingerprint in the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps", type=positive, default=20, metavar="K", help="steps to compare (default: 20)"
    )
    parser.add_argument(
        "--threads", type=_counts, default=[1, 1, 2], metavar="N,N",
        help="a run with each of these numbers of threads (default: 1,1,2)",
    )  # fmt: skip
    parser.add_argument("script", metavar="SCRIPT", help="a Python script that trains")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="the script's")


def _counts(text: str) -> list[int]:
    return [positive(word) for word in text.split(",")]


def run(arguments: argparse.Namespace) -> int:
    script = Path(arguments.script)
    if not script.is_file():
        raise FileNotFoundError(f"{script}: no such script")
    counts = arguments.threads if len(arguments.threads) > 1 else arguments.threads * 2
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for number, threads in enumerate(counts):
            path = Path(folder, f"{number}.json")
            records.append(_record(path, arguments, threads))
            print(f"run {number + 1} of {len(counts)}, {threads} threads: "
                  f"{len(records[-1]) - 1} steps", flush=True)  # fmt: skip
    rows = [
        [str(i + 1), str(threads), r[0]["weights"][:SHORT], r[-1]["data"][:SHORT],
         r[-1]["weights"][:SHORT]]
        for i, (threads, r) in enumerate(zip(counts, records, strict=True))
    ]  # fmt: skip
    header = ["run", "threads", "weights at first", "batches", "weights at last"]
    print("\n" + "\n".join(table(header, rows)) + "\n")
    for number, record in enumerate(records[1:], 2):
        if words := _difference(records[0], record):
            print(f"fastconv: runs 1 and {number} differ: {words}", file=sys.stderr)
            return 1
    print(f"The same bits in {len(records)} runs of {len(records[0]) - 1} steps")
    return 0


def _record(path: Path, arguments: argparse.Namespace, threads: int) -> list[dict[str, Any]]:
    command = [
        sys.executable, "-m", "fastconv.commands._recorder", str(path), str(arguments.steps),
        arguments.script, *arguments.arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ValueError(f"{arguments.script} failed: {last[0]}")
    found: list[dict[str, Any]] = json.loads(path.read_text())
    if not found:
        raise ValueError(
            f"{arguments.script} makes no step that can be compared: it calls neither fit nor "
            "train_on_batch nor optimizer.apply"
        )
    return found


def _difference(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> str:
    """Where two runs part, in words; empty where they do not."""
    if a[0]["weights"] != b[0]["weights"]:
        return (
            "the weights, before the first step; call fastconv.set_random_seed before the model is "
            "made"
        )
    for step, (one, other) in enumerate(zip(a, b, strict=False)):
        if one["data"] != other["data"]:
            return (
                f"the batch of step {step}; shuffling follows fastconv.set_random_seed, what else "
                "is random in the data needs a seed of its own"
            )
        if one["weights"] != other["weights"]:
            names = [n for n, v in one["parameters"].items() if other["parameters"].get(n) != v]
            loss = f" (loss {one['loss']!r} and {other['loss']!r})" if one["loss"] else ""
            return (
                f"the weights after step {step}, from the same batches, first {names[0]}{loss}; is "
                "there a layer of your own, or a gradient, that draws random numbers?"
            )
    return "" if len(a) == len(b) else f"they have {len(a) - 1} and {len(b) - 1} steps"

"""What `fastconv.serving.Session.run` adds to onnxruntime's own `run`.

Both call the same session with the same arrays, in turns: a round times a few hundred calls of
each, and the order changes from round to round. What is asked for is at most 5 % + 20 µs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import networks
import numpy as np
from report import Report, Table

BATCHES = (1, 64)
NETWORKS = ("mnist", "resnet20")
SECONDS = 0.05  # of calls in a turn
SHARE, SECONDS_ALLOWED = 0.05, 20e-6


def turns(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of every task, a number per round; the tasks take turns."""
    calls = {}
    for name, task in tasks.items():
        task()
        start = time.perf_counter()
        task()
        calls[name] = max(1, int(SECONDS / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            task, count = tasks[name], calls[name]
            start = time.perf_counter()
            for _ in range(count):
                task()
            samples[name].append((time.perf_counter() - start) / count)
    return samples


def measure(network: networks.Network, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per batch size."""
    from fastconv.serving import Session

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        networks.fastconv_model(network).export(path)
        session = Session(path, "cpu", threads=args.threads)
        bare = session._session  # the very same, so that only the way to it differs
        (name,) = (info.name for info in session.inputs)
        names = [info.name for info in session.outputs]
        for batch in BATCHES:
            size = (batch, network.channels, network.size, network.size)
            feeds = {name: np.random.default_rng(0).random(size, np.float32)}
            tasks = {
                "bare": lambda feeds=feeds: bare.run(names, feeds),
                "session": lambda feeds=feeds: session.run(feeds),
                "predict": lambda feeds=feeds: session.predict(feeds),
            }
            samples = turns(tasks, args.rounds)
            # rounds are pairs: what disturbs one disturbs its neighbor
            pairs = zip(samples["bare"], samples["session"], strict=True)
            added = statistics.median(b - a for a, b in pairs)
            bare_time = statistics.median(samples["bare"])
            rows.append(
                {
                    "network": network.name,
                    "batch": batch,
                    "samples": samples,
                    "added": added,
                    "allowed": SHARE * bare_time + SECONDS_ALLOWED,
                }
            )
    return rows


def run(args: argparse.Namespace) -> Report:
    """Both networks, both batch sizes."""
    foreign = common.Foreign()
    nets = [networks.NETWORKS[name] for name in NETWORKS if common.chosen(name, args.only)]
    nets = [networks.quick(net) for net in nets] if args.quick else nets
    rows, lines = [], []
    for net in nets:
        rows += measure(net, args)
        print(f"  {net.name}: done", flush=True)
    for row in rows:
        times = {name: statistics.median(values) for name, values in row["samples"].items()}
        added, allowed = 1e6 * row["added"], 1e6 * row["allowed"]
        lines.append(
            [
                f"{row['network']}, batch {row['batch']}",
                *(f"{1e6 * times[name]:.1f}" for name in ("bare", "session", "predict")),
                f"{added:+.1f}", f"{allowed:.1f}", "yes" if added <= allowed else "NO",
            ]
        )  # fmt: skip
    header = ["", "bare µs", "session µs", "predict µs", "added µs", "allowed µs", "within"]
    return Report(
        "session",
        "A session beside bare onnxruntime",
        tables=[Table("Per call, CPU provider", header, lines)],
        notes=["Medians; added is that of the rounds' differences; allowed is 5 % + 20 µs.",
               *foreign.notes()],
        data={"rows": rows},
    )  # fmt: skip

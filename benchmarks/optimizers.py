"""Time the optimizers' fused pass over many parameters, in bytes.

The bytes are those that the formulas need: the weight, read and written, the gradient, read, each
state, read and written. A norm to clip to reads the gradients once more; a moving average of the
weights is one state more. They are divided by the time and compared with the triad of the same
machine (`peak`), measured before and after.

An update writes only what it has read. The triad writes an array that it has not read, whose lines
the processor fetches first: it moves four numbers where three are counted. The last column
therefore compares with 4/3 of the triad, what memory really carried.
"""

import argparse
import statistics
import time
from typing import Any

import common
import numpy as np
import peak
from report import Report, Table

from fastconv import optimizers, set_num_threads
from fastconv.parameter import Parameter

PARAMETERS = 25_000_000
WORD = 4  # bytes of float32
PER_CALL = 3  # updates between two looks at the clock

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("sgd", {}),
    "SGD, momentum": ("sgd", {"momentum": 0.9}),
    "SGD, Nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "Adam": ("adam", {}),
    "Adam, amsgrad": ("adam", {"amsgrad": True}),
    "AdamW": ("adamw", {}),
    "Adam, clipnorm": ("adam", {"clipnorm": 1.0}),
    "Adam, clipvalue": ("adam", {"clipvalue": 0.1}),
    "Adam, EMA": ("adam", {"use_ema": True}),
    "Nadam": ("nadam", {}),
    "Adamax": ("adamax", {}),
    "RMSprop": ("rmsprop", {}),
    "RMSprop, momentum, centered": ("rmsprop", {"momentum": 0.9, "centered": True}),
    "Adagrad": ("adagrad", {}),
    "Adadelta": ("adadelta", {}),
    "Lion": ("lion", {}),
}


def words(optimizer: optimizers.Optimizer) -> int:
    """Numbers that an update reads and writes for each parameter."""
    states = len(optimizer.states) + optimizer.use_ema
    clipped = optimizer.clipnorm is not None or optimizer.global_clipnorm is not None
    return 2 + 1 + 2 * states + clipped


def update_time(name: str, settings: dict[str, Any], size: int, rounds: int) -> dict[str, Any]:
    """Seconds of an update in every round."""
    rng = np.random.default_rng(0)
    parameter = Parameter("w", rng.standard_normal(size, np.float32))
    parameter.grad = rng.standard_normal(size, np.float32)
    optimizer = optimizers.get({"name": name, **settings})
    optimizer.build([parameter])
    optimizer.apply()  # touches every page
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(PER_CALL):
            optimizer.apply()
        seconds.append((time.perf_counter() - start) / PER_CALL)
    return {"seconds": seconds, "words": words(optimizer), "bytes": words(optimizer) * WORD * size}


def run(args: argparse.Namespace) -> Report:
    size = PARAMETERS // 250 if args.quick else PARAMETERS
    set_num_threads(args.threads)
    limits = [peak.measure_in_use(args.threads, args.rounds)["gbytes"]]
    rows = []
    for label, (name, settings) in RULES.items():
        if common.chosen(label, args.only):
            rows.append({"name": label, **update_time(name, settings, size, args.rounds)})
    limits.append(peak.measure_in_use(args.threads, args.rounds)["gbytes"])
    triad = max(limits)  # the harder of the two to reach
    for row in rows:
        row["gbytes"] = row["bytes"] / statistics.median(row["seconds"]) / 1e9
    table = Table(
        f"Updates of {size:,} parameters, {args.threads} threads; triad {triad:.1f} GB/s",
        ["optimizer", "numbers a parameter", "ms", "GB/s", "of the triad",
         "of 4/3 of it"],
        [
            [r["name"], str(r["words"]), f"{1e3 * statistics.median(r['seconds']):.1f}",
             f"{r['gbytes']:.1f}", f"{r['gbytes'] / triad:.2f}",
             f"{0.75 * r['gbytes'] / triad:.2f}"]
            for r in rows
        ],
    )  # fmt: skip
    return Report(
        "optimizers",
        "Optimizers",
        [table],
        notes=["The triad is the better of two, measured before and after; medians of updates."],
        data={"rows": rows, "triad": limits},
    )

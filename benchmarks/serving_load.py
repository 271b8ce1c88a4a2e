"""32 clients that ask without pause, beside a plain handler: starlette, onnxruntime, no batches.

The plain handler takes bare bytes and runs the network inline or in a thread pool; the better of
both counts. The clients share the machine with the server, as their cost is the same for all.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import networks
import numpy as np
import serving_client as client
from report import Report, Table

CLIENTS = 32
SECONDS = 20.0  # a round
QUESTIONS = 512
Side = tuple[list[str], str, str]  # command, path and form of the questions
Sides = Callable[[int], dict[str, Side]]  # by name, for a port
PLAIN = Path(__file__).with_name("serving_plain.py")


def sides(path: Path, port: int, threads: int) -> dict[str, Side]:
    """What is compared, by name."""
    serve = ["-m", "fastconv", "serve", str(path), "--device", "cpu", "--port", str(port),
             "--threads", str(threads)]  # fmt: skip
    infer = ("/v2/models/model/infer", "v2")
    plain = [str(PLAIN), str(path), str(port), str(threads)]
    return {
        "fastconv serve": (serve, *infer),
        "the same, batching off": ([*serve, "--max-batch", "1"], *infer),
        "plain handler, inline": ([*plain, "inline"], "/predict", "bare"),
        "plain handler, thread pool": ([*plain, "pool"], "/predict", "bare"),
    }


def measure(
    path: Path, sides: Sides, device: str, threads: int, clients: int, seconds: float, count: int
) -> list[dict[str, Any]]:
    """A row per side: clients ask for so long, out of so many questions."""
    from fastconv.serving import Session

    session = Session(path, device, threads=threads)
    shape = session.inputs[0].shape[1:]
    x = np.random.default_rng(0).random((count, *shape), np.float32)
    scores = session.predict(x)
    names = session.inputs[0].name, session.outputs[0].name
    session.close()
    rows = []
    for side in sides(0):
        port = client.free_port()
        words, place, body = sides(port)[side]
        asked = client.questions(place, body, x, scores, *names)
        with client.server(words, port):
            client.load(port, asked, clients, min(2.0, seconds))
            tally = client.load(port, asked, clients, seconds)
        rows.append(
            {
                "side": side,
                "requests": len(tally.latencies),
                "rate": tally.rate,
                "p50": tally.percentile(50),
                "p99": tally.percentile(99),
                "wrong": tally.wrong,
                "refused": tally.refused,
            }
        )
        print(f"  {side}: done", flush=True)
    return rows


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    header = ["", "requests", "per s", "p50 ms", "p99 ms", "wrong", "refused"]
    lines = [
        [row["side"], f"{row['requests']}", f"{row['rate']:.0f}", f"{1e3 * row['p50']:.1f}",
         f"{1e3 * row['p99']:.1f}", f"{row['wrong']}", f"{row['refused']}"]
        for row in rows
    ]  # fmt: skip
    return Table(title, header, lines)


def run(args: argparse.Namespace) -> Report:
    """The MNIST net on the CPU."""
    seconds = 0.3 if args.quick else args.rounds * SECONDS
    network = networks.NETWORKS["mnist"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        networks.fastconv_model(network).export(path)

        def chosen(port: int) -> dict[str, Side]:
            every = sides(path, port, args.threads)
            return {side: every[side] for side in every if common.chosen(side, args.only)}

        rows = measure(path, chosen, "cpu", args.threads, CLIENTS, seconds, QUESTIONS)
    rates = {row["side"]: row["rate"] for row in rows}
    plain = max((rate for side, rate in rates.items() if side.startswith("plain")), default=None)
    notes = []
    if plain and "fastconv serve" in rates:
        times = rates["fastconv serve"] / plain
        notes.append(f"Throughput {times:.2f} times the better plain handler's.")
    return Report(
        "load",
        f"{CLIENTS} clients for {seconds:.0f} s",
        tables=[table("MNIST net, one sample a request, binary", rows)],
        notes=notes,
        data={"rows": rows},
    )

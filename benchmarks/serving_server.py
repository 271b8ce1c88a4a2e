"""What the server adds to a session: CPU time per request of one sample with binary tensors.

One client asks on one connection that stays open. The server's CPU time is read from the system
before and after; the session's own, for the same samples on one thread too, is taken off. What is
asked for is at most 0.6 ms.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import networks
import numpy as np
import psutil
import serving_client as client
from report import Report, Table

REQUESTS = 3000
ALLOWED = 0.6e-3


def session_seconds(session: Any, x: np.ndarray, count: int) -> float:
    """CPU seconds per run of one sample."""
    feeds = [{session.inputs[0].name: x[i : i + 1]} for i in range(len(x))]
    start = time.process_time()
    for number in range(count):
        session.run(feeds[number % len(feeds)])
    return (time.process_time() - start) / count


def measure(path: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds per request, of server and session, a number per round."""
    from fastconv.serving import Session

    session = Session(path, "cpu", threads=1)
    shape = session.inputs[0].shape[1:]
    x = np.random.default_rng(0).random((64, *shape), np.float32)
    names = session.inputs[0].name, session.outputs[0].name
    asked = client.questions("/v2/models/model/infer", "v2", x, session.predict(x), *names)
    port = client.free_port()
    words = ["-m", "fastconv", "serve", str(path), "--device", "cpu", "--threads", "1",
             "--port", str(port)]  # fmt: skip
    found: dict[str, list[float]] = {"server": [], "session": []}
    with client.server(words, port) as process:
        watched = psutil.Process(process.pid)
        client.load(port, asked, 1, 0.5)
        for _ in range(rounds):
            before = watched.cpu_times()
            tally = client.load(port, asked, 1, count / 1000)
            after = watched.cpu_times()
            if tally.wrong or tally.refused:
                raise RuntimeError(f"{tally.wrong} wrong, {tally.refused} refused answers")
            used = after.user + after.system - before.user - before.system
            found["server"].append(used / len(tally.latencies))
            found["session"].append(session_seconds(session, x, count))
    return found


def run(args: argparse.Namespace) -> Report:
    """The MNIST net; logs and metrics are on, as they are by default."""
    network = networks.NETWORKS["mnist"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        networks.fastconv_model(network).export(path)
        found = measure(path, 300 if args.quick else REQUESTS, args.rounds)
    times = {name: statistics.median(values) for name, values in found.items()}
    added = times["server"] - times["session"]
    line = ["mnist", *(f"{1e3 * t:.3f}" for t in (times["server"], times["session"], added)),
            f"{1e3 * ALLOWED:.1f}", "yes" if added <= ALLOWED else "NO"]  # fmt: skip
    header = ["", "server ms", "session ms", "added ms", "allowed ms", "within"]
    return Report(
        "server",
        "The server beside a session, CPU time per request",
        tables=[Table("Binary, batch 1, one open connection, one thread", header, [line])],
        notes=["Medians of the rounds. Requests are logged and counted."],
        data={"rounds": found, "added": added, "allowed": ALLOWED},
    )

"""64 clients that ask a ResNet-18 on a GPU without pause, with batches and without.

What is asked for is five times the throughput. `--quick` asks a small one on the CPU, to see that
all of it runs.
"""

import argparse
import tempfile
from pathlib import Path

import networks
import serving_load as load
from report import Report

CLIENTS = 64
QUESTIONS = 64
NETWORK = "resnet18"


def sides(path: Path, port: int, device: str) -> dict[str, load.Side]:
    """The server, which proves the file on that device or ends, with two limits of a batch."""
    serve = ["-m", "fastconv", "serve", str(path), "--device", device, "--port", str(port)]
    infer = ("/v2/models/model/infer", "v2")
    return {
        f"batches up to {CLIENTS}": ([*serve, "--max-batch", str(CLIENTS)], *infer),
        "batching off": ([*serve, "--max-batch", "1"], *infer),
    }


def run(args: argparse.Namespace) -> Report:
    """Both, on CUDA alone; a report that says why not where there is none."""
    from fastconv.serving import doctor

    title = f"{CLIENTS} clients of {NETWORK} on a GPU"
    device = "cpu" if args.quick else "cuda"
    if problems := doctor.examine(device).problems:
        return Report("gpu", title, tables=[], notes=[f"Not run: {problems[0][0]}."], data={})
    seconds = 0.3 if args.quick else args.rounds * load.SECONDS
    network = networks.NETWORKS[NETWORK]
    network = networks.quick(network) if args.quick else network
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        networks.fastconv_model(network).export(path)

        def both(port: int) -> dict[str, load.Side]:
            return sides(path, port, device)

        rows = load.measure(path, both, device, args.threads, CLIENTS, seconds, QUESTIONS)
    times = rows[0]["rate"] / rows[1]["rate"]
    return Report(
        "gpu",
        title,
        tables=[load.table(f"On {device}, one sample a request, binary", rows)],
        notes=[f"With batches {times:.2f} times the throughput; 5 are asked for on a GPU."],
        data={"rows": rows, "times": times},
    )

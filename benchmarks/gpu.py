"""Time exported networks on a GPU: proof, latency and throughput, beside PyTorch on the same GPU.

LeNet-5, the MNIST net, a VGG-like net, ResNet-20 and ResNet-18 are exported in float32 and float16.
Each file is proved on the device by its own samples, with TF32 off and on, with and without CUDA
graphs, and timed at several batch sizes. A call begins and ends with numpy arrays, copies to the
GPU and back included, on both sides.

    pip install 'fastconv[gpu]'                       on the machine with the GPU
    python benchmarks/gpu.py --json gpu.json --markdown gpu.md
    python benchmarks/gpu.py --device cpu --quick     to see that all of it runs

Without a working GPU it exits with 2 and says why.
"""

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import common
import networks
import numpy as np
import report
from networks import Network
from report import Report, Table

NETWORKS = ("lenet5_64", "mnist", "cifar_vgg", "resnet20", "resnet18")
BATCHES = (1, 8, 32, 128)
PERCENTILES = (50, 99)


# -- what is timed ------------------------------------------------------------------------------


def latencies(task: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of single calls, as many as fill a time, after as many that do not count."""
    for _ in range(5):
        task()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < 10 or time.perf_counter() < end:
        start = time.perf_counter()
        task()
        samples.append(time.perf_counter() - start)
    return samples


def images(network: Network, batch: int) -> np.ndarray:
    """Channels first, as the files take them."""
    size = (batch, network.channels, network.size, network.size)
    return np.random.default_rng(0).random(size, np.float32)


def sessions(network: Network, args: argparse.Namespace, folder: str) -> Iterator[dict[str, Any]]:
    """A row for every way to run the network's files, its times by batch size."""
    from fastconv.serving import Session, SessionError

    model = networks.fastconv_model(network)
    graphs = (False, True) if args.device == "cuda" else (False,)
    rounding = (False, True) if args.device != "cpu" else (False,)
    for dtype in ("float32", "float16"):
        path = Path(folder, f"{dtype}.onnx")
        try:
            model.export(path, dtype=dtype)
        except ValueError as error:  # no proof, no file
            yield {"dtype": dtype, "failed": str(error)}
            continue
        for tf32, graph in product(rounding if dtype == "float32" else (False,), graphs):
            row: dict[str, Any] = {"dtype": dtype, "tf32": tf32, "graphs": graph}
            try:
                session = Session(
                    path, args.device, tf32=tf32, prove=False, threads=args.threads,
                    cuda_graphs=args.batches if graph else (),
                )  # fmt: skip
                proof = session.prove()
            except (SessionError, ValueError) as error:
                yield row | {"failed": str(error)}
                continue
            row |= {"provider": session.provider, "proof": vars(proof), "times": {}}
            name = session.inputs[0].name
            for batch in args.batches:
                task = partial(session.run, {name: images(network, batch)})
                row["times"][batch] = latencies(task, args.seconds)
            session.close()
            yield row


def torch_rows(network: Network, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The same network in PyTorch on the same device; nothing where there is none."""
    if not common.installed("torch"):
        return
    import torch

    device = "cpu" if args.device == "cpu" else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        return
    torch.set_num_threads(args.threads)
    variants = [(torch.float32, False)]
    if device == "cuda":
        variants += [(torch.float32, True), (torch.float16, False)]
    for dtype, tf32 in variants:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        model = networks.torch_model(network).to(device, dtype).eval()
        model = model.to(memory_format=torch.channels_last)

        def task(x: np.ndarray, model: Any = model, dtype: Any = dtype) -> np.ndarray:
            with torch.inference_mode():
                y = model(torch.from_numpy(x).to(device, dtype))
                return torch.softmax(y.float(), 1).cpu().numpy()

        row = {"provider": f"PyTorch {torch.__version__}", "dtype": str(dtype).split(".")[1],
               "tf32": tf32, "graphs": False, "times": {}}  # fmt: skip
        for batch in args.batches:
            x = images(network, batch)
            row["times"][batch] = latencies(partial(task, x), args.seconds)
        yield row


# -- what is shown ------------------------------------------------------------------------------


def cells(row: dict[str, Any], batches: list[int]) -> list[str]:
    """Provider and options, proof, then per batch p50, p99 and samples a second."""
    options = [row["dtype"], *(word for word in ("tf32", "graphs") if row.get(word))]
    title = f"{row.get('provider', 'onnxruntime').removesuffix('ExecutionProvider')}, " + ", ".join(
        options
    )
    if "failed" in row:
        return [title, "failed", *["-"] * (2 * len(batches))]
    proof = row.get("proof")
    proved = "-" if proof is None else f"{proof['difference']:.1e}" if proof["ok"] else "FAILED"
    out = [title, proved]
    for batch in batches:
        times = row["times"][batch]
        p50, p99 = (1e3 * float(np.percentile(times, p)) for p in PERCENTILES)
        out += [f"{p50:.2f} / {p99:.2f}", f"{batch / statistics.median(times):,.0f}"]
    return out


def measure(args: argparse.Namespace) -> Report:
    nets = [networks.NETWORKS[name] for name in NETWORKS if common.chosen(name, args.only)]
    nets = [networks.quick(net) for net in nets] if args.quick else nets
    header = ["", "proof"]
    for batch in args.batches:
        header += [f"{batch}: ms p50 / p99", "1/s"]
    tables, data, failed = [], [], []
    for net in nets:
        with tempfile.TemporaryDirectory() as folder:
            rows = [*sessions(net, args, folder), *torch_rows(net, args)]
        tables.append(Table(net.name, header, [cells(row, args.batches) for row in rows]))
        failed += [f"{net.name}, {r['dtype']}: {r['failed']}" for r in rows if "failed" in r]
        failed += [f"{net.name}: {r['proof']['reason']}" for r in rows
                   if not r.get("proof", {"ok": True})["ok"]]  # fmt: skip
        data.append({"network": net.name, "rows": rows})
        print(f"\n{tables[-1].text()}", flush=True)
    notes = ["proof: the largest difference from the trainer, as a share of the output's scale",
             "1/s: samples a second of one caller that waits for each answer"]  # fmt: skip
    return Report("gpu", f"Exported networks on {args.device}", tables, notes=notes + failed,
                  data={"networks": data, "failed": failed})  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    add = parser.add_argument
    add("--device", choices=("cuda", "tensorrt", "cpu"), default="cuda")
    add("--batches", type=int, nargs="+", default=list(BATCHES), metavar="N")
    add("--seconds", type=float, default=2.0, help="of timed calls per row and batch size")
    args = parser.parse_args(arguments)
    if args.quick:
        args = argparse.Namespace(**vars(args) | {"batches": [1, 4], "seconds": 0.02})
    from fastconv.serving import doctor

    diagnosis = doctor.examine(args.device)
    if not diagnosis.ok:
        for reason, mend in diagnosis.problems:
            print(f"gpu.py: {reason}; {mend}", file=sys.stderr)
        return 2
    found = measure(args)
    machine = common.machine(args.threads) | {
        "driver": diagnosis.driver, "libraries": diagnosis.libraries, "packages": diagnosis.packages
    }  # fmt: skip
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/gpu.py", *words])
    if args.json:
        common.write_json(args.json, {"machine": machine, "command": command, "gpu": found.data})
    if args.markdown:
        gpus = ", ".join(diagnosis.driver.get("gpus", [])) or "no GPU"
        where = replace(found, title=f"{found.title} ({gpus})")
        report.write(args.markdown, report.page([where], machine, command))
    return 1 if found.data["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

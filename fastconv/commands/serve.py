"""Serve exported networks over HTTP, proved on the device that runs them.

PATH is an ONNX file, a folder of them, or a model repository, <model>/<version>/model.onnx. The
server speaks the Open Inference Protocol v2 (REST, binary tensors), takes images at /predict, and
has a page to try the network at /. It is ready once every network has been loaded, has given the
trainer's outputs for the samples in its file, and is warmed up. A new version is loaded and proved
beside the old one, then takes its place.
"""

import argparse
import os
from pathlib import Path

from fastconv.commands._common import positive

SUMMARY = "serve networks over HTTP"
EXAMPLES = """examples:
  fastconv serve mnist.onnx                          on the GPU where there is one, else the CPU
  fastconv serve mnist.onnx --device cuda            on the GPU, or not at all
  fastconv serve models/ --host 0.0.0.0 --token-file /run/secrets/token
  curl --data-binary @digit.png http://127.0.0.1:8000/predict

FASTCONV_TOKEN has the token where no --token-file is named. SIGTERM ends the server once all that
it has accepted is answered; a second one ends it at once.
"""
TOKEN = "FASTCONV_TOKEN"
DEVICES = ("auto", "cpu", "cuda", "tensorrt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="a file, a folder, a repository")
    _add_device(parser.add_argument_group("where it runs"))
    _add_network(parser.add_argument_group("who may ask"))
    _add_batching(parser.add_argument_group("batches"))
    _add_limits(parser.add_argument_group("limits"))
    more = parser.add_argument_group("operation")
    more.add_argument(
        "--poll", type=_seconds, default=2.0, metavar="S",
        help="look for new versions every S seconds, 0: never (default: 2)",
    )  # fmt: skip
    more.add_argument(
        "--versions", type=positive, default=1, metavar="N",
        help="serve the newest N versions of a model (default: 1)",
    )  # fmt: skip
    more.add_argument(
        "--drain", type=_seconds, default=0.0, metavar="S",
        help="once ended, be not ready for S seconds before refusing connections (default: 0)",
    )  # fmt: skip
    more.add_argument(
        "--log-format", choices=("auto", "text", "json"), default="auto",
        help="auto: text on a terminal, else JSON (default: auto)",
    )  # fmt: skip
    more.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info",
        help="requests are told at info (default: info)",
    )  # fmt: skip


def _add_device(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--device", choices=DEVICES, default="auto",
        help="cuda and tensorrt are strict: that device or an error (default: auto)",
    )  # fmt: skip
    group.add_argument(
        "--allow-cpu", action="store_true",
        help="run on the CPU where the GPU asked for does not work; logged and shown",
    )  # fmt: skip
    group.add_argument(
        "--threads", type=positive, metavar="N", help="of the CPU (default: its quota)"
    )
    group.add_argument("--tf32", action="store_true", help="let the GPU round factors to 10 bits")
    group.add_argument("--cuda-graphs", action="store_true", help="record a graph per batch size")
    group.add_argument(
        "--memory-limit", type=positive, metavar="MIB", help="of the GPU's memory, in MiB"
    )


def _add_network(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine alone)"
    )
    group.add_argument("--port", type=_port, default=8000, help="0: any free one (default: 8000)")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help=f"clients must show this token (default: {TOKEN}, else none)",
    )  # fmt: skip


def _add_batching(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--max-batch", type=positive, default=32, metavar="N",
        help="samples that run together at most; 1 turns batching off (default: 32)",
    )  # fmt: skip
    group.add_argument(
        "--max-delay-ms", type=_seconds, default=0.0, metavar="MS",
        help="a request waits so long for others; 0: not at all (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--queue", type=positive, default=256, metavar="N",
        help="samples that may wait; more are answered by 429 (default: 256)",
    )  # fmt: skip


def _add_limits(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--timeout", type=_more_than_none, default=30.0, metavar="S",
        help="seconds until a request is answered by 504 (default: 30)",
    )  # fmt: skip
    group.add_argument(
        "--read-timeout", type=_more_than_none, default=30.0, metavar="S",
        help="seconds until a request has come, else 408 (default: 30)",
    )  # fmt: skip
    group.add_argument(
        "--max-body", type=positive, default=64, metavar="MIB",
        help="of a request, unpacked too (default: 64 MiB)",
    )  # fmt: skip
    group.add_argument(
        "--max-pixels", type=positive, default=16 * 2**20, metavar="N",
        help="of an image (default: 16,777,216)",
    )  # fmt: skip
    group.add_argument(
        "--max-connections", type=positive, default=512, metavar="N", help="(default: 512)"
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        from fastconv.serving import logs, server
        from fastconv.serving.app import Limits
        from fastconv.serving.repository import Batching
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fastconv"):
            raise
        raise ImportError(
            f"to serve, {error.name} is needed, which is not installed: "
            "pip install 'fastconv[runtime,serve,data]'"
        ) from error
    from fastconv.serving import SessionError

    logs.configure(arguments.log_format, arguments.log_level)
    mebibytes = arguments.memory_limit
    settings = server.Settings(
        arguments.path,
        device=arguments.device,
        allow_cpu=arguments.allow_cpu,
        tf32=arguments.tf32,
        threads=arguments.threads,
        memory_limit=None if mebibytes is None else mebibytes * 2**20,
        cuda_graphs=arguments.cuda_graphs,
        host=arguments.host,
        port=arguments.port,
        token=_token(arguments.token_file),
        batching=Batching(arguments.max_batch, arguments.max_delay_ms / 1000, arguments.queue),
        limits=Limits(
            arguments.max_body * 2**20,
            arguments.max_pixels,
            arguments.read_timeout,
            arguments.timeout,
        ),
        connections=arguments.max_connections,
        versions=arguments.versions,
        poll=arguments.poll,
        drain=arguments.drain,
    )
    try:
        return server.serve(settings)
    except SessionError as error:
        raise ValueError(str(error)) from error


def _token(path: Path | None) -> str | None:
    """The token of a file, or of the environment.

    Raises
    ------
    ValueError
        It is empty, or holds what a header cannot carry.
    """
    token = os.environ.get(TOKEN) if path is None else path.read_text(encoding="utf-8").strip()
    if token is None:
        return None
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ValueError(f"{path or TOKEN}: a token is one word of printable ASCII")
    return token


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def _more_than_none(text: str) -> float:
    if (value := _seconds(text)) == 0:
        raise argparse.ArgumentTypeError("0 seconds are too few")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)

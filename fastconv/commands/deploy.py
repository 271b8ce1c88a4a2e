"""Write the files by which other servers run an exported network.

--triton adds it to a model repository of NVIDIA Triton: DIR/NAME/config.pbtxt with dynamic batching
and instance groups, DIR/NAME/1/model.onnx, and its labels. --kserve writes a KServe
InferenceService that runs such a repository, which --storage names as the cluster sees it. The file
is proved on the CPU first. docs/serving.md has the way from here to several machines.
"""

import argparse
from pathlib import Path

from fastconv.commands._common import positive

SUMMARY = "write files for NVIDIA Triton or KServe"
EXAMPLES = """examples:
  fastconv deploy mnist.onnx --triton models
  fastconv deploy mnist.onnx --triton models --version 2 --instances 2 --max-batch 128
  fastconv deploy mnist.onnx --triton models --kserve mnist.yaml --storage s3://bucket/models
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="FILE.onnx", help="the network")
    add("--triton", metavar="DIR", help="the model repository; made where there is none")
    add("--kserve", metavar="FILE.yaml", help="write an InferenceService there")
    add("--storage", metavar="URI", help="the repository as the cluster finds it, for --kserve")
    add("--name", help="of the model (default: the file's)")
    add("--version", type=positive, default=1, metavar="N", help="of the model (default: 1)")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="what it will run on")
    add("--instances", type=positive, default=1, metavar="N", help="copies per GPU (default: 1)")
    add("--max-batch", type=positive, default=64, metavar="N", help="default: 64")
    add(
        "--max-delay-us",
        type=_natural,
        default=500,
        metavar="N",
        help="microseconds that a request may wait for others (default: 500)",
    )
    add(
        "--replicas",
        type=_natural,
        nargs=2,
        default=(1, 4),
        metavar=("LEAST", "MOST"),
        help="of the InferenceService (default: 1 4)",
    )
    add(
        "--concurrency",
        type=positive,
        default=64,
        metavar="N",
        help="requests in flight per replica before another is started (default: 64)",
    )
    add("--force", action="store_true", help="replace what is there")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    if arguments.triton is None and arguments.kserve is None:
        raise ValueError("deploy needs --triton DIR, --kserve FILE.yaml or both")
    if (arguments.kserve is None) != (arguments.storage is None):
        raise ValueError("--kserve and --storage go together")
    from fastconv.files import replacing
    from fastconv.serving import Session, deploy

    batching = deploy.Batching(
        arguments.device, arguments.instances, arguments.max_batch, arguments.max_delay_us
    )
    service = None
    if arguments.kserve is not None:  # checked before anything is written
        service = deploy.kserve_service(
            arguments.name or _dns_label(Path(arguments.model).stem),
            arguments.storage,
            batching,
            replicas=tuple(arguments.replicas),
            concurrency=arguments.concurrency,
        )
        if Path(arguments.kserve).exists() and not arguments.force:
            raise FileExistsError(17, "is there already; --force replaces it", arguments.kserve)
    with Session(arguments.model, "cpu") as session:
        print(f"{session.path}: {session.proof}")
        if arguments.triton is not None:
            written = deploy.write_triton(
                session,
                arguments.triton,
                batching,
                name=arguments.name,
                version=arguments.version,
                force=arguments.force,
            )
            print("\n".join(f"written: {path}" for path in written))
    if service is not None:
        with replacing(arguments.kserve) as file:
            file.write(service.encode())
        print(f"written: {arguments.kserve}")
    return 0


def _dns_label(name: str) -> str:
    """A file's name as Kubernetes takes names."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name.lower()).strip("-")

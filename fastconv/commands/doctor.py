"""Find out whether a network runs on this machine's GPU, and if not, what would help.

Driver, libraries, onnxruntime, the newest opset and IR version it takes, and which provider really
ran each operator of a tiny network, or of FILE.onnx.

The exit code is 0 where all is well for the device, 1 where something is missing, 2 for a wrong
argument.
"""

import argparse
import json

from fastconv.commands._common import fields

SUMMARY = "say whether networks run on the GPU here, and what is missing"
EXAMPLES = """examples:
  fastconv doctor
  fastconv doctor --device cuda
  fastconv doctor --device cuda mnist.onnx     who runs each operator of this file
  fastconv doctor --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE.onnx", help="run this network")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "tensorrt"),
        default="auto",
        help="what to run it on (default: CUDA where there is a driver, else the CPU)",
    )
    parser.add_argument("--tf32", action="store_true", help="ask for TF32, to see whether it works")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from fastconv.serving import doctor

    if arguments.file is not None:
        with open(arguments.file, "rb"):  # a missing file is a wrong argument
            pass
    found = doctor.examine(arguments.device, arguments.file, arguments.tf32)
    if arguments.json:
        print(json.dumps(found.as_dict(), indent=1))
        return 0 if found.ok else 1
    print("\n".join(fields(doctor.rows(found))))
    for reason, mend in found.problems:
        print(f"\n{reason}." + (f"\nWhat helps: {mend}" if mend else ""))
    if found.ok:
        print(f"\nAll is well: networks run on {found.device}.")
    return 0 if found.ok else 1

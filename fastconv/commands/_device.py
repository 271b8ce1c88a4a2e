"""The options by which the commands choose a device."""

import argparse
from typing import Any

from fastconv.commands._common import positive

HELP = "auto takes CUDA where it works, else the CPU; cuda and tensorrt are strict"


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device`` and what concerns it."""
    group = parser.add_argument_group("device")
    add = group.add_argument
    add("--device", choices=("auto", "cpu", "cuda", "tensorrt"), default="auto", help=HELP)
    add("--allow-cpu", action="store_true", help="run on the CPU where the GPU does not work")
    add("--tf32", action="store_true", help="let the GPU round factors to 10 bits, for speed")
    add("--threads", type=positive, metavar="N", help="of the CPU (default: what it may use)")


def session_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What of them `Session` takes beside the device."""
    names = ("allow_cpu", "tf32", "threads")
    return {name: getattr(arguments, name) for name in names}

"""Time fastconv beside other libraries: layers, training, inference, scaling, memory, import, peak.

    python benchmarks/run.py train --only resnet --threads 2 --json train.json

README.md says how it is measured and how to read it.
"""

import shlex
import sys
from importlib import import_module

import common
import report

# part: the module that has it
PARTS = {
    "layers": "layers",
    "train": "train",
    "inference": "inference",
    "scaling": "scaling",
    "memory": "memory",
    "import": "startup",
    "peak": "peak",
}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "what", nargs="?", choices=[*PARTS, "all"], default="all", help="what to measure"
    )
    args = parser.parse_args()
    if args.quick:
        args.rounds = min(args.rounds, 2)
    command = f"python {shlex.join(sys.argv)}"
    reports: list[report.Report] = []
    for part in PARTS if args.what == "all" else [args.what]:
        found = import_module(PARTS[part]).run(args)
        reports.append(found)
        print(f"\n{found.title}\n\n{found.text()}\n", flush=True)
        write(args, reports, command)  # after each part: what is done is not lost


def write(args, reports: list[report.Report], command: str) -> None:
    """The files that were asked for, with all that there is so far."""
    machine = common.machine(args.threads)
    bars = [group for found in reports for group in found.bars if group.ratios]
    if args.json:
        parts = {found.part: found.data for found in reports}
        common.write_json(args.json, {"machine": machine, "command": command, **parts})
    if args.markdown:
        report.write(args.markdown, report.page(reports, machine, command))
    if args.svg and bars:
        report.write(args.svg, report.svg(bars))
    if args.save:
        found = reports[-1]
        report.write(args.save / f"{found.part}.md", report.page([found], machine, command))
        if any(group.ratios for group in found.bars):
            report.write(args.save / f"{found.part}.svg", report.svg(found.bars))


if __name__ == "__main__":
    main()

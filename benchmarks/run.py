"""Time fastconv, beside other libraries: see PARTS below.

    python benchmarks/run.py train --only resnet --threads 2 --json train.json

README.md says how it is measured and how to read it.
"""

import argparse
import shlex
import sys
import traceback
from importlib import import_module

import common
import report

# part: the module that has it, and how many rounds it times, which keeps it below ten minutes
PARTS = {
    "layers": ("layers", 5),
    "train": ("train", 7),
    "inference": ("inference", 7),
    "scaling": ("scaling", 7),
    "memory": ("memory", 1),
    "policies": ("policies", 7),
    "import": ("startup", 7),
    "feeding": ("feeding", 5),
    "optimizers": ("optimizers", 7),
    "peak": ("peak", 9),
}


def main(arguments: list[str] | None = None) -> None:
    measure("run.py", __doc__, PARTS, arguments)


def measure(
    script: str, doc: str, parts: dict[str, tuple[str, int]], arguments: list[str] | None = None
) -> None:
    """The command line of a script with these parts."""
    parser = common.parser(doc)
    parser.add_argument(
        "what", nargs="?", choices=[*parts, "all"], default="all", help="what to measure"
    )
    args = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", f"benchmarks/{script}", *words])
    reports: list[report.Report] = []
    failed = []
    asked = args.rounds
    for part in parts if args.what == "all" else [args.what]:
        module, rounds = parts[part]
        args.rounds = asked or (2 if args.quick else rounds)
        try:
            found = import_module(module).run(args)
        except Exception:  # the other parts go on
            traceback.print_exc()
            failed.append(part)
            continue
        reports.append(found)
        print(f"\n{found.title}\n\n{found.text()}\n", flush=True)
        write(args, reports, command)  # after each part: what is done is not lost
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def write(args: argparse.Namespace, reports: list[report.Report], command: str) -> None:
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
        name = "-".join([found.part, *args.only]).replace(" ", "_")  # a piece spares the whole
        report.write(args.save / f"{name}.md", report.page([found], machine, command))
        if any(group.ratios for group in found.bars):
            report.write(args.save / f"{name}.svg", report.svg(found.bars))


if __name__ == "__main__":
    main()

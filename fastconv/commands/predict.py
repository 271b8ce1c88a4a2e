"""Ask an ONNX network what it sees.

INPUT is an image, or a .npy array of one sample or of many. Images become grey or RGB, the size
and the range of values that the network was trained on; arrays are taken as they are. Files that
fastconv exported tell their classes, layout and range, and are proved on the device by their own
samples before they answer; for others, an image is scaled to 0…1.
"""

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from fastconv.commands._common import positive
from fastconv.commands._device import add_device, session_options
from fastconv.tables import table

SUMMARY = "ask an ONNX network what it sees"
EXAMPLES = """examples:
  fastconv predict model.onnx digit.png
  fastconv predict model.onnx *.png --top 1 --csv --out predictions.csv
  fastconv predict model.onnx samples.npy --json
  fastconv predict model.onnx *.png --device cuda   on the GPU, or an error that says why not
  fastconv predict mnist.onnx scan.jpg --invert     dark ink on paper, trained on the reverse
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="FILE.onnx", help="the network")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="an image or a .npy array")
    parser.add_argument(
        "--top", type=positive, default=3, metavar="K", help="classes to show (default: 3)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, of any kind of output")
    form.add_argument("--csv", action="store_true", help="print CSV, a line per sample")
    parser.add_argument("--out", metavar="FILE", help="write there instead of printing")
    parser.add_argument("--output", metavar="NAME", help="which output, where there are several")
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="what an image's black and white are for the network (default: as the file says)",
    )
    parser.add_argument("--invert", action="store_true", help="exchange black and white of images")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    from fastconv.commands._inputs import is_image, label, outside, read_samples
    from fastconv.serving import Session
    from fastconv.serving.contract import contract

    session = Session(arguments.model, arguments.device, **session_options(arguments))
    if arguments.device == "auto" and session.device != "cpu":  # the CPU is what people expect
        print(f"fastconv: {session.path} runs on {session.provider}", file=sys.stderr)
    network = contract(session, arguments.output)
    limits = tuple(arguments.range) if arguments.range else None
    results: list[dict[str, Any]] = []
    for path in arguments.inputs:
        samples = read_samples(path, network, limits, arguments.invert)
        remark = None if limits else outside(samples, network.input_range)
        if limits is None and network.input_range is None and is_image(path):
            remark = "the file does not tell its inputs' range, 0 to 1 is taken; see --range"
        if remark:
            print(f"fastconv: warning: {path}: {remark}", file=sys.stderr)
        outputs = session.predict(samples, outputs=[network.output])
        if not np.isfinite(outputs).all():
            raise ValueError(f"{network.path}: gives NaN or infinity for {path}")
        for index, row in enumerate(outputs):
            result = {"input": label(path, index, len(outputs))}
            results.append(result | _described(row, network, arguments.top))
    text = _json(results) if arguments.json else (_csv if arguments.csv else _table)(results)
    if arguments.out is None:
        sys.stdout.write(text)
        return 0
    from fastconv.files import replacing

    with replacing(Path(arguments.out)) as file:
        file.write(text.encode())
    return 0


def _described(row: Any, network: Any, top: int) -> dict[str, Any]:
    """The best classes of a sample's scores; an output of another kind as it is."""
    if row.ndim != 1:
        return {"output": row.tolist()}
    return {"predictions": network.best(row, top)}


def _json(results: list[dict[str, Any]]) -> str:
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def _scores(result: dict[str, Any]) -> list[tuple[str, float, bool]]:
    """Class, score and whether it is a probability, best first."""
    if "predictions" not in result:
        raise ValueError("the network's output is not a row of scores per sample; see it by --json")
    return [
        (item["class"], item.get("probability", item.get("score")), "probability" in item)
        for item in result["predictions"]
    ]


def _table(results: list[dict[str, Any]]) -> str:
    rows = []
    for result in results:
        row = [result["input"]]
        for name, value, is_probability in _scores(result):
            row += [name, f"{100 * value:.1f} %" if is_probability else f"{value:.4g}"]
        rows.append(row)
    header = ["input"]
    for place in range(1, (len(rows[0]) + 1) // 2):
        header += [{1: "best", 2: "2nd", 3: "3rd"}.get(place, f"{place}th"), ""]
    return "\n".join(table(header, rows)) + "\n"


def _csv(results: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, result in enumerate(results):
        scores = _scores(result)
        if number == 0:
            kind = "probability" if scores[0][2] else "score"
            places = range(1, len(scores) + 1)
            writer.writerow(["input", *(f"{n}_{i}" for i in places for n in ("class", kind))])
        writer.writerow([result["input"], *(cell for name, p, _ in scores for cell in (name, p))])
    return text.getvalue()

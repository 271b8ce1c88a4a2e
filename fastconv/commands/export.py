"""Write a saved model to an ONNX file, with proof.

The file is checked, run in ONNX Runtime and compared with the trainer. Only then does it appear.
The names of its classes are those that the model was saved with, unless others are given.
"""

import argparse
import sys

from fastconv.commands._common import one_of

SUMMARY = "write a saved model to ONNX, with proof"
EXAMPLES = """examples:
  fastconv export model.fc model.onnx
  fastconv export model.fc model.onnx --input-layout NHWC --opset 13
  fastconv export model.fc model.onnx --class-names cat,dog,owl --fold-batch-norm
  fastconv export model.fc model.onnx --samples x.npy    proved on these instead of made ones
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.fc", help="a model saved by fastconv")
    parser.add_argument("out", metavar="OUT.onnx", help="the file to write")
    parser.add_argument("--opset", type=int, default=17, metavar="N", help="13 to 21 (default: 17)")
    parser.add_argument(
        "--input-layout", type=_layout, default="NCHW", metavar="LAYOUT",
        help="NCHW, channels first (default), or NHWC",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=one_of(("probabilities", "logits"), "output"), default="probabilities",
        metavar="KIND", help="probabilities (default), or logits: without a final softmax",
    )  # fmt: skip
    parser.add_argument("--class-names", metavar="A,B,…", help="in the order of their numbers")
    parser.add_argument(
        "--input-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="of the inputs' values (default: as a Rescaling in front tells)",
    )  # fmt: skip
    parser.add_argument(
        "--fold-batch-norm", action="store_true", help="take it into the convolutions before it"
    )
    parser.add_argument("--samples", metavar="FILE.npy", help="inputs for the proof, channels last")


def _layout(text: str) -> str:
    return one_of(("nchw", "nhwc"), "input layout")(text).upper()


def run(arguments: argparse.Namespace) -> int:
    import numpy as np

    from fastconv.model import load_model
    from fastconv.node import ExportError

    model = load_model(arguments.model, compile=False)
    if arguments.class_names:
        model.class_names = arguments.class_names.split(",")
    samples = None
    if arguments.samples:
        try:
            samples = np.load(arguments.samples, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{arguments.samples}: not an array of numpy: {error}") from error
    try:
        report = model.export(
            arguments.out, opset=arguments.opset, input_layout=arguments.input_layout,
            output=arguments.output, fold_batch_norm=arguments.fold_batch_norm,
            input_range=arguments.input_range, samples=samples,
        )  # fmt: skip
    except ExportError as error:
        print(f"fastconv: {arguments.out} is not written: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0

"""Ask a network about pictures whose classes are known, and count what it knows.

MODEL is a model saved by fastconv or an ONNX file, which onnxruntime runs. DATA is a folder with a
folder of pictures per class, one with such a folder named test or val, or MNIST's IDX files, of
which the test images are taken. The names of the folders are the names of the classes; a file
without class names has them in the order of their sorted names.

Precision is the share of what was called so that is so, recall the share of what is so that was
called so, F1 the harmonic mean of the two.
"""

import argparse
import json
import sys
from pathlib import Path

from fastconv.commands._common import one_of, size

SUMMARY = "loss, accuracy and each class' numbers on pictures"
EXAMPLES = """examples:
  fastconv evaluate shapes/model.onnx photos
  fastconv evaluate shapes/model.fc photos --json scores.json --png confusion.png
  fastconv evaluate digits/model.onnx mnist                 MNIST's test images
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a saved model or an ONNX file")
    parser.add_argument("data", metavar="DATA", help="a folder of pictures or IDX files")
    parser.add_argument(
        "--size", type=size, metavar="SIZE", help="of the pictures, where the network takes any"
    )
    parser.add_argument(
        "--fit", type=one_of(("stretch", "crop", "pad"), "way to fit"), default="stretch",
        metavar="HOW", help="stretch a picture to the size (default), crop its middle, or pad it",
    )  # fmt: skip
    parser.add_argument("--skip-broken", action="store_true", help="leave out what is no picture")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there as JSON")
    parser.add_argument("--png", metavar="FILE", help="draw the confusion matrix there")


def run(arguments: argparse.Namespace) -> int:
    from fastconv.commands._asked import Asked
    from fastconv.commands._pictures import Form, read_test
    from fastconv.commands._scores import Scores
    from fastconv.files import replacing

    if arguments.png:
        from fastconv.plots import new_figure

        new_figure(1, 1)  # what is missing is said before the work, not after it
    network = Asked(arguments.model)
    if arguments.size is None and None in network.size:
        raise ValueError(f"{network.path}: takes images of any size: name one with --size")
    form = Form(arguments.size or network.size, network.channels, arguments.fit)
    names, part = read_test(Path(arguments.data), network.names, form, arguments.skip_broken)
    if network.remark:
        print(f"fastconv: warning: {network.remark}", file=sys.stderr)
    scores = Scores.of(names, network.scores(part), part.labels)
    print(f"{network.path}, {network.kind}, on {arguments.data}\n{scores}")
    if arguments.json:
        with replacing(arguments.json) as file:
            file.write(json.dumps(scores.to_dict(), indent=1, ensure_ascii=False).encode() + b"\n")
    if arguments.png:
        from fastconv.plots import plot_confusion_matrix

        title = f"{Path(arguments.model).name}: {100 * scores.accuracy:.2f} %"
        figure = plot_confusion_matrix(scores.matrix, scores.names, title)
        with replacing(arguments.png) as file:
            figure.savefig(file, dpi=110, format="png")  # type: ignore[attr-defined]
    return 0

"""Train a network on pictures, and write all that is wanted of it.

DATA is a folder with a folder of pictures per class; or one with the folders train and, at will,
val and test, which have a folder per class each; or MNIST's IDX files. A part of every class is
held back to check the network. Into DIR go

  model.fc       the model, to be trained further (fastconv.load_model)
  model.onnx     the network for serving, proved, with the names of its classes
  history.csv    loss and accuracy of every epoch; curves.png draws them
  confusion.png  which classes are taken for which
  training.json  options and results, for programs
  README.md      a card: what it is, how good, how to use it

Ctrl-C, or SIGTERM, ends the training after its step and still writes what there is. After that, or
after a crash, --resume goes on: the final weights have the same bits as without it.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from fastconv.commands._common import amount, natural, one_of, part, positive, share, size
from fastconv.commands._networks import NETWORKS

SUMMARY = "train a network on a folder of pictures"
EXAMPLES = """examples:
  fastconv train photos --model resnet20 --epochs 30 --out shapes
  fastconv train photos --model cifar-vgg --size 64 --flip --shift 4 --brightness 0.1 --out shapes
  fastconv train photos --optimizer sgd --learning-rate 0.1 --momentum 0.9 --weight-decay 5e-4 \\
    --schedule cosine --warmup 2 --label-smoothing 0.1 --out shapes
  fastconv train mnist --model lenet5 --epochs 5 --out digits     the folder of MNIST's IDX files
  fastconv train --resume --out shapes                            go on after Ctrl-C or a crash
  fastconv train --resume --epochs 60 --out shapes                the same, with more epochs
"""
# What an option is where it is not given; the others follow from the network and the data.
DEFAULTS: dict[str, Any] = {
    "model": "cifar-vgg", "epochs": 20, "validation_split": 0.2, "seed": 0, "optimizer": "adam",
    "schedule": "constant", "fit": "stretch", "flip": False, "shift": 0.0, "brightness": 0.0,
    "contrast": 0.0, "erase": 0.0, "balance": False, "skip_broken": False,
}  # fmt: skip
SCHEDULES = {  # of the learning rate
    "constant": "as it is",
    "cosine": "falls to 0 along half a cosine",
    "linear": "falls to 0 along a line",
    "one-cycle": "rises for three tenths of the training and falls to nearly 0",
    "step": "a tenth after half of the training, a hundredth after three quarters",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", metavar="DATA", help="a folder of pictures or IDX files")
    parser.add_argument("--out", required=True, metavar="DIR", help="where everything is written")
    parser.add_argument("--resume", action="store_true", help="go on with the training in DIR")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where DIR has one")
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model", type=one_of(NETWORKS, "network"), metavar="NAME",
        help=f"{', '.join(NETWORKS)} (default: cifar-vgg)",
    )  # fmt: skip
    group.add_argument(
        "--size", type=size, metavar="SIZE",
        help="pictures are resized to this, 64 or 48x64, height first (default: the network's "
        "usual, of IDX files their own)",
    )  # fmt: skip
    group.add_argument(
        "--channels", type=int, choices=(1, 3), help="1 grey, 3 colour (default: as for --size)"
    )
    group.add_argument(
        "--fit", type=one_of(("stretch", "crop", "pad"), "way to fit"), metavar="HOW",
        help="stretch a picture to the size, crop its middle, or pad it with black",
    )  # fmt: skip
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive, metavar="N", help="default: 20")
    group.add_argument("--batch-size", type=positive, metavar="N",
                       help="default: 32, of fewer than 1,000 pictures 16")  # fmt: skip
    group.add_argument("--optimizer", metavar="NAME", help="default: adam")
    group.add_argument("--learning-rate", type=amount, metavar="X",
                       help="the largest, with a schedule (default: the optimizer's)")  # fmt: skip
    group.add_argument(
        "--schedule", type=one_of(SCHEDULES, "schedule"), metavar="NAME",
        help="of the learning rate: " + "; ".join(f"{k} {v}" for k, v in SCHEDULES.items())
        + " (default: constant)",
    )  # fmt: skip
    group.add_argument(
        "--warmup", type=amount, metavar="X",
        help="epochs, or a part of one, in which the learning rate rises from 0; of one-cycle the "
        "length of its rise",
    )  # fmt: skip
    group.add_argument(
        "--momentum", type=share, metavar="X", help="of sgd and rmsprop (default: 0)"
    )
    group.add_argument(
        "--weight-decay", type=amount, metavar="X",
        help="every update takes so much times the learning rate from each weight (default: 0, of "
        "adamw 0.004)",
    )  # fmt: skip
    group.add_argument(
        "--label-smoothing", type=share, metavar="X",
        help="this share of every label is spread over all classes",
    )  # fmt: skip
    group.add_argument(
        "--patience", type=positive, metavar="N",
        help="end where N epochs bring no smaller validation loss, and take the best weights",
    )  # fmt: skip
    group.add_argument(
        "--balance", action="store_true", default=None,
        help="rare classes weigh more, as if all had as many pictures",
    )  # fmt: skip
    group.add_argument("--seed", type=natural, metavar="N", help="default: 0")
    group.add_argument("--threads", type=positive, metavar="N", help="default: see fastconv info")
    group.add_argument(
        "--save-every", type=positive, metavar="N",
        help="keep where the training stands after every N batches, too, not only every epoch",
    )  # fmt: skip
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--validation-split", type=part, metavar="X",
        help="share of every class that is held back (default: 0.2; no matter with a folder val)",
    )  # fmt: skip
    group.add_argument("--skip-broken", action="store_true", default=None,
                       help="leave out files that cannot be read")  # fmt: skip
    group.add_argument("--flip", action="store_true", default=None,
                       help="exchange left and right of every second picture")  # fmt: skip
    group.add_argument(
        "--shift", type=amount, metavar="X", help="by up to so many pixels, below 1: of the size"
    )
    group.add_argument("--brightness", type=share, metavar="X", help="up to so much of the range")
    group.add_argument("--contrast", type=share, metavar="X", help="up to so much more or less")
    group.add_argument("--erase", type=share, metavar="X", help="a patch of up to so much a side")


def run(arguments: argparse.Namespace) -> int:
    from fastconv.commands._training import Training

    out = Path(arguments.out)
    _check_packages()
    if arguments.threads:
        from fastconv.config import set_num_threads

        set_num_threads(arguments.threads)
    given = {
        key: value for key, value in vars(arguments).items()
        if value is not None and key not in ("command", "out", "resume", "overwrite", "threads")
    }  # fmt: skip
    if arguments.resume:
        training = Training.resumed(out, given)
    else:
        if "data" not in given:
            raise ValueError("what to train on? fastconv train DATA --out DIR")
        training = Training.fresh(out, {**DEFAULTS, **given}, arguments.overwrite)
    return training.run(1 if sys.stdout.isatty() else 2)


def _check_packages() -> None:
    """Say what is missing before, not after, the training."""
    from importlib.util import find_spec

    needs = {"PIL": "data", "matplotlib": "viz"}
    if missing := [extra for module, extra in needs.items() if find_spec(module) is None]:
        raise ImportError(
            f"train needs packages that are missing: pip install 'fastconv[{','.join(missing)}]'"
        )

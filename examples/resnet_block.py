"""Residual blocks in the functional form, trained, exported and proved.

A network of blocks ``y = relu(f(x) + x)`` with batch norm, on handwritten digits of 8x8 pixels
(they come with scikit-learn) or on Fashion-MNIST. Where a block halves the image, the way around it
is a 1x1 convolution with the same stride.

    python examples/resnet_block.py --check 0.97
    python examples/resnet_block.py --dataset fashion_mnist --epochs 2 --check 0.87

The digits take some seconds and reach about 98 %. The exported file is checked, run in ONNX
Runtime where that is installed, and compared with the trained network; batch norm is folded into
the convolutions if the export is asked to (``--fold``).
"""

import argparse
import sys
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import layers


def conv(x: Any, filters: int, size: int = 3, stride: int = 1) -> Any:
    """A convolution and its batch norm; the norm's beta takes the place of a bias."""
    x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def block(x: Any, filters: int, stride: int = 1) -> Any:
    y = layers.ReLU()(conv(x, filters, stride=stride))
    y = conv(y, filters)
    if x.shape != y.shape:
        x = conv(x, filters, size=1, stride=stride)
    return layers.ReLU()(layers.Add()([y, x]))


def make_model(shape: tuple[int, int, int], scale: float) -> fc.Model:
    inputs = layers.Input(shape)
    x = layers.Rescaling(scale)(inputs)  # the file takes the pixels as they are, too
    x = layers.ReLU()(conv(x, 16))
    x = block(x, 16)
    x = block(x, 32, stride=2)
    x = layers.GlobalAveragePooling2D()(x)
    return fc.Model(inputs, layers.Dense(10, activation="softmax")(x))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=("digits", "fashion_mnist"), default="digits")
    parser.add_argument("--data", metavar="DIR", help="folder of IDX files for fashion_mnist")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--images", type=int, help="train on so many images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", type=float, metavar="MIN", help="fail below this test accuracy")
    parser.add_argument("--export", metavar="PATH", help="write the network to ONNX, proved")
    parser.add_argument("--fold", action="store_true", help="fold batch norm into the convolutions")
    args = parser.parse_args()

    if args.dataset == "digits":
        (x, y), (x_test, y_test) = fc.datasets.digits.load_data()
    else:
        (x, y), (x_test, y_test) = fc.datasets.fashion_mnist.load_data(args.data)
    x, y = x[: args.images, ..., None], y[: args.images]
    x_test = x_test[..., None]

    fc.set_random_seed(args.seed)
    model = make_model(x.shape[1:], scale=1 / np.ptp(x))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    model.fit(x, y, batch_size=32, epochs=args.epochs, verbose=2)
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"test: loss {loss:.4f}, accuracy {accuracy:.4f}")
    if args.export:
        print(model.export(args.export, fold_batch_norm=args.fold))
    if args.check is not None and accuracy < args.check:
        sys.exit(f"test accuracy {accuracy:.4f} is below {args.check:g}")


if __name__ == "__main__":
    main()

"""Draw every picture of `fastconv.visualize` for a small network that reads MNIST's digits.

    python examples/visualize.py --out pictures
    python examples/visualize.py --images 60000 --epochs 3 --out pictures --format svg

Two epochs of 6,000 images take half a minute; the pictures are those that docs/visualize.md speaks
of, by their names.
"""

import argparse
from pathlib import Path

import numpy as np

import fastconv as fc
from fastconv import layers, visualize


def make_model() -> fc.Sequential:
    return fc.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(16, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(32, 3, activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of IDX files (default: found or loaded)"
    )
    parser.add_argument("--images", type=int, default=6000, help="train on so many")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("pictures"), metavar="DIR")
    parser.add_argument("--format", choices=["png", "svg", "pdf"], default="png")
    args = parser.parse_args()

    (x, y), (x_test, y_test) = fc.datasets.mnist.load_data(args.data)
    x, x_test = (a[..., None].astype(np.float32) / 255 for a in (x[: args.images], x_test))
    fc.set_random_seed(0)
    model = make_model()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    held = (x_test[:2000], y_test[:2000])
    model.fit(x, y[: args.images], epochs=args.epochs, validation_data=held)

    probabilities = model.predict(x_test)
    few = x_test[[int(np.argmax(y_test == label)) for label in range(8)]]  # the first of each
    pictures = {
        "history": visualize.history(model),
        "filters": visualize.filters(model, "conv1"),
        "feature_maps": visualize.feature_maps(model, few[0]),
        "feature_maps_conv1": visualize.feature_maps(model, few[0], "conv1"),
        "confusion_matrix": visualize.confusion_matrix(y_test, probabilities),
        "wrong_predictions": visualize.wrong_predictions(x_test, y_test, probabilities),
        "saliency": visualize.saliency(model, few, samples=16),
        "grad_cam": visualize.grad_cam(model, few, averaged=False),  # its maps are flattened
        "occlusion": visualize.occlusion(model, few),
        "maximize_activation": visualize.maximize_activation(model, "classes"),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        path = args.out / f"{name}.{args.format}"
        figure.savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main()

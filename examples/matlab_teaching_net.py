"""Train the small network with which many learned backpropagation in MATLAB.

R. B. Palm's DeepLearnToolbox (2012) has a convolutional network in a few hundred lines: 6 maps of
5x5, mean pooling, 12 maps of 5x5, mean pooling, 10 outputs, sigmoids throughout, plain gradient
descent with the rate 1 and batches of 50. On MNIST it came with these test errors:

    after epoch     1      5      10     100
    test error   11.4 %  4.2 %   2.7 %   1.2 %

    python examples/matlab_teaching_net.py --epochs 10 --check

Its loss is half the squared error summed over the ten outputs, ``½ Σ_j (y_j − t_j)²``, as a mean
over the batch. The mean squared error of Keras (and of fastconv) is also a mean over the outputs,
``1/10 Σ_j (y_j − t_j)²``: five times that is the toolbox' loss, hence ``loss_weights=5``.

Its initial weights are uniform in ±√(6 / (fan in + fan out)) with the fans counted over a whole
kernel, which is what ``glorot_uniform`` does; the biases begin at zero.
"""

import argparse
import sys
import time

import numpy as np

import fastconv as fc
from fastconv import layers, optimizers

# epoch: the highest test error that still counts as the published one, reached again
BOUNDS = {1: 0.13, 5: 0.05, 10: 0.032, 100: 0.014}
PUBLISHED = {1: 0.114, 5: 0.042, 10: 0.027, 100: 0.012}


def make_model() -> fc.Sequential:
    return fc.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(6, 5, activation="sigmoid"),
            layers.AveragePooling2D(2),
            layers.Conv2D(12, 5, activation="sigmoid"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="sigmoid"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of IDX files (default: found or loaded)"
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--images", type=int, help="train on so many of the 60,000 images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="fail where an error is too high")
    args = parser.parse_args()

    (x, labels), (x_test, labels_test) = fc.datasets.mnist.load_data(args.data)
    x = x[: args.images, ..., None].astype(np.float32) / 255
    x_test = x_test[..., None].astype(np.float32) / 255
    targets = np.eye(10, dtype=np.float32)[labels[: args.images]]

    fc.set_random_seed(args.seed)
    model = make_model()
    model.compile(optimizer=optimizers.SGD(1.0), loss="mse", loss_weights=5.0)
    model.summary()
    failed = []
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        loss = model.fit(x, targets, batch_size=50, verbose=0).history["loss"][0]
        seconds = time.perf_counter() - start
        error = float(np.mean(model.predict(x_test).argmax(axis=1) != labels_test))
        known = f" (published {PUBLISHED[epoch]:.1%})" if epoch in PUBLISHED else ""
        print(f"epoch {epoch}: loss {loss:.4f}, test error {error:.2%}{known}, {seconds:.1f} s")
        if error > BOUNDS.get(epoch, 1):
            failed.append(f"after epoch {epoch} the test error {error:.2%} > {BOUNDS[epoch]:.1%}")
    if args.check and failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()

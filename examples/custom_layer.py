"""Write a layer of your own in numpy, check its gradient, train with it and export it.

Swish (also called SiLU) is ``y = x · s`` with ``s = sigmoid(x)``. Its derivative is
``s + x · s · (1 − s)``, so that ``dx = dy · (s + y · (1 − s))``. A layer emits *steps*; one that is
written in Python is a function on numpy arrays, and the plan runs it between the compiled ones.

    python examples/custom_layer.py --check 0.97

First the gradient is compared with finite differences in float64 (expected: 1e-8 or less of its
size), then a small network with three such layers learns the digits that come with scikit-learn
(about 98 % in some seconds).
"""

import argparse
import sys
from math import prod

import numpy as np

import fastconv as fc
from fastconv import layers
from fastconv._native.step import Extent, PythonStep
from fastconv.layer import Layer


class Swish(Layer):
    """``y = x · sigmoid(x)`` of each number; x (…) → y the same."""

    def output_shape(self, *inputs):
        return inputs[0]

    def forward(self, b, frame):
        x = b.contiguous(frame.inputs[0])
        y = b.value(x.shape)
        frame.saved.x = x

        def forward(arrays, training):
            x, y = arrays
            np.multiply(x, sigmoid(x), out=y)

        b.emit(numpy_step(forward, reads=[x], writes=[y]))
        return y

    def backward(self, b, frame, dy):
        x, dy = frame.saved.x, b.contiguous(dy)
        dx = b.value(x.shape)

        def backward(arrays, training):
            x, dy, dx = arrays
            s = sigmoid(x)
            np.multiply(dy, s + x * s * (1 - s), out=dx)

        b.emit(numpy_step(backward, reads=[x, dy], writes=[dx]))
        return [dx]

    def to_onnx(self, scope, inputs):
        (x,) = inputs
        return scope.node("Mul", [x, scope.node("Sigmoid", [x], like=x)], like=x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(function, reads, writes):
    """A step that calls ``function`` with arrays (n, *shape): those it reads, then those it writes.

    What a step touches is said in elements per sample; the plan places its buffers by it.
    """

    def extents(values):
        return [Extent(value.slot, prod(value.shape)) for value in values]

    slots = [(value.slot, value.shape, None) for value in (*reads, *writes)]
    return PythonStep(function, slots, extents(reads), extents(writes))


def gradient_error() -> float:
    """Backward against finite differences along a random direction, relative to its size."""
    fc.set_floatx("float64")
    inputs = layers.Input((5, 4, 3))
    model = fc.Model(inputs, Swish()(inputs))
    fc.set_floatx("float32")
    rng = np.random.default_rng(0)
    x, dy, direction = rng.standard_normal((3, 2, 5, 4, 3))
    _, handle = model.forward(x)
    derivative = np.sum(model.backward(handle, dy) * direction)
    step = 1e-5
    ahead, behind = (model.forward(x + s * direction)[0] for s in (step, -step))
    difference = np.sum(dy * (ahead - behind)) / (2 * step)
    return float(abs(derivative - difference) / abs(difference))


def make_model() -> fc.Sequential:
    return fc.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),
            layers.Conv2D(16, 3, padding="same"),
            Swish(),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same"),
            Swish(),
            layers.Flatten(),
            layers.Dense(64),
            Swish(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", type=float, metavar="MIN", help="fail below this test accuracy")
    parser.add_argument("--export", metavar="PATH", help="write the network to ONNX, proved")
    args = parser.parse_args()

    error = gradient_error()
    print(f"gradient against finite differences: {error:.1e}")
    if not error <= 1e-7:
        sys.exit("the gradient of Swish is wrong")

    (x, y), (x_test, y_test) = fc.datasets.digits.load_data()
    fc.set_random_seed(args.seed)
    model = make_model()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[..., None], y, epochs=args.epochs, verbose=2)
    loss, accuracy = model.evaluate(x_test[..., None], y_test, verbose=0)
    print(f"test: loss {loss:.4f}, accuracy {accuracy:.4f}")
    if args.export:
        print(model.export(args.export))
    if args.check is not None and accuracy < args.check:
        sys.exit(f"test accuracy {accuracy:.4f} is below {args.check:g}")


if __name__ == "__main__":
    main()

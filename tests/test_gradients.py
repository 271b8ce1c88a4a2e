"""Every layer and loss: gradients in float64 along random directions, to 1e-7."""

import numpy as np
import pytest
from cases import CASES
from gradient_check import away_from, directional_check, spread

import fastconv as fc
from fastconv import activations, layers, losses
from fastconv.layer import REGISTRY


@pytest.fixture(autouse=True)
def double():
    fc.set_floatx("float64")
    yield
    fc.set_floatx("float32")


def build(case):
    fc.set_random_seed(7)
    inputs = [fc.Input(shape) for shape in case.inputs]
    return fc.Model(inputs, case.make(*inputs))


def data(case, rng, n):
    for shape in case.inputs:
        if case.ties:
            yield spread(rng, (n, *shape))
        elif case.kink is not None:
            yield away_from(rng, (n, *shape), case.kink)
        else:
            yield rng.standard_normal((n, *shape))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_gradients(case, training):
    model = build(case)
    rng = np.random.default_rng(3)
    xs = list(data(case, rng, 3))
    trained = [p for p in model.parameters() if p.trainable]
    for parameter in model.parameters():
        if np.ptp(parameter.value) == 0:  # zeros and ones hide mistakes
            parameter.value += rng.uniform(0.1, 0.5, parameter.shape)
    count = len(xs)

    def forward(arrays):
        for parameter, value in zip(trained, arrays[count:], strict=True):
            parameter.assign(value)
        fc.set_random_seed(11)  # the same dropout every time
        return model.forward(list(arrays[:count]), training=training)

    def f(*arrays):
        return forward(arrays)[0]

    def grad(*arrays):
        *arrays, dy = arrays
        _, handle = forward(arrays)
        dx = model.backward(handle, dy)
        return [*(dx if count > 1 else [dx]), *(p.grad.copy() for p in trained)]

    directional_check(f, grad, *xs, *(p.value.copy() for p in trained))


def test_every_layer_has_a_case():
    used = set()
    for case in CASES:
        used |= {type(layer).__name__ for layer in build(case).graph.layers}
    public = {name for name, cls in REGISTRY.items() if cls.__module__.startswith("fastconv.")}
    assert public - used == set()


class OwnSoftmax(layers.Layer):
    """A user's own, which has an activation and does not ask it for the gradient."""

    activation = activations.SOFTMAX

    def output_shape(self, shape):
        return shape

    def forward(self, b, frame):
        y = b.value(frame.inputs[0].shape)
        self.activation.forward(b, frame.inputs[0], y)
        return y

    def backward(self, b, frame, dy):
        dx = b.value(dy.shape)
        b.python(self._backward, reads=[frame.output, dy], writes=[dx])
        return [dx]

    def _backward(self, arrays, training):
        y, dy, dx = arrays
        dx[...] = y * (dy - (y * dy).sum(-1, keepdims=True))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


LOSSES = [
    ("mse", "tanh", "values"),
    ("categorical_crossentropy", "softmax", "distribution"),
    ("sparse_categorical_crossentropy", "softmax", "labels"),
    (losses.CategoricalCrossentropy(from_logits=True), None, "distribution"),
    (losses.SparseCategoricalCrossentropy(from_logits=True), None, "labels"),
    # a softmax that the loss does not swallow: another layer stands between
    ("categorical_crossentropy", "softmax then more", "distribution"),
    ("sparse_categorical_crossentropy", "softmax then more", "labels"),
    # one that it swallows, after an activation that it must not
    ("sparse_categorical_crossentropy", "tanh then softmax", "labels"),
    ("sparse_categorical_crossentropy", "tanh then own", "labels"),
]


@pytest.mark.parametrize("shape", [(6,), (3, 2, 6)], ids=["vectors", "images"])
@pytest.mark.parametrize(("loss", "ending", "kind"), LOSSES, ids=str)
def test_loss_gradients(loss, ending, kind, shape):
    rng = np.random.default_rng(5)
    x = fc.Input(shape)
    first = None if ending is None else ending.split()[0]
    y = layers.Dense(4, activation=first)(x)
    if ending == "softmax then more":
        y = layers.Rescaling(0.9, 0.02)(y)
    if ending == "tanh then softmax":
        y = layers.Softmax()(layers.Reshape(y.sample_shape)(layers.Rescaling(1.5)(y)))
    if ending == "tanh then own":
        y = OwnSoftmax()(y)
    model = fc.Model(x, y)
    model.compile(fc.optimizers.SGD(0.0), loss=loss, metrics=["accuracy"])
    data = rng.standard_normal((5, *shape))
    targets = {
        "labels": rng.integers(0, 4, (5, *shape[:-1])),
        "values": rng.standard_normal((5, *shape[:-1], 4)),
        "distribution": softmax(rng.standard_normal((5, *shape[:-1], 4))),
    }[kind]

    def f(*arrays):
        model.set_weights(arrays)
        return np.array(model.evaluate(data, targets, verbose=0)[0])

    def grad(*arrays):
        *arrays, dy = arrays
        model.set_weights(arrays)
        model.train_on_batch(data, targets)
        return [parameter.grad * dy for parameter in model.parameters()]

    directional_check(f, grad, *model.get_weights())

"""Random graphs: whatever is joined to whatever, values and gradients are right.

What the plan decides is at stake here, not the layers: lives of buffers, slices of concatenations,
gradients added where a value has several readers, layers that return their input as it is. Every
arena is filled with NaN beforehand, so that a buffer that is read too early or too late shows.
"""

import random

import numpy as np
import pytest
from gradient_check import directional_check

import fastconv as fc
from fastconv import layers
from fastconv.plan import RunningPass

POINTWISE = ["linear", "tanh", "sigmoid", "softmax"]


@pytest.fixture(autouse=True)
def poisoned_arenas(monkeypatch):
    """All bytes of a new pass are 255: NaN as a number, no class as a label."""
    init = RunningPass.__init__

    def poisoned(self, plan, capacity):
        init(self, plan, capacity)
        for slot, entry in enumerate(plan.slots):
            if entry.buffer is not None and entry.buffer.last >= 0 and entry.offset == 0:
                size = entry.buffer.nbytes(capacity, self.native.dtype.itemsize)
                self.native.view(slot, (size,), np.uint8)[...] = 255

    monkeypatch.setattr(RunningPass, "__init__", poisoned)


@pytest.fixture(autouse=True)
def double():
    fc.set_floatx("float64")
    yield
    fc.set_floatx("float32")


def images_like(tensor, tensors):
    return [t for t in tensors if t.sample_shape[:-1] == tensor.sample_shape[:-1]]


def grow(rng, tensors, shared):
    """One more tensor, made of those that there are."""
    x = rng.choice(tensors)
    equal = [t for t in tensors if t.sample_shape == x.sample_shape]
    kind = rng.choice(
        ["conv", "depthwise", "dense", "norm", "pointwise", "dropout", "add", "join", "join",
         "stack", "pool", "rescaling", "reshape", "again"]
    )  # fmt: skip
    if kind == "conv":
        filters, window = rng.choice([1, 2, 17]), rng.choice([1, 2, 3])
        activation = rng.choice([None, "tanh", "softmax"])
        make = rng.choice([layers.Conv2D, layers.Conv2DTranspose])
        return make(filters, window, padding="same", activation=activation)(x)
    if kind == "depthwise":
        multiplier, window = rng.choice([1, 1, 2]), rng.choice([1, 2, 3])
        return layers.DepthwiseConv2D(
            window, padding="same", depth_multiplier=multiplier, activation=rng.choice(POINTWISE)
        )(x)
    if kind == "dense":
        shared.append(
            (layers.Dense(x.sample_shape[-1], activation=rng.choice(POINTWISE)), x.sample_shape)
        )
        return shared[-1][0](x)
    if kind == "norm":
        shared.append((layers.BatchNormalization(), x.sample_shape))
        return shared[-1][0](x)
    if kind == "again" and shared:  # a layer used at several places
        layer, shape = rng.choice(shared)
        return layer(rng.choice([t for t in tensors if t.sample_shape == shape]))
    if kind == "add":
        return layers.Add()([x, *rng.choices(equal, k=rng.choice([1, 2]))])
    if kind == "join":
        return layers.Concatenate()(
            [x, *rng.choices(images_like(x, tensors), k=rng.choice([0, 1, 2]))]
        )
    if kind == "stack":
        return layers.Concatenate(axis=1)([x, rng.choice(equal)])
    if kind == "pool":
        return layers.AveragePooling2D(2, strides=1, padding="same")(x)
    if kind == "rescaling":
        return layers.Rescaling(0.7, 0.1)(x)
    if kind == "reshape":
        return layers.Reshape(x.sample_shape)(x)
    if kind == "dropout":
        return layers.Dropout(0.3)(x)
    return layers.Activation(rng.choice(POINTWISE))(x)


def random_model(seed):
    """A graph with one or two inputs and one to three outputs, which may be anything in it."""
    rng = random.Random(seed)
    fc.set_random_seed(seed)
    inputs = [fc.Input((3, 4, rng.choice([1, 2, 3]))) for _ in range(rng.choice([1, 1, 2]))]
    tensors, shared = list(inputs), []
    for _ in range(rng.randrange(3, 10)):
        y = grow(rng, tensors, shared)
        if np.prod(y.sample_shape) < 2000:
            tensors.append(y)
    model = fc.Model(inputs, [tensors[-1], *rng.choices(tensors, k=rng.choice([0, 1, 2]))])
    numbers = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.value += numbers.uniform(0.1, 0.5, parameter.shape)
    return model, [numbers.standard_normal((3, *t.sample_shape)) for t in model.inputs]


@pytest.mark.parametrize("seed", range(150))
def test_values(seed):
    model, xs = random_model(seed)
    whole = model.predict(xs)
    for tensor, y in zip(model.outputs, whole, strict=True):
        assert np.isfinite(y).all()
        np.testing.assert_array_equal(fc.Model(model.inputs, tensor).predict(xs), y)
    for one, y in zip(model.predict([x[1:2] for x in xs]), whole, strict=True):
        np.testing.assert_array_equal(one, y[1:2])


@pytest.mark.parametrize("seed", range(150))
def test_gradients(seed):
    model, xs = random_model(seed)
    trained = [p for p in model.parameters() if p.trainable]
    count = len(xs)
    parts = np.cumsum([y.size for y in model.predict(xs)])[:-1]

    def forward(arrays):
        for parameter, value in zip(trained, arrays[count:], strict=True):
            parameter.assign(value)
        fc.set_random_seed(seed)  # the same dropout every time
        return model.forward(list(arrays[:count]), training=True)

    def f(*arrays):
        return np.concatenate([y.ravel() for y in forward(arrays)[0]])

    def grad(*arrays):
        *arrays, dy = arrays
        _, other = forward([x + 1 for x in arrays[:count]] + list(arrays[count:]))
        y, handle = forward(arrays)  # two passes are alive
        dys = [d.reshape(v.shape) for d, v in zip(np.split(dy, parts), y, strict=True)]
        dx = model.backward(handle, dys)
        grads = [*(dx if count > 1 else [dx]), *(p.grad.copy() for p in trained)]
        model.backward(other, dys)
        return grads

    directional_check(f, grad, *xs, *(p.value.copy() for p in trained))

"""Nodes that are carried out together: which ones, and that nobody can tell from the numbers."""

import random

import numpy as np
import pytest
from gradient_check import NotDifferentiable, directional_check
from test_graphs import double, grow, poisoned_arenas

import fastconv as fc
from fastconv import layers
from fastconv.fusion import units
from fastconv.graph import Graph

__all__ = ["double", "poisoned_arenas"]

RELUS = {
    "relu": layers.ReLU,
    "relu6": lambda: layers.ReLU(max_value=0.6),
    "general": lambda: layers.ReLU(0.8, 0.1, 0.2),
    "leaky": lambda: layers.LeakyReLU(0.3),
}


def block(x, relu="relu", residual=True, **options):
    """conv, batch norm, the sum with x, activation."""
    y = layers.Conv2D(x.sample_shape[-1], 3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization(**options)(y)
    y = layers.Add()([y, x]) if residual else y
    return RELUS[relu]()(y)


def names(inputs, outputs, inference=False):
    """What each unit is made of: its layer's class, residual, activation."""
    return [
        (
            type(u.layer).__name__,
            len(u.inputs) - (u.layer.arity or len(u.inputs)),
            u.activation.name,
        )
        for u in units(Graph(inputs, outputs), inference)
        if not isinstance(u.layer, layers.InputLayer)
    ]


def test_what_is_carried_out_together():
    x = fc.Input((6, 6, 3))
    assert names(x, block(x)) == [("Conv2D", 0, "linear"), ("BatchNormalization", 1, "relu")]
    assert names(x, block(x, residual=False))[1] == ("BatchNormalization", 0, "relu")
    assert names(x, layers.ReLU()(layers.Add()([x, x]))) == [("Add", 0, "relu")]
    assert names(x, layers.ReLU()(layers.Conv2D(2, 1)(x))) == [("Conv2D", 0, "relu")]
    assert names(x, layers.LeakyReLU()(layers.Dense(2)(x))) == [("Dense", 0, "leaky_relu")]
    assert len(names(x, layers.ReLU()(layers.Conv2D(2, 1, activation="tanh")(x)))) == 2
    assert len(names(x, layers.Activation("tanh")(layers.BatchNormalization()(x)))) == 2
    assert len(names(x, layers.ReLU()(layers.ReLU()(layers.BatchNormalization()(x))))) == 2
    assert len(names(x, layers.Add()([layers.BatchNormalization()(x), x, x]))) == 2
    both = layers.Add()([layers.BatchNormalization()(x), layers.BatchNormalization()(x)])
    assert [residual for _, residual, _ in names(x, layers.ReLU()(both))] == [0, 1]


def test_a_value_that_somebody_reads_is_never_left_out():
    x = fc.Input((6, 6, 3))
    y = layers.BatchNormalization()(x)
    z = layers.ReLU()(y)
    assert len(names(x, z)) == 1
    assert len(names(x, [z, y])) == 2  # an output of the model
    assert len(names(x, layers.Concatenate()([y, z]))) == 3  # two readers
    assert len(names(x, layers.Add()([y, y]))) == 2  # one reader, twice
    total = layers.Add()([y, x])
    assert len(names(x, [layers.ReLU()(total), total])) == 2


def test_what_a_product_carries_out_at_inference():
    x = fc.Input((6, 6, 3))
    assert names(x, block(x), True) == [("Conv2D", 1, "relu")]
    assert names(x, block(x, "relu6", residual=False), True) == [("Conv2D", 0, "relu")]
    norm = layers.BatchNormalization
    for product in (layers.DepthwiseConv2D(3), layers.Conv2DTranspose(2, 3), layers.Dense(5)):
        assert names(x, layers.LeakyReLU()(norm()(product(x))), True) == [
            (type(product).__name__, 0, "leaky_relu")
        ]
    both = layers.Add()([norm()(layers.Dense(3)(x)), norm()(layers.Conv2D(3, 1)(x))])
    assert names(x, layers.ReLU()(both), True) == [("Dense", 0, "linear"), ("Conv2D", 1, "relu")]
    y = layers.Conv2D(3, 1)(x)
    assert len(names(x, norm()(y))) == 2  # a backward may follow
    assert len(names(x, [norm()(y), y], True)) == 2  # an output of the model
    assert len(names(x, layers.Add()([norm()(y), y]), True)) == 2  # two readers
    assert len(names(x, norm()(norm()(y)), True)) == 2  # the second by itself
    assert len(names(x, norm()(layers.ReLU()(y)), True)) == 2
    assert len(names(x, norm()(layers.Conv2D(3, 1, activation="relu")(x)), True)) == 2
    assert len(names(x, norm()(layers.MaxPooling2D()(x)), True)) == 2
    assert len(names(x, layers.ReLU()(layers.ReLU()(norm()(y))), True)) == 2


PRODUCTS = {
    "direct": ((6, 5, 3), lambda: layers.Conv2D(7, 3, padding="same")),
    "winograd": ((9, 10, 17), lambda: layers.Conv2D(40, 3, padding="same", use_bias=False)),
    "winograd, wide": ((6, 6, 256), lambda: layers.Conv2D(256, 3, padding="same")),
    "1x1": ((7, 6, 19), lambda: layers.Conv2D(35, 1, strides=2)),
    "groups": ((7, 6, 6), lambda: layers.Conv2D(8, 3, groups=2)),
    "abreast": ((8, 8, 1), lambda: layers.Conv2D(4, 3, padding="same")),
    "few channels": ((8, 8, 2), lambda: layers.Conv2D(18, 3, padding="same")),
    "depthwise": ((9, 8, 18), lambda: layers.DepthwiseConv2D(3, padding="same")),
    "depthwise, one channel": ((8, 8, 1), lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "multiplier": ((9, 8, 5), lambda: layers.DepthwiseConv2D(3, 2, depth_multiplier=2)),
    "transposed": ((4, 5, 7), lambda: layers.Conv2DTranspose(19, 3, 2)),
    "transposed, no window": ((4, 5, 7), lambda: layers.Conv2DTranspose(9, 2, 3)),
    "transposed, winograd": ((8, 9, 20), lambda: layers.Conv2DTranspose(18, 3, padding="same")),
    "spread": ((4, 5, 7), lambda: layers.Conv2DTranspose(3, 3, 2)),
    "dense": ((50,), lambda: layers.Dense(1100)),
    "dense on pixels": ((3, 50), lambda: layers.Dense(11)),
}


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("relu", [None, *RELUS])
@pytest.mark.parametrize("name", PRODUCTS)
def test_every_bit_of_a_product_with_its_norm(monkeypatch, real, relu, name):
    """Also in a slice of a concatenation, and with a residual that is one."""
    fc.set_floatx(real)
    fc.set_random_seed(1)
    shape, make = PRODUCTS[name]
    x = fc.Input(shape)

    def normed(shortcut=None):
        y = layers.BatchNormalization(scale=shortcut is None, center=relu != "leaky")(make()(x))
        y = y if shortcut is None else layers.Add()([shortcut, y])
        return y if relu is None else RELUS[relu]()(y)

    first = normed()
    second = normed(first)
    model = fc.Model(x, layers.Concatenate()([second, normed(second), normed(first), first]))
    for p in model.parameters():
        p.value += np.random.default_rng(0).uniform(0.1, 0.5, p.shape)
    assert len(units(model.graph, inference=True)) == 6
    xs = np.random.default_rng(1).standard_normal((18, *shape))
    for n in (3, 18):
        together = model.predict(xs[:n], batch_size=n)
        np.testing.assert_array_equal(together, model.forward(xs[:n])[0])
    model.compile("sgd", "mse")
    loss = model.evaluate(xs, np.zeros_like(together), batch_size=18, verbose=0)
    unfused(monkeypatch, model)
    np.testing.assert_array_equal(model.predict(xs, batch_size=18), together)
    assert model.evaluate(xs, np.zeros_like(together), batch_size=18, verbose=0) == loss


def test_a_fused_norm_follows_its_parameters():
    x = fc.Input((6, 6, 3))
    norm = layers.BatchNormalization()
    model = fc.Model(x, layers.ReLU()(norm(layers.Conv2D(8, 3)(x))))
    xs = np.random.default_rng(1).standard_normal((2, *x.sample_shape))
    before = model.predict(xs)
    norm.gamma.assign(np.full(8, 2.0))
    norm.moving_variance.assign(np.full(8, 3.0))
    after = model.predict(xs)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(after, model.forward(xs)[0])


def test_subclasses_compute_what_they_like():
    class Mine(layers.BatchNormalization):
        pass

    x = fc.Input((6, 6, 3))
    assert len(names(x, layers.ReLU()(Mine()(x)))) == 2


def everything(model, xs, training):
    """Outputs, gradients and moving statistics of two passes that are alive together."""
    fc.set_random_seed(3)
    before = [p.value.copy() for p in model.parameters()]
    ys, handle = model.forward(xs, training=training)
    model.forward([x + 1 for x in xs], training=training)
    ys = ys if isinstance(ys, list) else [ys]
    dxs = model.backward(handle, [np.cos(np.arange(y.size)).reshape(y.shape) for y in ys])
    found = [*ys, *(dxs if isinstance(dxs, list) else [dxs])]
    found += [p.grad.copy() if p.trainable else p.value.copy() for p in model.parameters()]
    predicted = model.predict(xs)
    found += predicted if isinstance(predicted, list) else [predicted]
    for parameter, value in zip(model.parameters(), before, strict=True):
        parameter.assign(value)
    return found


def unfused(monkeypatch, model):
    """The model from now on, each node by itself."""
    monkeypatch.setenv("FASTCONV_FUSION", "0")
    assert len(units(model.graph)) == len(model.graph.nodes)
    model._plans.clear()
    return model


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("relu", RELUS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_every_bit_is_the_same(monkeypatch, real, relu, training, frozen):
    if training:  # Winograd takes the statistics in pieces of its own: see below
        monkeypatch.setenv("FASTCONV_CONV", "direct")
    fc.set_floatx(real)
    fc.set_random_seed(1)
    x = fc.Input((5, 7, 19))
    y = block(block(x, relu, residual=False, trainable=not frozen), relu, center=False)
    z = block(layers.Conv2D(16, 3, padding="same")(y), relu, scale=False)
    skip = layers.BatchNormalization()(layers.Conv2D(16, 1)(y))
    z = RELUS[relu]()(layers.Add()([z, skip]))
    model = fc.Model(x, layers.Dense(3)(layers.Concatenate()([z, block(z, relu)])))
    for p in model.parameters():
        p.value += np.random.default_rng(0).uniform(0.1, 0.5, p.shape)
    xs = [np.random.default_rng(1).standard_normal((3, *x.sample_shape))]
    together = everything(model, xs, training)
    for a, b in zip(together, everything(unfused(monkeypatch, model), xs, training), strict=True):
        np.testing.assert_array_equal(a, b)


def gathering(inputs, outputs, **purpose):
    """Names of the layers whose sums a batch norm wants the statistics of."""
    found = units(Graph(inputs, outputs), **purpose)
    return [type(u.layer).__name__ for u in found if u.moments]


def test_who_takes_the_statistics():
    x = fc.Input((8, 8, 16))
    conv, norm = layers.Conv2D(16, 3, padding="same"), layers.BatchNormalization
    y = conv(x)
    assert gathering(x, norm()(y), training=True) == ["Conv2D"]
    assert gathering(x, [layers.ReLU()(norm()(y)), y], training=True) == ["Conv2D"]  # y is written
    assert gathering(x, layers.Add()([norm()(y), norm()(y)]), training=True) == ["Conv2D"]
    assert not gathering(x, norm()(y))
    assert not gathering(x, norm()(y), inference=True)
    assert not gathering(x, norm(trainable=False)(y), training=True)
    assert not gathering(x, norm()(layers.ReLU()(y)), training=True)
    assert not gathering(x, norm()(layers.Conv2D(4, 3, activation="relu")(x)), training=True)
    assert not gathering(x, layers.ReLU()(y), training=True)


def statistics_model(monkeypatch, real, frozen=False):
    monkeypatch.setenv("FASTCONV_CONV", "winograd")
    fc.set_floatx(real)
    fc.set_random_seed(2)
    x = fc.Input((9, 11, 16))
    y = block(layers.Conv2D(17, 3, padding="same")(x), residual=False)
    y = block(y, "leaky", trainable=not frozen)
    y = layers.BatchNormalization()(layers.Conv2D(16, 5, padding="same")(y))
    z = layers.Conv2D(18, 3, padding="same")(y)
    both = [layers.BatchNormalization()(z), layers.BatchNormalization(scale=False)(z), z]
    model = fc.Model(x, layers.GlobalAveragePooling2D()(layers.Concatenate()(both)))
    return model, np.random.default_rng(1).standard_normal((5, *x.sample_shape)) + 3


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_from_the_convolution(monkeypatch, frozen, real):
    """Those of a pass of its own but for rounding, the same bits on any number of threads."""
    model, xs = statistics_model(monkeypatch, real, frozen)
    steps = [type(s).__name__ for s in plan_in_training(model, xs).forward.steps]
    assert steps.count("WinogradForward") == 5
    assert steps.count("BatchNormStatistics") == 0
    found = set()
    before = fc.get_num_threads()
    try:
        for threads in (1, 2, 3, 4, 7):
            fc.set_num_threads(threads)
            model._plans.clear()
            together = everything(model, [xs], True)
            found.add(tuple(np.asarray(a).tobytes() for a in together))
    finally:
        fc.set_num_threads(before)
    assert len(found) == 1
    tolerance = 1e-4 if real == "float32" else 1e-11
    for a, b in zip(together, everything(unfused(monkeypatch, model), [xs], True), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


def plan_in_training(model, xs):
    model.forward(xs, training=True)
    return next(reversed(model._plans.values()))[0]


@pytest.mark.parametrize("dropped", ["conv", "batch", "both"])
def test_statistics_are_kept_where_convolutions_are_computed_again(monkeypatch, dropped):
    gradients = []
    for again in (False, True):
        model, xs = statistics_model(monkeypatch, "float32")
        names = [
            layer.name
            for layer in model.layers
            if (dropped != "conv" and isinstance(layer, layers.BatchNormalization))
            or (dropped != "batch" and isinstance(layer, layers.Conv2D))
        ]
        model.compile("sgd", "mse", recompute=names if again else None)
        model.train_on_batch(xs, np.zeros((5, 54)))
        gradients.append([p.grad.copy() if p.trainable else p.value for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("relu", RELUS)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_gradients(relu, residual, training):
    fc.set_random_seed(5)
    x = fc.Input((2, 2, 3))
    y = block(x, relu, residual)
    model = fc.Model(x, RELUS[relu]()(layers.Add()([y, RELUS[relu]()(layers.Dense(3)(x))])))
    trained = [p for p in model.parameters() if p.trainable]

    def forward(x, *values):
        for parameter, value in zip(trained, values, strict=True):
            parameter.assign(value)
        return model.forward(x, training=training)

    def gradients(*arrays):
        *arrays, dy = arrays
        dx = model.backward(forward(*arrays)[1], dy)
        return [dx, *(p.grad.copy() for p in trained)]

    values = [p.value.copy() for p in trained]
    for attempt in range(20):  # not every point is far from all kinks
        data = np.random.default_rng(attempt).standard_normal((2, *x.sample_shape))
        try:
            directional_check(lambda *a: forward(*a)[0], gradients, data, *values)
            return
        except NotDifferentiable:
            continue
    pytest.fail("a kink everywhere")


@pytest.mark.parametrize("seed", range(100))
def test_random_graphs(monkeypatch, seed):
    rng = random.Random(seed)
    fc.set_random_seed(seed)
    inputs = [fc.Input((3, 4, rng.choice([1, 2, 3]))) for _ in range(rng.choice([1, 2]))]
    tensors, shared = list(inputs), []
    for _ in range(rng.randrange(3, 12)):
        if rng.random() < 0.6:
            x = rng.choice(tensors)
            y = block(x, rng.choice(list(RELUS)), rng.random() < 0.6)
        else:
            y = grow(rng, tensors, shared)
        if np.prod(y.sample_shape) < 2000:
            tensors.append(y)
    model = fc.Model(inputs, [tensors[-1], *rng.choices(tensors, k=rng.choice([0, 1, 2]))])
    numbers = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.value += numbers.uniform(0.1, 0.5, parameter.shape)
    xs = [numbers.standard_normal((3, *t.sample_shape)) for t in model.inputs]
    assert len(units(model.graph)) <= len(model.graph.nodes)
    together = everything(model, xs, True)
    apart = everything(unfused(monkeypatch, model), xs, True)
    for a, b in zip(together, apart, strict=True):  # gradients of three readers: another order
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1, np.abs(b).max()))


def test_what_a_model_says_of_itself_stays(monkeypatch, tmp_path):
    x = fc.Input((6, 6, 3))
    model = fc.Model(x, block(x))
    lines, parts = [], []
    model.summary(lines.append)
    unfused(monkeypatch, model).summary(parts.append)
    assert [line for line in lines if "relu" in line.lower()]
    assert lines[0].splitlines()[1:] == parts[0].splitlines()[1:]


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("relu", RELUS)
def test_pooling_passes_the_activation_before_it(monkeypatch, real, strides, relu):
    fc.set_floatx(real)
    x = fc.Input((9, 8, 3))
    y = RELUS[relu]()(layers.Conv2D(17, 3)(x))
    y = layers.MaxPooling2D(3, strides, "same")(layers.Conv2D(5, 1, activation="relu")(y))
    y = layers.MaxPooling2D(2, strides)(RELUS[relu]()(layers.Conv2D(18, 2, padding="same")(y)))
    model = fc.Model(x, y)
    passed = [u.input_activation.name for u in units(model.graph)]
    assert passed.count("relu") == (1 if relu in ("general", "leaky") else 2)
    xs = [np.random.default_rng(1).standard_normal((3, *x.sample_shape))]
    together = everything(model, xs, True)
    for a, b in zip(together, everything(unfused(monkeypatch, model), xs, True), strict=True):
        np.testing.assert_array_equal(a, b)


def test_pooling_leaves_the_activation_where_others_read():
    x = fc.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, activation="relu")(x)
    z = layers.MaxPooling2D(2)(y)

    def passed(outputs):
        return any(u.input_activation.name != "linear" for u in units(Graph(x, outputs)))

    assert passed(z)
    assert not passed([z, y])
    assert not passed([z, layers.MaxPooling2D(3)(y)])
    assert not passed(layers.MaxPooling2D(2)(layers.Conv2D(4, 3, activation="tanh")(x)))


# ---- dropout ----


def dense(x):
    y = layers.Dropout(0.5)(layers.Dense(33, activation="relu")(x))
    return layers.Dropout(0.3)(layers.ReLU()(layers.Dense(7, use_bias=False)(y)))


def mnist(x):
    y = layers.Conv2D(5, 3, activation="relu")(x)
    y = layers.MaxPooling2D(2)(layers.Conv2D(7, 3, activation="relu")(y))
    y = layers.Dense(9, activation="relu")(layers.Flatten()(layers.Dropout(0.25)(y)))
    return layers.Dense(3, activation="softmax")(layers.Dropout(0.5)(y))


def flat_first(x):
    y = layers.AveragePooling2D(3, 1, "same")(layers.Conv2D(5, 3, activation="relu")(x))
    y = layers.MaxPooling2D(3, 2)(layers.Conv2D(19, 1)(layers.Dropout(0.1, seed=4)(y)))
    return layers.Dense(3)(layers.Dropout(0.25)(layers.Flatten()(y)))


def norms(x):
    y = layers.Dropout(0.2)(block(x, "leaky", residual=False))
    y = layers.Dropout(0.4)(block(y, trainable=False))
    y = layers.Dropout(0.4)(layers.BatchNormalization()(y))
    return layers.Dropout(0.3)(layers.Add()([layers.BatchNormalization()(y), y]))


def functions(x):
    y = layers.Dropout(0.2)(layers.Conv2D(5, 3, activation="tanh")(x))
    y = layers.Dropout(0.3)(layers.Activation("tanh")(layers.Dense(4)(y)))
    y = layers.Dropout(0.4)(RELUS["relu6"]()(layers.DepthwiseConv2D(3)(y)))
    y = layers.Dropout(0.2)(layers.Conv2DTranspose(4, 3, activation="relu")(y))
    y = layers.ReLU()(layers.Dropout(0.5)(layers.DepthwiseConv2D(2, activation="relu")(y)))
    return layers.Dropout(0.1)(layers.ReLU(threshold=0.1)(layers.Conv2D(4, 2)(y)))


def pools(x):
    """Max pooling before and behind dropout, and behind a ReLU with a cap."""
    y = layers.Dropout(0.2)(layers.Conv2D(17, 3, padding="same", activation="relu")(x))
    y = layers.Dropout(0.4)(layers.MaxPooling2D(2, 1)(y))
    y = layers.MaxPooling2D(3, 1)(RELUS["relu6"]()(layers.Conv2D(5, 1)(y)))
    return layers.Dropout(0.4)(layers.Dropout(0.3)(y))


def sums(x):
    y = layers.Dropout(0.3)(layers.Add()([layers.Dense(19)(x), layers.Dense(19)(x)]))
    y = layers.Add()([y, layers.Dense(19, activation="relu")(x), y])
    return layers.Dropout(0.2)(layers.ReLU()(y))


def slices(x):
    """Every kind that drops, into slices of a wider buffer, and a dropout that reads one."""
    y = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    parts = [
        layers.Dropout(0.2)(layers.Dense(5, activation="relu")(y)),
        layers.Dropout(0.3)(layers.BatchNormalization()(y)),
        layers.Dropout(0.4)(layers.MaxPooling2D(3, 1, "same")(y)),
        layers.Dropout(0.5)(layers.AveragePooling2D(3, 1, "same")(y)),
        layers.Dropout(0.6)(layers.ReLU()(layers.Add()([y, layers.Dense(6)(y)]))),
        layers.Dropout(0.7)(y),
        layers.Dropout(0.1)(layers.Activation("tanh")(layers.Dense(3)(y))),
    ]
    return layers.Dropout(0.3)(layers.Concatenate()(parts))


def two_readers(x):
    y = layers.Dropout(0.5)(layers.Conv2D(6, 3, activation="relu")(x))
    z = layers.Dropout(0.5)(layers.MaxPooling2D(2)(layers.Conv2D(6, 1, activation="relu")(y)))
    one = layers.Conv2D(2, 1, activation="relu")(y)  # this value is read behind its dropout too
    return [z, layers.Dense(2)(z), layers.Dense(3)(y), layers.Dropout(0.3)(one), one]


def shared(x):
    step, drop = layers.Dense(3, activation="relu"), layers.Dropout(0.5)
    return drop(step(drop(step(drop(x)))))


DROPOUTS = [dense, mnist, flat_first, norms, functions, pools, sums, slices, two_readers, shared]


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("make", DROPOUTS)
@pytest.mark.parametrize("training", [True, False])
def test_dropout_in_the_layer_before_it(monkeypatch, real, make, training):
    fc.set_floatx(real)
    fc.set_random_seed(1)
    x = fc.Input((11, 12, 3))
    model = fc.Model(x, make(x))
    for p in model.parameters():
        p.value += np.random.default_rng(0).uniform(-0.1, 0.3, p.shape)
    xs = [np.random.default_rng(1).standard_normal((3, *x.sample_shape))]
    together = everything(model, xs, training)
    assert len(units(model.graph)) < len(model.graph.nodes)
    for a, b in zip(together, everything(unfused(monkeypatch, model), xs, training), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", DROPOUTS)
@pytest.mark.parametrize("which", ["*", "dropout*", "[!d]*", "max_pooling2d*", "flatten*"])
def test_dropout_that_is_computed_again(monkeypatch, make, which):
    fc.set_random_seed(1)
    x = fc.Input((11, 12, 3))
    outputs = make(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    flat = [layers.Flatten()(y) if len(y.sample_shape) > 1 else y for y in outputs]
    model = fc.Model(x, layers.Dense(3)(layers.Concatenate()(flat) if flat[1:] else flat[0]))
    start = [p.value.copy() for p in model.parameters()]
    data = np.random.default_rng(1).standard_normal((6, *x.sample_shape)).astype("f4")
    labels = np.random.default_rng(2).standard_normal((6, 3)).astype("f4")
    found = []
    for fusion, recompute in (("0", None), ("1", None), ("1", [which])):
        monkeypatch.setenv("FASTCONV_FUSION", fusion)
        fc.set_random_seed(3)
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.assign(value)
        try:
            model.compile("sgd", "mse", recompute=recompute)
        except ValueError:  # no layer of this name
            return
        for _ in range(2):
            model.train_on_batch(data, labels)
        found.append([p.value.copy() for p in model.parameters()])
    for again in found[1:]:
        for a, b in zip(again, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


def masked(inputs, outputs):
    """The heads that apply a dropout, and the nodes that are left alone to do it."""
    found = units(Graph(inputs, outputs))
    carry = [type(u.layer).__name__ for u in found if u.mask is not None]
    return carry, sum(type(u.layer) is layers.Dropout for u in found)


def test_who_applies_dropout():
    x = fc.Input((11, 12, 3))
    assert masked(x, dense(x)) == (["Dense", "Dense"], 0)
    assert masked(x, mnist(x)) == (["MaxPooling2D", "Dense"], 0)
    assert masked(x, flat_first(x)) == (["AveragePooling2D", "MaxPooling2D"], 0)
    assert masked(x, norms(x)) == (["BatchNormalization"] * 4, 0)
    assert masked(x, functions(x))[1] == 3  # their derivatives ask for what was not dropped
    assert masked(x, pools(x)) == (["Conv2D", "MaxPooling2D"], 2)
    assert masked(x, layers.Dropout(0.5)(x)) == ([], 1)
    y = layers.Dense(3)(x)
    assert masked(x, layers.Dropout(0)(y)) == ([], 1)
    assert masked(x, [layers.Dropout(0.5)(y), y]) == ([], 1)
    assert masked(x, layers.Concatenate()([layers.Dropout(0.5)(y), y])) == ([], 1)
    flat = layers.Flatten()(y)
    assert masked(x, layers.Dropout(0.5)(flat)) == (["Dense"], 0)
    assert masked(x, [layers.Dropout(0.5)(flat), y]) == ([], 1)
    assert masked(x, [layers.Dropout(0.5)(flat), flat]) == ([], 1)


def test_a_dropped_relu_needs_no_random_numbers_in_backward():
    x = fc.Input((11, 12, 3))
    model = fc.Model(x, mnist(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    plan, _ = model._plan_for("fit", [(11, 12, 3)])
    titles = [step.title for step in [*plan.forward.steps, *plan.backward.steps]]
    assert "dropout backward" not in titles
    assert titles.count("dropout forward") == 1  # the dense layer's, where its result lies

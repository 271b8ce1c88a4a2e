"""Parts of one's own in numpy: they train, are checked, saved, loaded and exported."""

import numpy as np
import pytest
from test_fit import X, Y, net, weights

import fastconv as fc
from fastconv import initializers, layers, own


class OwnSwish(own.NumpyLayer):
    """y = x · sigmoid(β x), β per channel."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        self.beta = self.add_parameter("beta", shape[-1:], initializers.Constant(self.start))

    def call(self, x):
        return x / (1 + np.exp(-self.beta.value * x))

    def gradient(self, x, y, dy):
        s = 1 / (1 + np.exp(-self.beta.value * x))
        self.beta.grad += np.sum(dy * x * y * (1 - s), axis=tuple(range(x.ndim - 1)))
        return dy * (s + self.beta.value * y * (1 - s))

    def to_onnx(self, scope, inputs):
        (x,) = inputs
        shape = [1] * (x.rank + 1)
        shape[x.axis(-1)] = -1
        beta = scope.parameter(self.beta, x.permute(self.beta.value).reshape(shape))
        s = scope.node("Sigmoid", [scope.node("Mul", [x, beta], like=x)], like=x)
        return scope.node("Mul", [x, s], like=x)

    def get_config(self):
        return {**super().get_config(), "start": self.start}


class OwnProduct(own.NumpyLayer):
    """y = a · b, and noise in training."""

    arity = None

    def call(self, a, b, training):
        return a * b + (1 if training else 0)

    def gradient(self, a, b, y, dy):
        return dy * b, dy * a


class OwnSquare(own.NumpyLoss):
    """Σ (y − t)², with a factor."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def value(self, target, y):
        return self.factor * np.square(y - target).reshape(len(y), -1).mean(axis=1)

    def gradient(self, target, y):
        return 2 * self.factor * (y - target) / y[0].size

    def get_config(self):
        return {"factor": self.factor}


class OwnError(own.NumpyMetric):
    def value(self, target, y):
        return np.abs(y - target).reshape(len(y), -1).mean(axis=1)


def with_swish():
    fc.set_random_seed(0)
    return fc.Sequential(
        [layers.Input((6, 6, 1)), layers.Rescaling(1 / 255), layers.Conv2D(3, 3, name="conv"),
         OwnSwish(0.5, name="swish"), layers.Flatten(), layers.Dense(3, activation="softmax")]
    )  # fmt: skip


def test_a_layer_in_every_way(tmp_path):
    assert fc.check_gradients(OwnSwish(2.0), input_shape=(4, 3))
    model = with_swish()
    model.compile("adam", "sparse_categorical_crossentropy")
    assert fc.check_gradients(model)
    model.fit(X, Y, epochs=2, verbose=0)
    beta = model.get_layer("swish").beta.value
    assert (beta != 0.5).all()
    model.save(tmp_path / "m.fastconv")
    again = fc.load_model(tmp_path / "m.fastconv")
    assert again.get_layer("swish").start == 0.5
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert model.export(tmp_path / "m.onnx").operators["Sigmoid"] == 1


def test_a_layer_of_several_inputs_that_is_told_of_training():
    a, b = fc.Input((4,)), fc.Input((4,))
    model = fc.Model([a, b], OwnProduct()([a, b]))
    assert fc.check_gradients(model, training=True)
    rows = np.random.default_rng(0).random((2, 5, 4), dtype=np.float32)
    np.testing.assert_array_equal(model.predict(list(rows)), rows[0] * rows[1])
    y, _ = model.forward(list(rows), training=True)
    np.testing.assert_array_equal(y, rows[0] * rows[1] + 1)


class Diagonal(initializers.Initializer):
    """A number on the diagonal."""

    def __init__(self, number=1.0):
        super().__init__()
        self.number = number

    def draw(self, shape, generator):
        return self.number * np.eye(*shape)

    def get_config(self):
        return {"number": self.number}


def test_an_initializer(tmp_path):
    x = fc.Input((3,))
    model = fc.Model(x, layers.Dense(2, kernel_initializer=Diagonal(4.0))(x))
    np.testing.assert_array_equal(model.predict(np.eye(3)), 4 * np.eye(3, 2))
    model.save(tmp_path / "m.fastconv")
    again = fc.load_model(tmp_path / "m.fastconv")
    assert again.get_config() == model.get_config()
    clone = fc.models.clone_model(again)
    np.testing.assert_array_equal(clone.predict(np.eye(3)), model.predict(np.eye(3)))


def test_a_frozen_layer_is_not_trained():
    model = with_swish()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.get_layer("swish").trainable = False
    model.fit(X, Y, verbose=0)
    assert (model.get_layer("swish").beta.value == 0.5).all()


def regression(loss, metrics=None):
    model = net()
    model.compile("sgd", loss, metrics=metrics)
    return model


def test_a_loss_and_a_metric(tmp_path):
    target = np.random.default_rng(0).random((70, 3))
    w = np.linspace(0, 2, 70)
    mine = regression(OwnSquare(), [OwnError()])
    theirs = regression("mse")
    for options in ({}, {"sample_weight": w}):
        assert mine.evaluate(X, target, verbose=0, **options)[0] == pytest.approx(
            theirs.evaluate(X, target, verbose=0, **options), rel=1e-5
        )
        mine.fit(X, target, epochs=2, verbose=0, shuffle=False, **options)
        theirs.fit(X, target, epochs=2, verbose=0, shuffle=False, **options)
        np.testing.assert_allclose(weights(mine), weights(theirs), rtol=1e-3, atol=1e-6)
    error = mine.evaluate(X, target, verbose=0, return_dict=True)["OwnError"]
    assert error == pytest.approx(np.abs(mine.predict(X) - target).mean(), rel=1e-5)
    mine.compile("sgd", OwnSquare(3.0), metrics=[OwnError()])
    mine.save(tmp_path / "m.fastconv")
    again = fc.load_model(tmp_path / "m.fastconv")
    assert again.evaluate(X, target, verbose=0) == mine.evaluate(X, target, verbose=0)


def spoiled(base, **methods):
    return type("Own", (base,), methods, **({"abstract": True} if base is OwnSwish else {}))()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: through(spoiled(OwnSwish, call=lambda self, x: x[:, 1:])), "call returns the"),
        (lambda: back(spoiled(OwnSwish, gradient=lambda self, x, y, dy: dy[1:])),
         "gradient returns the shape"),
        (lambda: back(spoiled(OwnSwish, gradient=lambda self, x, y, dy: [dy, dy])),
         "2 arrays for 1"),
        (lambda: regression(spoiled(OwnSquare, value=lambda self, t, y: y)).train_on_batch(
            X, np.zeros((70, 3))), r"70 samples take \(70,\)"),
        (lambda: regression(spoiled(OwnSquare, gradient=lambda self, t, y: y[0])).train_on_batch(
            X, np.zeros((70, 3))), "the outputs have"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(act, words):
    with pytest.raises(ValueError, match=words):
        act()


def through(layer):
    x = fc.Input((4,))
    return fc.Model(x, layer(x)).forward(np.ones((2, 4)))


def back(layer):
    x = fc.Input((4,))
    model = fc.Model(x, layer(x))
    model.backward(model.forward(np.ones((2, 4)))[1], np.ones((2, 4)))


# -- what is not said by hand ---------------------------------------------------------------------


class ScaleBy(own.NumpyLayer):
    """Takes arguments, and has no get_config."""

    def __init__(self, k, kernel_initializer="ones", sizes=(1,), **kwargs):
        super().__init__(**kwargs)
        self.k, self.sizes = k, sizes
        self.kernel_initializer = fc.initializers.get(kernel_initializer)

    def build(self, shape):
        self.g = self.add_parameter("g", shape[-1:], self.kernel_initializer)

    def call(self, x):
        return self.k * self.g.value * x

    def gradient(self, x, y, dy):
        self.g.grad += (self.k * dy * x).reshape(-1, x.shape[-1]).sum(axis=0)
        return self.k * self.g.value * dy


class Thrice(ScaleBy):
    """Its own constructor, again without get_config."""

    def __init__(self, name=None):
        super().__init__(3, name=name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ScaleBy(3),
        lambda: ScaleBy(k=np.float32(2.5), kernel_initializer=fc.initializers.Constant(2.0)),
        lambda: ScaleBy(2, sizes=(1, 2), name="mine", trainable=False),
        Thrice,
    ],
)
def test_arguments_are_kept_without_get_config(make, tmp_path):
    layer = make()
    model = fc.Sequential([layers.Input((4, 3)), layer, layers.Flatten(), layers.Dense(2)])
    x = np.random.default_rng(0).standard_normal((5, 4, 3))
    model.save(tmp_path / "m.fc")
    again = fc.load_model(tmp_path / "m.fc")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert (again.layers[0].k, again.layers[0].name) == (layer.k, layer.name)
    assert again.layers[0].trainable == layer.trainable
    clone = fc.models.clone_model(model)
    assert clone.layers[0].k == layer.k
    np.testing.assert_array_equal(clone.layers[0].g.value, layer.g.value)  # the same initializer
    assert fc.check_gradients(make(), input_shape=(4, 3))


def test_what_a_file_cannot_hold_is_refused_before_it_is_written(tmp_path):
    class Of(own.NumpyLayer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def call(self, x):
            return self.function(x)

        def gradient(self, x, y, dy):
            return dy

    model = fc.Sequential([layers.Input((3,)), Of(np.copy)])
    with pytest.raises(ValueError, match=r"Of\(function=…\).*define get_config"):
        model.save(tmp_path / "m.fc")
    assert not (tmp_path / "m.fc").exists()


def test_a_layer_that_writes_what_it_reads_is_stopped():
    class InPlace(own.NumpyLayer):
        def call(self, x):
            x *= -1
            return x

        def gradient(self, x, y, dy):
            return -dy

    x = fc.Input((3,))
    y = layers.Dense(3)(x)
    model = fc.Model(x, layers.Add()([y, InPlace(name="bad")(y)]))
    with pytest.raises(ValueError, match="read-only") as found:
        model.predict(np.ones((2, 3)))
    assert "bad" in found.value.__notes__[0]


def test_initializers_of_ones_own_are_looked_at():
    class Three(fc.Initializer):
        def draw(self, shape, generator):
            return np.ones(3)

    class Nan(fc.Initializer):
        def draw(self, shape, generator):
            return np.full(shape, np.nan)

    with pytest.raises(ValueError, match=r"d/bias: the initializer Three gives the shape \(3,\)"):
        layers.Dense(2, bias_initializer=Three(), name="d")(fc.Input((4,)))
    with pytest.raises(ValueError, match=r"e/kernel: .* Nan gives 8 numbers that are NaN"):
        layers.Dense(2, kernel_initializer=Nan(), name="e")(fc.Input((4,)))


class OwnSparse(own.NumpyLoss):
    """−y[label], on class numbers."""

    labels = True

    def value(self, target, y):
        return -np.take_along_axis(y, target, axis=1)[:, 0]

    def gradient(self, target, y):
        dy = np.zeros_like(y)
        np.put_along_axis(dy, target, -1, axis=1)
        return dy


def test_a_loss_of_ones_own_on_class_numbers_with_any_reduction():
    y_pred = np.random.default_rng(0).random((6, 3))
    y_true = np.array([0, 1, 2, 2, 1, 0])
    picked = -y_pred[np.arange(6), y_true]
    assert OwnSparse()(y_true, y_pred) == pytest.approx(picked.mean())
    assert OwnSparse(reduction="sum")(y_true, y_pred) == pytest.approx(picked.sum())
    np.testing.assert_allclose(OwnSparse(reduction="none")(y_true, y_pred), picked)
    for reduction, factor in (("sum_over_batch_size", 1 / 6), ("sum", 1.0)):
        model = fc.Sequential([layers.Input((3,)), layers.Dense(3, use_bias=False)])
        before = model.get_weights()[0]
        model.compile(fc.optimizers.SGD(1.0), OwnSparse(reduction=reduction), metrics=["accuracy"])
        model.train_on_batch(y_pred, y_true)
        step = factor * y_pred.T @ np.eye(3)[y_true]
        np.testing.assert_allclose(model.get_weights()[0], before + step, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="OwnSparse"):
        model.train_on_batch(y_pred, y_true + 1)

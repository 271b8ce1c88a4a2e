"""Optimizers in training: schedules, averages, penalties, constraints, files, the finder."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import callbacks, constraints, layers, optimizers, regularizers, schedules

X = np.linspace(-1, 1, 48).reshape(16, 3)
Y = np.stack([X.sum(axis=1), X[:, 0] - X[:, 2]], axis=1)


def model_of(optimizer, **arguments):
    fc.set_random_seed(0)
    model = fc.Sequential([layers.Input((3,)), layers.Dense(2, name="dense", **arguments)])
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_every_optimizer_trains_and_comes_back(name, tmp_path):
    make = optimizers.NAMES[name]
    settings = {"weight_decay": 0.01, "clipnorm": 1.0, "use_ema": True}
    rate = schedules.ExponentialDecay(0.02, 20, 0.9)
    model = model_of(make(learning_rate=rate, **settings))
    first = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, batch_size=8, epochs=10, verbose=0)
    assert model.evaluate(X, Y, verbose=0) < first
    assert model.optimizer.learning_rate == pytest.approx(rate(20))
    model.save(tmp_path / "m.fastconv")
    again = fc.load_model(tmp_path / "m.fastconv")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for one in (model, again):
        one.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_schedule_has_the_rate_to_itself():
    model = model_of(optimizers.SGD(schedules.CosineDecay(0.1, 10)))
    with pytest.raises(ValueError, match=r"CosineDecay\(.*cannot be set to 0.5"):
        model.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match="use one of the two"):
        model.fit(X, Y, verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda e, r: r)])
    model.optimizer.learning_rate = schedules.WarmUp(0.3, 4)
    rates = []
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[
        callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: rates.append(model.optimizer.learning_rate)
        )
    ])  # fmt: skip
    np.testing.assert_allclose(rates, [0, 0.075, 0.15, 0.225, 0.3, 0.3, 0.3, 0.3])


def test_schedules_beyond_keras():
    cycle = schedules.OneCycle(1.0, 101, rise=0.3)
    rates = [cycle(step) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == pytest.approx(1.0, rel=1e-3)
    assert 29 <= int(np.argmax(rates)) <= 31
    assert rates[-1] == pytest.approx(1 / 25 / 1e4)
    assert cycle(10_000) == rates[-1]
    both = schedules.WarmUp(schedules.ExponentialDecay(0.1, 10, 0.5), 10, start=0.02)
    assert [both(0), both(5), both(10), both(20)] == pytest.approx([0.02, 0.06, 0.1, 0.05])
    again = schedules.get(schedules.to_config(both))
    assert repr(again) == repr(both)
    assert again(13) == both(13)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optimizers.Adam(clipnorm=1, clipvalue=1), "only one of clipnorm and clipvalue"),
        (lambda: optimizers.Adam(weight_decays=1), "did you mean 'weight_decay'"),
        (lambda: optimizers.SGD(gradient_accumulation_steps=4), "accumulate_steps"),
        (lambda: optimizers.SGD(learning_rate="fast"), "learning_rate"),
        (lambda: optimizers.AdamW(weight_decay=None), "weight_decay"),
        (lambda: optimizers.Lion(beta_1=0), "beta_1"),
        (lambda: schedules.PiecewiseConstantDecay([3, 2], [1, 2, 3]), "ascend"),
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), "decay_steps"),
    ],
)
def test_bad_arguments(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_averages_take_the_weights_place_at_the_end():
    model, plain = (
        model_of(optimizers.SGD(0.1, use_ema=u, ema_momentum=0.5)) for u in (True, False)
    )
    course = []
    for step in range(3):
        plain.train_on_batch(X, Y)
        w = plain.get_weights()[0]
        course.append(w if step == 0 else 0.5 * course[-1] + 0.5 * w)
    model.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], course[-1], rtol=1e-6)


def test_weight_decay_passes_excluded_names_by():
    optimizer = optimizers.SGD(0.0001, weight_decay=1000.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = model_of(optimizer, bias_initializer="ones")
    kernel, _ = model.get_weights()
    model.train_on_batch(X, Y)
    after = model.get_weights()
    np.testing.assert_allclose(after[0], 0.9 * kernel, atol=1e-3)
    np.testing.assert_allclose(after[1], 1, atol=1e-3)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])


class Cubic(regularizers.Regularizer):
    """A penalty of one's own."""

    def __init__(self, factor=0.1):
        self.factor = factor

    def __call__(self, w):
        return self.factor * float((np.abs(w) ** 3).sum())

    def gradient(self, w):
        return self.factor * 3 * w * np.abs(w)


@pytest.mark.parametrize("make", [
    lambda: regularizers.L1L2(0.05, 0.3), lambda: "l2",
    lambda: regularizers.OrthogonalRegularizer(0.5),
    Cubic,
])  # fmt: skip
def test_penalties_are_in_the_loss_and_in_the_update(make, tmp_path):
    fc.set_floatx("float64")
    try:
        model = model_of(optimizers.SGD(1.0), kernel_regularizer=make())
    finally:
        fc.set_floatx("float32")
    plain = model_of(optimizers.SGD(1.0))
    plain.set_weights(model.get_weights())
    regularizer = model.layers[-1].kernel_regularizer
    kernel = model.get_weights()[0]
    reported = model.evaluate(X, Y, verbose=0)
    assert reported == pytest.approx(
        plain.evaluate(X, Y, verbose=0) + regularizer(kernel), rel=1e-6
    )
    assert model.train_on_batch(X, Y) == pytest.approx(reported)
    plain.train_on_batch(X, Y)
    pull = plain.get_weights()[0] - model.get_weights()[0]
    np.testing.assert_allclose(pull, regularizer.gradient(kernel), atol=1e-6)
    v = np.random.default_rng(0).standard_normal(kernel.shape)
    slope = (regularizer(kernel + 1e-6 * v) - regularizer(kernel - 1e-6 * v)) / 2e-6
    assert (regularizer.gradient(kernel) * v).sum() == pytest.approx(slope, rel=1e-6)
    again = layers.Dense.from_config(model.layers[-1].get_config())
    assert vars(again.kernel_regularizer) == vars(regularizer)


def test_constraints_hold_after_every_update(tmp_path):
    model = model_of(
        optimizers.SGD(1.0), kernel_constraint=constraints.MaxNorm(0.3), bias_constraint="non_neg"
    )
    model.fit(X, -Y - 3, epochs=3, verbose=0)
    kernel, bias = model.get_weights()
    assert (np.linalg.norm(kernel, axis=0) <= 0.3 + 1e-6).all()
    assert (bias >= 0).all()
    model.save(tmp_path / "m.fastconv")
    loaded = fc.load_model(tmp_path / "m.fastconv").layers[-1]
    assert loaded.kernel_constraint.max_value == 0.3
    assert isinstance(loaded.bias_constraint, constraints.NonNeg)


def test_every_weighted_layer_takes_them():
    made = [
        layers.Conv2D(2, 3, kernel_regularizer="l1", bias_constraint="non_neg"),
        layers.DepthwiseConv2D(3, depthwise_regularizer="l2"),
        layers.Conv2DTranspose(2, 3, kernel_constraint="unit_norm"),
        layers.BatchNormalization(
            gamma_regularizer=regularizers.L2(0.1), beta_constraint="non_neg"
        ),
    ]
    for layer in made:
        inputs = layers.Input((5, 5, 2))
        layer(inputs)
        held = [p for p in layer.parameters if p.regularizer or p.constraint]
        assert held, layer
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
    with pytest.raises(ValueError, match="did you mean 'kernel_regularizer'"):
        layers.Dense(2, kernel_regulariser="l2")


def test_find_learning_rate():
    pytest.importorskip("matplotlib")
    model = model_of("sgd")
    weights, iterations = model.get_weights(), model.optimizer.iterations
    found = fc.find_learning_rate(model, X, Y, start=1e-4, end=100, steps=60, batch_size=8)
    assert 1e-3 < found.suggestion < 2
    assert len(found.rates) < 60, "the loss explodes before the end"
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.optimizer.iterations == iterations
    assert model.optimizer.learning_rate == 0.01
    axes = found.plot().axes[0]
    assert axes.get_xscale() == "log"
    assert len(axes.lines) == 3
    with pytest.raises(ValueError, match="start"):
        fc.find_learning_rate(model, X, Y, start=1, end=0.1)

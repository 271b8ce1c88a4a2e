"""The learning-rate finder: it finds, it leaves no trace, it says what is wrong."""

import numpy as np
import pytest
from test_fit import net, weights

import fastconv as fc
from fastconv import layers, optimizers

X = np.random.default_rng(0).integers(0, 255, (256, 6, 6, 1)).astype(np.uint8)
Y = np.where(X[:, :, :3].mean(axis=(1, 2, 3)) > X[:, :, 3:].mean(axis=(1, 2, 3)), 0, 1)


def test_finds_and_leaves_no_trace(tmp_path):
    model, twin = net(norm=True, dropout=0.1), net(norm=True, dropout=0.1)
    for one in (model, twin):
        fc.set_random_seed(0)
        one.fit(X, Y, verbose=0)
    found = fc.find_learning_rate(model, X, Y, batch_size=64)
    assert 1e-4 < found.suggestion < 1
    assert len(found.rates) == len(found.losses) == len(found.smoothed) <= 100
    assert found.rates[0] == pytest.approx(1e-6)
    assert (np.diff(found.rates) > 0).all()
    assert found.suggestion < found.rates[found.smoothed.argmin()]
    assert f"{found.suggestion:.2g}" in repr(found)
    assert model.optimizer.learning_rate == pytest.approx(0.001)
    for one in (model, twin):
        fc.set_random_seed(1)
        one.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(weights(model), weights(twin))
    pytest.importorskip("matplotlib")
    found.plot().savefig(tmp_path / "rates.png")


def test_random_numbers_go_on_as_if_nothing_had_been():
    model = net()
    state = fc.backend.random_state()
    fc.find_learning_rate(model, X, Y, steps=20)
    assert fc.backend.random_state() == state


def test_ends_where_the_loss_explodes():
    model = net()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    found = fc.find_learning_rate(model, X, Y, end=1e6, batch_size=64)
    assert len(found.rates) < 100
    assert found.losses[-1] > 2 * found.losses[0]
    assert found.suggestion < 10


def test_nothing_learned_nothing_suggested(tmp_path):
    found = fc.find_learning_rate(net(), X, Y, start=1e-30, end=1e-29, steps=20)
    assert np.isnan(found.suggestion)
    pytest.importorskip("matplotlib")
    found.plot().savefig(tmp_path / "rates.png")


def test_batches_of_any_kind():
    dataset = fc.Dataset.from_tensor_slices((X, Y)).batch(32)
    assert fc.find_learning_rate(net(), dataset).suggestion > 1e-5
    model = net()
    schedule = optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(optimizers.SGD(schedule), "sparse_categorical_crossentropy")
    fc.find_learning_rate(model, [(X, Y, np.ones(len(X)))], steps=30)
    assert model.optimizer.schedule is schedule
    assert model.optimizer.iterations == 0


def test_what_is_wrong_is_said():
    model = net()
    for words, arguments in (
        ("y is missing", {"x": X}),
        ("below end", {"x": X, "y": Y, "start": 1.0, "end": 0.1}),
        ("steps", {"x": X, "y": Y, "steps": 3}),
        ("smoothing", {"x": X, "y": Y, "smoothing": 1.0}),
        ("end before its steps", {"x": iter([(X, Y)])}),
    ):
        with pytest.raises(ValueError, match=words):
            fc.find_learning_rate(model, **arguments)
    model = fc.Sequential([layers.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="start below 1e"):
        fc.find_learning_rate(model, np.ones((8, 4)), np.ones((8, 1)), start=1e30, end=1e31)

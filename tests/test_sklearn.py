"""The estimators are scikit-learn's in every respect, with real networks within."""

import copy
import pickle
import threading

import numpy as np
import pytest

import fastconv as fc
from fastconv import backend, callbacks, layers

pytest.importorskip("sklearn", minversion="1.6")
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastconv.commands._networks import NETWORKS
from fastconv.sklearn import (
    BUILT_IN,
    EXPECTED_FAILED_CHECKS,
    ConvClassifier,
    ConvRegressor,
    small,
)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:800] / 16, y[:800]


def net(**options):
    return ConvClassifier(
        **{"image_shape": (8, 8, 1), "epochs": 8, "random_state": 0, "learning_rate": 0.005}
        | options
    )


@parametrize_with_checks(
    [ConvClassifier(), ConvRegressor()], expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_one_check_is_expected_to_fail():
    assert list(EXPECTED_FAILED_CHECKS) == ["check_sample_weight_equivalence_on_dense_data"]


# ---- as part of something larger -------------------------------------------------------------


def test_cross_validation_reads_digits(digits):
    assert cross_val_score(net(epochs=15), *digits, cv=3).min() > 0.85


def test_search_over_pipelines_in_two_processes(digits):
    x, y = digits
    names = np.array(["zero", "one", "two", "three"])
    x, y = x[y < 4], names[y[y < 4]]
    pipe = make_pipeline(MinMaxScaler(), net(epochs=3))
    grid = {"convclassifier__learning_rate": [1e-6, 0.005], "convclassifier__model": [small]}
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=2).fit(x, y)
    assert search.best_params_["convclassifier__learning_rate"] == 0.005
    assert search.best_score_ > 0.9
    assert set(search.predict(x)) == set(names)
    np.testing.assert_allclose(search.predict_proba(x).sum(1), 1, rtol=1e-5)


def test_images_pass_through_a_pipeline(digits):
    x, y = digits
    images = (16 * x).reshape(-1, 8, 8).astype(np.uint8)
    pipe = make_pipeline(FunctionTransformer(lambda a: a[..., None] / 16), net(image_shape=None))
    pipe.fit(images, y)
    assert pipe[-1].image_shape_ == (8, 8, 1)
    assert pipe.score(images, y) > 0.95
    assert np.array_equal(pipe.predict(images), net().fit(x, y).predict(x))


@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])
def test_copies_predict_and_learn_alike(digits, copied):
    x, y = digits
    one = net(epochs=2).fit(x, y)
    two = copied(one)
    assert np.array_equal(one.predict_proba(x), two.predict_proba(x))
    assert one.history_ == two.history_
    one.partial_fit(x, y)
    two.partial_fit(x, y)  # the optimizer's state and the random state went along
    assert np.array_equal(one.predict_proba(x), two.predict_proba(x))
    assert isinstance(one.__getstate__()["model_"], bytes)
    assert isinstance(one.model_, fc.Model)


def test_a_copy_that_is_damaged_is_refused(digits):
    state = net(epochs=1).fit(*digits).__getstate__()
    state["model_"] = state["model_"][:-100]
    with pytest.raises(ValueError, match="not a whole model"):
        ConvClassifier().__setstate__(state)


# ---- parameters ------------------------------------------------------------------------------


def tiny(shape, outputs, activation="softmax", width=4):
    return fc.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(width, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(outputs, activation=activation),
        ]
    )


def test_a_network_of_ones_own(digits):
    x, y = digits
    one = net(model=tiny, model_options={"width": 6}).fit(x, y)
    assert one.model_.layers[0].filters == 6
    assert one.score(x, y) > 0.9
    logits = net(
        model=tiny,
        model_options={"activation": None},
        loss=fc.losses.SparseCategoricalCrossentropy(from_logits=True),
    ).fit(x, y)
    np.testing.assert_allclose(logits.predict_proba(x).sum(1), 1, rtol=1e-5)
    assert logits.score(x, y) > 0.9
    assert logits.model_.predict(x[:5].reshape(-1, 8, 8, 1)).min() < 0


def test_networks_by_name_are_those_of_the_command_line():
    assert set(BUILT_IN) == {"small", *NETWORKS}


@pytest.mark.parametrize("name", ["lenet5", "mnist", "cifar-vgg", "cifar_vgg", "resnet20"])
def test_a_network_by_name(digits, name):
    x, y = digits
    x = np.kron(x[:24].reshape(-1, 8, 8, 1), np.ones((1, 2, 2, 1)))  # 16×16
    one = clone(ConvClassifier(name, epochs=1, random_state=0)).fit(x, y[:24])
    made = NETWORKS[name.replace("_", "-")].make((16, 16, 1), len(one.classes_))
    assert one.model_.name == made.name
    assert one.model_.count_params() == made.count_params()
    np.testing.assert_allclose(one.predict_proba(x).sum(1), 1, rtol=1e-5)
    row = ConvRegressor(name, epochs=1, random_state=0).fit(x, y[:24] / 10)
    assert row.predict(x).shape == (24,)
    assert row.model_.layers[-1].activation.name == "linear"


def test_a_network_by_name_learns(digits):
    x, y = digits
    x = np.kron((16 * x).reshape(-1, 8, 8), np.ones((1, 3, 3))).astype(np.uint8)
    options = {"include_preprocessing": True}
    grid = GridSearchCV(
        ConvClassifier(model_options=options, epochs=8, learning_rate=0.01, random_state=0),
        {"model": ["lenet5"]},
        cv=2,
    )
    assert grid.fit(15 * x[:600], y[:600]).best_score_ > 0.85
    best = grid.best_estimator_
    assert type(best.model_.layers[0]).__name__ == "Rescaling"
    assert best.model_.layers[-1].activation.name == "softmax"


def test_the_random_state_decides_alone(digits):
    x, y = digits
    one, two = net(epochs=1).fit(x, y), net(epochs=1)
    fc.set_random_seed(5)
    state = backend.random_state()
    two.fit(x, y)
    assert backend.random_state() == state
    assert np.array_equal(one.predict_proba(x), two.predict_proba(x))
    other = net(epochs=1, random_state=1).fit(x, y)
    assert not np.array_equal(one.predict_proba(x), other.predict_proba(x))
    free = []
    for _ in range(2):
        fc.set_random_seed(7)
        free.append(net(epochs=1, random_state=None).fit(x, y).model_.fingerprint())
    assert free[0] == free[1]


def test_threads_do_not_disturb_one_another(digits):
    x, y = digits[0][:200], digits[1][:200]
    alone = [net(epochs=2, random_state=i).fit(x, y).model_.fingerprint() for i in range(3)]
    found = [net(epochs=2, random_state=i) for i in range(3)]
    threads = [threading.Thread(target=one.fit, args=(x, y)) for one in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.model_.fingerprint() for one in found] == alone


def test_validation_and_callbacks(digits):
    x, y = digits
    stop = callbacks.EarlyStopping(monitor="val_loss", patience=0, min_delta=10)
    one = net(validation_fraction=0.25, callbacks=[stop]).fit(x, y)
    assert len(one.history_["val_loss"]) == 2  # nothing gets better by 10
    assert not hasattr(stop, "model") or stop.model is None
    again = clone(one).fit(x, y)
    assert again.history_ == one.history_


def test_optimizers_by_name_config_and_object(digits):
    x, y = digits[0][:100], digits[1][:100]
    rate = 0.03
    sgd = fc.optimizers.SGD(0.5, momentum=0.9)
    for optimizer in ("sgd", {"name": "sgd", "learning_rate": 1.0}, sgd):
        one = net(optimizer=optimizer, learning_rate=rate, epochs=1).fit(x, y)
        assert one.model_.optimizer.learning_rate == pytest.approx(rate)
    assert one.model_.optimizer.momentum == 0.9
    assert (sgd.learning_rate, sgd.iterations) == (0.5, 0)


def test_weights_count(digits):
    x, y = digits
    x, y = x[y < 2], y[y < 2]
    noise = np.where(np.arange(len(y)) % 3 == 0, 1 - y, y)
    weights = np.where(noise == y, 1.0, 0.0)
    assert net().fit(x, noise, sample_weight=weights).score(x, y) > 0.97


def test_partial_fit_goes_on(digits):
    x, y = digits
    one = net()
    one.partial_fit(x[:400], y[:400], classes=np.arange(10))
    first = one.score(x, y)
    for _ in range(6):
        one.partial_fit(x, y)
    assert one.score(x, y) > max(first, 0.9)
    assert len(one.history_["loss"]) == 7


def test_regression_of_one_and_of_several_numbers(digits):
    rng = np.random.default_rng(0)
    places = rng.integers(1, 7, (600, 2))
    x = np.zeros((600, 8, 8))
    x[np.arange(600), places[:, 0], places[:, 1]] = 1
    one = ConvRegressor(epochs=30, learning_rate=0.005, random_state=0)
    both = TransformedTargetRegressor(one, transformer=StandardScaler(), check_inverse=False)
    both.fit(x.reshape(600, -1), places)
    assert both.score(x.reshape(600, -1), places) > 0.9
    row = ConvRegressor(epochs=20, random_state=0, learning_rate=0.005).fit(x, places[:, 0] / 7)
    assert row.predict(x).shape == (600,)
    assert row.score(x, places[:, 0] / 7) > 0.9
    assert row.partial_fit(x, places[:, 0] / 7).n_outputs_ == 1


def test_the_network_within_exports(digits, tmp_path):
    pytest.importorskip("onnxruntime")
    report = net(epochs=1).fit(*digits).model_.export(tmp_path / "net.onnx")
    assert report.largest_error <= report.tolerance


# ---- what is refused -------------------------------------------------------------------------

X, Y = np.zeros((6, 64)), np.arange(6) % 2


@pytest.mark.parametrize(
    ("options", "x", "words"),
    [
        ({"model": "smal"}, X, "small"),
        ({"model": "resnet50"}, X, "unknown network 'resnet50'; did you mean 'resnet20'"),
        ({"model": "lenet5"}, X, "'lenet5' cannot take images of 1×64×1: .*; image_shape tells"),
        ({"model": "lenet5"}, X.reshape(6, 8, 8), "lenet5' cannot take images of 8×8×1: .*dow"),
        ({"model": 3}, X, "model is a function .image_shape, outputs."),
        ({"model": tiny((8, 8, 1), 2)}, X, "every fit begins with a new network"),
        ({"model": lambda shape, n: None}, X, "returns NoneType, not a model"),
        ({"model": lambda shape, n: small(shape, 5)}, X, "for an image; 2 numbers are"),
        ({"model_options": {"filter": 3}}, X, "filter"),
        ({"image_shape": (8, 9, 1)}, X, "does not fit X of shape .6, 64.: 72 numbers"),
        ({"image_shape": (64,)}, X, "image_shape is .height, width, channels."),
        ({"image_shape": (8, 0, 1)}, X, "image_shape"),
        ({"image_shape": (4, 16, 1)}, X.reshape(6, 8, 8), "does not fit X"),
        ({"epochs": -1}, X, "epochs"),
        ({"validation_fraction": 1.0}, X, "validation_fraction is at least 0"),
        ({"optimizer": "adm"}, X, "adam"),
        ({"loss": "mes"}, X, "mse"),
        ({}, np.zeros((6, 2, 2, 2, 2)), "X holds rows .n, features. or images"),
    ],
)
def test_bad_parameters_are_named_by_fit(options, x, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ConvClassifier(**options).fit(x, Y)


def test_images_of_another_size_and_classes_that_were_not_told(digits):
    x, y = digits
    one = net(epochs=1).fit(x, y)
    with pytest.raises(ValueError, match=r"X holds images of .*16.*the network takes"):
        one.predict(np.zeros((2, 4, 16, 1)))
    with pytest.raises(ValueError, match="10, which is none of the classes"):
        one.partial_fit(x, y + 2)
    with pytest.raises(ValueError, match="classes must be given to the first call"):
        net().partial_fit(x, y)
    with pytest.raises(ValueError, match="since the first call"):
        one.partial_fit(x, y, classes=[1, 2])
    with pytest.raises(NotFittedError):
        net().predict_proba(x)
    two = ConvRegressor(epochs=1).fit(x, np.stack([y, y], 1))
    with pytest.raises(ValueError, match="1 targets, 2 before"):
        two.partial_fit(x, y)

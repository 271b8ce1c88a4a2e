"""Metrics in training: what `fit` and `evaluate` report is what the metric alone says."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers, losses, metrics, own

sys.path.insert(0, str(Path(__file__).parent / "keras_oracle"))
import oracle_cases as cases


@pytest.mark.parametrize("case", [
    key for key, (name, *_) in cases.METRIC_CASES.items() if name != "ConfusionMatrix"
])  # fmt: skip
def test_in_evaluate(case):
    name, arguments, inputs = cases.METRIC_CASES[case]
    y_true, y_pred = cases.INPUTS[inputs]()
    metric = getattr(metrics, name)(**arguments)
    model = fc.Sequential([layers.Input(y_pred.shape[1:]), layers.Activation("linear")])
    loss = "sparse_categorical_crossentropy" if metric.labels else "mse"
    model.compile("sgd", loss, metrics=[metric])
    found = model.evaluate(y_pred, y_true, batch_size=4, verbose=0)[1:]
    alone = getattr(metrics, name)(**arguments)
    np.testing.assert_allclose(found, np.ravel(alone(y_true, y_pred)), rtol=1e-5, atol=1e-7)


def test_names_in_logs_and_files(tmp_path):
    model = fc.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")])
    given = ["accuracy", metrics.FBetaScore(), metrics.AUC(name="area"), "mae", metrics.AUC(),
             metrics.AUC(curve="PR"), losses.mean_squared_error]  # fmt: skip
    model.compile("sgd", "categorical_crossentropy", metrics=given)
    x, y = np.zeros((6, 4)), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    history = model.fit(x, y, verbose=0).history
    expected = ["loss", "accuracy", "fbeta_score_0", "fbeta_score_1", "fbeta_score_2", "area",
                "mae", "auc", "auc_1", "mean_squared_error"]  # fmt: skip
    assert list(history) == expected
    model.save(tmp_path / "m.fastconv")
    again = fc.load_model(tmp_path / "m.fastconv")
    names = list(again.fit(x, y, verbose=0).history)
    assert names == expected
    assert model.evaluate(x, y, verbose=0) == pytest.approx(
        again.evaluate(x, y, verbose=0), rel=0.1
    )


@pytest.mark.parametrize(("loss", "outputs", "kind"), [
    ("sparse_categorical_crossentropy", 3, metrics.SparseCategoricalAccuracy),
    ("categorical_crossentropy", 3, metrics.CategoricalAccuracy),
    ("binary_crossentropy", 1, metrics.BinaryAccuracy),
])  # fmt: skip
def test_accuracy_takes_the_form_that_fits(loss, outputs, kind):
    name, metric = metrics.get("accuracy", losses.get(loss), (outputs,))
    assert (name, type(metric)) == ("accuracy", kind)


def test_confusion_matrix():
    matrix = metrics.ConfusionMatrix(3)
    p = np.eye(3)[[0, 1, 1, 2, 0]]
    matrix.update_state(np.array([0, 1, 2, 2, 1]), p)
    np.testing.assert_array_equal(matrix.result(), [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    matrix.reset_state()
    matrix.update_state([[0, 1, 2, 2, 1]], p[None], sample_weight=[0.5])
    assert matrix.result().sum() == 2.5
    with pytest.raises(ValueError, match="num_classes is 3"):
        matrix.update_state([5], p[:1])
    model = fc.Sequential([layers.Input((3,)), layers.Softmax()])
    with pytest.raises(ValueError, match="no number for compile"):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=[matrix])


def test_dice_score():
    t = np.array([1, 1, 0, 0], float).reshape(1, 2, 2, 1)
    y = np.array([0.9, 0.2, 0.8, 0.1]).reshape(1, 2, 2, 1)
    assert metrics.DiceScore()(t, y) == pytest.approx(0.5)
    soft = metrics.DiceScore(threshold=None)(t, y)
    assert soft == pytest.approx(1 - losses.Dice()(t, y), rel=1e-6)


def test_bad_arguments():
    with pytest.raises(ValueError, match="did you mean 'precision'"):
        metrics.get("precission", losses.get("mse"), (1,))
    with pytest.raises(ValueError, match="from_logits"):
        metrics.AUC()(np.array([[1.0]]), np.array([[2.0]]))
    with pytest.raises(ValueError, match="sample_weight has the shape"):
        metrics.MeanSquaredError()(np.zeros((3, 1)), np.zeros((3, 1)), sample_weight=np.ones(2))
    with pytest.raises(ValueError, match="takes class numbers"):
        metrics.get(metrics.MeanIoU(3), losses.get("mse"), (3,))


def furthest(y_true, y_pred):
    return np.abs(y_true - y_pred).max(axis=-1)


def small():
    fc.set_random_seed(0)
    model = fc.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")])
    x = np.random.default_rng(0).random((20, 4))
    y = np.eye(3)[np.arange(20) % 3]
    return model, x, y


def test_weights_of_samples_count_where_they_are_asked_for(tmp_path):
    model, x, y = small()
    weight = np.linspace(0, 2, 20)

    class Spread(own.NumpyMetric):
        def value(self, target, y):
            return np.ptp(y, axis=-1)

    given = ["accuracy", metrics.AUC(), Spread]
    model.compile("sgd", "categorical_crossentropy", metrics=given, weighted_metrics=given)
    names = ["accuracy", "auc", "Spread"]
    found = model.evaluate(x, y, batch_size=8, sample_weight=weight, verbose=0, return_dict=True)
    assert list(found) == ["loss", *names, *(f"weighted_{name}" for name in names)]
    p = model.predict(x)
    hits = p.argmax(axis=1) == y.argmax(axis=1)
    auc = metrics.AUC()
    auc.update_state(y, p, weight)
    assert found["accuracy"] == pytest.approx(hits.mean())
    assert found["weighted_accuracy"] == pytest.approx(np.average(hits, weights=weight))
    assert found["weighted_auc"] == pytest.approx(auc.result(), rel=1e-6)
    assert found["weighted_Spread"] == pytest.approx(
        np.average(np.ptp(p, axis=1), weights=weight), rel=1e-6
    )
    plain = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    assert plain["weighted_accuracy"] == plain["accuracy"]
    model.save(tmp_path / "m.fastconv")
    again = fc.load_model(tmp_path / "m.fastconv")
    assert again.evaluate(x, y, batch_size=8, sample_weight=weight, verbose=0,
                          return_dict=True) == found  # fmt: skip


def test_functions(tmp_path):
    def precision(y_true, y_pred):  # by chance the name of a metric
        return np.full(len(y_true), 7.0)

    model, x, y = small()
    given = [furthest, precision, metrics.categorical_accuracy, losses.mean_absolute_error]
    model.compile("sgd", "categorical_crossentropy", metrics=given)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    p = model.predict(x)
    assert found["furthest"] == pytest.approx(furthest(y, p).mean(), rel=1e-6)
    assert found["precision"] == 7
    assert found["categorical_accuracy"] == pytest.approx(metrics.categorical_accuracy(y, p).mean())
    assert found["mean_absolute_error"] == pytest.approx(np.abs(y - p).mean(), rel=1e-6)
    with pytest.warns(UserWarning, match="furthest is a function"):
        model.save(tmp_path / "m.fastconv")
    assert fc.load_model(tmp_path / "m.fastconv").metrics_names == [
        "loss", "categorical_accuracy", "mean_absolute_error"
    ]  # fmt: skip
    model.compile("sgd", "categorical_crossentropy", metrics=[lambda t, y: np.abs(t - y).max()])
    with pytest.raises(ValueError, match="gives each of them a number"):
        model.evaluate(x, y, verbose=0)


def test_class_numbers_reach_metrics_of_arrays_as_they_are():
    class Label(own.NumpyMetric):
        def value(self, target, y):
            return target.reshape(len(target))

    model, x, y = small()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[Label()])
    found = model.evaluate(x, y.argmax(axis=1), verbose=0, return_dict=True)
    assert found["Label"] == pytest.approx(y.argmax(axis=1).mean())


def test_outputs_that_are_equal_or_no_numbers():
    even, label = np.full((2, 4), 0.25), np.eye(4)[[0, 3]]
    precision = metrics.Precision(top_k=1)  # the first of equal ones
    assert precision(label, even) == 0.5
    assert metrics.TopKCategoricalAccuracy(1)(label, even) == 1
    lost = np.full((2, 4), np.nan)
    assert metrics.TopKCategoricalAccuracy(2)(label, lost) == 0
    assert metrics.Recall()(label, lost) == 0


def test_a_list_has_an_entry_for_each_output():
    x = fc.Input((4,))
    a = layers.Dense(1, name="a")(x)
    b = layers.Dense(3, activation="softmax", name="b")(x)
    model = fc.Model(x, [a, b])
    given = {
        "one each": (["mae", "accuracy"], ["a_mae", "b_accuracy"]),
        "lists": ([["mae", "mse"], "accuracy"], ["a_mae", "a_mse", "b_accuracy"]),
        "none for one": ([None, ["accuracy"]], ["b_accuracy"]),
        "by name": ({"a": "mae"}, ["a_mae"]),
        "one for all": (["accuracy"], ["a_accuracy", "b_accuracy"]),
    }
    both = ["mse", "sparse_categorical_crossentropy"]
    for metric, names in given.values():
        model.compile("sgd", both, metrics=metric)
        assert model.metrics_names == ["loss", "a_loss", "b_loss", *names]
    with pytest.raises(ValueError, match="3 entries for 2 outputs"):
        model.compile("sgd", both, metrics=["mae", "accuracy", "mse"])


def test_the_third_argument_of_compile_is_keras():
    model, x, y = small()
    model.compile("sgd", "mse", [2.0], ["mae"])
    assert model.evaluate(x, y, verbose=0) == pytest.approx(
        [2 * np.square(model.predict(x) - y).mean(), np.abs(model.predict(x) - y).mean()]
    )
    with pytest.raises(ValueError, match=r"loss_weights are numbers.*metrics=\["):
        model.compile("sgd", "mse", ["mae"])

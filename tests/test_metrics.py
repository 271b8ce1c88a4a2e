"""Metrics in training: what `fit` and `evaluate` report is what the metric alone says."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers, losses, metrics

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

"""Losses in training: what an update does to weights is the gradient of what evaluation reports.

Their numbers are compared with Keras' in test_keras_oracle.py; here every step of a plan is, with
weights of samples and behind the activation that ends a network, against differences in float64.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers, losses

sys.path.insert(0, str(Path(__file__).parent / "keras_oracle"))
import oracle_cases as cases

ENDS = {"binary": "sigmoid", "masks": "sigmoid", "labels": "softmax", "classes": "softmax",
        "soft classes": "softmax", "positive": "sigmoid"}  # fmt: skip
MINE = [
    ("MultiClassHinge", {}, "label logits"),
    ("MultiClassHinge", {"margin": 0.3}, "label logits"),
]
CASES = {**cases.LOSS_CASES, **{f"{n} {a}": (n, a, i) for n, a, i in MINE}}


@pytest.fixture
def double():
    fc.set_floatx("float64")
    yield
    fc.set_floatx("float32")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_in_a_plan(double, case, weighted):
    name, arguments, inputs = CASES[case]
    y_true, y_pred = cases.INPUTS[inputs]()
    fc.set_random_seed(0)
    end = layers.Dense(
        y_pred.shape[-1], activation=ENDS.get(inputs), kernel_initializer="he_normal",
                       bias_initializer=fc.initializers.RandomNormal(stddev=0.3))  # fmt: skip
    model = fc.Sequential([layers.Input((*y_pred.shape[1:-1], 3)), end])
    model.compile(fc.optimizers.SGD(1.0), getattr(losses, name)(**arguments))
    x = cases.uniform(*y_pred.shape[:-1], 3, seed=90, low=-1).astype(float)
    weight = cases.sample_weight() if weighted else None

    def loss():
        return model.evaluate(x, y_true, sample_weight=weight, batch_size=len(x), verbose=0)

    weights = [w.copy() for w in model.get_weights()]
    before = loss()
    reported = model.train_on_batch(x, y_true, sample_weight=weight)
    assert reported == pytest.approx(before, rel=1e-12)
    gradient = [old - new for old, new in zip(weights, model.get_weights(), strict=True)]
    rng = np.random.default_rng(1)
    for _ in range(2):
        v = [rng.standard_normal(w.shape) for w in weights]
        slopes = []
        for h in (1e-4, 5e-5):
            ends = []
            for sign in (1, -1):
                model.set_weights([w + sign * h * d for w, d in zip(weights, v, strict=True)])
                ends.append(loss())
            slopes.append((ends[0] - ends[1]) / (2 * h))
        slope = slopes[1] + (slopes[1] - slopes[0]) / 3
        derived = sum((g * d).sum() for g, d in zip(gradient, v, strict=True))
        assert derived == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", ["sum", "mean_with_sample_weight"])
def test_reductions_in_a_plan(name):
    y_true, y_pred = cases.INPUTS["numbers"]()
    model = fc.Sequential([layers.Input((3,)), layers.Activation("linear")])
    loss = losses.MeanSquaredError(reduction=name)
    model.compile("sgd", loss)
    weight = cases.sample_weight()
    found = model.evaluate(y_pred, y_true, sample_weight=weight, batch_size=6, verbose=0)
    assert found == pytest.approx(loss(y_true, y_pred, sample_weight=weight), rel=1e-6)


def test_multi_class_hinge_is_the_sum_over_wrong_classes():
    scores = np.array([[3.0, 2.5, -1.0], [0.0, 1.0, 0.5]])
    found = losses.MultiClassHinge(reduction="none")(np.array([0, 2]), scores)
    np.testing.assert_allclose(found, [0.5, 0.5 + 1.5])


def test_ignored_labels_may_be_anything():
    p = cases.probabilities(4, 3, seed=1)
    loss = losses.SparseCategoricalCrossentropy(ignore_class=255)
    labels = np.array([0, 255, 2, 255], np.uint8)
    kept = losses.SparseCategoricalCrossentropy()(np.array([0, 2]), p[[0, 2]])
    assert loss(labels, p) == pytest.approx(kept)
    assert loss(np.full(4, 255), p) == 0
    with pytest.raises(ValueError, match="there is 7"):
        loss(np.array([0, 255, 7, 1]), p)


def test_strings_functions_objects_and_files(tmp_path):
    assert isinstance(losses.get("MSE"), losses.MeanSquaredError)
    assert isinstance(losses.get(losses.huber), losses.Huber)
    assert isinstance(losses.get("KLDivergence"), losses.KLDivergence)
    assert losses.get(losses.Huber(delta=2)).delta == 2
    with pytest.raises(ValueError, match="did you mean 'huber'"):
        losses.get("hubert")
    with pytest.raises(ValueError, match="NumpyLoss"):
        losses.get(lambda t, y: 0)
    model = fc.Sequential([layers.Input((3,)), layers.Dense(2)])
    model.compile("sgd", losses.Huber(reduction="none"))
    with pytest.raises(ValueError, match="no reduction"):
        model.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)
    model.compile("sgd", losses.CategoricalFocalCrossentropy(gamma=1, name="focal"))
    model.save(tmp_path / "m.fastconv")
    loaded = fc.load_model(tmp_path / "m.fastconv").compile_config()["loss"][0]
    assert (loaded["gamma"], loaded["title"]) == (1, "focal")
    json.dumps(loaded)

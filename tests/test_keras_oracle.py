"""fastconv's numbers against those of Keras 3, recorded by keras_oracle/record.py."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import (
    callbacks,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
)
from fastconv.parameter import Parameter

HERE = Path(__file__).parent / "keras_oracle"
sys.path.insert(0, str(HERE))
import oracle_cases as cases  # noqa: E402

TOLERANCE = 1e-5  # of the largest number


def recorded(name):
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def same(found, expected, tolerance=TOLERANCE):
    found, expected = np.ravel(np.asarray(found, float)), np.ravel(np.asarray(expected, float))
    assert found.shape == expected.shape
    scale = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("case", cases.OPTIMIZER_CASES)
def test_optimizer(case):
    name, arguments = cases.OPTIMIZER_CASES[case]
    parameters = [Parameter(f"w{i}", w) for i, w in enumerate(cases.weights())]
    optimizer = getattr(optimizers, name)(**arguments)
    optimizer.build(parameters)
    expected = OPTIMIZERS[case]
    for step in range(cases.UPDATES):
        for parameter, gradient in zip(parameters, cases.gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.apply()
        for parameter, values in zip(parameters, expected["steps"][step], strict=True):
            same(parameter.value, values)
    optimizer.finalize_variable_values()
    for parameter, values in zip(parameters, expected["final"], strict=True):
        same(parameter.value, values)


OPTIMIZERS = recorded("optimizers")


@pytest.mark.parametrize("number", range(len(cases.SCHEDULES)))
def test_schedule(number):
    name, arguments = cases.SCHEDULES[number]
    schedule = getattr(schedules, name)(**arguments)
    same([schedule(step) for step in cases.STEPS], recorded("schedules")[number])
    again = schedules.get(json.loads(json.dumps(schedules.to_config(schedule))))
    assert [again(step) for step in cases.STEPS] == [schedule(step) for step in cases.STEPS]


LOSSES = recorded("losses")


@pytest.mark.parametrize("case", cases.LOSS_CASES)
def test_loss(case):
    name, arguments, inputs = cases.LOSS_CASES[case]
    y_true, y_pred = cases.INPUTS[inputs]()
    expected, cls = LOSSES[case], getattr(losses, name)
    rows = cls(reduction=None, **arguments)(y_true, y_pred)
    same(rows, expected["rows"])
    loss = cls(**arguments)
    share = loss.shares(loss.check(y_true, y_pred.shape[1:]), rows.shape, None)
    gradient = loss.gradient(y_true, y_pred) * loss.spread(share, y_pred.ndim)
    same(gradient, expected["gradient"])
    for reduction in cases.REDUCTIONS:
        loss = cls(reduction=reduction, **arguments)
        same(loss(y_true, y_pred), expected[reduction])
        if f"{reduction} weighted" in expected:
            weight = cases.row_weight(rows.shape)
            same(loss(y_true, y_pred, sample_weight=weight), expected[f"{reduction} weighted"])
    function = getattr(losses, cls.name)
    same(function(y_true, y_pred, **arguments), expected["rows"])
    assert type(losses.get(function)) is type(losses.get(cls.name)) is cls
    again = losses.get(json.loads(json.dumps(losses.to_config(loss))))
    assert again.get_config() == loss.get_config()


METRICS = recorded("metrics")


@pytest.mark.parametrize("case", cases.METRIC_CASES)
def test_metric(case):
    name, arguments, inputs = cases.METRIC_CASES[case]
    y_true, y_pred = cases.INPUTS[inputs]()
    half, expected = cases.BATCH // 2, METRICS[case]
    metric = getattr(metrics, name)(**arguments)
    metric.update_state(y_true[:half], y_pred[:half])
    same(metric.result(), expected["half"])
    metric.update_state(y_true[half:], y_pred[half:])
    same(metric.result(), expected["all"])
    metric.reset_state()
    found = metric(y_true, y_pred, sample_weight=cases.sample_weight())
    if case in cases.DIFFERENT:
        assert found != pytest.approx(expected["weighted"]), "no longer different"
    elif not isinstance(expected["weighted"], str):  # Keras cannot
        same(found, expected["weighted"])
    config = json.loads(json.dumps(metric.get_config()))
    assert type(metric).from_config(config).get_config() == metric.get_config()


WEIGHTS = recorded("weights")


@pytest.mark.parametrize("number", range(len(cases.REGULARIZERS)))
def test_regularizer(number):
    name, arguments, shape = cases.REGULARIZERS[number]
    regularizer, w = getattr(regularizers, name)(**arguments), cases.weight(shape)
    expected = WEIGHTS["regularizers"][number]
    same(regularizer(w), expected["value"])
    same(regularizer.gradient(w), expected["gradient"])
    again = regularizers.get(json.loads(json.dumps(regularizers.to_config(regularizer))))
    assert vars(again) == vars(regularizer)


@pytest.mark.parametrize("number", range(len(cases.CONSTRAINTS)))
def test_constraint(number):
    name, arguments, shape = cases.CONSTRAINTS[number]
    constraint = getattr(constraints, name)(**arguments)
    same(constraint(cases.weight(shape)), WEIGHTS["constraints"][number])
    again = constraints.get(json.loads(json.dumps(constraints.to_config(constraint))))
    assert vars(again) == vars(constraint)


@pytest.mark.parametrize("number", range(len(cases.INITIALIZERS)))
def test_initializer(number):
    """Statistics: the numbers themselves are each generator's own."""
    name, arguments, shape = cases.INITIALIZERS[number]
    random = name not in ("Zeros", "Ones", "Constant", "Identity")
    initializer = getattr(initializers, name)(**arguments, **({"seed": 3} if random else {}))
    w = initializer(shape).astype(float)
    expected = WEIGHTS["initializers"][number]
    if not random:
        same([w.mean(), w.std(), w.min(), w.max()], list(expected.values()))
        return
    # the standard error of a standard deviation of 4096 numbers is 1.1 %
    assert w.std() == pytest.approx(expected["std"], rel=0.05)
    assert abs(w.mean() - expected["mean"]) < 0.1 * w.std()
    tails = 0.25 if "normal" in f"{name}{arguments}".lower() or name == "Orthogonal" else 0.02
    assert w.max() == pytest.approx(expected["max"], rel=tails)
    assert w.min() == pytest.approx(expected["min"], rel=tails)
    if name == "Orthogonal":
        matrix = w.reshape(-1, shape[-1])
        matrix = matrix if len(matrix) >= shape[-1] else matrix.T
        square = arguments.get("gain", 1.0) ** 2
        np.testing.assert_allclose(matrix.T @ matrix, square * np.eye(matrix.shape[1]), atol=1e-5)


LAYERS = recorded("layers")


@pytest.mark.parametrize("case", cases.LAYER_CASES)
def test_layer(case):
    """Output, gradients of inputs and weights, and what batch norm remembers."""
    name, arguments, shape = cases.LAYER_CASES[case]
    xs, expected = cases.layer_inputs(shape), LAYERS[case]
    layer = getattr(layers, name)(**arguments)
    inputs = [layers.Input(x.shape[1:]) for x in xs]
    model = fc.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))
    for i, parameter in enumerate(layer.parameters):
        parameter.assign(cases.layer_weight(i, parameter.name, parameter.shape))
    if "inference" in expected:
        same(model.predict(xs, verbose=0), expected["inference"])
    y, run = model.forward(xs if len(xs) > 1 else xs[0], training=name != "Dropout")
    assert list(y.shape) == expected["shape"]
    same(y, expected["y"])
    dx = model.backward(run, cases.layer_gradient(y.shape))
    for found, values in zip(dx if isinstance(dx, list) else [dx], expected["dx"], strict=True):
        same(found, values)
    trained = [p for p in layer.parameters if p.trainable]
    for parameter, values in zip(trained, expected.get("dw", []), strict=True):
        same(parameter.grad, values)
    if "moved" in expected:
        moved = [p for p in layer.parameters if not p.trainable]
        for parameter, values in zip(moved, expected["moved"], strict=True):
            same(parameter.value, values)


ARRAYS = recorded("arrays")


@pytest.mark.parametrize("number", range(len(cases.ADAPTED)))
def test_adapted(number):
    axis, shape = cases.ADAPTED[number]
    data, expected = cases.adapted(shape), ARRAYS["adapted"][number]
    for given in (data, [data[:2], (data[2:], np.zeros(len(data) - 2))]):
        layer = layers.Normalization(axis)
        layer.adapt(given)
        for found, values in zip(layer.get_weights()[:2], expected, strict=True):
            same(found, values)


@pytest.mark.parametrize("number", range(len(cases.RESIZED)))
def test_resized_bytes(number):
    layer, expected = layers.Resizing(**cases.RESIZED[number]), ARRAYS["resized"][number]
    exact = layer(cases.picture().astype(float)).ravel()  # of ½ either neighbour is right
    assert np.abs(exact.clip(0, 255) - expected).max() < 0.5 + 1e-4
    found = layer(cases.picture())
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == np.rint(exact).clip(0, 255).tolist()


DEFAULTS = recorded("defaults")
MODULES = {
    "optimizers": optimizers, "schedules": schedules, "losses": losses, "metrics": metrics,
    "initializers": initializers, "regularizers": regularizers, "constraints": constraints,
    "layers": layers, "callbacks": callbacks,
}  # fmt: skip
SHARED = [
    (module, cls) for module, names in DEFAULTS.items() if module in MODULES
    for cls in names if cls in vars(MODULES[module])
]  # fmt: skip


def arguments_of(cls):
    """Arguments with their defaults, those of base classes too."""
    found = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base) and base is not object:
            for p in inspect.signature(base.__init__).parameters.values():
                if p.default is not p.empty:
                    found[p.name] = p.default
    return found


@pytest.mark.parametrize(("module", "cls"), SHARED)
def test_defaults(module, cls):
    """What both have has the same default; tuples are recorded as lists."""
    ours, theirs = arguments_of(getattr(MODULES[module], cls)), DEFAULTS[module][cls]
    for name in ours.keys() & theirs.keys():
        if (cls, name) in cases.OTHER_DEFAULTS:
            continue
        value, expected = ours[name], theirs[name]
        if isinstance(expected, list) and not isinstance(value, (list, tuple)):
            value = [value] * len(expected)  # one number stands for both directions
        value = list(value) if isinstance(value, tuple) else value
        assert value == expected, f"{cls}({name}=)"


ORDERS = recorded("orders")


def by_position(function):
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.kind == p.POSITIONAL_OR_KEYWORD][1:]


@pytest.mark.parametrize(("module", "cls"), SHARED)
def test_what_is_given_by_position_means_the_same(module, cls):
    ours = by_position(getattr(MODULES[module], cls).__init__)
    theirs = ORDERS[module].get(cls, [])
    if cls == "Loss":  # the base, which nobody calls
        return
    count = min(len(ours), len(theirs))
    assert ours[:count] == theirs[:count]


@pytest.mark.parametrize("method", ORDERS["model"])
def test_methods_take_what_keras_takes_by_position(method):
    ours, theirs = by_position(getattr(fc.Model, method)), ORDERS["model"][method]
    count = min(len(ours), len(theirs))
    assert ours[:count] == theirs[:count]


def test_defaults_are_compared():
    assert len(SHARED) > 90

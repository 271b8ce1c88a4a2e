"""fastconv's numbers against those of Keras 3, recorded by keras_oracle/record.py."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastconv import constraints, initializers, losses, metrics, optimizers, regularizers, schedules
from fastconv.parameter import Parameter

HERE = Path(__file__).parent / "keras_oracle"
sys.path.insert(0, str(HERE))
import cases  # noqa: E402

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

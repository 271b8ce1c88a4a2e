"""Every float32 table against the float64 reference: whole layers, forward and backward."""

import numpy as np
import pytest
from cases import CASES

import fastconv as fc
from fastconv._native import dispatch


def run(case, xs):
    fc.set_random_seed(7)  # the same weights, rounded or not
    inputs = [fc.Input(shape) for shape in case.inputs]
    model = fc.Model(inputs, case.make(*inputs))
    fc.set_random_seed(11)  # of dropout
    y, handle = model.forward(xs, training=True)
    dy = np.cos(np.arange(y.size)).reshape(y.shape)
    dx = model.backward(handle, dy)
    grads = [p.grad.copy() for p in model.parameters() if p.trainable]
    return [y, *(dx if isinstance(dx, list) else [dx]), *grads]


@pytest.mark.parametrize("name", dispatch.isa_names())
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_table_agrees_with_float64(case, name):
    rng = np.random.default_rng(2)
    # on a grid that float32 holds exactly, without ties in a window
    xs = [
        (rng.permutation(3 * int(np.prod(shape))).reshape(3, *shape) % 509 - 254.5) / 128
        for shape in case.inputs
    ]
    fc.set_floatx("float64")
    try:
        want = run(case, xs)
    finally:
        fc.set_floatx("float32")
    before = dispatch.isa()
    dispatch.set_isa(name)
    try:
        got = run(case, xs)
    finally:
        dispatch.set_isa(before)
    for a, b in zip(got, want, strict=True):
        scale = max(np.abs(b).max(), 1e-3)
        np.testing.assert_allclose(a / scale, b / scale, atol=2e-5)

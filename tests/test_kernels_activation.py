"""Pointwise activations and softmax against their formulas."""

import numpy as np
import pytest
import reference
from kernel_tools import (
    CHANNELS,
    LANES,
    Tensor,
    close,
    dtype,
    empty,
    randoms,
    run,
    same_for_all_teams,
)

from fastconv._native import activation as native
from fastconv._native import random

__all__ = ["dtype"]
INF = np.inf

CASES = {
    "linear": (native.LINEAR, 0, INF, 0, lambda x: x, lambda x, dy: dy),
    "relu": (native.RELU, 0, INF, 0, reference.relu, reference.relu_backward),
    "relu_capped": (
        native.RELU, 0.1, 1.0, 0.3,
        lambda x: reference.relu(x, 0.1, 1.0, 0.3),
        lambda x, dy: reference.relu_backward(x, dy, 0.1, 1.0, 0.3),
    ),
    "leaky_relu": (
        native.LEAKY_RELU, 0.2, INF, 0,
        lambda x: reference.leaky_relu(x, 0.2),
        lambda x, dy: reference.leaky_relu_backward(x, dy, 0.2),
    ),
    "elu": (
        native.ELU, 1.5, INF, 0,
        lambda x: reference.elu(x, 1.5), lambda x, dy: reference.elu_backward(x, dy, 1.5),
    ),
    "sigmoid": (native.SIGMOID, 0, INF, 0, reference.sigmoid, reference.sigmoid_backward),
    "tanh": (native.TANH, 0, INF, 0, reference.tanh, reference.tanh_backward),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("gap", [0, 3])
def test_activation_both_ways(dtype, case, channels, gap):
    kind, alpha, beta, gamma, f, gradient = CASES[case]
    n, pixels = 3, 5
    x = 2 * randoms((n, pixels, channels)).astype(dtype)
    dy = randoms(x.shape, 1).astype(dtype)
    strides = [channels + gap * k for k in range(3)]
    tx, ty = Tensor(x, dtype, strides[0]), empty(x.shape, dtype, strides[1])
    run(
        native.ActivationForward(
            kind, alpha, beta, gamma, pixels, channels, 0, strides[0], 1, strides[1]
        ),
        {0: tx, 1: ty}, n,
    )  # fmt: skip
    close(ty.values, f(x), dtype)

    tdy, tdx = Tensor(dy, dtype, strides[0]), empty(x.shape, dtype, strides[2])
    run(
        native.ActivationBackward(
            kind, alpha, beta, gamma, pixels, channels,
            1, strides[1], 2, strides[0], 3, strides[2],
        ),
        {1: ty, 2: tdy, 3: tdx}, n,
    )  # fmt: skip
    close(tdx.values, gradient(x, dy), dtype, 4e-6)


@pytest.mark.parametrize("case", CASES)
def test_activation_in_place(dtype, case):
    kind, alpha, beta, gamma, f, gradient = CASES[case]
    x, dy = randoms((2, 7, 5)).astype(dtype), randoms((2, 7, 5), 1).astype(dtype)
    t, g = Tensor(x, dtype), Tensor(dy, dtype)
    run(native.ActivationForward(kind, alpha, beta, gamma, 7, 5, 0, 5, 0, 5), {0: t}, 2)
    close(t.values, f(x), dtype)
    run(
        native.ActivationBackward(kind, alpha, beta, gamma, 7, 5, 0, 5, 1, 5, 1, 5), {0: t, 1: g}, 2
    )
    close(g.values, gradient(x, dy), dtype, 4e-6)


@pytest.mark.parametrize("case", CASES)
def test_nan_stays_and_limits_are_reached(dtype, case):
    kind, alpha, beta, gamma, *_ = CASES[case]
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 100.0, -100.0, 3e38, -3e38])
    t, y = Tensor(special.reshape(1, 1, -1), dtype), empty((1, 1, special.size), dtype)
    run(
        native.ActivationForward(kind, alpha, beta, gamma, 1, special.size, 0, 9, 1, 9),
        {0: t, 1: y}, 1,
    )  # fmt: skip
    got = y.values.ravel()
    top = {"relu_capped": 1.0, "sigmoid": 1.0, "tanh": 1.0}.get(case, np.inf)
    bottom = {"relu": 0, "elu": -1.5, "sigmoid": 0, "tanh": -1}.get(case, -np.inf)
    assert np.isnan(got[0])
    assert got[1] == top
    assert got[2] == bottom
    assert not np.isnan(got[1:]).any()
    g, dx = Tensor(np.ones((1, 1, 9)), dtype), empty((1, 1, 9), dtype)
    run(
        native.ActivationBackward(kind, alpha, beta, gamma, 1, 9, 1, 9, 2, 9, 3, 9),
        {1: y, 2: g, 3: dx}, 1,
    )  # fmt: skip
    assert np.isnan(dx.values.ravel()[0]) or case == "linear"
    if case == "relu":
        np.testing.assert_array_equal(dx.values.ravel()[1:5], [1, 0, 0, 0])


@pytest.mark.parametrize(
    ("kind", "exact"),
    [
        (native.SIGMOID, lambda x: 1 / (1 + np.exp(-x))),
        (native.TANH, np.tanh),
        (native.ELU, lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    ],
)
def test_functions_are_accurate_to_units_in_the_last_place(dtype, kind, exact):
    x = np.concatenate([np.linspace(-90, 90, 40001), np.geomspace(1e-30, 1, 2001)]).astype(dtype)
    y = empty((1, 1, x.size), dtype)
    run(
        native.ActivationForward(kind, 1, INF, 0, 1, x.size, 0, x.size, 1, x.size),
        {0: Tensor(x.reshape(1, 1, -1), dtype), 1: y}, 1,
    )  # fmt: skip
    expected = exact(x.astype(np.longdouble))
    normal = np.abs(expected) > np.finfo(dtype).tiny
    error = np.abs(y.values.ravel() - expected) / np.spacing(np.abs(expected).astype(dtype))
    assert error[normal].max() <= 3
    assert (y.values.ravel()[~normal] == 0).all()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("gap", [0, 2])
def test_softmax_both_ways(dtype, channels, gap):
    n, rows = 2, 3
    x = (3 * randoms((n, rows, channels)) + 50).astype(dtype)
    dy = randoms(x.shape, 1).astype(dtype)
    y = empty(x.shape, dtype, channels + 2 * gap)
    run(
        native.SoftmaxForward(rows, channels, 0, channels + gap, 1, channels + 2 * gap),
        {0: Tensor(x, dtype, channels + gap), 1: y}, n,
    )  # fmt: skip
    close(y.values, reference.softmax(x), dtype)
    dx = empty(x.shape, dtype, channels + gap)
    run(
        native.SoftmaxBackward(
            rows, channels, 1, channels + 2 * gap, 2, channels, 3, channels + gap
        ),
        {1: y, 2: Tensor(dy, dtype), 3: dx}, n,
    )  # fmt: skip
    expected = reference.softmax_backward(x, dy)
    np.testing.assert_allclose(dx.values, expected, atol=1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("channels", [1, 2, 5, 8, 9])
def test_softmax_of_a_row_does_not_see_its_neighbours(dtype, channels):
    rows = 2 * LANES + 5  # few columns go through vectors of rows
    x = randoms((1, rows, channels)).astype(dtype)
    together = empty(x.shape, dtype)
    step = native.SoftmaxForward(rows, channels, 0, channels, 1, channels)
    run(step, {0: Tensor(x, dtype), 1: together}, 1)
    close(together.values, reference.softmax(x), dtype)
    for row in range(rows):
        alone = empty((1, 1, channels), dtype)
        step = native.SoftmaxForward(1, channels, 0, channels, 1, channels)
        run(step, {0: Tensor(x[:, row : row + 1], dtype), 1: alone}, 1)
        np.testing.assert_array_equal(alone.values[0, 0], together.values[0, row])


def test_softmax_of_huge_logits_and_of_nan(dtype):
    x = np.array([[[1e30, 0, -1e30], [1, np.nan, 2], [-np.inf, 3, 3]]])
    t = Tensor(x, dtype)
    run(native.SoftmaxForward(3, 3, 0, 3, 0, 3), {0: t}, 1)
    np.testing.assert_array_equal(t.values[0, 0], [1, 0, 0])
    assert np.isnan(t.values[0, 1]).all()
    np.testing.assert_allclose(t.values[0, 2], [0, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("gap", [0, 1])
def test_threads_change_no_bit(dtype, gap):
    n, pixels, channels = 5, 997, 33
    x = randoms((n, pixels, channels)).astype(dtype)
    stride = channels + gap

    def outputs():
        t = Tensor(x, dtype, stride)
        y, dx = empty(x.shape, dtype, stride), empty(x.shape, dtype, stride)
        run(
            native.ActivationForward(
                native.TANH, 0, INF, 0, pixels, channels, 0, stride, 1, stride
            ),
            {0: t, 1: y}, n,
        )  # fmt: skip
        run(
            native.ActivationBackward(
                native.TANH, 0, INF, 0, pixels, channels, 1, stride, 0, stride, 2, stride
            ),
            {1: y, 0: t, 2: dx}, n,
        )  # fmt: skip
        s = empty(x.shape, dtype, stride)
        run(
            native.SoftmaxForward(pixels, channels, 0, stride, 1, stride),
            {0: t, 1: s}, n,
        )  # fmt: skip
        return y.all, dx.all, s.all

    same_for_all_teams(outputs)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"pixels": 0}, "pixels"),
        ({"channels": 2.5}, "channels"),
        ({"x_stride": 3}, "x_stride"),
        ({"alpha": -1}, "alpha"),
        ({"kind": 77}, "kind"),
        ({"alpha": np.nan}, "alpha"),
    ],
)
def test_bad_arguments_are_named(change, name):
    good = {
        "kind": native.ELU, "alpha": 1, "beta": INF, "gamma": 0, "pixels": 3, "channels": 4,
        "x": 0, "x_stride": 4, "y": 1, "y_stride": 4,
    }  # fmt: skip
    native.ActivationForward(**good)
    with pytest.raises(ValueError, match=name):
        native.ActivationForward(**{**good, **change})


@pytest.mark.parametrize("case", ["linear", "relu", "relu_capped", "leaky_relu"])
@pytest.mark.parametrize("channels", [*CHANNELS, 8 * LANES, 65 * LANES + 1])
@pytest.mark.parametrize("gap", [0, 3])
def test_bias_and_mask_in_one_pass(dtype, case, channels, gap):
    kind, alpha, beta, gamma, f, gradient = CASES[case]
    n, pixels, s = 3, 61, channels + gap
    x, dy = (randoms((n, pixels, channels), i).astype(dtype) for i in range(2))
    y, tdy, dz = Tensor(f(x), dtype, s), Tensor(dy, dtype, s), empty(x.shape, dtype, s)
    scratch = empty((1, native.BiasBackward.scratch(channels)), dtype)
    expected = gradient(x, dy)

    def backward(db, dz, where, **options):
        linear = kind == native.LINEAR
        activation = None if linear else (kind, alpha, beta, gamma)
        slots = {0: y, 1: tdy, 2: dz, 3: db, 4: scratch}
        step = native.BiasBackward(
            activation, pixels, channels, 0, s, 1, s, where, s, 3, 4, **options
        )
        touched = {extent.slot for extent in (*step.reads, *step.writes)}
        run(step, {slot: t for slot, t in slots.items() if slot in touched}, n)
        return db.values[0], dy if linear else slots[where].values

    db, got = backward(empty((1, channels), dtype), dz, 2)
    close(db, expected.astype(float).sum((0, 1)), dtype)
    close(got, expected, dtype)
    same_for_all_teams(lambda: [backward(empty((1, channels), dtype), dz, 2)[0]])
    tens = Tensor(np.full((1, channels), 10.0), dtype)
    db, got = backward(tens, dz, 1, accumulate=True)  # in place
    close(db, 10 + expected.astype(float).sum((0, 1)), dtype)
    close(got, expected, dtype)


def test_bad_bias_backward():
    good = (None, 4, 3, 0, 3, 1, 3, 2, 3, 3, 4)
    native.BiasBackward(*good)
    for place, value, name in ((0, (native.TANH, 0, 0, 0), "activation"), (1, 0, "pixels"),
                               (6, 2, "dy_stride")):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            native.BiasBackward(*good[:place], value, *good[place + 1 :])


@pytest.mark.parametrize("channels", [*CHANNELS, 65 * LANES + 1])
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("rate", [0.25, 0.3, 0.9])
def test_a_relu_and_a_dropout_are_passed_by_one_look_at_y(dtype, channels, gap, rate):
    n, pixels, strides = 3, 61, [channels + gap * k for k in range(3)]
    x, dy = (randoms((n, pixels, channels), i).astype(dtype) for i in range(2))
    ends = rate, pixels * channels, 5
    y, masked = Tensor(reference.relu(x).astype(dtype), dtype), Tensor(dy, dtype)
    before = y.values
    for step, t in ((random.DropoutForward(*ends, 0, 0), y),
                    (random.DropoutBackward(*ends, 0, 0), masked)):  # fmt: skip
        run(step, {0: t}, n, training=True, seed=1, step_number=2)
    assert (before[y.values == 0] > 0).any()
    wanted = np.where(before > 0, masked.values, 0)  # one by one: dropout's, then ReLU's

    f = (native.RELU_DROPPED, 1 / (1 - rate), INF, 0)
    slots = {0: Tensor(y.values, dtype, strides[0]), 1: Tensor(dy, dtype, strides[1])}
    slots[2] = empty(x.shape, dtype, strides[2])
    where = [number for pair in enumerate(strides) for number in pair]
    run(native.ActivationBackward(*f, pixels, channels, *where), slots, n)
    np.testing.assert_array_equal(slots[2].values, wanted)

    sums = []
    for g, given in ((f, dy), ((native.RELU, 0, INF, 0), masked.values)):
        slots[1], slots[2] = Tensor(given, dtype, strides[1]), empty(x.shape, dtype, strides[2])
        slots[3] = empty((1, channels), dtype)
        slots[4] = empty((1, native.BiasBackward.scratch(channels)), dtype)
        run(native.BiasBackward(g, pixels, channels, *where, 3, 4), slots, n)
        np.testing.assert_array_equal(slots[2].values, wanted)
        sums.append(slots[3].values)
    np.testing.assert_array_equal(*sums)


def test_a_dropped_relu_has_no_forward():
    with pytest.raises(ValueError, match="derivative alone"):
        native.ActivationForward(native.RELU_DROPPED, 2, INF, 0, 4, 3, 0, 3, 1, 3)

"""Batch normalisation: statistics, forward, backward, running averages."""

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

from fastconv._native import activation
from fastconv._native import norm as native

__all__ = ["dtype"]
EPS = 1e-3


def vector(values, dtype):
    return Tensor(np.asarray(values)[None], dtype)


def statistics(x, dtype, stride, pixels):
    channels = x.shape[-1]
    mean, variance = empty((1, channels), dtype), empty((1, channels), dtype)
    scratch = empty((1, native.BatchNormStatistics.scratch(channels)), dtype)
    run(
        native.BatchNormStatistics(pixels, channels, 0, stride, 1, 2, 3),
        {0: Tensor(x, dtype, stride), 1: mean, 2: variance, 3: scratch}, len(x),
    )  # fmt: skip
    return mean, variance


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("n", "pixels"), [(1, 1), (1, 2), (3, 43), (2, 65), (7, 1300)])
@pytest.mark.parametrize("gap", [0, 3])
def test_statistics(dtype, channels, n, pixels, gap):
    x = (5 + 2 * randoms((n, pixels, channels))).astype(dtype)
    mean, variance = statistics(x, dtype, channels + gap, pixels)
    close(mean.values[0], x.astype(float).mean((0, 1)), dtype)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    exact = x.astype(float).var((0, 1))
    np.testing.assert_allclose(variance.values[0], exact, rtol=rtol, atol=1e-30)


def test_variance_of_data_far_from_zero_is_exact(dtype):
    # E[x²] − E[x]² would have no correct digit here in float32
    x = (10000 + randoms((4, 5000, 3))).astype(dtype)
    _, variance = statistics(x, dtype, 3, 5000)
    np.testing.assert_allclose(variance.values[0], x.astype(float).var((0, 1)), rtol=1e-4)
    _, variance = statistics(np.full((4, 5000, 3), 0.1, dtype), dtype, 3, 5000)
    assert (variance.values < 1e-12).all()


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_forward_and_backward(dtype, channels, gap, affine):
    n, pixels = 3, 151
    x = (2 + 3 * randoms((n, pixels, channels))).astype(dtype)
    dy = randoms(x.shape, 1).astype(dtype)
    gamma = randoms(channels, 2).astype(dtype) if affine else np.ones(channels)
    beta = randoms(channels, 3).astype(dtype) if affine else np.zeros(channels)
    s, t = channels + gap, channels + 2 * gap
    mean, variance = statistics(x, dtype, s, pixels)
    tx, tdy = Tensor(x, dtype, s), Tensor(dy, dtype, t)
    y, dx = empty(x.shape, dtype, t), empty(x.shape, dtype, s)
    params = {4: vector(gamma, dtype), 5: vector(beta, dtype)} if affine else {}
    expected, *_ = reference.batch_norm(x, gamma, beta, EPS)
    run(
        native.BatchNormForward(
            pixels, channels, EPS, 0, s, 1, 2, *((4, 5) if affine else (-1, -1)), 3, t
        ),
        {0: tx, 1: mean, 2: variance, 3: y, **params}, n,
    )  # fmt: skip
    close(y.values, expected, dtype)

    dgamma, dbeta = empty((1, channels), dtype), empty((1, channels), dtype)
    scratch = empty((1, native.BatchNormBackward.scratch(channels)), dtype)
    params.pop(5, None)
    run(
        native.BatchNormBackward(
            pixels, channels, EPS, 0, s, 1, 2, 4 if affine else -1, 3, t, 6, s, 7, 8, 9
        ),
        {0: tx, 1: mean, 2: variance, 3: tdy, 6: dx, 7: dgamma, 8: dbeta, 9: scratch, **params}, n,
    )  # fmt: skip
    expected = reference.batch_norm_backward(x, gamma, dy, EPS)
    for got, want in zip((dx.values, dgamma.values[0], dbeta.values[0]), expected, strict=True):
        close(got, want, dtype, 1e-5)


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_backward_options(dtype, batch_statistics):
    n, pixels, channels = 2, 90, 21
    x, dy = randoms((n, pixels, channels)).astype(dtype), randoms((n, pixels, channels), 1)
    gamma = randoms(channels, 2).astype(dtype)
    if batch_statistics:
        mean, variance = x.astype(float).mean((0, 1)), x.astype(float).var((0, 1))
        expected = reference.batch_norm_backward(x, gamma, dy, EPS)
    else:
        mean, variance = randoms(channels, 3), np.abs(randoms(channels, 4)) + 0.1
        expected = reference.batch_norm_inference_backward(x, gamma, mean, variance, dy, EPS)

    def backward(wanted, accumulate=False, in_place=False, **options):
        slots = {
            0: Tensor(x, dtype), 1: vector(mean, dtype), 2: vector(variance, dtype),
            3: vector(gamma, dtype), 4: Tensor(dy, dtype),
            8: empty((1, native.BatchNormBackward.scratch(channels)), dtype),
        }  # fmt: skip
        dx = -1
        if wanted[0]:
            dx = 4 if in_place else 5
            slots.setdefault(5, empty(x.shape, dtype)) if dx == 5 else None
        for slot, want in ((6, wanted[1]), (7, wanted[2])):
            if want:
                slots[slot] = vector(np.full(channels, 10.0), dtype)
        run(
            native.BatchNormBackward(
                pixels, channels, EPS, 0, channels, 1, 2, 3, 4, channels, dx, channels,
                6 if wanted[1] else -1, 7 if wanted[2] else -1, 8,
                accumulate=accumulate, batch_statistics=batch_statistics,
            ),
            slots, n, **options,
        )  # fmt: skip
        return slots

    got = backward((1, 1, 1), in_place=True)
    close(got[4].values, expected[0], dtype, 1e-5)
    close(got[6].values[0], expected[1], dtype, 1e-5)
    for options in ({"accumulate": True}, {}):
        got = backward((0, 1, 1), options.get("accumulate", False))
        add = 10 if options else 0
        close(got[6].values[0], expected[1] + add, dtype, 1e-5)
        close(got[7].values[0], expected[2] + add, dtype, 1e-5)
    close(backward((1, 0, 0))[5].values, expected[0], dtype, 1e-5)
    close(backward((0, 0, 1))[7].values[0], expected[2], dtype, 1e-5)


def test_a_run_that_accumulates_adds_gradients(dtype):
    x = randoms((2, 9, 3)).astype(dtype)
    mean, variance = vector(x.mean((0, 1)), dtype), vector(x.var((0, 1)), dtype)
    dbeta = vector(np.full(3, 7.0), dtype)
    run(
        native.BatchNormBackward(9, 3, EPS, 0, 3, 1, 2, -1, 3, 3, -1, 3, -1, 4, 5),
        {0: Tensor(x, dtype), 1: mean, 2: variance, 3: Tensor(x, dtype), 4: dbeta,
         5: empty((1, native.BatchNormBackward.scratch(3)), dtype)}, 2, accumulate=True,
    )  # fmt: skip
    close(dbeta.values[0], 7 + x.astype(float).sum((0, 1)), dtype)


def test_in_place_and_running_averages(dtype):
    x = randoms((2, 9, 5)).astype(dtype)
    mean, variance = vector(randoms(5, 1), dtype), vector(np.abs(randoms(5, 2)), dtype)
    expected = reference.batch_norm_inference(x, 1.0, 0.0, mean.values[0], variance.values[0], EPS)
    t = Tensor(x, dtype)
    run(native.BatchNormForward(9, 5, EPS, 0, 5, 1, 2, -1, -1, 0, 5),
        {0: t, 1: mean, 2: variance}, 2)  # fmt: skip
    close(t.values, expected, dtype)
    old = randoms((2, 5), 3).astype(dtype)
    running_mean, running_variance = vector(old[0], dtype), vector(old[1], dtype)
    run(native.BatchNormUpdateRunning(5, 0.9, 0, 1, 2, 3),
        {0: mean, 1: variance, 2: running_mean, 3: running_variance}, 2)  # fmt: skip
    close(running_mean.values, reference.moving_average(old[0], mean.values, 0.9), dtype)
    close(running_variance.values, reference.moving_average(old[1], variance.values, 0.9), dtype)


def test_nan_reaches_its_channel_alone(dtype):
    x = randoms((1, 300, 4)).astype(dtype)
    x[0, 200, 2] = np.nan
    mean, variance = statistics(x, dtype, 4, 300)
    np.testing.assert_array_equal(np.isnan(mean.values[0]), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(variance.values[0]), [False, False, True, False])


@pytest.mark.parametrize("channels", [1, 37, 130])
def test_threads_change_no_bit(dtype, channels):
    n, pixels = 3, 2500
    x, dy = randoms((n, pixels, channels)).astype(dtype), randoms((n, pixels, channels), 1)

    def outputs():
        mean, variance = statistics(x, dtype, channels, pixels)
        tx, tdy = Tensor(x, dtype), Tensor(dy, dtype)
        y, dx = empty(x.shape, dtype), empty(x.shape, dtype)
        dgamma, dbeta = empty((1, channels), dtype), empty((1, channels), dtype)
        run(
            native.BatchNormForward(
                pixels, channels, EPS, 0, channels, 1, 2, -1, -1, 3, channels
            ),
            {0: tx, 1: mean, 2: variance, 3: y}, n,
        )  # fmt: skip
        scratch = empty((1, native.BatchNormBackward.scratch(channels)), dtype)
        run(
            native.BatchNormBackward(
                pixels, channels, EPS, 0, channels, 1, 2, -1, 3, channels, 4, channels, 5, 6, 7
            ),
            {0: tx, 1: mean, 2: variance, 3: tdy, 4: dx, 5: dgamma, 6: dbeta, 7: scratch}, n,
        )  # fmt: skip
        return mean.all, variance.all, y.all, dx.all, dgamma.all, dbeta.all

    same_for_all_teams(outputs)


RELUS = {
    "relu": (activation.RELU, 0, np.inf, 0),
    "general": (activation.RELU, 0.2, 1.5, 0.1),
    "leaky": (activation.LEAKY_RELU, 0.3, np.inf, 0),
}


@pytest.mark.parametrize("channels", [*CHANNELS, 2 * LANES, 4 * LANES, 65 * LANES + 3])
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("f", RELUS)
@pytest.mark.parametrize("residual", [True, False])
def test_what_follows_in_the_same_pass(dtype, channels, gap, f, residual):
    n, pixels, f = 2, 67, RELUS[f]
    x, r, dy = (randoms((n, pixels, channels), i).astype(dtype) for i in range(3))
    s = channels + gap
    slots = {
        0: Tensor(x, dtype, s), 1: Tensor(r, dtype, s), 2: Tensor(dy, dtype, s),
        3: empty(x.shape, dtype, s), 4: empty(x.shape, dtype, s), 5: empty(x.shape, dtype, s),
        8: vector(randoms(channels, 3), dtype), 9: vector(randoms(channels, 4), dtype),
        10: empty((1, channels), dtype), 11: empty((1, channels), dtype),
        12: empty((1, native.BatchNormBackward.scratch(channels)), dtype),
    }  # fmt: skip
    slots[6], slots[7] = statistics(x, dtype, s, pixels)

    def execute(step, written=()):
        touched = {extent.slot for extent in (*step.reads, *step.writes)}
        run(step, {slot: t for slot, t in slots.items() if slot in touched}, n)
        return [slots[slot].values for slot in written]

    plain = native.BatchNormForward(pixels, channels, EPS, 0, s, 6, 7, 8, 9, 3, s)
    (y,) = execute(plain, [3])
    execute(
        native.BatchNormForward(
            pixels, channels, EPS, 0, s, 6, 7, 8, 9, 3, s, activation=f,
            residual=1 if residual else -1, residual_stride=s,
        )
    )  # fmt: skip
    # the same bits as one after the other
    slots[4] = Tensor(y + r if residual else y, dtype, s)
    execute(activation.ActivationForward(*f, pixels, channels, 4, s, 5, s))
    np.testing.assert_array_equal(slots[3].values, slots[5].values)
    execute(activation.ActivationBackward(*f, pixels, channels, 3, s, 2, s, 5, s))
    dz = slots[5].values
    rest = (8, 5, s, 4, s, 10, 11, 12)
    apart = execute(native.BatchNormBackward(pixels, channels, EPS, 0, s, 6, 7, *rest), (4, 10, 11))
    more = {"y": 3, "y_stride": s, "dz": 5, "dz_stride": s} if residual else {}
    for slot in (4, 5, 10, 11, 12):
        slots[slot] = empty(slots[slot].shape, dtype, slots[slot].stride)
    together = execute(
        native.BatchNormBackward(
            pixels, channels, EPS, 0, s, 6, 7, 8, 2, s, *rest[3:], activation=f, beta=9, **more
        ),
        (4, 10, 11),
    )
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_array_equal(a, b)
    if residual:
        np.testing.assert_array_equal(slots[5].values, dz)


def test_what_cannot_follow():
    for f in ((activation.TANH, 0, 0, 0), (activation.RELU, -1, 0, 0)):
        with pytest.raises(ValueError, match=r"activation|alpha"):
            native.BatchNormForward(4, 3, EPS, 0, 3, 1, 2, -1, -1, 3, 3, activation=f)
    with pytest.raises(ValueError, match="residual"):
        native.BatchNormForward(4, 3, EPS, 0, 3, 1, 2, -1, -1, 3, 3, residual=3, residual_stride=3)
    with pytest.raises(ValueError, match="y and dz"):
        native.BatchNormBackward(4, 3, EPS, 0, 3, 1, 2, -1, 3, 3, 4, 3, 5, 6, 7, y=8, y_stride=3)

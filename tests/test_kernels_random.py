"""Dropout and the generator under it."""

import numpy as np
import pytest
import reference
from kernel_tools import Tensor, dtype, empty, randoms, run, same_for_all_teams

from fastconv._native import dispatch, elementwise, norm, pool
from fastconv._native import random as native

__all__ = ["dtype"]


@pytest.mark.parametrize(
    ("key", "block", "step", "words"),
    [  # the authors' known answers, Random123 kat_vectors
        (0, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E,
         (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)  # fmt: skip
def test_philox_known_answers(dtype, key, block, step, words):
    assert tuple(native.philox(key, block, step)[0].tolist()) == words


def test_philox_of_neighbouring_counters(dtype):
    key, block, step = 0x0123456789ABCDEF, 2**32 - 7, 5  # carries into the second word
    got = native.philox(key, block, step)
    for j in range(16):
        counter = (block + j) & 0xFFFFFFFF, (block + j) >> 32, step, 0
        expected = reference.philox4x32(counter, (key & 0xFFFFFFFF, key >> 32))
        assert tuple(got[j].tolist()) == expected


def drop(dtype, x, rate=0.5, stream=3, seed=1, step=2, training=True):
    y = empty(x.shape, dtype)
    run(native.DropoutForward(rate, x[0].size, stream, 0, 1), {0: Tensor(x, dtype), 1: y}, len(x),
        training=training, seed=seed, step_number=step)  # fmt: skip
    return y.values


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_values_are_dropped_or_scaled(dtype, size, rate):
    x = randoms((3, size)).astype(dtype)
    y = drop(dtype, x, rate)
    kept = y != 0
    np.testing.assert_allclose(y, np.where(kept, x / (1 - rate), 0), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_share_and_independence(dtype, rate):
    ones = np.ones((100, 1000))
    masks = [
        drop(dtype, ones, rate, stream, seed, step) == 0
        for stream, seed, step in ((0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2))
    ]
    deviation = np.sqrt(rate * (1 - rate) / ones.size)
    for mask in masks:
        assert abs(mask.mean() - rate) < 5 * deviation
        # neighbours, and elements one word or one group apart, know nothing of each other
        for lag in (1, 16, 64):
            both = (mask.ravel()[lag:] & mask.ravel()[:-lag]).mean()
            assert abs(both - rate**2) < 10 * deviation
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert abs((a & b).mean() - rate**2) < 10 * deviation


def test_mask_is_the_same_for_every_table_and_follows_the_definition():
    x = np.ones((2, 333))
    before = dispatch.isa()
    masks = [drop(np.float64, x) != 0]
    for isa in dispatch.isa_names():
        dispatch.set_isa(isa)
        masks.append(drop(np.float32, x) != 0)
    dispatch.set_isa(before)
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_mask_is_a_function_of_the_place_in_the_batch(dtype):
    ones = np.ones((4, 100))
    np.testing.assert_array_equal(drop(dtype, ones)[:2], drop(dtype, ones[:2]))


def test_backward_has_the_mask_of_forward_and_in_place_agrees(dtype):
    x, dy = np.ones((3, 777)), randoms((3, 777)).astype(dtype)
    options = {"training": True, "seed": 2**63 + 5, "step_number": 9}
    y, dx = Tensor(x, dtype), empty(x.shape, dtype)
    run(native.DropoutForward(0.4, 777, 2**70 + 1, 0, 0), {0: y}, 3, **options)
    run(native.DropoutBackward(0.4, 777, 2**70 + 1, 0, 1), {0: Tensor(dy, dtype), 1: dx}, 3,
        **options)  # fmt: skip
    np.testing.assert_allclose(dx.values, dy * y.values, rtol=1e-6)


def test_no_training_copies(dtype):
    x = randoms((3, 77)).astype(dtype)
    np.testing.assert_array_equal(drop(dtype, x, training=False), x)
    np.testing.assert_array_equal(drop(dtype, x, rate=0), x)


def test_dropped_nan_is_zero_and_kept_nan_stays(dtype):
    y = drop(dtype, np.full((1, 640), np.nan))
    assert set(np.unique(np.isnan(y))) == {True, False}
    assert (y[~np.isnan(y)] == 0).all()


def test_threads_change_no_bit(dtype):
    x = randoms((7, 9001)).astype(dtype)
    same_for_all_teams(lambda: [drop(dtype, x)])


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, np.nan, "half"])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match="rate"):
        native.DropoutForward(rate, 3, 0, 0, 1)


# ---- other steps that drop what they have written ----

PIXELS, COLS = 4 * 5, 37


def window(x_stride, y_stride):
    return pool.PoolGeometry(
        (1, 4, 5), (1, 2, 3), (1, 1, 1), ((0, 0), (0, 1), (1, 1)), COLS, x_stride, y_stride
    )


CARRIERS = {
    "add": lambda x, y, mask: elementwise.Add(PIXELS, COLS, 0, x, 0, x, 1, y, dropout=mask),
    "norm": lambda x, y, mask: norm.BatchNormForward(
        PIXELS, COLS, 1e-3, 0, x, 2, 2, -1, -1, 1, y, dropout=mask
    ),
    "max": lambda x, y, mask: pool.MaxPoolForward(window(x, y), 0, 1, dropout=mask),
    "average": lambda x, y, mask: pool.AveragePoolForward(window(x, y), False, 0, 1, dropout=mask),
}


def carried(dtype, step, gap, n=9, training=True):
    y = empty((n, PIXELS, COLS), dtype, COLS + gap)
    x = Tensor(randoms((n, PIXELS, COLS)), dtype, COLS + 2 * gap)
    slots = {0: x, 1: y, 2: Tensor(np.arange(1.0, COLS + 1)[None], dtype)}
    touched = {extent.slot for extent in (*step.reads, *step.writes)}
    run(step, {slot: t for slot, t in slots.items() if slot in touched}, n, training=training,
        seed=5, step_number=7)  # fmt: skip
    return y.values


@pytest.mark.parametrize("who", CARRIERS)
@pytest.mark.parametrize("gap", [0, 3])
def test_a_step_drops_what_it_wrote(dtype, who, gap):
    strides = COLS + 2 * gap, COLS + gap
    plain = carried(dtype, CARRIERS[who](*strides, None), gap)
    got = carried(dtype, CARRIERS[who](*strides, (0.3, 11)), gap)
    apart = drop(dtype, plain.reshape(len(plain), -1), 0.3, 11, 5, 7)
    np.testing.assert_array_equal(got, apart.reshape(got.shape))
    idle = carried(dtype, CARRIERS[who](*strides, (0.3, 11)), gap, training=False)
    np.testing.assert_array_equal(idle, plain)
    same_for_all_teams(lambda: [carried(dtype, CARRIERS[who](*strides, (0.3, 11)), gap)])
    with pytest.raises(ValueError, match="rate"):
        CARRIERS[who](*strides, (1, 11))


@pytest.mark.parametrize("channels", [1, 7, 64, 100])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_of_pixels_with_gaps(dtype, channels, training):
    x = randoms((3, 50 * channels)).astype(dtype)
    pixels = x.reshape(3, 50, channels)
    options = {"training": training, "seed": 1, "step_number": 2}
    wanted = drop(dtype, x, 0.4, training=training).reshape(pixels.shape)
    y, here = empty(pixels.shape, dtype, channels + 5), Tensor(pixels, dtype, channels + 3)
    ends = (0.4, 50 * channels, 3)
    step = native.DropoutForward(*ends, 0, 1, channels, channels + 3, channels + 5)
    run(step, {0: here, 1: y}, 3, **options)
    np.testing.assert_array_equal(y.values, wanted)
    step = native.DropoutBackward(*ends, 0, 0, channels, channels + 3, channels + 3)
    run(step, {0: here}, 3, **options)
    np.testing.assert_array_equal(here.values, wanted)


def test_bad_pixels():
    native.DropoutForward(0.5, 12, 0, 0, 1, 3, 4, 5)
    with pytest.raises(ValueError, match="channels"):
        native.DropoutForward(0.5, 12, 0, 0, 1, 5)
    with pytest.raises(ValueError, match="x_stride"):
        native.DropoutForward(0.5, 12, 0, 0, 1, 3, 2)
    with pytest.raises(ValueError, match="stride"):
        native.DropoutForward(0.5, 12, 0, 0, 0, 3, 4, 5)

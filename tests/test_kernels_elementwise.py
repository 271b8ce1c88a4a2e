"""Copies, sums, padding, and the cast that brings samples and labels in."""

import numpy as np
import pytest
from kernel_tools import CHANNELS, Tensor, close, dtype, empty, randoms, run, same_for_all_teams

from fastconv._native import elementwise as native
from fastconv._native.step import execute

__all__ = ["dtype"]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("gap", [0, 3])
def test_copy_add_affine(dtype, channels, gap):
    n, pixels = 2, 7
    a, b = (randoms((n, pixels, channels), seed).astype(dtype) for seed in (0, 1))
    s, t = channels + gap, channels + 2 * gap
    ta, tb = Tensor(a, dtype, s), Tensor(b, dtype, t)
    y = empty(a.shape, dtype, t)
    run(native.Copy(pixels, channels, 0, s, 1, t), {0: ta, 1: y}, n)
    np.testing.assert_array_equal(y.values, a)

    y = empty(a.shape, dtype, s)
    run(native.Add(pixels, channels, 0, s, 1, t, 2, s), {0: ta, 1: tb, 2: y}, n)
    np.testing.assert_array_equal(y.values, a + b)

    y = empty(a.shape, dtype, t)
    run(native.Affine(pixels, channels, 0, s, 1, t, 0.5, -2.0), {0: ta, 1: y}, n)
    np.testing.assert_array_equal(y.values, a * dtype.type(0.5) - 2)


def test_in_place(dtype):
    a, b = randoms((2, 3, 5)).astype(dtype), randoms((2, 3, 5), 1).astype(dtype)
    for first in (True, False):
        ta, tb = Tensor(a, dtype), Tensor(b, dtype)
        run(native.Add(3, 5, 0, 5, 1, 5, 0 if first else 1, 5), {0: ta, 1: tb}, 2)
        np.testing.assert_array_equal((ta if first else tb).values, a + b)
    t = Tensor(a, dtype)
    run(native.Affine(3, 5, 0, 5, 0, 5, scale=2.0, offset=1.0), {0: t}, 2)
    np.testing.assert_array_equal(t.values, 2 * a + 1)
    with pytest.raises(ValueError, match="different"):
        native.Copy(3, 5, 0, 5, 0, 5)
    with pytest.raises(ValueError, match="strides"):
        native.Add(3, 5, 0, 5, 1, 5, 0, 6)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 5000])
def test_fill(dtype, size):
    y = empty((1, 2 * size + 3), dtype)
    run(native.Fill(size, 3, 0, 1.5), {0: y}, 2)
    assert (y.values == 1.5).all()


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize(
    ("size", "pads"),
    [
        ((1, 4, 5), ((0, 0), (1, 1), (2, 0))),
        ((2, 1, 1), ((1, 2), (0, 3), (1, 1))),
        ((1, 3, 300), ((0, 0), (0, 0), (0, 0))),
    ],
)
def test_pad_and_crop(dtype, channels, gap, size, pads):
    n = 2
    x = randoms((n, *size, channels)).astype(dtype)
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    s, t = channels + gap, channels + 2 * gap
    y = empty(padded.shape, dtype, t)
    step = native.PadCopy(size, pads, channels, 0, s, 1, t)
    assert step.out_size == padded.shape[1:4]
    run(step, {0: Tensor(x, dtype, s), 1: y}, n)
    np.testing.assert_array_equal(y.values, padded)
    noise = padded + randoms(padded.shape, 1).astype(dtype)
    inner = tuple(slice(b, b + k) for (b, _), k in zip(pads, size, strict=True))
    y = empty(x.shape, dtype, s)
    step = native.CropCopy(padded.shape[1:4], pads, channels, 0, t, 1, s)
    assert step.out_size == size
    run(step, {0: Tensor(noise, dtype, t), 1: y}, n)
    np.testing.assert_array_equal(y.values, noise[:, *inner])


@pytest.mark.parametrize(
    ("pixels", "channels", "gap"),
    [(1, 1, 0), (7, 3, 0), (16, 1, 2), (37, 5, 3), (3, 1000, 0), (9, 64, 64)],
)
def test_transpose(dtype, pixels, channels, gap):
    n = 3
    x = randoms((n, pixels, channels)).astype(dtype)
    y = empty((n, channels, pixels), dtype)
    step = native.Transpose(pixels, channels, 0, channels + gap, 1)
    run(step, {0: Tensor(x, dtype, channels + gap), 1: y}, n)
    np.testing.assert_array_equal(y.values, x.transpose(0, 2, 1))


def test_crop_leaves_something():
    with pytest.raises(ValueError, match="nothing"):
        native.CropCopy((1, 2, 2), ((0, 0), (1, 1), (0, 0)), 1, 0, 1, 1, 1)


KINDS = ["?", "b", "B", "h", "H", "i", "I", "l", "L", "f", "d", "int64", np.uint8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("elements", [1, 17, 5000])
def test_gather_casts_the_rows_asked_for(dtype, kind, elements):
    rng = np.random.default_rng(0)
    source = rng.integers(0, 2 if kind == "?" else 100, (6, elements)).astype(kind)
    index = np.array([5, 0, 3, 3], np.int64)
    y = empty((4, elements), dtype)
    execute(native.Gather(kind, elements, 6, 0, 1, 2), {0: source, 1: index, 2: y.array}, 4)
    y.check()
    np.testing.assert_array_equal(y.values, source[index])
    y = empty((4, elements), dtype)
    execute(native.Gather(kind, elements, 6, 0, -1, 2), {0: source, 2: y.array}, 4)
    y.check()
    np.testing.assert_array_equal(y.values, source[:4])


@pytest.mark.parametrize("row", [-1, 6, 2**40, -(2**62)])
def test_gather_refuses_rows_outside(dtype, row):
    source = np.zeros((6, 3), np.float32)
    y = empty((2, 3), dtype)
    slots = {0: source, 1: np.array([0, row]), 2: y.array}
    with pytest.raises(IndexError, match=f"row {row} of an array of 6"):
        execute(native.Gather("f", 3, 6, 0, 1, 2), slots, 2)
    assert np.isnan(y.values).all()
    with pytest.raises(IndexError):
        execute(native.Gather("f", 3, 6, 0, -1, 2), {0: source, 2: np.zeros((7, 3), dtype)}, 7)


@pytest.mark.parametrize("kind", ["e", "F", "O", "U3", ">f4", "M8[s]", "nonsense"])
def test_gather_refuses_other_kinds(kind):
    with pytest.raises(ValueError, match=r"kind|dtype"):
        native.Gather(kind, 3, 6, 0, 1, 2)


def test_execute_checks_element_sizes(dtype):
    step = native.Gather("B", 3, 6, 0, 1, 2)
    y = np.zeros((2, 3), dtype)
    index = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="slot 0"):
        execute(step, {0: np.zeros((6, 3), np.int64), 1: index, 2: y}, 2)
    with pytest.raises(ValueError, match="slot 1"):
        execute(step, {0: np.zeros((6, 3), np.uint8), 1: index.astype(np.int32), 2: y}, 2)
    with pytest.raises(ValueError, match="slot 0"):
        execute(step, {0: np.zeros((5, 3), np.uint8), 1: index, 2: y}, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_labels(dtype, kind):
    source = np.arange(2 if kind == "?" else 6).astype(kind)
    index = np.arange(len(source))[::-1].copy()
    y = empty((len(source), 1), np.int32)
    execute(
        native.GatherLabels(kind, 1, len(source), 0, 1, 2),
        {0: source, 1: index, 2: y.array}, len(source),
    )  # fmt: skip
    y.check()
    np.testing.assert_array_equal(y.values.ravel(), source[::-1].astype(int))


def test_what_is_no_label_becomes_no_class(dtype):
    for values in ([2.5, np.nan, np.inf, -np.inf, 1e30], [2**31, -(2**31) - 1, 2**62, -1, 7]):
        source = np.array(values)
        y = np.zeros(5, np.int32)
        execute(native.GatherLabels(source.dtype, 1, 5, 0, -1, 1), {0: source, 1: y}, 5)
        fits = [7] if 7 in values else []
        assert [v for v in y.tolist() if v >= 0] == fits


def test_threads_change_no_bit(dtype):
    n, pixels, channels = 3, 4000, 19
    x = randoms((n, pixels, channels)).astype(dtype)
    pads = ((0, 0), (1, 2), (3, 1))

    def outputs():
        t = Tensor(x, dtype, 20)
        y = empty(x.shape, dtype)
        run(native.Affine(pixels, channels, 0, 20, 1, 19, 3.0, 1.0), {0: t, 1: y}, n)
        z = empty((n, 1, 43, 104, channels), dtype)
        run(native.PadCopy((1, 40, 100), pads, channels, 0, 20, 1, 19), {0: t, 1: z}, n)
        g = empty((9, 50000), dtype)
        source = (np.arange(200000) % 251).astype(np.uint8).reshape(4, 50000)
        index = np.array([3, 1, 0, 2, 2, 3, 0, 1, 3])
        execute(native.Gather("B", 50000, 4, 0, 1, 2), {0: source, 1: index, 2: g.array}, 9)
        np.testing.assert_array_equal(g.values, source[index])
        return y.all, z.all, g.all

    same_for_all_teams(outputs)
    t, y = Tensor(x, dtype, 20), empty(x.shape, dtype)
    run(native.Affine(pixels, channels, 0, 20, 1, 19, 3.0, 1.0), {0: t, 1: y}, n)
    close(y.values, 3 * x.astype(float) + 1, dtype)

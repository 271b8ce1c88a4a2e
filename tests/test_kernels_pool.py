"""Pooling against the textbook: overlap, uneven strides, padding, unused borders, three dims."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import CHANNELS, Tensor, close, dtype, empty, randoms, run, same_for_all_teams

from fastconv._native import dispatch
from fastconv._native import pool as native

__all__ = ["dtype"]

# in_size, window, strides, pads
SHAPES = {
    "common": ((1, 6, 8), (1, 2, 2), (1, 2, 2), ((0, 0), (0, 0), (0, 0))),
    "unused_border": ((1, 7, 5), (1, 2, 2), (1, 2, 2), ((0, 0), (0, 0), (0, 0))),
    "common_padded": ((1, 5, 5), (1, 2, 2), (1, 2, 2), ((0, 0), (0, 1), (1, 0))),
    "overlap": ((1, 7, 7), (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))),
    "overlap_by_one": ((1, 6, 6), (1, 2, 2), (1, 1, 1), ((0, 0), (0, 0), (0, 0))),
    "uneven_stride": ((1, 9, 8), (1, 2, 3), (1, 3, 1), ((0, 0), (0, 0), (2, 1))),
    "gaps": ((1, 9, 9), (1, 2, 1), (1, 4, 3), ((0, 0), (1, 0), (0, 0))),
    "volume": ((4, 5, 3), (2, 3, 2), (2, 1, 2), ((1, 0), (1, 2), (0, 1))),
    "one_pixel": ((1, 1, 1), (1, 1, 1), (1, 1, 1), ((0, 0), (0, 0), (0, 0))),
    "one_by_one_apart": ((1, 5, 6), (1, 3, 3), (1, 1, 1), ((0, 0), (1, 1), (1, 1))),
    "a_byte": ((1, 16, 17), (1, 16, 16), (1, 1, 1), ((0, 0), (0, 0), (0, 0))),
    "two_bytes": ((1, 17, 17), (1, 17, 16), (1, 1, 1), ((0, 0), (0, 0), (0, 0))),
    "whole_image": ((1, 3, 4), (1, 3, 4), (1, 3, 4), ((0, 0), (0, 0), (0, 0))),
}


def forward_and_back(dtype, shape, channels, gap=0, n=2, count_padding=None):
    """Run both directions of max (count_padding None) or average pooling; compare."""
    size, window, strides, pads = shape
    rng = np.random.default_rng(1)
    x = rng.permutation(n * np.prod(size) * channels).reshape(n, *size, channels).astype(dtype)
    x -= x.mean()
    g = native.PoolGeometry(size, window, strides, pads, channels, channels + gap,
                            channels + 2 * gap)  # fmt: skip
    out = (n, *g.out_size, channels)
    dy = randoms(out, 2).astype(dtype)
    tx, y = Tensor(x, dtype, channels + gap), empty(out, dtype, channels + 2 * gap)
    tdy, dx = Tensor(dy, dtype, channels + 2 * gap), empty(x.shape, dtype, channels + gap)
    if count_padding is None:
        index = empty(out, f"u{g.index_size}")
        run(native.MaxPoolForward(g, x=0, y=1, index=2), {0: tx, 1: y, 2: index}, n)
        np.testing.assert_array_equal(y.values, reference.max_pool(x, window, strides, pads))
        np.testing.assert_array_equal(
            index.values, reference.max_pool_index(x, window, strides, pads)
        )
        again = empty(out, dtype, channels + 2 * gap)
        run(native.MaxPoolForward(g, x=0, y=1), {0: tx, 1: again}, n)
        np.testing.assert_array_equal(again.all, y.all)
        run(native.MaxPoolBackward(g, dy=0, index=1, dx=2), {0: tdy, 1: index, 2: dx}, n)
        expected = reference.max_pool_backward(x, dy, window, strides, pads)
    else:
        run(native.AveragePoolForward(g, count_padding, x=0, y=1), {0: tx, 1: y}, n)
        close(y.values, reference.avg_pool(x, window, strides, pads, count_padding), dtype)
        run(native.AveragePoolBackward(g, count_padding, dy=0, dx=1), {0: tdy, 1: dx}, n)
        expected = reference.avg_pool_backward(x, dy, window, strides, pads, count_padding)
    close(dx.values, expected, dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kind", [None, False, True])
def test_pooling(dtype, shape, channels, kind):
    forward_and_back(dtype, SHAPES[shape], channels, count_padding=kind)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [None, False, True])
def test_pooling_with_gaps_between_pixels(dtype, shape, kind):
    forward_and_back(dtype, SHAPES[shape], 5, gap=3, n=1, count_padding=kind)


@st.composite
def shapes(draw):
    window = [draw(st.integers(1, 4)) for _ in range(3)]
    strides = [draw(st.integers(1, 4)) for _ in range(3)]
    pads = [(draw(st.integers(0, w - 1)), draw(st.integers(0, w - 1))) for w in window]
    size = [draw(st.integers(max(1, w - b - a), 7)) for w, (b, a) in zip(window, pads, strict=True)]
    for i in range(3):  # a last window that would lie in the padding is refused, so shorten it
        while (sum(pads[i]) + size[i] - window[i]) // strides[i] * strides[i] - pads[i][0] >= size[
            i
        ]:
            pads[i] = (pads[i][0], pads[i][1] - 1)
    return tuple(size), tuple(window), tuple(strides), tuple(pads)


@settings(max_examples=60, deadline=None)
@given(shapes(), st.integers(1, 20), st.sampled_from([None, False, True]))
def test_any_geometry(shape, channels, kind):
    for real in (np.dtype(np.float32), np.dtype(np.float64)):
        forward_and_back(real, shape, channels, n=1, count_padding=kind)


def test_first_maximum_wins_and_nan_beats_numbers(dtype):
    g = native.PoolGeometry((1, 2, 2), (1, 2, 2), (1, 2, 2), ((0, 0),) * 3, 4, 4, 4)
    x = np.zeros((1, 1, 2, 2, 4))
    x[0, 0, :, :, 0] = [[1, 1], [1, 0]]
    x[0, 0, :, :, 1] = [[np.inf, np.nan], [3, np.inf]]
    x[0, 0, :, :, 2] = -np.inf
    x[0, 0, :, :, 3] = [[-3, -2], [-2, -3]]
    y, index = empty((1, 1, 1, 1, 4), dtype), empty((1, 1, 1, 1, 4), np.uint8)
    run(native.MaxPoolForward(g, x=0, y=1, index=2), {0: Tensor(x, dtype), 1: y, 2: index}, 1)
    np.testing.assert_array_equal(y.values.ravel(), [1, np.nan, -np.inf, -2])
    np.testing.assert_array_equal(index.values.ravel(), [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"window": (1, 9, 2)}, "window"),
        ({"pads": ((0, 0), (2, 0), (0, 0))}, "pads"),
        ({"pads": ((0, 0), (0, 2), (0, 0)), "window": (1, 1, 1)}, "pads"),
        ({"strides": (1, 0, 1)}, "strides"),
        ({"in_size": (4, 4)}, "in_size"),
        ({"y_stride": 2}, "y_stride"),
    ],
)
def test_bad_geometry_is_named(change, name):
    good = {
        "in_size": (1, 4, 4), "window": (1, 2, 2), "strides": (1, 1, 1), "pads": ((0, 0),) * 3,
        "channels": 3, "x_stride": 3, "y_stride": 3,
    }  # fmt: skip
    assert native.PoolGeometry(**good).out_size == (1, 3, 3)
    with pytest.raises(ValueError, match=name):
        native.PoolGeometry(**{**good, **change})


@pytest.mark.parametrize("channels", [*CHANNELS, 200])
@pytest.mark.parametrize("pixels", [1, 2, 300])
@pytest.mark.parametrize("gap", [0, 3])
def test_global_pooling(dtype, channels, pixels, gap):
    n = 2
    x = randoms((n, 1, pixels, channels)).astype(dtype)
    dy = randoms((n, channels), 1).astype(dtype)
    xs, ys = channels + gap, channels + 2 * gap
    tx, tdy = Tensor(x, dtype, xs), Tensor(dy, dtype, ys)
    y, dx = empty(dy.shape, dtype, ys), empty(x.shape, dtype, xs)
    run(native.GlobalAveragePoolForward(pixels, channels, x=0, x_stride=xs, y=1, y_stride=ys),
        {0: tx, 1: y}, n)  # fmt: skip
    close(y.values, reference.global_avg_pool(x), dtype)
    run(native.GlobalAveragePoolBackward(pixels, channels, dy=0, dy_stride=ys, dx=1, dx_stride=xs),
        {0: tdy, 1: dx}, n)  # fmt: skip
    close(dx.values, reference.global_avg_pool_backward(x, dy), dtype)

    y, dx, index = empty(dy.shape, dtype, ys), empty(x.shape, dtype, xs), empty(dy.shape, np.int32)
    run(
        native.GlobalMaxPoolForward(
            pixels, channels, x=0, x_stride=xs, y=1, y_stride=ys, index=2
        ),
        {0: tx, 1: y, 2: index}, n,
    )  # fmt: skip
    np.testing.assert_array_equal(y.values, reference.global_max_pool(x))
    np.testing.assert_array_equal(index.values, x.reshape(n, pixels, channels).argmax(1))
    run(
        native.GlobalMaxPoolBackward(
            pixels, channels, dy=0, dy_stride=ys, index=1, dx=2, dx_stride=xs
        ),
        {0: tdy, 1: index, 2: dx}, n,
    )  # fmt: skip
    np.testing.assert_array_equal(dx.values, reference.global_max_pool_backward(x, dy))


def test_threads_change_no_bit(dtype):
    n, size, channels = 3, (1, 37, 41), 21
    x = randoms((n, *size, channels)).astype(dtype)
    g = native.PoolGeometry(size, (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1)), channels,
                            channels, channels)  # fmt: skip
    dy = randoms((n, *g.out_size, channels), 1).astype(dtype)

    def outputs():
        tx, tdy = Tensor(x, dtype), Tensor(dy, dtype)
        y, index = empty(dy.shape, dtype), empty(dy.shape, np.uint8)
        dx, mean, back = empty(x.shape, dtype), empty(dy.shape, dtype), empty(x.shape, dtype)
        run(native.MaxPoolForward(g, x=0, y=1, index=2), {0: tx, 1: y, 2: index}, n)
        run(native.MaxPoolBackward(g, dy=0, index=1, dx=2), {0: tdy, 1: index, 2: dx}, n)
        run(native.AveragePoolForward(g, False, x=0, y=1), {0: tx, 1: mean}, n)
        run(native.AveragePoolBackward(g, False, dy=0, dx=1), {0: tdy, 1: back}, n)
        total = empty((n, channels), dtype)
        run(native.GlobalAveragePoolForward(37 * 41, channels, 0, channels, 1),
            {0: tx, 1: total}, n)  # fmt: skip
        return y.all, index.all, dx.all, mean.all, back.all, total.all

    same_for_all_teams(outputs)


def test_every_table_was_run():
    assert dispatch.isa_names()[-1] == "baseline"

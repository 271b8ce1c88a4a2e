"""Depthwise convolution against the textbook: every form, edges, strides, dilation, three dims."""

from math import prod

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import (
    CHANNELS,
    TABLES,
    Tensor,
    dtype,
    empty,
    randoms,
    run,
    same_for_all_teams,
)

from fastconv._native import activation, dispatch
from fastconv._native import depthwise as native
from fastconv._native.geometry import ConvGeometry

__all__ = ["dtype"]

SAME = ((0, 0), (1, 1), (1, 1))
# in_size, kernel, strides, dilation, pads
SHAPES = {
    "3x3": ((1, 9, 26), (1, 3, 3), (1, 1, 1), (1, 1, 1), SAME),
    "3x3_one_block": ((1, 7, 7), (1, 3, 3), (1, 1, 1), (1, 1, 1), SAME),
    "3x3_valid": ((1, 5, 20), (1, 3, 3), (1, 1, 1), (1, 1, 1), ((0, 0),) * 3),
    "3x3_stride_2": ((1, 12, 37), (1, 3, 3), (1, 2, 2), (1, 1, 1), ((0, 0), (0, 1), (0, 1))),
    "3x3_stride_3": ((1, 10, 13), (1, 3, 3), (1, 3, 3), (1, 1, 1), SAME),
    "5x5": ((1, 9, 21), (1, 5, 5), (1, 1, 1), (1, 1, 1), ((0, 0), (2, 2), (2, 2))),
    "5x5_stride_2": ((1, 11, 40), (1, 5, 5), (1, 2, 2), (1, 1, 1), ((0, 0), (1, 2), (1, 2))),
    "7x7": ((1, 8, 30), (1, 7, 7), (1, 1, 1), (1, 1, 1), ((0, 0), (3, 3), (3, 3))),
    "2x4": ((1, 6, 19), (1, 2, 4), (1, 1, 1), (1, 1, 1), ((0, 0), (1, 0), (2, 1))),
    "1x1": ((1, 3, 11), (1, 1, 1), (1, 1, 1), (1, 1, 1), ((0, 0),) * 3),
    "9_taps": ((1, 2, 24), (1, 1, 9), (1, 1, 1), (1, 1, 1), ((0, 0), (0, 0), (4, 4))),
    "19_taps": ((1, 1, 30), (1, 1, 19), (1, 1, 1), (1, 1, 1), ((0, 0), (0, 0), (9, 9))),
    "dilated": ((1, 11, 30), (1, 3, 3), (1, 1, 1), (1, 2, 3), ((0, 0), (2, 2), (3, 3))),
    "dilated_stride": ((1, 14, 17), (1, 3, 4), (1, 2, 3), (1, 3, 2), ((0, 0), (1, 4), (2, 0))),
    "dilation_meets_stride": ((1, 13, 26), (1, 3, 5), (1, 2, 2), (1, 2, 4), SAME),
    "gaps": ((1, 11, 13), (1, 2, 2), (1, 5, 4), (1, 1, 1), ((0, 0),) * 3),
    "pads_larger_than_the_image": ((1, 2, 3), (1, 3, 3), (1, 1, 1), (1, 1, 1),
                                   ((0, 0), (5, 7), (12, 4))),
    "kernel_larger_than_the_image": ((1, 3, 2), (1, 5, 7), (1, 1, 1), (1, 1, 1),
                                     ((0, 0), (2, 2), (3, 3))),
    "volume": ((4, 5, 12), (3, 2, 3), (2, 1, 2), (1, 2, 1), ((1, 1), (0, 1), (2, 0))),
    "one_pixel": ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), ((0, 0),) * 3),
}  # fmt: skip


def near(got, expected, dtype, terms):
    """Equal but for rounding; sums of many terms lose a little more."""
    scale = max(1.0, np.abs(expected).max())
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, expected, rtol=0, atol=eps * scale * (8 + 4 * terms**0.5))


class Case:
    """One problem on random data, its steps and the textbook's answers."""

    def __init__(self, shape, channels, dtype, gap=0, n=2, seed=1):
        size, kernel, self.strides, self.dilation, self.pads = shape
        self.geometry = ConvGeometry(
            in_size=size, kernel=kernel, strides=self.strides, dilation=self.dilation,
            pads=self.pads, channels=channels, filters=channels, groups=channels,
            x_stride=channels + gap, y_stride=channels + 2 * gap,
        )  # fmt: skip
        self.n, self.gap, self.channels, self.dtype = n, gap, channels, dtype
        self.x = randoms((n, *size, channels), seed).astype(np.float32)
        self.w = randoms((*kernel, channels), seed + 1).astype(np.float32)
        self.b = randoms((channels,), seed + 2).astype(np.float32)
        self.dy = randoms((n, *self.geometry.out_size, channels), seed + 3).astype(np.float32)

    def tensor(self, values, gaps=0):
        return Tensor(values, self.dtype, self.channels + gaps * self.gap)

    def forward(self, samples=slice(None), bias=True, more=(), **kwargs):
        x = self.x[samples]
        y = empty((len(x), *self.dy.shape[1:]), self.dtype, self.channels + 2 * self.gap)
        slots = {0: self.tensor(x, 1), 1: self.tensor(self.w), 2: y, **dict(more)}
        if bias:
            slots[3] = self.tensor(self.b)
        step = native.DepthwiseForward(
            self.geometry, x=0, weight=1, y=2, bias=3 if bias else -1, **kwargs
        )
        run(step, slots, len(x))
        return y.values

    def input_gradient(self, samples=slice(None)):
        dy = self.dy[samples]
        dx = empty((len(dy), *self.x.shape[1:]), self.dtype, self.channels + self.gap)
        step = native.DepthwiseInputGradient(self.geometry, dy=0, weight=1, dx=2)
        run(step, {0: self.tensor(dy, 2), 1: self.tensor(self.w), 2: dx}, len(dy))
        return dx.values

    def weight_gradient(self, start=None, **kwargs):
        dw = empty(self.w.shape, self.dtype) if start is None else self.tensor(start)
        scratch = empty((native.DepthwiseWeightGradient.scratch_size(self.geometry),), self.dtype)
        step = native.DepthwiseWeightGradient(self.geometry, x=0, dy=1, dw=2, scratch=3, **kwargs)
        slots = {0: self.tensor(self.x, 1), 1: self.tensor(self.dy, 2), 2: dw, 3: scratch}
        run(step, slots, self.n)
        return dw.values

    def all(self):
        return self.forward(), self.input_gradient(), self.weight_gradient()

    def check(self):
        options = (self.strides, self.pads, self.dilation, self.channels)
        w = self.w[..., None, :]
        dx, dw, _ = reference.conv_backward(self.x, w, self.dy, *options)
        taps, pixels = prod(self.w.shape[:3]), prod(self.dy.shape[:4])
        near(self.forward(), reference.conv(self.x, w, self.b, *options), self.dtype, taps)
        near(self.input_gradient(), dx, self.dtype, taps)
        near(self.weight_gradient(), dw[..., 0, :], self.dtype, pixels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_against_the_textbook(dtype, shape, channels):
    Case(SHAPES[shape], channels, dtype).check()


@pytest.mark.parametrize("shape", SHAPES)
def test_gaps_between_pixels(dtype, shape):
    Case(SHAPES[shape], 5, dtype, gap=3, n=1).check()


@st.composite
def shapes(draw):
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 40)))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 9)))
    strides, dilation = (draw(st.tuples(*[st.integers(1, 4)] * 3)) for _ in range(2))
    pads = []
    for s, k, d in zip(size, kernel, dilation, strict=True):
        before = draw(st.integers(0, 6))
        least = max(0, (k - 1) * d + 1 - s - before)
        pads.append((before, draw(st.integers(least, least + 4))))
    return size, kernel, strides, dilation, tuple(pads)


@settings(max_examples=120, deadline=None)
@given(shape=shapes(), channels=st.integers(1, 40), gap=st.integers(0, 3),
       n=st.integers(1, 3), table=st.sampled_from(TABLES))  # fmt: skip
def test_any_shape(shape, channels, gap, n, table):
    before = dispatch.isa()
    if table != "float64":
        dispatch.set_isa(table)
    try:
        kind = np.float64 if table == "float64" else np.float32
        Case(shape, channels, np.dtype(kind), gap, n).check()
    finally:
        dispatch.set_isa(before)


def test_fused_activation_and_no_bias(dtype):
    case = Case(SHAPES["3x3"], 21, dtype)
    linear = case.forward(bias=False)
    case.b[...] = 0
    np.testing.assert_array_equal(case.forward(), linear)
    relu = case.forward(activation=(activation.RELU, 0, np.inf, 0))
    np.testing.assert_array_equal(relu, np.maximum(linear, 0))
    leaky = case.forward(activation=(activation.LEAKY_RELU, 0.5, np.inf, 0))
    np.testing.assert_array_equal(leaky, np.where(linear > 0, linear, linear / 2))


def test_nan_stays_in_its_window_and_channel(dtype):
    case = Case(SHAPES["3x3"], 17, dtype)
    case.x[0, 0, 4, 8, 3] = np.nan
    y = case.forward(activation=(activation.RELU, 0, np.inf, 0))
    assert np.isnan(y[0, 0, 3:6, 7:10, 3]).all()
    assert np.isnan(y).sum() == 9


def test_gradient_is_added(dtype):
    case = Case(SHAPES["5x5"], 19, dtype)
    start = randoms(case.w.shape, 9).astype(dtype)
    total = case.weight_gradient(start, accumulate=True)
    near(total, start + case.weight_gradient().astype(float), dtype, 2)


@pytest.mark.parametrize("shape", ["3x3", "3x3_stride_2", "dilated_stride", "volume"])
def test_same_bits_on_any_number_of_threads(dtype, shape):
    case = Case(SHAPES[shape], 33, dtype, n=24)
    same_for_all_teams(case.all)


@pytest.mark.parametrize("shape", SHAPES)
def test_same_bits_of_a_sample_in_any_batch(dtype, shape):
    case = Case(SHAPES[shape], 18, dtype, n=3)
    y, dx = case.forward(), case.input_gradient()
    for i in range(3):
        one = slice(i, i + 1)
        np.testing.assert_array_equal(case.forward(one), y[one])
        np.testing.assert_array_equal(case.input_gradient(one), dx[one])


def test_bad_arguments_are_named():
    good = ConvGeometry(in_size=(1, 4, 4), kernel=(1, 3, 3), channels=4, filters=4, groups=4)
    other = ConvGeometry(in_size=(1, 4, 4), kernel=(1, 3, 3), channels=4, filters=4, groups=2)
    with pytest.raises(ValueError, match="groups=2"):
        native.DepthwiseForward(other, x=0, weight=1, y=2)
    with pytest.raises(ValueError, match="activation"):
        native.DepthwiseForward(good, x=0, weight=1, y=2, activation=(activation.TANH, 0, 0, 0))
    with pytest.raises(ValueError, match="different slots"):
        native.DepthwiseForward(good, x=0, weight=1, y=0)
    with pytest.raises(ValueError, match="different slots"):
        native.DepthwiseInputGradient(good, dy=0, weight=1, dx=0)
    with pytest.raises(ValueError, match="different slots"):
        native.DepthwiseWeightGradient(good, x=0, dy=1, dw=2, scratch=2)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_channels_repeated_and_folded(dtype, times):
    x, g = randoms((3, 7, 5)), randoms((3, 7, 5 * times), 1).astype(np.float32)
    y, dx = empty(g.shape, dtype, 5 * times + 2), empty(x.shape, dtype, 6)
    step = native.RepeatChannels(7, 5, times, 0, 8, 1, 5 * times + 2)
    run(step, {0: Tensor(x, dtype, 8), 1: y}, 3)
    np.testing.assert_array_equal(y.values, np.repeat(x.astype(dtype), times, axis=-1))
    step = native.FoldChannels(7, 5, times, 0, 5 * times + 1, 1, 6)
    run(step, {0: Tensor(g, dtype, 5 * times + 1), 1: dx}, 3)
    near(dx.values, g.reshape(3, 7, 5, times).sum(-1, dtype=float), dtype, times)
    with pytest.raises(ValueError, match="times"):
        native.RepeatChannels(7, 5, 0, 0, 5, 1, 5)


def test_strides_beyond_the_image_cost_nothing():
    shape = ((1, 6, 6), (1, 2, 2), (1, 10**6, 10**6), (1, 1, 1), ((0, 0),) * 3)
    Case(shape, 3, np.dtype(np.float32)).check()

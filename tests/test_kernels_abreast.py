"""Output pixels abreast against the textbook: the wide weight, its gradient, where it is used."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import TABLES, Tensor, close, dtype, empty, randoms, run, same_for_all_teams

from fastconv._native import abreast, conv, dispatch
from fastconv._native.geometry import ConvGeometry
from fastconv._native.weight_gradient import ConvWeightGradient

__all__ = ["dtype"]


class Case:
    """One convolution that goes ``count`` pixels abreast, on random data."""

    def __init__(self, size, kernel, channels, filters, count, strides=1, dilation=1, pads=(1, 2),
                 n=3):  # fmt: skip
        self.options = ((1, strides, 1), ((0, 0), pads, pads), (1, dilation, 1), 1)
        strides, pads, dilation, _ = self.options
        self.geometry = ConvGeometry(in_size=size, kernel=kernel, channels=channels,
                                     filters=filters, strides=strides, dilation=dilation,
                                     pads=pads)  # fmt: skip
        self.n, self.count = n, count
        self.x = randoms((n, *size, channels)).astype(np.float32)
        self.w = randoms((*kernel, channels, filters), 1).astype(np.float32)
        self.b = randoms((filters,), 2).astype(np.float32)
        self.dy = randoms((n, *self.geometry.out_size, filters), 3).astype(np.float32)

    def forward(self, dtype):
        g = abreast.widened(self.geometry, self.count)
        wide = empty((g.weight_size,), dtype)
        bias = empty((g.filters,), dtype)
        step = abreast.AbreastWeights(
            self.geometry, self.count, weight=0, wide=1, bias=2, wide_bias=3
        )
        run(step, {0: Tensor(self.w, dtype), 1: wide, 2: Tensor(self.b, dtype), 3: bias}, self.n)
        panel, y = empty((g.forward_panel_size,), dtype), empty(self.dy.shape, dtype)
        run(conv.PackForward(g, weight=0, panel=1), {0: wide, 1: panel}, self.n)
        step = conv.ConvForward(g, x=0, panel=1, bias=2, y=3)
        run(step, {0: Tensor(self.x, dtype), 1: panel, 2: bias, 3: y}, self.n)
        return y.values

    def weight_gradient(self, dtype, start=None, **kwargs):
        g = abreast.widened(self.geometry, self.count)
        wide, scratch = empty((g.weight_size,), dtype), empty((max(1, g.scratch_size),), dtype)
        step = ConvWeightGradient(g, x=0, dy=1, dw=2, scratch=3, passing=True)
        slots = {0: Tensor(self.x, dtype), 1: Tensor(self.dy, dtype), 2: wide, 3: scratch}
        run(step, slots, self.n, **kwargs)
        dw = empty(self.w.shape, dtype) if start is None else Tensor(start, dtype)
        step = abreast.AbreastGradient(self.geometry, self.count, wide=0, dw=1)
        run(step, {0: wide, 1: dw}, self.n, **kwargs)
        return dw.values

    def check(self, dtype):
        close(self.forward(dtype), reference.conv(self.x, self.w, self.b, *self.options), dtype)
        _, dw, _ = reference.conv_backward(self.x, self.w, self.dy, *self.options)
        close(self.weight_gradient(dtype), dw, dtype, 5e-6)


CASES = {
    "LeNet": Case((1, 28, 28), (1, 5, 5), 1, 6, 2, pads=(2, 2)),
    "three channels": Case((1, 9, 13), (1, 3, 3), 3, 5, 2, pads=(1, 2)),
    "one filter": Case((1, 6, 33), (1, 3, 4), 2, 1, 3),
    "rows apart": Case((1, 17, 10), (1, 3, 3), 1, 8, 2, strides=2, dilation=2, pads=(1, 3)),
    "volume": Case((3, 5, 9), (2, 3, 3), 2, 4, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_against_the_textbook(name, dtype):
    CASES[name].check(dtype)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), name=st.sampled_from(TABLES))
def test_any_shape(data, name):
    count, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    width = count * data.draw(st.integers(1, 4)) + columns - 1 - 2  # pads are 1 + 1
    if width < 1:
        return
    size = (1, data.draw(st.integers(3, 9)), width)
    kernel = (1, data.draw(st.integers(1, 4)), columns)
    case = Case(size, kernel, data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9)), count,
                strides=data.draw(st.integers(1, 3)), pads=(1, 1))  # fmt: skip
    before = dispatch.isa()
    try:
        if name != "float64":
            dispatch.set_isa(name)
        case.check(np.dtype(np.float64 if name == "float64" else np.float32))
    finally:
        dispatch.set_isa(before)


def test_a_pass_that_accumulates_adds_once(dtype):
    case = CASES["three channels"]
    start = randoms(case.w.shape, 5).astype(np.float32)
    added = case.weight_gradient(dtype, start, accumulate=True)
    close(added, case.weight_gradient(dtype) + start, dtype)


def test_same_bits_on_any_number_of_threads():
    case = Case((1, 90, 96), (1, 5, 5), 1, 6, 2, n=5, pads=(2, 2))
    same_for_all_teams(lambda: (case.forward(np.float32), case.weight_gradient(np.float32)))


@pytest.mark.parametrize(
    ("change", "pixels"),
    [
        ({}, 2),
        ({"filters": 4}, 4),
        ({"filters": 9}, 1),
        ({"channels": 2}, 1),
        ({"x_stride": 2}, 1),
        ({"y_stride": 7}, 1),
        ({"strides": (1, 1, 2)}, 1),
        ({"dilation": (1, 1, 2)}, 1),
        ({"in_size": (1, 32, 31)}, 1),
    ],
)
def test_where_it_pays(change, pixels):
    """Few channels to few filters without gaps, where pixels divide a row of y."""
    lenet = {"in_size": (1, 32, 32), "kernel": (1, 5, 5), "channels": 1, "filters": 6}
    geometry = ConvGeometry(**{**lenet, **change})
    assert abreast.pixels(geometry) == pixels
    if pixels > 1:
        assert abreast.widened(geometry, pixels).out_size[2] * pixels == geometry.out_size[2]


def test_pixels_that_do_not_divide_a_row_are_refused():
    geometry = ConvGeometry(in_size=(1, 5, 9), kernel=(1, 3, 3), channels=1, filters=2)
    with pytest.raises(ValueError, match="3 pixels of a row of 7"):
        abreast.AbreastGradient(geometry, 3, wide=0, dw=1)

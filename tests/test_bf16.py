"""Products of bfloat16: against the textbook form of rounded operands, and their bits."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from kernel_tools import same_for_all_teams
from test_conv import LEAKY, LEAKY_SLOPE, RELU, Case, cases, flat

from fastconv._native import bf16, dispatch
from fastconv._native.step import execute

pytestmark = pytest.mark.skipif(
    not dispatch.has_bf16(), reason="the kernel table in use has no products of bfloat16"
)

SAME = ((0, 0), (1, 1), (1, 1))


def rounded(a):
    """float32 with the mantissa of bfloat16: to the nearest, ties to even."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    even = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return (even & np.uint32(0xFFFF0000)).view(np.float32)


class Rounded(Case):
    """A `Case` whose three directions multiply bfloat16; the textbook's operands are rounded."""

    def textbook(self):
        exact = self.x, self.w, self.dy
        self.x, self.w, self.dy = map(rounded, exact)
        try:
            return super().textbook()
        finally:
            self.x, self.w, self.dy = exact

    def packed(self, backward=False):
        panel = flat(bf16.panel_size(self.geometry, backward), np.float32)
        step = bf16.Bf16Pack(self.geometry, weight=0, panel=1, backward=backward)
        execute(step, {0: self.w.ravel(), 1: panel.buffer}, 1)
        assert panel.intact()
        return panel.buffer

    def forward(self, dtype=np.float32, samples=slice(None), more=(), **kwargs):
        n = len(self.x[samples])
        x, y = self.pixels_x(dtype, self.x[samples], n), self.pixels_y(dtype, n=n)
        step = bf16.Bf16Forward(self.geometry, x=0, panel=1, bias=2, y=3, **kwargs)
        arrays = {0: x.buffer, 1: self.packed(), 2: self.b, 3: y.buffer, **dict(more)}
        execute(step, arrays, n)
        assert y.intact()
        return y.values.copy()

    def input_gradient(self, dtype=np.float32, samples=slice(None), **kwargs):
        n = len(self.dy[samples])
        dy, dx = self.pixels_y(dtype, self.dy[samples], n), self.pixels_x(dtype, n=n)
        step = bf16.Bf16InputGradient(self.geometry, dy=0, panel=1, dx=2, **kwargs)
        arrays = {0: dy.buffer, 1: self.packed(backward=True), 2: dx.buffer}
        execute(step, arrays, n)
        assert dx.intact()
        return dx.values.copy()

    def weight_gradient(self, dtype=np.float32, start=None, **kwargs):
        x, dy = self.pixels_x(dtype, self.x), self.pixels_y(dtype, self.dy)
        dw = flat(self.w.size, dtype, None if start is None else start.ravel())
        scratch = flat(max(1, self.geometry.scratch_size), dtype)
        step = bf16.Bf16WeightGradient(self.geometry, x=0, dy=1, dw=2, scratch=3, **kwargs)
        execute(step, {0: x.buffer, 1: dy.buffer, 2: dw.buffer, 3: scratch.buffer}, self.n)
        assert dw.intact()
        assert scratch.intact()
        return dw.buffer.reshape(self.w.shape).copy()


def check(case):
    """All three directions, up to what sums in float32 lose."""
    g = case.geometry
    terms = prod(g.kernel) * max(g.channels, g.filters), case.n * prod(g.out_size)
    for name, got, expected, count in zip(
        ("y", "dx", "dw"), case.all(np.float32), case.textbook()[:3], (*terms[:1] * 2, terms[1]),
        strict=True,
    ):  # fmt: skip
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        tolerance = 1.2e-7 * scale * (8 + 4 * count**0.5)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)


CASES = {
    "1x1": Rounded(3, (1, 9, 7), (1, 1, 1), 64, 96),
    "1x1, odd numbers": Rounded(3, (1, 9, 7), (1, 1, 1), 33, 45),
    "1x1, stride 2": Rounded(2, (1, 9, 8), (1, 1, 1), 40, 70, strides=(1, 2, 2)),
    "1x1, many channels": Rounded(1, (1, 4, 5), (1, 1, 1), 2500, 41),
    "3x3": Rounded(2, (1, 8, 9), (1, 3, 3), 35, 66, pads=SAME),
    "3x3, stride 2": Rounded(2, (1, 13, 12), (1, 3, 3), 32, 64, strides=(1, 2, 2), pads=SAME),
    "5x5 of chunks": Rounded(1, (1, 7, 6), (1, 5, 5), 150, 33, pads=((0, 0), (2, 2), (2, 2))),
    "groups": Rounded(2, (1, 7, 8), (1, 3, 3), 66, 99, groups=3, pads=SAME),
    "dilation": Rounded(2, (1, 11, 12), (1, 3, 3), 34, 36, dilation=(1, 2, 3)),
    "strided pixels": Rounded(2, (1, 7, 6), (1, 3, 3), 36, 37, x_gap=3, y_gap=5, pads=SAME),
    "stride past the kernel": Rounded(2, (1, 11, 13), (1, 1, 1), 32, 35, strides=(1, 3, 4)),
    "pads larger than needed": Rounded(1, (1, 4, 3), (1, 3, 3), 32, 33,
                                       pads=((0, 0), (5, 7), (6, 4))),
    "many pixels": Rounded(2, (1, 40, 41), (1, 1, 1), 32, 34),
    "batch of pieces": Rounded(19, (1, 12, 12), (1, 1, 1), 33, 40),
    "blocks of tiles and panels": Rounded(2, (1, 6, 6), (1, 1, 1), 300, 520),
    "3-D": Rounded(2, (4, 5, 6), (3, 2, 3), 32, 40, strides=(1, 2, 1),
                   pads=((1, 1), (0, 1), (2, 0))),
    "one pixel": Rounded(1, (1, 1, 1), (1, 1, 1), 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_the_textbook_of_rounded_operands(name):
    check(CASES[name])


@given(cases())
@settings(max_examples=60)
def test_fuzzed(case):
    case.__class__ = Rounded
    check(case)


def test_the_second_of_a_pair_is_added_first():
    """To the bit: an emulation with one rounding after each of two fused multiply-adds."""
    case = Rounded(1, (1, 5, 6), (1, 1, 1), 71, 40)
    x, w = rounded(case.x).reshape(30, 71), rounded(case.w).reshape(71, 40)
    x, w = np.pad(x, ((0, 0), (0, 1))), np.pad(w, ((0, 1), (0, 0)))
    sums = np.broadcast_to(case.b, (30, 40))
    for k in range(0, 72, 2):
        for term in (k + 1, k):  # in double a product is exact, and so is the sum but for its end
            product = np.outer(x[:, term].astype(float), w[term].astype(float))
            sums = (sums + product).astype(np.float32)
    np.testing.assert_array_equal(case.forward().reshape(30, 40), sums)


@pytest.mark.parametrize("name", ["1x1, stride 2", "3x3", "groups", "batch of pieces"])
def test_same_bits_for_all_teams_and_batches(name):
    case = CASES[name]
    same_for_all_teams(lambda: case.all(np.float32))
    whole = case.forward(), case.input_gradient()
    for i in range(case.n):
        alone = slice(i, i + 1)
        np.testing.assert_array_equal(case.forward(samples=alone)[0], whole[0][i])
        np.testing.assert_array_equal(case.input_gradient(samples=alone)[0], whole[1][i])


@pytest.mark.parametrize("name", ["3x3", "1x1, odd numbers", "5x5 of chunks"])
def test_epilogue(name):
    """Activation, norm and residual come after the last term."""
    case = CASES[name]
    y = case.forward()
    np.testing.assert_array_equal(case.forward(activation=RELU), np.maximum(y, 0))
    leaky = np.where(y > 0, y, np.float32(LEAKY_SLOPE) * y)
    np.testing.assert_array_equal(case.forward(activation=LEAKY), leaky)
    rng = np.random.default_rng(1)
    mean, scale, shift = rng.standard_normal((3, y.shape[-1])).astype(np.float32)
    residual = rng.standard_normal(y.shape).astype(np.float32)
    got = case.forward(
        norm=(4, 5, 6), residual=7, residual_stride=y.shape[-1], activation=RELU,
        more={4: mean, 5: scale, 6: shift, 7: residual.ravel()},
    )  # fmt: skip
    expected = np.maximum((y.astype(float) - mean) * scale + shift + residual, 0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_accumulates():
    for name in ("3x3, stride 2", "batch of pieces", "pads larger than needed"):
        case = CASES[name]
        start = np.random.default_rng(2).standard_normal(case.w.shape).astype(np.float32)
        once = case.weight_gradient()
        got = case.weight_gradient(start=start, accumulate=True)
        np.testing.assert_allclose(got, start + once, rtol=0, atol=1e-5 * np.abs(once).max())


def test_large_outputs_are_streamed_to_the_same_bits():
    case = Rounded(4, (1, 128, 129), (1, 1, 1), 32, 64)  # more than 2²¹ numbers
    whole = case.forward()
    alone = np.concatenate([case.forward(samples=slice(i, i + 1)) for i in range(4)])
    np.testing.assert_array_equal(whole, alone)


def test_infinity_and_nan_stay():
    case = Rounded(1, (1, 2, 3), (1, 1, 1), 32, 33)
    case.x[0, 0, 0, 0, 3], case.x[0, 0, 1, 2, 5] = np.inf, np.nan
    y = case.forward()
    assert np.isinf(y[0, 0, 0, 0]).all()
    assert np.isnan(y[0, 0, 1, 2]).all()
    assert np.isfinite(y[0, 0, 0, 1:]).all()


def test_refuses_double():
    case = CASES["1x1"]
    with pytest.raises(RuntimeError, match="bfloat16 need float32"):
        execute(
            bf16.Bf16Forward(case.geometry, x=0, panel=1, y=2),
            {0: case.x.astype(float).ravel(),
             1: np.zeros(bf16.panel_size(case.geometry)),
             2: np.zeros(case.dy.size)},
            case.n,
        )  # fmt: skip


def test_a_table_without_them_fails_and_does_not_crash():
    case, before = CASES["1x1"], dispatch.isa()
    dispatch.set_isa("baseline")
    try:
        assert not dispatch.has_bf16()
        assert bf16.gain() == 0
        with pytest.raises(RuntimeError, match="a kernel table that has them"):
            case.packed()
    finally:
        dispatch.set_isa(before)


def test_the_measured_gain_is_plausible():
    assert 0.5 < bf16.gain() < 5

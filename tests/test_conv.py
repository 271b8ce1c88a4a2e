"""Convolution and dense kernels: every table against the textbook form, equal bits everywhere."""

import itertools
from contextlib import contextmanager
from math import prod

import numpy as np
import pytest
from conftest import ISAS
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import conv as conv_reference
from reference import conv_backward as conv_backward_reference

from fastconv._native import activation, conv, dispatch
from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Extent, execute
from fastconv._native.weight_gradient import ConvWeightGradient
from fastconv.parameter import zeros

CANARY = 7.25
TABLES = [*ISAS, "reference_f64"]
LEAKY_SLOPE = 0.1
RELU = (activation.RELU, 0, np.inf, 0)
LEAKY = (activation.LEAKY_RELU, LEAKY_SLOPE, np.inf, 0)
CAPPED = (activation.RELU, 0.2, 1.5, 0.1)


@contextmanager
def table(name, threads=None):
    """Run on one kernel table, on so many threads; yields the dtype to use."""
    isa, count = dispatch.isa(), dispatch.num_threads()
    if name != "reference_f64":
        dispatch.set_isa(name)
    if threads:
        dispatch.set_num_threads(threads)
    try:
        yield np.float64 if name == "reference_f64" else np.float32
    finally:
        dispatch.set_isa(isa)
        dispatch.set_num_threads(count)


@pytest.fixture(params=TABLES)
def dtype(request):
    with table(request.param) as kind:
        yield kind


class Pixels:
    """(N, D, H, W, C) with a pixel stride, canaries around the buffer and between the pixels."""

    def __init__(self, extent, n, size, channels, stride, dtype, values=None):
        total = extent.fixed + n * extent.per_sample
        assert total == (n * prod(size) - 1) * stride + channels
        self.memory = np.full(n * prod(size) * stride + 2 * 64, CANARY, dtype)
        self.buffer = self.memory[64 : 64 + total]
        spread = self.memory[64 : 64 + n * prod(size) * stride].reshape(n, *size, stride)
        self.values = spread[..., :channels]
        self.values[...] = np.nan if values is None else values

    def intact(self):
        """Nothing but the values was written."""
        copy = self.memory.copy()
        before = self.values.copy()
        self.values[...] = CANARY
        ok = np.all(self.memory == CANARY)
        self.memory[...] = copy
        assert np.array_equal(self.values, before, equal_nan=True)
        return ok


def flat(size, dtype, values=None):
    """A buffer without strides, between canaries."""
    return Pixels(Extent(0, size), 1, (1, 1, 1), size, size, dtype, values)


class Case:
    """One convolution on random data, and the textbook's answers."""

    def __init__(self, n, size, kernel, channels, filters, strides=(1, 1, 1), dilation=(1, 1, 1),
                 pads=((0, 0),) * 3, groups=1, x_gap=0, y_gap=0, seed=0):  # fmt: skip
        self.n = n
        self.geometry = ConvGeometry(
            in_size=size, kernel=kernel, strides=strides, dilation=dilation, pads=pads,
            channels=channels, filters=filters, groups=groups,
            x_stride=channels + x_gap, y_stride=filters + y_gap,
        )  # fmt: skip
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal((n, *size, channels), np.float32)
        self.w = rng.standard_normal((*kernel, channels // groups, filters), np.float32)
        self.b = rng.standard_normal(filters, np.float32)
        self.dy = rng.standard_normal((n, *self.geometry.out_size, filters), np.float32)
        self.options = (strides, pads, dilation, groups)

    def textbook(self):
        y = conv_reference(self.x, self.w, self.b, *self.options)
        return y, *conv_backward_reference(self.x, self.w, self.dy, *self.options)

    def pixels_x(self, dtype, values=None, n=None):
        g = self.geometry
        return Pixels(g.x_extent(0), n or self.n, g.in_size, g.channels, g.x_stride, dtype, values)

    def pixels_y(self, dtype, values=None, n=None):
        g = self.geometry
        return Pixels(g.y_extent(0), n or self.n, g.out_size, g.filters, g.y_stride, dtype, values)

    def panels(self, step, size, dtype):
        panel = flat(size, dtype)
        execute(step(self.geometry, weight=0, panel=1),
                {0: self.w.astype(dtype).ravel(), 1: panel.buffer}, self.n)  # fmt: skip
        assert panel.intact()
        return panel.buffer

    def forward(self, dtype, samples=slice(None), packed=True, more=(), **kwargs):
        x = self.pixels_x(dtype, self.x[samples], len(self.x[samples]))
        y = self.pixels_y(dtype, n=len(self.x[samples]))
        panel = self.w.astype(dtype).ravel()
        if packed:
            panel = self.panels(conv.PackForward, self.geometry.forward_panel_size, dtype)
        step = conv.ConvForward(self.geometry, x=0, panel=1, bias=2, y=3, packed=packed, **kwargs)
        arrays = {0: x.buffer, 1: panel, 2: self.b.astype(dtype), 3: y.buffer, **dict(more)}
        execute(step, arrays, len(self.x[samples]))
        assert y.intact()
        return y.values.copy()

    def input_gradient(self, dtype, samples=slice(None), packed=True, bias=None, more=(), **kwargs):
        n = len(self.dy[samples])
        dy, dx = self.pixels_y(dtype, self.dy[samples], n), self.pixels_x(dtype, n=n)
        panel = self.w.astype(dtype).ravel()
        if packed:
            panel = self.panels(conv.PackBackward, self.geometry.backward_panel_size, dtype)
        arrays = {0: dy.buffer, 1: panel, 2: dx.buffer, **dict(more)}
        if bias is not None:
            arrays[3], kwargs["bias"] = bias.astype(dtype), 3
        step = conv.ConvInputGradient(self.geometry, dy=0, panel=1, dx=2, packed=packed, **kwargs)
        execute(step, arrays, n)
        assert dx.intact()
        return dx.values.copy()

    def weight_gradient(self, dtype, start=None, **kwargs):
        x, dy = self.pixels_x(dtype, self.x), self.pixels_y(dtype, self.dy)
        dw = flat(self.w.size, dtype, None if start is None else start.ravel())
        scratch = flat(max(1, self.geometry.scratch_size), dtype)
        step = ConvWeightGradient(self.geometry, x=0, dy=1, dw=2, scratch=3, **kwargs)
        execute(step, {0: x.buffer, 1: dy.buffer, 2: dw.buffer, 3: scratch.buffer}, self.n)
        assert dw.intact()
        assert scratch.intact()
        return dw.buffer.reshape(self.w.shape).copy()

    def all(self, dtype):
        return (self.forward(dtype), self.input_gradient(dtype), self.weight_gradient(dtype))


def assert_close(actual, expected, terms):
    """Equal but for rounding; sums of many terms lose a little more."""
    eps = np.finfo(actual.dtype).eps
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=eps * scale * (8 + 4 * terms**0.5))


def check(case, dtype):
    g = case.geometry
    taps, pixels = prod(g.kernel), case.n * prod(g.out_size)
    terms = (taps * g.channels // g.groups, taps * g.filters // g.groups, pixels)
    expected = case.textbook()[:3]
    actual = case.all(dtype)
    for name, a, e, t in zip(("y", "dx", "dw"), actual, expected, terms, strict=True):
        try:
            assert_close(a, e, t)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


CASES = {
    "3x3": Case(2, (1, 9, 11), (1, 3, 3), 5, 7),
    "one pixel, one channel": Case(1, (1, 1, 1), (1, 1, 1), 1, 1),
    "one output pixel": Case(3, (1, 3, 3), (1, 3, 3), 4, 20),
    "one channel": Case(2, (1, 12, 10), (1, 5, 5), 1, 6),
    "one channel, same": Case(2, (1, 12, 30), (1, 3, 3), 1, 32, pads=((0, 0), (1, 1), (1, 1))),
    "three channels, stride 2": Case(2, (1, 21, 23), (1, 7, 7), 3, 17, strides=(1, 2, 2),
                                     pads=((0, 0), (3, 2), (2, 3))),
    "32 to 64": Case(2, (1, 8, 9), (1, 3, 3), 32, 64, pads=((0, 0), (1, 1), (1, 1))),
    "channels of several tiles": Case(1, (1, 5, 5), (1, 3, 3), 45, 83),
    "1x1": Case(3, (1, 6, 5), (1, 1, 1), 33, 40),
    "1x1, stride 2": Case(3, (1, 6, 5), (1, 1, 1), 33, 40, strides=(1, 2, 2)),
    "groups": Case(2, (1, 7, 8), (1, 3, 3), 12, 18, groups=3, pads=((0, 0), (1, 1), (1, 1))),
    "depthwise": Case(2, (1, 7, 8), (1, 3, 3), 9, 9, groups=9, pads=((0, 0), (1, 1), (1, 1))),
    "dilation": Case(2, (1, 11, 12), (1, 3, 3), 5, 6, dilation=(1, 2, 3)),
    "dilation and stride": Case(2, (1, 14, 13), (1, 3, 4), 5, 6, strides=(1, 2, 3),
                                dilation=(1, 3, 2), pads=((0, 0), (1, 4), (2, 0))),
    "uneven strides": Case(2, (1, 11, 13), (1, 2, 3), 4, 5, strides=(1, 3, 2)),
    "stride past the kernel": Case(2, (1, 11, 13), (1, 2, 2), 4, 5, strides=(1, 5, 4)),
    "input that no window covers": Case(2, (1, 10, 10), (1, 2, 2), 3, 4, strides=(1, 3, 3)),
    "pads larger than needed": Case(1, (1, 4, 3), (1, 3, 3), 4, 5, pads=((0, 0), (5, 7), (6, 4))),
    "kernel larger than the input": Case(2, (1, 3, 2), (1, 5, 7), 3, 4,
                                         pads=((0, 0), (2, 2), (3, 3))),
    "kernel of the whole input": Case(2, (1, 6, 7), (1, 6, 7), 3, 20),
    "1-D": Case(2, (1, 1, 40), (1, 1, 5), 3, 8, pads=((0, 0), (0, 0), (2, 2))),
    "1-D, long": Case(1, (1, 1, 2600), (1, 1, 3), 2, 3),
    "3-D": Case(2, (4, 5, 6), (3, 2, 3), 3, 5, strides=(1, 2, 1),
                pads=((1, 1), (0, 1), (2, 0))),
    "3-D, many pixels": Case(1, (12, 10, 11), (2, 3, 3), 2, 3),
    "strided pixels": Case(2, (1, 7, 6), (1, 3, 3), 5, 7, x_gap=3, y_gap=2,
                           pads=((0, 0), (1, 1), (1, 1))),
    "strided pixels of one channel": Case(2, (1, 7, 6), (1, 3, 3), 1, 7, x_gap=1),
    "strided pixels, groups": Case(2, (2, 5, 6), (1, 3, 2), 6, 4, groups=2, x_gap=1, y_gap=5,
                                   strides=(1, 2, 1)),
    "sum of several chunks": Case(1, (1, 3, 3), (1, 3, 3), 300, 34, pads=((0, 0), (1, 1), (1, 1))),
    "more channels than a chunk": Case(2, (1, 2, 2), (1, 1, 1), 2500, 5),
    "more taps than a chunk": Case(1, (1, 20, 20), (1, 18, 19), 1, 3),
    "batch of pieces": Case(19, (1, 5, 5), (1, 3, 3), 3, 4),
    "copied blocks": Case(5, (1, 7, 15), (1, 2, 3), 256, 150, strides=(1, 2, 2), x_gap=3,
                          pads=((0, 0), (1, 0), (1, 1))),
    "copied blocks, 1x1": Case(6, (1, 8, 8), (1, 1, 1), 515, 260),
    "copied blocks, groups": Case(3, (1, 9, 9), (1, 1, 1), 520, 140, groups=2, y_gap=4),
    "copied blocks, a tap in the padding": Case(2, (1, 3, 5), (1, 5, 2), 260, 70,
                                                strides=(1, 4, 1), pads=((0, 0), (4, 4), (1, 1))),
    "few channels, bands of rows": Case(2, (1, 40, 9), (1, 5, 5), 6, 17),
    "few channels, bands with a stride": Case(3, (1, 61, 7), (1, 4, 3), 5, 9, strides=(1, 2, 3),
                                              dilation=(1, 3, 1), pads=((0, 0), (7, 2), (4, 3))),
    "few channels, several panels": Case(2, (1, 6, 21), (1, 2, 9), 8, 3, y_gap=2,
                                         pads=((0, 0), (1, 1), (12, 9))),
    "few channels, a plane in the padding": Case(1, (1, 1, 1), (1, 1, 2), 1, 1, strides=(2, 1, 1),
                                                 pads=((1, 0), (0, 0), (0, 1))),
    "dense": Case(5, (1, 1, 1), (1, 1, 1), 100, 37),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_the_textbook(name, dtype):
    check(CASES[name], dtype)


@pytest.mark.parametrize("name", ["gather_mr", "gather_nr", "outer_mr", "outer_nr"])
def test_around_the_tile(name, dtype):
    """Sizes one below, at and one above a register tile, in pixels and in channels."""
    tile = conv.tile_sizes(dtype == np.float64)[name]
    for size in (tile - 1, tile, tile + 1, 2 * tile + 1):
        channels, filters = (size, size) if name != "gather_mr" else (3, 5)
        width = size if name == "gather_mr" else 4
        pads = ((0, 0), (0, 0), (1, 1))
        check(Case(1, (1, 1, width), (1, 1, 3), channels, filters, pads=pads), dtype)


spatial = st.tuples(*[st.integers(1, 9)] * 3)


@st.composite
def cases(draw):
    size, kernel = draw(spatial), draw(st.tuples(*[st.integers(1, 4)] * 3))
    strides, dilation = (draw(st.tuples(*[st.integers(1, 3)] * 3)) for _ in range(2))
    pads = []
    for s, k, d in zip(size, kernel, dilation, strict=True):
        before = draw(st.integers(0, 4))
        least = max(0, (k - 1) * d + 1 - s - before)
        pads.append((before, draw(st.integers(least, least + 3))))
    groups = draw(st.integers(1, 3))
    channels, filters = (groups * draw(st.integers(1, 20)) for _ in range(2))
    return Case(
        draw(st.integers(1, 4)), size, kernel, channels, filters, strides, dilation, tuple(pads),
        groups, draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.integers(0, 99)),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(case=cases(), name=st.sampled_from(TABLES))
def test_any_shape(case, name):
    with table(name) as dtype:
        check(case, dtype)


@pytest.mark.parametrize(
    ("f", "function"),
    [
        (RELU, lambda y: np.maximum(y, 0)),
        (LEAKY, lambda y: np.where(y > 0, y, LEAKY_SLOPE * y)),
        (CAPPED, lambda y: np.where(y > 0.1, np.minimum(y, 1.5), 0.2 * (y - 0.1))),
    ],
)
@pytest.mark.parametrize("name", ["3x3", "sum of several chunks", "dense"])
def test_fused_activation(name, f, function, dtype):
    case = CASES[name]
    linear = case.forward(dtype)
    y = case.forward(dtype, activation=f)
    assert_close(y, function(linear), 1)
    passed = (linear > 0.1) & (linear < 1.5)
    assert np.array_equal(y[passed], linear[passed])


@pytest.mark.parametrize(
    "name",
    [
        "3x3",
        "groups",
        "stride past the kernel",
        "1x1, stride 2",
        "few channels, bands with a stride",
    ],
)
def test_a_transposed_convolution_has_bias_and_activation(name, dtype):
    """Also where no window reaches: there the bias alone comes out."""
    case = CASES[name]
    bias = np.linspace(-2, 2, case.geometry.channels, dtype=np.float32)
    linear = case.input_gradient(dtype).astype(float) + bias
    assert_close(case.input_gradient(dtype, bias=bias), linear, 1)
    y = case.input_gradient(dtype, bias=bias, activation=RELU)
    assert_close(y, np.maximum(linear, 0), 1)
    y = case.input_gradient(dtype, bias=bias, activation=LEAKY)
    assert_close(y, np.where(linear > 0, linear, LEAKY_SLOPE * linear), 1)


def test_without_bias(dtype):
    case = Case(2, (1, 6, 6), (1, 3, 3), 5, 40)
    case.b[...] = 0
    with_zeros = case.forward(dtype)
    panel = case.panels(conv.PackForward, case.geometry.forward_panel_size, dtype)
    x, y = case.pixels_x(dtype, case.x), case.pixels_y(dtype)
    step = conv.ConvForward(case.geometry, x=0, panel=1, y=2)
    execute(step, {0: x.buffer, 1: panel, 2: y.buffer}, 2)
    assert np.array_equal(y.values, with_zeros)


@pytest.mark.parametrize("filters", [1, 3, 10, 16, 31, 32, 33, 84, 120])
@pytest.mark.parametrize("channels", [1, 7, 84, 2500])
def test_weights_in_place_give_the_same_bits(channels, filters, dtype):
    for case in (
        Case(3, (1, 1, 2), (1, 1, 1), channels, filters),
        Case(3, (1, 1, 2), (1, 1, 1), 3 * channels, 3 * filters, groups=3),
        Case(1, (1, 5, 9), (1, 1, 1), channels, filters, strides=(1, 2, 3), x_gap=1),
    ):
        assert np.array_equal(case.forward(dtype, packed=False), case.forward(dtype))
        assert np.array_equal(case.input_gradient(dtype, packed=False), case.input_gradient(dtype))


@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (7, 10), (400, 120), (33, 1030), (70, 16)])
def test_dense_of_few_samples(inputs, units, dtype):
    """From 17 samples on, another way; the output keeps its bits in any batch."""
    case = Case(17, (1, 1, 1), (1, 1, 1), inputs, units, x_gap=1, y_gap=2)
    y, dx, *_ = case.textbook()
    for n in (1, 3, 4, 7, 16, 17):
        for f in (None, RELU):
            packed, in_place = (
                case.forward(dtype, slice(n), activation=f, packed=packed)
                for packed in (True, False)
            )
            assert np.array_equal(in_place, packed)
        assert_close(case.forward(dtype, slice(n), packed=False), y[:n], inputs)
        assert_close(case.input_gradient(dtype, slice(n), packed=False), dx[:n], units)


def test_a_weight_gradient_past_the_caches(dtype):
    """Large enough to be streamed, from an address that allows it."""
    n, inputs, units = 3, 1456, 1456
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((n, inputs)), rng.standard_normal((n, units))
    dw = zeros((inputs, units), dtype)
    dw[...] = np.nan
    step = ConvWeightGradient(ConvGeometry.dense(inputs, units), x=0, dy=1, dw=2, scratch=3)
    arrays = {0: x.astype(dtype), 1: dy.astype(dtype), 2: dw, 3: np.zeros(1, dtype)}
    execute(step, arrays, n)
    assert_close(dw, x.T @ dy, n)
    execute(step, arrays, n, accumulate=True)
    assert_close(dw, 2 * x.T @ dy, n)


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize(("channels", "filters"), [(40, 70), (5, 3), (530, 70)])
def test_a_weight_gradient_that_fetches_what_comes(channels, filters, strides):
    """A single tap over several chunks and panels, the bits of any number of threads."""
    case = Case(3, (1, 40, 41), (1, 1, 1), channels, filters, strides=strides, x_gap=3, y_gap=1)
    x = case.x[:, :, :: strides[1], :: strides[2]].reshape(-1, channels).astype(float)
    expected = (x.T @ case.dy.reshape(-1, filters)).reshape(case.w.shape)
    for isa in TABLES:
        results = []
        for threads in (1, 2, 5):
            with table(isa, threads) as dtype:
                results.append(case.weight_gradient(dtype))
        assert_close(results[0], expected, len(x))
        assert all(np.array_equal(r, results[0]) for r in results)


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("channels", [512, 1024])
def test_pixels_a_page_apart(channels, kernel, dtype):
    case = Case(
        1, (1, 7, 11), kernel, channels, 70, strides=(1, 1, 2), pads=((0, 0),) * 2 + ((1, 0),)
    )
    check(case, dtype)
    if prod(kernel) == 1:
        assert np.array_equal(case.forward(dtype, packed=False), case.forward(dtype))


@pytest.mark.parametrize("filters", [48, 40])
def test_an_output_past_the_caches(filters, dtype):
    """Large enough to be streamed (48 channels, whole lines); the textbook is too slow here."""
    case = Case(1, (1, 240, 200), (1, 1, 1), 3, filters)
    y = case.forward(dtype, packed=False, activation=RELU)
    expected = np.maximum(case.x.astype(float) @ case.w[0, 0, 0].astype(float) + case.b, 0)
    assert_close(y, expected, 3)


@pytest.mark.parametrize("name", ["3x3", "batch of pieces", "32 to 64", "dense"])
def test_a_weight_gradient_is_added(name, dtype):
    case = CASES[name]
    start = np.random.default_rng(5).standard_normal(case.w.shape).astype(dtype)
    total = case.weight_gradient(dtype, start=start, accumulate=True)
    assert_close(total, start + case.weight_gradient(dtype).astype(float), case.n)


def test_nan_passes_through_relu(dtype):
    case = Case(1, (1, 4, 4), (1, 3, 3), 2, 3)
    case.x[0, 0, 0, 0, 0] = np.nan
    y = case.forward(dtype, activation=RELU)
    assert np.isnan(y[0, 0, 0, 0]).all()
    assert not np.isnan(y[0, 0, 1:]).any()


SHARED = ["copied blocks", "3x3", "32 to 64", "three channels, stride 2", "sum of several chunks",
          "dense", "groups", "batch of pieces", "3-D", "1-D, long",
          "few channels, bands with a stride"]  # fmt: skip
FEW = Case(5, (1, 70, 70), (1, 5, 5), 6, 16)
LARGER = Case(9, (1, 20, 21), (1, 3, 3), 24, 40, pads=((0, 0), (1, 1), (1, 1)))


@pytest.mark.parametrize("isa", TABLES)
@pytest.mark.parametrize("case", [LARGER, FEW, *(CASES[name] for name in SHARED)])
def test_same_bits_on_any_number_of_threads(case, isa):
    results = []
    for threads in (1, 2, 3, 4, 7, 16):
        with table(isa, threads) as dtype:
            results.append([r.tobytes() for r in case.all(dtype)])
    assert all(r == results[0] for r in results)


@pytest.mark.parametrize("name", [*SHARED, "one output pixel", "uneven strides"])
def test_same_bits_of_a_sample_in_any_batch(name, dtype):
    case = CASES[name]
    y, dx = case.forward(dtype), case.input_gradient(dtype)
    for samples in (slice(0, 1), slice(case.n - 1, None), slice(0, max(1, case.n - 1))):
        assert np.array_equal(case.forward(dtype, samples), y[samples])
        assert np.array_equal(case.input_gradient(dtype, samples), dx[samples])


GOOD = {"in_size": (1, 5, 5), "kernel": (1, 3, 3), "channels": 4, "filters": 6}
BAD = [
    ("in_size", {"in_size": (1, 0, 5)}),
    ("in_size", {"in_size": (5, 5)}),
    ("in_size", {"in_size": (1, 2.5, 5)}),
    ("in_size", {"in_size": (2**30, 2**20, 2**20), "kernel": (1, 1, 1)}),
    ("kernel", {"kernel": (1, 6, 3)}),
    ("kernel", {"kernel": (1, 0, 3)}),
    ("kernel", {"channels": 2**31, "filters": 2**31}),
    ("strides", {"strides": (1, 0, 1)}),
    ("dilation", {"dilation": (1, -1, 1)}),
    ("dilation", {"dilation": (1, 3, 3)}),
    ("pads", {"pads": ((0, 0), (-1, 0), (0, 0))}),
    ("pads", {"pads": (0, 1, 1)}),
    ("pads", {"pads": ((0, 0), (2**62, 2**62), (0, 0))}),
    ("channels", {"channels": 0}),
    ("filters", {"filters": -3}),
    ("groups", {"groups": 3}),
    ("groups", {"groups": 0}),
    ("x_stride", {"x_stride": 3}),
    ("y_stride", {"y_stride": 5}),
]


@pytest.mark.parametrize(("name", "change"), BAD)
def test_bad_geometry_is_named(name, change):
    with pytest.raises(ValueError, match=name):
        ConvGeometry(**(GOOD | change))


def test_bad_steps_are_named():
    g = ConvGeometry(**GOOD)
    with pytest.raises(ValueError, match="activation"):
        conv.ConvForward(g, x=0, panel=1, y=2, activation=(activation.TANH, 0, 0, 0))
    with pytest.raises(ValueError, match="alpha"):
        conv.ConvForward(g, x=0, panel=1, y=2, activation=(activation.LEAKY_RELU, -1, np.inf, 0))
    with pytest.raises(ValueError, match="activation"):
        conv.ConvInputGradient(g, dy=0, panel=1, dx=2, activation=(activation.ELU, 1, 0, 0))
    with pytest.raises(ValueError, match="residual"):
        conv.ConvForward(g, x=0, panel=1, y=2, residual=2, residual_stride=8)
    with pytest.raises(ValueError, match="residual_stride"):
        conv.ConvForward(g, x=0, panel=1, y=2, residual=3, residual_stride=1)
    with pytest.raises(ValueError, match="packed"):
        conv.ConvForward(g, x=0, panel=1, y=2, packed=False)
    with pytest.raises(ValueError, match="scratch"):
        ConvWeightGradient(g, x=0, dy=1, dw=2)


def test_arrays_too_small_are_refused():
    case = CASES["3x3"]
    arrays = {0: np.zeros(5, np.float32), 1: np.zeros(10**6, np.float32)}
    with pytest.raises(ValueError, match="slot 0"):
        execute(conv.PackForward(case.geometry, weight=0, panel=1), arrays, 1)


def test_a_geometry_is_made_once():
    g = ConvGeometry(**GOOD)
    with pytest.raises(ValueError, match="once"):
        g.__init__(**GOOD)


def test_strides_beyond_the_image_cost_nothing():
    ConvGeometry(
        in_size=(1, 6, 6), kernel=(1, 2, 2), strides=(1, 10**6, 10**6), channels=1, filters=1
    )


def test_every_tap_has_its_place():
    """Weights that name themselves: dx of a single dy is the flipped kernel at its place."""
    for kernel, strides in itertools.product([(1, 3, 3), (2, 3, 1)], [(1, 1, 1), (2, 2, 3)]):
        case = Case(1, (4, 7, 7), kernel, 1, 1, strides=strides)
        case.w[...] = np.arange(1, case.w.size + 1).reshape(case.w.shape)
        case.dy[...] = 0
        case.dy[0, 0, 1, 1, 0] = 1
        dx = case.input_gradient(np.float32)[0, ..., 0]
        where = tuple(
            slice(o * s, o * s + k) for o, s, k in zip((0, 1, 1), strides, kernel, strict=True)
        )
        assert np.array_equal(dx[where], case.w[..., 0, 0])
        assert dx.sum() == case.w.sum()

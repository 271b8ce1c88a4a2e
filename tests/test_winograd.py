"""Winograd's filtering: every table against the textbook form, its error, and who chooses it."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import same_for_all_teams
from test_conv import LEAKY, LEAKY_SLOPE, RELU, TABLES, Case, flat, table

import fastconv as fc
from fastconv import algorithms, layers
from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import execute
from fastconv._native.winograd import (
    WinogradForward,
    WinogradGeometry,
    WinogradInputGradient,
    WinogradWeightGradient,
    WinogradWindows,
)

LARGEST_ERROR = 2e-5  # of a layer's output, as a share of its scale
ONE, NONE = (1, 1), (0, 0)


@pytest.fixture(params=TABLES)
def dtype(request):
    with table(request.param) as kind:
        yield kind


class Tiled(Case):
    """A `Case` whose three directions run by Winograd."""

    def __init__(self, n, height, width, channels, filters, pads=(ONE, ONE), planes=1, window=3,
                 **kwargs):  # fmt: skip
        super().__init__(n, (planes, height, width), (1, window, window), channels, filters,
                         pads=(NONE, *pads), **kwargs)  # fmt: skip

    @property
    def tiled(self):
        return WinogradGeometry(self.geometry)

    def windows(self, dtype, backward):
        if self.tiled.wide:
            return self.w.astype(dtype).ravel()
        size = self.tiled.backward_window_size if backward else self.tiled.forward_window_size
        windows = flat(size, dtype)
        step = WinogradWindows(self.tiled, weight=0, windows=1, backward=backward)
        execute(step, {0: self.w.astype(dtype).ravel(), 1: windows.buffer}, 1)
        assert windows.intact()
        return windows.buffer

    def forward(self, dtype, samples=slice(None), more=(), **kwargs):
        n = len(self.x[samples])
        x, y = self.pixels_x(dtype, self.x[samples], n), self.pixels_y(dtype, n=n)
        scratch = flat(self.tiled.forward_scratch, dtype)
        step = WinogradForward(self.tiled, x=0, windows=1, bias=2, y=3, scratch=4, **kwargs)
        arrays = {0: x.buffer, 1: self.windows(dtype, False), 2: self.b.astype(dtype),
                  3: y.buffer, 4: scratch.buffer, **dict(more)}  # fmt: skip
        execute(step, arrays, n)
        assert y.intact()
        assert scratch.intact()
        return y.values.copy()

    def input_gradient(self, dtype, samples=slice(None), bias=None, more=(), **kwargs):
        n = len(self.dy[samples])
        dy, dx = self.pixels_y(dtype, self.dy[samples], n), self.pixels_x(dtype, n=n)
        scratch = flat(self.tiled.backward_scratch, dtype)
        arrays = {0: dy.buffer, 1: self.windows(dtype, True), 2: dx.buffer, 3: scratch.buffer}
        arrays.update(more)
        if bias is not None:
            arrays[4], kwargs["bias"] = bias, 4
        step = WinogradInputGradient(self.tiled, dy=0, windows=1, dx=2, scratch=3, **kwargs)
        execute(step, arrays, n)
        assert dx.intact()
        assert scratch.intact()
        return dx.values.copy()

    def weight_gradient(self, dtype, start=None, **kwargs):
        x, dy = self.pixels_x(dtype, self.x), self.pixels_y(dtype, self.dy)
        dw = flat(self.w.size, dtype, None if start is None else start.ravel())
        scratch = flat(self.tiled.gradient_scratch, dtype)
        step = WinogradWeightGradient(self.tiled, x=0, dy=1, dw=2, scratch=3, **kwargs)
        execute(step, {0: x.buffer, 1: dy.buffer, 2: dw.buffer, 3: scratch.buffer}, self.n)
        assert dw.intact()
        assert scratch.intact()
        return dw.buffer.reshape(self.w.shape).copy()

    def all(self, dtype):
        return self.forward(dtype), self.input_gradient(dtype), self.weight_gradient(dtype)


def check(case, dtype):
    y, dx, dw, _ = case.textbook()
    bound = 1e-13 if dtype == np.float64 else LARGEST_ERROR
    for name, found, expected in zip(("y", "dx", "dw"), case.all(dtype), (y, dx, dw), strict=True):
        scale = max(1.0, np.abs(expected).max(initial=0))
        assert np.abs(found - expected).max(initial=0) <= bound * scale, name


CASES = {
    "whole tiles": Tiled(2, 8, 12, 16, 16),
    "tiles that stand out": Tiled(2, 9, 7, 5, 19),
    "smaller than a tile": Tiled(3, 2, 3, 4, 6),
    "one pixel": Tiled(2, 1, 1, 3, 2),
    "valid": Tiled(2, 9, 10, 17, 33, pads=(NONE, NONE)),
    "one output": Tiled(2, 3, 3, 8, 8, pads=(NONE, NONE)),
    "more padding than needed": Tiled(1, 5, 4, 9, 10, pads=((4, 3), (6, 2))),
    "uneven padding": Tiled(2, 6, 6, 16, 7, pads=((0, 1), (2, 0))),
    "gaps between pixels": Tiled(2, 7, 9, 18, 35, x_gap=3, y_gap=5),
    "planes": Tiled(2, 6, 5, 6, 8, planes=3),
    "many channels": Tiled(1, 6, 6, 150, 170),
    "many tiles": Tiled(6, 23, 26, 3, 5),
    "wide": Tiled(2, 6, 5, 250, 290, x_gap=2, y_gap=1),
    "5x5": Tiled(2, 9, 12, 17, 35, pads=((2, 2), (2, 2)), window=5),
    "5x5, valid": Tiled(2, 8, 7, 6, 5, pads=(NONE, NONE), window=5, x_gap=1, y_gap=3),
    "5x5, smaller than a window": Tiled(2, 3, 1, 4, 3, pads=((2, 1), (4, 3)), window=5),
    "5x5, wide": Tiled(2, 6, 5, 250, 290, pads=((2, 2), (2, 2)), window=5),
    "wide, many tiles": Tiled(35, 6, 7, 257, 256, pads=(ONE, NONE)),
}


@pytest.mark.parametrize("name", CASES)
def test_matches_the_textbook(name, dtype):
    check(CASES[name], dtype)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 3),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    pads=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
    channels=st.integers(1, 40),
    filters=st.integers(1, 40),
    gaps=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    window=st.sampled_from((3, 5)),
    seed=st.integers(0, 99),
)
def test_any_shape(n, size, pads, channels, filters, gaps, window, seed):
    if any(s + sum(p) < window for s, p in zip(size, pads, strict=True)):
        pads = ((window // 2, window // 2),) * 2
    case = Tiled(n, *size, channels, filters, pads, window=window, x_gap=gaps[0], y_gap=gaps[1],
                 seed=seed)  # fmt: skip
    for name in TABLES:
        with table(name) as kind:
            check(case, kind)


def test_activations_on_the_way_out(dtype):
    case = CASES["tiles that stand out"]
    y = case.forward(dtype)
    relu = case.forward(dtype, activation=RELU)
    np.testing.assert_array_equal(relu, np.maximum(y, 0))
    leaky = case.forward(dtype, activation=LEAKY)
    np.testing.assert_allclose(leaky, np.where(y > 0, y, LEAKY_SLOPE * y), rtol=1e-6)


def forward_with_moments(case, dtype):
    """y, mean and variance of its channels; everything but them and the scratch stays as it was."""
    width, tiled, n = case.geometry.filters, case.tiled, case.n
    outs = {10: flat(width, dtype), 11: flat(width, dtype), 12: flat(n * tiled.moments_size, dtype)}
    more = {slot: pixels.buffer for slot, pixels in outs.items()}
    y = case.forward(dtype, moments=(10, 11, 12), more=more)
    assert all(pixels.intact() for slot, pixels in outs.items() if slot < 12)
    memory = outs[12].memory
    assert np.all(memory[:64] == memory[0])
    assert np.all(memory[64 + n * tiled.moments_size :] == memory[0])
    return y, more[10].copy(), more[11].copy()


def check_moments(case, dtype):
    y, mean, variance = forward_with_moments(case, dtype)
    np.testing.assert_array_equal(y, case.forward(dtype))
    rows = y.astype(float).reshape(-1, y.shape[-1])
    eps = np.finfo(dtype).eps
    deviation = np.abs(rows).max() + 1e-30
    assert np.abs(mean - rows.mean(0)).max() <= 20 * eps * deviation
    expected = rows.var(0)
    # what is rounded are deviations, and the mean that they are taken from
    rounded = 8 * eps * deviation
    bound = 40 * eps * expected + rounded * np.sqrt(expected) + rounded**2
    assert np.all(np.abs(variance - expected) <= bound)
    assert np.all(variance >= 0)


@pytest.mark.parametrize("name", CASES)
def test_moments_of_the_outputs(name, dtype):
    check_moments(CASES[name], dtype)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 5),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    channels=st.integers(1, 20),
    filters=st.integers(1, 70),
    gap=st.integers(0, 3),
    window=st.sampled_from([3, 5]),
    mean=st.sampled_from([0, 100, 10000]),
)
def test_moments_of_any_shape(n, size, channels, filters, gap, window, mean):
    """A mean that is large against the deviation does not eat the digits."""
    pads = ((window // 2, window // 2),) * 2
    case = Tiled(n, *size, channels, filters, pads, window=window, y_gap=gap)
    case.b += np.float32(mean)
    for name in TABLES:
        with table(name) as kind:
            check_moments(case, kind)


@pytest.mark.parametrize("name", ["many tiles", "wide, many tiles", "5x5", "one output"])
def test_moments_have_the_same_bits_on_any_number_of_threads(name, dtype):
    case = CASES[name]
    same_for_all_teams(lambda: forward_with_moments(case, dtype))


def test_moments_are_of_plain_sums():
    tiled = CASES["whole tiles"].tiled
    with pytest.raises(ValueError, match="moments"):
        WinogradForward(tiled, x=0, windows=1, y=2, scratch=3, moments=(4, 5, 6), activation=RELU)
    with pytest.raises(ValueError, match="slots"):
        WinogradForward(tiled, x=0, windows=1, y=2, scratch=3, moments=(4, 4, 6))


def test_a_transposed_convolution_has_bias_and_activation(dtype):
    case = CASES["tiles that stand out"]
    plain = case.input_gradient(dtype)
    bias = np.arange(plain.shape[-1], dtype=dtype) - 2
    found = case.input_gradient(dtype, bias=bias, activation=RELU)
    np.testing.assert_allclose(found, np.maximum(plain + bias, 0), atol=1e-4)


def test_gradient_is_added_when_asked(dtype):
    case = CASES["whole tiles"]
    start = np.full(case.w.shape, 3.0)
    added = case.weight_gradient(dtype, start, accumulate=True)
    np.testing.assert_allclose(added, 3 + case.weight_gradient(dtype), rtol=1e-5)


@pytest.mark.parametrize("name", ["many tiles", "many channels", "wide", "5x5"])
def test_threads_change_no_bit(name, dtype):
    same_for_all_teams(lambda: CASES[name].all(dtype))


def test_a_sample_is_the_same_in_any_batch(dtype):
    case = CASES["many tiles"]
    together, dx = case.forward(dtype), case.input_gradient(dtype)
    for i in range(case.n):
        np.testing.assert_array_equal(case.forward(dtype, slice(i, i + 1))[0], together[i])
        np.testing.assert_array_equal(case.input_gradient(dtype, slice(i, i + 1))[0], dx[i])


@pytest.mark.parametrize(
    ("n", "height", "channels", "filters", "window"),
    [(1, 56, 64, 64, 3), (2, 28, 128, 128, 3), (2, 14, 256, 256, 3), (2, 14, 512, 512, 3),
     (8, 32, 16, 16, 3), (1, 27, 64, 192, 5)],
)  # fmt: skip
def test_float32_error_on_layers_of_the_field(n, height, channels, filters, window):
    """Inputs after a ReLU, weights as He draws them: an error far below what is promised."""
    pad = (window // 2,) * 2
    case = Tiled(n, height, height, channels, filters, (pad, pad), window=window)
    case.x = np.maximum(case.x, 0)
    case.w *= (2 / (window**2 * channels)) ** 0.5
    for found, exact in zip(case.all(np.float32), case.all(np.float64), strict=True):
        error = np.abs(found - exact).max() / np.abs(exact).max()
        assert error <= LARGEST_ERROR / 4


def geometry(size, channels, filters, kernel=3, strides=1, groups=1, dilation=1):
    pad = (kernel - 1) * dilation // 2
    return ConvGeometry(
        in_size=(1, size, size), kernel=(1, kernel, kernel), strides=(1, strides, strides),
        dilation=(1, dilation, dilation), pads=(NONE, (pad, pad), (pad, pad)),
        channels=channels, filters=filters, groups=groups,
    )  # fmt: skip


def test_what_is_chosen():
    """The cases that were measured; see docs/architecture.md."""
    choose = algorithms.convolution
    for size, channels in ((224, 64), (56, 64), (28, 128), (14, 256), (14, 512), (7, 512)):
        for direction in ("forward", "input_gradient", "weight_gradient"):
            assert choose(geometry(size, channels, channels), direction) == "winograd"
    assert choose(geometry(27, 64, 192, kernel=5)) == "winograd"
    assert choose(geometry(32, 16, 16)) == "winograd"
    for few in (geometry(224, 3, 64), geometry(28, 1, 32), geometry(5, 64, 64)):
        assert choose(few) == "direct"
        assert choose(few, wanted="winograd") == "winograd"
    for impossible in (
        geometry(28, 64, 64, kernel=7), geometry(28, 64, 64, strides=2),
        geometry(28, 64, 64, groups=2), geometry(28, 64, 64, dilation=2),
    ):  # fmt: skip
        assert choose(impossible, wanted="winograd") == "direct"
        with pytest.raises(ValueError, match="3×3"):
            WinogradGeometry(impossible)
    assert choose(geometry(28, 64, 64), wanted="direct") == "direct"


def test_the_environment_decides(monkeypatch):
    fc.set_random_seed(0)
    model = fc.Sequential([layers.Input((12, 12, 16)), layers.Conv2D(16, 3, padding="same")])
    x = np.random.default_rng(0).standard_normal((2, 12, 12, 16), np.float32)
    outputs = {}
    for choice in ("auto", "winograd", "direct"):
        monkeypatch.setenv(algorithms.VARIABLE, choice)
        outputs[choice] = predict(model, x)
    assert np.array_equal(outputs["auto"], outputs["winograd"])
    assert not np.array_equal(outputs["direct"], outputs["winograd"])
    np.testing.assert_allclose(outputs["direct"], outputs["winograd"], atol=1e-5)
    monkeypatch.setenv(algorithms.VARIABLE, "winogard")
    with pytest.raises(ValueError, match=r"FASTCONV_CONV.*winograd"):
        predict(model, x)


def predict(model, x):
    """By a plan of its own."""
    return fc.Model(model.inputs, model.outputs).predict(x)


def test_training_with_and_without_gives_the_same_network(monkeypatch):
    """The same steps but for rounding; exports are compared with the direct path."""
    x = np.random.default_rng(1).standard_normal((32, 12, 12, 16), np.float32)
    y = np.random.default_rng(2).integers(0, 5, 32)
    losses = []
    for choice in ("winograd", "direct"):
        monkeypatch.setenv(algorithms.VARIABLE, choice)
        fc.set_random_seed(3)
        model = fc.Sequential(
            [layers.Input((12, 12, 16)), layers.Conv2D(24, 3, activation="relu"),
             layers.Conv2D(16, 3, padding="same", activation="relu"), layers.Flatten(),
             layers.Dense(5, activation="softmax")]
        )  # fmt: skip
        model.compile("sgd", "sparse_categorical_crossentropy")
        losses.append(model.fit(x, y, batch_size=8, epochs=3, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert losses[0] != losses[1]


def test_a_wide_geometry_has_no_transformed_windows():
    tiled = CASES["wide"].tiled
    assert tiled.wide
    with pytest.raises(ValueError, match="wide"):
        WinogradWindows(tiled, weight=0, windows=1)


def test_multiplications():
    case = Tiled(2, 9, 8, 5, 7)
    assert case.tiled.multiplications(2) == 2 * 3 * 2 * 36 * 5 * 7
    assert prod(case.geometry.out_size) == 72


@pytest.mark.parametrize("change", [{"activation": (9, 0, 0, 0)}, {"residual": 3}])
def test_arguments_are_checked(change):
    tiled = CASES["whole tiles"].tiled
    with pytest.raises(ValueError, match=r"activation|residual"):
        WinogradForward(tiled, x=0, windows=1, y=2, scratch=3, **change)

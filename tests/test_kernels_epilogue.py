"""Batch norm, residual, activation on the way out of a product: the bits of one after the other."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import LANES, Tensor, empty, randoms, run, same_for_all_teams
from test_conv import CAPPED, LEAKY, RELU, TABLES, table
from test_conv import CASES as DIRECT
from test_conv import Case as Direct
from test_kernels_depthwise import SHAPES
from test_kernels_depthwise import Case as Depthwise
from test_winograd import CASES as TILED
from test_winograd import Tiled

from fastconv._native import norm

EPS = 1e-3
VARIANCE, GAMMA, MEAN, SCALE, SHIFT, RESIDUAL = range(20, 26)


@pytest.fixture(params=TABLES)
def dtype(request):
    with table(request.param) as kind:
        yield np.dtype(kind)


class Epilogue:
    """What follows a product whose results have this shape, as slots and as arguments."""

    def __init__(self, shape, dtype, gap=0, shift=True, residual=True, f=RELU, seed=7):
        self.shape, self.dtype, self.f, channels = shape, dtype, f, shape[-1]
        mean, shift_by, gamma, variance, more = (
            randoms(s, seed + i).astype(dtype) for i, s in enumerate([*[(1, channels)] * 4, shape])
        )
        self.tensors = {
            MEAN: Tensor(mean, dtype), VARIANCE: Tensor(variance**2, dtype),
            GAMMA: Tensor(gamma, dtype), SCALE: empty((1, channels), dtype),
        }  # fmt: skip
        if shift:
            self.tensors[SHIFT] = Tensor(shift_by, dtype)
        if residual:
            self.tensors[RESIDUAL] = Tensor(more, dtype, channels + gap)
        self.residual = (
            {"residual": RESIDUAL, "residual_stride": channels + gap} if residual else {}
        )
        made = {slot: self.tensors[slot] for slot in (VARIANCE, GAMMA, SCALE)}
        run(norm.BatchNormScale(channels, EPS, VARIANCE, GAMMA, SCALE), made, 1)

    @property
    def arguments(self):
        shift = SHIFT if SHIFT in self.tensors else -1
        more = {slot: t.array for slot, t in self.tensors.items()}
        return {"norm": (MEAN, SCALE, shift), "activation": self.f, "more": more, **self.residual}

    def apart(self, y):
        """The same by a step of its own, behind the product."""
        n, pixels, channels = self.shape[0], prod(self.shape[1:-1]), self.shape[-1]
        slots = {slot: t for slot, t in self.tensors.items() if slot != SCALE}
        slots |= {0: Tensor(y, self.dtype), 1: empty(self.shape, self.dtype)}
        step = norm.BatchNormForward(
            pixels, channels, EPS, 0, channels, MEAN, VARIANCE, GAMMA,
            SHIFT if SHIFT in slots else -1, 1, channels, activation=self.f, **self.residual,
        )  # fmt: skip
        run(step, slots, n)
        return slots[1].values


def check(product, dtype, **options):
    """``product(**arguments)`` gives y; with an epilogue, what the norm makes of that y."""
    y = product()
    epilogue = Epilogue(y.shape, dtype, **options)
    np.testing.assert_array_equal(product(**epilogue.arguments), epilogue.apart(y))


OPTIONS = {
    "all": {"gap": 3, "f": CAPPED},
    "no residual": {"residual": False, "f": LEAKY},
    "no shift, linear": {"shift": False, "f": None},
    "relu": {},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", DIRECT)
def test_direct(name, options, dtype):
    case = DIRECT[name]
    check(lambda **k: case.forward(dtype, **k), dtype, **OPTIONS[options])
    bias = np.linspace(-1, 1, case.geometry.channels)
    check(lambda **k: case.input_gradient(dtype, bias=bias, **k), dtype, **OPTIONS[options])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["1x1", "1x1, stride 2", "dense", "copied blocks, 1x1"])
def test_weights_in_place(name, options, dtype):
    check(lambda **k: DIRECT[name].forward(dtype, packed=False, **k), dtype, **OPTIONS[options])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("n", [1, 3, 16, 17])
def test_few_samples(n, options, dtype):
    case = Direct(n, (1, 1, 1), (1, 1, 1), 33, 1030, x_gap=1, y_gap=2)
    check(lambda **k: case.forward(dtype, packed=False, **k), dtype, **OPTIONS[options])


@pytest.mark.parametrize("filters", [48, 40])
def test_an_output_past_the_caches(filters, dtype):
    case = Direct(1, (1, 240, 200), (1, 1, 1), 3, filters)
    check(lambda **k: case.forward(dtype, packed=False, **k), dtype, **OPTIONS["all"])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", TILED)
def test_winograd(name, options, dtype):
    case = TILED[name]
    check(lambda **k: case.forward(dtype, **k), dtype, **OPTIONS[options])
    bias = np.linspace(-1, 1, case.geometry.channels).astype(dtype)
    check(lambda **k: case.input_gradient(dtype, bias=bias, **k), dtype, **OPTIONS[options])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("channels", [1, LANES + 1])
@pytest.mark.parametrize("name", SHAPES)
def test_depthwise(name, channels, options, dtype):
    case = Depthwise(SHAPES[name], channels, dtype, gap=2)

    def product(more=(), **arguments):
        tensors = {slot: Tensor(a[None], dtype) for slot, a in dict(more).items()}
        wanted = {RESIDUAL, *arguments.get("norm", ())}
        tensors = {slot: t for slot, t in tensors.items() if slot in wanted}
        return case.forward(more=tensors, **arguments)

    check(product, dtype, **OPTIONS[options])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    window=st.sampled_from([1, 2, 3, 5]),
    channels=st.integers(1, 40),
    filters=st.integers(1, 70),
    gaps=st.tuples(*[st.integers(0, 2)] * 3),
    stride=st.integers(1, 2),
    options=st.sampled_from(list(OPTIONS)),
    name=st.sampled_from(TABLES),
)
def test_any_shape(n, size, window, channels, filters, gaps, stride, options, name):
    pads = ((window // 2, window // 2),) * 2
    shape = {"x_gap": gaps[0], "y_gap": gaps[1]}
    options = OPTIONS[options] | {"gap": gaps[2]}
    with table(name) as kind:
        case = Direct(n, (1, *size), (1, window, window), channels, filters,
                      (1, stride, stride), pads=((0, 0), *pads), **shape)  # fmt: skip
        check(lambda **k: case.forward(kind, **k), np.dtype(kind), **options)
        check(lambda **k: case.input_gradient(kind, **k), np.dtype(kind), **options)
        if window in (3, 5):
            tiled = Tiled(n, *size, channels, filters, pads, window=window, **shape)
            check(lambda **k: tiled.forward(kind, **k), np.dtype(kind), **options)


@pytest.mark.parametrize("case", [DIRECT["32 to 64"], TILED["many tiles"], TILED["wide"]])
def test_same_bits_on_any_number_of_threads(case, dtype):
    epilogue = Epilogue((case.n, *case.geometry.out_size, case.geometry.filters), dtype)
    same_for_all_teams(lambda: [case.forward(dtype, **epilogue.arguments)])


def test_nan_and_infinity_pass():
    case = Direct(1, (1, 4, 4), (1, 3, 3), 2, 3)
    case.x[0, 0, 0, 0, 0] = np.nan
    case.x[0, 0, 3, 3, 1] = np.inf
    with table("reference_f64") as kind:
        check(lambda **k: case.forward(kind, **k), np.dtype(kind), residual=False)


@pytest.mark.parametrize("channels", [1, LANES - 1, LANES, 4 * LANES + 5])
@pytest.mark.parametrize("gamma", [True, False])
def test_scales(channels, gamma, dtype):
    variance, weight = randoms((1, channels), 1) ** 2, randoms((1, channels), 2)
    slots = {0: Tensor(variance, dtype), 2: empty((1, channels), dtype)}
    if gamma:
        slots[1] = Tensor(weight, dtype)
    run(norm.BatchNormScale(channels, EPS, 0, 1 if gamma else -1, 2), slots, 1)
    expected = (weight if gamma else 1) / np.sqrt(variance + EPS)
    np.testing.assert_allclose(slots[2].values, expected, rtol=4 * np.finfo(dtype).eps)


def test_against_the_textbook(dtype):
    case = DIRECT["32 to 64"]
    y = case.textbook()[0].astype(float)
    epilogue = Epilogue(y.shape, dtype, f=RELU)
    mean, shift, gamma, variance, r = (
        epilogue.tensors[slot].values.astype(float)
        for slot in (MEAN, SHIFT, GAMMA, VARIANCE, RESIDUAL)
    )
    expected = np.maximum((y - mean) / np.sqrt(variance + EPS) * gamma + shift + r, 0)
    found = case.forward(dtype, **epilogue.arguments)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() <= 100 * np.finfo(dtype).eps * scale

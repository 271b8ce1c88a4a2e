"""The kernels alone, on arrays, against the textbook; and what they refuse."""

import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import functional as F


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def close(got, want, dtype):
    assert got.dtype == dtype
    scale = max(np.abs(want).max(), 1e-6)
    np.testing.assert_allclose(
        got / scale, want / scale, atol=2e-5 if dtype == np.float32 else 1e-12
    )


def numbers(rng, *shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same"},
        {"strides": (2, 3), "padding": "same"},
        {"padding": ((0, 2), (1, 0)), "dilation_rate": 2},
        {"groups": 2},
    ],
    ids=str,
)
def test_conv2d(options, dtype):
    rng = np.random.default_rng(0)
    groups = options.get("groups", 1)
    x, w = numbers(rng, 2, 9, 8, 4, dtype=dtype), numbers(rng, 3, 3, 4 // groups, 6, dtype=dtype)
    b = numbers(rng, 6, dtype=dtype)
    kwargs = {("dilation" if k == "dilation_rate" else k): v for k, v in options.items()}
    close(F.conv2d(x, w, b, **options), ref.conv(x, w, b, **kwargs), dtype)
    close(F.conv2d(x, w, **options), ref.conv(x, w, np.zeros(6), **kwargs), dtype)
    dy = numbers(rng, *F.conv2d(x, w, **options).shape, dtype=dtype)
    for got, want in zip(
        F.conv2d_backward(dy, x, w, **options), ref.conv_backward(x, w, dy, **kwargs), strict=True
    ):
        close(got, want, dtype)


def as_reference(options):
    return {("dilation" if k == "dilation_rate" else k): v for k, v in options.items()}


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"strides": (2, 3), "padding": "same"}, {"padding": ((0, 2), (1, 0)), "dilation_rate": 2}],
    ids=str,
)
def test_depthwise_conv2d(options, multiplier, dtype):
    rng = np.random.default_rng(0)
    x, w = numbers(rng, 2, 9, 8, 5, dtype=dtype), numbers(rng, 3, 2, 5, multiplier, dtype=dtype)
    b = numbers(rng, 5 * multiplier, dtype=dtype)
    kwargs = as_reference(options)
    want = ref.depthwise_conv(x, w, b, **kwargs)
    close(F.depthwise_conv2d(x, w, b, **options), want, dtype)
    close(F.depthwise_conv2d(x, w, **options), want - b, dtype)
    dy = numbers(rng, *want.shape, dtype=dtype)
    grads = ref.depthwise_conv_backward(x, w, dy, **kwargs)
    for got, wanted in zip(F.depthwise_conv2d_backward(dy, x, w, **options), grads, strict=True):
        close(got, wanted, dtype)
    with pytest.raises(ValueError, match="x has 4 channels"):
        F.depthwise_conv2d(x[..., :4], w)
    with pytest.raises(ValueError, match="depth multiplier"):
        F.depthwise_conv2d(x, w[0])
    with pytest.raises(ValueError, match="bias"):
        F.depthwise_conv2d(x, w, b[1:])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2, "padding": "same"},
        {"strides": (3, 2), "output_padding": (2, 0)},
        {"strides": (4, 3), "padding": "same", "output_padding": 1},
        {"dilation_rate": (2, 3), "padding": "same"},
    ],
    ids=str,
)
def test_conv2d_transpose(options, dtype):
    rng = np.random.default_rng(0)
    x, w = numbers(rng, 2, 5, 4, 3, dtype=dtype), numbers(rng, 3, 2, 7, 3, dtype=dtype)
    b = numbers(rng, 7, dtype=dtype)
    kwargs = as_reference(options)
    want = ref.conv_transpose(x, w, b, **kwargs)
    close(F.conv2d_transpose(x, w, b, **options), want, dtype)
    close(F.conv2d_transpose(x, w, **options), want - b, dtype)
    dy = numbers(rng, *want.shape, dtype=dtype)
    grads = ref.conv_transpose_backward(x, w, dy, **kwargs)
    for got, wanted in zip(F.conv2d_transpose_backward(dy, x, w, **options), grads, strict=True):
        close(got, wanted, dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 7)] * 2), st.tuples(*[st.integers(1, 5)] * 2),
    st.tuples(*[st.integers(1, 4)] * 2), st.tuples(*[st.integers(1, 3)] * 2),
    st.sampled_from(["valid", "same"]), st.integers(1, 20), st.integers(1, 20),
)  # fmt: skip
def test_conv2d_transpose_of_any_shape(size, kernel, strides, dilation, padding, ic, oc):
    rng = np.random.default_rng(0)
    options = {"strides": strides, "padding": padding, "dilation_rate": dilation}
    x, w, b = numbers(rng, 2, *size, ic), numbers(rng, *kernel, oc, ic), numbers(rng, oc)
    want = ref.conv_transpose(x, w, b, **as_reference(options))
    close(F.conv2d_transpose(x, w, b, **options), want, np.float64)
    dy = numbers(rng, *want.shape)
    grads = ref.conv_transpose_backward(x, w, dy, **as_reference(options))
    for got, wanted in zip(F.conv2d_transpose_backward(dy, x, w, **options), grads, strict=True):
        close(got, wanted, np.float64)


def test_what_a_transposed_convolution_refuses():
    x, w = np.ones((1, 4, 4, 3)), np.ones((2, 2, 5, 3))
    for match, change in [
        ("smaller than the strides", {"output_padding": 1}),
        ("padding", {"padding": "full"}),
        ("x has 3 channels", {"weight": np.ones((2, 2, 5, 4))}),
        ("KH, KW, OC, IC", {"weight": np.ones((2, 2, 5))}),
        ("bias", {"bias": np.ones(3)}),
    ]:
        with pytest.raises(ValueError, match=match):
            F.conv2d_transpose(x, **{"weight": w, **change})
    with pytest.raises(ValueError, match="leaves nothing"):
        F.conv2d_transpose(x[:, :1], w, strides=2, padding="same", output_padding=0)
    with pytest.raises(ValueError, match="dy must have the shape"):
        F.conv2d_transpose_backward(np.ones((1, 4, 4, 5)), x, w)


def test_dense(dtype):
    rng = np.random.default_rng(0)
    x, w, b = (numbers(rng, *s, dtype=dtype) for s in ((5, 2, 7), (7, 3), (3,)))
    close(F.dense(x, w, b), x @ w + b, dtype)
    dy = numbers(rng, 5, 2, 3, dtype=dtype)
    dx, dw, db = F.dense_backward(dy, x, w)
    close(dx, dy @ w.T, dtype)
    close(dw, np.einsum("nai,nao->io", x, dy), dtype)
    close(db, dy.sum((0, 1)), dtype)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 19),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["valid", "same"]),
)
def test_pooling_of_any_shape(size, channels, window, strides, padding):
    if padding == "valid" and (window[0] > size[0] or window[1] > size[1]):
        return
    rng = np.random.default_rng(1)
    x = numbers(rng, 2, *size, channels)
    y = F.max_pool2d(x, window, strides, padding)
    close(y, ref.max_pool(x, window, strides, padding), np.float64)
    dy = numbers(rng, *y.shape)
    close(
        F.max_pool2d_backward(dy, x, window, strides, padding),
        ref.max_pool_backward(x, dy, window, strides, padding),
        np.float64,
    )
    for counted in (False, True):
        close(
            F.avg_pool2d(x, window, strides, padding, counted),
            ref.avg_pool(x, window, strides, padding, counted),
            np.float64,
        )


def test_global_pooling(dtype):
    rng = np.random.default_rng(0)
    x, dy = numbers(rng, 3, 4, 5, 7, dtype=dtype), numbers(rng, 3, 7, dtype=dtype)
    close(F.global_avg_pool2d(x), x.mean((1, 2)), dtype)
    close(F.global_max_pool2d(x), x.max((1, 2)), dtype)
    spread = np.broadcast_to(dy[:, None, None], x.shape)
    close(F.global_avg_pool2d_backward(dy, x), spread / 20, dtype)
    winners = x == x.max((1, 2), keepdims=True)
    close(F.global_max_pool2d_backward(dy, x), spread * winners, dtype)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softmax"])
def test_activations(name, dtype):
    rng = np.random.default_rng(0)
    x = numbers(rng, 3, 4, 21, dtype=dtype)
    dy = numbers(rng, 3, 4, 21, dtype=dtype)
    h = 1e-6
    f, back = getattr(F, name), getattr(F, f"{name}_backward")
    wide = x.astype(np.float64)
    want = {
        "relu": np.maximum(wide, 0),
        "leaky_relu": np.where(wide > 0, wide, 0.2 * wide),
        "elu": np.where(wide > 0, wide, np.expm1(wide)),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "tanh": np.tanh(wide),
        "softmax": np.exp(wide) / np.exp(wide).sum(-1, keepdims=True),
    }[name]
    close(f(x), want, dtype)
    slope = sum(
        (dy.astype(np.float64) * (f(wide + h * e) - f(wide - h * e)) / (2 * h)).sum(-1)[..., None]
        * e
        for e in np.eye(21)
    )
    np.testing.assert_allclose(back(dy, x), slope, atol=2e-5)


def test_batch_norm(dtype):
    rng = np.random.default_rng(0)
    x, dy = numbers(rng, 4, 3, 5, 6, dtype=dtype), numbers(rng, 4, 3, 5, 6, dtype=dtype)
    gamma, beta = numbers(rng, 6, dtype=dtype), numbers(rng, 6, dtype=dtype)
    y, mean, variance = F.batch_norm(x, gamma, beta)
    close(mean, x.mean((0, 1, 2), dtype=np.float64), dtype)
    close(variance, x.var((0, 1, 2), dtype=np.float64), dtype)
    xhat = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
    close(y, gamma * xhat + beta, dtype)
    dx, dgamma, dbeta = F.batch_norm_backward(dy, x, gamma)
    close(dbeta, dy.sum((0, 1, 2), dtype=np.float64), dtype)
    close(dgamma, (dy * xhat).sum((0, 1, 2), dtype=np.float64), dtype)
    rstd = 1 / np.sqrt(x.var((0, 1, 2), dtype=np.float64) + 1e-3)
    inner = dy - dbeta / 60 - xhat * dgamma / 60
    close(dx, gamma * rstd * inner, dtype)


def test_dropout(dtype):
    x = np.ones((50, 8, 8, 16), dtype)
    y = F.dropout(x, 0.25, seed=3)
    assert set(np.unique(y)) == {0, dtype(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.01
    np.testing.assert_array_equal(F.dropout_backward(x, 0.25, seed=3), y)
    assert (F.dropout(x, 0.25, seed=4) != y).any()


def test_cross_entropy(dtype):
    rng = np.random.default_rng(0)
    z, labels = numbers(rng, 9, 5, dtype=dtype), rng.integers(0, 5, 9)
    value, dz = F.sparse_categorical_crossentropy(z, labels)
    p = np.exp(z.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    assert value == pytest.approx(-np.log(p[np.arange(9), labels]).mean(), rel=1e-6)
    close(dz, (p - np.eye(5)[labels]) / 9, dtype)


X = np.ones((2, 5, 5, 3), np.float32)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: F.conv2d(X[0], np.ones((3, 3, 3, 2))), "images"),
        (lambda: F.conv2d(X, np.ones((3, 3, 2, 2))), "channels"),
        (lambda: F.conv2d(X, np.ones((3, 3, 3))), "weight"),
        (lambda: F.conv2d(X, np.ones((7, 3, 3, 2))), "does not fit"),
        (lambda: F.conv2d(X, np.ones((3, 3, 3, 2)), np.ones(3)), "bias"),
        (lambda: F.conv2d(X, np.ones((3, 3, 3, 2)), strides=0), "strides"),
        (lambda: F.conv2d(X[:0], np.ones((3, 3, 3, 2))), "images"),
        (lambda: F.conv2d(X.astype(complex), np.ones((3, 3, 3, 2))), "complex"),
        (lambda: F.conv2d_backward(X, X, np.ones((3, 3, 3, 2))), "dy"),
        (lambda: F.max_pool2d(X, 6), "does not fit"),
        (lambda: F.max_pool2d_backward(X, X), "dy"),
        (lambda: F.dense(X, np.ones((4, 2))), "channels"),
        (lambda: F.sparse_categorical_crossentropy(np.ones((2, 3)), [0, 3]), r"0\.\.2"),
        (lambda: F.sparse_categorical_crossentropy(np.ones((2, 3)), [0]), "labels"),
        (lambda: F.dropout(X, 1.5, 0), "rate"),
    ],
)
def test_bad_arrays_are_refused(act, words):
    with pytest.raises(ValueError, match=words):
        act()

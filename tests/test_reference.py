"""The references are proved here before anything is compared with them: forward on numbers worked
by hand and on properties, backward against finite differences, and docs/gradients.md by running
it."""

import re
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import reference as ref
from gradient_check import NotDifferentiable, away_from, directional_check, spread
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fastconv import shapes

GUIDE = Path(__file__).parents[1] / "docs" / "gradients.md"

some = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def image(rows):
    """A list of rows as one sample with one channel, (1, H, W, 1)."""
    return np.array(rows, float)[None, :, :, None]


def line(values):
    """A list as one sample with one spatial axis and one channel, (1, W, 1)."""
    return np.array(values, float)[None, :, None]


# ---- the checker itself -------------------------------------------------------------------------


def square(x):
    return x**2


def test_checker_accepts_a_right_gradient():
    x = np.random.default_rng(0).standard_normal((3, 4))
    directional_check(square, lambda x, dy: (2 * x * dy,), x)


@pytest.mark.parametrize("error", [1e-5, -1e-6])
def test_checker_sees_a_relative_error_far_below_float32(error):
    x = np.random.default_rng(0).standard_normal((3, 4))
    with pytest.raises(AssertionError, match="gradient 0"):
        directional_check(square, lambda x, dy: (2 * x * dy * (1 + error),), x)


def test_checker_sees_one_wrong_element_among_a_thousand():
    def gradient(x, dy):
        dx = 2 * x * dy
        dx[500] *= 1.01
        return (dx,)

    with pytest.raises(AssertionError, match="gradient 0"):
        directional_check(square, gradient, np.random.default_rng(0).standard_normal(1000))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_checker_refuses_nan_and_infinity(wrong):
    with pytest.raises(AssertionError, match="gradient 0"), np.errstate(invalid="ignore"):
        directional_check(square, lambda x, dy: (np.full_like(x, wrong),), np.ones(3))


def test_checker_refuses_a_wrong_shape_or_number_of_gradients():
    with pytest.raises(AssertionError, match="shape"):
        directional_check(square, lambda x, dy: (2 * x[:1] * dy[:1],), np.ones((3, 4)))
    with pytest.raises(AssertionError, match="1 gradients for 2 arrays"):
        directional_check(lambda x, w: x * w, lambda x, w, dy: (w * dy,), np.ones(3), np.ones(3))


def test_checker_accepts_a_zero_gradient_and_refuses_a_false_zero():
    directional_check(np.zeros_like, lambda x, dy: (np.zeros_like(x),), np.ones(3))
    with pytest.raises(AssertionError):
        directional_check(square, lambda x, dy: (np.zeros_like(x),), np.ones(3))


@pytest.mark.parametrize("distance", [0.0, 1e-5, 2e-4, 5e-4])
def test_checker_refuses_a_point_near_a_kink(distance):
    x = np.linspace(1, 2, 100)
    x[17] = distance
    with pytest.raises(NotDifferentiable):
        directional_check(np.abs, lambda x, dy: (np.sign(x) * dy,), x, directions=20)


# ---- geometry -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "pair"),
    [
        (5, 3, 1, 1, (1, 1)),
        (5, 2, 1, 1, (0, 1)),  # the odd element goes to the end
        (6, 3, 2, 1, (0, 1)),
        (5, 3, 2, 1, (1, 1)),
        (224, 7, 2, 1, (2, 3)),  # the first layer of ResNet
        (10, 3, 1, 2, (2, 2)),
        (7, 3, 3, 2, (2, 2)),  # 3 outputs reach over 6 + 5 = 11 elements
        (4, 1, 3, 1, (0, 0)),  # a stride beyond the kernel needs no padding
    ],
)
def test_same_padding_by_hand(size, kernel, stride, dilation, pair):
    assert ref.same_padding(size, kernel, stride, dilation) == pair


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 5), st.integers(1, 4))
def test_same_padding_gives_ceil_outputs_and_no_more_than_needed(size, kernel, stride, dilation):
    before, after = ref.same_padding(size, kernel, stride, dilation)
    assert ref.output_size(size, kernel, stride, dilation, before, after) == -(-size // stride)
    assert before <= after <= before + 1
    if after:
        fewer = ref.output_size(size, kernel, stride, dilation, before, after - 1)
        assert fewer < -(-size // stride)


def test_bad_geometry_is_refused():
    x, w = np.ones((1, 3, 3, 1)), np.ones((4, 1, 1, 1))
    with pytest.raises(ValueError, match="no window"):
        ref.conv(x, w)
    with pytest.raises(ValueError, match="per spatial axis"):
        ref.conv(x, w, strides=(1, 1, 1), padding="same")
    with pytest.raises(ValueError, match="'valid', 'same' or pairs"):
        ref.conv(x, w, padding="full")
    with pytest.raises(ValueError, match="2 padding pairs"):
        ref.conv(x, w, padding=[(1, 1)])
    with pytest.raises(ValueError, match="wholly in the padding"):
        ref.max_pool(x, 2, padding=[(2, 0), (0, 0)])
    with pytest.raises(ValueError, match="wholly in the padding"):
        ref.avg_pool(x, 2, padding=[(2, 0), (0, 0)], count_padding=True)


# ---- forward, by hand ---------------------------------------------------------------------------

X = image([[1, 2, 0], [3, 1, 2], [0, 1, 4]])
W = np.array([[1, 2], [0, -1]], float)[:, :, None, None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[4, 0], [4, 1]]),
        ({"b": [1]}, [[5, 1], [5, 2]]),
        ({"padding": "same"}, [[4, 0, 0], [4, 1, 2], [2, 9, 4]]),
        ({"padding": "same", "strides": 2}, [[4, 0], [2, 4]]),
        ({"padding": [(1, 0), (0, 1)]}, [[-2, 0, 0], [4, 0, 0], [4, 1, 2]]),
        ({"padding": [(1, 0), (0, 1)], "strides": (2, 1)}, [[-2, 0, 0], [4, 1, 2]]),
        ({"dilation": 2}, [[1 + 0 + 0 - 4]]),
        ({"dilation": (2, 1)}, [[1 + 4 + 0 - 1, 2 + 0 + 0 - 4]]),
    ],
)
def test_conv_by_hand(options, expected):
    """Each output is a + 2b − d over its window (a b / c d)."""
    assert_array_equal(ref.conv(X, W, **options)[0, :, :, 0], expected)


def test_conv_mixes_channels_per_tap():
    x = np.array([[[1, 10], [2, 20]]], float)  # (1, W=2, IC=2)
    w = np.zeros((2, 2, 3))  # (KW=2, IC=2, OC=3)
    w[0, 0, 0] = w[1, 1, 1] = w[0, 1, 2] = w[1, 0, 2] = 1
    assert_array_equal(ref.conv(x, w), [[[1, 20, 10 + 2]]])


def test_conv_groups_see_their_own_channels():
    x = np.array([[[1, 10, 100, 1000]]], float)  # one pixel, four channels, two groups
    w = np.array([[[1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]]], float)  # (1, IC/G=2, OC=6)
    y = ref.conv(x, w, groups=2)
    assert_array_equal(y, [[[11, 12, 13, 1400, 1500, 1600]]])


def test_dense_by_hand():
    y = ref.dense([[1, 2]], [[1, 2, 3], [10, 20, 30]], [1, 1, 1])
    assert_array_equal(y, [[22, 43, 64]])


def test_max_pool_by_hand():
    assert_array_equal(ref.max_pool(X, 2, 1)[0, :, :, 0], [[3, 2], [3, 4]])
    assert_array_equal(ref.max_pool_index(X, 2, 1)[0, :, :, 0], [[2, 0], [0, 3]])
    assert_array_equal(ref.max_pool(X, 2)[0, :, :, 0], [[3]])
    assert_array_equal(ref.max_pool(X, 2, padding="same")[0, :, :, 0], [[3, 2], [1, 4]])
    assert_array_equal(ref.max_pool(X, (3, 1), (1, 2))[0, :, :, 0], [[3, 4]])
    assert_array_equal(ref.max_pool(X, 2, dilation=2)[0, :, :, 0], [[4]])
    assert_array_equal(ref.max_pool(-X - 1, 2, padding="same")[0, 1, :, 0], [-1, -5])


def test_max_pool_first_maximum_wins():
    x, dy = line([5, 5, 5]), line([1, 2])
    assert_array_equal(ref.max_pool_index(x, 2, 1).ravel(), [0, 0])
    assert_array_equal(ref.max_pool_backward(x, dy, 2, 1).ravel(), [1, 2, 0])
    dx = ref.global_max_pool_backward(x, np.array([[7.0]]))
    assert_array_equal(dx.ravel(), [7, 0, 0])


def test_avg_pool_by_hand():
    pool = partial(ref.avg_pool, X, 2, 1, [(1, 0), (0, 0)])
    assert_array_equal(pool()[0, :, :, 0], [[1.5, 1], [1.75, 1.25], [1.25, 2]])
    assert_array_equal(pool(count_padding=True)[0, 0, :, 0], [0.75, 0.5])
    same = ref.avg_pool(X, 2, padding="same")
    assert_array_equal(same[0, :, :, 0], [[1.75, 1], [0.5, 4]])
    dx = ref.avg_pool_backward(X, image([[4, 2], [2, 1]]), 2, padding="same")
    assert_array_equal(dx[0, :, :, 0], [[1, 1, 1], [1, 1, 1], [1, 1, 1]])


def test_global_pools_by_hand():
    assert ref.global_max_pool(X).tolist() == [[4]]
    assert_allclose(ref.global_avg_pool(X), [[14 / 9]], rtol=1e-15)
    assert_array_equal(ref.global_avg_pool_backward(X, np.array([[9.0]])), np.ones_like(X))


def test_activations_by_hand():
    x = np.array([-10, -5, 0, 5, 10, -np.inf])
    assert_array_equal(ref.relu(x), [0, 0, 0, 5, 10, 0])
    assert_array_equal(ref.relu(x, negative_slope=0.5), [-5, -2.5, 0, 5, 10, -np.inf])
    assert_array_equal(ref.relu(x, max_value=6), [0, 0, 0, 5, 6, 0])
    assert_array_equal(ref.relu(x, threshold=5), [0, 0, 0, 0, 10, 0])
    general = ref.relu(x, negative_slope=0.5, max_value=6, threshold=2)
    assert_array_equal(general, [-6, -3.5, -1, 5, 6, -np.inf])
    assert_array_equal(ref.leaky_relu([-10, 0, 5], 0.3), [-3, 0, 5])
    assert_allclose(ref.elu([np.log(0.5), 2, -np.inf], alpha=3), [-1.5, 2, -3], rtol=1e-15)
    assert_allclose(ref.sigmoid([0, np.log(3), -np.log(3)]), [0.5, 0.75, 0.25], rtol=1e-15)
    assert_allclose(ref.tanh([0, np.log(2)]), [0, 0.6], rtol=1e-15)
    assert_allclose(
        ref.softmax(np.log([[2, 5, 3], [1, 1, 2]])), [[0.2, 0.5, 0.3], [0.25, 0.25, 0.5]]
    )


def test_activations_stay_finite_far_out():
    far = np.array([-1000.0, 1000.0])
    assert_array_equal(ref.sigmoid(far), [0, 1])
    assert_array_equal(ref.softmax(far), [0, 1])
    for backward in (ref.sigmoid_backward, ref.tanh_backward, ref.softmax_backward):
        assert_array_equal(backward(far, np.array([1.0, 2.0])), [0, 0])


def test_relu_backward_at_the_kinks():
    assert_array_equal(ref.relu_backward([0.0], 1.0), [0])
    assert_array_equal(ref.relu_backward([0.0], 1.0, negative_slope=0.5), [0.5])
    assert_array_equal(ref.relu_backward([6.0, 2.0], 1.0, max_value=6, threshold=2), [0, 0])


def test_batch_norm_by_hand():
    x = np.array([[1, 0], [3, 0], [5, 6], [7, 6]], float)  # means 4 and 3, variances 5 and 9
    y, mean, variance = ref.batch_norm(x, [2, 1], [1, 0], epsilon=4.0)
    assert_array_equal(mean, [4, 3])
    assert_array_equal(variance, [5, 9])
    assert_allclose(y[:, 0], [-1, 1 / 3, 5 / 3, 3], rtol=1e-15)
    assert_allclose(y[:, 1], np.array([-3, -3, 3, 3]) / np.sqrt(13), rtol=1e-15)
    assert_allclose(ref.moving_average([0, 1], [10, 11], momentum=0.9), [1, 2], rtol=1e-15)
    assert_allclose(ref.batch_norm_inference(x, [2, 1], [1, 0], mean, variance, 4.0), y, rtol=1e-15)


def test_dropout_by_hand():
    y = ref.dropout([1, 2, np.inf, 3], np.array([True, False, False, True]), rate=0.25)
    assert_allclose(y, [4 / 3, 0, 0, 4], rtol=1e-15)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that come with Random123
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_known_answers(counter, key, expected):
    def words(text):
        return tuple(int(word, 16) for word in text.split())

    assert ref.philox4x32(words(counter), words(key)) == words(expected)


def test_crossentropy_by_hand():
    p = np.array([[0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])
    loss = -(np.log(0.3) + np.log(0.25)) / 2
    for y, from_logits in ((p, False), (5 * p, False), (np.log(p) + 7, True)):
        assert_allclose(
            ref.sparse_categorical_crossentropy([2, 0], y, from_logits), loss, rtol=1e-14
        )
    logits = np.log(p)
    dx = ref.sparse_categorical_crossentropy_backward([2, 0], logits, True)
    assert_allclose(dx, np.array([[0.2, 0.5, -0.7], [-0.75, 0.25, 0.5]]) / 2, rtol=1e-14)


def test_crossentropy_of_certainty():
    certain = np.array([[0.0, 1.0]])
    assert_allclose(ref.sparse_categorical_crossentropy([0], certain), -np.log(1e-7), rtol=1e-15)
    assert_allclose(ref.sparse_categorical_crossentropy([1], certain), -np.log(1 - 1e-7))
    assert_array_equal(ref.sparse_categorical_crossentropy_backward([0], certain), [[0, 0]])
    far = np.array([[0.0, 1000.0]])
    assert ref.sparse_categorical_crossentropy([0], far, from_logits=True) == 1000
    assert_array_equal(ref.sparse_categorical_crossentropy_backward([0], far, True), [[-1, 1]])


def test_labels_outside_the_classes_are_refused():
    for labels in ([3], [-1]):
        with pytest.raises(ValueError, match=r"0\.\.2"):
            ref.sparse_categorical_crossentropy(labels, np.ones((1, 3)))


def test_mean_squared_error_by_hand():
    assert ref.mean_squared_error([[1, 2], [3, 4]], [[1, 4], [0, 5]]) == (4 + 9 + 1) / 4
    dy = ref.mean_squared_error_backward([[1, 2], [3, 4]], [[1, 4], [0, 5]])
    assert_array_equal(dy, [[0, 1], [-1.5, 0.5]])


# ---- optimizers, by hand ------------------------------------------------------------------------


def test_sgd_by_hand():
    w, v = ref.sgd(1.0, 2.0, 0.0, learning_rate=0.5)
    assert (w, v) == (0, -1)
    w, v = ref.sgd(1.0, 2.0, 4.0, learning_rate=0.5, momentum=0.75)  # v = 3 − 1
    assert (w, v) == (3, 2)
    w, v = ref.sgd(1.0, 2.0, 4.0, learning_rate=0.5, momentum=0.75, nesterov=True)  # 1.5 − 1
    assert (w, v) == (1.5, 2)


def test_adam_first_step_is_the_rate_whatever_the_gradient():
    dw = np.array([1.0, -6.0, 1e3])
    w, m, v = ref.adam(np.zeros(3), dw, 0.0, 0.0, step=1, learning_rate=0.5)
    assert_allclose(w, [-0.5, 0.5, -0.5], rtol=1e-5)
    assert_allclose(m, 0.1 * dw, rtol=1e-15)
    assert_allclose(v, 0.001 * dw**2, rtol=1e-15)


def test_adam_adds_epsilon_to_the_uncorrected_root():
    # √v = √0.001 · 1e-7; with the corrected root the step would be half the rate
    w, *_ = ref.adam(0.0, 1e-7, 0.0, 0.0, step=1, learning_rate=1.0)
    assert_allclose(w, -(0.001**0.5) / (0.001**0.5 + 1), rtol=1e-6)


def test_adam_second_step_by_hand():
    # β₁ = ½, β₂ = ¾: m = ½·½ + ½·3 = 1.75, v = ¾·¼ + ¼·9 = 2.4375, rate·√(7/16)/(3/4)
    w, m, v = ref.adam(0.0, 3.0, 0.5, 0.25, step=2, learning_rate=1.0, beta_1=0.5, beta_2=0.75,
                       epsilon=0.0)  # fmt: skip
    assert (m, v) == (1.75, 2.4375)
    assert_allclose(w, -(7**0.5 / 3) * 1.75 / 2.4375**0.5, rtol=1e-15)


def test_adadelta_by_hand():
    # G = 0.05, so the first step is −√1e-7 / √(0.05 + 1e-7)
    w, grad2, delta2 = ref.adadelta(1.0, 1.0, 0.0, 0.0, learning_rate=0.5)
    first = 1e-7**0.5 / (0.05 + 1e-7) ** 0.5
    assert_allclose([w, grad2, delta2], [1 - 0.5 * first, 0.05, 0.05 * first**2], rtol=1e-14)
    # ρ = ½, ε = 1: G = ½·6 + ½·4 = 5 → 5 + 1; D = 2 → 2 + 1; step −√(3/6)·2
    w, grad2, delta2 = ref.adadelta(0.0, 2.0, 6.0, 2.0, learning_rate=10.0, rho=0.5, epsilon=1.0)
    assert_allclose([w, grad2, delta2], [-10 * 2**0.5, 5, 2], rtol=1e-14)


# ---- properties ---------------------------------------------------------------------------------


@st.composite
def problems(draw, groups=True):
    """A convolution problem in one to three dimensions: x, w and the options."""
    axes = draw(st.integers(1, 3))
    per_axis = partial(st.lists, min_size=axes, max_size=axes)
    sizes = draw(per_axis(st.integers(1, 6)))
    kernel = draw(per_axis(st.integers(1, 3)))
    pairs = per_axis(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    options = {
        "strides": draw(per_axis(st.integers(1, 3))),
        "padding": draw(st.one_of(st.sampled_from(["valid", "same"]), pairs)),
        "dilation": draw(per_axis(st.integers(1, 2))),
        "groups": draw(st.integers(1, 3)) if groups else 1,
    }
    if options["padding"] != "same":
        padding = ref.padding_pairs(
            sizes, kernel, options["strides"], options["padding"], options["dilation"]
        )
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, options["dilation"], strict=True)]
        fits = zip(sizes, padding, spans, strict=True)
        assume(all(n + b + a >= span for n, (b, a), span in fits))
    channels, filters = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(seeds))
    x = rng.standard_normal((draw(st.integers(1, 2)), *sizes, channels * options["groups"]))
    w = rng.standard_normal((*kernel, channels, filters * options["groups"]))
    return x, w, options


@some
@given(problems())
def test_conv_backward_of_any_problem(problem):
    x, w, options = problem
    b = np.linspace(-1, 1, w.shape[-1])
    directional_check(
        lambda x, w, b: ref.conv(x, w, b, **options),
        lambda x, w, b, dy: ref.conv_backward(x, w, dy, **options),
        x, w, b, directions=1,
    )  # fmt: skip


@some
@given(problems(groups=False), st.integers(1, 3))
def test_depthwise_is_a_convolution_of_groups(problem, multiplier):
    x, w, options = problem
    del options["groups"]
    channels = x.shape[-1]
    w = np.resize(w, (*w.shape[:-2], channels, multiplier)) + np.arange(multiplier)
    y = ref.depthwise_conv(x, w, **options)
    flat = w.reshape(*w.shape[:-2], 1, -1)
    assert_allclose(y, ref.conv(x, flat, groups=channels, **options), atol=1e-12)
    grads = ref.depthwise_conv_backward(x, w, np.cos(y), **options)
    expected = ref.conv_backward(x, flat, np.cos(y), groups=channels, **options)
    for a, b in zip(grads, expected, strict=True):
        assert_allclose(a, b.reshape(a.shape), atol=1e-12)


@some
@given(problems(groups=False), st.sampled_from(["valid", "same"]))
def test_conv_transpose_backward_of_any_problem(problem, padding):
    x, w, options = problem
    options = {"strides": options["strides"], "dilation": options["dilation"], "padding": padding}
    w = np.resize(w, (*w.shape[:-2], 2, x.shape[-1])) + np.sin(np.arange(2))[:, None]
    directional_check(
        lambda x, w, b: ref.conv_transpose(x, w, b, **options),
        lambda x, w, b, dy: ref.conv_transpose_backward(x, w, dy, **options),
        x, w, np.linspace(-1, 1, 2), directions=1,
    )  # fmt: skip


def test_conv_transpose_by_hand():
    """Two pixels, a window of three, two apart: the windows overlap in one output."""
    x, w = np.array([[[1.0], [10.0]]]), np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    y = ref.conv_transpose(x, w, strides=2)
    assert_array_equal(y[0, :, 0], [1, 2, 3 + 10, 20, 30])
    y = ref.conv_transpose(x, w, strides=2, padding="same")
    assert_array_equal(y[0, :, 0], [1, 2, 13, 20])
    y = ref.conv_transpose(x, w, strides=2, padding="same", output_padding=0)
    assert_array_equal(y[0, :, 0], [2, 13, 20])
    y = ref.conv_transpose(x, w, [5], strides=4)
    assert_array_equal(y[0, :, 0], [6, 7, 8, 5, 15, 25, 35, 5])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("extra", [None, 0, 1, 2])
@pytest.mark.parametrize(("kernel", "stride"), list(product(range(1, 6), range(1, 5))))
def test_transposed_sizes_are_those_of_the_layers(kernel, stride, extra, padding):
    if extra is not None and extra >= stride:
        return
    for size in (1, 4):
        want, before = ref.transposed_size(size, kernel, stride, 1, padding, extra)
        crop = shapes.transposed_crop(kernel, stride, 1, padding, extra)
        assert crop[0] == before
        assert (size - 1) * stride + kernel - sum(crop) == want


@some
@given(problems(), seeds)
def test_conv_is_linear_in_x_and_in_w(problem, seed):
    x, w, options = problem
    rng = np.random.default_rng(seed)
    x2, w2 = rng.standard_normal(x.shape), rng.standard_normal(w.shape)
    conv = partial(ref.conv, **options)
    assert_allclose(conv(2 * x - 3 * x2, w), 2 * conv(x, w) - 3 * conv(x2, w), atol=1e-12)
    assert_allclose(conv(x, 2 * w - 3 * w2), 2 * conv(x, w) - 3 * conv(x, w2), atol=1e-12)


@some
@given(problems())
def test_conv_agrees_with_its_definition_pixel_by_pixel(problem):
    """One output at a time: every tap looked up in x itself, outside of it zero."""
    x, w, options = problem
    strides, dilation, groups = options["strides"], options["dilation"], options["groups"]
    kernel = w.shape[:-2]
    pads = ref.padding_pairs(x.shape[1:-1], kernel, strides, options["padding"], dilation)
    y = ref.conv(x, w, **options)
    inputs, outputs = x.shape[-1] // groups, w.shape[-1] // groups
    for n, *o, oc in np.ndindex(y.shape):
        total = 0.0
        for tap in np.ndindex(kernel):
            geometry = zip(o, strides, tap, dilation, pads, strict=True)
            p = tuple(i * s + k * d - before for i, s, k, d, (before, _) in geometry)
            if all(0 <= i < size for i, size in zip(p, x.shape[1:-1], strict=True)):
                first = oc // outputs * inputs
                total += x[n][p][first : first + inputs] @ w[tap][:, oc]
        assert_allclose(y[(n, *o, oc)], total, atol=1e-12)


@some
@given(problems(groups=False))
def test_conv_with_a_delta_kernel_picks_pixels(problem):
    x, w, options = problem
    channels = x.shape[-1]
    delta = np.zeros((*w.shape[:-2], channels, channels))
    delta[(0,) * (x.ndim - 2)] = np.eye(channels)
    pads = ref.padding_pairs(
        x.shape[1:-1], w.shape[:-2], options["strides"], options["padding"], options["dilation"]
    )
    y = ref.conv(x, delta, **options)
    every = (slice(None, o * s, s) for o, s in zip(y.shape[1:-1], options["strides"], strict=True))
    assert_array_equal(y, ref.pad(x, pads)[:, *every, :])


@some
@given(problems(groups=False), st.floats(-100, 100))
def test_pools_of_a_constant_are_that_constant(problem, value):
    x, w, options = problem
    del options["groups"]
    x = np.full(x.shape, value)
    try:
        assert np.all(ref.max_pool(x, w.shape[:-2], **options) == value)
    except ValueError as error:
        if "wholly in the padding" not in str(error):
            raise
        reject()
    y = ref.avg_pool(x, w.shape[:-2], **options)
    assert_allclose(y, np.full(y.shape, value), rtol=1e-14)


@given(seeds, st.integers(1, 9), st.floats(-1e3, 1e3))
def test_softmax_sums_to_one_and_ignores_a_common_shift(seed, classes, shift):
    x = 10 * np.random.default_rng(seed).standard_normal((4, classes))
    y = ref.softmax(x)
    assert np.all(y >= 0)
    assert_allclose(y.sum(-1), 1, rtol=1e-14)
    assert_allclose(ref.softmax(x + shift), y, rtol=1e-11)


@given(seeds)
def test_batch_norm_output_has_mean_beta_and_deviation_gamma(seed):
    x = 5 + 3 * np.random.default_rng(seed).standard_normal((4, 5, 6, 2))
    y, *_ = ref.batch_norm(x, [2.0, 0.5], [1.0, -1.0], epsilon=0.0)
    assert_allclose(y.mean((0, 1, 2)), [1, -1], atol=1e-13)
    assert_allclose(y.std((0, 1, 2)), [2, 0.5], rtol=1e-13)


# ---- backward, numerically ----------------------------------------------------------------------

POOLS = [
    ((2, 7, 6, 2), {"pool_size": 2}),
    ((2, 7, 6, 2), {"pool_size": 3, "strides": 1}),  # overlap
    ((2, 7, 6, 2), {"pool_size": 3, "strides": (1, 2), "padding": "same"}),
    ((2, 7, 6, 2), {"pool_size": (3, 2), "strides": (2, 3), "padding": [(2, 0), (1, 1)]}),
    ((2, 7, 6, 2), {"pool_size": 1, "strides": 3}),  # pixels that no window covers
    ((1, 7, 8, 1), {"pool_size": 2, "strides": 1, "dilation": (2, 3)}),
    ((2, 9, 3), {"pool_size": 4, "strides": 3, "padding": "same"}),
    ((1, 4, 5, 4, 2), {"pool_size": (2, 3, 2), "strides": (1, 2, 2), "padding": "same"}),
]


@pytest.mark.parametrize(("shape", "options"), POOLS)
def test_max_pool_backward(shape, options):
    x = spread(np.random.default_rng(1), shape)
    directional_check(
        lambda x: ref.max_pool(x, **options),
        lambda x, dy: (ref.max_pool_backward(x, dy, **options),),
        x,
    )


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize(("shape", "options"), POOLS)
def test_avg_pool_backward(shape, options, count_padding):
    x = np.random.default_rng(1).standard_normal(shape)
    options = {**options, "count_padding": count_padding}
    directional_check(
        lambda x: ref.avg_pool(x, **options),
        lambda x, dy: (ref.avg_pool_backward(x, dy, **options),),
        x,
    )


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 4, 3), (2, 2, 3, 2, 3)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_global_pool_backward(shape, kind):
    backward = getattr(ref, f"global_{kind}_pool_backward")
    directional_check(
        getattr(ref, f"global_{kind}_pool"),
        lambda x, dy: (backward(x, dy),),
        spread(np.random.default_rng(1), shape),
    )


def test_max_pool_refuses_a_tie():
    with pytest.raises(NotDifferentiable):
        directional_check(
            lambda x: ref.max_pool(x, 2),
            lambda x, dy: (ref.max_pool_backward(x, dy, 2),),
            np.ones((1, 4, 4, 1)),
        )


def test_dense_backward():
    rng = np.random.default_rng(1)
    directional_check(
        ref.dense,
        lambda x, w, b, dy: ref.dense_backward(x, w, dy),
        rng.standard_normal((3, 2, 5)), rng.standard_normal((5, 4)), rng.standard_normal(4),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "kinks"),
    [
        ("relu", {}, [0]),
        ("relu", {"negative_slope": 0.1}, [0]),
        ("relu", {"max_value": 1.0}, [0, 1]),
        ("relu", {"negative_slope": 0.2, "max_value": 1.5, "threshold": 0.5}, [0.5, 1.5]),
        ("leaky_relu", {"negative_slope": 0.3}, [0]),
        ("elu", {}, [0]),
        ("elu", {"alpha": 0.7}, [0]),
        ("sigmoid", {}, []),
        ("tanh", {}, []),
        ("softmax", {}, []),
    ],
)
def test_activation_backward(name, options, kinks):
    forward, backward = getattr(ref, name), getattr(ref, f"{name}_backward")
    directional_check(
        lambda x: forward(x, **options),
        lambda x, dy: (backward(x, dy, **options),),
        away_from(np.random.default_rng(1), (4, 3, 5), *kinks),
    )


@pytest.mark.parametrize("shape", [(12, 3), (3, 4, 3), (2, 3, 4, 3), (2, 2, 2, 3, 3)])
def test_batch_norm_backward(shape):
    rng = np.random.default_rng(1)
    directional_check(
        lambda x, gamma, beta: ref.batch_norm(x, gamma, beta)[0],
        lambda x, gamma, beta, dy: ref.batch_norm_backward(x, gamma, dy),
        2 + 3 * rng.standard_normal(shape), rng.standard_normal(3), rng.standard_normal(3),
    )  # fmt: skip


def test_batch_norm_inference_backward():
    rng = np.random.default_rng(1)
    mean, variance = rng.standard_normal(3), rng.random(3)
    directional_check(
        lambda x, gamma, beta: ref.batch_norm_inference(x, gamma, beta, mean, variance),
        lambda x, gamma, _, dy: ref.batch_norm_inference_backward(x, gamma, mean, variance, dy),
        rng.standard_normal((2, 3, 4, 3)), rng.standard_normal(3), rng.standard_normal(3),
    )  # fmt: skip


def test_dropout_is_its_own_backward():
    rng = np.random.default_rng(1)
    dropout = partial(ref.dropout, keep=rng.random((4, 5)) < 0.7, rate=0.3)
    directional_check(dropout, lambda x, dy: (dropout(dy),), rng.standard_normal((4, 5)))


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5)])
def test_crossentropy_backward(shape, from_logits):
    rng = np.random.default_rng(1)
    target = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    labels = rng.integers(0, shape[-1], shape[:-1])
    y = rng.standard_normal(shape) if from_logits else 0.2 + rng.random(shape)
    for name, true in (
        ("categorical_crossentropy", target),
        ("categorical_crossentropy", 3 * target),  # need not be a distribution
        ("sparse_categorical_crossentropy", labels),
    ):
        loss, backward = getattr(ref, name), getattr(ref, f"{name}_backward")
        directional_check(
            lambda y, loss=loss, true=true: loss(true, y, from_logits),
            lambda y, dy, backward=backward, true=true: (backward(true, y, from_logits) * dy,),
            y,
        )


def test_softmax_then_crossentropy_is_the_fused_form():
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    p = ref.softmax(x)
    fused = ref.sparse_categorical_crossentropy_backward(labels, x, from_logits=True)
    dp = ref.sparse_categorical_crossentropy_backward(labels, p)
    assert_allclose(ref.softmax_backward(x, dp), fused, atol=1e-15)
    assert_allclose(fused, (p - ref.one_hot(labels, 4)) / 6, atol=1e-15)


def test_mean_squared_error_backward():
    rng = np.random.default_rng(1)
    target, y = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    directional_check(
        lambda y: ref.mean_squared_error(target, y),
        lambda y, dy: (ref.mean_squared_error_backward(target, y) * dy,),
        y,
    )


# ---- docs/gradients.md --------------------------------------------------------------------------


def guide_sections():
    """Heading → its python blocks, joined in reading order."""
    _, *sections = re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = {
        section.partition("\n")[0]: re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
        for section in sections
    }
    return {heading: "\n".join(code) for heading, code in blocks.items() if code}


@cache
def run_guide(heading):
    """The names that a section's code leaves behind; its own asserts run on the way."""
    names = {}
    exec(compile(guide_sections()[heading], f"{GUIDE.name}: {heading}", "exec"), names)
    return names


@pytest.mark.parametrize("heading", guide_sections())
def test_the_code_of_the_guide_runs(heading):
    assert run_guide(heading)


def test_the_worked_convolution_of_the_guide():
    g = run_guide("A convolution by hand")
    x, dy, w = image(g["x"]), image(g["dy"]), np.array(g["weight"], float)[:, :, None, None]

    y = ref.conv(x, w, [g["bias"]])
    assert_array_equal(y, image(g["y"]))
    assert_array_equal(y - image(g["target"]), dy)
    assert g["loss"] == (dy**2).sum() / 2

    dx, dw, db = ref.conv_backward(x, w, dy)
    assert_array_equal(dx, image(g["dx"]))
    assert_array_equal(dw[:, :, 0, 0], g["dweight"])
    assert_array_equal(db, [g["dbias"]])

    def loss(w, b):
        return ((ref.conv(x, w, [b]) - image(g["target"])) ** 2).sum() / 2

    nudged = w.copy()
    nudged[0, 0] += 0.01
    assert_allclose(loss(nudged, g["bias"]), 7.58075, rtol=1e-14)
    assert "7.58075" in GUIDE.read_text(encoding="utf-8")

    stepped = w - 0.01 * dw
    assert_allclose(stepped[:, :, 0, 0], g["stepped_weight"], rtol=1e-14)
    assert_allclose(g["bias"] - 0.01 * db, g["stepped_bias"], rtol=1e-14)
    assert_allclose(loss(stepped, g["stepped_bias"]), g["stepped_loss"], rtol=1e-14)


def test_the_worked_max_pool_of_the_guide():
    g = run_guide("Pooling")
    x, dy = line(g["x"]), line(g["dy"])
    assert_array_equal(ref.max_pool(x, 2, 1), line(g["y"]))
    assert_array_equal(ref.max_pool_index(x, 2, 1).ravel(), g["idx"])
    assert_array_equal(ref.max_pool_backward(x, dy, 2, 1), line(g["dx"]))


def test_the_batch_norm_of_the_guide():
    g = run_guide("Batch normalization")
    rng = np.random.default_rng(0)
    x, dy = 5 + 2 * rng.standard_normal((50, 3)), rng.standard_normal((50, 3))
    dx, dgamma, dbeta = ref.batch_norm_backward(x, g["gamma"], dy, g["eps"])
    assert_allclose(g["dx"], dx, atol=1e-13)
    assert_allclose(g["dgamma"], dgamma, atol=1e-13)
    assert_allclose(g["dbeta"], dbeta, atol=1e-13)

    both = np.array(g["piece_a"] + g["piece_b"], float)
    assert g["merged"] == {"n": len(both), "mean": both.mean(), "S": both.var() * len(both)}


def test_the_softmax_of_the_guide():
    g = run_guide("Softmax and cross-entropy")
    assert_allclose(ref.softmax(g["x"]), g["p"], rtol=1e-14)
    fused = ref.categorical_crossentropy_backward(g["t"], g["x"], from_logits=True)
    assert_allclose(fused, g["dx"], rtol=1e-14)


@given(st.tuples(*[st.integers(0, 2**32 - 1)] * 4), st.tuples(*[st.integers(0, 2**32 - 1)] * 2))
def test_the_philox_of_the_guide(counter, key):
    assert run_guide("Dropout")["philox4x32"](counter, key) == ref.philox4x32(counter, key)

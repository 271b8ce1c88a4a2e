"""Images along affine maps, and the numbers that choose the maps."""

import numpy as np
import pytest
import reference
from kernel_tools import Tensor, close, dtype, empty, randoms, run, same_for_all_teams

from fastconv._native import random, sample

__all__ = ["dtype"]

EDGES = ["constant", "nearest", "wrap", "reflect"]


def maps(count, seed=1):
    """Far from halves, beyond the edges by more than an image."""
    rng = np.random.default_rng(seed)
    linear = rng.uniform(-1.2, 1.2, (count, 2, 2))
    return np.concatenate([linear, rng.uniform(-9, 12, (count, 2, 1))], axis=2).reshape(count, 6)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("edge", EDGES)
def test_values(dtype, edge, linear, channels):
    x = randoms((3, 5, 7, channels)).astype(dtype)
    given, found = Tensor(x, dtype), empty(x.shape, dtype)
    y = found.array.reshape(x.shape)
    sample.affine(given.array.reshape(x.shape), y, maps(3), edge, linear, 0.7)
    found.check()
    close(y, reference.affine(x, maps(3), edge, linear, 0.7), dtype)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("edge", EDGES)
def test_gradient_is_the_transposed_map(dtype, edge, linear):
    x, dy = randoms((2, 6, 5, 3)).astype(dtype), randoms((2, 6, 5, 3), 1).astype(dtype)
    y, found = np.full_like(x, np.nan), empty(x.shape, dtype)
    dx = found.array.reshape(x.shape)
    sample.affine(x, y, maps(2), edge, linear, 0)
    sample.affine_gradient(dy, dx, maps(2), edge, linear)
    found.check()
    for i in range(2):
        close(np.vdot(y[i], dy[i]), np.vdot(x[i], dx[i]), dtype, 1e-5)


def test_one_pixel_stands_everywhere(dtype):
    x, y = np.full((1, 1, 1, 2), 3, dtype), np.full((1, 1, 1, 2), np.nan, dtype)
    for edge in EDGES[1:]:
        sample.affine(x, y, np.array([[1.0, 0, -7.5, 0, 1, 1e6]]), edge, True)
        np.testing.assert_allclose(y, 3)


def test_threads_change_nothing(dtype):
    x = randoms((3, 70, 80, 5)).astype(dtype)

    def outputs():
        y, dx = np.empty_like(x), np.empty_like(x)
        sample.affine(x, y, maps(3), "reflect", True)
        sample.affine_gradient(x, dx, maps(3), "reflect", True)
        return y, dx

    same_for_all_teams(outputs)


def test_what_does_not_fit_is_refused():
    x, m = np.zeros((2, 3, 4, 1), np.float32), np.zeros((2, 6))
    y = np.zeros_like(x)
    for arguments, words in (
        ((x, y, m, "mirror", True), "edge is one of"),
        ((x, y[:1], m, "wrap", True), "one shape and type"),
        ((x, y.astype(float), m, "wrap", True), "one shape and type"),
        ((x[0], y[0], m, "wrap", True), "one shape and type"),
        ((x.astype(int), y.astype(int), m, "wrap", True), "float32 or float64"),
        ((x, x, m, "wrap", True), "apart from x"),
        ((x, y, m[:1], "wrap", True), "2 images need as many maps"),
        ((x, y, m + np.nan, "wrap", True), "finite"),
        ((x, y, m + 1e30, "wrap", True), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            sample.affine(*arguments)
    with pytest.raises(ValueError, match="contiguous"):
        sample.affine(np.zeros((2, 3, 8, 1), np.float32)[:, :, ::2], y, m, "wrap", True)
    y.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        sample.affine(x, y, m, "wrap", True)


def uniform(dtype, n, per_sample, stream=3, seed=1, step=2):
    y = empty((n, per_sample), dtype)
    run(random.Uniform(per_sample, stream, 0), {0: y}, n, seed=seed, step_number=step)
    return y.values


def test_uniform_numbers(dtype):
    numbers = uniform(dtype, 1000, 3)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.02
    assert abs(numbers.std() - 12**-0.5) < 0.01
    # the same in every type, those of a sample whatever comes behind it, others elsewhere
    np.testing.assert_array_equal(numbers, uniform(np.float64, 1000, 3).astype(dtype))
    np.testing.assert_array_equal(numbers[:7], uniform(dtype, 7, 3))
    for other in ({"stream": 4}, {"seed": 2}, {"step": 3}):
        found = uniform(dtype, 1000, 3, **other)
        assert abs(np.corrcoef(numbers.ravel(), found.ravel())[0, 1]) < 0.1

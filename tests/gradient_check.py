"""Numerical check of a hand-derived gradient along random directions, in float64.

For a function y = f(*arrays) and a fixed random dy, let L(t) = Σ dy · f(…, array + t·v, …). The
derivative L'(0) must be Σ d_array · v, where d_array is what `grad` returns. One direction v tests
all elements at once and costs four calls of f, however many parameters there are.
"""

import numpy as np


class NotDifferentiable(ValueError):
    """The point lies on or near a kink of f: finite differences mean nothing there."""


def directional_check(f, grad, *arrays, directions=3, step=1e-3, tolerance=1e-7, seed=0):
    """Check grad(*arrays, dy) → one gradient per array against f(*arrays) → array.

    An entry None among the gradients says that the array has none and stays as it is. Raises
    AssertionError where a gradient is wrong, NotDifferentiable where f has a kink within reach of
    the differences (move the inputs away from it: see `away_from` and `spread`).
    """
    arrays = [np.array(a, dtype=np.float64) for a in arrays]
    rng = np.random.default_rng(seed)
    y = np.asarray(f(*arrays))
    dy = rng.standard_normal(y.shape)
    gradients = grad(*arrays, dy)
    assert len(gradients) == len(arrays), f"{len(gradients)} gradients for {len(arrays)} arrays"

    for number, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        if gradient is None:
            continue
        assert np.shape(gradient) == array.shape, (
            f"gradient {number} has shape {np.shape(gradient)}, its array {array.shape}"
        )
        for _ in range(directions):
            v = rng.standard_normal(array.shape)

            def along(t, number=number, v=v):
                moved = [a + t * v if i == number else a.copy() for i, a in enumerate(arrays)]
                return np.asarray(f(*moved))

            slope = derivative(along, y, step)
            _compare(number, dy * slope, gradient * v, np.abs(dy * y).sum(), step, tolerance)


def derivative(along, y, step):
    """d/dt along(t) at t = 0, elementwise, where along(0) = y.

    Central differences at h and h/2, extrapolated (Richardson) so that the error is O(h⁴) and a
    step as large as 1e-3, harmless to the rounding, is accurate enough. What the two steps say is
    also the test for a kink: on a smooth stretch the first differences agree to O(h²), and the
    second difference falls to a quarter at half the step; at a kink it only falls to a half.
    """
    plus, minus = along(step), along(-step)
    half_plus, half_minus = along(step / 2), along(-step / 2)
    wide = (plus - minus) / (2 * step)
    narrow = (half_plus - half_minus) / step
    bend = (plus - 2 * y + minus) - 4 * (half_plus - 2 * y + half_minus)

    largest = max(np.abs(wide).max(), np.abs(narrow).max())
    rounding = 64 * np.finfo(np.float64).eps * max(np.abs(y).max(), np.abs(plus).max()) / step
    kink = max(np.abs(wide - narrow).max(), np.abs(bend).max() / step)
    if kink > 1e-3 * largest + rounding:
        raise NotDifferentiable(f"differences at h and h/2 disagree by {kink:.1e} of {largest:.1e}")
    return narrow + (narrow - wide) / 3


def _compare(number, numeric, analytic, magnitude, step, tolerance):
    """Compare two sums of terms, relative to the root of the sum of squared terms: the size that
    such a sum has for random signs. (Relative to the sum itself, an unlucky direction at right
    angles to the gradient would make an error of rounding.)"""
    error = abs(numeric.sum() - analytic.sum())
    size = max(np.sqrt((analytic**2).sum()), abs(analytic.sum()))
    rounding = 8 * np.finfo(np.float64).eps * magnitude / step
    assert error <= tolerance * size + rounding, (
        f"gradient {number}: numeric {numeric.sum():.12g}, analytic {analytic.sum():.12g}, "
        f"relative error {error / max(size, 1e-300):.1e} > {tolerance:.0e}"
    )


def away_from(rng, shape, *kinks, margin=0.05):
    """Random numbers of about unit size that keep `margin` away from each kink (a number)."""
    x = rng.standard_normal(shape)
    for kink in sorted(kinks):
        near = np.abs(x - kink) < margin
        x[near] = kink + np.where(x[near] < kink, -margin, margin) * (1 + rng.random(near.sum()))
    return x


def spread(rng, shape, gap=0.05):
    """Random numbers no two of which are nearer than about `gap`, so that no maximum changes hands
    while a check moves them."""
    size = int(np.prod(shape))
    return (gap * (rng.permutation(size) - size / 2) + gap / 4 * rng.random(size)).reshape(shape)

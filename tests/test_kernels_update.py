"""Optimizer updates against Keras' formulas over several steps."""

import numpy as np
import pytest
import reference
from kernel_tools import GUARD, Tensor, close, dtype, randoms, same_for_all_teams

from fastconv._native import update as native

__all__ = ["dtype"]
SHAPES = [(3, 3, 5, 7), (1,), (17,), (8192,), (8193, 2), (16,)]

RULES = {
    "sgd": (0, lambda s, g, t: native.sgd(s, 0.1),
            lambda w, g, states, t: (reference.sgd(w, g, 0.0, 0.1)[0],)),
    "momentum": (1, lambda s, g, t: native.sgd(s, 0.1, 0.9),
                 lambda w, g, states, t: reference.sgd(w, g, *states, 0.1, 0.9)),
    "nesterov": (1, lambda s, g, t: native.sgd(s, 0.1, 0.9, True),
                 lambda w, g, states, t: reference.sgd(w, g, *states, 0.1, 0.9, True)),
    "adam": (2, lambda s, g, t: native.adam(s, 0.01, 0.8, 0.99, 1e-3, t),
             lambda w, g, states, t: reference.adam(w, g, *states, t, 0.01, 0.8, 0.99, 1e-3)),
    "adadelta": (2, lambda s, g, t: native.adadelta(s, 0.7, 0.9, 1e-3),
                 lambda w, g, states, t: reference.adadelta(w, g, *states, 0.7, 0.9, 1e-3)),
    "amsgrad": (3, lambda s, g, t: native.adam(s, 0.01, 0.8, 0.99, 1e-3, t, True),
                lambda w, g, states, t: amsgrad(w, g, *states, t)),
    "nadam": (2, lambda s, g, t: native.nadam(s, 0.01, 0.8, 0.99, 1e-3, t),
              lambda w, g, states, t: nadam(w, g, *states, t)),
    "adamax": (2, lambda s, g, t: native.adamax(s, 0.01, 0.8, 0.99, 1e-3, t),
               lambda w, g, states, t: adamax(w, g, *states, t)),
    "rmsprop": (1, lambda s, g, t: native.rmsprop(s, 0.01, 0.9, 0, 1e-3),
                lambda w, g, states, t: rmsprop(w, g, *states)),
    "rmsprop momentum": (2, lambda s, g, t: native.rmsprop(s, 0.01, 0.9, 0.7, 1e-3),
                         lambda w, g, states, t: rmsprop(w, g, *states)),
    "rmsprop centered": (3, lambda s, g, t: native.rmsprop(s, 0.01, 0.9, 0.7, 1e-1, True),
                         lambda w, g, states, t: rmsprop(w, g, *states, eps=1e-1)),
    "adagrad": (1, lambda s, g, t: native.adagrad(s, 0.1, 1e-3),
                lambda w, g, states, t: (w - 0.1 * g / np.sqrt(states[0] + g * g + 1e-3),
                                         states[0] + g * g)),
    "lion": (1, lambda s, g, t: native.lion(s, 0.01, 0.6, 0.8),
             lambda w, g, states, t: (w - 0.01 * np.sign(0.6 * states[0] + 0.4 * g),
                                      0.8 * states[0] + 0.2 * g)),
}  # fmt: skip


def amsgrad(w, g, m, v, u, t):
    m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g * g
    u = np.maximum(u, v)
    rate = 0.01 * np.sqrt(1 - 0.99**t) / (1 - 0.8**t)
    return w - rate * m / (np.sqrt(u) + 1e-3), m, v, u


def nadam(w, g, m, v, t):
    m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g * g
    u = [0.8 * (1 - 0.5 * 0.96**i) for i in range(1, t + 2)]
    ahead = u[-1] * m / (1 - np.prod(u)) + (1 - u[-2]) * g / (1 - np.prod(u[:-1]))
    return w - 0.01 * ahead / (np.sqrt(v / (1 - 0.99**t)) + 1e-3), m, v


def adamax(w, g, m, u, t):
    m, u = 0.8 * m + 0.2 * g, np.maximum(0.99 * u, np.abs(g))
    return w - 0.01 / (1 - 0.8**t) * m / (u + 1e-3), m, u


def rmsprop(w, g, v, m=None, a=None, eps=1e-3):
    v = 0.9 * v + 0.1 * g * g
    if a is not None:
        a = 0.9 * a + 0.1 * g
    step = 0.01 * g / np.sqrt(v - (0 if a is None else a * a) + eps)
    if m is None:
        return w - step, v
    m = 0.7 * m + step
    return tuple(x for x in (w - m, v, m, a) if x is not None)


@pytest.mark.parametrize("rule", RULES)
def test_five_steps(dtype, rule):
    states, update, formula = RULES[rule]
    tensors = [[Tensor(randoms(shape, 1).reshape(1, -1), dtype) for shape in SHAPES]]
    tensors += [[Tensor(np.zeros((1, np.prod(shape))), dtype) for shape in SHAPES]
                for _ in range(1 + states)]  # fmt: skip
    lists = [[t.array for t in group] for group in tensors]
    segments = native.Segments(*lists)
    assert len(segments) == len(SHAPES)
    expected = [[t.values.astype(float) for t in group] for group in tensors]
    for t in range(1, 6):
        for i, grad in enumerate(lists[1]):
            grad[:] = randoms(grad.shape, 10 * t + i)
            moved = formula(
                expected[0][i], grad[None].astype(float), [e[i] for e in expected[2:]], t
            )
            for group, values in zip([0, 2, 3, 4][: 1 + states], moved, strict=True):
                expected[group][i] = values
        update(segments, lists[1], t)
    for group, values in zip(tensors, expected, strict=True):
        for tensor, want in zip(group, values, strict=True):
            tensor.check()
            if group is not tensors[1]:
                close(tensor.values, want, dtype, 3e-6)


def test_adam_first_step_is_the_rate(dtype):
    w, g, m, v = (np.zeros(5, dtype) for _ in range(4))
    g[:] = [1, -1, 1e-3, 100, 0]
    native.adam(native.Segments([w], [g], [m], [v]), 0.001, 0.9, 0.999, 0, 1)
    np.testing.assert_allclose(w[:4], -0.001 * np.sign(g[:4]), rtol=1e-5)
    assert np.isnan(w[4])  # 0 / 0, without an epsilon


def test_threads_change_no_bit(dtype):
    w0, g = randoms(300_001).astype(dtype), randoms(300_001, 1).astype(dtype)

    def outputs():
        arrays = [w0.copy(), g, np.zeros_like(w0), np.zeros_like(w0)]
        segments = native.Segments(*([a] for a in arrays))
        native.adam(segments, 0.01, 0.9, 0.999, 1e-7, 1)
        native.adadelta(segments, 0.01, 0.9, 1e-7)
        return arrays

    same_for_all_teams(outputs)


def test_segments_keep_arrays_alive_and_read_gradients_only():
    g = np.ones(GUARD)
    g.flags.writeable = False
    segments = native.Segments([np.zeros(GUARD)], [g])
    native.sgd(segments, 1.0)
    np.testing.assert_array_equal(segments.arrays[0][0], -1)
    empty = native.Segments([], [])
    assert len(empty) == 0
    native.adam(empty, 0.1, 0.9, 0.99, 1e-7, 1)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (([np.zeros(3)], [np.zeros(4)]), "shapes"),
        (([np.zeros(3)], [np.zeros(3, np.float32)]), "float32 or all float64"),
        (([np.zeros(3, int)], [np.zeros(3, int)]), "float32 or all float64"),
        (([np.zeros((4, 4)).T[:2]], [np.zeros((2, 4))]), "contiguous"),
        (([np.zeros(3)], []), "one length"),
        (([np.broadcast_to(np.zeros(1), 1)], [np.zeros(1)]), "writeable"),
    ],
)
def test_bad_segments(arrays, words):
    with pytest.raises(ValueError, match=words):
        native.Segments(*arrays)


def test_missing_states_and_bad_numbers():
    segments = native.Segments([np.zeros(3)], [np.zeros(3)])
    with pytest.raises(ValueError, match="1 states"):
        native.sgd(segments, 0.1, 0.9)
    with pytest.raises(ValueError, match="2 states"):
        native.adam(segments, 0.1, 0.9, 0.99, 1e-7, 1)
    with pytest.raises(ValueError, match="lr"):
        native.sgd(segments, -1)
    with pytest.raises(ValueError, match="t lies"):
        native.adam(segments, 0.1, 0.9, 0.99, 1e-7, 0)


def settled(dtype, sizes=(5, 8192, 20_001)):
    """Segments of one state, their arrays, and means of the weights."""
    arrays = [[randoms(n, 10 * k + n).astype(dtype) for n in sizes] for k in range(2)]
    arrays += [[np.zeros(n, dtype) for n in sizes] for _ in range(2)]
    return native.Segments(*arrays[:3], means=arrays[3]), arrays


def test_penalties_decay_and_averages(dtype):
    segments, (w, g, _, mean) = settled(dtype)
    before = [x.astype(float) for x in w]
    segments.weight_decay, segments.mean_momentum = 0.5, 0.75
    segments.terms(0, l1=0.3, l2=0.7)
    segments.terms(1, decay=False)
    native.sgd(segments, 0.1)
    for i, (found, old) in enumerate(zip(w, before, strict=True)):
        pull = g[i] + (0.3 * np.sign(old) + 0.7 * old if i == 0 else 0)
        want = old - 0.1 * pull - (0 if i == 1 else 0.05 * old)
        close(found, want, dtype, 3e-7)
        close(mean[i], 0.25 * want, dtype, 3e-7)
    sums = native.weight_sums(segments)
    np.testing.assert_allclose(sums[:, 0], [np.abs(x).sum(dtype=float) for x in w], rtol=1e-6)
    np.testing.assert_allclose(sums[:, 1], [(x.astype(float) ** 2).sum() for x in w], rtol=1e-6)


@pytest.mark.parametrize("limit", ["clip_value", "clip_norm", "global_clip_norm"])
def test_clipping(dtype, limit):
    segments, (w, g, *_) = settled(dtype)
    before = [x.astype(float) for x in w]
    setattr(segments, limit, 0.4)
    native.sgd(segments, 1.0)
    norms = [np.linalg.norm(x.astype(float)) for x in g]
    for i, old in enumerate(before):
        want = g[i].astype(float)
        if limit == "clip_value":
            want = np.clip(want, -0.4, 0.4)
        else:
            norm = norms[i] if limit == "clip_norm" else np.linalg.norm(norms)
            want *= min(1, 0.4 / norm)
        close(w[i], old - want, dtype, 3e-7)


def test_clipping_and_penalties_keep_nan(dtype):
    for limit in ("clip_value", "clip_norm", "global_clip_norm"):
        segments, (w, g, *_) = settled(dtype, (20, 3))
        g[0][7] = np.nan
        setattr(segments, limit, 1.0)
        segments.terms(0, l1=0.1)
        native.sgd(segments, 0.1)
        assert np.isnan(w[0][7])


def test_threads_change_no_bit_of_a_clipped_update(dtype):
    def outputs():
        segments, arrays = settled(dtype, (300_001, 7))
        segments.global_clip_norm, segments.weight_decay = 0.5, 0.1
        segments.terms(0, l1=0.1, l2=0.1)
        native.lion(segments, 0.01, 0.9, 0.99)
        return [x for group in arrays for x in group]

    same_for_all_teams(outputs)

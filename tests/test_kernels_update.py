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
}  # fmt: skip


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
            for group, values in zip([0, 2, 3][: 1 + states], moved, strict=False):
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

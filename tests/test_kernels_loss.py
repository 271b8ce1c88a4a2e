"""Losses and hits against Keras' definitions."""

import numpy as np
import pytest
import reference
from kernel_tools import Tensor, close, dtype, empty, randoms, run, same_for_all_teams, tolerance

from fastconv._native import loss as native

__all__ = ["dtype"]


def scalar(value=np.nan):
    return Tensor(np.array([[value]]), np.float64)


def scratch():
    return empty((1, native.SCRATCH), np.float64)


def cross_entropy(dtype, p, target, weight=None, gap=0, want_dx=True, in_place=False, **options):
    """Value and gradient; target is labels (integers) or whole distributions."""
    n, rows, classes = p.shape
    sparse = target.ndim == 2
    step = native.SparseCrossEntropy if sparse else native.CategoricalCrossEntropy
    slots = {
        0: Tensor(p, dtype, classes + gap),
        1: Tensor(target[..., None], np.int32) if sparse else Tensor(target, dtype),
        2: scalar(), 3: scratch(),
    }  # fmt: skip
    if weight is not None:
        slots[4] = Tensor(weight[:, None], dtype)
    if want_dx and not in_place:
        slots[5] = empty(p.shape, dtype, classes + 2 * gap)
    dx = -1 if not want_dx else 0 if in_place else 5
    run(
        step(
            rows_per_sample=rows, classes=classes, p=0, p_stride=classes + gap,
            **{"labels" if sparse else "targets": 1}, loss=2, scratch=3, dx=dx,
            dx_stride=classes + (gap if in_place else 2 * gap),
            weight=-1 if weight is None else 4, **options,
        ),
        slots, n,
    )  # fmt: skip
    return slots[2].values.item(), slots[dx].values if want_dx else None


@pytest.mark.parametrize("classes", [1, 2, 10, 15, 16, 17, 70])
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("form", ["fused", "probabilities", "logits"])
def test_cross_entropy(dtype, classes, gap, sparse, form):
    n, rows = 3, 5
    logits = (2 * randoms((n, rows, classes))).astype(dtype)
    labels = np.random.default_rng(1).integers(0, classes, (n, rows))
    soft = reference.softmax(randoms((n, rows, classes), 2))
    target = labels if sparse else soft.astype(dtype)
    whole = reference.one_hot(labels, classes) if sparse else target
    if form == "logits":
        p = logits
        expected = reference.categorical_crossentropy(whole, p, True)
        gradient = reference.categorical_crossentropy_backward(whole, p, True)
    elif form == "probabilities":
        p = np.abs(randoms((n, rows, classes), 3)).astype(dtype) + dtype.type(0.05)
        expected = reference.categorical_crossentropy(whole, p)
        gradient = reference.categorical_crossentropy_backward(whole, p)
    else:
        p = reference.softmax(logits).astype(dtype)
        expected = reference.categorical_crossentropy(whole, p)
        gradient = reference.categorical_crossentropy_backward(whole, logits, True)
    value, dx = cross_entropy(
        dtype, p, target, gap=gap, from_logits=form == "logits", fused=form == "fused", scale=2.0
    )
    assert value == pytest.approx(expected, rel=tolerance(dtype, 1e-6), abs=1e-9)
    np.testing.assert_allclose(dx, 2 * gradient, rtol=0, atol=tolerance(dtype, 1e-6) * 10)
    alone, _ = cross_entropy(
        dtype, p, target, want_dx=False, from_logits=form == "logits", fused=form == "fused"
    )
    assert alone == value
    if form != "probabilities":
        again = cross_entropy(
            dtype, p, target, gap=gap, in_place=True, from_logits=form == "logits",
            fused=form == "fused", scale=2.0,
        )  # fmt: skip
        assert again[0] == value
        np.testing.assert_array_equal(again[1], dx)


@pytest.mark.parametrize("sparse", [True, False])
def test_weights_scale_samples(dtype, sparse):
    p = randoms((4, 3, 5)).astype(dtype)
    labels = np.arange(12).reshape(4, 3) % 5
    target = labels if sparse else reference.one_hot(labels, 5)
    weight = np.array([1.0, 0.0, 2.0, 0.5])
    value, dx = cross_entropy(dtype, p, target, weight, from_logits=True)
    samples = [cross_entropy(dtype, p[i : i + 1], target[i : i + 1], from_logits=True)
               for i in range(4)]  # fmt: skip
    assert value == pytest.approx(sum(w * v for w, (v, _) in zip(weight, samples, strict=True)) / 4)
    expected = np.concatenate([w * g / 4 for w, (_, g) in zip(weight, samples, strict=True)])
    close(dx, expected, dtype)


def test_clip_of_probabilities(dtype):
    p = np.array([[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]])
    labels = np.array([[0], [1]])
    value, dx = cross_entropy(dtype, p, labels, from_logits=False)
    expected = -(np.log(1 - 1e-7) + np.log(1e-7)) / 2
    assert value == pytest.approx(expected, rel=1e-9)
    assert (dx == 0).all()  # both lie outside of the clip
    value, dx = cross_entropy(dtype, p, labels, from_logits=False, fused=True)
    assert value == pytest.approx(expected, rel=1e-9)
    np.testing.assert_array_equal(dx[1, 0], [0.5, -0.5, 0])


def test_extreme_logits_and_nan(dtype):
    p = np.array([[[1e30, 0.0, -1e30]], [[5.0, np.nan, 1.0]]])
    value, dx = cross_entropy(dtype, p[:1], np.array([[0]]), from_logits=True)
    assert value == 0
    assert (dx == 0).all()
    value, dx = cross_entropy(dtype, p, np.array([[0], [0]]), from_logits=True)
    assert np.isnan(value)
    assert np.isnan(dx[1]).all()
    soft = np.array([[[np.nan, 0.5]]])
    for form in ({"from_logits": False}, {"from_logits": False, "fused": True}):
        assert np.isnan(cross_entropy(dtype, soft, np.array([[0]]), **form)[0])
        assert np.isnan(cross_entropy(dtype, soft, np.array([[[0.0, 1.0]]]), **form)[0])


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_labels_outside_the_classes(dtype, label):
    with pytest.raises(ValueError, match=f"label {label} "):
        cross_entropy(dtype, randoms((2, 1, 3)), np.array([[0], [label]]), from_logits=True)


@pytest.mark.parametrize("form", ["fused", "probabilities", "logits"])
def test_ignored_labels(dtype, form):
    n, rows, classes = 3, 4, 5
    p = randoms((n, rows, classes)).astype(dtype)
    if form != "logits":
        p = reference.softmax(p).astype(dtype)
    labels = np.arange(n * rows).reshape(n, rows) % classes
    labels[0, 1] = labels[2] = 255
    options = {"from_logits": form == "logits", "fused": form == "fused"}
    weight = np.array([1.0, 3.0, 2.0])
    value, dx = cross_entropy(dtype, p, labels, weight, ignore=255, **options)
    counted = labels != 255
    alone = [
        cross_entropy(dtype, p[i : i + 1, j : j + 1], labels[i : i + 1, j : j + 1], **options)
        for i, j in np.argwhere(counted)
    ]
    shares = weight[np.argwhere(counted)[:, 0]] / counted.sum()
    assert value == pytest.approx(sum(s * v for s, (v, _) in zip(shares, alone, strict=True)))
    expected = np.zeros_like(dx)
    expected[counted] = [s * g[0, 0] for s, (_, g) in zip(shares, alone, strict=True)]
    close(dx, expected, dtype)
    value, dx = cross_entropy(dtype, p, np.full((n, rows), -1), ignore=-1, **options)
    assert value == 0
    assert (dx == 0).all()
    with pytest.raises(ValueError, match="label 254 "):
        cross_entropy(dtype, p, np.full((n, rows), 254), ignore=255, **options)


@pytest.mark.parametrize("form", ["fused", "probabilities", "logits"])
def test_smoothed_targets(dtype, form):
    p = reference.softmax(randoms((3, 2, 4))).astype(dtype)
    target = reference.one_hot(np.arange(6).reshape(3, 2) % 4, 4)
    options = {"from_logits": form == "logits", "fused": form == "fused"}
    value, dx = cross_entropy(dtype, p, target, label_smoothing=0.2, **options)
    smooth = (0.8 * target + 0.05).astype(dtype)
    expected, gradient = cross_entropy(dtype, p, smooth, **options)
    assert value == pytest.approx(expected, rel=tolerance(dtype, 1e-6))
    close(dx, gradient, dtype)


def binary(dtype, p, target, weight=None, gap=0, **options):
    n, pixels, channels = p.shape
    slots = {
        0: Tensor(p, dtype, channels + gap), 1: Tensor(target, dtype), 2: scalar(), 3: scratch(),
        4: empty(p.shape, dtype, channels + gap),
    }  # fmt: skip
    if weight is not None:
        slots[5] = Tensor(weight[:, None], dtype)
    run(
        native.BinaryCrossEntropy(
            pixels=pixels, channels=channels, p=0, p_stride=channels + gap, targets=1, loss=2,
            scratch=3, dx=4, dx_stride=channels + gap, weight=-1 if weight is None else 5,
            **options,
        ),
        slots, n,
    )  # fmt: skip
    return slots[2].values.item(), slots[4].values


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("form", ["fused", "probabilities", "logits"])
def test_binary_cross_entropy(dtype, channels, gap, form):
    shape = 3, 200, channels
    logits = (3 * randoms(shape)).astype(dtype)
    target = np.abs(randoms(shape, 1)).clip(0, 1).round(1).astype(dtype)
    weight = np.array([1.0, 0.0, 2.5])
    p = 1 / (1 + np.exp(-logits.astype(float)))
    if form != "logits":
        p = p.astype(dtype).astype(float)
    value, dx = binary(
        dtype, logits if form == "logits" else p, target, weight, gap, scale=0.5,
        label_smoothing=0.1, from_logits=form == "logits", fused=form == "fused",
    )  # fmt: skip
    t, share = 0.9 * target.astype(float) + 0.05, weight[:, None, None] / p.size
    expected = -(share * (t * np.log(p) + (1 - t) * np.log(1 - p))).sum()
    assert value == pytest.approx(expected, rel=tolerance(dtype, 1e-5))
    slope = (p - t) / (p * (1 - p)) if form == "probabilities" else p - t
    np.testing.assert_allclose(
        dx, 0.5 * share * slope, rtol=tolerance(dtype, 1e-4), atol=tolerance(dtype, 1e-6)
    )


def test_binary_cross_entropy_at_its_ends(dtype):
    p = np.array([[[0.0], [1.0]]])
    t = np.array([[[1.0], [0.0]]])
    value, dx = binary(dtype, p, t, from_logits=False)
    assert value == pytest.approx(-np.log(1e-7), rel=1e-6)
    assert (dx == 0).all()
    assert binary(dtype, p, 1 - t, from_logits=False)[0] == pytest.approx(
        -np.log1p(-1e-7), rel=1e-3
    )
    value, dx = binary(dtype, np.array([[[-1e30], [1e30]]]), t, from_logits=True)
    assert value == pytest.approx(1e30)
    np.testing.assert_array_equal(dx.ravel(), [-0.5, 0.5])
    for form in ({"from_logits": False}, {"from_logits": False, "fused": True},
                 {"from_logits": True}):  # fmt: skip
        value, dx = binary(dtype, np.array([[[np.nan], [0.5]]]), t, **form)
        assert np.isnan(value)
        assert np.isnan(dx[0, 0, 0])
    with pytest.raises(ValueError, match="fused"):
        binary(dtype, p, t, from_logits=True, fused=True)


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("weighted", [True, False])
def test_mean_squared_error(dtype, channels, gap, weighted):
    n, pixels = 3, 700
    y, t = (randoms((n, pixels, channels), seed).astype(dtype) for seed in (0, 1))
    weight = np.array([1.0, 3.0, 0.25]) if weighted else np.ones(3)
    slots = {
        0: Tensor(y, dtype, channels + gap), 1: Tensor(t, dtype), 2: scalar(), 3: scratch(),
        4: empty(y.shape, dtype, channels + gap),
    }  # fmt: skip
    if weighted:
        slots[5] = Tensor(weight[:, None], dtype)
    run(
        native.MeanSquaredError(
            pixels=pixels, channels=channels, y=0, y_stride=channels + gap, targets=1, loss=2,
            scratch=3, dx=4, dx_stride=channels + gap, scale=0.5, weight=5 if weighted else -1,
        ),
        slots, n,
    )  # fmt: skip
    spread = weight[:, None, None]
    expected = (spread * (y.astype(float) - t) ** 2).mean()
    assert slots[2].values.item() == pytest.approx(expected, rel=tolerance(dtype, 1e-6))
    close(slots[4].values, spread * (y.astype(float) - t) / y.size, dtype)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("gap", [0, 2])
def test_hits(dtype, rows, gap):
    n, classes = 40, 5
    y = randoms((n, rows, classes)).astype(dtype)
    y[0, 0] = [1, 3, 3, 0, 3]  # the first one counts
    y[1, 0] = [1, np.nan, 7, np.nan, 0]
    labels = np.random.default_rng(1).integers(0, classes, (n, rows))
    labels[0, 0] = labels[1, 0] = 1
    expected = (y.argmax(-1) == labels).sum()
    stride = classes + gap
    for step, target in (
        (native.SparseAccuracy, Tensor(labels[..., None], np.int32)),
        (native.CategoricalAccuracy, Tensor(reference.one_hot(labels, classes), dtype)),
    ):
        total = scalar(100.0)
        run(
            step(rows_per_sample=rows, classes=classes, y=0, y_stride=stride, targets=1, total=2),
            {0: Tensor(y, dtype, stride), 1: target, 2: total}, n,
        )  # fmt: skip
        assert total.values.item() == 100 + expected


@pytest.mark.parametrize("classes", [1, 4])
def test_binary_hits(dtype, classes):
    y = np.array([0.2, 0.5, 0.7, 0.9, 0.1, np.nan, 0.6, 0.51]).reshape(-1, 1, classes)
    t = np.array([0.0, 0, 1, 0, 0, 1, 1, 0]).reshape(y.shape)
    total = scalar(0.0)
    run(native.BinaryAccuracy(1, classes, y=0, y_stride=classes, targets=1, total=2),
        {0: Tensor(y, dtype), 1: Tensor(t, dtype), 2: total}, len(y))  # fmt: skip
    assert total.values.item() == 5 / classes


def test_threads_change_no_bit(dtype):
    n, rows, classes = 3, 1111, 21
    p = randoms((n, rows, classes)).astype(dtype)
    labels = np.random.default_rng(1).integers(0, classes, (n, rows))
    target = reference.softmax(randoms(p.shape, 2))

    def outputs():
        results = []
        for t in (labels, target):
            value, dx = cross_entropy(dtype, p, t, from_logits=True)
            results += [np.float64(value), dx]
        loss, dx = scalar(), empty(p.shape, dtype)
        run(
            native.MeanSquaredError(
                pixels=rows, channels=classes, y=0, y_stride=classes, targets=1, loss=2, scratch=3,
                dx=4,
            ),
            {0: Tensor(p, dtype), 1: Tensor(target, dtype), 2: loss, 3: scratch(), 4: dx}, n,
        )  # fmt: skip
        return [*results, loss.all, dx.all]

    same_for_all_teams(outputs)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="fused"):
        native.SparseCrossEntropy(1, 3, True, 0, 3, 1, 2, 3, fused=True)
    with pytest.raises(ValueError, match="p_stride"):
        native.SparseCrossEntropy(1, 3, True, 0, 2, 1, 2, 3)
    with pytest.raises(ValueError, match="different"):
        native.SparseCrossEntropy(1, 3, False, 0, 3, 1, 2, 3, dx=0)

"""Layers and models called on arrays compute at once, as in Keras' documentation."""

import copy

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers

X = np.random.default_rng(0).standard_normal((5, 8, 7, 3)).astype(np.float32)


def test_a_layer_on_an_array():
    conv = layers.Conv2D(4, 3, activation="relu")
    y = conv(X)
    kernel, bias = conv.get_weights()
    assert kernel.shape == (3, 3, 3, 4)
    want = np.maximum(fc.functional.conv2d(X, kernel, bias), 0)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(conv(X), y)
    np.testing.assert_array_equal(conv(X[:2, :6]), y[:2, :4])  # another shape, the same weights
    assert conv(X.astype(np.uint8)).dtype == np.float32
    with pytest.raises(ValueError, match="not part of a model"):
        _ = conv.output  # looking is no use
    assert layers.Dense(2)([[1, 2, 3]]).shape == (1, 2)


def test_several_inputs():
    np.testing.assert_array_equal(layers.Add()([X, X]), X + X)
    assert layers.Concatenate()([X, X]).shape == (5, 8, 7, 6)
    assert layers.Concatenate(axis=1)([X, X]).shape == (5, 16, 7, 3)


def test_training_is_what_training_does():
    drop = layers.Dropout(0.5)
    np.testing.assert_array_equal(drop(X), X)
    fc.set_random_seed(0)
    first, second = drop(X, training=True), drop(X, training=True)
    assert (first == 0).mean() == pytest.approx(0.5, abs=0.1)
    assert (first != second).any()
    fc.set_random_seed(0)
    np.testing.assert_array_equal(drop(X, training=True), first)
    norm = layers.BatchNormalization()
    np.testing.assert_allclose(norm(X, training=True).mean(axis=(0, 1, 2)), 0, atol=1e-5)
    assert (norm.moving_mean.value != 0).all()


def test_random_numbers_are_spent_on_weights_alone():
    def weights(look):
        fc.set_random_seed(3)
        layer = layers.Dense(2)
        look(layer)
        return layers.Dense(2)(X), fc.backend.next_seed()

    seen, unseen = (
        weights(lambda layer: layer(X)),
        weights(lambda layer: layer(fc.Input((8, 7, 3)))),
    )
    np.testing.assert_array_equal(seen[0], unseen[0])
    assert seen[1] == unseen[1]


def test_a_model_on_an_array():
    x = fc.Input((8, 7, 3))
    y = layers.Flatten()(layers.Dropout(0.5)(layers.Conv2D(4, 3)(x)))
    model = fc.Model(x, [y, layers.Dense(2)(y)])
    for found, want in zip(model(X), model.predict(X), strict=True):
        np.testing.assert_array_equal(found, want)
    assert (model(X, training=True)[0] == 0).any()
    with pytest.raises(ValueError, match="not on both"):
        model([X, x])
    lazy = fc.Sequential([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    assert lazy(X).shape == (5, 4)
    assert lazy.built


def test_a_layer_that_has_looked_is_copied_and_used():
    conv = layers.Conv2D(2, 3)
    y = conv(X)
    np.testing.assert_array_equal(copy.deepcopy(conv)(X), y)
    model = fc.Sequential([layers.Input((8, 7, 3)), conv])
    np.testing.assert_array_equal(model.predict(X), y)
    conv.weight.assign(conv.weight.value * 2)
    assert (conv(X) != y).any()
    np.testing.assert_array_equal(conv(X), model.predict(X))

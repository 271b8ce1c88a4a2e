"""Depthwise and transposed convolutions as layers: names, sizes, files, what they refuse."""

import numpy as np
import pytest
import reference

import fastconv as fc
from fastconv import algorithms, layers
from fastconv._native import dispatch


def model_of(layer, shape):
    x = fc.Input(shape)
    return fc.Model(x, layer(x))


def sample(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def test_depthwise_against_the_textbook():
    layer = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)
    model, x = model_of(layer, (9, 8, 5)), sample(2, 9, 8, 5)
    weight, bias = layer.get_weights()
    assert (weight.shape, bias.shape) == ((3, 3, 5, 2), (10,))
    want = reference.depthwise_conv(x, weight, bias, strides=2, padding="same")
    np.testing.assert_allclose(model.predict(x), want, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"kernel_size": 2, "strides": 2}, (6, 8)),
        ({"kernel_size": 3}, (5, 6)),
        ({"kernel_size": 3, "strides": 2}, (7, 9)),
        ({"kernel_size": 2, "strides": 3}, (9, 12)),
        ({"kernel_size": 3, "strides": 2, "padding": "same"}, (6, 8)),
        ({"kernel_size": 4, "strides": 2, "padding": "same"}, (6, 8)),
        ({"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 0}, (5, 7)),
        ({"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1}, (6, 8)),
        ({"kernel_size": 4, "strides": 2, "padding": "same", "output_padding": 1}, (5, 7)),
        ({"kernel_size": 3, "strides": 2, "output_padding": (1, 0)}, (8, 9)),
        ({"kernel_size": 3, "dilation_rate": 2, "padding": "same"}, (3, 4)),
        ({"kernel_size": 3, "dilation_rate": 2}, (7, 8)),
    ],
    ids=str,
)
def test_sizes_of_transposed_convolutions_are_keras(arguments, size):
    layer = layers.Conv2DTranspose(5, **arguments)
    assert layer.output_shape((3, 4, 2)) == (*size, 5)
    assert layer.output_shape((None, 4, 2)) == (None, size[1], 5)
    model, x = model_of(layer, (3, 4, 2)), sample(2, 3, 4, 2)
    layer.bias.value[...] = np.arange(5)
    options = {k: v for k, v in arguments.items() if k not in ("kernel_size", "dilation_rate")}
    options["dilation"] = arguments.get("dilation_rate", 1)
    want = reference.conv_transpose(x, *layer.get_weights(), **options)
    np.testing.assert_allclose(model.predict(x), want, atol=1e-5)


def test_a_convolution_of_as_many_groups_as_channels_is_depthwise():
    """The same bits as the layer of that name, with the weights in the other order of axes."""
    one = layers.Conv2D(17, 3, groups=17, padding="same", activation="relu")
    other = layers.DepthwiseConv2D(3, padding="same", activation="relu")
    models, x = [model_of(layer, (9, 8, 17)) for layer in (one, other)], sample(2, 9, 8, 17)
    other.set_weights([np.moveaxis(one.get_weights()[0], 2, 3), one.get_weights()[1]])
    results = []
    for model in models:
        y, handle = model.forward(x, training=True)
        dx = model.backward(handle, np.cos(y))
        results.append([y, dx, *(p.grad.ravel() for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a, b)


def test_the_algorithm_follows_the_shape():
    def of(layer, shape):
        value = type("", (), {"shape": shape, "channels": shape[-1]})
        layer.output_shape(shape)
        return algorithms.convolution(layer.geometry(value, shape[-1], layer.split(shape[-1])[0]))

    assert of(layers.DepthwiseConv2D(3), (8, 8, 32)) == "depthwise"
    assert of(layers.Conv2D(32, 3, groups=32), (8, 8, 32)) == "depthwise"
    assert of(layers.DepthwiseConv2D(3), (8, 8, 1)) == "direct"
    assert of(layers.Conv2D(32, 3, groups=16), (8, 8, 32)) == "direct"


def generator():
    x = fc.Input((6, 7, 3))
    y = layers.Conv2DTranspose(20, 4, strides=2, padding="same", activation="leaky_relu")(x)
    y = layers.DepthwiseConv2D(3, strides=2, activation="relu")(y)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(y)
    return fc.Model(x, layers.Conv2DTranspose(3, 2, strides=2, activation="tanh")(y))


def test_the_same_bits_on_any_number_of_threads():
    model, x = generator(), sample(40, 6, 7, 3)
    before, seen = dispatch.num_threads(), set()
    try:
        for threads in (1, 2, 3, 7, 16):
            fc.set_num_threads(threads)
            y, handle = model.forward(x, training=True)
            dx = model.backward(handle, np.cos(y))
            seen.add(b"".join(a.tobytes() for a in (y, dx, *(p.grad for p in model.parameters()))))
    finally:
        dispatch.set_num_threads(before)
    assert len(seen) == 1


def test_saved_and_loaded(tmp_path):
    model, x = generator(), sample(2, 6, 7, 3)
    model.save(tmp_path / "m.fastconv")
    again = fc.load_model(tmp_path / "m.fastconv")
    assert np.array_equal(again.predict(x), model.predict(x))
    for a, b in zip(model.layers, again.layers, strict=True):
        assert a.get_config() == b.get_config()


def test_summary_names_them(capsys):
    generator().summary()
    text = capsys.readouterr().out
    assert "Conv2DTranspose" in text
    assert "DepthwiseConv2D" in text
    assert "(None, 12, 14, 20)" in text


@pytest.mark.parametrize(
    ("match", "make"),
    [
        ("depth_multiplier", lambda: layers.DepthwiseConv2D(3, depth_multiplier=0)),
        ("kernel_initializer", lambda: layers.DepthwiseConv2D(3, kernel_initializer="zeros")),
        ("channels_last", lambda: layers.DepthwiseConv2D(3, data_format="first")),
        ("padding", lambda: layers.Conv2DTranspose(3, 3, padding="full")),
        ("padding", lambda: layers.Conv2DTranspose(3, 3, padding=1)),
        ("output_padding", lambda: layers.Conv2DTranspose(3, 3, strides=2, output_padding=2)),
        ("output_padding", lambda: layers.Conv2DTranspose(3, 3, strides=2, output_padding=-1)),
        ("strides", lambda: layers.Conv2DTranspose(3, 3, strides=0)),
        ("does not fit", lambda: layers.DepthwiseConv2D(3)(fc.Input((2, 5, 4)))),
        ("images", lambda: layers.Conv2DTranspose(3, 3)(fc.Input((5, 4)))),
        ("channels", lambda: layers.DepthwiseConv2D(3)(fc.Input((5, 4, None)))),
        ("nothing", lambda: layers.Conv2DTranspose(3, 2, 2, "same", 0)(fc.Input((1, 4, 2)))),
    ],
)  # fmt: skip
def test_refused_with_the_arguments_name(match, make):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("make", [layers.DepthwiseConv2D, lambda k: layers.Conv2DTranspose(4, k)])
def test_a_built_layer_keeps_its_channels(make):
    layer = make(3)
    layer(fc.Input((5, 5, 4)))
    with pytest.raises(ValueError, match="built for 4 channels"):
        layer(fc.Input((5, 5, 6)))

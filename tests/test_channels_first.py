"""Images that are shown channels first: what Keras' ``data_format`` says, on kernels that read
channels last. A network and its twin in the other order are the same bits."""

import numpy as np
import onnxruntime
import pytest

import fastconv as fc
from fastconv import backend, layers, visualize
from fastconv.layout import ChannelsFirst, ChannelsLast

rng = np.random.default_rng(0)
X = rng.random((12, 8, 10, 3)).astype(np.float32)
Y = rng.integers(0, 4, 12)


@pytest.fixture
def channels_first():
    backend.set_image_data_format("channels_first")
    yield
    backend.set_image_data_format("channels_last")


def chain(shape):
    axis = 1 if backend.image_data_format() == "channels_first" else -1
    return fc.Sequential([
        layers.Input(shape),
        layers.Rescaling(2.0, -1.0),
        layers.Conv2D(6, 3, padding="same", activation="relu"),
        layers.BatchNormalization(axis=axis),
        layers.MaxPooling2D(2),
        layers.DepthwiseConv2D(3, activation="tanh"),
        layers.Dropout(0.2),
        layers.Flatten(),
        layers.Dense(4, activation="softmax"),
    ])  # fmt: skip


def joined(shape):
    axis = 1 if backend.image_data_format() == "channels_first" else -1
    x = layers.Input(shape)
    a = layers.Conv2D(4, 3, padding="same")(x)
    b = layers.LeakyReLU()(layers.Conv2D(4, 1)(x))
    y = layers.Concatenate(axis=axis)([layers.Add()([a, b]), a, x])
    y = layers.Conv2DTranspose(5, 2, strides=2)(layers.ZeroPadding2D(1)(y))
    y = layers.ELU()(layers.BatchNormalization(axis=axis)(y))
    y = layers.GlobalAveragePooling2D()(y)
    return fc.Model(x, layers.Dense(4, activation="softmax")(y))


def twins(make):
    """A network in both orders, with the same weights."""
    backend.set_image_data_format("channels_last")
    last = make(X.shape[1:])
    backend.set_image_data_format("channels_first")
    first = make((3, 8, 10))
    first.set_weights(last.get_weights())
    first.seed = last.seed = 7
    return last, first


def moved(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


@pytest.mark.parametrize("make", [chain, joined])
def test_the_same_bits_as_channels_last(make, channels_first):
    last, first = twins(make)
    assert first.input_shape == (None, 3, 8, 10)
    np.testing.assert_array_equal(first.predict(moved(X)), last.predict(X))
    losses = []
    for model, x in ((last, X), (first, moved(X))):
        model.compile(fc.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        losses.append(model.fit(x, Y, epochs=2, shuffle=False, verbose=0).history["loss"])
    assert losses[0] == losses[1]
    for a, b in zip(last.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_script_sees(channels_first, capsys):
    model = chain((3, 8, 10))
    assert [type(layer).__name__ for layer in model.layers][:2] == ["Rescaling", "Conv2D"]
    assert len(model.layers) == 8
    assert model.layers[1].output.shape == (None, 6, 8, 10)
    assert model.layers[3].output.shape == (None, 6, 4, 5)
    model.summary()
    text = capsys.readouterr().out
    assert "(None, 6, 8, 10)" in text
    assert "Channels" not in text
    assert "Reads" not in text
    maps = fc.Model(model.input, model.layers[1].output)
    assert maps.output_shape == (None, 6, 8, 10)
    assert maps.predict(moved(X)).shape == (12, 6, 8, 10)


@pytest.mark.parametrize("make", [chain, joined])
def test_one_transpose_on_the_way_in(make, channels_first):
    model = make((3, 8, 10))
    moves = [n for n in model.graph.layers if isinstance(n, (ChannelsFirst, ChannelsLast))]
    assert [type(layer) for layer in moves] == [ChannelsLast]


@pytest.mark.parametrize("make", [chain, joined])
def test_saved_copied_and_described(make, channels_first, tmp_path):
    model = make((3, 8, 10))
    x, want = moved(X), model.predict(moved(X))
    model.save(tmp_path / "m.fc")
    backend.set_image_data_format("channels_last")  # a file says how its layers see images
    for found in (
        fc.load_model(tmp_path / "m.fc"),
        fc.models.clone_model(model),
        fc.models.model_from_json(model.to_json()),
    ):
        found.set_weights(model.get_weights())
        np.testing.assert_array_equal(found.predict(x), want)
        assert found.count_params() == model.count_params()
        assert len(found.layers) == len(model.layers)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("make", [chain, joined])
def test_files_take_images_in_the_order_asked_for(make, layout, channels_first, tmp_path):
    model = make((3, 8, 10))
    report = model.export(tmp_path / "m.onnx", input_layout=layout)
    assert report.largest_error <= report.tolerance
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (entry,) = session.get_inputs()
    x = moved(X) if layout == "NCHW" else X
    assert entry.shape == ["batch", *x.shape[1:]]
    (found,) = session.run(None, {entry.name: x})
    np.testing.assert_allclose(found, model.predict(moved(X)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_maps_go_out_as_they_are_shown(layout, channels_first, tmp_path):
    x = layers.Input((3, None, None))
    y = layers.Softmax(axis=1)(layers.Conv2D(5, 3, padding="same")(x))
    model = fc.Model(x, [y, layers.MaxPooling2D(2)(y)])
    assert model.output_shape == [(None, 5, None, None)] * 2
    p, pooled = model.predict(moved(X))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert pooled.shape == (12, 5, 4, 5)
    model.export(tmp_path / "m.onnx", input_layout=layout)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (entry,) = session.get_inputs()
    sizes = ["height", "width"]
    assert entry.shape == ["batch", *([3, *sizes] if layout == "NCHW" else [*sizes, 3])]
    given = moved(X) if layout == "NCHW" else X
    for found, want in zip(session.run(None, {entry.name: given}), (p, pooled), strict=True):
        want = want if layout == "NCHW" else np.moveaxis(want, 1, -1)
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)


def test_layers_of_both_orders_in_one_network():
    """Told layer by layer; an array comes out as the last one shows it."""
    x = layers.Input((3, 8, 10))
    first = layers.Conv2D(4, 3, data_format="channels_first", padding="same")
    y = first(x)
    assert y.shape == (None, 4, 8, 10)
    z = layers.Conv2D(2, 1, data_format="channels_last")(y)  # sees 4 rows of 8 pixels
    assert z.shape == (None, 4, 8, 2)
    model = fc.Model(x, [y, z])
    maps, found = model.predict(moved(X))
    kernel, bias = model.layers[2].get_weights()
    want = np.einsum("nchw,wk->nchk", maps, kernel[0, 0]) + bias
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    dense = fc.Model(x, layers.Dense(7)(y))  # over the width, as it is shown
    assert dense.output_shape == (None, 4, 8, 7)
    assert dense.layers[-1].get_weights()[0].shape == (10, 7)


@pytest.mark.parametrize(("axis", "place"), [(1, 1), (2, 2), (3, 3), (-1, 3), (-3, 1)])
def test_concatenation_along_any_axis(axis, place, channels_first):
    x = layers.Input((3, 8, 10))
    a, b = layers.Conv2D(3, 1)(x), layers.MaxPooling2D(1)(x)
    model = fc.Model(x, [a, b, layers.Concatenate(axis=axis)([a, b])])
    a, b, both = model.predict(moved(X))
    np.testing.assert_array_equal(both, np.concatenate([a, b], axis=place))


def test_flatten_takes_pixels_first_as_in_keras(channels_first):
    x = layers.Input((3, 8, 10))
    model = fc.Model(x, layers.Flatten()(x))
    np.testing.assert_array_equal(model.predict(moved(X)), X.reshape(12, -1))
    plain = fc.Model(x, layers.Flatten(data_format="channels_last")(x))
    np.testing.assert_array_equal(plain.predict(moved(X)), moved(X).reshape(12, -1))


def test_norms_over_any_channels(channels_first):
    """axis says what the channels are, whatever the other layers think."""
    x = layers.Input((3, 8, 10))
    for axis, size in ((1, 3), (3, 10), (-1, 10)):
        norm = layers.BatchNormalization(axis=axis)
        model = fc.Model(x, norm(x))
        assert norm.moving_mean.shape == (size,)
        y, _ = model.forward(moved(X), training=True)
        others = tuple(i for i in range(4) if i != axis % 4)
        np.testing.assert_allclose(y.mean(axis=others), 0, atol=1e-5)
    with pytest.raises(ValueError, match="axis 2"):
        layers.BatchNormalization(axis=2)(x)


def test_gradients_at_the_input(channels_first):
    last, first = twins(joined)
    y, handle = last.forward(X)
    dx = last.backward(handle, y)
    y, handle = first.forward(moved(X))
    np.testing.assert_array_equal(first.backward(handle, y), moved(dx))


def test_models_within_models(channels_first):
    base = joined((3, 8, 10))
    features = fc.Model(base.input, base.layers[1].output, name="features")
    model = fc.Sequential([features, layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(4)])
    assert model.layers[0].name == "features"
    assert model.output_shape == (None, 4)
    assert model.predict(moved(X)).shape == (12, 4)


def test_applications_follow(channels_first):
    for make in (fc.applications.ResNet20, fc.applications.CifarVGG):
        backend.set_image_data_format("channels_last")
        last = make((32, 32, 3), 5)
        backend.set_image_data_format("channels_first")
        first = make((3, 32, 32), 5)
        first.set_weights(last.get_weights())
        x = np.random.default_rng(1).random((2, 32, 32, 3))
        np.testing.assert_array_equal(first.predict(moved(x)), last.predict(x))


@pytest.mark.parametrize("look", ["saliency_map", "grad_cam_map", "occlusion_map"])
def test_pictures_are_the_same(look, channels_first):
    last, first = twins(chain)
    found = getattr(visualize, look)(first, moved(X[:2]))
    np.testing.assert_allclose(found, getattr(visualize, look)(last, X[:2]), rtol=0, atol=1e-6)


def test_maps_and_excitations_are_drawn(channels_first):
    last, first = twins(chain)
    name = first.layers[1].name
    assert visualize.feature_maps(first, moved(X[:1])).axes
    images, _ = visualize.maximized_inputs(first, name, [0, 1], steps=3)
    want, _ = visualize.maximized_inputs(last, last.layers[1].name, [0, 1], steps=3)
    np.testing.assert_array_equal(images, want)


def test_layers_that_prepare_images(channels_first):
    for make in (
        lambda: layers.RandomFlip("vertical", seed=1),
        lambda: layers.RandomTranslation(0.3, 0.2, seed=1),
        lambda: layers.CenterCrop(4, 6),
        lambda: layers.Resizing(5, 5),
    ):
        first = make()
        assert first.channels_first
        backend.set_image_data_format("channels_last")
        np.testing.assert_array_equal(first(moved(X)), moved(make()(X)))
        backend.set_image_data_format("channels_first")
        x = layers.Input((3, 8, 10))
        model = fc.Model(x, make()(x))
        np.testing.assert_array_equal(model.predict(moved(X)), make()(moved(X), training=False))
    conv = layers.SeparableConv2D(4, 3, depth_multiplier=2)
    assert conv(moved(X)).shape == (12, 4, 6, 8)


def test_pictures_from_files(channels_first, tmp_path):
    pixels = (255 * X[0]).astype(np.uint8)
    fc.utils.save_img(tmp_path / "a.png", moved(pixels[None])[0], scale=False)
    image = fc.utils.load_img(tmp_path / "a.png")
    np.testing.assert_array_equal(fc.utils.img_to_array(image), moved(pixels[None])[0])
    folder = tmp_path / "folder" / "one"
    folder.mkdir(parents=True)
    image.save(folder / "a.png")
    data = fc.utils.image_dataset_from_directory(folder.parent, image_size=(8, 10), verbose=False)
    batch, _ = next(iter(data))
    np.testing.assert_array_equal(batch, moved(pixels[None]))


def test_what_is_refused():
    with pytest.raises(ValueError, match="channels_middle"):
        layers.Conv2D(3, 3, data_format="channels_middle")
    with pytest.raises(ValueError, match="channels_middle"):
        backend.set_image_data_format("channels_middle")
    with pytest.raises(ValueError, match=r"Softmax\(axis=1\)"):
        layers.Conv2D(3, 1, data_format="channels_first", activation="softmax")
    x = layers.Input((3, 8, 10))
    conv = layers.Conv2D(4, 3, data_format="channels_first")
    model = fc.Model(x, conv(x))
    with pytest.raises(ValueError, match="shape"):
        model.predict(X)
    with pytest.raises(ValueError, match="channels"):
        conv(layers.Input((8, 8, 10)))

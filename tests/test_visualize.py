"""Pictures of networks: the numbers behind them, what the figures show, and what is refused."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import fastconv as fc
from fastconv import backend, callbacks, layers, lettering, own, plots, visualize
from fastconv.visualize import _excitation

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def double():
    fc.set_floatx("float64")
    yield
    fc.set_floatx("float32")


def network(end="softmax", shape=(6, 5, 2)):
    """A convolution, a norm, pooling and three classes; without kinks."""
    return fc.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(4, 3, padding="same", activation="tanh", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(3, 3, activation="tanh", name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(3, activation=end, name="classes"),
        ]
    )


def disturb(model, rng):
    """Weights and statistics that are not those of a beginning."""
    for parameter in model.parameters():
        parameter.value[...] += 0.3 * rng.random(parameter.shape)


def images_in(figure):
    return [np.asarray(a.images[0].get_array()) for a in figure.axes if a.images and a.axison]


def digit(shape=(12, 12), at=(3, 5)):
    x = np.zeros((1, *shape, 1), np.float32)
    x[0, at[0] : at[0] + 3, at[1] : at[1] + 3] = 1
    return x


# ---- saliency --------------------------------------------------------------------------------


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("classes", [None, 1, [2, 0]])
def test_saliency_is_the_slope_of_the_score(rng, classes):
    model, logits = network("softmax"), network(None)
    disturb(model, rng)
    logits.set_weights(model.get_weights())
    x = rng.standard_normal((2, 6, 5, 2))
    found = visualize.saliency_map(model, x, classes)
    wanted = model.predict(x).argmax(1) if classes is None else np.broadcast_to(classes, 2)
    measured = np.empty_like(x)
    for place in np.ndindex(6, 5, 2):
        step = np.zeros_like(x)
        step[(slice(None), *place)] = 1e-5
        slope = (logits.predict(x + step) - logits.predict(x - step)) / 2e-5
        measured[(slice(None), *place)] = slope[np.arange(2), wanted]
    np.testing.assert_allclose(found, np.abs(measured).max(-1), rtol=1e-6, atol=1e-9)


def test_smoothgrad_is_the_mean_of_gradients_with_noise(rng):
    model = network()
    x = rng.random((3, 6, 5, 2)).astype(np.float32)
    plain = visualize.saliency_map(model, x, 0)
    without = visualize.saliency_map(model, x, 0, samples=3, noise=0)
    np.testing.assert_allclose(without, plain, rtol=1e-5)
    noisy = visualize.saliency_map(model, x, 0, samples=3)
    assert np.array_equal(noisy, visualize.saliency_map(model, x, 0, samples=3))
    assert not np.allclose(noisy, plain)


def test_looking_changes_nothing(rng):
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = rng.random((8, 6, 5, 2)), np.arange(8) % 3
    model.fit(x, y, verbose=0)
    gradients = [p.grad.copy() for p in model.parameters()]
    before, state = model.fingerprint(), backend.random_state()
    number = int(layers.ELU().name.partition("_")[2] or 0)
    visualize.saliency(model, x)
    visualize.grad_cam(model, x)
    visualize.occlusion(model, x[:2])
    visualize.feature_maps(model, x[:1])
    visualize.maximize_activation(model, "second", steps=2)
    assert model.fingerprint() == before
    assert backend.random_state() == state
    assert layers.ELU().name == f"elu_{number + 1}"  # names are counted as without
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert np.array_equal(gradient, parameter.grad)
    assert all(layer.trainable for layer in model.layers)


# ---- Grad-CAM --------------------------------------------------------------------------------


def known_network(around=False):
    """relu(x · [2, −1]) of one channel, the mean of each, two classes with known weights."""
    inputs = layers.Input((4, 4, 1))
    maps = layers.Conv2D(2, 1, activation="relu", use_bias=False, name="maps")(inputs)
    y = layers.GlobalAveragePooling2D()(maps)
    if around:
        y = layers.Concatenate()([y, layers.GlobalAveragePooling2D()(inputs)])
    model = fc.Model(inputs, layers.Dense(2, use_bias=False, activation="softmax", name="d")(y))
    model.get_layer("maps").set_weights([np.array([2.0, -1.0]).reshape(1, 1, 1, 2)])
    weight = np.array([[3.0, -1.0], [-2.0, 5.0], [7.0, 7.0]])
    model.get_layer("d").set_weights([weight[: 3 if around else 2]])
    return model


@pytest.mark.parametrize("around", [False, True])
def test_grad_cam_of_a_network_whose_answer_is_known(rng, around):
    x = rng.standard_normal((3, 4, 4, 1)).astype(np.float32)
    plus, minus = np.maximum(2 * x[..., 0], 0), np.maximum(-x[..., 0], 0)
    found = visualize.grad_cam_map(known_network(around), x, classes=[0, 1, 0], layer="maps")
    first, second = (3 * plus - 2 * minus) / 16, (-plus + 5 * minus) / 16
    wanted = np.maximum([first[0], second[1], first[2]], 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    model = known_network(around)  # of means: every place has the same gradient
    each = visualize.grad_cam_map(model, x, [0, 1, 0], "maps", averaged=False)
    np.testing.assert_allclose(each, wanted, rtol=1e-5, atol=1e-6)


def test_places_weighed_alone_add_up_to_the_score_of_a_network_that_flattens(rng):
    model = fc.Sequential(
        [
            layers.Input((5, 4, 2)),
            layers.Conv2D(3, 3, padding="same", activation="relu", name="maps"),
            layers.Flatten(),
            layers.Dense(2, use_bias=False, name="scores"),
        ]
    )
    x = rng.standard_normal((4, 5, 4, 2)).astype(np.float32)
    maps = fc.Model(model.inputs, model.get_layer("maps").output).predict(x)
    weight = model.get_layer("scores").weight.value.reshape(5, 4, 3, 2)
    terms = (maps[..., None] * weight).sum(axis=3)
    np.testing.assert_allclose(terms.sum(axis=(1, 2)), model.predict(x), rtol=1e-4, atol=1e-5)
    for label in (0, 1):
        found = visualize.grad_cam_map(model, x, label, averaged=False)
        np.testing.assert_allclose(found, np.maximum(terms[..., label], 0), rtol=1e-4, atol=1e-6)
    figure = visualize.grad_cam(model, x, averaged=False)
    assert figure.get_suptitle().startswith("HiResCAM at maps")


def test_grad_cam_takes_the_last_maps_and_any_layer(rng):
    model = known_network()
    x = rng.standard_normal((2, 4, 4, 1)).astype(np.float32)
    by_default = visualize.grad_cam_map(model, x)
    for layer in ("maps", 1, model.get_layer("maps"), model.get_layer("maps").output):
        assert np.array_equal(visualize.grad_cam_map(model, x, layer=layer), by_default)
    pooled = fc.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(3, 3, name="c"),
            layers.ReLU(name="r"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    figure = visualize.grad_cam(pooled, rng.random((1, 8, 8, 1)))
    assert "at r:" in figure.get_suptitle()


def test_models_within_models_and_layers_of_ones_own(rng):
    class Halved(own.NumpyLayer):
        def build(self, shape):
            self.g = self.add_parameter("g", (1,), fc.initializers.get("ones"))

        def call(self, x):
            return self.g.value * x / 2

        def gradient(self, x, y, dy):
            self.g.grad += (dy * x / 2).sum()
            return self.g.value * dy / 2

    body = fc.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3, name="inner"), Halved()])
    inputs = layers.Input((6, 6, 3))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(body(inputs)))
    model = fc.Model(inputs, outputs)
    x = rng.random((2, 6, 6, 3)).astype(np.float32)
    half = visualize.grad_cam_map(model, x, layer=body)
    inner = visualize.grad_cam_map(model, x, layer="inner")
    np.testing.assert_allclose(half, inner, rtol=1e-5)  # A/2 has twice the slope
    halved = body.layers[-1]
    assert not halved.g.grad.any()


# ---- occlusion -------------------------------------------------------------------------------


def summing_network(shape=(12, 12)):
    """The sum of all pixels, and a second class that is always 0."""
    model = fc.Sequential([layers.Input((*shape, 1)), layers.Flatten(), layers.Dense(2)])
    weight = np.zeros((shape[0] * shape[1], 2))
    weight[:, 0] = 1
    model.set_weights([weight, np.zeros(2)])
    return model


def test_occlusion_falls_where_the_object_is():
    model, x = summing_network(), digit()
    exact = visualize.occlusion_map(model, x, 0, size=1, stride=1)
    np.testing.assert_allclose(exact, x[..., 0], atol=1e-5)  # a pixel hidden is what it was
    blurred = visualize.occlusion_map(model, x, size=3)[0]
    assert np.unravel_index(blurred.argmax(), blurred.shape) in {(4, 6)}
    assert not blurred[9:].any()
    assert not blurred[:, :2].any()
    assert not visualize.occlusion_map(model, x, 1).any()


def test_occlusion_reaches_every_edge_and_fills_as_told():
    model, x = summing_network((7, 5)), np.ones((1, 7, 5, 1), np.uint8)
    filled = visualize.occlusion_map(model, x, 0, size=(3, 2), stride=2, value=0)
    np.testing.assert_allclose(filled, np.full((1, 7, 5), 6.0), rtol=1e-6)
    assert not visualize.occlusion_map(model, x, 0).any()  # the median of ones is one


# ---- what excites ----------------------------------------------------------------------------


def test_what_excites_a_linear_channel_is_its_weight():
    model = fc.Sequential(
        [layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, activation="softmax")]
    )
    weight = np.sign(np.random.default_rng(0).standard_normal((16, 2)))
    model.set_weights([weight, np.zeros(2)])
    images, values = visualize.maximized_inputs(model, -1, jitter=0, decay=0, smooth=0)
    np.testing.assert_array_equal(images.reshape(2, 16).T, weight > 0)
    np.testing.assert_allclose(values, (weight > 0).sum(0))


def test_ascent_ascends(rng):
    model = network("relu")
    start = visualize.maximized_inputs(model, "second", [0, 2], steps=0)[1]
    images, values = visualize.maximized_inputs(model, "second", [0, 2], steps=40)
    assert images.shape == (2, 6, 5, 2)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (values > start).all()
    again = visualize.maximized_inputs(model, "second", [0, 2], steps=40)[0]
    assert np.array_equal(images, again)
    scaled = visualize.maximized_inputs(model, "second", 0, steps=3, value_range=(0, 255))[0]
    assert scaled.max() > 100


@pytest.mark.parametrize("size", [8, 24])
def test_what_excites_is_a_pattern_where_an_even_image_would_excite_most(size):
    model = fc.Sequential(
        [layers.Input((size, size, 1)), layers.Conv2D(2, 3, padding="same", name="sum")]
    )
    weight = np.ones((3, 3, 1, 2)) + np.array([-0.5, 0, 0.5]).reshape(1, 3, 1, 1)
    model.set_weights([weight, np.zeros(2)])
    images, _ = visualize.maximized_inputs(model, "sum")
    assert images.std(axis=(1, 2, 3)).min() > 0.1


def test_gradients_are_smoothed_by_a_gauss_filter(rng):
    filters = pytest.importorskip("scipy.ndimage")
    images = rng.standard_normal((2, 9, 7, 3))
    wanted = filters.gaussian_filter(images, (0, 1.2, 1.2, 0), truncate=2.5, mode="nearest")
    np.testing.assert_allclose(_excitation._smoothed(images, 1.2), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("scale", "offset", "ends"),
    [(1 / 255, 0, (0, 255)), (1 / 127.5, -1, (0, 255)), (1 / 16, 0, (0, 16)), (-2, 0, (-0.5, 0))],
)
def test_what_excites_lies_in_the_range_that_a_rescaling_tells(scale, offset, ends):
    plain = network("softmax", (12, 12, 1))
    inputs = layers.Input((12, 12, 1))
    model = fc.Model(inputs, plain(layers.Rescaling(scale, offset)(inputs)))
    images, _ = visualize.maximized_inputs(model, "classes", steps=40)
    np.testing.assert_allclose([images.min(), images.max()], ends, atol=0.1 * np.ptp(ends))
    drawn = images_in(visualize.maximize_activation(model, "classes", steps=40))
    assert min(image.min() for image in drawn) >= -1e-9
    assert 0.9 < max(image.max() for image in drawn) < 1 + 1e-9
    told = visualize.maximized_inputs(model, "classes", steps=2, value_range=(3, 4))[0]
    assert told.min() >= 3


# ---- confusion and errors --------------------------------------------------------------------


def test_counts_are_those_of_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    true, p = rng.integers(0, 5, 200), rng.random((200, 5))
    wanted = metrics.confusion_matrix(true, p.argmax(1))
    for y in (true, true[:, None], np.eye(5)[true], true.astype(float)):
        assert np.array_equal(visualize.confusion_counts(y, p), wanted)
    assert np.array_equal(visualize.confusion_counts(true, p.argmax(1)), wanted)
    assert np.trace(wanted) == (true == p.argmax(1)).sum()


def test_counts_of_two_classes_and_of_classes_that_do_not_occur():
    counts = visualize.confusion_counts([0, 1, 1, 0], [[0.2], [0.9], [0.4], [0.7]])
    assert counts.tolist() == [[1, 1], [1, 1]]
    assert visualize.confusion_counts([0, 0], [0, 1], classes=3).tolist() == [
        [1, 1, 0], [0, 0, 0], [0, 0, 0]
    ]  # fmt: skip


def test_confusion_matrix_shows_its_counts():
    figure = visualize.confusion_matrix([0, 0, 0, 1, 1], [0, 0, 1, 1, 1], ["cat", "dog"])
    (axes,) = figure.axes
    shown = {t.get_position(): t.get_text() for t in axes.texts}
    assert shown == {(0, 0): "2", (1, 0): "1", (1, 1): "2"}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat", "dog"]
    assert axes.get_title() == "4 of 5 right, 80.00 %"
    drawn = np.asarray(axes.images[0].get_array())
    assert drawn[0, 0] == pytest.approx(2 / 3)
    assert drawn[0, 1] < 0 < drawn[1, 1]
    many = visualize.confusion_matrix(np.arange(40), np.arange(40))
    assert not many.axes[0].texts


def test_wrong_predictions_come_surest_first():
    x = np.zeros((4, 5, 5), np.uint8)
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    figure = visualize.wrong_predictions(x, [1, 1, 1, 0], p, ["cat", "dog"])
    assert [a.get_title() for a in figure.axes] == ["cat: 90 %", "dog: 70 %", "cat: 60 %"]
    assert [a.get_xlabel() for a in figure.axes] == ["is dog", "is cat", "is dog"]
    assert figure.get_suptitle() == "3 of 4 wrong, 75.00 %"
    two = visualize.wrong_predictions(x, [1, 1, 1, 0], p, count=2)
    assert len(two.axes) == 2
    assert "the 2 surest" in two.get_suptitle()
    none = visualize.wrong_predictions(x, [0, 0, 1, 1], p)
    assert (none.axes, none.get_suptitle()) == ([], "0 of 4 wrong, 0.00 %")
    single = visualize.wrong_predictions(x, [1, 0, 0, 1], [[0.1], [0.2], [0.3], [0.7]])
    assert [a.get_title() for a in single.axes] == ["0: 90 %"]


LONG = ["Labrador retriever", "golden retriever, a dog of the British Isles", "costs US$5 or CA$7"]


def words_of(figure):
    """Where the words above and below the pictures lie."""
    figure.draw_without_rendering()
    words = [text for a in figure.axes if a.axison for text in (a.title, a.xaxis.label)]
    return [text.get_window_extent() for text in words if text.get_text()]


@pytest.mark.parametrize(
    "draw",
    [
        lambda m, x, p: visualize.wrong_predictions(x, (p.argmax(1) + 1) % 3, p, LONG),
        lambda m, x, p: visualize.saliency(m, x, class_names=LONG),
        lambda m, x, p: visualize.grad_cam(m, x[:3], 1, class_names=LONG),
        lambda m, x, p: visualize.maximize_activation(m, "classes", steps=1, class_names=LONG),
        lambda m, x, p: plots.plot_predictions(x[..., :1], (p.argmax(1) + 1) % 3, p, LONG),
    ],
    ids=["wrong_predictions", "saliency", "grad_cam", "maximize_activation", "plot_predictions"],
)
def test_long_names_do_not_meet(rng, draw):
    model, x = network(), rng.random((9, 6, 5, 2))
    found = words_of(draw(model, x, model.predict(x)))
    assert len(found) >= 3
    for i, one in enumerate(found):
        assert not [other for other in found[:i] if one.overlaps(other)]


@pytest.mark.parametrize("names", [LONG, ["a", "b", "a name that is longer than the matrix " * 3]])
def test_long_names_leave_a_matrix_its_room(names):
    figure = visualize.confusion_matrix([0, 1, 2], [0, 1, 1], names)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_window_extent().width / figure.dpi > 1.5
    shown = [t.get_text() for t in axes.get_yticklabels()]
    assert shown[0] == names[0]
    assert "…" in "".join(shown)
    assert all(t.get_window_extent().x0 >= 0 for t in axes.get_yticklabels())


def test_words_are_fitted():
    assert lettering.fitted("cat", 1, 9, end=": 90 %") == "cat: 90 %"
    assert lettering.fitted("US$ or CA$", 3, 9) == r"US\$ or CA\$"
    two = lettering.fitted("golden retriever of the British Isles", 1.3, 9, 2, ": 90 %").split("\n")
    assert two[0] == "golden retriever of"
    assert two[1].endswith(": 90 %")
    for text in ("W" * 60, "Labrador retriever " * 9, "ab"):
        for line in lettering.fitted(text, 1.2, 9, 2, ": 7 %").split("\n"):
            assert lettering.width_of(line, 9) <= 1.2
    assert lettering.fitted("W" * 60, 0.01, 9) == "W…W"
    assert [lettering.columns_for(n, 2, 10.5) for n in (0, 1, 5, 6, 9, 11)] == [1, 1, 5, 3, 5, 4]


# ---- layers ----------------------------------------------------------------------------------


def test_feature_maps_are_what_the_layers_make(rng):
    model = network()
    x = rng.random((6, 5, 2)).astype(np.float32)
    first = fc.Model(model.inputs, model.get_layer("first").output).predict(x[None])[0]
    figure = visualize.feature_maps(model, x)
    rows = [a.get_ylabel() for a in figure.axes if a.get_ylabel()]
    assert rows == ["image", "first\n6×5×4", "norm\n6×5×4", "second\n4×3×3"]
    drawn = images_in(figure)
    assert len(drawn) == 1 + 4 + 4 + 3
    for channel in range(4):
        np.testing.assert_array_equal(drawn[1 + channel], first[..., channel])
    assert len(images_in(visualize.feature_maps(model, x, ["first", "second"], 2))) == 5
    sheet = visualize.feature_maps(model, x[None], "first")
    whole = np.ma.filled(sheet.axes[0].images[0].get_array(), np.nan)
    values = set(np.unique(whole[~np.isnan(whole)]).tolist())
    assert values == set(first.astype(float).ravel().tolist())


def test_filters_of_any_number_of_channels(rng):
    model = network()
    weight = model.get_layer("first").weight.value
    figure = visualize.filters(model)
    whole = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    assert set(whole[~np.isnan(whole)].tolist()) == set(weight.astype(float).ravel().tolist())
    assert figure.get_suptitle() == "first: 4 filters of 3×3 over 2 channels"
    layer = layers.Conv2D(5, 3, name="grey")
    layer(layers.Input((8, 8, 1)))
    figure = visualize.filters(layer)
    assert figure.get_suptitle() == "grey: 5 filters of 3×3"
    drawn = [a.images[0].get_array() for a in figure.axes if a.images]
    kernels = [d for d in drawn if d.shape == (3, 3)]
    np.testing.assert_array_equal(np.stack(kernels, -1), layer.weight.value[:, :, 0])


def test_history_of_a_model_and_of_some_metrics():
    curves = {"loss": [2.0, 1.0], "accuracy": [0.1, 0.2], "val_loss": [2.5, 1.5]}
    assert [a.get_title() for a in visualize.history(curves).axes] == ["loss", "accuracy"]
    (only,) = visualize.history(curves, ["loss"]).axes
    assert [line.get_ydata().tolist() for line in only.lines] == [[2.0, 1.0], [2.5, 1.5]]
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(np.zeros((2, 6, 5, 2)), [0, 1], verbose=0)
    assert len(visualize.history(model).axes) == 1
    assert len(visualize.history(model.history).axes) == 1


def test_history_of_a_file_that_a_logger_wrote(tmp_path):
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    csv, lines = tmp_path / "run.csv", tmp_path / "run.jsonl"
    x, y = np.zeros((2, 6, 5, 2)), [0, 1]
    done = model.fit(
        x, y, epochs=3, verbose=0, validation_data=(x, y), validation_freq=2,
        callbacks=[callbacks.CSVLogger(csv, separator=";"), callbacks.JSONLogger(lines)],
    )  # fmt: skip
    for path in (csv, str(lines)):
        (axes,) = visualize.history(path).axes
        losses, held = (line.get_ydata() for line in axes.lines)
        np.testing.assert_allclose(losses, done.history["loss"], rtol=1e-6)
        assert np.isnan(held).tolist() == [True, False, True]
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(ValueError, match="history is empty"):
        visualize.history(tmp_path / "none.csv")
    for text in ("x,loss\n0,1\n", "epoch,loss\n0,high\n", '{"epoch": 0, "loss": [1]}\n', "{\n"):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(ValueError, match=r"other\.csv: not a file of CSVLogger or JSONLogger"):
            visualize.history(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        visualize.history(tmp_path / "gone.csv")


def test_a_single_image_is_taken_everywhere(rng):
    model = network()
    x = rng.random((6, 5, 2))
    for draw in (visualize.saliency_map, visualize.grad_cam_map, visualize.occlusion_map):
        assert np.array_equal(draw(model, x), draw(model, x[None]))
        assert np.array_equal(draw(model, x), draw(model, [x[None]]))
    grey = network(shape=(6, 5, 1))
    flat = visualize.saliency_map(grey, x[..., 0])  # without its channel
    assert np.array_equal(flat, visualize.saliency_map(grey, x[None, ..., :1]))
    assert np.array_equal(flat, visualize.saliency_map(grey, x[None, ..., 0]))
    for draw in (visualize.saliency, visualize.grad_cam, visualize.occlusion):
        assert len(images_in(draw(model, x))) == 2
    rows = [images_in(visualize.feature_maps(model, a)) for a in (x, x[None])]
    assert all(map(np.array_equal, *rows))


def test_a_map_that_is_empty_says_so(rng):
    x = np.abs(rng.standard_normal((2, 4, 4, 1))).astype(np.float32)
    figure = visualize.grad_cam(known_network(), x, classes=1, layer="maps")  # class 1: −first
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words == ["nothing here\nspeaks for it"] * 2
    assert not [t for a in visualize.grad_cam(known_network(), x, 0).axes for t in a.texts]


def test_roofline_numbers_stand_apart(rng):
    model = fc.applications.ResNet20((16, 16, 3))
    model.compile("adam", "sparse_categorical_crossentropy")
    profile = model.profile(rng.random((2, 16, 16, 3)), np.zeros(2, int), repeat=1)
    figure = profile.plot()
    figure.draw_without_rendering()
    roof, products, _ = figure.axes
    numbers = [Text.get_window_extent(text) for text in roof.texts]  # without their lines
    assert [text.get_text() for text in roof.texts] == [str(n) for n in range(1, 11)]
    for i, one in enumerate(numbers):
        assert not [other for other in numbers[:i] if one.overlaps(other)]
    labels = products.get_yticklabels()
    assert labels[0].get_text().startswith("1  ")
    boxes = [label.get_window_extent() for label in labels]
    assert all(a.y0 >= b.y1 for a, b in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) < roof.xaxis.label.get_window_extent().y0


# ---- what is refused -------------------------------------------------------------------------


def two_inputs():
    a, b = layers.Input((4, 4, 1), name="left"), layers.Input((4, 4, 1), name="right")
    return fc.Model([a, b], layers.Flatten()(layers.Add()([a, b])))


def two_outputs():
    a = layers.Input((4, 4, 1))
    y = layers.Flatten()(a)
    return fc.Model(a, [layers.Dense(2, name="one")(y), layers.Dense(2, name="two")(y)])


def dense():
    return fc.Sequential([layers.Input((4,)), layers.Dense(2)])


def per_pixel():
    return fc.Sequential([layers.Input((4, 4, 1)), layers.Conv2D(2, 3)])


X = np.zeros((1, 6, 5, 2))
NAN = X.copy()
NAN[0, 2, 3, 1] = np.nan


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: visualize.saliency("net", X), "model is a fastconv model, not str"),
        (lambda: visualize.saliency(two_inputs(), X), "several inputs .left, right."),
        (lambda: visualize.grad_cam(two_outputs(), X), r"several outputs .one, two.*outputs\[0\]"),
        (lambda: visualize.occlusion(dense(), np.zeros((1, 4))), "not an image"),
        (lambda: visualize.saliency(per_pixel(), X[..., :1]), "where a score per class"),
        (lambda: visualize.saliency(network(), X, 3), "has 3 classes, 0 to 2; there is no 3"),
        (lambda: visualize.saliency(network(), X, 0.5), "classes is a class number"),
        (lambda: visualize.saliency(network(), np.zeros((99, 6, 5, 2))), r"99 images.*x\[:64\]"),
        (lambda: visualize.saliency(network(), X[..., :1]), "must have the shape"),
        (lambda: visualize.saliency(network(), X, samples=0), "samples"),
        (lambda: visualize.grad_cam(network(), X, layer="flat"), "flat has no maps of features"),
        (lambda: visualize.grad_cam(network(), X, layer="secnd"), "second"),
        (lambda: visualize.grad_cam(network(), X, layer=layers.ReLU(name="r")), "no layer of"),
        (lambda: visualize.grad_cam(summing_network(), digit()), "Grad-CAM needs one"),
        (lambda: visualize.occlusion(network(), X, size=9), "larger than the images"),
        (lambda: visualize.occlusion(network(), X, stride=0), "stride"),
        (lambda: visualize.occlusion(network(), X, stride=4), "leaves pixels that no patch"),
        (lambda: visualize.maximize_activation(network(), "second", 7), "3 channels, 0 to 2"),
        (lambda: visualize.maximize_activation(network(), "second", "a"), "channels is a number"),
        (lambda: visualize.maximize_activation(network(), -1, value_range=(1, 0)), "value_range"),
        (lambda: visualize.feature_maps(network(), np.zeros((2, 6, 5, 2))), "2 images"),
        (lambda: visualize.feature_maps(network(), X, "classes"), "classes makes 1 dim"),
        (lambda: visualize.filters(layers.Flatten(name="f")), "f .Flatten. has no filters"),
        (lambda: visualize.filters(dense()), "has no convolution"),
        (lambda: visualize.filters(np.zeros(3)), "a layer or a model, not ndarray"),
        (lambda: visualize.history({}), "history is empty"),
        (lambda: visualize.history(dense()), "history is empty"),
        (lambda: visualize.history({"loss": [1]}, ["los"]), "loss"),
        (lambda: visualize.history(3), "path of a logger's file, not int"),
        (lambda: visualize.history({"loss": 3}), "no list of numbers for 'loss': 3"),
        (lambda: visualize.history({"loss": ["high"]}), "no list of numbers for 'loss'"),
        (lambda: visualize.saliency(network(), NAN), r"x holds nan in sample 0 at \(2, 3, 1\)"),
        (lambda: visualize.feature_maps(network(), NAN[0]), "x holds nan"),
        (lambda: visualize.wrong_predictions(NAN[..., 1], [0], [1]), "x holds nan in sample 0"),
        (lambda: visualize.confusion_matrix([0.0, np.nan], [0, 1]), "y_true holds nan in sample 1"),
        (lambda: visualize.confusion_matrix([0], [[np.nan, 0]]), "y_pred holds nan in sample 0"),
        (lambda: visualize.maximize_activation(network(), -1, smooth=-1), "smooth"),
        (lambda: visualize.confusion_matrix([0, 1], [0]), "2 true classes and 1 predictions"),
        (lambda: visualize.confusion_matrix([0, -1], [0, 1]), "y_true holds -1"),
        (lambda: visualize.confusion_matrix([0, 1], [0, 1.5]), "neither class numbers nor"),
        (lambda: visualize.confusion_matrix([0, 2], [0, 1], ["a", "b"]), "there is a class 2"),
        (lambda: visualize.confusion_matrix(["a"], ["b"]), "y_true are class numbers"),
        (lambda: visualize.confusion_matrix([0, 300], [0, 1]), "301 classes do not fit"),
        (lambda: visualize.wrong_predictions(np.zeros((2, 4, 4)), [0], [0]), "do not belong"),
        (lambda: visualize.wrong_predictions(np.zeros((2, 4)), [0, 1], [0, 0]), "x are images"),
        (lambda: visualize.saliency(network(), X, class_names=["a"]), "class_names names 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[viz\]'"):
        visualize.confusion_matrix([0], [0])


# ---- a real network --------------------------------------------------------------------------


PROGRAM = """
import sys
import numpy as np
import fastconv as fc
from fastconv import layers, visualize as v

(x, y), _ = fc.datasets.mnist.load_data(sys.argv[1])
x, y = x[:3000, ..., None].astype("float32") / 255, y[:3000]
fc.set_random_seed(1)
model = fc.Sequential([
    layers.Input((28, 28, 1)), layers.Conv2D(8, 5, activation="relu"), layers.MaxPooling2D(2),
    layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten(),
    layers.Dense(10, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=3, batch_size=32, verbose=0)
p = model.predict(x)
assert (p.argmax(1) == y).mean() > 0.9
ink = x[:20, ..., 0] > 0.3
near = np.stack([np.roll(ink, (i, j), (1, 2)) for i in range(-2, 3) for j in range(-2, 3)]).any(0)
s = v.saliency_map(model, x[:20], samples=4)
assert s[near].mean() > 1.5 * s[~near].mean(), "saliency lies at the strokes"
o = v.occlusion_map(model, x[:20], size=7)
assert o[near].mean() > 2 * abs(o[~near].mean()), "what hides the strokes hurts"
figures = [
    v.history(model), v.filters(model), v.feature_maps(model, x[0]),
    v.feature_maps(model, x[0], "conv2d_1"), v.confusion_matrix(y, p), v.saliency(model, x[:4]),
    v.grad_cam(model, x[:4]), v.occlusion(model, x[:3]), v.wrong_predictions(x, y, p),
    v.maximize_activation(model, "dense", steps=8),
]
for i, figure in enumerate(figures):
    figure.savefig(f"{i}.png")
assert "matplotlib.pyplot" not in sys.modules
"""


def test_a_network_that_reads_digits(data_dir, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data_dir("mnist"))],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 10
    assert min(path.stat().st_size for path in pictures) > 5000


def test_every_picture_is_a_figure_of_its_own(rng):
    model = network()
    x = rng.random((2, 6, 5, 2))
    pairs = [
        (visualize.saliency(model, x), visualize.saliency(model, x)),
        (visualize.grad_cam(model, x), visualize.grad_cam(model, x)),
        (visualize.occlusion(model, x), visualize.occlusion(model, x)),
    ]
    for one, other in pairs:
        assert isinstance(one, Figure)
        assert one is not other

"""Layers that prepare images: what they do, when, and which random numbers they follow."""

import json

import numpy as np
import onnxruntime
import pytest

import fastconv as fc
from fastconv import layers
from fastconv.layer import from_config
from fastconv.onnx.samples import known_range

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
IMAGES = BYTES.astype(np.float32)
RANDOM = [
    layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomTranslation(0.2, 0.3),
    layers.RandomZoom(0.3), layers.RandomContrast(0.4), layers.RandomBrightness(0.2),
]  # fmt: skip
ALL = [
    *RANDOM, layers.RandomCrop(6, 5), layers.CenterCrop(6, 5), layers.Resizing(5, 9),
    layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6]), layers.Rescaling(1 / 255),
]  # fmt: skip


def by_name(items):
    return pytest.mark.parametrize("layer", items, ids=lambda layer: type(layer).__name__)


def again(layer, **changes):
    config = json.loads(json.dumps({**layer.get_config(), **changes}))
    return from_config(type(layer).__name__, config)


# -- what they do ---------------------------------------------------------------------------------


def test_flips_are_flips():
    for mode, turned in (
        ("horizontal", IMAGES[:, :, ::-1]),
        ("vertical", IMAGES[:, ::-1]),
        ("horizontal_and_vertical", IMAGES[:, ::-1, ::-1]),
    ):
        fc.set_random_seed(0)
        y = layers.RandomFlip(mode)(IMAGES)
        same = (y == IMAGES).all(axis=(1, 2, 3))
        assert (same ^ (y == turned).all(axis=(1, 2, 3))).all()
        assert 10 < same.sum() < 30


def test_directions():
    turned = layers.RandomRotation((0.25, 0.25))(IMAGES)
    np.testing.assert_allclose(turned, np.rot90(IMAGES, axes=(1, 2)), atol=1e-3)
    moved = layers.RandomTranslation((0.25, 0.25), (-0.125, -0.125), "wrap")(IMAGES)
    np.testing.assert_allclose(moved, np.roll(IMAGES, (2, -1), axis=(1, 2)), atol=1e-3)
    small = layers.RandomZoom((1, 1), fill_mode="constant", fill_value=-5)(IMAGES)
    assert (small[:, 0] == -5).all()
    assert (small[:, 3:5, 3:5] >= 0).all()


def test_light():
    lit = layers.RandomBrightness(0.3)(IMAGES) - IMAGES
    inside = (lit + IMAGES > 0) & (lit + IMAGES < 255)
    for image, free in zip(lit, inside, strict=True):
        assert np.ptp(image[free]) < 1e-3
    assert np.abs(lit).max() <= 0.3 * 255 + 1e-3
    loud = layers.RandomContrast((-0.5, 0.5), value_range=(-999, 999))(IMAGES)
    np.testing.assert_allclose(loud.std(axis=(1, 2)), IMAGES.std(axis=(1, 2)) * 1.5, rtol=1e-4)
    np.testing.assert_allclose(loud.mean(axis=(1, 2)), IMAGES.mean(axis=(1, 2)), rtol=1e-5)
    many = layers.RandomContrast(0.4, value_range=(-999, 999))(IMAGES).std(axis=(1, 2, 3))
    shares = many / IMAGES.std(axis=(1, 2, 3))
    assert shares.min() < 0.8  # both ways, as Keras' documentation has it
    assert shares.max() > 1.2


def test_crops():
    fc.set_random_seed(0)
    seen = set()
    for _ in range(60):
        y = layers.RandomCrop(6, 7)(IMAGES)
        [place] = [
            (r, c) for r in range(3) for c in range(2)
            if np.array_equal(y, IMAGES[:, r : r + 6, c : c + 7])
        ]  # fmt: skip
        seen.add(place)
    assert len(seen) == 6
    centre = layers.CenterCrop(4, 4)
    np.testing.assert_array_equal(centre(IMAGES), IMAGES[:, 2:6, 2:6])
    wide = IMAGES[:, :4]  # too small: the largest window of that shape, resized
    expected = layers.Resizing(8, 8)(wide[:, :, 2:6])
    for y in (layers.CenterCrop(8, 8)(wide), layers.RandomCrop(8, 8)(wide)):
        np.testing.assert_array_equal(y, expected)
    at_inference = layers.RandomCrop(4, 8)(IMAGES, training=False)
    np.testing.assert_array_equal(at_inference, IMAGES[:, 2:6])


def test_resizing_keeps_integers_and_ramps():
    assert layers.Resizing(5, 3)(BYTES).dtype == np.uint8
    ramp = np.broadcast_to(np.arange(8.0)[:, None], (8, 8, 8, 1))[0].copy()
    found = layers.Resizing(8, 16)(ramp.transpose(1, 0, 2))
    assert found.shape == (8, 16, 1)
    for how in ("bilinear", "bicubic", "lanczos3", "lanczos5"):
        big = layers.Resizing(40, 16, how)(np.arange(20.0)[:, None, None] * np.ones((1, 16, 1)))
        np.testing.assert_allclose(big[16:24, 0, 0], np.arange(16, 24) / 2 - 0.25, atol=0.03)
        thin = layers.Resizing(4, 4, how, antialias=True)(IMAGES)
        assert thin.std() < layers.Resizing(4, 4, "nearest")(IMAGES).std()


def test_normalization_adapts():
    data = RNG.normal(3, 2, (500, 4, 5, 3)).astype(np.float32) * [1, 2, 3]
    layer = layers.Normalization()
    model = fc.Sequential([fc.Input((4, 5, 3)), layer])
    np.testing.assert_allclose(model.predict(data, verbose=0), data, rtol=1e-6)
    layer.adapt(data)  # a model that was used sees it
    y = model.predict(data, verbose=0)
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), 1, atol=1e-5)
    pairs = fc.Dataset.from_tensor_slices((data, np.zeros(500))).batch(64)
    other = layers.Normalization()
    other.adapt(pairs)
    for a, b in zip(other.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(layer(data), y, rtol=1e-6)
    np.testing.assert_allclose(layer(data[0]), y[0], rtol=1e-6)
    back = layers.Normalization(mean=layer.mean.value, variance=layer.variance.value, invert=True)
    np.testing.assert_allclose(back(y), data, atol=1e-4)
    single = layers.Normalization(axis=None)
    single.adapt(np.array([1.0, 2, 3, 4, 5]))
    np.testing.assert_allclose(single(np.array([3.0])), 0, atol=1e-6)


# -- when they do it ------------------------------------------------------------------------------


def network(*first, seed=5):
    fc.set_random_seed(seed)
    model = fc.Sequential(
        [fc.Input((8, 8, 3)), *first, layers.Rescaling(1 / 255), layers.Conv2D(4, 3),
         layers.Flatten(), layers.Dense(3, activation="softmax")]
    )  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


LABELS = np.arange(40) % 3


def weights_after(threads=1, data=BYTES, **options):
    before = fc.get_num_threads()
    fc.set_num_threads(threads)
    try:
        model = network(*map(again, RANDOM), layers.RandomCrop(7, 7))
        model.fit(data, LABELS, epochs=2, batch_size=16, verbose=0, **options)
    finally:
        fc.set_num_threads(before)
    return np.concatenate([w.ravel() for w in model.get_weights()])


def test_training_repeats_whatever_the_threads():
    whole = weights_after()
    np.testing.assert_array_equal(whole, weights_after(threads=2))
    np.testing.assert_array_equal(whole, weights_after(data=IMAGES))  # bytes are cast as they come
    np.testing.assert_array_equal(
        weights_after(accumulate_steps=2), weights_after(2, accumulate_steps=2)
    )


@by_name(RANDOM)
def test_active_in_training_alone(layer, tmp_path):
    layer = again(layer, name="layer")
    model = fc.Sequential([fc.Input((8, 8, 3)), layer])
    np.testing.assert_array_equal(model.predict(BYTES, verbose=0), IMAGES)
    first, _ = model.forward(IMAGES, training=True)
    second, _ = model.forward(IMAGES, training=True)
    assert not np.array_equal(first, IMAGES)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0] - IMAGES[0], first[1] - IMAGES[1])
    x = fc.Input((8, 8, 3))
    frozen = fc.Model(x, again(layer, name="other")(x, training=False))
    np.testing.assert_array_equal(frozen.forward(IMAGES, training=True)[0], IMAGES)
    report = model.export(tmp_path / "m.onnx")
    assert set(report.operators) <= {"Identity"}
    model.save(tmp_path / "m.fc")
    loaded = fc.load_model(tmp_path / "m.fc").layers[-1]
    assert loaded.get_config() == layer.get_config()
    with pytest.raises(ValueError, match="fit decides"):
        again(layer)(x, training=True)


def test_gradients_pass_on_the_way_to_layers_before():
    x = fc.Input((8, 8, 3))
    y = layers.Conv2D(3, 3, padding="same")(x)
    for layer in (layers.RandomRotation(0.2), layers.RandomContrast(0.2), layers.Resizing(4, 4)):
        y = layer(y)
    model = fc.Model(x, layers.Dense(1)(layers.Flatten()(y)))
    model.compile("sgd", "mse")
    before = model.get_weights()[0]
    model.train_on_batch(IMAGES / 255, np.ones((40, 1)))
    assert not np.array_equal(before, model.get_weights()[0])


def test_recomputed_and_with_a_seed_of_its_own():
    def fitted(seed, **options):
        model = network(layers.RandomRotation(0.3, seed=seed, name="turn"), seed=1)
        model.compile("adam", "sparse_categorical_crossentropy", **options)
        model.fit(BYTES, LABELS, verbose=0)
        return model.get_weights()[0]

    np.testing.assert_array_equal(fitted(None), fitted(None, recompute=["turn"]))
    np.testing.assert_array_equal(fitted(1), fitted(1))
    assert not np.array_equal(fitted(1), fitted(2))


def test_sizes_that_are_open(tmp_path):
    for how in ("bilinear", "nearest"):
        model = fc.Sequential([fc.Input((None, None, 3)), layers.Resizing(6, 5, how)])
        model.export(tmp_path / "m.onnx")
        session = onnxruntime.InferenceSession(
            tmp_path / "m.onnx", providers=["CPUExecutionProvider"]
        )
        for size in ((13, 9), (4, 31)):
            x = RNG.random((2, *size, 3)).astype(np.float32)
            [y] = session.run(None, {session.get_inputs()[0].name: x.transpose(0, 3, 1, 2)})
            want = model.predict(x, verbose=0)
            np.testing.assert_allclose(y.transpose(0, 2, 3, 1), want, atol=1e-6)
    for layer in (layers.CenterCrop(4, 4), layers.Resizing(6, 5, "bicubic")):
        with pytest.raises(ValueError, match=rf"{layer.name}.*known size"):
            fc.Sequential([fc.Input((None, None, 3)), layer]).export(tmp_path / "m.onnx")


@pytest.mark.parametrize(("size", "to"), [(100, 37), (512, 224), (5, 7), (300, 299)])
def test_resizing_is_onnx_resize(size, to, tmp_path):
    model = fc.Sequential([fc.Input((size, 6, 1)), layers.Resizing(to, 6)])
    report = model.export(tmp_path / "m.onnx")
    assert report.operators["Resize"] == 1
    assert report.largest_error < 1e-6


def test_the_range_is_known_behind_augmentation():
    assert known_range(network(layers.RandomFlip(), layers.Resizing(9, 9)).graph) == (0.0, 255.0)


# -- on arrays ------------------------------------------------------------------------------------


@by_name(ALL)
def test_arrays_of_any_type_single_or_many(layer):
    layer = again(layer)
    for x in (BYTES, IMAGES, IMAGES.astype(float), BYTES.tolist()):
        fc.set_random_seed(3)
        y = layer(x)
        whole = np.asarray(x).dtype.kind in "iu" and isinstance(layer, layers.Resizing)
        assert y.dtype == (np.asarray(x).dtype if whole else np.float32)
        shape = layer.output_shape(BYTES.shape[1:])
        assert y.shape == (40, *shape)
        assert layer(np.asarray(x)[0]).shape == shape
        assert layer(np.asarray(x)[:0]).shape == (0, *shape)
        if layer.arity == 1 and layer in RANDOM:
            np.testing.assert_array_equal(layer(x, training=False), IMAGES)
    with pytest.raises(ValueError, match=r"layer|array|image|input"):
        layer(np.zeros((2, 3), object))


def test_numbers_on_arrays_follow_the_seed():
    def both(layer):
        return layer(IMAGES), layer(IMAGES)

    def after(seed, layer):
        fc.set_random_seed(seed)
        return np.concatenate(both(layer))

    turn = layers.RandomRotation(0.2)
    assert not np.array_equal(*both(turn))
    np.testing.assert_array_equal(after(1, turn), after(1, turn))
    assert not np.array_equal(after(1, turn), after(2, turn))
    own = [after(seed, layers.RandomRotation(0.2, seed=4)) for seed in (1, 2)]
    np.testing.assert_array_equal(*own)  # whatever the process' seed
    assert not np.array_equal(own[0], after(1, layers.RandomRotation(0.2, seed=5)))


@pytest.mark.parametrize("seed", [None, 3])
def test_a_mapped_data_set_repeats_whatever_the_threads(seed):
    augment = layers.RandomRotation(0.4, seed=seed)

    def epochs(threads, maps=1):
        fc.set_random_seed(2)
        data = fc.Dataset.from_tensor_slices((BYTES, LABELS)).batch(8)
        for _ in range(maps):
            data = data.map(lambda x, y: (augment(x, training=True), y), threads)
        return [np.concatenate([x for x, _ in data]) for _ in range(2)]

    one, four = epochs(1), epochs(4)
    np.testing.assert_array_equal(one, four)
    assert not np.array_equal(*one)


def test_two_maps_draw_numbers_of_their_own():
    def first(function, times, **options):
        fc.set_random_seed(2)
        data = fc.Dataset.from_tensor_slices(IMAGES).batch(40)
        for _ in range(times):
            data = data.map(function, **options)
        return next(iter(data))

    flip = layers.RandomFlip("horizontal")  # flipping twice by the same lots would change nothing
    assert not np.array_equal(first(flip, 2), IMAGES)
    assert not np.array_equal(first(flip, 2), first(flip, 1))
    numbers = [first(lambda x, rng: rng.random(9), n, random=True) for n in (1, 2)]
    assert not np.array_equal(*numbers)


def test_a_sequential_of_them_takes_arrays():
    fc.set_random_seed(0)
    augment = fc.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    y = augment(BYTES)
    assert y.shape == BYTES.shape
    assert not np.array_equal(y, IMAGES)
    np.testing.assert_array_equal(augment(BYTES, training=False), IMAGES)
    x = fc.Input((8, 8, 3))  # and is a layer of a model as well
    model = fc.Model(x, layers.Flatten()(augment(x)))
    np.testing.assert_array_equal(model.predict(BYTES, verbose=0), IMAGES.reshape(40, -1))
    flat = fc.Sequential([layers.RandomFlip(), layers.Flatten()])  # a network: as at inference
    np.testing.assert_array_equal(flat(BYTES), IMAGES.reshape(40, -1))


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layers.RandomFlip("sideways"), "unknown mode 'sideways'"),
        (lambda: layers.RandomFlip(data_format="first"), "data_format"),
        (lambda: layers.RandomFlip(seed=-1), "seed must be"),
        (lambda: layers.RandomFlip(bounding_box_format="xyxy"), "bounding_box_format"),
        (lambda: layers.RandomRotation(1.5), r"factor must be a number in \[-1, 1\]"),
        (lambda: layers.RandomRotation((0.1, 0.2, 0.3)), "factor is a number or two"),
        (lambda: layers.RandomRotation(0.1, fill_mode="mirror"), "unknown fill_mode 'mirror'"),
        (lambda: layers.RandomRotation(0.1, interpolation="bicubic"), "unknown interpolation"),
        (lambda: layers.RandomTranslation(0.1, "a"), "width_factor must be a number"),
        (lambda: layers.RandomZoom((-1, 0)), "height_factor must be above -1"),
        (lambda: layers.RandomContrast((-0.5, 0.2)), "must not be above"),
        (lambda: layers.RandomBrightness(0.1, value_range=3), "value_range is a pair"),
        (lambda: layers.RandomCrop(0, 3), "height must be an integer"),
        (lambda: layers.Resizing(3, 3, "area"), "unknown interpolation 'area'"),
        (lambda: layers.Resizing(3, 3, fill_mode="wrap"), "unknown fill_mode"),
        (lambda: layers.Resizing(3, 3, "nearest", True, True), "exclude each other"),
        (lambda: layers.CenterCrop(3, 3)(np.zeros(4)), r"takes images"),
        (lambda: layers.CenterCrop(3, 3)(fc.Input((4, 4))), "images"),
        (lambda: layers.CenterCrop(3, 3)("picture.png"), "an array of numbers, not on str"),
        (lambda: layers.Normalization(mean=1), "both, or neither"),
        (lambda: layers.Normalization(mean=[1], variance=1), "different shapes"),
        (lambda: layers.Normalization(mean=[[1]], variance=[[1]]), "more axes"),
        (lambda: layers.Normalization(mean=1, variance=-1), "a variance is 0 or more"),
        (lambda: layers.Normalization(axis=0)(IMAGES), "0 is the batch"),
        (lambda: layers.Normalization(axis=7)(IMAGES), "axis 7"),
        (lambda: layers.Normalization(mean=[1, 2], variance=[1, 2])(IMAGES), "does not fit axis"),
        (lambda: layers.Normalization(mean=1, variance=1).adapt(IMAGES), "nothing to adapt"),
        (lambda: layers.Normalization().adapt([]), "no data"),
        (lambda: layers.Normalization().adapt(3), "an array or batches, not int"),
        (lambda: layers.Normalization().adapt([IMAGES, IMAGES[..., :2]]), "was built for"),
    ],
)
def test_what_is_wrong_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()

"""`fastconv.utils`: labels, image folders, augmentation, pictures."""

import io

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers, utils

PIL = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


@pytest.fixture
def folder(tmp_path):
    """Three classes of four pictures, each of one colour."""
    for c, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / name).mkdir()
        for i in range(4):
            image = PIL.new("RGB", (20 + i, 16), (60 * c, 10 * i, 200))
            image.save(tmp_path / name / f"{i}.{'jpg' if i % 2 else 'png'}", quality=95)
    return tmp_path


def read(folder, **options):
    options = {"image_size": (8, 10), "verbose": False, **options}
    return utils.image_dataset_from_directory(folder, **options)


def test_labels_as_rows():
    np.testing.assert_array_equal(utils.to_categorical([0, 2, 1]), np.eye(3)[[0, 2, 1]])
    assert utils.to_categorical([[1], [0]], 4).shape == (2, 4)
    assert utils.to_categorical(np.zeros((2, 3), int), 2).shape == (2, 3, 2)
    for bad, words in (([0.5], "whole"), ([-1], "-1"), (["a"], "whole")):
        with pytest.raises(ValueError, match=words):
            utils.to_categorical(bad) if bad != ["a"] else utils.to_categorical(np.array([0.1]))
    with pytest.raises(ValueError, match=r"0\.\.1, there is 2"):
        utils.to_categorical([2], 2)
    np.testing.assert_allclose(utils.normalize([[3, 4], [0, 0]]), [[0.6, 0.8], [0, 0]])


def test_a_folder_of_classes(folder, capsys):
    data = read(folder, batch_size=5, shuffle=False, verbose=True)
    assert capsys.readouterr().out == "Found 12 images in 3 classes\n"
    assert data.class_names == ["cat", "dog", "owl"]
    assert len(data.file_paths) == 12
    x, y = (np.concatenate(parts) for parts in zip(*data, strict=True))
    assert x.dtype == np.uint8
    assert x.shape == (12, 8, 10, 3)
    np.testing.assert_array_equal(y, np.repeat([0, 1, 2], 4))
    np.testing.assert_allclose(x[:, 4, 5, 0], 60 * y, atol=6)
    assert next(iter(read(folder, color_mode="grayscale")))[0].shape == (12, 8, 10, 1)
    assert next(iter(read(folder, label_mode="categorical")))[1].shape == (12, 3)
    assert next(iter(read(folder, labels=None))).shape == (12, 8, 10, 3)
    owls = read(folder, class_names=["owl", "cat"], label_mode="binary")
    assert next(iter(owls))[1].shape == (8, 1)
    assert next(iter(read(folder, batch_size=None)))[0].shape == (8, 10, 3)


@pytest.mark.parametrize("fit", ["crop_to_aspect_ratio", "pad_to_aspect_ratio"])
def test_aspect_ratios(folder, fit):
    x, _ = next(iter(read(folder, image_size=(8, 40), **{fit: True})))
    black = (x[:, :, 0] == 0).all()
    assert black == (fit == "pad_to_aspect_ratio")


def test_splits_do_not_overlap(folder):
    train = read(folder, validation_split=0.25, subset="training", seed=3)
    held = read(folder, validation_split=0.25, subset="validation", seed=3)
    assert (len(train.file_paths), len(held.file_paths)) == (9, 3)
    assert not set(train.file_paths) & set(held.file_paths)
    both = read(folder, validation_split=0.25, subset="both", seed=3)
    assert [d.file_paths for d in both] == [train.file_paths, held.file_paths]


def test_order_and_threads(folder):
    def labels(seed, threads):
        fc.set_random_seed(seed)
        data = read(folder, num_parallel_calls=threads)
        return [y.tolist() for _ in range(2) for _, y in data]

    assert labels(0, 1) == labels(0, 3)
    first, second = labels(0, 2)
    assert first != second


def test_a_folder_trains_a_network(folder):
    fc.set_random_seed(0)
    model = fc.Sequential(
        [layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu"),
         layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    )  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    augment = utils.Augmentation(flip=True, shift=1, brightness=0.1)
    data = read(folder, batch_size=4).cache().map(augment, random=True).prefetch(1)
    model.optimizer.learning_rate = 0.05
    history = model.fit(data, epochs=30, verbose=0, validation_data=read(folder))
    assert history.history["val_accuracy"][-1] == 1


def test_broken_pictures_are_named_and_left_out_when_asked(folder):
    (folder / "dog" / "broken.jpg").write_bytes(b"this is no picture")
    whole = (folder / "owl" / "1.jpg").read_bytes()
    (folder / "owl" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match=r"(broken|half)\.jpg: not a picture"):
        list(read(folder))
    with pytest.warns(UserWarning, match=r"2 files are left out:\n.*broken\.jpg.*\n.*half\.jpg"):
        data = read(folder, on_error="skip")
    assert sum(len(y) for _, y in data) == 12


def test_folders_that_are_wrong(folder, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(folder / "nowhere")
    with pytest.raises(ValueError, match="no pictures"):
        read(tmp_path_factory.mktemp("empty"))
    for options, words in (
        ({"class_names": ["dogs"]}, "did you mean 'dog'"),
        ({"label_mode": "binary"}, "two classes, there are 3"),
        ({"labels": [1, 2]}, "12 files need"),
        ({"validation_split": 0.2}, "belong together"),
        ({"validation_split": 0.2, "subset": "training"}, "same seed"),
        ({"image_size": (0, 4)}, "image_size"),
        ({"color_mode": "cmyk"}, "color_mode"),
        ({"data_format": "first"}, "channels_last"),
    ):
        with pytest.raises(ValueError, match=words):
            read(folder, **options)


def test_changed_pictures_are_other_data(folder):
    before = read(folder).fingerprint()
    assert read(folder).fingerprint() == before
    PIL.new("RGB", (30, 30)).save(folder / "cat" / "0.png")
    assert read(folder).fingerprint() != before


# -- augmentation ---------------------------------------------------------------------------------

BYTES = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3)).astype(np.uint8)


def augmented(images, seed=0, **options):
    return utils.Augmentation(**options)(images, np.random.default_rng(seed))


def test_flips_and_shifts():
    flipped = augmented(BYTES, flip=True)
    same = (flipped == BYTES).all(axis=(1, 2, 3))
    turned = (flipped == BYTES[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ turned).all()
    assert 5 < same.sum() < 35
    ramp = np.broadcast_to(np.arange(8.0)[:, None, None], (40, 8, 6, 1))
    first = augmented(ramp, shift=2)[:, 0, 0, 0]
    assert set(first) == {0.0, 1.0, 2.0}
    assert augmented(BYTES, shift=0.5).shape == BYTES.shape


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_light(kind):
    images = BYTES if kind == np.uint8 else (BYTES / 255).astype(np.float32)
    lit = augmented(images, brightness=0.2)
    assert lit.dtype == kind
    span = 255 if kind == np.uint8 else 1
    moved = (lit.astype(float) - images).mean(axis=(1, 2, 3)) / span
    assert moved.std() > 0.05
    assert np.abs(moved).max() < 0.21
    flat = augmented(images, contrast=0.9)
    assert np.abs(flat.astype(float).std() / images.std() - 1) < 0.5
    np.testing.assert_array_equal(images, BYTES if kind == np.uint8 else BYTES / np.float32(255))


def test_erasing_and_single_images():
    erased = augmented(BYTES, erase=0.5)
    assert 0 < (erased != BYTES).any(axis=3).mean() < 0.3
    assert augmented(BYTES[0], flip=True, shift=1, erase=0.3).shape == (8, 6, 3)
    x, y = utils.Augmentation(flip=True)(BYTES, "labels", np.random.default_rng(0))
    assert y == "labels"
    np.testing.assert_array_equal(x, augmented(BYTES, flip=True))
    with pytest.raises(ValueError, match=r"\(n, H, W, C\)"):
        augmented(np.zeros((3, 3)))


def test_what_is_hidden_is_no_class_and_no_picture(folder):
    paths = read(folder).file_paths
    for name in (".ipynb_checkpoints", ".git", "cat/.ipynb_checkpoints"):
        (folder / name).mkdir()
        PIL.new("RGB", (9, 9)).save(folder / name / "0-checkpoint.png")
    (folder / "cat" / "._0.png").write_bytes(b"of a Mac")
    data = read(folder)
    assert data.class_names == ["cat", "dog", "owl"]
    assert data.file_paths == paths
    assert read(folder, labels=None).file_paths == sorted(paths)
    with pytest.raises(ValueError, match="unknown class folder"):
        read(folder, class_names=["cat", ".git"])


def test_an_empty_folder_moves_no_labels(folder):
    (folder / "bat").mkdir()
    with pytest.raises(ValueError, match=r"bat: no pictures below this folder.*class_names=\[…\]"):
        read(folder)
    assert read(folder, class_names=["cat", "dog", "owl"]).class_names == ["cat", "dog", "owl"]
    assert len(read(folder, class_names=["bat", "cat"]).file_paths) == 4


def test_shuffle_is_no_word(folder):
    with pytest.raises(ValueError, match="shuffle is True or False, not 'no'"):
        read(folder, shuffle="no")


# -- single pictures ------------------------------------------------------------------------------


def test_pictures_to_arrays_and_back(tmp_path):
    x = BYTES[0].astype(np.float32)
    utils.save_img(tmp_path / "a.png", x, scale=False)
    image = utils.load_img(tmp_path / "a.png")
    assert image.size == (6, 8)
    back = utils.img_to_array(image)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, x)
    gray = utils.img_to_array(utils.load_img(tmp_path / "a.png", color_mode="grayscale"))
    assert gray.shape == (8, 6, 1)
    scaled = utils.img_to_array(utils.array_to_img(x / 1000 - 3))
    assert (scaled.min(), scaled.max()) in {(0, 254), (0, 255)}
    assert utils.array_to_img(np.full((2, 2, 1), 3000), scale=False).mode == "I"
    assert utils.array_to_img(np.zeros((2, 2, 4))).mode == "RGBA"
    with pytest.warns(UserWarning, match="no transparency"):
        utils.save_img(tmp_path / "b.jpg", np.zeros((2, 2, 4)))
    assert PIL.open(tmp_path / "b.jpg").format == "JPEG"
    buffer = io.BytesIO()
    utils.save_img(buffer, x, file_format="png", scale=False)
    np.testing.assert_array_equal(utils.img_to_array(utils.load_img(buffer), dtype="uint8"), x)


def test_pictures_of_a_size(tmp_path):
    ramp = np.broadcast_to(np.arange(20, dtype=np.uint8) * 10, (10, 20))
    PIL.fromarray(ramp).save(tmp_path / "r.png")
    options = {"color_mode": "grayscale", "target_size": (5, 5)}
    whole = utils.img_to_array(utils.load_img(tmp_path / "r.png", **options))[0, :, 0]
    middle = utils.img_to_array(
        utils.load_img(tmp_path / "r.png", keep_aspect_ratio=True, **options)
    )[0, :, 0]
    np.testing.assert_array_equal(np.diff(whole), 40)
    np.testing.assert_array_equal(middle, [60, 80, 100, 120, 140])


def test_pictures_that_are_wrong(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"a\.png: not a picture"):
        utils.load_img(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        utils.load_img(tmp_path / "nowhere.png")
    for call, words in (
        (lambda: utils.load_img(tmp_path / "a.png", color_mode="cmyk"), "unknown color_mode"),
        (lambda: utils.load_img(tmp_path / "a.png", interpolation="area"), "interpolation"),
        (lambda: utils.array_to_img(np.zeros((2, 2))), r"\(H, W, C\)"),
        (lambda: utils.img_to_array(np.zeros(3)), "two or three axes"),
        (lambda: utils.img_to_array(np.zeros((2, 2)), "first"), "channels_last"),
        (lambda: utils.save_img(tmp_path / "b.xyz", np.zeros((2, 2, 1))), "file_format"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert not (tmp_path / "b.xyz").exists()

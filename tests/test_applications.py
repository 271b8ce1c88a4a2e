"""The named networks: sizes that the papers tell, any images and classes, a proof, a saved copy."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import applications, layers
from fastconv.commands._networks import NETWORKS, named

ALL = [getattr(applications, name) for name in applications.__all__]


@pytest.mark.parametrize(
    ("make", "parameters"),
    [("LeNet5", 61_706), ("MNISTNet", 1_199_882), ("CifarVGG", 551_914), ("ResNet20", 274_042)],
)
def test_parameters(make, parameters):
    model = getattr(applications, make)()
    assert model.count_params() == parameters
    assert f"{parameters:,}" in getattr(applications, make).__doc__


def test_all_networks_have_a_name():
    assert sorted(n.function for n in NETWORKS.values()) == sorted(applications.__all__)
    assert named("cifar_vgg") is named("cifar-vgg")
    with pytest.raises(ValueError, match="did you mean 'resnet20'"):
        named("resnet2")


@pytest.mark.parametrize("make", ALL, ids=lambda f: f.__name__)
def test_other_images_and_classes_learn_and_are_proved(make, rng, tmp_path):
    model = make((24, 20, 2), 3, include_preprocessing=True)
    assert isinstance(model.layers[0 if isinstance(model, fc.Sequential) else 1], layers.Rescaling)
    y = np.arange(24) % 3
    x = (rng.integers(0, 60, (24, 24, 20, 2)) + 60 * y[:, None, None, None]).astype(np.uint8)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    first = model.evaluate(x, y, verbose=0)[0]
    model.fit(x, y, batch_size=8, epochs=12, verbose=0)
    assert model.evaluate(x, y, verbose=0)[0] < first
    report = model.export(tmp_path / "m.onnx", samples=x)
    assert report.inputs == {"input_layer": ("batch", 2, 24, 20)} or report.largest_error < 1e-5
    model.save(tmp_path / "m.fc")
    np.testing.assert_array_equal(fc.load_model(tmp_path / "m.fc").predict(x), model.predict(x))


@pytest.mark.parametrize("make", ALL, ids=lambda f: f.__name__)
def test_logits(make):
    model = make(classes=4, classifier_activation=None)
    x = np.ones((1, *model.inputs[0].sample_shape), np.float32)
    assert model.predict(x).shape == (1, 4)
    assert not np.isclose(model.predict(x).sum(), 1)


def test_residual_networks_take_any_size():
    model = applications.ResNet20((None, None, 3))
    for size in (16, 40):
        assert model.predict(np.zeros((1, size, size, 3), np.float32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        ("LeNet5", {"input_shape": (None, 28, 1)}, "images of one known size"),
        ("LeNet5", {"input_shape": (28, 28)}, r"\(height, width, channels\)"),
        ("ResNet20", {"classes": 0}, "classes must be an integer"),
        ("CifarVGG", {"classifier_activation": "softmx"}, "softmax"),
        ("LeNet5", {"input_shape": (4, 4, 1)}, "does not fit"),
    ],
)
def test_wrong_arguments(make, arguments, words):
    with pytest.raises(ValueError, match=words):
        getattr(applications, make)(**arguments)


def test_class_names_travel(tmp_path):
    model = applications.LeNet5(classes=2)
    model.class_names = ["cat", "dog"]
    model.save(tmp_path / "m.fc")
    assert fc.load_model(tmp_path / "m.fc").class_names == ["cat", "dog"]
    model.class_names = "cat"
    with pytest.raises(ValueError, match="list of strings"):
        model.save(tmp_path / "m.fc")

"""What Keras scripts say beside the large things: names, arguments of habit, small helpers."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastconv as keras
from fastconv import activations, backend, initializers, layers, losses, metrics, models, utils
from fastconv.callbacks import LearningRateScheduler

rng = np.random.default_rng(0)
X = rng.random((12, 8, 8, 1)).astype(np.float32)
Y = rng.integers(0, 3, 12)


def network(**options):
    return keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    ], **options)  # fmt: skip


def compiled():
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


# -- weights and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors"])
def test_automatic_names_do_not_part_a_network_from_its_weights(name, tmp_path):
    first, second = network(), network()
    assert first.layers[0].name != second.layers[0].name
    first.save_weights(tmp_path / name)
    report = second.load_weights(tmp_path / name)
    assert report.complete
    np.testing.assert_array_equal(second.predict(X), first.predict(X))


def test_names_that_were_given_count(tmp_path):
    def dense(*names):
        return keras.Sequential([keras.Input((3,)), *(layers.Dense(3, name=n) for n in names)])

    dense("a", "b").save_weights(tmp_path / "w.npz")
    with pytest.raises(ValueError, match="do not belong together"):
        dense("b", "c").load_weights(tmp_path / "w.npz")
    # order within a kind is that of the numbers, not of the file
    first, second = dense("d_9", "d_10"), dense("d_1", "d")
    first.save_weights(tmp_path / "w.npz")
    second.load_weights(tmp_path / "w.npz")
    np.testing.assert_array_equal(second.layers[1].kernel, first.layers[0].kernel)


def test_files_are_asked_for_by_keras_words(tmp_path):
    model = compiled()
    model.save(filepath=tmp_path / "m.keras", overwrite=True)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "m.keras", overwrite=False)
    with pytest.raises(FileExistsError):
        keras.saving.save_model(model, tmp_path / "m.keras", False)
    model.save_weights(filepath=tmp_path / "w.npz")
    with pytest.raises(FileExistsError):
        model.save_weights(tmp_path / "w.npz", overwrite=False)
    again = keras.saving.load_model(tmp_path / "m.keras", custom_objects={}, safe_mode=True)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))

    @keras.saving.register_keras_serializable(package="mine")
    class OfAKerasScript(layers.Dense):
        pass

    assert OfAKerasScript.__name__ == "OfAKerasScript"
    objects = {"OfAKerasScript": OfAKerasScript}
    with keras.saving.custom_object_scope(objects):
        keras.models.load_model(tmp_path / "m.keras", objects)
    with pytest.raises(ValueError, match="by its own name"):
        keras.models.load_model(tmp_path / "m.keras", {"Other": OfAKerasScript})
    model.export(filepath=tmp_path / "m.onnx", format="onnx")
    with pytest.raises(ValueError, match="unknown format"):
        model.export(tmp_path / "m.tf", format="tf_saved_model")


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_models_are_copied_and_pickled_whole(way):
    model = compiled()
    model.fit(X, Y, verbose=0)
    twin = way(model)
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    for each in (model, twin):  # the optimizer goes with it
        each.fit(X, Y, verbose=0, shuffle=False)
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert twin.layers[0].kernel.value is not model.layers[0].kernel.value


# -- models ---------------------------------------------------------------------------------------


def test_methods_that_would_never_run_are_refused():
    for method in ("train_step", "compute_loss", "call"):
        with pytest.raises(TypeError, match=rf"M\.{method} would never be called.*no_autograd"):
            type("M", (keras.Model,), {method: lambda self, data: None})
    for base in (layers.Layer, layers.Dense):
        with pytest.raises(TypeError, match=r"L\.call would never be called.*NumpyLayer"):
            type("L", (base,), {"call": lambda self, x: x})
    with pytest.raises(TypeError, match="update_step would never"):
        type("O", (keras.optimizers.SGD,), {"update_step": lambda self: None})


def test_what_a_model_tells():
    model = compiled()
    assert len(model.variables) == len(model.trainable_variables) == 4
    assert model.non_trainable_variables == []
    assert [type(m).__name__ for m in model.metrics] == ["SparseCategoricalAccuracy"]
    model.reset_metrics()
    assert model.compute_output_shape((None, 8, 8, 1)) == (None, 3)
    conv = model.layers[0]
    assert conv.compute_output_shape((5, 8, 8, 1)) == (5, 6, 6, 4)
    first = layers.Conv2D(4, 3, data_format="channels_first")
    first(keras.Input((1, 8, 8)))
    assert first.compute_output_shape((None, 1, 8, 8)) == (None, 4, 6, 6)
    add = layers.Add()
    assert add.compute_output_shape([(None, 3), (None, 3)]) == (None, 3)
    weight = conv.kernel
    assert weight is conv.weight
    assert (weight.path, weight.dtype) == (weight.name, "float32")
    np.testing.assert_array_equal(np.asarray(weight), weight.value)
    copied = weight.numpy()
    copied += 1
    assert (copied != weight.value).all()
    assert conv.activation.__name__ == "relu"
    model.summary(print_fn=lambda text: None, layer_range=None)
    with pytest.raises(ValueError, match="layer_range"):
        model.summary(layer_range=["a", "b"])


def test_outputs_are_called_after_the_models_that_make_them():
    def tower(name):
        return keras.Sequential([keras.Input((4,)), layers.Dense(2, name=f"{name}_d")], name=name)

    x = keras.Input((4,))
    model = keras.Model([[x]], [tower("left")(x), tower("right")(x)])
    model.compile("sgd", {"left": "mse", "right": "mae"}, loss_weights={"left": 1.0, "right": 2.0})
    assert model.metrics_names == ["loss", "left_loss", "right_loss"]


def test_arithmetic_makes_layers(tmp_path):
    x = keras.Input((3,))
    y = layers.Dense(3, use_bias=False)(x)
    cases = {
        "sum": (y + x, lambda a, b: a + b),
        "difference": (y - x, lambda a, b: a - b),
        "scaled": (np.float32(2) * y / 4 + 1, lambda a, b: a / 2 + 1),
        "turned": (3 - -y, lambda a, b: 3 + a),
    }
    model = keras.Model(x, [found for found, _ in cases.values()])
    data = rng.standard_normal((5, 3))
    a = data @ model.get_weights()[0]
    for found, (_, want) in zip(model.predict(data), cases.values(), strict=True):
        np.testing.assert_allclose(found, want(a, data), rtol=1e-4, atol=1e-5)
    model.export(tmp_path / "m.onnx")
    for wrong in (lambda: y * x, lambda: y / x, lambda: y + "a", lambda: y * np.ones(3)):
        with pytest.raises(TypeError, match=r"layer of your own|unsupported operand"):
            wrong()


def test_tensors_and_inputs():
    x = keras.Input(shape=(8, 8, 1), name="image", dtype="uint8")
    assert (x.name, x.dtype, x.ndim, x.shape) == ("image", "float32", 4, (None, 8, 8, 1))
    assert keras.Input(batch_shape=(None, 3)).shape == (None, 3)
    for arguments, words in (
        ({"shape": (3,), "batch_size": 4}, "batch_size"),
        ({"batch_shape": (4, 3)}, "batch_size"),
        ({"shape": (3,), "dtype": "str"}, "real numbers"),
        ({"shape": (3,), "batch_shape": (None, 3)}, "not both"),
        ({}, "needs the shape"),
    ):
        with pytest.raises(ValueError, match=words):
            keras.Input(**arguments)


def test_validation_has_the_batch_of_training():
    model = compiled()
    sizes = []

    class Count(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            sizes.append(batch)

    model.fit(X, Y, batch_size=2, validation_split=0.5, verbose=0, callbacks=[Count()])
    assert sizes == [0, 1, 2]


# -- layers, activations, losses ------------------------------------------------------------------


def test_names_of_layers():
    assert layers.MaxPool2D is layers.MaxPooling2D
    assert layers.GlobalAvgPool2D is layers.GlobalAveragePooling2D
    assert layers.Convolution2D is layers.Conv2D
    for name, words in (
        ("Lambda", "NumpyLayer"),
        ("LSTM", "images"),
        ("Conv2d", "did you mean Conv2D"),
        ("nonsense", "has no 'nonsense'"),
    ):
        with pytest.raises(AttributeError, match=words):
            getattr(layers, name)
    for name in ("Layer", "Loss", "Metric", "Optimizer", "Initializer", "Regularizer"):
        assert inspect.isclass(getattr(keras, name))


def test_arguments_of_habit():
    layers.Activation("softmax", dtype="float32")
    with pytest.raises(ValueError, match="float32"):
        layers.Dense(3, dtype="float16")
    assert layers.LeakyReLU(alpha=0.2).negative_slope == 0.2
    layers.Dropout(0.5, noise_shape=None)
    with pytest.raises(ValueError, match="noise_shape"):
        layers.Dropout(0.5, noise_shape=(1, 2))
    keras.optimizers.Adam(gradient_accumulation_steps=None, loss_scale_factor=None)
    with pytest.raises(ValueError, match="accumulate_steps"):
        keras.optimizers.Adam(gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="InverseTimeDecay"):
        keras.optimizers.SGD(decay=1e-6)
    with pytest.raises(ValueError, match="called learning_rate"):
        keras.optimizers.SGD(lr=0.1)
    assert isinstance(initializers.he_normal(), initializers.HeNormal)
    assert len(utils.PyDataset.__init__.__defaults__) == 3

    class Batches(utils.PyDataset):
        def __init__(self, **kwargs):
            super().__init__(workers=2, max_queue_size=4, **kwargs)

        @property
        def num_batches(self):
            return 2

        def __getitem__(self, index):
            return X[index::2], Y[index::2]

    compiled().fit(Batches(), verbose=0)


@pytest.mark.parametrize("f", activations.NAMES.values(), ids=lambda f: f.name)
def test_activations_are_functions(f):
    assert getattr(activations, f.name) is f
    layer = layers.Activation(f)
    x = rng.standard_normal((5, 7)) * 3
    np.testing.assert_allclose(f(x), layer(x), rtol=1e-5, atol=1e-6)


def test_a_penalty_that_cannot_be_is_refused_where_the_weight_is_made():
    conv = layers.Conv2D(2, 3, name="conv", kernel_regularizer="orthogonal_regularizer")
    with pytest.raises(ValueError, match="conv/kernel: OrthogonalRegularizer takes a matrix"):
        conv(keras.Input((8, 8, 1)))


def test_an_activation_may_be_a_layer():
    dense = layers.Dense(3, activation=layers.LeakyReLU(0.1))
    assert dense.activation.alpha == 0.1
    again = layers.Dense.from_config(dense.get_config())
    assert again.activation == dense.activation
    with pytest.raises(ValueError, match="needs its derivative"):
        layers.Dense(3, activation=lambda x: x)


def test_functions_of_losses_take_settings_by_position():
    t, z = np.eye(3)[[0, 1]], rng.standard_normal((2, 3))
    found = losses.binary_crossentropy(t, z, True)
    np.testing.assert_allclose(found, losses.binary_crossentropy(t, z, from_logits=True))
    found = losses.SparseCategoricalCrossentropy(True, None, "sum")([0, 1], z)
    assert found == pytest.approx(
        losses.sparse_categorical_crossentropy([0, 1], z, from_logits=True).sum(), rel=1e-5
    )


# -- metrics --------------------------------------------------------------------------------------


def test_mean_and_sum_of_a_loop():
    mean, total = metrics.Mean(), metrics.Sum()
    for metric in (mean, total):
        metric.update_state([1.0, 3.0])
        metric.update_state(6.0, 2)
    assert mean.result() == (1 + 3 + 12) / 4
    assert total.result() == 16
    mean.reset_state()
    assert mean(5.0) == 5
    same = metrics.Accuracy()
    same.update_state([[1], [2], [3]], [[1], [2], [0]])
    assert same.result() == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="loop of your own"):
        network().compile("sgd", "mse", metrics=[metrics.Mean()])


def test_a_metric_that_updates_itself():
    class Share(metrics.Metric):
        """Keras' contract, in numpy."""

        def __init__(self, name="share", **kwargs):
            super().__init__(name=name, **kwargs)
            self.hits = self.count = 0

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.hits += (y_pred.argmax(axis=-1) == y_true.ravel()).sum()
            self.count += len(y_pred)

        def result(self):
            return self.hits / self.count

        def reset_state(self):
            self.hits = self.count = 0

    class Argmax(metrics.MeanIoU):
        """The usual way to an IoU of what a softmax gives."""

        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(y_true.ravel(), y_pred.argmax(axis=-1), sample_weight)

    model = network()
    given = ["accuracy", Share(), Argmax(num_classes=3)]
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=given)
    history = model.fit(X, Y, epochs=2, batch_size=5, verbose=0, validation_data=(X, Y)).history
    assert history["share"] == history["accuracy"]
    found = model.evaluate(X, Y, batch_size=5, verbose=0, return_dict=True)
    assert found["share"] == found["accuracy"] == history["val_share"][-1]
    iou = metrics.MeanIoU(3)
    iou.update_state(Y, model.predict(X).argmax(axis=-1))
    assert found["mean_io_u"] == pytest.approx(iou.result())


# -- switches -------------------------------------------------------------------------------------


def test_schedules_of_the_epoch_alone():
    model = compiled()
    rates = []

    class See(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rates.append(self.model.optimizer.learning_rate)

    for schedule in (lambda epoch: 0.1 * 0.5**epoch, lambda epoch, rate: rate * 0.5):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[LearningRateScheduler(schedule), See()])
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_switches():
    assert keras.config.floatx() == keras.backend.floatx() == "float32"
    assert keras.config.image_data_format() == "channels_last"
    assert backend.backend() == "fastconv"
    backend.set_epsilon(1e-7)
    with pytest.raises(ValueError, match="epsilon"):
        backend.set_epsilon(1e-5)
    utils.clear_session()
    assert layers.Dense(2).name == "dense"
    assert models.Model is keras.Model

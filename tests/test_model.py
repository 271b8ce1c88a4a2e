"""What a user does with a model: build, train, ask, hold, and get wrong."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers


def small_net(seed=0, dropout=0.25):
    fc.set_random_seed(seed)
    return fc.Sequential(
        [
            layers.Input((12, 12, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.Conv2D(17, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(dropout),
            layers.Flatten(),
            layers.Dense(13, activation="relu"),
            layers.Dense(4, activation="softmax"),
        ]
    )


def toy_data(n=96, seed=1):
    """Images whose bright quarter is the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    x = rng.random((n, 12, 12, 1), dtype=np.float32) * 0.3
    for image, label in zip(x, y, strict=True):
        row, column = divmod(label, 2)
        image[6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 0.7
    return x, y


def trained(threads, batch=32):
    old = fc.get_num_threads()
    fc.set_num_threads(threads)
    try:
        model = small_net()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(*toy_data(), batch_size=batch, epochs=2, verbose=0)
        return model, history
    finally:
        fc.set_num_threads(old)


def test_learns():
    model = small_net()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(*toy_data(400), epochs=6, verbose=0, validation_split=0.2)
    assert history.history["accuracy"][-1] > 0.95
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    loss, accuracy = model.evaluate(*toy_data(100, seed=2), verbose=0)
    assert accuracy > 0.95
    assert loss < 0.5


@pytest.mark.parametrize("threads", [2, 3, 4, 7, 16])
def test_same_bits_for_any_number_of_threads(threads):
    reference, history = trained(1)
    model, other = trained(threads)
    assert history.history == other.history
    for a, b in zip(reference.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_sample_has_the_same_bits_in_any_batch():
    model = small_net()
    x, _ = toy_data(37)
    whole = model.predict(x)
    for batch in (1, 2, 5, 37):
        np.testing.assert_array_equal(model.predict(x, batch_size=batch), whole)
    np.testing.assert_array_equal(model.predict(x[20:21])[0], whole[20])
    np.testing.assert_array_equal(model.forward(x[3:9])[0], whole[3:9])


def test_nothing_is_allocated_after_the_first_step():
    model = small_net()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = toy_data(64)
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    gc.collect()
    tracemalloc.start()
    try:
        model.fit(x, y, batch_size=8, epochs=1, verbose=0)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        model.fit(x, y, batch_size=8, epochs=4, verbose=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    plan, _ = model._plan("fit", [x])
    arena = plan.borrow(8).native.nbytes
    assert arena > 100_000  # the arena would show
    assert peak - before < 20_000, "a step of training allocates"


def test_passes_that_are_alive_together():
    model = small_net(dropout=0.5)
    x, _ = toy_data(8)
    fc.set_random_seed(5)
    y1, first = model.forward(x[:4], training=True)
    y2, second = model.forward(x[4:], training=True)
    dx2 = model.backward(second, np.ones_like(y2) * [1, 0, 0, 0])
    g2 = [p.grad.copy() for p in model.parameters() if p.trainable]
    dx1 = model.backward(first, np.ones_like(y1) * [0, 1, 0, 0])
    g1 = [p.grad.copy() for p in model.parameters() if p.trainable]

    fc.set_random_seed(5)
    for data, dy, dx, grads in ((x[:4], [0, 1, 0, 0], dx1, g1), (x[4:], [1, 0, 0, 0], dx2, g2)):
        y, handle = model.forward(data, training=True)
        np.testing.assert_array_equal(model.backward(handle, np.ones_like(y) * dy), dx)
        for parameter, grad in zip(
            [p for p in model.parameters() if p.trainable], grads, strict=True
        ):
            np.testing.assert_array_equal(parameter.grad, grad)
    with pytest.raises(ValueError, match="backward once"):
        model.backward(first, y1)


def test_accumulate_adds_gradients():
    model = small_net(dropout=0.0)
    x, _ = toy_data(8)
    parameters = [p for p in model.parameters() if p.trainable]

    def grads(data, accumulate=False):
        y, handle = model.forward(data)
        model.backward(handle, np.cos(np.arange(y.size).reshape(y.shape)), accumulate)
        return [p.grad.copy() for p in parameters]

    a = grads(x[:4])
    b = grads(x[4:])
    grads(x[:4])
    both = grads(x[4:], accumulate=True)
    for one, two, total in zip(a, b, both, strict=True):
        np.testing.assert_allclose(total, one + two, rtol=1e-4, atol=1e-5 * np.abs(total).max())


def test_arrays_that_users_hold_are_theirs():
    model = small_net()
    x, _ = toy_data(6)
    y = model.predict(x)
    kept = y.copy()
    outputs, handle = model.forward(x)
    held = outputs.copy()
    dx = model.backward(handle, outputs)
    dx_kept = dx.copy()
    weights = model.get_weights()
    views = [p.value for p in model.parameters()]
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(*toy_data(), epochs=1, verbose=0)
    model.predict(x[::-1])
    model.backward(model.forward(x[::-1])[1], outputs)
    np.testing.assert_array_equal(y, kept)
    np.testing.assert_array_equal(outputs, held)
    np.testing.assert_array_equal(dx, dx_kept)
    assert any((a != b).any() for a, b in zip(weights, model.get_weights(), strict=True))
    for view, parameter in zip(views, model.parameters(), strict=True):
        assert view is parameter.value


def test_a_batch_size_of_none_is_keras_default():
    model, (x, y) = compiled(), toy_data(40)
    assert model.fit(x, y, batch_size=None, verbose=0).params["steps"] == 2
    assert model.evaluate(x, y, batch_size=None, verbose=0) == model.evaluate(x, y, verbose=0)


def test_input_arrays_are_not_kept():
    model = compiled()
    x, y = toy_data(8)
    held = weakref.ref(x), weakref.ref(y)
    model.fit(x, y, verbose=0)
    model.predict(x)
    del x, y
    gc.collect()
    assert held[0]() is None
    assert held[1]() is None


def test_input_arrays_are_not_changed():
    model = small_net()
    x, y = toy_data(16)
    x.setflags(write=False)
    y.setflags(write=False)
    copy = x.copy()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    model.predict(x)
    np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize(
    "change", ["fortran", "byteswapped", "strided", "uint8", "float16", "list"]
)
def test_any_real_array_is_read(change):
    model = small_net()
    x, _ = toy_data(10)
    x = np.round(x * 200)
    want = model.predict(x.astype(np.float32))
    given = {
        "fortran": lambda: np.asfortranarray(x),
        "byteswapped": lambda: x.astype(">f4"),
        "strided": lambda: np.repeat(x, 2, axis=0)[::2],
        "uint8": lambda: x.astype(np.uint8),
        "float16": lambda: x.astype(np.float16),
        "list": lambda: x.tolist(),
    }[change]()
    np.testing.assert_array_equal(model.predict(given), want)


def test_images_of_one_channel_may_come_without_it():
    model = small_net()
    x, _ = toy_data(5)
    np.testing.assert_array_equal(model.predict(x[..., 0]), model.predict(x))


def test_two_threads_on_one_model_take_turns():
    model = small_net()
    x, _ = toy_data(64)
    want = model.predict(x)
    wrong = []

    def ask():
        for _ in range(20):
            if not np.array_equal(model.predict(x), want):
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_functional_model_with_several_inputs_and_outputs():
    fc.set_random_seed(0)
    a, b = fc.Input((8, 8, 2), name="left"), fc.Input((5,), name="right")
    conv = layers.Conv2D(3, 3, activation="relu")(a)
    flat = layers.Concatenate()([layers.Flatten()(conv), b])
    label = layers.Dense(3, activation="softmax", name="label")(flat)
    size = layers.Dense(1, name="size")(flat)
    model = fc.Model([a, b], [label, size])
    model.compile(
        "adam",
        loss={"label": "sparse_categorical_crossentropy", "size": "mse"},
        metrics={"label": ["accuracy"]},
        loss_weights={"label": 1.0, "size": 0.5},
    )
    rng = np.random.default_rng(0)
    x = {"left": rng.random((40, 8, 8, 2)), "right": rng.random((40, 5))}
    y = {"label": rng.integers(0, 3, 40), "size": rng.random(40)}
    history = model.fit(x, y, epochs=3, verbose=0)
    assert set(history.history) == {"loss", "label_loss", "size_loss", "label_accuracy"}
    last = {name: values[-1] for name, values in history.history.items()}
    assert last["loss"] == pytest.approx(last["label_loss"] + 0.5 * last["size_loss"])
    first, second = model.predict([x["left"], x["right"]])
    assert first.shape == (40, 3)
    assert second.shape == (40, 1)


def test_outputs_of_one_layer_have_names_of_their_own():
    x = fc.Input((2,))
    one, other = layers.Dense(2, name="d"), layers.Dense(2, name="d_2")
    model = fc.Model(x, [one(x), other(x), one(other(x)), one(one(x))])
    model.compile("sgd", "mse")
    logs = model.evaluate(np.ones((1, 2)), [np.ones((1, 2))] * 4, verbose=0, return_dict=True)
    assert list(logs) == ["loss", "d_loss", "d_2_loss", "d_1_loss", "d_3_loss"]


def test_symbolic_spatial_sizes():
    fc.set_random_seed(0)
    x = fc.Input((None, None, 3))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    y = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2)(y))
    model = fc.Model(x, layers.Dense(2)(y))
    for size in ((8, 8), (11, 6), (8, 8)):
        assert model.predict(np.ones((2, *size, 3))).shape == (2, 2)
    with pytest.raises(ValueError, match="flatten_of_unknown needs known sizes"):
        layers.Dense(3)(layers.Flatten(name="flatten_of_unknown")(x))


def test_shared_layer_sums_its_gradients():
    fc.set_random_seed(0)
    a, b = fc.Input((4,)), fc.Input((4,))
    shared = layers.Dense(3, use_bias=False)
    model = fc.Model([a, b], layers.Add()([shared(a), shared(b)]))
    rng = np.random.default_rng(0)
    x, z = rng.random((2, 5, 4), dtype=np.float32)
    y, handle = model.forward([x, z])
    dy = rng.random(y.shape, dtype=np.float32)
    model.backward(handle, dy)
    np.testing.assert_allclose(shared.weight.grad, x.T @ dy + z.T @ dy, rtol=1e-5)


def test_frozen_layers_stay():
    model = small_net()
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(*toy_data(), epochs=1, verbose=0)
    after = model.get_weights()
    frozen = sum(len(layer.parameters) for layer in model.layers[:2])
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        assert np.array_equal(a, b) == (i < frozen), i


def test_a_frozen_model_stays():
    model = compiled()
    before = model.get_weights()
    model.trainable = False
    model.fit(*toy_data(), verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.trainable = True
    model.fit(*toy_data(), verbose=0)
    assert not np.array_equal(before[0], model.get_weights()[0])


class Square(layers.Layer):
    """A user's own layer: y = scale · x², in numpy, as a Python step."""

    def build(self, shape):
        self.scale = self.add_parameter("scale", shape[-1:], fc.initializers.Ones())

    def output_shape(self, shape):
        return shape

    def forward(self, b, frame):
        x = frame.inputs[0]
        y = b.value(x.shape)
        b.python(self._forward, reads=[x, self.scale], writes=[y])
        return y

    def _forward(self, arrays, training):
        x, scale, y = arrays
        y[...] = scale * x**2

    def backward(self, b, frame, dy):
        x = frame.inputs[0]
        dx = b.value(x.shape)
        b.python(self._backward, reads=[x, self.scale, dy], writes=[dx], gradients=[self.scale])
        return [dx]

    def _backward(self, arrays, training):
        x, scale, dy, dx, dscale = arrays
        dx[...] = 2 * scale * x * dy
        dscale += (dy * x**2).reshape(-1, dscale.size).sum(0)


def test_own_layer_in_python():
    fc.set_random_seed(0)
    x = fc.Input((3, 4))
    own = Square()
    model = fc.Model(x, own(layers.Dense(5)(x)))
    data = np.random.default_rng(0).random((6, 3, 4), dtype=np.float32)
    inner = data @ model.layers[1].weight.value + model.layers[1].bias.value
    y, handle = model.forward(data)
    np.testing.assert_allclose(y, inner**2, rtol=1e-5)
    model.backward(handle, np.ones_like(y))
    np.testing.assert_allclose(own.scale.grad, (inner**2).reshape(-1, 5).sum(0), rtol=1e-5)
    y, handle = model.forward(data)
    model.backward(handle, np.ones_like(y), accumulate=True)
    np.testing.assert_allclose(own.scale.grad, 2 * (inner**2).reshape(-1, 5).sum(0), rtol=1e-5)


def test_own_layer_writes_into_a_concatenation():
    class Placed(Square):
        def forward(self, b, frame):
            x = frame.inputs[0]
            y = b.output(x.shape)  # its slice of the concatenation
            b.python(self._forward, reads=[x, self.scale], writes=[y])
            return y

    x = fc.Input((2, 3))
    model = fc.Model(x, layers.Concatenate()([layers.Rescaling(3)(x), Placed()(x)]))
    data = np.random.default_rng(0).random((4, 2, 3), dtype=np.float32)
    expected = np.concatenate([3 * data, data**2], axis=-1)
    np.testing.assert_allclose(model.predict(data), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"output_shape": lambda self, shape: (7,)}, "forward returns .* 3.* where .* 7"),
        ({"backward": lambda self, b, frame, dy: []}, "backward returns 0 gradients"),
        ({"backward": lambda self, b, frame, dy: [b.value((4,))]}, "backward returns .* 4"),
    ],
)
def test_an_own_layer_that_contradicts_itself_is_named(method, words):
    x = fc.Input((3,))
    own = type("Contrary", (Square,), method)(name="contrary")
    with pytest.raises(ValueError, match=f"contrary: {words}"):
        fc.Model(x, own(x)).forward(np.ones((2, 3)))


def test_the_first_layer_has_no_input_gradient():
    model = compiled()
    x, y = toy_data(8)
    model.train_on_batch(x, y)
    plan, _ = model._plan("fit", [x])
    steps = [type(step).__name__ for step in plan.backward.steps]
    assert steps.count("ConvWeightGradient") == 4
    assert steps.count("ConvInputGradient") == 3


def test_an_error_in_an_own_layer_reaches_the_user():
    class Broken(Square):
        def _forward(self, arrays, training):
            raise RuntimeError("on purpose")

    x = fc.Input((3,))
    model = fc.Model(x, Broken()(x))
    with pytest.raises(RuntimeError, match="on purpose"):
        model.predict(np.ones((2, 3)))


@pytest.mark.parametrize("of", ["model", "layer"])
def test_weights_are_set_all_or_none(of):
    model = small_net()
    target = model if of == "model" else model.layers[-1]
    before = target.get_weights()
    wrong = [np.zeros_like(value) for value in before]
    wrong[-1] = wrong[-1].astype(str)
    with pytest.raises(ValueError, match="real numbers"):
        target.set_weights(wrong)
    for a, b in zip(before, target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_summary_and_counts(capsys):
    model = small_net()
    model.summary()
    text = capsys.readouterr().out
    assert "conv2d" in text
    assert f"{model.count_params():,}" in text
    assert model.count_params() == sum(w.size for w in model.get_weights())


def test_sequential_without_an_input_is_built_by_data():
    model = fc.Sequential([layers.Flatten(), layers.Dense(3)])
    with pytest.raises(ValueError, match="no input shape"):
        model.count_params()
    assert model.predict(np.ones((2, 4, 5))).shape == (2, 3)
    assert model.count_params() == 63


def test_a_layer_that_does_not_fit_leaves_the_model_as_it_was():
    model = fc.Sequential([layers.Input((4, 4, 1)), layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="does not fit"):
        model.add(layers.Conv2D(2, 5))
    assert len(model.layers) == 1
    assert model.predict(np.ones((1, 4, 4, 1))).shape == (1, 2, 2, 2)


def compiled():
    model = small_net()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


X, Y = toy_data(8)
BAD = {
    "wrong rank": (lambda: compiled().predict(X[0, 0]), "shape"),
    "wrong size": (lambda: compiled().predict(X[:, 1:]), r"\(None, 12, 12, 1\)"),
    "wrong channels": (lambda: compiled().predict(np.repeat(X, 3, -1)), "shape"),
    "complex": (lambda: compiled().predict(X.astype(complex)), "complex"),
    "strings": (lambda: compiled().predict(np.full(X.shape, "a")), "real numbers"),
    "objects": (lambda: compiled().predict(X.astype(object)), "object"),
    "no samples": (lambda: compiled().predict(X[:0]), "no samples"),
    "empty fit": (lambda: compiled().fit(X[:0], Y[:0]), "no samples"),
    "lengths": (lambda: compiled().fit(X, Y[:5]), "different lengths"),
    "label too large": (lambda: compiled().fit(X, Y + 4), r"0\.\.3"),
    "label negative": (lambda: compiled().fit(X, Y - 1), r"0\.\.3"),
    "label fractions": (lambda: compiled().fit(X, Y + 0.5), "whole"),
    "one-hot for sparse": (lambda: compiled().fit(X, np.eye(4)[Y]), "categorical_crossentropy"),
    "batch size": (lambda: compiled().fit(X, Y, batch_size=0), "batch_size"),
    "epochs": (lambda: compiled().fit(X, Y, epochs=-1), "epochs"),
    "split": (lambda: compiled().fit(X, Y, validation_split=1.5), "validation_split"),
    "split empty": (lambda: compiled().fit(X, Y, validation_split=0.999), "empty"),
    "verbose": (lambda: compiled().fit(X, Y, verbose=3), "verbose"),
    "not compiled": (lambda: small_net().fit(X, Y), "compile"),
    "optimizer": (lambda: small_net().compile("adm", "mse"), "did you mean 'adam'"),
    "loss": (lambda: small_net().compile("adam", "mean_square_error"), "mean_squared_error"),
    "metric": (lambda: small_net().compile("adam", "mse", metrics=["accurcy"]), "accuracy"),
    "activation": (lambda: layers.Dense(3, activation="rellu"), "did you mean 'relu'"),
    "initializer": (lambda: layers.Dense(3, kernel_initializer="he"), "he_normal"),
    "one sample": (lambda: compiled().predict(X[0]), r"not \(12, 12, 1\); one sample .* x\[None\]"),
    "input_shape": (
        lambda: layers.Dense(3, input_shape=(4,), name="first")(fc.Input((5,))),
        r"first was told input_shape=\(4,\)",
    ),
    "argument": (lambda: layers.Conv2D(3, 3, stride=2), "did you mean 'strides'"),
    "filters": (lambda: layers.Conv2D(0, 3), "filters"),
    "kernel": (lambda: layers.Conv2D(3, -1), "kernel_size"),
    "kernel rank": (lambda: layers.Conv2D(3, (1, 2, 3)), "kernel_size"),
    "strides": (lambda: layers.Conv2D(3, 3, strides=0), "strides"),
    "padding": (lambda: layers.Conv2D(3, 3, padding="vald"), "did you mean 'valid'"),
    "groups": (lambda: layers.Conv2D(4, 3, groups=3), "groups"),
    "group channels": (lambda: layers.Conv2D(4, 3, groups=2)(fc.Input((5, 5, 3))), "groups"),
    "output size": (lambda: layers.Conv2D(4, 7)(fc.Input((5, 5, 3))), "does not fit"),
    "pool size": (lambda: layers.MaxPooling2D(7)(fc.Input((5, 5, 3))), "does not fit"),
    "overflow": (lambda: layers.Dense(2**40)(fc.Input((2**40,))), "2\\^48"),
    "input overflow": (lambda: fc.Input((2**30, 2**30, 3)), "2\\^48"),
    "input shape": (lambda: fc.Input((28, 0, 1)), "shape"),
    "dropout": (lambda: layers.Dropout(1.0), "rate"),
    "data_format": (lambda: layers.Conv2D(3, 3, data_format="first"), "channels_first"),
    "rank of conv": (lambda: layers.Conv2D(3, 3)(fc.Input((5,))), "images"),
    "words into a layer": (lambda: layers.Dense(3)(np.array([["a"]])), "arrays of numbers"),
    "an array and a tensor": (
        lambda: layers.Add()([X, fc.Input((12, 12, 1))]),
        "not on both",
    ),
    "add": (lambda: layers.Add()([fc.Input((3,)), fc.Input((4,))]), "one shape"),
    "concatenate": (
        lambda: layers.Concatenate()([fc.Input((3, 4)), fc.Input((4, 4))]),
        "differ",
    ),
    "reshape": (lambda: layers.Reshape((5, 5))(fc.Input((4, 4))), "do not fill"),
    "seed": (lambda: fc.set_random_seed(-1), "seed"),
    "memory": (lambda: layers.Dense(2**23)(fc.Input((2**24,))), "dense.*does not fit into memory"),
    "floatx": (lambda: fc.set_floatx("float16"), "float32"),
    "dy shape": (
        lambda: (lambda m: m.backward(m.forward(X)[1], np.ones((8, 5))))(small_net()),
        r"\(8, 4\)",
    ),
    "dy complex": (
        lambda: (lambda m: m.backward(m.forward(X)[1], np.ones((8, 4), complex)))(small_net()),
        "complex",
    ),
    "pass of another": (
        lambda: small_net().backward(small_net().forward(X)[1], np.ones((8, 4))),
        "pass",
    ),
    "predict's batch size": (lambda: compiled().predict(X, batch_size=0), "batch_size"),
    "rows of two lengths": (lambda: compiled().predict([[1, 2], [3]]), "x for input"),
    "pool window": (
        lambda: fc.Sequential(
            [fc.Input((300, 300, 1)), layers.MaxPooling2D(300, name="wide")]
        ).forward(np.ones((1, 300, 300, 1))),
        "wide: a window of 90000 pixels",
    ),
    "weights": (lambda: small_net().set_weights([np.ones(3)]), "parameters"),
    "layer name": (lambda: small_net().get_layer("dens"), "did you mean"),
    "missing input": (lambda: fc.Model(fc.Input((3,)), layers.Dense(2)(fc.Input((3,)))), "Input"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_names_the_culprit(what):
    act, words = BAD[what]
    with pytest.raises(ValueError, match=words):
        act()


def test_interrupt_leaves_the_model_usable(monkeypatch):
    model = compiled()
    calls = []
    apply = model.optimizer.apply

    def interrupted():
        apply()
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(model.optimizer, "apply", interrupted)
    x, y = toy_data(64)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=8, verbose=0)
    assert len(calls) == 2
    monkeypatch.undo()
    model.fit(x, y, batch_size=8, verbose=0)
    assert np.isfinite(model.predict(x)).all()

"""`check_gradients`: it passes what is right, and says what is wrong with what is not."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import checking, layers, losses, own, regularizers
from fastconv.checking import GradientError


class Scale(layers.Layer):
    """y = scale · x², whose gradients tests spoil."""

    dx = staticmethod(lambda x, scale, dy: 2 * scale * x * dy)
    dscale = staticmethod(lambda x, dy: (dy * x**2).sum(axis=(0, 1)))

    def build(self, shape):
        self.scale = self.add_parameter("scale", shape[-1:], fc.initializers.Ones())

    def output_shape(self, shape):
        return shape

    def forward(self, b, frame):
        y = b.value(frame.inputs[0].shape)
        b.python(self._forward, reads=[frame.inputs[0], self.scale], writes=[y])
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
        dx[...] = self.dx(x, scale, dy)
        dscale += self.dscale(x, dy)


def edge(x, scale, dy):
    dx = 2 * scale * x * dy
    dx[0, 0, 0] = 0
    return dx


def spoiled(**parts):
    """A layer like `Scale` with other gradients."""
    return type("Spoiled", (Scale,), {k: staticmethod(v) for k, v in parts.items()})(name="own")


def times(factor, *where):
    """A gradient at the input of which a part is so many times what it should be."""

    def dx(x, scale, dy):
        dx = 2 * scale * x * dy
        dx[where] *= factor
        return dx

    return {"dx": dx}


def frame(x, scale, dy):
    dx = np.zeros_like(dy)
    dx[:, 1:-1, 1:-1] = (2 * scale * x * dy)[:, 1:-1, 1:-1]
    return dx


ALL = slice(None)
PLACES = {  # what is off → where it is said to be, and how
    "a sample": (times(0, 2), (5, 4), "all of sample 2 is off, and nothing else.*zeros"),
    "a channel": (times(3, ..., 1), (5, 4), "all of channel 1 is off.*is 3 times what"),
    "a row": (times(-1, ALL, 0), (6, 5, 4), "all of row 0 is off.*the sign is wrong"),
    "two columns": (times(0, ALL, ALL, [0, 4]), (6, 5, 4), "all of columns 0, 4 is off"),
    "a row of a channel": (times(0, ALL, 5, ALL, 3), (6, 5, 4), "all of channel 3 of row 5 is off"),
    "the edge": ({"dx": frame}, (6, 5, 4), "the edge along rows and columns is off"),
}


@pytest.mark.parametrize("what", PLACES)
def test_rows_channels_and_samples_are_named(what):
    parts, shape, words = PLACES[what]
    if len(shape) > 2:
        parts = {**parts, "dscale": lambda x, dy: (dy * x**2).sum(axis=(0, 1, 2))}
    with pytest.raises(GradientError, match=words):
        fc.check_gradients(spoiled(**parts), input_shape=shape)


def test_one_channel_of_a_parameter_is_named():
    def dscale(x, dy):
        found = (dy * x**2).sum(axis=(0, 1))
        found[1] *= 3
        return found

    with pytest.raises(GradientError, match=r"own/scale: all of channel 1 is off.* 3 times"):
        fc.check_gradients(spoiled(dscale=dscale), input_shape=(5, 4))


WRONG = {
    "a factor": ({"dx": lambda x, scale, dy: scale * x * dy}, "input", "0.5 times"),
    "the sign": ({"dx": lambda x, scale, dy: -2 * scale * x * dy}, "input", "sign is wrong"),
    "a mean": ({"dscale": lambda x, dy: (dy * x**2).mean(axis=(0, 1))}, "own/scale", "times"),
    "nothing": ({"dscale": lambda x, dy: 0 * x[0, 0]}, "own/scale", "zeros"),
    "an edge": ({"dx": edge}, "input", r"1 of \d+ elements are off.*\(0, 0, 0\)"),
    "NaN": ({"dx": lambda x, scale, dy: np.nan * x}, "input", "NaN"),
    "a term": ({"dx": lambda x, scale, dy: 2 * scale * x * dy + 1}, "input", "same amount"),
    "all": ({"dx": lambda x, scale, dy: x**3}, "input", "in no simple way"),
}


def test_right_gradients_pass():
    report = fc.check_gradients(Scale(), input_shape=(5, 4))
    assert report
    assert [row.shape for row in report.rows] == [(3, 5, 4), (4,)]
    assert max(row.error for row in report.rows) < 1e-7
    assert "own" not in str(report)


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what):
    parts, name, words = WRONG[what]
    with pytest.raises(GradientError, match=words) as caught:
        fc.check_gradients(spoiled(**parts), input_shape=(5, 4))
    (wrong,) = caught.value.report.wrong
    assert name in wrong.name
    assert not fc.check_gradients(spoiled(**parts), input_shape=(5, 4), raises=False)


@pytest.mark.parametrize("training", [False, True])
def test_whole_models(training):
    fc.set_random_seed(0)
    inner = fc.Sequential([layers.Input((6, 6, 2)), layers.Conv2D(3, 3)])
    x = fc.Input((6, 6, 2))
    y = layers.BatchNormalization()(inner(x))
    y = layers.Dropout(0.3)(layers.ELU()(y))
    model = fc.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    before, state = model.get_weights(), fc.backend.random_state()
    report = fc.check_gradients(model, training=training)
    assert len(report.rows) == 1 + len(model._trainable())
    assert fc.backend.random_state() == state
    assert fc.floatx() == "float32"
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_with_several_inputs_and_given_data():
    assert fc.check_gradients(layers.Add(), input_shape=[(3, 2), (3, 2)])
    rows = np.random.default_rng(0).random((2, 6))
    assert len(fc.check_gradients(layers.Dense(3), rows, input_shape=(6,)).rows) == 3


def test_what_it_cannot_check():
    with pytest.raises(ValueError, match="give input_shape"):
        fc.check_gradients(layers.Dense(3, name="unused"))
    with pytest.raises(ValueError, match="a layer, a model, a loss or a regularizer"):
        fc.check_gradients(np.tanh)


# -- losses and penalties -------------------------------------------------------------------------


def targets(loss, y):
    if loss.labels:
        return np.arange(len(y)) % y.shape[-1]
    if isinstance(loss, losses.Hinge | losses.SquaredHinge):
        return np.where(np.arange(y.size).reshape(y.shape) % 2, 1.0, -1.0)
    return np.eye(y.shape[-1])[np.arange(len(y)) % y.shape[-1]]


@pytest.mark.parametrize("cls", losses.ALL, ids=lambda cls: cls.__name__)
def test_losses_are_checked(cls):
    y = np.random.default_rng(0).uniform(0.1, 0.9, (5, 3))
    y /= y.sum(axis=1, keepdims=True)
    loss = cls()
    assert fc.check_gradients(loss, (targets(loss, y), y))
    loss = cls(reduction="none")
    assert fc.check_gradients(loss, (targets(loss, y), y))
    assert loss.reduction == "none"


@pytest.mark.parametrize(
    "penalty", [regularizers.L1L2(0.1, 0.2), regularizers.OrthogonalRegularizer(0.3)]
)
def test_penalties_are_checked(penalty):
    assert fc.check_gradients(penalty)
    assert fc.check_gradients(penalty, input_shape=(2, 5))


def test_wrong_ones_are_found():
    class Wrong(own.NumpyLoss):
        def value(self, target, y):
            return np.square(y - target).mean(axis=1)

        def gradient(self, target, y):
            return y - target  # two thirds are missing of it, with three outputs

    y = np.random.default_rng(0).random((4, 3))
    with pytest.raises(checking.GradientError, match=r"Wrong[^$]*it is 1\.5 times"):
        fc.check_gradients(Wrong(), (np.zeros((4, 3)), y))
    with pytest.raises(ValueError, match=r"x=\(y_true, y_pred\)"):
        fc.check_gradients(Wrong())

    class Thick(fc.Regularizer):
        def __call__(self, w):
            return float((w**3).sum())

        def gradient(self, w):
            return 3 * w

    report = fc.check_gradients(Thick(), raises=False)
    assert not report
    assert "weight" in str(report)


class CheckedCube(own.NumpyLoss):
    """|y − t|³, whose gradient tests spoil."""

    factor = 3.0

    def value(self, target, y):
        return (np.abs(y - target) ** 3).mean(axis=-1)

    def gradient(self, target, y):
        d = y - target
        return self.factor * d * np.abs(d) / y.shape[-1]


class CheckedPenalty(regularizers.Regularizer):
    """Σ w⁴, whose gradient tests spoil."""

    def __init__(self, factor=4.0):
        self.factor = factor

    def __call__(self, w):
        return float((w**4).sum())

    def gradient(self, w):
        return self.factor * w**3


def halved(loss):
    loss.factor /= 2
    return loss


def test_a_wrong_loss_is_seen_by_itself_and_in_a_compiled_model():
    y = np.zeros((4, 2))
    with pytest.raises(GradientError, match=r"y_pred: a factor is wrong: it is 0.5 times"):
        fc.check_gradients(halved(CheckedCube()), (y, np.ones((4, 2)) + np.eye(4, 2)))
    x = fc.Input((3,))
    model = fc.Model(x, layers.Dense(2, kernel_regularizer=CheckedPenalty())(x))
    model.compile("adam", CheckedCube())
    assert fc.check_gradients(model, y=y)
    model.compile("adam", halved(CheckedCube()))
    assert fc.check_gradients(model)  # its outputs, without a loss
    with pytest.raises(GradientError, match=r"input.*: a factor is wrong: it is 0.5 times"):
        fc.check_gradients(model, y=y)


@pytest.mark.parametrize("training", [False, True])
def test_models_through_their_losses(training):
    fc.set_random_seed(0)
    x = fc.Input((5, 5, 2))
    h = layers.Conv2D(3, 3, kernel_regularizer=regularizers.L1L2(0.1, 0.2))(x)
    h = layers.Flatten()(layers.Dropout(0.3)(layers.BatchNormalization()(h)))
    model = fc.Model(x, [layers.Dense(3, activation="softmax")(h), layers.Dense(1)(h)])
    model.compile("adam", ["sparse_categorical_crossentropy", "mse"], loss_weights=[1, 0.5])
    before = model.get_weights()
    report = fc.check_gradients(model, y=[np.array([0, 1, 2]), np.ones((3, 1))], training=training)
    assert len(report.rows) == 1 + len(model._trainable())
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="compile"):
        fc.check_gradients(layers.Dense(1), input_shape=(2,), y=np.ones((3, 1)))


def test_regularizers():
    for regularizer in (CheckedPenalty(), regularizers.L1L2(0.1, 0.2),
                        regularizers.OrthogonalRegularizer(0.1)):  # fmt: skip
        assert fc.check_gradients(regularizer, input_shape=(3, 4))
    with pytest.raises(GradientError, match=r"weight: a factor is wrong: it is 0.5 times"):
        fc.check_gradients(CheckedPenalty(2.0), np.ones((3, 4)) + np.eye(3, 4))
    wrong = type("Shapeless", (CheckedPenalty,), {"gradient": lambda self, w: w[0]})()
    with pytest.raises(ValueError, match=r"Shapeless.gradient gives the shape \(4,\), the weight"):
        fc.check_gradients(wrong, input_shape=(3, 4))
    x = fc.Input((3,))
    model = fc.Model(x, layers.Dense(2, kernel_regularizer=wrong, name="out")(x))
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match=r"out/(kernel|weight): Shapeless.gradient gives the shape"
    ):
        model.train_on_batch(np.ones((2, 3)), np.ones((2, 2)))

"""``fastconv verify-run`` on real scripts in real processes."""

import textwrap

import pytest

from fastconv.cli import main

SCRIPT = """
    import sys
    import numpy as np
    import fastconv as fc
    from fastconv import layers

    what = sys.argv[1]
    rng = np.random.default_rng(None if what == "data" else 0)
    if what != "seed":
        fc.set_random_seed(0)
    x, y = rng.random((40, 5, 5, 1)), np.arange(40) % 2

    class Noise(layers.Layer):
        def output_shape(self, shape):
            return shape
        def forward(self, b, frame):
            y = b.value(frame.inputs[0].shape)
            b.python(self.run, reads=[frame.inputs[0]], writes=[y])
            return y
        def run(self, arrays, training):
            arrays[1][...] = arrays[0] + np.random.default_rng().random(arrays[0].shape)
        def backward(self, b, frame, dy):
            return [dy]

    model = fc.Sequential([
        layers.Input((5, 5, 1)), layers.Conv2D(3, 3, name="first"),
        *([Noise()] if what == "noise" else []),
        layers.Dropout(0.5), layers.Flatten(), layers.Dense(2, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    if what != "none":
        model.fit(x, y, batch_size=8, epochs=1 if what == "short" else 99)
    assert what != "broken", "on purpose"
"""


LOOP = """
    import sys
    import numpy as np
    import fastconv as fc
    from fastconv import layers

    what = sys.argv[1]
    rng = np.random.default_rng(None if what == "data" else 0)
    if what != "seed":
        fc.set_random_seed(0)

    def net(name):
        return fc.Sequential(
            [layers.Input((4,)), layers.Dropout(0.5), layers.Dense(3, name=name)], name=name
        )

    one, other = net("one"), net("other")
    if what == "batch":
        one.compile("sgd", "mse")
        for _ in range(5):
            one.train_on_batch(rng.random((8, 4)), rng.random((8, 3)))
    for model in () if what == "batch" else (one, other):
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_weights)
    for _ in range(0 if what == "batch" else 9):
        x = rng.random((8, 4)).astype(np.float32)
        for model in (one, other):
            y, handle = model.forward(x, training=True)
            noise = np.random.default_rng().random(y.shape) if what == "noise" else 0
            model.backward(handle, (y + noise).astype(np.float32))
            model.optimizer.apply()
            one.predict(x)  # is no step
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return str(path)


@pytest.fixture
def loop(tmp_path):
    path = tmp_path / "loop.py"
    path.write_text(textwrap.dedent(LOOP))
    return str(path)


def test_a_loop_of_ones_own(loop, capsys):
    assert main(["verify-run", "--steps", "6", "--threads", "1,2", loop, "good"]) == 0
    assert "The same bits in 2 runs of 6 steps" in capsys.readouterr().out
    assert main(["verify-run", "--threads", "1", loop, "batch"]) == 0
    assert "2 runs of 5 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("seed", "before the first step; call fastconv.set_random_seed"),
        ("data", "the batch of step 1"),
        ("noise", "the weights after step 1, from the same batches, first one/kernel; is there"),
    ],
)
def test_what_differs_in_a_loop_is_said(loop, capsys, what, words):
    assert main(["verify-run", "--steps", "4", "--threads", "1", loop, what]) == 1
    assert words in capsys.readouterr().err


def test_the_same_bits(script, capsys):
    assert main(["verify-run", "--steps", "7", "--threads", "1,3", script, "good"]) == 0
    text = capsys.readouterr().out
    assert "The same bits in 2 runs of 7 steps" in text
    assert "weights at last" in text
    assert main(["verify-run", "--threads", "2", "--steps", "9", script, "short"]) == 0
    assert "2 runs of 5 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("seed", "before the first step; call fastconv.set_random_seed"),
        ("data", "the batch of step 1"),
        ("noise", "the weights after step 1, from the same batches, first first/kernel"),
    ],
)
def test_what_differs_is_said(script, capsys, what, words):
    assert main(["verify-run", "--steps", "2", "--threads", "1", script, what]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "calls neither fit nor train_on_batch nor optimizer.apply"),
        (["broken"], "failed: AssertionError: on purpose"),
    ],
)
def test_scripts_that_cannot_be_verified(script, capsys, arguments, words):
    if arguments == ["broken"]:
        arguments = ["--steps", "9999", script, "broken"]
    else:
        arguments = [script, *arguments]
    assert main(["verify-run", "--threads", "1", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert main(["verify-run", "nowhere.py"]) == 2

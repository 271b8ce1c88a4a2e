"""Memory: what `Model.memory` tells is what a run takes; placement is near its lower bound; what
is computed again for backward has the same bits as what is kept."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers
from fastconv.applications import CifarVGG, ResNet20
from fastconv.commands._networks import NETWORKS
from fastconv.layer import Layer

LOSS = "sparse_categorical_crossentropy"
ALL = ["*"]


def compiled(model, optimizer="adam", **options):
    model.compile(optimizer, LOSS, metrics=["accuracy"], **options)
    return model


def data(model, n, rng):
    x = rng.random((n, *model.inputs[0].sample_shape), dtype=np.float32)
    return x, rng.integers(0, model.outputs[0].shape[-1], n)


# ---- the report ----


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 0), ("adadelta", 2)])
def test_the_report_is_what_a_run_takes(name, optimizer, states, rng):
    model = compiled(NETWORKS[name].make(), optimizer)
    told = model.memory(8)
    model.train_on_batch(*data(model, 8, rng))
    values = sum(p.value.nbytes for p in model.parameters())
    trained = sum(p.grad.nbytes for p in model.parameters() if p.trainable)
    (plan, _) = model._plans[next(key for key in model._plans if key[0] == "fit")]
    (running,) = plan._passes
    state = model.optimizer.variables(model.parameters())
    assert told.parameters == values
    assert told.gradients == trained
    assert told.optimizer == sum(a.nbytes for a in state.values()) == states * trained
    assert told.arena == running.native.nbytes
    assert told.total == values + (1 + states) * trained + running.native.nbytes
    # who has it: everything that is alive at the fullest moment, but what outlives every run
    alive = sum(m.kept + m.other for m in told.layers)
    assert told.least - 64 * 500 <= alive <= told.least


def test_inference_needs_no_gradients(rng):
    model = CifarVGG()
    told = model.memory(16, training=False)
    assert (told.gradients, told.optimizer) == (0, 0)
    model.predict(data(model, 16, rng)[0])
    (plan, _) = model._plans[next(key for key in model._plans if key[0] == "predict")]
    assert told.arena == plan._passes[0].native.nbytes


def test_the_report_is_a_table():
    text = str(compiled(CifarVGG()).memory(64))
    assert text.startswith("Memory of cifar_vgg, training with batches of 64\n")
    for words in ("parameters ", "gradients ", "optimizer ", "activations and scratch ", "total "):
        assert f"\n{words}" in text
    assert "layer " in text
    assert "more layers" in str(compiled(ResNet20()).memory(64))


def test_nothing_runs_and_nothing_is_placed(rng):
    model = compiled(CifarVGG())
    model.memory(1 << 20)  # far more than any machine has
    assert all(not plan._passes for plan, _ in model._plans.values())


def test_open_sizes_are_given():
    x = layers.Input((None, None, 3), name="picture")
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    model = fc.Model(x, layers.Dense(10, activation="softmax")(y))
    with pytest.raises(ValueError, match=r"picture leaves sizes open.*input_shape"):
        model.memory(1, training=False)
    small, large = (model.memory(1, False, shape) for shape in ((8, 8, 3), [(16, 16, 3)]))
    assert small.arena < large.arena
    with pytest.raises(ValueError, match=r"picture takes .*not"):
        model.memory(1, False, (8, 8, 4))
    with pytest.raises(ValueError, match="1 inputs need as many shapes, not 2"):
        model.memory(1, False, [(8, 8, 3), (8, 8, 3)])


def test_training_needs_compile():
    with pytest.raises(ValueError, match="compile"):
        CifarVGG().memory(4)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")
@pytest.mark.parametrize("name", ["mnist", "cifar-vgg"])
def test_resident_set_of_a_training_run(name):
    """A process that trains grows by what the report says, give or take code and the allocator."""
    program = f"""
import numpy as np, re
from fastconv.commands._networks import NETWORKS
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
make, batch = NETWORKS[{name!r}].make, NETWORKS[{name!r}].batch
warm = make()
warm.compile("adam", {LOSS!r})
warm.train_on_batch(np.ones((1, *warm.inputs[0].sample_shape), "f"), np.zeros(1, int))
x, y = np.ones((batch, *warm.inputs[0].sample_shape), "f"), np.zeros(batch, int)
before = resident()
model = make()
model.compile("adam", {LOSS!r})
told = model.memory(batch).total
for _ in range(3):
    model.train_on_batch(x, y)
print(told, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, taken = map(int, done.stdout.split())
    assert 0.8 * told < taken < 1.1 * told + (6 << 20)


# ---- placement ----


def unet():
    """Shapes and lives as a U-Net has them: long skips into concatenations."""
    inputs = x = layers.Input((16, 16, 3))
    skips = []
    for filters in (8, 16, 32):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        skips.append(x)
        x = layers.MaxPooling2D(2, strides=1, padding="same")(x)
    for skip in reversed(skips[:-1]):
        x = layers.Concatenate()([skip, x])
        x = layers.Conv2D(skip.shape[-1], 3, padding="same", activation="relu")(x)
    return fc.Model(inputs, layers.Dense(10, activation="softmax")(layers.Flatten()(x)))


@pytest.mark.parametrize("make", [ResNet20, CifarVGG, unet])
@pytest.mark.parametrize("recompute", [None, "activations"])
def test_arena_is_near_what_is_alive_at_once(make, recompute):
    model = compiled(make(), recompute=recompute)
    for batch in (8, 32, 128):
        for training in (True, False):
            told = model.memory(batch, training)
            assert told.least <= told.arena <= 1.1 * told.least  # placing is a heuristic


def test_no_two_buffers_meet():
    model = compiled(ResNet20(), recompute=["*relu*"])
    plan, _ = model._plan_for("fit", [(32, 32, 3)])
    offsets, total = plan.place(7)
    spans = {}
    for slot, start in offsets.items():
        buffer = plan.slots[slot].buffer
        begin = start - 4 * plan.slots[slot].offset
        spans[id(buffer)] = (begin, begin + buffer.nbytes(7, 4), buffer)
    found = list(spans.values())
    assert max(end for _, end, _ in found) <= total
    for i, (a, b, one) in enumerate(found):
        for c, d, other in found[:i]:
            together = one.first <= other.last and other.first <= one.last
            assert not (together and a < d and c < b)


# ---- computed again instead of kept ----


def mixed():
    """Everything that a second forward could get wrong: dropout, statistics, skips, views,
    slices of a concatenation, a shared layer, a softmax in the middle."""
    inputs = layers.Input((9, 9, 2))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Dropout(0.3, name="drop")(x)
    shared = layers.Conv2D(6, 3, padding="same", activation="tanh", name="shared")
    y = layers.Add(name="add")([shared(shared(x)), x])
    y = layers.Activation("softmax", name="soft")(y)
    left = layers.Conv2D(3, 1, activation="sigmoid", name="left")(y)
    y = layers.Concatenate(name="cat")([left, layers.MaxPooling2D(3, 1, "same", name="pool")(y)])
    y = layers.BatchNormalization(name="norm2")(y)
    y = layers.Dropout(0.2, name="drop2")(layers.Flatten(name="flat")(y))
    return fc.Model(inputs, layers.Dense(5, activation="softmax", name="out")(y))


def trained(make, recompute, n=6, steps=3, **options):
    fc.set_random_seed(5)
    rng = np.random.default_rng(1)
    model = compiled(make(), "adam", recompute=recompute, **options)
    x, y = data(model, n, rng)
    losses = [model.train_on_batch(x, y)[0] for _ in range(steps)]
    y, handle = model.forward(x, training=True)
    dx = model.backward(handle, np.ones_like(y))
    arrays = [*model.get_weights(), *(p.grad for p in model.parameters() if p.trainable), dx]
    return losses, [array.tobytes() for array in arrays]


@pytest.mark.parametrize(
    "recompute",
    [
        "activations", ALL, ["conv"], ["norm", "relu", "drop"], ["conv", "norm", "relu", "drop"],
        ["add", "soft", "cat", "norm2"], ["drop2", "flat"], ["shared"], ["pool", "left"], ["out"],
    ],
)  # fmt: skip
def test_same_bits_as_when_all_is_kept(recompute):
    assert trained(mixed, recompute) == trained(mixed, None)


def test_same_bits_in_a_residual_net():
    assert trained(ResNet20, "activations", 2, 2) == trained(ResNet20, None, 2, 2)


def test_frozen_statistics_are_not_touched():
    def make():
        model = mixed()
        model.get_layer("norm").trainable = False
        return model

    assert trained(make, ALL) == trained(make, None)


def test_what_is_saved():
    kept = compiled(CifarVGG()).memory(64)
    for recompute, most in (("activations", 0.8), (["*norm*", "*relu*"], 0.8)):
        assert compiled(CifarVGG(), recompute=recompute).memory(64).arena < most * kept.arena
    # a block between two layers that are kept
    stack = [layers.Input((24, 24, 8))]
    for block in range(6):
        for i in range(4):
            name = f"block{block}_{i}"
            stack.append(layers.Conv2D(8, 3, padding="same", activation="relu", name=name))
    stack += [layers.Flatten(), layers.Dense(10, activation="softmax")]
    inner = [f"block*_{i}" for i in range(3)]
    kept = compiled(fc.Sequential(stack)).memory(64).arena
    # of 24 outputs 6 remain, and while a block goes backward its own 3 and two gradients
    assert compiled(fc.Sequential(stack), recompute=inner).memory(64).arena < 0.55 * kept


def test_only_what_backward_reads_is_made_again(monkeypatch):
    monkeypatch.setenv("FASTCONV_FUSION", "0")  # each node by itself
    model = compiled(mixed(), recompute=["relu"])
    plan, _ = model._plan_for("fit", [(9, 9, 2)])
    again = [o.layer for o in plan.origins if o.direction == "forward again"]
    assert again == ["relu"]  # and not what stands before it
    model = compiled(mixed(), recompute=["add"])  # of which backward reads nothing
    plan, _ = model._plan_for("fit", [(9, 9, 2)])
    assert not [o for o in plan.origins if o.direction == "forward again"]


def test_statistics_move_once():
    weights = []
    for recompute in (None, ["norm"]):
        fc.set_random_seed(0)
        model = compiled(mixed(), recompute=recompute)
        rng = np.random.default_rng(0)
        model.train_on_batch(*data(model, 4, rng))
        weights.append(model.get_layer("norm").moving_mean.value.copy())
    assert np.array_equal(*weights)
    assert weights[0].any()


def test_a_model_of_ones_own_layer(rng):
    class SquareAgain(Layer):
        def output_shape(self, *inputs):
            return inputs[0]

        def forward(self, b, frame):
            y = b.output(frame.inputs[0].shape)
            b.python(lambda a, training: np.square(a[0], out=a[1]), [frame.inputs[0]], [y])
            return y

        def backward(self, b, frame, dy):
            dx = b.value(dy.shape)
            b.python(
                lambda a, training: np.multiply(2 * a[0], a[1], out=a[2]),
                [frame.inputs[0], dy], [dx],
            )  # fmt: skip
            return [dx]

    def make():
        stack = [
            layers.Input((4, 4, 2)),
            layers.Conv2D(4, 3, name="conv"),
            SquareAgain(name="square"),
        ]
        return fc.Sequential([*stack, layers.Flatten(), layers.Dense(3, activation="softmax")])

    assert trained(make, ["conv", "square"]) == trained(make, None)


def test_it_is_saved_with_the_model(tmp_path):
    model = compiled(mixed(), recompute=["norm*", "relu"])
    model.save(tmp_path / "model")
    loaded = fc.load_model(tmp_path / "model")
    assert loaded.compile_config()["recompute"] == ["norm", "norm2", "relu"]
    assert loaded.memory(8).arena == model.memory(8).arena


def test_compiling_again_changes_the_plans_by_hand_too(rng):
    model = compiled(mixed())
    x = rng.random((2, 9, 9, 2), dtype=np.float32)
    _, handle = model.forward(x, training=True)
    before = handle._running.native.nbytes
    del handle
    compiled(model, recompute=ALL)
    _, handle = model.forward(x, training=True)
    assert handle._running.native.nbytes < before


@pytest.mark.parametrize(
    ("recompute", "words"),
    [
        ("relu", 'recompute is "activations" or a list'),
        (5, 'recompute is "activations" or a list'),
        ([3], 'recompute is "activations" or a list'),
        (["reul"], "unknown layer in recompute 'reul'; did you mean 'relu'"),
        (["block*"], r"unknown layer in recompute 'block\*'"),
    ],
)
def test_wrong_layers_are_named(recompute, words):
    with pytest.raises(ValueError, match=words):
        compiled(mixed(), recompute=recompute)

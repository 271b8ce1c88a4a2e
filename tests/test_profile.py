"""`Model.profile`: every step has its time, its work and its layer; the machine's limits are sane;
the model is afterwards as it was."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers
from fastconv._native import conv, dispatch, peak
from fastconv._native.geometry import ConvGeometry
from fastconv._native.step import Pass, Program, Step
from fastconv.layer import Layer
from fastconv.profile import Peaks, _best, peaks

LOSS = "sparse_categorical_crossentropy"


def small():
    return fc.Sequential(
        [
            layers.Input((12, 12, 4)),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Dropout(0.5, name="drop"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="dense"),
        ],
        "small",
    )


def data(n, rng):
    return rng.random((n, 12, 12, 4), dtype=np.float32), rng.integers(0, 10, n)


@pytest.fixture
def profiled(rng):
    model = small()
    model.compile("adam", LOSS, metrics=["accuracy"])
    return model, model.profile(*data(16, rng), batch_size=8, repeat=3)


# ---- the machine ----


def test_limits_of_each_table(isa, threads):
    threads(1)
    assert peak.flops_per_second() > 1e8
    assert peak.bytes_per_second() > 1e8


def test_products_are_below_the_peak(threads):
    """In turns, the best of each, until there was a quiet moment: other processes disturb both."""
    threads(1)
    model = fc.Sequential([layers.Input((16, 16, 256)), layers.Conv2D(256, 1)])
    best = limit = 0
    for _ in range(30):
        limit = max(limit, peak.flops_per_second())
        rows = model.profile(np.ones((4, 16, 16, 256), "f"), repeat=5).steps
        best = max(best, *(row.flops / row.seconds for row in rows if row.flops))
        if 0.3 * limit < best < 1.1 * limit:
            break
    assert 0.3 * limit < best < 1.1 * limit


def test_peak_counts_what_it_computes(isa):
    """The tables' own count of flops is that of as many vectors as a gather tile has sums."""
    tile = conv.tile_sizes()
    lanes = tile["gather_nr"] // 2
    assert dispatch.peak_flops() == 2 * 2 * tile["gather_mr"] * lanes


@pytest.mark.parametrize("double", [False, True])
def test_multiply_add_computes(isa, double):
    """Chain i goes from i by s = scale · s + offset; the lanes are alike."""
    tile = conv.tile_sizes(double)
    lanes = tile["gather_nr"] // 2
    for rounds in (0, 1, 7):
        sums = np.arange(2 * tile["gather_mr"], dtype=np.float64)
        for _ in range(rounds):
            sums = 0.75 * sums + 0.5
        out = peak.multiply_add(rounds, 0.75, 0.5, double)
        assert np.allclose(out[:lanes], sums.sum(), rtol=1e-14 if double else 1e-6)
        assert np.isnan(out[lanes:]).all()
    with pytest.raises(ValueError, match="rounds"):
        peak.multiply_add(-1, 1, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_triad_computes(isa, dtype, rng):
    for count in (*range(36), 1000):
        a, b = rng.standard_normal((2, count)).astype(dtype)
        whole = np.full(count + 32, np.nan, dtype)
        peak.triad(a, b, whole[16 : 16 + count], 1.5)
        assert np.allclose(whole[16 : 16 + count], a + 1.5 * b, rtol=1e-6, atol=1e-6)
        assert np.isnan(whole[:16]).all()
        assert np.isnan(whole[16 + count :]).all()
    x = np.zeros(4, dtype)
    for bad in (x[:3], x[::2].repeat(4)[::2], np.zeros(4, np.int32)):
        with pytest.raises(ValueError, match="arrays"):
            peak.triad(x, bad, x, 1.0)


def test_limits_are_measured_once(threads, monkeypatch):
    threads(1)
    first = peaks()
    measured = iter([first.flops / 2, first.flops * 2])
    monkeypatch.setattr(peak, "flops_per_second", lambda double: next(measured))
    assert peaks() is first
    assert peaks(again=True).flops == first.flops  # disturbed
    assert peaks(again=True).flops == 2 * first.flops
    assert peaks() is not first
    _best.clear()
    assert str(first).startswith(f"{dispatch.isa()}, 1 thread: ")
    assert str(Peaks("avx2", 4, 2e11, 3e10)) == (
        "avx2, 4 threads: 200 GFLOP/s of multiply-adds, 30 GB/s of memory"
    )


# ---- timed programs ----


def test_seconds_of_steps():
    runner = Pass(0, 0)
    seconds = np.full(3, np.nan)
    runner.run(Program([Step(), Step(), Step()]), 1, seconds=seconds)
    assert (seconds >= 0).all()
    assert (seconds < 1).all()
    with pytest.raises(ValueError, match="3 steps need as many seconds, not 2"):
        runner.run(Program([Step()] * 3), 1, seconds=np.zeros(2))
    runner.run(Program([]), 1, seconds=np.zeros(0))


def test_step_that_raises_is_the_last_that_is_timed():
    class RaisesInProfile(Layer):
        def output_shape(self, *inputs):
            return inputs[0]

        def forward(self, b, frame):
            y = b.value(frame.inputs[0].shape)

            def fail(arrays, training):
                raise RuntimeError("on purpose")

            b.python(fail, [frame.inputs[0]], [y])
            return y

    model = fc.Sequential([layers.Input((2,)), RaisesInProfile()])
    with pytest.raises(RuntimeError, match="on purpose"):
        model.profile(np.ones((1, 2), "f"))


def test_a_slow_step_takes_the_time():
    from time import sleep

    class SlowForProfile(Layer):
        def output_shape(self, *inputs):
            return inputs[0]

        def forward(self, b, frame):
            y = b.value(frame.inputs[0].shape)

            def wait(arrays, training):
                sleep(0.02)
                arrays[1][...] = arrays[0]

            b.python(wait, [frame.inputs[0]], [y])
            return y

    model = fc.Sequential([layers.Input((2,)), SlowForProfile(name="slow")])
    profile = model.profile(np.ones((1, 2), "f"), repeat=3)
    (row,) = [row for row in profile.layers if row.layer == "slow"]
    assert 0.02 <= row.seconds < 0.2
    assert row.seconds / profile.total.seconds > 0.9


# ---- the model's profile ----


def test_steps_and_their_work(profiled):
    model, profile = profiled
    assert (profile.batch_size, profile.training, profile.name) == (8, True, "small")
    found = {(row.layer, row.direction, row.step): row for row in profile.steps}
    forward = found["conv", "forward", "conv forward"]
    assert forward.flops == 2 * 8 * 144 * 9 * 4 * 8
    assert forward.algorithm == "direct"
    # x, the panels of weights and y; each once
    panel = ConvGeometry(
        in_size=(1, 12, 12), kernel=(1, 3, 3), pads=((0, 0), (1, 1), (1, 1)), channels=4, filters=8
    ).forward_panel_size
    assert forward.bytes in {
        4 * (8 * 144 * (4 + 8) + panel),
        4 * (8 * (196 * 4 + 144 * 8) + panel),  # of a copy with its padding
    }
    assert found["conv", "backward", "conv weight gradient"].flops == forward.flops
    assert ("conv", "backward", "conv input gradient") not in found  # the first layer
    assert found["dense", "backward", "conv input gradient"].flops == 2 * 8 * 288 * 10
    assert ("dense", "backward", "bias backward") in found
    assert not any(row.layer == "relu" for row in profile.steps)  # norm carries it out
    assert not any(row.layer == "drop" for row in profile.steps)  # pool carries it out
    assert found["pool", "backward", "dropout backward"].flops == 0
    assert [row.direction for row in profile.steps][0 :: len(profile.steps) - 1] == [
        "read",
        "update",
    ]
    read = profile.steps[0]
    assert read.bytes == 8 * (144 * 4 * 4 * 2 + 8 + 4)  # x as floats, y as int64, read and written
    numbers = sum(p.value.size for p in model.parameters() if p.trainable)
    assert profile.steps[-1].bytes == 7 * 4 * numbers
    limits = profile.peaks
    for row in profile.steps:
        assert row.seconds >= 0
        assert row.bound == max(row.flops / limits.flops, row.bytes / limits.bytes)


def test_work_of_winograd(rng):
    inputs = layers.Input((14, 14, 32))
    x = layers.Conv2D(32, 3, name="first")(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(48, 3, padding="same", name="second")(x))
    model = fc.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile("sgd", LOSS)
    profile = model.profile(
        rng.random((2, 14, 14, 32), dtype=np.float32), np.zeros(2, int), repeat=1
    )
    rows = [row for row in profile.steps if row.layer == "second" and row.flops]
    assert len(rows) == 3
    for row in rows:
        tiles = 2 * 3 * 3  # of 4×4, in images of 12×12 both ways
        winograd, direct = 2 * 36 * tiles * 32 * 48, 2 * 2 * 144 * 9 * 32 * 48
        assert row.flops == {"winograd": winograd, "direct": direct}[row.algorithm]
    assert rows[0].algorithm == "winograd"


def test_sums(profiled):
    _, profile = profiled
    for key in ("seconds", "bound", "flops", "bytes"):
        whole = sum(getattr(row, key) for row in profile.steps)
        assert getattr(profile.total, key) == pytest.approx(whole)
        assert sum(getattr(row, key) for row in profile.layers) == pytest.approx(whole)
    named = [(row.layer, row.direction) for row in profile.layers]
    assert len(set(named)) == len(named)
    assert named[:5] == [
        ("input", "read"), ("conv", "forward"), ("conv", "backward"), ("norm", "forward"),
        ("norm", "backward"),
    ]  # fmt: skip
    assert named[-2:] == [("loss", "loss"), ("optimizer", "update")]


def test_table(profiled):
    _, profile = profiled
    lines = str(profile).splitlines()
    assert lines[0] == "Profile of small, training step with a batch of 8"
    assert lines[1] == str(profile.peaks)
    assert lines[3].split()[:4] == ["layer", "direction", "algorithm", "ms"]
    assert lines[-1].startswith("total ")
    assert any(line.startswith("conv ") and " direct " in line for line in lines)
    assert len(profile.table(steps=True).splitlines()) == 6 + len(profile.steps)
    assert "conv weight gradient" in profile.table(steps=True)


def test_json(profiled):
    _, profile = profiled
    told = json.loads(profile.to_json())
    assert told["threads"] == profile.peaks.threads
    assert told["total"]["ms"] == pytest.approx(1e3 * profile.total.seconds)
    assert len(told["steps"]) == len(profile.steps)
    row, step = told["steps"][1], profile.steps[1]
    assert row["layer"] == step.layer
    assert row["gflops_per_s"] * row["ms"] == pytest.approx(step.flops / 1e6)


def test_picture(profiled, tmp_path):
    _, profile = profiled
    profile.save_png(tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
    roof, products, others = profile.plot().axes
    timed = [row for row in profile.steps if row.flops]
    assert sum(len(marks.get_offsets()) for marks in roof.collections) == len(timed)
    assert len(products.patches) == len(roof.texts) == min(10, len(timed))
    assert len(others.patches) == min(10, len([row for row in profile.steps if not row.flops]))


def test_picture_without_matplotlib(profiled, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[viz\]'"):
        profiled[1].save_png(tmp_path / "roof.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_goes_on_as_if_nothing_had_been_timed(optimizer, rng):
    x, y = data(8, rng)

    def train(profile):
        fc.set_random_seed(3)
        model = small()
        model.compile(optimizer, LOSS)
        model.train_on_batch(x, y)
        if profile:
            model.profile(x, y, repeat=2)
            model.profile(x, repeat=2)
        losses = [model.train_on_batch(x, y) for _ in range(2)]
        gradients = [p.grad.tobytes() for p in model.parameters() if p.trainable]
        iterations = model.optimizer.iterations
        return losses, iterations, gradients, [w.tobytes() for w in model.get_weights()]

    assert train(True) == train(False)


def test_gradients_that_were_gathered_stay(rng):
    x, y = data(8, rng)
    model = small()
    model.compile("sgd", LOSS)
    out, handle = model.forward(x, training=True)
    model.backward(handle, np.ones_like(out))
    before = [p.grad.copy() for p in model.parameters() if p.trainable]
    model.profile(x, y, repeat=1)
    after = [p.grad for p in model.parameters() if p.trainable]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_inference(rng):
    model = small()
    profile = model.profile(data(200, rng)[0], repeat=2)
    assert profile.batch_size == 128
    assert not profile.training
    assert {row.direction for row in profile.steps} == {"read", "forward"}
    assert "inference with a batch of 128" in str(profile)


def test_what_is_recomputed_has_rows_of_its_own(rng):
    model = small()
    model.compile("sgd", LOSS, recompute=["conv"])
    rows = [(row.layer, row.direction) for row in model.profile(*data(4, rng), repeat=1).layers]
    again = [row for row in rows if row[1] == "forward again"]
    assert again == [("conv", "forward again")]


def test_float64(rng):
    fc.set_floatx("float64")
    try:
        profile = small().profile(data(4, rng)[0], repeat=1)
    finally:
        fc.set_floatx("float32")
    assert profile.peaks.isa == "reference_f64"
    assert profile.steps[0].bytes == 4 * 144 * 4 * (4 + 8)


def test_bad_arguments_are_named(rng):
    model = small()
    x, y = data(4, rng)
    with pytest.raises(ValueError, match="compile"):
        model.profile(x, y)
    with pytest.raises(ValueError, match="repeat"):
        model.profile(x, repeat=0)
    with pytest.raises(ValueError, match="batch_size"):
        model.profile(x, batch_size=0)


# ---- the command ----


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fastconv", "bench", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip


def complains(*arguments):
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastconv: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_limits_alone():
    done = bench("--threads", 1)
    assert done.returncode == 0, done.stderr
    assert ", 1 thread: " in done.stdout
    assert " GFLOP/s of multiply-adds, " in done.stdout


def test_built_in_network(tmp_path):
    files = tmp_path / "a.json", tmp_path / "a.png"
    done = bench(
        "lenet5", "--batch", 4, "--repeat", 2, "--threads", 2, "--steps", "--json", files[0],
        "--png", files[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Profile of lenet5, training step with a batch of 4\n")
    assert "conv weight gradient" in done.stdout
    told = json.loads(files[0].read_text())
    assert (told["batch_size"], told["training"]) == (4, True)
    assert files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("loss", [LOSS, "categorical_crossentropy", "mean_squared_error"])
def test_saved_model(tmp_path, loss):
    path = tmp_path / "small.fastconv"
    model = small()
    model.compile("sgd", loss)
    model.save(path)
    before = path.read_bytes()
    done = bench(path, "--repeat", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Profile of small, training step with a batch of 32\n")
    assert path.read_bytes() == before
    done = bench(path, "--repeat", 1, "--inference", "--batch", 3)
    assert done.stdout.startswith("Profile of small, inference with a batch of 3\n")


def test_open_sizes_are_told(tmp_path):
    path = tmp_path / "open.fastconv"
    x = layers.Input((None, None, 3), name="picture")
    fc.Model(x, layers.Conv2D(4, 3)(x), "open").save(path)
    assert "picture leaves sizes open" in complains(path)
    done = bench(path, "--input-shape", "9x7x3", "--repeat", 1)
    assert done.stdout.startswith("Profile of open, inference with a batch of 32\n"), done.stderr
    assert "--input-shape is written as 224x224x3" in complains(path, "--input-shape", "9,7,3")
    assert "saved without being compiled" in complains(path, "--training")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["alexnet"], "no file 'alexnet', and unknown network 'alexnet'; did you mean"),
        (["missing.fastconv"], "missing.fastconv: No such file"),
        (["lenet5", "--batch", "0"], "--batch"),
        (["lenet5", "--training", "--inference"], "not allowed with"),
        (["--json", "a.json"], "--json is for a network"),
        (["lenet5", "--batch", "1", "--repeat", "1", "--json", "no/such/folder.json"], "no/such"),
    ],
)
def test_what_is_wrong_is_said(arguments, words):
    done = bench(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1

"""What `fit`, `evaluate` and `predict` take, and what they say where it is wrong."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers
from fastconv.dataset import AUTOTUNE

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)
X = RNG.integers(0, 255, (70, 6, 6, 1)).astype(np.uint8)
Y = RNG.integers(0, 3, 70)


def net(seed=0, norm=False, dropout=0.0):
    fc.set_random_seed(seed)
    model = fc.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            *([layers.BatchNormalization(name="norm")] if norm else []),
            *([layers.Dropout(dropout, name="drop")] if dropout else []),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="dense"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def trained(*arguments, seed=0, **options):
    model = net(seed)
    model.fit(*arguments, verbose=0, **options)
    return weights(model)


class Samples:
    """As torch's Dataset: one sample an index."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], Y[i]


class Batches:
    """As Keras' PyDataset: one batch an index."""

    def __len__(self):
        return 7

    def __getitem__(self, i):
        return X[10 * i : 10 * i + 10], Y[10 * i : 10 * i + 10]


class Loader:
    """As torch's DataLoader: no index, but a length."""

    def __len__(self):
        return 7

    def __iter__(self):
        return ([X[i : i + 10], Y[i : i + 10]] for i in range(0, 70, 10))


def pairs():
    return ((X[i : i + 10], Y[i : i + 10]) for i in range(0, 70, 10))


def dataset():
    return fc.Dataset.from_tensor_slices((X, Y))


KINDS = {
    "list of pairs": lambda: list(pairs()),
    "Keras' PyDataset": Batches,
    "torch's loader": Loader,
    "torch's data set": Samples,
    "Dataset": lambda: dataset().batch(10),
    "Dataset from a generator": lambda: fc.Dataset.from_generator(pairs).prefetch(2),
    "Dataset, batches mapped in threads": lambda: (
        dataset().batch(10).map(lambda x, y: (x + 0, y), num_parallel_calls=3)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_kind_train_as_arrays_do(kind):
    more = {"batch_size": 10} if kind == "torch's data set" else {}
    want = trained(X, Y, batch_size=10, shuffle=False, epochs=2)
    np.testing.assert_array_equal(trained(KINDS[kind](), shuffle=False, epochs=2, **more), want)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_evaluated_and_predicted(kind):
    model = net()
    more = {"batch_size": 10} if kind == "torch's data set" else {}
    want = model.evaluate(X, Y, batch_size=10, verbose=0)
    assert model.evaluate(KINDS[kind](), verbose=0, **more) == want
    np.testing.assert_array_equal(model.predict(KINDS[kind](), **more), model.predict(X))


def test_torch_itself():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=10)
    want = trained(X, Y, batch_size=10, shuffle=False)
    np.testing.assert_array_equal(trained(loader), want)
    np.testing.assert_array_equal(trained(data, batch_size=10, shuffle=False), want)


def test_a_generator_goes_on_in_the_next_epoch():
    def endless():
        while True:
            yield from pairs()

    want = trained(X, Y, batch_size=10, shuffle=False, epochs=4)
    found = trained(endless(), epochs=7, steps_per_epoch=4)
    np.testing.assert_array_equal(found, want)


def test_validation_on_batches():
    history = net().fit(
        dataset().shuffle(70).batch(16), epochs=4, verbose=0,
        validation_data=dataset().batch(20), validation_steps=2, validation_freq=2,
    )  # fmt: skip
    assert len(history.history["loss"]) == 4
    assert len(history.history["val_loss"]) == 2
    assert net().fit(X, Y, validation_data=(X, Y, np.ones(70)), verbose=0).history["val_loss"]


def test_so_many_steps_of_validation_begin_anew():
    model = net()
    model.optimizer.learning_rate = 0.0
    history = model.fit(dataset().batch(10), epochs=3, verbose=0, steps_per_epoch=2,
                        validation_data=dataset().batch(10), validation_steps=3)  # fmt: skip
    assert len(set(history.history["val_loss"])) == 1  # the same 30 samples each time
    assert len(set(history.history["loss"])) == 3  # 20 others
    assert model.evaluate(dataset().batch(10).repeat(), steps=7, verbose=0) == model.evaluate(
        X, Y, batch_size=10, verbose=0
    )


def test_initial_epoch_and_history():
    model = net()
    history = model.fit(X, Y, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]
    assert history is model.history
    assert history.fingerprint == model.fingerprint()
    assert model.optimizer.iterations == 2 * 3


def test_a_fingerprint_is_of_bits():
    model = net()
    before = model.fingerprint()
    model.layers[-1].bias.value[0] = np.nextafter(np.float32(0), np.float32(1))
    assert model.fingerprint() != before


def test_samples_as_tuples_are_no_batches():
    model = fc.Sequential([layers.Input((2,)), layers.Dense(1)])
    assert model.predict([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)]).shape == (3, 1)


def test_a_share_is_validated_in_so_many_steps():
    model = net()
    model.optimizer.learning_rate = 0.0
    history = model.fit(X, Y, validation_split=0.5, validation_steps=1, validation_batch_size=10,
                        verbose=0)  # fmt: skip
    want = model.evaluate(X[35:45], Y[35:45], verbose=0)[0]
    assert history.history["val_loss"][0] == pytest.approx(want, rel=1e-6)


# -- weights of samples ---------------------------------------------------------------------------


def test_sample_weights_are_factors_of_the_losses():
    w = RNG.random(70).astype(np.float32)
    model = net()
    p = model.predict(X)[np.arange(70), Y]
    expected = np.mean(w * -np.log(p))
    assert model.evaluate(X, Y, sample_weight=w, verbose=0)[0] == pytest.approx(expected, rel=1e-5)
    # weights of whole numbers are repetitions
    twice = RNG.integers(0, 3, 70)
    repeated = np.repeat(np.arange(70), twice)
    a, b = net(), net()
    a.compile("sgd", "sparse_categorical_crossentropy")
    b.compile("sgd", "sparse_categorical_crossentropy")
    b.optimizer.learning_rate *= len(repeated) / 70  # the mean is over fewer or more rows
    a.train_on_batch(X, Y, sample_weight=twice)
    b.train_on_batch(X[repeated], Y[repeated])
    np.testing.assert_allclose(weights(a), weights(b), rtol=1e-4, atol=1e-6)


def test_class_weights_are_sample_weights():
    table = {0: 0.5, 1: 2.0, 2: 1.0}
    w = np.array([table[label] for label in Y])
    by_class = trained(X, Y, class_weight=table, shuffle=False)
    np.testing.assert_array_equal(by_class, trained(X, Y, sample_weight=w, shuffle=False))
    np.testing.assert_array_equal(
        by_class, trained(dataset().batch(32), class_weight={0: 0.5, 1: 2.0})
    )
    with_weights = [(X[:32], Y[:32], w[:32]), (X[32:64], Y[32:64], w[32:64]),
                    (X[64:], Y[64:], w[64:])]  # fmt: skip
    np.testing.assert_array_equal(by_class, trained(with_weights, shuffle=False))


def test_validation_knows_no_class_weights():
    table, w = {0: 5.0, 1: 0.0}, np.linspace(0, 1, 70)
    plain = net().fit(X, Y, validation_split=0.5, epochs=1, verbose=0, shuffle=False)
    model = net()
    model.optimizer.learning_rate = 0.0
    for weight in (None, w):
        more = {} if weight is None else {"sample_weight": w[35:]}
        history = model.fit(X, Y, validation_split=0.5, class_weight=table, sample_weight=weight,
                            verbose=0)  # fmt: skip
        want = model.evaluate(X[35:], Y[35:], verbose=0, **more)[0]
        assert history.history["val_loss"][0] == pytest.approx(want, rel=1e-6)
    assert plain.history["loss"] != history.history["loss"]


def test_weights_and_losses_per_output():
    fc.set_random_seed(0)
    x = fc.Input((4,), name="in")
    model = fc.Model(x, [layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(x)])
    model.compile("sgd", {"a": "mse", "b": "mse"}, loss_weights={"a": 1.0, "b": 3.0})
    rows, target = RNG.random((8, 4)), np.zeros(8)
    w = RNG.random(8)
    logs = model.evaluate(rows, {"a": target, "b": target}, sample_weight={"b": w}, verbose=0,
                          return_dict=True)  # fmt: skip
    a, b = (y[:, 0] for y in model.predict(rows))
    assert logs["a_loss"] == pytest.approx(np.mean(a**2), rel=1e-5)
    assert logs["b_loss"] == pytest.approx(np.mean(w * b**2), rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["a_loss"] + 3 * logs["b_loss"], rel=1e-6)


# -- parts of a batch -----------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 5, 32])
def test_accumulated_parts_are_the_whole_batch(parts):
    options = {"batch_size": 32, "epochs": 2, "sample_weight": np.linspace(0, 2, 70)}
    whole = trained(X, Y, **options)
    np.testing.assert_allclose(
        trained(X, Y, accumulate_steps=parts, **options), whole, rtol=2e-3, atol=2e-5
    )
    assert not np.array_equal(whole, trained(X, Y, batch_size=16, epochs=2))


def test_parts_take_less_memory_and_drop_apart():
    model = net(dropout=0.5)
    model.fit(X, Y, batch_size=64, accumulate_steps=8, verbose=0)
    plan, _ = model._plan("fit", [X])
    assert [running.capacity for running in plan._passes] == [8]
    model.fit(X, Y, batch_size=1 << 30, verbose=0)  # memory for what there is
    assert [running.capacity for running in plan._passes] == [70]
    assert np.isfinite(weights(model)).all()


def test_images_stay_bytes():
    held = []

    class Watch(fc.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            held.append([a.dtype for a in self.run.source.x])

    net().fit(X, Y, callbacks=[Watch()], verbose=0)
    assert held[0] == [np.uint8]


def test_batches_of_other_sizes_and_shapes():
    fc.set_random_seed(0)
    x = fc.Input((None, None, 1))
    y = layers.Conv2D(2, 3, activation="relu")(x)
    model = fc.Model(x, layers.Dense(2, activation="softmax")(layers.GlobalMaxPooling2D()(y)))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    batches = [(RNG.random((n, s, s, 1)), np.zeros(n, int)) for n, s in [(3, 5), (8, 5), (2, 9)]]
    history = model.fit(batches, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    total = sum(len(b) * model.evaluate(a, b, verbose=0)[0] for a, b in batches)
    assert model.evaluate(batches, verbose=0)[0] == pytest.approx(total / 13, rel=1e-6)


# -- one batch ------------------------------------------------------------------------------------


def test_one_batch_at_a_time():
    model, other = net(), net()
    logs = model.train_on_batch(X, Y, return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    other.fit(X, Y, batch_size=70, shuffle=False, verbose=0)
    np.testing.assert_array_equal(weights(model), weights(other))
    assert model.test_on_batch(X, Y) == model.evaluate(X, Y, batch_size=70, verbose=0)
    np.testing.assert_array_equal(model.predict_on_batch(X), model.predict(X))


# -- what is shown --------------------------------------------------------------------------------


def test_the_bar_looks_like_keras(capsys):
    net().fit(X, Y, epochs=2, validation_data=(X, Y))
    lines = capsys.readouterr().out.replace("\r", "\n").splitlines()
    assert "Epoch 1/2" in lines
    last = [line for line in lines if line.startswith("3/3")][-1]
    assert "━" * 20 in last
    assert "ms/step - accuracy: " in last or "us/step - accuracy: " in last
    assert last.index("accuracy") < last.index("loss") < last.index("val_accuracy")


def test_evaluate_has_a_bar_too(capsys):
    model = net()
    model.evaluate(X, Y)
    line = capsys.readouterr().out.replace("\r", "\n").splitlines()[-1]
    assert re.match(r"3/3 ━{20} 0s .*/step - accuracy: .* - loss: ", line), line
    model.evaluate(X, Y, verbose=2)
    assert capsys.readouterr().out.startswith("3/3 - 0s - ")
    model.evaluate(X, Y, verbose=0)
    assert capsys.readouterr().out == ""


PROGRAM = """
import sys, time
from fastconv.progress import Progress
logs = {"accuracy": 0.9101, "loss": 0.2921, "val_accuracy": 0.5, "val_loss": 1.5}
if sys.argv[1] == "short":
    logs = {"loss": 0.2921}
bar = Progress("Epoch 1/1", 938 if sys.argv[2] == "known" else None, 1)
for step in range(3):
    time.sleep(0.11)
    bar.update(64 * (step + 1), lambda: logs)
bar.close(192, logs)
"""


def shown_in_a_terminal(columns, *arguments):
    """The lines of PROGRAM in a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT) as process:
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                text += part
    os.close(ours)
    assert process.returncode == 0, text
    lines = text.decode().replace("\x1b[A", "").replace("\r", "\n").splitlines()
    return [line.rstrip() for line in lines if "/" in line and "Epoch" not in line]


@pytest.mark.parametrize("total", ["known", "unknown"])
@pytest.mark.parametrize("columns", [30, 40, 60, 80, 100, 200])
def test_the_bar_fits_the_terminal(columns, total):
    lines = shown_in_a_terminal(columns, "long", total)
    assert len(lines) >= 4
    for line in lines[1:]:
        assert len(line) <= columns
        assert re.search(r"\bloss: 0\.2921( - |$)", line), line  # not cut
    last = lines[-1]
    assert last.startswith("3/938 " if total == "known" else "3/3 ")
    assert ("val_loss: 1.5000" in last) == (columns > 30)
    assert ("images/s" in last) == (columns == 200)
    assert ("ms/step" in last) == (columns >= 100)
    assert last.count(" - ") == {30: 0, 40: 1, 60: 1, 80: 3, 100: 4, 200: 5}[columns]


def test_a_short_line_keeps_a_short_bar():
    last = shown_in_a_terminal(46, "short", "known")[-1]
    assert "━" not in last  # 3 of 938 are less than a tenth
    assert "images/s" not in last
    assert re.match(r"3/938 {9,}\S", last), last


def test_a_line_per_epoch(capsys):
    net().fit(X, Y, epochs=2, verbose=2)
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == "Epoch 1/2"
    assert second.startswith("3/3 - 0s - ")


# -- what is wrong --------------------------------------------------------------------------------


def nan(place, array=X):
    array = array.astype(np.float32)
    array[place] = np.nan
    return array


def shrinking():
    yield X[:10], Y[:10]
    yield X[:10, 1:], Y[:10]


def failing():
    yield X[:10], Y[:10]
    raise OSError("the disk is on fire")


BAD = {
    "nan in x": (lambda: net().fit(nan((41, 2, 3, 0)), Y), r"nan in sample 41 at \(2, 3, 0\)"),
    "nan in y": (
        lambda: regression().fit(X, nan((7, 0), np.zeros((70, 3)))),
        r"y for dense holds nan in sample 7 at \(0,\)",
    ),
    "inf in a batch": (
        lambda: net().fit([(X, Y), (np.full((2, 6, 6, 1), np.inf), Y[:2])]),
        r"batch \d of x: x for .* holds inf in sample 0",
    ),
    "nan in validation": (
        lambda: net().fit(X, Y, validation_data=(nan((3, 0, 0, 0)), Y)),
        "validation_data: .*nan in sample 3",
    ),
    "a generator that ends early": (
        lambda: net().fit(pairs(), steps_per_epoch=5, epochs=2),
        r"generator given as x has ended after 7 batches, 2 of the 5",
    ),
    "a generator for two epochs": (lambda: net().fit(pairs(), epochs=2), "after 7 batches.*anew"),
    "an empty generator": (lambda: net().fit(iter([])), "gave no batches"),
    "a batch of another shape": (
        lambda: net().fit(shrinking()), r"batch 1 of x: .*\(10, 5, 6, 1\)",
    ),
    "batches without targets": (lambda: net().fit(x for x in [X]), "no targets"),
    "y beside batches": (lambda: net().fit(iter(list(pairs())), Y), "y is not taken"),
    "batch_size of batches": (lambda: net().fit(Batches(), batch_size=3), "batch_size is not"),
    "no y": (lambda: net().fit(X), "targets"),
    "split of batches": (lambda: net().fit(Batches(), validation_split=0.1), "validation_data"),
    "weights of another length": (lambda: net().fit(X, Y, sample_weight=np.ones(3)), r"\(3,\)"),
    "negative weights": (lambda: net().fit(X, Y, sample_weight=-np.ones(70)), "0 or more"),
    "a list as class_weight": (lambda: net().fit(X, Y, class_weight=[1, 2]), "dict"),
    "a class as a callback": (
        lambda: net().fit(X, Y, callbacks=[fc.callbacks.History]), r"write \(\)",
    ),
    "too many steps": (lambda: net().fit(X, Y, steps_per_epoch=9), "9 batches of 32"),
    "channels first": (
        lambda: net().predict(np.ones((3, 1, 6, 6))), r"channels come last.*moveaxis",
    ),
    "an unknown hook": (lambda: fc.callbacks.LambdaCallback(on_epoch_ende=print), "on_epoch_end"),
    "a data set without end": (
        lambda: net().fit(dataset().batch(10).repeat()), "x has no end: say how many steps",
    ),
    "ragged samples": (
        lambda: list(fc.Dataset.from_generator(lambda: [np.ones(2), np.ones(3)]).batch(2)),
        r"\(2,\) and \(3,\)",
    ),
}  # fmt: skip


def regression():
    model = net()
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("what", BAD)
def test_bad_input_names_the_culprit(what):
    act, words = BAD[what]
    with pytest.raises(ValueError, match=words):
        act()


def test_what_a_generator_raises_says_where():
    with pytest.raises(OSError, match="on fire") as caught:
        net().fit(failing(), verbose=0)
    assert caught.value.__notes__ == ["raised by x while batch 1 was made"]


# -- Dataset --------------------------------------------------------------------------------------


def test_a_data_set_repeats_whatever_the_threads():
    def noisy(x, y, rng):
        time.sleep(float(rng.random()) * 1e-3)
        return x + rng.random(x.shape), y

    def batches(threads):
        fc.set_random_seed(3)
        data = dataset().shuffle(20).map(noisy, threads, random=True).batch(16).prefetch(2)
        return [x for _ in range(2) for x, _ in data]

    want = batches(None)
    for a, b in zip(want, batches(4), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(want[0], want[5])  # another epoch, another order and noise


def test_stages_of_a_data_set():
    numbers = fc.Dataset.from_tensor_slices(np.arange(10))
    assert [int(x) for x in numbers.skip(2).take(3)] == [2, 3, 4]
    assert [int(x) for x in numbers.filter(lambda x: x % 5 == 0)] == [0, 5]
    assert [int(x) for x in numbers.take(2).repeat(2)] == [0, 1, 0, 1]
    assert [int(x) for x in numbers.take(1).concatenate(numbers.skip(9))] == [0, 9]
    assert [len(x) for x in numbers.batch(4)] == [4, 4, 2]
    assert [len(x) for x in numbers.batch(4, drop_remainder=True)] == [4, 4]
    assert [int(x) for x in numbers.batch(4).unbatch()] == list(range(10))
    assert (len(numbers.batch(4)), numbers.filter(bool).cardinality()) == (3, -2)
    endless = numbers.repeat().batch(3)
    assert (endless.cardinality(), len(endless.skip(2).take(4))) == (-1, 4)
    assert "endless" in repr(endless.concatenate(numbers))
    stream = fc.Dataset.from_generator(lambda: range(10)).shuffle(4, seed=1)
    first, second = list(stream), list(stream)
    assert sorted(first) == list(range(10))
    assert first != second
    same = numbers.shuffle(10, seed=1, reshuffle_each_iteration=False)
    assert list(same) == list(same)
    named = fc.Dataset.from_tensor_slices({"a": np.ones((4, 2)), "b": np.zeros(4)}).batch(2)
    assert {k: v.shape for k, v in next(iter(named)).items()} == {"a": (2, 2), "b": (2,)}
    assert len(list(numbers.map(lambda x: x, AUTOTUNE))) == 10


def test_a_cache_is_filled_once():
    made = []
    data = fc.Dataset.from_tensor_slices(np.arange(4)).map(lambda x: made.append(int(x)) or x)
    cached = data.cache()
    assert [list(cached) for _ in range(3)] == [[0, 1, 2, 3]] * 3
    assert made == [0, 1, 2, 3]


def test_threads_end_with_the_data():
    before = threading.active_count()
    for _ in dataset().map(lambda x, y: (x, y), 3).batch(2).prefetch(3):
        break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before

    def broken(x, y):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        list(dataset().map(broken, 2).prefetch(2))


def test_a_fingerprint_of_data():
    a = dataset().shuffle(10).batch(4).fingerprint()
    assert a == dataset().shuffle(10).batch(4).fingerprint()
    other = X.copy()
    other[3, 3, 3] += 1
    assert a != fc.Dataset.from_tensor_slices((other, Y)).shuffle(10).batch(4).fingerprint()
    assert a != dataset().shuffle(10).batch(5).fingerprint()
    assert fc.Dataset.from_generator(pairs).fingerprint() is None


# -- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_after_the_step(tmp_path):
    model, steps = net(), []

    def press(batch, logs):
        steps.append(batch)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # the handler has its turn

    log = fc.callbacks.CSVLogger(tmp_path / "log.csv")
    presses = fc.callbacks.LambdaCallback(on_train_batch_begin=press)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=10, epochs=3, verbose=0, callbacks=[presses, log])
    assert len(steps) == 2
    assert model.optimizer.iterations == 2  # the step that ran was finished
    assert log.file is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model.fit(X, Y, verbose=0)

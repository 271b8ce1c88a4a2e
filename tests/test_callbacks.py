"""Callbacks: when they are called, what they do, what they leave behind."""

import csv
import json
import os
import struct
from collections import Counter

import numpy as np
import pytest
from test_fit import X, Y, net, weights

import fastconv as fc
from fastconv import callbacks, layers
from fastconv.tensorboard import masked_crc


class Fixed(callbacks.Callback):
    """Puts given numbers into the logs, before others look at them."""

    def __init__(self, **numbers):
        self.numbers = numbers

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: values[epoch] for name, values in self.numbers.items()})


def run(*listed, epochs=6, model=None, **options):
    model = model or net()
    history = model.fit(X, Y, epochs=epochs, callbacks=list(listed), verbose=0, **options)
    return model, history


# -- hooks ----------------------------------------------------------------------------------------


def test_every_hook_is_called_in_its_turn():
    seen = []

    class Watch(callbacks.Callback):
        pass

    for hook in vars(callbacks.Callback):
        if hook.startswith("on_"):
            setattr(Watch, hook, lambda self, *given, hook=hook: seen.append((hook, *given[:-1])))
    watch = Watch()
    model, _ = run(watch, epochs=2, validation_data=(X[:40], Y[:40]))
    assert watch.params == {"verbose": 0, "epochs": 2, "steps": 3, "batch_size": 32}
    assert watch.model is model
    batch = [("on_train_batch_begin", 0), ("on_train_batch_end", 0)]
    assert seen[:4] == [("on_train_begin",), ("on_epoch_begin", 0), *batch]
    assert seen[8:10] == [("on_test_begin",), ("on_test_batch_begin", 0)]
    assert seen[12:15] == [("on_test_batch_end", 1), ("on_test_end",), ("on_epoch_end", 0)]
    assert seen[-1] == ("on_train_end",)
    assert Counter(hook for hook, *_ in seen)["on_train_batch_end"] == 6
    seen.clear()
    model.predict(X, batch_size=40, callbacks=[watch])
    assert [hook for hook, *_ in seen] == [
        "on_predict_begin", *["on_predict_batch_begin", "on_predict_batch_end"] * 2,
        "on_predict_end",
    ]  # fmt: skip
    seen.clear()
    model.evaluate(X, Y, callbacks=watch, verbose=0)
    assert seen[0] == ("on_test_begin",)


def test_older_names_of_hooks_and_weights():
    class Old(callbacks.Callback):
        seen = 0

        def on_batch_end(self, batch, logs=None):
            self.seen += 1

    old = Old()
    model, _ = run(old, epochs=1)
    assert old.seen == 3
    assert len(model.weights) == len(model.trainable_weights) == 4
    assert model.non_trainable_weights == model.get_layer("conv").non_trainable_weights == []
    assert model.metrics_names == ["loss", "accuracy"]


def test_lambdas_and_numbers_of_a_batch():
    losses = []
    run(callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: losses.append(logs["loss"])),
        epochs=1)  # fmt: skip
    assert len(losses) == 3
    model, history = net(), None
    history = model.fit(X, Y, verbose=0)
    assert losses[-1] == history.history["loss"][0]  # the mean so far


def test_files_are_closed_after_an_error(tmp_path):
    def fail(epoch, logs):
        raise RuntimeError("on purpose")

    log = callbacks.CSVLogger(tmp_path / "log.csv")
    with pytest.raises(RuntimeError, match="on purpose"):
        run(log, callbacks.LambdaCallback(on_epoch_end=fail))
    assert log.file is None
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


# -- those that stop or change --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "stopped", "best"),
    [
        ({"patience": 2}, [5, 4, 4, 4, 4, 4], 3, 1),
        ({"patience": 0}, [5, 4, 4, 3, 2, 1], 2, 1),
        ({"patience": 2, "min_delta": 0.5}, [5, 4.8, 4.6, 4.4, 4, 3], 2, 0),
        ({"patience": 1, "mode": "max"}, [1, 2, 3, 2, 9, 9], 3, 2),
        ({"patience": 1, "start_from_epoch": 3}, [1, 9, 9, 5, 6, 7], 4, 3),
        ({"patience": 2, "baseline": 1}, [5, 4, 4, 2, 1, 0], 2, 1),
        ({"patience": 3}, [5, 4, 3, 2, 1, 0], None, 5),
    ],
)
def test_early_stopping(options, values, stopped, best):
    stop = callbacks.EarlyStopping("watched", restore_best_weights=True, **options)
    kept = []
    keep = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.append(weights(stop.model))
    )
    model, history = run(Fixed(watched=values), stop, keep)
    assert len(history.epoch) == (6 if stopped is None else stopped + 1)
    np.testing.assert_array_equal(weights(model), kept[best])


def test_auto_knows_what_grows():
    for name in ("accuracy", "val_accuracy", "acc", "auc", "mean_iou", "f1"):
        assert callbacks.EarlyStopping(name).sign == 1
    for name in ("loss", "val_loss", "mse"):
        assert callbacks.EarlyStopping(name).sign == -1


def test_what_is_monitored_must_exist():
    with pytest.raises(ValueError, match=r"EarlyStopping: unknown number.*no validation_data"):
        run(callbacks.EarlyStopping())
    with pytest.raises(ValueError, match="did you mean 'val_accuracy'"):
        run(callbacks.EarlyStopping("val_acuracy"), validation_split=0.2)
    # an epoch without validation is none of theirs
    run(callbacks.EarlyStopping(patience=9), validation_split=0.2, validation_freq=2)


def test_learning_rates():
    schedule = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else 0.5)
    model, history = run(schedule, epochs=3)
    assert history.history["learning_rate"] == [0.5, 0.25, 0.125]
    assert model.optimizer.learning_rate == 0.125
    plateau = callbacks.ReduceLROnPlateau("watched", factor=0.5, patience=1, cooldown=2, min_lr=0.1)
    model = net()
    model.optimizer.learning_rate = 1.0
    _, history = run(Fixed(watched=[3, 3, 3, 3, 3, 3]), plateau, model=model)
    assert history.history["learning_rate"] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_schedule_and_its_errors():
    with pytest.raises(ValueError, match="schedule"):
        callbacks.LearningRateScheduler(0.1)
    with pytest.raises(ValueError, match="what the schedule returns"):
        run(callbacks.LearningRateScheduler(lambda epoch, rate: None))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_is_stopped_before_it_is_learned():
    def poison(batch, logs):
        if batch == 1:
            model.get_layer("conv").weight.value[0, 0, 0, 0] = np.nan

    model = net()
    before = model.get_layer("dense").weight.value.copy()
    with pytest.warns(RuntimeWarning, match="training stops.*step 1.*conv/kernel holds NaN"):
        run(callbacks.LambdaCallback(on_train_batch_begin=poison), callbacks.TerminateOnNaN(),
            model=model, epochs=5)  # fmt: skip
    assert model.optimizer.iterations == 1
    assert np.isfinite(model.get_layer("dense").weight.value).all()
    assert (model.get_layer("dense").weight.value != before).any()


class Overflow(layers.Layer):
    """y = exp(100 x): the layer where infinity arises."""

    def output_shape(self, shape):
        return shape

    def forward(self, b, frame):
        y = b.value(frame.inputs[0].shape)
        b.python(self._forward, reads=[frame.inputs[0]], writes=[y])
        return y

    def _forward(self, arrays, training):
        with np.errstate(over="ignore"):
            np.exp(100 * arrays[0], out=arrays[1])

    def backward(self, b, frame, dy):
        return [None]


def test_the_layer_where_infinity_arose_is_named():
    fc.set_random_seed(0)
    model = fc.Sequential(
        [layers.Input((4,)), layers.Dense(3), Overflow(name="hot"), layers.Dense(2, name="after")]
    )
    model.compile("sgd", "mse")
    with pytest.warns(RuntimeWarning, match=r"first in the result of the layer hot \(Overflow\)"):
        model.fit(np.full((4, 4), 99.0), np.zeros((4, 2)), verbose=0)
    plain = fc.Sequential([layers.Input((1,)), layers.Rescaling(1e25)])
    plain.compile("sgd", "mse")
    with pytest.warns(RuntimeWarning, match="it is the loss that"):
        plain.fit(np.ones((2, 1)), np.zeros((2, 1)), verbose=0)


# -- those that write -----------------------------------------------------------------------------


def test_checkpoints(tmp_path):
    path = tmp_path / "new" / "{epoch:02d}-{accuracy:.1f}.fastconv"
    run(callbacks.ModelCheckpoint(path), epochs=2)
    assert sorted(p.name[:3] for p in path.parent.iterdir()) == ["01-", "02-"]
    best = callbacks.ModelCheckpoint(tmp_path / "best.fastconv", "watched", save_best_only=True)
    kept = []
    keep = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kept.append(weights(best.model))
    )
    run(Fixed(watched=[3, 1, 2, 4, 1, 1]), best, keep)
    np.testing.assert_array_equal(weights(fc.load_model(tmp_path / "best.fastconv")), kept[1])
    every = callbacks.ModelCheckpoint(
        tmp_path / "{epoch}-{batch}.npz", save_weights_only=True, save_freq=2
    )
    run(every, epochs=2)
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == ["1-2.npz", "2-1.npz", "2-3.npz"]


def test_checkpoints_that_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "model.fastconv"
    run(callbacks.ModelCheckpoint(path), epochs=1)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(callbacks.ModelCheckpoint(path), epochs=1)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.fastconv"]
    with pytest.raises(ValueError, match=r"names 'los'; there are: .*loss"):
        run(callbacks.ModelCheckpoint(tmp_path / "{los}.fastconv"))
    with pytest.raises(ValueError, match=r"\.safetensors or \.npz"):
        callbacks.ModelCheckpoint("x.weights.h5", save_weights_only=True)


def test_tables_and_lines(tmp_path):
    table, lines = tmp_path / "log.csv", tmp_path / "log.jsonl"
    _, history = run(callbacks.CSVLogger(table), callbacks.JSONLogger(lines), epochs=3,
                     validation_split=0.2, validation_freq=2)  # fmt: skip
    rows = list(csv.DictReader(table.open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["loss"]) for row in rows] == history.history["loss"]
    assert [row["val_loss"] == "NA" for row in rows] == [True, False, True]
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["loss"] for line in told] == history.history["loss"]
    log = callbacks.CSVLogger(table, append=True)
    run(log, epochs=1)
    run(log, epochs=1)
    assert len(table.read_text().splitlines()) == 6
    run(callbacks.CSVLogger(table), epochs=1)
    assert len(table.read_text().splitlines()) == 2


def test_event_files_are_records_with_checksums(tmp_path):
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32
    run(callbacks.TensorBoard(tmp_path), epochs=2)
    (path,) = (tmp_path / "train").iterdir()
    data, records = path.read_bytes(), 0
    while data:
        length = struct.unpack("<Q", data[:8])[0]
        assert struct.unpack("<I", data[8:12])[0] == masked_crc(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc(
            data[12 : 12 + length]
        )
        data, records = data[16 + length :], records + 1
    assert records == 1 + 2 * 2
    with pytest.raises(ValueError, match="embeddings_freq"):
        callbacks.TensorBoard(tmp_path, embeddings_freq=1)


def test_tensorboard_reads_them(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    model, history = run(
        callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=2), epochs=3,
        validation_split=0.2,
    )  # fmt: skip
    read = accumulator.EventAccumulator(str(tmp_path / "train"))
    read.Reload()
    losses = [event.value for event in read.Scalars("epoch_loss")]
    np.testing.assert_allclose(losses, history.history["loss"], rtol=1e-6)
    assert [event.step for event in read.Scalars("batch_loss")] == [2, 4, 6]
    last = read.Histograms("conv/kernel")[-1].histogram_value
    kernel = model.get_layer("conv").weight.value
    assert last.num == kernel.size
    assert last.sum == pytest.approx(float(kernel.sum(dtype=float)))
    assert sum(last.bucket) == kernel.size
    validated = accumulator.EventAccumulator(str(tmp_path / "validation"))
    validated.Reload()
    assert len(validated.Scalars("epoch_loss")) == 3


def test_hooks_are_what_there_is():
    with pytest.raises(TypeError, match=r"unknown hook of C 'on_epoch_ends'; did you mean"):
        type("C", (callbacks.Callback,), {"on_epoch_ends": lambda self, epoch, logs=None: None})
    seen = []

    class Short(callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(("class", batch))

    listed = [
        Short(),
        callbacks.LambdaCallback(None, lambda epoch, logs: seen.append(("epoch", epoch))),
        callbacks.LambdaCallback(on_batch_begin=lambda batch, logs: seen.append(("begin", batch))),
    ]
    model = fc.Sequential([fc.Input((2,)), fc.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones(4), batch_size=2, verbose=0, callbacks=listed)
    assert seen == [("begin", 0), ("class", 0), ("begin", 1), ("class", 1), ("epoch", 0)]

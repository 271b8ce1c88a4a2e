"""Runs that survive: killed, interrupted, started again, the weights are the same bits."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from test_fit import X, Y, net, weights

import fastconv as fc
from fastconv import callbacks, layers
from fastconv.files import replacing

pytestmark = pytest.mark.usefixtures("interruptible")

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
    import os, signal, sys
    import numpy as np
    import fastconv as fc
    from fastconv import layers

    folder, kill_at, threads, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    fc.set_num_threads(threads)
    fc.set_random_seed(7)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (120, 8, 8, 1)).astype(np.uint8), rng.integers(0, 3, 120)

    turn = layers.RandomRotation(0.1)

    def endless():
        while True:
            for start in range(0, 120, 10):
                yield x[start : start + 10], y[start : start + 10]

    data = {
        "arrays": lambda: dict(x=x, y=y, batch_size=10),
        "dataset": lambda: dict(x=fc.Dataset.from_tensor_slices((x, y)).shuffle(120)
                                .map(lambda a, b, r: (a + r.random(a.shape), b), random=True)
                                .map(lambda a, b: (turn(a), b), num_parallel_calls=2)
                                .batch(10).prefetch(2)),
        "generator": lambda: dict(x=endless(), steps_per_epoch=7),
    }[kind]()
    model = fc.Sequential([
        layers.Input((8, 8, 1)), layers.RandomTranslation(0.2, 0.2), layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.3),
        layers.Flatten(), layers.Dense(3, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    class Kill(fc.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if model.optimizer.iterations == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    history = model.fit(**data, epochs=3, verbose=0, callbacks=[
        Kill(), fc.callbacks.CSVLogger(folder + ".csv"), fc.callbacks.JSONLogger(folder + ".jsonl"),
        fc.callbacks.ReduceLROnPlateau("loss", patience=1, factor=0.5, min_delta=1),
        fc.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
        fc.callbacks.BackupAndRestore(folder, save_freq=4),
    ])
    print(history.fingerprint, history.history)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(SCRIPT))

    def run(name, kill_at=0, threads=1, kind="arrays"):
        done = subprocess.run(
            [sys.executable, path, tmp_path / name, str(kill_at), str(threads), kind],
            capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("kind", ["arrays", "dataset", "generator"])
def test_killed_in_the_middle_of_an_epoch_and_started_again(script, tmp_path, kind):
    want = script("whole", kind=kind)
    for name in ("broken.csv", "broken.jsonl"):  # an earlier run has left something
        (tmp_path / name).write_text("epoch,loss\n" + "0,1.5\n" * 99)
    script("broken", kill_at=2, kind=kind)  # before the first backup
    script("broken", kill_at=10, kind=kind)  # the backup is of step 8
    assert (tmp_path / "broken" / "run.safetensors").exists()
    script("broken", kill_at=15, threads=2, kind=kind)
    assert script("broken", kind=kind) == want
    assert (tmp_path / "broken.csv").read_text() == (tmp_path / "whole.csv").read_text()
    lines = (tmp_path / "broken.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2]
    assert not (tmp_path / "broken").exists()  # what has come to its end needs no backup


WRITER = """
    import sys
    import numpy as np
    import fastconv as fc
    from fastconv import layers

    fc.set_random_seed(0)
    model = fc.Sequential([layers.Input((256,)), layers.Dense(1024), layers.Dense(1)])
    model.compile("adam", "mse")

    class Tell(fc.callbacks.Callback):
        last = True
        def on_train_batch_begin(self, batch, logs=None):
            print(model.optimizer.iterations, flush=True)

    x, y = np.ones((64, 256)), np.ones(64)
    model.fit(x, y, batch_size=1, epochs=999, verbose=0,
              callbacks=[fc.callbacks.BackupAndRestore(sys.argv[1], save_freq=1), Tell()])
"""


def test_killed_while_it_writes(tmp_path):
    path = tmp_path / "writer.py"
    path.write_text(textwrap.dedent(WRITER))
    first = []
    for pause in (0.02, 0.05, 0.011, 0.037):
        writer = subprocess.Popen(
            [sys.executable, path, tmp_path / "run"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        first.append(int(writer.stdout.readline()))
        writer.stdout.readline()  # the first backup of this process is whole
        time.sleep(pause)  # nearly all of it is spent in writing
        writer.kill()
        writer.communicate()
    assert first[0] == 0
    assert first == sorted(set(first))  # each began behind the one before, with a whole file


@pytest.mark.parametrize("steps", [(3, 5), (3, 9, 11), (8, 10)])
@pytest.mark.parametrize("append", [False, True])
def test_lines_are_written_once(tmp_path, steps, append):
    """However often it is broken off, before its first line or behind one."""
    path = tmp_path / "log.csv"
    path.write_text("before\n")
    want = "before\n" if append else ""

    class Broken(Exception):
        pass

    def run(at, folder="run"):
        model = net()

        def stop(batch, logs):
            if model.optimizer.iterations == at:
                raise Broken

        listed = [
            callbacks.CSVLogger(path, append=append),
            callbacks.BackupAndRestore(tmp_path / folder, save_freq=2),
            callbacks.LambdaCallback(on_train_batch_end=stop),
        ]
        model.fit(X, Y, batch_size=10, epochs=2, verbose=0, callbacks=listed)

    for at in steps:
        with pytest.raises(Broken):
            run(at)
    run(0)
    text = path.read_text()
    assert text.startswith(want)
    assert [line.partition(",")[0] for line in text[len(want) :].splitlines()] == (
        ["0", "1"] if append else ["epoch", "0", "1"]
    )


LIMITED = """
    import resource, sys
    import numpy as np
    import fastconv as fc
    from fastconv import layers

    what, path = sys.argv[1:]
    x, y = np.ones((8, 4), "f4"), np.ones((8, 1), "f4")
    model = fc.Sequential([layers.Input((4,)), layers.Dense(900), layers.Dense(1)])
    model.compile("adam", "mse")
    listed = {
        "csv": lambda: fc.callbacks.CSVLogger(path),
        "lines": lambda: fc.callbacks.JSONLogger(path),
        "backup": lambda: fc.callbacks.BackupAndRestore(path),
    }
    if what in listed:
        def write():
            model.fit(x, y, epochs=1500, verbose=0, callbacks=[listed[what]()])
    else:
        write = lambda: {
            "save": model.save, "weights": model.save_weights, "export": model.export,
        }[what](path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        write()
    except OSError as error:
        print(error.filename, error.strerror)
"""


@pytest.mark.parametrize(
    ("what", "name"),
    [("save", "a.fc"), ("export", "a.onnx"), ("weights", "a.npz"), ("weights", "a.safetensors"),
     ("csv", "log.csv"), ("lines", "log.jsonl"), ("backup", "run")],
)  # fmt: skip
def test_a_disk_that_takes_no_more_is_named(tmp_path, what, name):
    if what == "export":
        pytest.importorskip("onnxruntime")
    path, script = tmp_path / name, tmp_path / "limited.py"
    script.write_text(textwrap.dedent(LIMITED))
    done = subprocess.run(
        [sys.executable, script, what, path], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    full = path / "run.safetensors" if what == "backup" else path
    assert done.stdout.startswith(f"{full} File too large"), done.stderr
    if what in ("csv", "lines"):
        assert path.read_text().endswith("\n")  # the last line that fits is whole
        path.unlink()
    elif what == "backup":
        assert list(path.iterdir()) == []
        path.rmdir()
    assert list(tmp_path.iterdir()) == [script]


SAVER = """
    import sys
    from fastconv.files import replacing

    with replacing(sys.argv[1]) as file:
        file.write(b"half")
        file.flush()
        print("begun", flush=True)
        sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path):
    path, other = tmp_path / "[a].fc", tmp_path / "b.fc"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVER), name], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for name in (path, path, other)
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "begun\n"
    for part in tmp_path.glob(".*.part"):
        os.utime(part, (1, 1))  # begun long ago
    writers[0].kill()
    writers[2].kill()
    for writer in (writers[0], writers[2]):
        writer.communicate()
    with replacing(path) as file:
        file.write(b"whole")
    parts = sorted(p.name.rpartition(".fc")[0] for p in tmp_path.glob(".*.part"))
    assert parts == [".[a]", ".b"]  # of a process that still writes, and of another file
    writers[1].communicate()
    assert path.read_bytes() == b"half"  # the last one to be whole


def fitted(folder, *, epochs=2, stop_after=None, model=None, data=(X, Y), more=(), **options):
    """Train with a backup; stopped after so many steps as Ctrl-C does it."""
    model = model or net(norm=True, dropout=0.3)
    seen = []

    def count(batch, logs):
        seen.append(batch)
        if len(seen) == stop_after:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    listed = [callbacks.BackupAndRestore(folder)] if folder else []
    listed += [callbacks.LambdaCallback(on_train_batch_begin=count), *more]
    fit = {"batch_size": 10, "epochs": epochs, "verbose": 0, "callbacks": listed, **options}
    if stop_after is None:
        return model, model.fit(*data, **fit)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data, **fit)
    return model, None


@pytest.mark.parametrize("steps", [1, 6, 7, 8])
def test_an_interrupted_run_goes_on(tmp_path, steps):
    want, history = fitted(None)
    fitted(tmp_path / "run", stop_after=steps)
    model, other = fitted(tmp_path / "run")
    np.testing.assert_array_equal(weights(model), weights(want))
    assert other.history == history.history
    assert other.epoch == history.epoch


def test_sigterm_ends_a_run_where_it_is_told_to(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stop = callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: signal.raise_signal(signal.SIGTERM)
        )
        model = net(norm=True, dropout=0.3)
        with pytest.raises(KeyboardInterrupt):
            model.fit(
                X, Y, batch_size=10, epochs=2, verbose=0,
                callbacks=[stop, callbacks.BackupAndRestore(tmp_path)],
            )  # fmt: skip
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert model.optimizer.iterations == 1  # the step was ended
    assert (tmp_path / "run.safetensors").exists()


def refused(folder, *words, model=None, **changes):
    """It is said what differs, and neither the model nor the backup is another one then."""
    backup = folder / "run.safetensors"
    before = backup.read_bytes()
    model = model or net(norm=True, dropout=0.3)
    model.optimizer.build(model._trainable())
    fingerprint, rate = model.fingerprint(), model.optimizer.learning_rate
    with pytest.raises(callbacks.BackupError) as caught:
        fitted(folder, model=model, **changes)
    text = str(caught.value)
    for word in words:
        assert re.search(word, text), text
    assert "remove this file or name another backup_dir" in text
    assert max(map(len, text.splitlines()[1:])) <= 160
    assert model.fingerprint() == fingerprint
    assert (model.optimizer.iterations, model.optimizer.learning_rate) == (0, rate)
    assert all((v == 0).all() for v in model.optimizer.variables(model.parameters()).values())
    assert backup.read_bytes() == before
    return text


def test_a_backup_of_something_else_is_refused(tmp_path):
    fitted(tmp_path, stop_after=3)
    other = fc.Sequential(
        [layers.Input((6, 6, 1)), layers.Conv2D(5, 3, name="conv"), layers.Flatten(),
         layers.Dense(3, activation="softmax", name="dense")]
    )  # fmt: skip
    other.compile("sgd", "sparse_categorical_crossentropy")
    text = refused(tmp_path, "another run", model=other)
    assert re.search(r"parameter 0, conv/kernel +float32 3×3×1×4 +float32 3×3×1×5", text)
    assert re.search(r"\noptimizer +adam +sgd", text)
    assert "beta_1" not in text  # another optimizer has other options
    assert re.search(r"\nlayers +\S.*BatchNorm.*Flatten", text)
    assert "filters" not in text
    changed = X.copy()
    changed[60] = 0
    refused(tmp_path, "the data have changed", data=(changed, Y))
    path = tmp_path / "run.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    refused(tmp_path, "not a backup of a run, or damaged")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 20}, r"\nbatch size +10 +20"),
        ({"shuffle": False}, r"\nshuffle +True +False"),
        ({"initial_epoch": 1}, r"\ninitial_epoch +0 +1"),
        (
            {"class_weight": {0: 2.0, 1: 1.0, 2: 1.0}},
            r"\nclass_weight +None +\{0: 2.0, 1",
        ),
        ({"accumulate_steps": 2}, r"\naccumulate_steps +1 +2"),
        ({"validation_data": None}, r"\nvalidation +yes +no"),
        ({"validation_data": (X * 0, Y)}, "the validation data have changed"),
        ({"validation_batch_size": 5}, r"validation: batch size +10 +5"),
        ({"validation_freq": 2}, r"validation_freq +1 +2"),
        ({"callbacks": []}, "had other callbacks: LambdaCallback, EarlyStopping, History"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_another_fit_is_refused(tmp_path, changes, words):
    given = {"validation_data": (X, Y), "more": [callbacks.EarlyStopping()]}
    fitted(tmp_path, stop_after=3, **given)
    if "callbacks" in changes:
        changes = {"more": changes["callbacks"]}
    refused(tmp_path, words, **{**given, **changes})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 0.5}, r"\nlayer \d, dropout: rate +0.3 +0.5\n"),
        ({"activation": "elu"}, r"\nlayer 1, conv: activation +relu +elu\n"),
        ({"optimizer": fc.optimizers.Adam(beta_1=0.5)}, r"\noptimizer.beta_1 +0.9 +0.5\n"),
        ({"optimizer": fc.optimizers.Adam(0.5)}, r"\noptimizer.learning_rate +0.001 +0.5\n"),
        (
            {"optimizer": fc.optimizers.Adam(fc.schedules.CosineDecay(0.001, 9))},
            r"\noptimizer.learning_rate +0.001 +CosineDecay\n",
        ),
        (
            {"loss": fc.losses.SparseCategoricalCrossentropy(ignore_class=1)},
            r"\nloss.ignore_class +None +1\n",
        ),
        ({"metrics": ["accuracy"]}, r"\nmetrics +\[\] +\['accuracy'\]\n"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_another_option_is_named(tmp_path, options, words):
    def made(
        dropout=0.3, activation="relu", optimizer="adam", metrics=(),
        loss="sparse_categorical_crossentropy",
    ):  # fmt: skip
        fc.set_random_seed(0)
        model = fc.Sequential(
            [layers.Input((6, 6, 1)), layers.Conv2D(4, 3, activation=activation, name="conv"),
             layers.Dropout(dropout), layers.Flatten(), layers.Dense(3, activation="softmax")]
        )  # fmt: skip
        model.compile(optimizer, loss, metrics=list(metrics))
        return model

    fitted(tmp_path, stop_after=3, model=made())
    text = refused(tmp_path, words, model=made(**options))
    assert len(text.splitlines()) == 4
    fitted(tmp_path, model=made())  # layers are numbered on, which makes no other run


def test_epochs_that_are_done_cannot_be_undone(tmp_path):
    fitted(tmp_path, stop_after=9, epochs=3)  # in epoch 2
    refused(tmp_path, "2 steps of epoch 2 are done already, and epochs=1 .* at least 2", epochs=1)
    model, history = fitted(tmp_path, epochs=4)
    want, other = fitted(None, epochs=4)
    assert history.history == other.history
    np.testing.assert_array_equal(weights(model), weights(want))


def test_batches_that_have_changed_are_refused(tmp_path):
    def pairs(first=0):
        return [(X[i : i + 10] + (first if i == 0 else 0), Y[i : i + 10]) for i in range(0, 70, 10)]

    options = {"shuffle": False, "batch_size": None}
    fitted(tmp_path, stop_after=3, data=(pairs(),), **options)
    refused(
        tmp_path,
        "the data have changed: the first 3 batches of epoch 1",
        data=(pairs(1),),
        **options,
    )
    fitted(tmp_path, data=(pairs(),), **options)


def test_a_full_disk_leaves_the_last_backup(tmp_path, monkeypatch):
    fitted(tmp_path, stop_after=3)
    before = (tmp_path / "run.safetensors").read_bytes()
    (tmp_path / ".run.safetensors.dead.part").write_bytes(b"half")  # killed while it wrote

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        fitted(tmp_path)
    assert (tmp_path / "run.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    monkeypatch.undo()
    want, _ = fitted(None)
    model, _ = fitted(tmp_path)
    np.testing.assert_array_equal(weights(model), weights(want))


def test_a_finished_run_may_keep_its_backup(tmp_path):
    model = net()
    keep = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[keep])
    again = net()
    keep = callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    assert again.fit(X, Y, epochs=2, verbose=0, callbacks=[keep]).history == history.history
    np.testing.assert_array_equal(weights(again), weights(model))


def test_a_saved_model_has_its_fingerprint(tmp_path):
    model = net()
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "a.fastconv")
    assert fc.load_model(tmp_path / "a.fastconv").fingerprint() == model.fingerprint()
    assert model.fingerprint().encode() in (tmp_path / "a.fastconv").read_bytes()
    model.export(tmp_path / "a.onnx")
    assert model.fingerprint().encode() in (tmp_path / "a.onnx").read_bytes()
    changed = shutil.copy(tmp_path / "a.fastconv", tmp_path / "b.fastconv")
    turn_a_bit(changed)
    with pytest.raises(ValueError, match="fingerprint"):
        fc.load_model(changed)


def turn_a_bit(path):
    """Of the weights in a model file, which stays whole in every other way."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    entries["model.safetensors"][-1] ^= 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(content))


# -- processes and threads ------------------------------------------------------------------------


def train_somewhere(seed):
    """What a process or thread of a pool does; gives the fingerprint."""
    model = net(seed, dropout=0.3) if isinstance(seed, int) else seed
    return model.fit(X, Y, epochs=2, verbose=0).fingerprint


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_training_in_processes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    want = [train_somewhere(seed) for seed in (0, 1)]  # threads of OpenMP exist before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(train_somewhere, [0, 1]).get(60) == want


def test_training_in_joblib():
    joblib = pytest.importorskip("joblib")
    want = [train_somewhere(seed) for seed in (0, 1)]
    for prefer in ("threads", "processes"):
        jobs = (joblib.delayed(train_somewhere)(seed) for seed in (0, 1))
        if prefer == "threads":  # the seed is the process' own: models are made beforehand
            jobs = (joblib.delayed(train_somewhere)(net(seed, dropout=0.3)) for seed in (0, 1))
            found = joblib.Parallel(2, prefer=prefer)(jobs)
            assert len(set(found)) == 2
        else:
            assert joblib.Parallel(2, prefer=prefer)(jobs) == want


def test_training_in_threads():
    def train(model):
        return model.fit(X, Y, epochs=3, shuffle=False, verbose=0).fingerprint

    want = [train(net(seed, dropout=0.3)) for seed in range(4)]
    models = [net(seed, dropout=0.3) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train, models)) == want

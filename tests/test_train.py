"""`fastconv train`, `evaluate` and `export` as a user meets them: real processes, real files."""

import argparse
import csv
import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from pictures import KINDS, write_folder
from PIL import Image
from test_cli import complains, inside, says

import fastconv as fc
from fastconv import callbacks, schedules
from fastconv.commands import _recipe, train
from fastconv.commands._scores import Scores, probabilities
from fastconv.datasets import idx
from fastconv.utils.images import read_image

FILES = {
    "model.fc", "model.onnx", "history.csv", "curves.png", "confusion.png", "training.json",
    "README.md", "backup",
}  # fmt: skip
QUICK = ("--model", "lenet5", "--size", 16, "--threads", 1)


def command(*arguments):
    return [sys.executable, "-m", "fastconv", "train", *map(str, arguments)]


def process(*arguments):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """200 pictures of three classes, of many sizes, PNG and JPEG."""
    return write_folder(tmp_path_factory.mktemp("photos"), 200)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("few"), 24, KINDS[:2], seed=1)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """A network trained as the documents say, its folder and what was printed."""
    out = tmp_path_factory.mktemp("trained") / "shapes"
    printed = process(
        photos, "--model", "cifar-vgg", "--epochs", 20, "--flip", "--shift", 2, "--out", out
    )
    return out, printed


# ---- 200 photographs ----


def test_every_file_is_there_and_says_the_same(trained, photos):
    out, printed = trained
    assert {path.name for path in out.iterdir()} == FILES
    told = json.loads((out / "training.json").read_text())
    assert told["state"] == "finished"
    assert told["classes"] == list(KINDS)
    assert told["results"]["images"] == 39  # a fifth of each class
    assert told["results"]["accuracy"] >= 0.9
    assert f"Accuracy: {100 * told['results']['accuracy']:.2f} %" in printed
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert len(rows) == 20
    assert float(rows[-1]["val_loss"]) == pytest.approx(told["history"]["val_loss"][-1])
    model = fc.load_model(out / "model.fc")
    assert model.class_names == list(KINDS)
    assert model.fingerprint() == told["weights_sha256"]
    names = {p.key: p.value for p in onnx.load(out / "model.onnx").metadata_props}
    assert json.loads(names["fastconv.class_names"]) == list(KINDS)
    for name, least in (("curves.png", 400), ("confusion.png", 300)):
        with Image.open(out / name) as image:
            assert min(image.size) >= 300
            assert max(image.size) >= least
            assert len(np.unique(np.asarray(image.convert("L")))) > 20  # something is drawn


def test_the_card_tells_how_to_use_it(trained, photos, tmp_path, monkeypatch):
    out, _ = trained
    card = (out / "README.md").read_text(encoding="utf-8")
    told = json.loads((out / "training.json").read_text())
    assert f"{100 * told['results']['accuracy']:.2f} %" in card
    assert all(kind in card for kind in KINDS)
    assert "--model cifar-vgg --flip --shift 2" in card
    for name in re.findall(r"\]\(([^)]+)\)", card):
        assert (out / name).exists()
    # its Python runs as it stands, on a picture that is read as in training
    shutil.copytree(out, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    picture = next(iter(sorted((photos / "square").glob("*.jpg"))))
    shutil.copy(picture, "picture.jpg")
    model, seen = fc.load_model("model.fc"), {}
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(code, seen)
    want = model.predict(read_image(str(picture), "RGB", (32, 32))[None], verbose=0)
    np.testing.assert_allclose(seen["scores"], want, atol=1e-4)
    assert "left out" not in card


@pytest.mark.parametrize("options", [("--fit", "crop"), ("--fit", "pad", "--channels", 3)])
def test_the_card_reads_pictures_as_the_training_did(options, few, tmp_path, monkeypatch):
    out = tmp_path / "out"
    done = inside("train", few, *QUICK, *options, "--epochs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(out)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save("picture.jpg", exif=exif)
    code = re.search(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)[1]
    exec(code, seen := {})
    image = read_image("picture.jpg", "RGB" if "--channels" in options else "L", (16, 16),
                       fit=options[1])  # fmt: skip
    np.testing.assert_array_equal(seen["images"], image.transpose(2, 0, 1)[None])


def test_evaluate_agrees_on_both_files_with_the_training(trained, photos, tmp_path):
    out, _ = trained
    found = []
    for name in ("model.fc", "model.onnx"):
        text = says(
            "evaluate", out / name, photos, "--json", tmp_path / f"{name}.json",
            "--png", tmp_path / "c.png", run=inside,
        )  # fmt: skip
        assert "true \\ predicted" in text
        found.append(json.loads((tmp_path / f"{name}.json").read_text()))
        assert (tmp_path / "c.png").stat().st_size > 5000
    one, other = found
    assert one["images"] == 200
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert one["confusion_matrix"] == other["confusion_matrix"]
    # the model's own evaluate, on the same pixels, agrees
    model = fc.load_model(out / "model.fc")
    data = fc.utils.image_dataset_from_directory(
        photos, image_size=(32, 32), shuffle=False, verbose=False
    )
    loss, accuracy = model.evaluate(data, verbose=0)
    assert (one["loss"], one["accuracy"]) == pytest.approx((loss, accuracy), rel=1e-4)


def test_predict_sees_what_training_saw(trained, tmp_path):
    out, _ = trained
    write_folder(tmp_path / "new", 12, seed=5)
    paths = sorted((tmp_path / "new").rglob("*.*"))
    results = json.loads(says("predict", out / "model.onnx", *paths, "--json", run=inside))
    right = [
        r["predictions"][0]["class"] == p.parent.name for r, p in zip(results, paths, strict=True)
    ]
    assert sum(right) >= 10


def test_info_shows_the_model(trained):
    text = says("info", trained[0] / "model.fc", run=inside)
    assert "a model of fastconv" in text
    assert "Classes: 3: circle, square, triangle" in text
    assert "adam" in text


def test_export_writes_it_in_another_form(trained, tmp_path):
    path = tmp_path / "nhwc.onnx"
    text = says(
        "export", trained[0] / "model.fc", path, "--input-layout", "nhwc", "--opset", 13,
        "--fold-batch-norm", "--output", "logits", run=inside,
    )  # fmt: skip
    assert "ONNX opset 13" in text
    assert "BatchNormalization" not in text
    assert [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim][1:] == [
        32, 32, 3,
    ]  # fmt: skip
    assert "fastconv.class_names" in {p.key for p in onnx.load(path).metadata_props}
    line = complains("export", trained[0] / "model.fc", path, "--class-names", "a,b")
    assert "2 class_names for an output of 3" in line
    assert "did you mean 'nhwc'" in complains("export", "a", "b", "--input-layout", "nhw")


# ---- runs that end early ----


def test_interrupted_it_writes_what_it_has_and_goes_on(few, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = (*QUICK, "--epochs", 3000, "--patience", 2999)
    child = subprocess.Popen(
        command(few, *options, "--out", broken), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for line in child.stdout:
        if line.startswith("Epoch 4/"):
            break
    child.send_signal(signal.SIGINT)
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "Go on with:" in printed
    assert {path.name for path in broken.iterdir()} == FILES
    told = json.loads((broken / "training.json").read_text())
    assert told["state"] == "interrupted"
    done = told["epochs_done"]
    assert 3 <= done < 3000
    assert f"Interrupted after {done} of 3000 epochs" in (broken / "README.md").read_text()
    epochs = done + 5
    assert inside("train", "--resume", "--epochs", epochs, "--out", broken).returncode == 0
    assert inside("train", few, *QUICK, "--epochs", epochs, "--patience", 2999, "--out", whole
                  ).returncode == 0  # fmt: skip
    one, other = (json.loads((p / "training.json").read_text()) for p in (whole, broken))
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one["history"] == other["history"]
    assert (whole / "history.csv").read_text() == (broken / "history.csv").read_text()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_polite_kill_is_what_ctrl_c_is(few, tmp_path, ignored):
    """Also where Ctrl-C is not heard, as below nohup or in the background of a script."""
    out = tmp_path / "out"
    heard = signal.SIG_IGN if ignored else signal.SIG_DFL
    child = subprocess.Popen(
        command(few, *QUICK, "--epochs", 3000, "--out", out), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, heard),
    )  # fmt: skip
    for line in child.stdout:
        if line.startswith("Epoch 3/"):
            break
    child.send_signal(signal.SIGTERM)
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "Go on with:" in printed
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "training.json").read_text())["state"] == "interrupted"


def test_fewer_epochs_than_are_done_are_refused(few, tmp_path, monkeypatch):
    out = tmp_path / "out"
    ended = callbacks.BackupAndRestore.on_epoch_end

    def interrupted(self, epoch, logs=None):
        ended(self, epoch, logs)
        self.run.interrupted = epoch == 3

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.BackupAndRestore, "on_epoch_end", interrupted)
        assert inside("train", few, *QUICK, "--epochs", 9, "--out", out).returncode == 130
    line = complains("train", "--resume", "--epochs", 2, "--out", out)
    assert "4 epochs are done already, more than --epochs 2" in line
    told = json.loads((out / "training.json").read_text())
    told["epochs_done"] = 0  # after a kill nobody wrote it down
    (out / "training.json").write_text(json.dumps(told))
    done = inside("train", "--resume", "--epochs", 2, "--out", out)
    assert done.returncode == 2
    assert "4 epochs are done already, and epochs=2 are asked for" in done.stderr
    assert done.stderr.endswith("\n  --overwrite begins anew\n")
    assert "backup_dir" not in done.stderr
    assert inside("train", "--resume", "--epochs", 5, "--out", out).returncode == 0
    assert json.loads((out / "training.json").read_text())["epochs_done"] == 5


def test_what_differs_stands_in_a_table(few, tmp_path):
    out = tmp_path / "out"
    assert inside("train", few, *QUICK, "--epochs", 1, "--out", out).returncode == 0
    told = json.loads((out / "training.json").read_text())
    told["options"] |= {"learning_rate": 0.5, "batch_size": 4}
    (out / "training.json").write_text(json.dumps(told))
    done = inside("train", "--resume", "--epochs", 2, "--out", out)
    assert done.returncode == 2
    assert re.search(
        r"which differs in\n +in the file +now\n  optimizer.learning_rate +0.001 +0.5\n"
        r"  batch size +16 +4\n(.+\n)+  --overwrite begins anew\n$", done.stderr,
    ), done.stderr  # fmt: skip


# ---- how it learns ----


RATES = {
    ("--schedule", "cosine"): [1, (1 + math.cos(math.pi / 8)) / 2, 0],
    ("--schedule", "linear"): [1, 7 / 8, 0],
    ("--schedule", "step"): [1, 1, 1 / 100],
    ("--schedule", "one-cycle"): [1 / 25, None, 1e-4 / 25],
    ("--schedule", "one_cycle", "--warmup", 2): [1 / 25, None, 1e-4 / 25],
    ("--warmup", 2): [0, 1 / 4, 1],
    ("--schedule", "cosine", "--warmup", "0.5"): [0, 1, 0],
}


@pytest.mark.parametrize("options", RATES)
def test_schedules_take_the_whole_training(options):
    """Four epochs of two steps: the rate at first, after a step, and after all."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    given = vars(parser.parse_args(["data", "--out", "o", "--epochs", "4", *map(str, options)]))
    chosen = {**train.DEFAULTS, **{k: v for k, v in given.items() if v is not None}}
    rate = _recipe.schedule(chosen, 0.2, 2)
    for step, want in zip((0, 1, 8), RATES[options], strict=True):
        if want is not None:
            assert schedules.at(rate, step) == pytest.approx(0.2 * want, abs=1e-9)
    assert 0.18 < max(schedules.at(rate, step) for step in range(9)) <= 0.2


def test_a_recipe_is_kept_for_a_training_that_goes_on(few, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipe = (
        "--epochs", 6, "--optimizer", "sgd", "--learning-rate", 0.02, "--momentum", 0.9,
        "--weight-decay", 0.01, "--schedule", "cosine", "--warmup", 1, "--label-smoothing", 0.1,
        "--balance",
    )  # fmt: skip
    assert inside("train", few, *QUICK, *recipe, "--out", whole).returncode == 0
    ended = callbacks.BackupAndRestore.on_epoch_end

    def interrupted(self, epoch, logs=None):
        ended(self, epoch, logs)
        self.run.interrupted = epoch == 2

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.BackupAndRestore, "on_epoch_end", interrupted)
        assert inside("train", few, *QUICK, *recipe, "--out", broken).returncode == 130
    line = complains("train", "--resume", "--epochs", 9, "--out", broken)
    assert "--schedule cosine was laid out for 6 epochs" in line
    assert "--momentum 0.9, not 0.5" in complains(
        "train", "--resume", "--momentum", 0.5, "--out", broken
    )
    assert inside("train", "--resume", "--out", broken).returncode == 0
    one, other = (json.loads((p / "training.json").read_text()) for p in (whole, broken))
    assert one["weights_sha256"] == other["weights_sha256"]
    assert min(one["history"]["loss"]) > 0.19  # smoothed labels cannot be met
    model = fc.load_model(whole / "model.fc")
    assert model.optimizer.momentum == 0.9
    assert model.optimizer.weight_decay == 0.01
    assert model.optimizer.learning_rate == pytest.approx(0, abs=1e-9)
    card = (whole / "README.md").read_text(encoding="utf-8")
    for option in ("optimizer sgd", "momentum 0.9", "weight-decay 0.01", "schedule cosine",
                   "warmup 1", "label-smoothing 0.1"):  # fmt: skip
        assert f" --{option} " in card


def test_smoothed_labels_of_pictures_that_are_changed(few, tmp_path):
    options = ("train", few, *QUICK, "--epochs", 2, "--label-smoothing", 0.2, "--flip")
    done = inside(*options, "--schedule", "one-cycle", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "training.json").read_text())
    assert min(told["history"]["loss"]) > 0.32


def test_killed_in_an_epoch_it_ends_with_the_same_bits(few, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = (few, *QUICK, "--flip", "--brightness", 0.2, "--batch-size", 4, "--save-every", 2)
    child = subprocess.Popen(
        command(*options, "--epochs", 2000, "--out", killed), stdout=subprocess.PIPE, text=True
    )
    for line in child.stdout:
        if line.startswith("Epoch 3/"):
            break
    time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert not (killed / "model.fc").exists()
    done = len((killed / "history.csv").read_text().splitlines())
    for out, more in ((killed, ["--resume"]), (whole, options)):
        assert inside("train", *more, "--epochs", done + 3, "--out", out).returncode == 0
    one, other = (json.loads((p / "training.json").read_text()) for p in (whole, killed))
    assert one["weights_sha256"] == other["weights_sha256"]
    # a finished one goes on with more epochs, and refuses less and other options
    assert "finished, after" in complains("train", "--resume", "--out", killed)
    line = complains("train", "--resume", "--epochs", 4000, "--seed", 3, "--out", killed)
    assert "--seed 0, not 3" in line
    assert "--resume goes on with it, --overwrite replaces it" in complains(
        "train", few, "--out", killed
    )


@pytest.mark.parametrize("options", [("--epochs", 3), ("--epochs", 60, "--patience", 1)])
def test_a_full_disk_after_the_training_costs_nothing(options, few, tmp_path, monkeypatch):
    """What was trained is kept until all files are there."""
    given = ("train", few, *QUICK, "--learning-rate", 0.01, *options)
    with monkeypatch.context() as patch:
        patch.setattr("fastconv.saving.save_model", full_disk)
        done = inside(*given, "--out", tmp_path / "full")
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert inside("train", "--resume", "--out", tmp_path / "full").returncode == 0
    assert inside(*given, "--out", tmp_path / "whole").returncode == 0
    one, other = (
        json.loads((tmp_path / n / "training.json").read_text()) for n in ("whole", "full")
    )
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one["history"] == other["history"]


def full_disk(model, path, overwrite=True):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_changed_pictures_are_refused(few, tmp_path):
    folder = write_folder(tmp_path / "own", 12, KINDS[:2])
    out = tmp_path / "out"
    assert inside("train", folder, *QUICK, "--epochs", 1, "--out", out).returncode == 0
    Image.new("RGB", (50, 50), "red").save(sorted(folder.rglob("*.png"))[0])
    done = inside("train", "--resume", "--epochs", 2, "--out", out)
    assert done.returncode == 2
    assert "the data have changed" in done.stderr


def test_patience_takes_the_best_weights(few, tmp_path):
    out = tmp_path / "out"
    done = inside("train", few, *QUICK, "--epochs", 200, "--patience", 2, "--learning-rate", 0.01,
                  "--balance", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads((out / "training.json").read_text())
    losses = told["history"]["val_loss"]
    assert len(losses) < 200
    assert told["results"]["loss"] == pytest.approx(min(losses), rel=1e-4)


# ---- data ----


def test_broken_pictures_are_counted_and_left_out_when_asked(tmp_path):
    folder = write_folder(tmp_path / "own", 20, KINDS[:2])
    (folder / "circle" / "torn.jpg").write_bytes(b"no picture")
    whole = (folder / "square" / "001.png").read_bytes()
    (folder / "square" / "cut.png").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    line = complains("train", folder, *QUICK, "--epochs", 1, "--out", out)
    assert "2 files cannot be read" in line
    assert "torn.jpg" in line
    assert "cut.png" in line
    assert "--skip-broken leaves them out" in line
    assert not out.exists()
    done = inside("train", folder, *QUICK, "--epochs", 1, "--skip-broken", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Left out: 2 files cannot be read" in done.stdout
    told = json.loads((out / "training.json").read_text())
    assert told["results"]["images"] == 4
    assert [Path(words.partition(": ")[0]).name for words in told["left_out"]] == [
        "torn.jpg", "cut.png"
    ]  # fmt: skip
    card = (out / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| left out \| 2 files cannot be read: .*torn.jpg.*cut.png", card)
    assert "1 file cannot be read" not in complains("evaluate", out / "model.fc", folder)


def test_pictures_that_do_not_fit_in_memory_are_read_as_they_are_needed(few, tmp_path, monkeypatch):
    from fastconv.commands import _pictures

    options = ("train", few, *QUICK, "--epochs", 2, "--shift", 1)
    assert inside(*options, "--out", tmp_path / "kept").returncode == 0
    monkeypatch.setattr(_pictures, "MEMORY", 1000)
    assert inside(*options, "--out", tmp_path / "read").returncode == 0
    one, other = (
        json.loads((tmp_path / n / "training.json").read_text()) for n in ("kept", "read")
    )
    assert one["weights_sha256"] == other["weights_sha256"]


def test_folders_of_parts(tmp_path):
    for part, count in (("train", 12), ("val", 6), ("test", 8)):
        write_folder(tmp_path / "data" / part, count, KINDS[:2], seed=count)
    out = tmp_path / "out"
    done = inside("train", tmp_path / "data", *QUICK, "--epochs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "On the 8 images of the test set" in done.stdout
    assert re.search(r"all +12 +6 +8", done.stdout)
    assert "on " in says("evaluate", out / "model.fc", tmp_path / "data", run=inside)


def test_idx_files(tmp_path, rng):
    folder = tmp_path / "digits"
    folder.mkdir()
    for split, n in (("train", 60), ("t10k", 20)):
        y = np.arange(n, dtype=np.uint8) % 3
        x = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8) + 90 * (y % 2)[:, None, None]
        idx.write_idx(folder / f"{split}-images-idx3-ubyte", x.astype(np.uint8))
        idx.write_idx(folder / f"{split}-labels-idx1-ubyte.gz", y)
    out = tmp_path / "out"
    done = inside("train", folder, "--model", "lenet5", "--epochs", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "images of 28×28×1" in done.stdout
    text = says("evaluate", out / "model.onnx", folder, run=inside)
    assert "of 20 wrong" in text


def test_photographs_are_read_as_they_are_seen(tmp_path):
    from fastconv.utils.images import read_image

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20] = 255
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    seen = read_image(str(tmp_path / "a.png"), "L", (40, 20))[..., 0]
    assert (seen[:18] == 255).all()
    assert (seen[22:] == 0).all()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(str(tmp_path / "clear.png"), "RGB", (4, 4)) == 255).all()
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "wide.png")
    assert abs(int(read_image(str(tmp_path / "wide.png"), "L", (4, 4))[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "o"], "what to train on?"),
        (["nowhere", "--out", "o"], "nowhere: no such folder"),
        (["FEW", "--out", "o", "--model", "lenet"], "'lenet'; did you mean 'lenet5'"),
        (["FEW", "--out", "o", "--optimizer", "adan"], "did you mean 'adam'"),
        (["FEW", "--out", "o", "--fit", "streched"], "did you mean 'stretch'?"),
        (["FEW", "--out", "o", "--epcohs", "3"], "--epcohs 3; did you mean '--epochs'?"),
        (["FEW", "--out", "o", "--size", "axb"], "is not a size such as 64 or 48x64"),
        (["FEW", "--out", "o", "--brightness", "2"], "is not a number from 0 to 1"),
        (["FEW/circle", "--out", "o"], "a folder for each of two or more classes is needed: none"),
        (["--resume", "--out", "o"], "no training was begun in o"),
        (["FEW", "--out", "o", "--schedule", "cosin"], "'cosin'; did you mean 'cosine'"),
        (["FEW", "--out", "o", "--shedule", "step"], "did you mean '--schedule'?"),
        (["FEW", "--out", "o", "--momentum", "0.9"], "--momentum is for sgd and rmsprop"),
        (["FEW", "--out", "o", "--momentum", "2"], "is not a number from 0 to 1"),
        (["FEW", "--out", "o", "--warmup", "20"], "--warmup 20 leaves nothing of 20 epochs"),
        (["FEW", "--out", "o", "--weight-decay", "-1"], "--weight-decay"),
        (["FEW"], "--out"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments, words, few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = complains("train", *(str(few) + a[3:] if a.startswith("FEW") else a for a in arguments))
    assert words in line
    assert not (tmp_path / "o").exists()


def test_wrong_commands():
    assert "did you mean 'train'?" in complains("trian")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"options": {}}'])
def test_a_damaged_record(content, tmp_path):
    (tmp_path / "training.json").write_text(content)
    assert "training.json: damaged" in complains("train", "--resume", "--out", tmp_path)


def test_classes_of_the_data_are_those_of_the_network(trained, tmp_path):
    folder = write_folder(tmp_path / "own", 6)
    (folder / "circle").rename(folder / "circles")
    line = complains("evaluate", trained[0] / "model.onnx", folder)
    assert "did you mean 'circle'?" in line
    (folder / "circles").rename(tmp_path / "away")  # a class may be missing
    done = inside("evaluate", trained[0] / "model.onnx", folder)
    assert done.returncode == 0
    assert done.stderr == f"fastconv: warning: {folder} has no pictures of circle\n"
    text = done.stdout
    assert "circle" in text


# ---- numbers ----


def test_scores_are_those_of_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    labels = rng.integers(0, 4, 300)
    scores = rng.random((300, 5))  # the fifth class never is
    scores[np.arange(300), labels] += 0.6
    scores /= scores.sum(1, keepdims=True)
    found = Scores.of(list("abcde"), scores, labels)
    guesses = scores.argmax(1)
    names = range(5)
    np.testing.assert_array_equal(
        found.matrix, metrics.confusion_matrix(labels, guesses, labels=names)
    )
    p, r, f, _ = metrics.precision_recall_fscore_support(
        labels, guesses, labels=names, zero_division=np.nan
    )
    np.testing.assert_allclose(found.precision, p)
    np.testing.assert_allclose(found.recall, r)
    np.testing.assert_allclose(found.f1[:4], f[:4])
    assert found.loss == pytest.approx(metrics.log_loss(labels, scores, labels=names))
    assert found.to_dict()["classes"][4]["recall"] is None
    assert "–" in str(found)


def test_kinds_of_scores():
    logits = np.array([[0.0, 2.0], [1.0, -1.0]])
    found = probabilities(logits)
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(found[0, 1], 1 / (1 + np.exp(-2)))
    np.testing.assert_array_equal(probabilities(found), found)
    np.testing.assert_allclose(probabilities(np.array([[0.25]])), [[0.75, 0.25]])
    np.testing.assert_allclose(probabilities(np.array([[0.0], [2.0]]))[1, 1], found[0, 1])
    with pytest.raises(ValueError, match="not a row of scores"):
        probabilities(np.zeros((2, 3, 3)))


# ---- what is wrong is said before anything is written ----


def test_a_network_that_cannot_be_leaves_no_training_behind(few, tmp_path):
    out = tmp_path / "run"
    wrong = ("train", few, "--model", "lenet5", "--size", "3x3", "--epochs", 1, "--out", out)
    for _ in range(2):  # the second time as well
        done = inside(*wrong)
        assert done.returncode == 2
        assert "does not fit" in done.stderr
        assert not out.exists()


def test_an_earlier_training_outlives_one_that_cannot_be(few, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    kept = {"training.json": "{}", "history.csv": "epoch,loss\n", "model.fc": "weights"}
    for name, text in kept.items():
        (out / name).write_text(text)
    done = inside("train", few, "--model", "lenet5", "--size", 3, "--overwrite", "--out", out)
    assert done.returncode == 2
    assert {path.name: path.read_text() for path in out.iterdir()} == kept


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--validation-split", 0, "--validation-split: '0' leaves an empty part"),
        ("--validation-split", 1, "--validation-split: '1' leaves an empty part"),
        ("--seed", -1, "--seed: '-1' is not a whole number from 0 on"),
        ("--seed", "x", "--seed: 'x' is not a whole number"),
    ],
)
def test_options_that_cannot_be(few, tmp_path, option, value, words):
    assert words in complains("train", few, f"{option}={value}", "--out", tmp_path / "run")


def beside(few, tmp_path, val):
    """A folder train, and beside it a folder val of these classes."""
    data = tmp_path / "data"
    os.makedirs(data)
    os.symlink(few, data / "train")
    for name in val:
        (data / "val" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(data / "val" / name / "0.png")
    return data


def test_a_class_of_val_that_train_lacks_is_an_error(few, tmp_path):
    data = beside(few, tmp_path, [*KINDS[:2], KINDS[0] + "s", ".git"])
    said = complains("train", data, "--out", tmp_path / "run", *QUICK)
    assert f"unknown class folder of {data / 'val'} '{KINDS[0]}s'; did you mean" in said
    assert not (tmp_path / "run").exists()


def test_a_class_that_val_lacks_is_a_warning(few, tmp_path):
    data = beside(few, tmp_path, KINDS[:1])
    done = inside("train", data, "--epochs", 1, "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 0, done.stderr
    words = f"fastconv: warning: {data / 'val'} has no pictures of {KINDS[1]}\n"
    assert words in done.stderr

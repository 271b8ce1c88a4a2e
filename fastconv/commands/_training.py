"""One run of `fastconv train`: settings, data, `fit`, and all that is written afterwards."""

import json
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import backend, callbacks, config
from fastconv.commands import _recipe
from fastconv.commands._card import card
from fastconv.commands._networks import NETWORKS
from fastconv.commands._pictures import Form, Part, Pictures, broken_text, is_idx, read_all
from fastconv.commands._scores import Scores
from fastconv.commands.train import DEFAULTS
from fastconv.files import replacing
from fastconv.tables import table
from fastconv.utils.augmentation import Augmentation
from fastconv.version import __version__

INTERRUPTED = 130
BATCH, SMALL_BATCH, FEW = 32, 16, 1000  # images of a batch; the smaller one below so many images
AUGMENTATION = ("flip", "shift", "brightness", "contrast", "erase")
CHANGEABLE = ("data", "epochs", "save_every")  # when a training goes on
FILES = {
    "model.fc": "the model, to be trained further",
    "model.onnx": "the network for serving, proved, with the names of its classes",
    "history.csv": "loss and accuracy of every epoch",
    "curves.png": "the same, drawn",
    "confusion.png": "which classes are taken for which",
    "training.json": "options and results, for programs",
    "backup": "where the training stood, to go on with more epochs; may be deleted",
}


class Training:
    """A training in a folder of its own.

    Parameters
    ----------
    out : Path
    options : mapping
        By the names of the command line's options, with - as _.
    told : dict, optional
        What ``training.json`` says of a training that goes on.
    """

    data: Pictures

    def __init__(
        self, out: Path, options: Mapping[str, Any], told: dict[str, Any] | None = None
    ) -> None:
        self.out, self.options = out, dict(options)
        self.told = told
        self.network = NETWORKS[self.options["model"]]
        _recipe.optimizer(self.options)

    @classmethod
    def fresh(cls, out: Path, options: Mapping[str, Any], overwrite: bool) -> "Training":
        """A training that begins; an earlier one in the folder is replaced only when asked."""
        if (out / "training.json").exists() and not overwrite:
            raise ValueError(
                f"{out}: has a training already: --resume goes on with it, --overwrite replaces it"
            )
        training = cls(out, options)
        training.data = training._read()
        return training

    def _begin(self) -> None:
        """Make the folder, without what an earlier training has left there."""
        self.out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.out / "backup", ignore_errors=True)
        for name in (*FILES, "README.md"):
            if not (self.out / name).is_dir():
                (self.out / name).unlink(missing_ok=True)
        self._note(state="training")

    @classmethod
    def resumed(cls, out: Path, given: Mapping[str, Any]) -> "Training":
        """The training that was begun in this folder; what is given must be what it had."""
        path = out / "training.json"
        if not path.exists():
            raise FileNotFoundError(f"{path}: no training was begun in {out}")
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            options, state = {**DEFAULTS, **told["options"]}, told["state"]
            done = int(told.get("epochs_done", 0))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: damaged: {error!r}") from error
        for key, value in given.items():
            same = list(value) if isinstance(value, tuple) else value
            if key not in CHANGEABLE and options.get(key) != same:
                there = options.get(key)
                has = f"no {_flag(key)}" if there is None else f"{_flag(key)} {_said(there)}"
                raise ValueError(
                    f"{out}: this training has {has}, not {_said(value)}; --overwrite begins anew"
                )
        _check_epochs(out, options, given.get("epochs", options["epochs"]), state, done)
        if "epochs" in given and given["epochs"] != options["epochs"]:
            told["ended"] = None
        training = cls(out, {**options, **given}, told)
        training.data = training._read()
        return training

    # -- before -------------------------------------------------------------------------------

    def _read(self) -> Pictures:
        """The data, in the form that the network takes."""
        options, folder = self.options, Path(self.options["data"])
        if not is_idx(folder):
            options.setdefault("size", self.network.size)
            options.setdefault("channels", self.network.channels)
        given = options.get("size")
        form = Form(None if given is None else tuple(given), options.get("channels"),
                    options["fit"])  # fmt: skip
        data = read_all(folder, form, options["validation_split"], options["seed"],
                        options["skip_broken"])  # fmt: skip
        *size, channels = data.train.shape
        options.update(size=size, channels=channels)
        options.setdefault("batch_size", SMALL_BATCH if len(data.train) < FEW else BATCH)
        return data

    def _model(self) -> Any:
        options, data = self.options, self.data
        model = self.network.make(
            data.train.shape, len(data.names), include_preprocessing=True,
        )  # fmt: skip
        model.class_names = list(data.names)
        steps = -(-len(data.train) // options["batch_size"])
        model.compile(
            _recipe.optimizer(options, steps), _recipe.loss(options), metrics=["accuracy"]
        )
        shape = "×".join(map(str, data.train.shape))
        print(
            f"{options['model']}: {model.count_params():,} parameters, images of {shape}, "
            f"{config.get_num_threads()} threads\n"
        )
        return model

    def _describe(self) -> None:
        """The data as a table."""
        names = self.data.names
        parts = [("train", self.data.train), ("held back", self.data.held)]
        parts += [("test", self.data.test)] if self.data.test is not None else []
        counts = [part.counts(len(names)) for _, part in parts]
        header = ["class", *(title for title, _ in parts)]
        if len(names) <= 12:
            rows = [[name, *(f"{c[i]:,}" for c in counts)] for i, name in enumerate(names)]
        else:
            rows = [[f"{len(names)} classes", *(f"{c.min():,} to {c.max():,}" for c in counts)]]
        total = ["all", *(f"{c.sum():,}" for c in counts)]
        print(
            f"{self.data.title}\n"
            + "\n".join(f"  {line}" for line in table(header, [*rows, total]))
        )

    # -- training -----------------------------------------------------------------------------

    def run(self, verbose: int) -> int:
        """Train and write; returns the exit code."""
        with _terminable():
            return self._run(verbose)

    def _run(self, verbose: int) -> int:
        backend.set_random_seed(self.options["seed"])
        self._describe()
        model = self._model()
        if self.told is None:  # from here on there is a training: what is impossible was said
            self._begin()
        start = time.perf_counter()
        interrupted = False
        try:
            self._fit(model, verbose)
        except KeyboardInterrupt:
            interrupted = True
            print("\nInterrupted: what there is is written; pressed again, it is not", flush=True)
        except callbacks.BackupError as error:
            told = ValueError(f"{self.out}: {error.reason}")
            for note in filter(None, (error.table, "--overwrite begins anew")):
                told.add_note(note)
            raise told from error
        history = model.history
        if history is None:  # before the first step
            raise KeyboardInterrupt
        self.seconds = time.perf_counter() - start
        if not interrupted:  # from here on only files are missing
            self._note(state="trained", ended=len(history.epoch))
        proved = self._write(model, history, interrupted)
        if interrupted:
            print(f"Go on with: {_program()} train --resume --out {shlex.quote(str(self.out))}")
            return INTERRUPTED
        return 0 if proved else 1

    def _fit(self, model: Any, verbose: int) -> None:
        options, data = self.options, self.data
        listed = [callbacks.CSVLogger(self.out / "history.csv"), callbacks.TerminateOnNaN()]
        if options.get("patience"):
            listed.append(
                callbacks.EarlyStopping(patience=options["patience"], restore_best_weights=True)
            )
        listed.append(
            callbacks.BackupAndRestore(
                self.out / "backup", options.get("save_every", "epoch"), True,
                delete_checkpoint=False,
            )
        )  # fmt: skip
        ended = (self.told or {}).get("ended")
        model.fit(
            **self._fed(data.train), epochs=ended or options["epochs"], callbacks=listed,
            verbose=verbose, validation_data=self._held(data.held),
            class_weight=_balanced(data) if options["balance"] else None,
        )  # fmt: skip

    def _fed(self, part: Part) -> dict[str, Any]:
        """What `fit` is given: arrays as they are, unless they are to be changed on the way."""
        chosen = {name: self.options[name] for name in AUGMENTATION}
        augment = Augmentation(**chosen) if any(chosen.values()) else None
        size, labelled = self.options["batch_size"], self._labelled()
        if part.images is not None and augment is None:
            x, y = labelled(part.images, part.labels)
            return {"x": x, "y": y, "batch_size": size}
        return {"x": part.batches(size, shuffle=True, augment=augment).map(labelled)}

    def _held(self, part: Part) -> Any:
        labelled = self._labelled()
        if part.images is not None:
            return labelled(part.images, part.labels)
        return part.batches(self.options["batch_size"]).map(labelled)

    def _labelled(self) -> Any:
        """What makes of class numbers the targets that the loss takes."""
        if not self.options.get("label_smoothing"):
            return _recipe.as_they_are
        return _recipe.OneHot(len(self.data.names))

    # -- afterwards ---------------------------------------------------------------------------

    def _write(self, model: Any, history: Any, interrupted: bool) -> bool:
        """All files; False where the export has failed its proof."""
        part = self.data.held if self.data.test is None else self.data.test
        outputs = [model.predict(x, batch_size=len(x), verbose=0) for x, _ in part.batches(128)]
        scores = Scores.of(self.data.names, np.concatenate(outputs), part.labels)
        which = "held back" if self.data.test is None else "of the test set"
        print(f"\nOn the {len(part):,} images {which}\n{scores}\n")
        model.save(self.out / "model.fc")
        report = self._export(model, part)
        drawn = self._draw(history, scores)
        self._card(model, history, scores, report, drawn, interrupted)
        self._note(
            state="interrupted" if interrupted else "finished", epochs_done=len(history.epoch),
            seconds=round(self.seconds, 3), weights_sha256=model.fingerprint(),
            results=scores.to_dict(), history=history.history, left_out=self.data.left_out,
        )  # fmt: skip
        files = [name for name in (*FILES, "README.md") if (self.out / name).is_file()]
        print(f"Written to {self.out}: {', '.join(files)}")
        return report is not None

    def _export(self, model: Any, part: Part) -> Any:
        """The report of the proof; None, and no file, where the network has not stood it."""
        from fastconv.node import ExportError

        samples, _ = next(iter(part.batches(16)))
        try:
            report = model.export(self.out / "model.onnx", samples=samples)
        except ExportError as error:
            (self.out / "model.onnx").unlink(missing_ok=True)  # of an earlier interruption
            print(f"fastconv: no model.onnx: {error}", file=sys.stderr)
            return None
        print(f"{report}\n")
        return report

    def _draw(self, history: Any, scores: Scores) -> list[str]:
        from fastconv import plots

        drawn = []
        title = f"{self.data.title}, {self.options['model']}: {100 * scores.accuracy:.2f} %"
        figures = {"confusion.png": plots.plot_confusion_matrix(scores.matrix, scores.names, title)}
        if history.epoch:
            figures["curves.png"] = plots.plot_history(history)
        for name, figure in figures.items():
            with replacing(self.out / name) as file:
                figure.savefig(file, dpi=110, format="png")  # type: ignore[attr-defined]
            drawn.append(name)
        return drawn

    def _card(
        self, model: Any, history: Any, scores: Scores, report: Any, drawn: list[str],
        interrupted: bool,
    ) -> None:  # fmt: skip
        data, options, done = self.data, self.options, len(history.epoch)
        which = "held back" if data.test is None else "test"
        facts = [
            ("accuracy", f"{100 * scores.accuracy:.2f} % of {scores.count:,} {which} images"),
            ("loss", f"{scores.loss:.4f}"),
            ("network", f"{options['model']}, {model.count_params():,} parameters"),
            ("classes", f"{len(data.names)}: {', '.join(data.names[:20])}"),
            ("trained on", f"{len(data.train):,} images of {data.title}, {done} epochs"),
            ("weights", f"sha256 `{model.fingerprint()}`"),
        ]  # fmt: skip
        if data.left_out:
            facts.append(("left out", broken_text(data.left_out)))
        if report is not None:
            facts.append(
                ("proof of the export", f"{report.runtime} {report.runtime_version}: largest "
                 f"error {report.largest_error:.2g} of the output's scale, "
                 f"{report.tolerance:.2g} allowed")
            )  # fmt: skip
        there = {k: v for k, v in FILES.items() if (self.out / k).exists() or k == "training.json"}
        remark = ""
        if interrupted:
            remark = f"Interrupted after {done} of {options['epochs']} epochs."
        elif done < options["epochs"]:
            remark = f"Ended after {done} of {options['epochs']} epochs."
        text = card(f"{options['model']} on {data.title}", facts, scores, options, there,
                    _command(options, self.out), remark)  # fmt: skip
        with replacing(self.out / "README.md") as file:
            file.write(text.encode())

    def _note(self, **told: Any) -> None:
        """Write down in ``training.json`` how far it is."""
        facts = {"fastconv": __version__, "options": self.options, "classes": self.data.names}
        with replacing(self.out / "training.json") as file:
            file.write(json.dumps({**facts, **told}, indent=1, ensure_ascii=False).encode() + b"\n")


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as a scheduler or ``docker stop`` sends it, is what Ctrl-C is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _check_epochs(
    out: Path, options: Mapping[str, Any], epochs: int, state: str, done: int
) -> None:
    """Refuse a number of epochs that a training cannot go on to."""
    planned, schedule = options["epochs"], options["schedule"]
    if schedule != "constant" and epochs != planned:
        raise ValueError(
            f"{out}: --schedule {schedule} was laid out for {planned} epochs, {epochs} would be "
            "another training; --overwrite begins anew"
        )
    if epochs < done:
        raise ValueError(
            f"{out}: {done} epochs are done already, more than --epochs {epochs}; a larger number "
            "goes on, --overwrite begins anew"
        )
    if state == "finished" and epochs <= planned:
        more = "--epochs with a larger number goes on, " if schedule == "constant" else ""
        raise ValueError(
            f"{out}: this training is finished, after {planned} epochs; {more}--overwrite begins "
            "anew"
        )


def _balanced(data: Pictures) -> dict[int, float]:
    """n / (classes · n of the class), so that the mean weight is 1."""
    counts = data.train.counts(len(data.names))
    return {i: len(data.train) / (len(counts) * int(n)) for i, n in enumerate(counts) if n}


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _said(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _program() -> str:
    return sys.argv[0] if Path(sys.argv[0]).name == "fastconv" else "fastconv"


def _command(options: Mapping[str, Any], out: Path) -> str:
    """The command line that makes it again: what is not as usual."""
    words = ["fastconv", "train", str(options["data"]), "--model", options["model"]]
    for key, value in options.items():
        if key in ("data", "model") or value == DEFAULTS.get(key):
            continue
        words.append(_flag(key))
        if value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else _said(value))
    return shlex.join([*words, "--out", str(out)])

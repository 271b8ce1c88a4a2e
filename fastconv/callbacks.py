"""Callbacks: names, arguments, defaults and meaning are Keras 3's.

What a callback monitors must exist: a name that `fit` does not report is an error, not a warning
that scrolls by.
"""

import csv
import io
import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import arguments, shapes
from fastconv.backup import BackupAndRestore, BackupError
from fastconv.callback import HOOKS, OLDER, Callback, CallbackList, Logs
from fastconv.files import naming
from fastconv.history import History
from fastconv.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore", "BackupError", "CSVLogger", "Callback", "CallbackList", "EarlyStopping",
    "History", "JSONLogger", "LambdaCallback", "LearningRateScheduler", "ModelCheckpoint",
    "ProgbarLogger", "ReduceLROnPlateau", "TensorBoard", "TerminateOnNaN",
]  # fmt: skip

StrPath = str | os.PathLike[str]
# names that grow as a model gets better, as Keras' "auto" takes them
GROWING = re.compile(r"(acc|accuracy|auc|precision|recall|iou|score|dice|r2|f1|fbeta|top_k\w*)$")


class _Monitor(Callback):
    """What callbacks share that watch one number."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise ValueError(f"monitor is the name of a number in the logs, not {monitor!r}")
        self.monitor = monitor
        mode = shapes.choice(mode, ["auto", "min", "max"], "mode")
        grows = bool(GROWING.search(monitor.lower())) if mode == "auto" else mode == "max"
        self.sign = 1.0 if grows else -1.0
        self.min_delta = abs(shapes.real(min_delta, "min_delta"))
        self.best: float | None = None

    def value(self, logs: Logs | None) -> float | None:
        """The monitored number; None in an epoch without validation."""
        logs = logs or {}
        if self.monitor in logs:
            return float(logs[self.monitor])
        held = self.run is not None and self.run.held is not None
        if held and self.monitor.startswith("val_") and self.monitor[4:] in logs:
            return None
        hint = ""
        if self.monitor.startswith("val_") and not held:
            hint = ": fit has no validation_data and no validation_split"
        try:
            shapes.choice(self.monitor, logs, "number to monitor")
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}{hint}") from None
        return None

    def better(self, value: float, than: float | None) -> bool:
        return than is None or self.sign * (value - than) > self.min_delta

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


class EarlyStopping(_Monitor):
    """Stop when a number has not become better for a while.

    Parameters
    ----------
    monitor : str
    min_delta : float
        A smaller change is none.
    patience : int
        So many epochs without a better number end the training.
    verbose : 0 or 1
    mode : {"auto", "min", "max"}
        Which numbers are better; "auto" knows accuracies and the like to grow.
    baseline : float, optional
        Epochs that are not better than this do not count as better.
    restore_best_weights : bool
        At the end the model has the weights of its best epoch.
    start_from_epoch : int
        Epochs before do not count.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = shapes.integer(patience, "patience", 0)
        self.verbose = verbose
        self.baseline = None if baseline is None else shapes.real(baseline, "baseline")
        self.restore_best_weights = bool(restore_best_weights)
        self.start_from_epoch = shapes.integer(start_from_epoch, "start_from_epoch", 0)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = None
        self.best_weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.better(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        interrupted = self.run is not None and self.run.interrupted  # then it may yet go on
        if self.best_weights is not None and not interrupted:
            if self.verbose:
                print(f"Restoring the weights of the best epoch, {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)

    def get_state(self) -> dict[str, Any]:
        names = ("wait", "stopped_epoch", "best_epoch", "best_weights")
        return {**super().get_state(), **{name: getattr(self, name) for name in names}}

    def set_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class ModelCheckpoint(_Monitor):
    """Save the model, or its weights, while it is trained.

    A file appears whole or not at all: on a full disk, or killed in the middle, the one before
    stays.

    Parameters
    ----------
    filepath : str or path-like
        May have fields, ``"{epoch:02d}-{val_loss:.2f}.fastconv"``: epochs count from 1, ``batch``
        too, and the logs by name.
    monitor, mode
        As in `EarlyStopping`.
    verbose : 0 or 1
    save_best_only : bool
        Only where the number is the best so far.
    save_weights_only : bool
        Weights alone: ``.safetensors`` or ``.npz``.
    save_freq : "epoch" or int
        After each epoch, or after so many batches.
    initial_value_threshold : float, optional
        What must be surpassed first.
    """

    def __init__(
        self,
        filepath: StrPath,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = bool(save_best_only)
        self.save_weights_only = bool(save_weights_only)
        if save_weights_only:
            from fastconv.weights import check_suffix

            check_suffix(self.filepath)
        if save_freq != "epoch":
            save_freq = shapes.integer(save_freq, "save_freq")
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self.batches = 0
        if save_freq != "epoch":  # a hook per batch costs, so only where it is needed
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self.batches += 1
        if self.batches % self.save_freq == 0:
            assert self.run is not None
            self._save(self.run.epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if value is None or not self.better(value, self.best):
                return
            self.best = value
        path = Path(self._path(epoch, batch, logs))
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved to {path}")

    def _path(self, epoch: int, batch: int | None, logs: Logs) -> str:
        fields: dict[str, Any] = {**logs, "epoch": epoch + 1}
        if batch is not None:
            fields["batch"] = batch + 1
        try:
            return self.filepath.format(**fields)
        except KeyError as error:
            raise ValueError(
                f"filepath {self.filepath!r} names {error}; there are: {', '.join(fields)}"
            ) from None

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "batches": self.batches}

    def set_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)``, or ``schedule(epoch)``, → the epoch's learning rate.
    verbose : 0 or 1
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise ValueError(f"schedule is a function of epoch and learning rate, not {schedule!r}")
        self.schedule = schedule
        self.verbose = verbose
        try:
            signature(schedule).bind(0, 0.0)
            self._takes_rate = True
        except TypeError:  # Keras' old form, a function of the epoch alone
            self._takes_rate = False
        except ValueError:  # a builtin, which says nothing of itself
            self._takes_rate = True

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        before = [_learning_rate(self)] if self._takes_rate else []
        rate = self.schedule(epoch, *before)
        self.model.optimizer.learning_rate = shapes.real(rate, "what the schedule returns", 0)
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {float(rate):g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = _learning_rate(self)


class ReduceLROnPlateau(_Monitor):
    """Reduce the learning rate when a number has not become better for a while.

    Parameters
    ----------
    monitor, patience, verbose, mode, min_delta
        As in `EarlyStopping`.
    factor : float
        The new rate is the old one times this.
    cooldown : int
        Epochs after a reduction that do not count.
    min_lr : float
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = shapes.real(factor, "factor", 0)
        if self.factor >= 1:
            raise ValueError(f"factor must be below 1, not {factor!r}")
        self.patience = shapes.integer(patience, "patience", 0)
        self.verbose = verbose
        self.cooldown = shapes.integer(cooldown, "cooldown", 0)
        self.min_lr = shapes.real(min_lr, "min_lr", 0)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = self.cooling = 0
        self.best = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        rate = _learning_rate(self)
        if logs is not None:
            logs["learning_rate"] = rate
        value = self.value(logs)
        if value is None:
            return
        if self.cooling:
            self.cooling -= 1
            self.wait = 0
        if self.better(value, self.best):
            self.best, self.wait = value, 0
        elif not self.cooling:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                rate = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = rate
                if self.verbose:
                    print(f"Epoch {epoch + 1}: reducing the learning rate to {rate:g}")
                self.cooling, self.wait = self.cooldown, 0

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "wait": self.wait, "cooling": self.cooling}

    def set_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class _Logger(Callback):
    """Lines into a file, one per epoch; a run that goes on writes behind its own last line."""

    def __init__(self, filename: StrPath, append: bool) -> None:
        self.filename = os.fspath(filename)
        self.append = bool(append)
        self.file: io.FileIO | None = None
        self.place: int | None = None  # where this run's last line ends, once it has the file

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.place = None

    def open(self) -> io.FileIO:
        """The file, opened when the first line is written."""
        if self.file is None:
            Path(self.filename).parent.mkdir(parents=True, exist_ok=True)
            there = self.place is not None and os.path.exists(self.filename)
            mode = "r+" if there else "a" if self.append else "w"
            self.file = io.FileIO(self.filename, mode)
            if there and self.place is not None:
                self.file.truncate(self.place)
        return self.file

    def write(self, lines: str) -> None:
        """Whole lines, or none where the disk is full, behind those that there are."""
        file, data = self.open(), lines.encode()
        end = file.seek(0, os.SEEK_END)
        try:
            with naming(self.filename):
                while data:
                    data = data[file.write(data) :]
        except OSError:
            file.truncate(end)
            raise

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.close()

    def close(self) -> None:
        if self.file is not None:
            self.place = self.file.seek(0, os.SEEK_END)
            self.file.close()
            self.file = None

    def get_state(self) -> dict[str, Any]:
        return {"place": self._place()}

    def _place(self) -> int:
        """Where the next line comes; a file that was there before, and is to go, has no place."""
        if self.file is not None:
            os.fsync(self.file.fileno())  # a backup never knows of lines that a power cut takes
            return self.file.seek(0, os.SEEK_END)
        if self.place is not None:
            return self.place
        there = self.append and os.path.exists(self.filename)
        return os.path.getsize(self.filename) if there else 0

    def set_state(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


class CSVLogger(_Logger):
    """A line of a table per epoch: the epoch and the numbers.

    Parameters
    ----------
    filename : str or path-like
    separator : str
    append : bool
        Write behind what the file holds.
    """

    def __init__(self, filename: StrPath, separator: str = ",", append: bool = False) -> None:
        super().__init__(filename, append)
        self.separator = separator
        self.keys: list[str] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self.keys = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        fresh = self.open().seek(0, os.SEEK_END) == 0
        if self.keys is None:
            held = self.run is not None and self.run.held is not None
            names = sorted(logs)
            if held and not any(name.startswith("val_") for name in names):
                names += [f"val_{name}" for name in names if name != "learning_rate"]
            self.keys = names
        lines = io.StringIO()
        writer = csv.writer(lines, delimiter=self.separator)
        if fresh:
            writer.writerow(["epoch", *self.keys])
        writer.writerow([epoch, *(logs.get(key, "NA") for key in self.keys)])
        self.write(lines.getvalue())

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "keys": self.keys}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.keys = state["keys"]


class JSONLogger(_Logger):
    """A line of JSON per epoch: ``{"epoch": 0, "time": …, "loss": …}``; NaN becomes null.

    Parameters
    ----------
    filename : str or path-like
        Usually ends in ``.jsonl``.
    append : bool
        Write behind what the file holds.
    """

    def __init__(self, filename: StrPath, append: bool = False) -> None:
        super().__init__(filename, append)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        numbers = {k: v if math.isfinite(v) else None for k, v in (logs or {}).items()}
        line = {"epoch": epoch, "time": round(time.time(), 3), **numbers}
        self.write(json.dumps(line) + "\n")


class TerminateOnNaN(Callback):
    """Stop where the loss is NaN or infinite, before it is learned, and say where it came from.

    The message names the first culprit: the data, a parameter, or the layer whose result has the
    first such number.
    """

    def on_train_begin(self, logs: Logs | None = None) -> None:
        assert self.run is not None
        self.run.watched = True

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.run is not None and self.run.complaint is not None:
            warnings.warn(f"training stops: {self.run.complaint}", RuntimeWarning, stacklevel=2)


class LambdaCallback(Callback):
    """Functions as hooks: ``LambdaCallback(on_epoch_end=lambda epoch, logs: …)``."""

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **hooks: Callable[..., Any] | None,
    ) -> None:
        hooks |= {
            "on_epoch_begin": on_epoch_begin, "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin, "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin, "on_train_batch_end": on_train_batch_end,
        }  # fmt: skip
        for name, function in hooks.items():
            shapes.choice(name, [*HOOKS, *OLDER.values()], "hook")
            if function is not None:
                setattr(self, name, function)


class ProgbarLogger(Callback):
    """Keras' name of the bar, which `fit` shows by itself: ``verbose=1``. It adds nothing."""


def _learning_rate(callback: Callback) -> float:
    """The learning rate, a number, or a ValueError where a schedule has it."""
    optimizer = callback.model.optimizer
    if optimizer.schedule is not None:
        raise ValueError(
            f"{type(callback).__name__} sets the learning rate, which a "
            f"{type(optimizer.schedule).__name__} of the optimizer does already: use one of the two"
        )
    return float(optimizer.learning_rate)


arguments.explain(globals())

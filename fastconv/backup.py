"""Runs that survive: `BackupAndRestore` keeps where a training stands in one file.

The file is a safetensors file: parameters, optimizer state and whatever arrays callbacks keep, with
everything else as JSON in its header. It is written beside and moved into place, so that a kill or
a full disk while it is written leaves the one before.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from fastconv import shapes
from fastconv.callback import Callback, Logs
from fastconv.files import replacing
from fastconv.identity import describe, difference

if TYPE_CHECKING:
    from fastconv.fitting import Run

FORMAT = 2
NAME = "run.safetensors"


class BackupError(ValueError):
    """A run cannot go on from its backup; nothing was restored.

    Attributes
    ----------
    path : Path
        The backup.
    reason : str
        One line.
    table : str
        What differs, or nothing.
    """

    def __init__(self, path: Path, reason: str, table: str = "") -> None:
        self.path, self.reason, self.table = path, reason, table
        mend = "To begin anew, remove this file or name another backup_dir"
        super().__init__("\n".join(filter(None, (f"{path}: {reason}", table, mend))))


class BackupAndRestore(Callback):
    """Keep where the training stands, and go on from there when it is started again.

    The same script, started again after a crash, ends with the same weights, to the bit, as if
    nothing had happened: parameters, optimizer, learning rate, random state, order of the samples,
    place in the epoch, history and the state of the other callbacks are restored.

    Another model, other arguments of `compile` and `fit` or other data are refused with a
    `BackupError`, which says what differs; the model is as it was then, and so is the backup. More
    epochs are taken, fewer than have begun are not. Data, those of validation too, are recognized
    by their bytes (arrays), by path, size and time (image folders), or by the batches of the
    interrupted epoch (anything else; not those of validation).

    Parameters
    ----------
    backup_dir : str or path-like
        A folder of this run alone.
    save_freq : "epoch" or int
        After every epoch, or also after so many batches.
    double_checkpoint : bool
        With batches: also after every epoch.
    delete_checkpoint : bool
        A training that comes to its end takes the backup away.
    """

    last = True  # it sees the other callbacks' state after they have had their turn

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: Any = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        self.folder = Path(backup_dir)
        self.path = self.folder / NAME
        if save_freq != "epoch":
            save_freq = shapes.integer(save_freq, "save_freq")
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]
        self.save_freq = save_freq
        self.each_epoch = save_freq == "epoch" or bool(double_checkpoint)
        self.delete_checkpoint = bool(delete_checkpoint)
        self.batches = 0
        self.about: dict[str, Any] = {}  # what the run is, and its data

    def on_train_begin(self, logs: Logs | None = None) -> None:
        assert self.run is not None
        self.batches = 0
        data, held = self.run.source.fingerprint(), self.run.held
        self.run.recorded = data is None  # then the batches are what is compared
        self.about = {
            "run": describe(self.run),
            "data": data,
            "validation data": None if held is None else held.fingerprint(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in self.folder.glob(f".{NAME}.*.part"):  # of a run that was killed while it wrote
            part.unlink(missing_ok=True)
        if self.path.exists():
            self._restore(self.run)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.each_epoch:
            self._save()

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self.batches += 1
        if self.batches % self.save_freq == 0:
            self._save()

    def on_train_end(self, logs: Logs | None = None) -> None:
        assert self.run is not None
        if self.run.interrupted:
            self._save()
        elif self.delete_checkpoint:
            self.path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                shutil.rmtree(self.folder, ignore_errors=True)

    def get_state(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def set_state(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]

    def _save(self) -> None:
        assert self.run is not None
        tensors: dict[str, np.ndarray] = {}
        told = {
            "format": FORMAT,
            **self.about,
            "state": _without_arrays(self.run.state(), "", tensors),
        }
        with replacing(self.path) as file:
            file.write(safetensors.save(tensors, {"run": json.dumps(told)}))

    def _restore(self, run: "Run") -> None:
        told, tensors = _read(self.path)
        if table := difference(told["run"], self.about["run"]):
            raise BackupError(self.path, "it is of another run, which differs in", table)
        for data in ("data", "validation data"):
            if told[data] != self.about[data]:
                raise BackupError(
                    self.path,
                    f"the {data} have changed since: they are not those of the interrupted run",
                )
        try:
            run.restore(_with_arrays(told["state"], tensors))
        except ValueError as error:
            raise BackupError(self.path, str(error)) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with safe_open(path, "np") as file:
            told = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BackupError(path, f"not a backup of a run, or damaged: {error}") from error
    if told.get("format") != FORMAT:
        raise BackupError(path, f"a backup in format {told.get('format')}; this reads {FORMAT}")
    return told, tensors


def _without_arrays(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """The same with arrays moved to ``tensors`` and their names in their place."""
    if isinstance(value, np.ndarray):
        tensors[name] = np.ascontiguousarray(value)
        return {"array": name}
    if isinstance(value, dict):
        return {k: _without_arrays(v, f"{name}/{k}", tensors) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"array"}:
            return tensors[value["array"]]
        return {k: _with_arrays(v, tensors) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v, tensors) for v in value]
    return value

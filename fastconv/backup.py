"""Runs that survive: `BackupAndRestore` keeps where a training stands in one file.

The file is a safetensors file: parameters, optimizer state and whatever arrays callbacks keep, with
everything else as JSON in its header. It is written beside and moved into place, so that a kill or
a full disk while it is written leaves the one before.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

from fastconv import shapes
from fastconv.callback import Callback, Logs
from fastconv.files import replacing
from fastconv.tables import table

if TYPE_CHECKING:
    from fastconv.fitting import Run

FORMAT = 1
NAME = "run.safetensors"
MAX_ROWS = 20  # of a table of differences
NUMBER = re.compile(r"_\d+(?=/)")  # of a layer that was not named by hand


class BackupAndRestore(Callback):
    """Keep where the training stands, and go on from there when it is started again.

    The same script, started again after a crash, ends with the same weights, to the bit, as if
    nothing had happened: parameters, optimizer, learning rate, random state, order of the samples,
    place in the epoch, history and the state of the other callbacks are restored.

    Another model, other arguments of `fit` or other data are refused, with what differs. Data are
    recognized by their bytes (arrays), by path, size and time (image folders), or by the batches
    of the interrupted epoch (anything else).

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
        self.data: str | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        assert self.run is not None
        self.batches = 0
        self.data = self.run.source.fingerprint()
        self.run.recorded = self.data is None  # then the batches are what is compared
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
            "model": _description(self.run),
            "data": self.data,
            "state": _without_arrays(self.run.state(), "", tensors),
        }
        with replacing(self.path) as file:
            file.write(safetensors.save(tensors, {"run": json.dumps(told)}))

    def _restore(self, run: "Run") -> None:
        told, tensors = _read(self.path)
        try:
            if difference := _difference(told["model"], _description(run)):
                raise ValueError(f"it is of another run, which differs in\n{difference}")
            if told["data"] != self.data:
                raise ValueError(
                    "the data have changed since: they are not those that the interrupted run was "
                    "trained with"
                )
            run.restore(_with_arrays(told["state"], tensors))
        except ValueError as error:
            raise ValueError(
                f"{self.path}: {error}\nTo begin anew, remove this file or name another backup_dir"
            ) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with safe_open(path, "np") as file:
            told = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a backup of a run, or damaged: {error}") from error
    if told.get("format") != FORMAT:
        raise ValueError(f"{path}: a backup in format {told.get('format')}; this reads {FORMAT}")
    return told, tensors


def _description(run: "Run") -> dict[str, str]:
    """What must be the same for a run to go on, by name."""
    model = run.model
    config = model.compile_config() or {}
    optimizer = {k: v for k, v in config["optimizer"].items() if k != "learning_rate"}
    batch = run.source.batch_size
    graph = json.dumps(_nameless(model.graph.to_config()), sort_keys=True)
    rows = {
        f"parameter {i}, {NUMBER.sub('', p.name)}": f"{p.value.dtype} {shapes_text(p.shape)}"
        for i, p in enumerate(model.parameters())
    }
    return {
        **rows,
        "layers": hashlib.sha256(graph.encode()).hexdigest()[:16],
        "optimizer": json.dumps(optimizer),
        "loss": json.dumps(config["loss"]),
        "loss_weights": json.dumps(config["loss_weights"]),
        "metrics": json.dumps(config["metrics"]),
        "batch size": "that of the data" if batch is None else str(batch),
        "steps of an epoch": str(run.source.steps),
        "accumulate_steps": str(run.accumulate),
    }


def _nameless(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph without its layers' names: a notebook's cell, run again, numbers them on."""
    layers = [
        {**layer, "config": {k: v for k, v in layer["config"].items() if k != "name"}}
        for layer in graph["layers"]
    ]
    return {**graph, "layers": layers}


def shapes_text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"


def _difference(saved: dict[str, str], now: dict[str, str]) -> str:
    """A table of what is not the same; empty where all is."""
    names = [name for name in [*saved, *now] if saved.get(name) != now.get(name)]
    rows = [[name, saved.get(name, "–"), now.get(name, "–")] for name in dict.fromkeys(names)]
    if not rows:
        return ""
    more = len(rows) - MAX_ROWS
    lines = table(["", "in the file", "now"], rows[:MAX_ROWS])
    return "\n".join([*lines, *([f"and {more} more"] if more > 0 else [])])


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

"""What `fit` returns: the numbers of every epoch."""

from typing import Any

from fastconv.callback import Callback, Logs
from fastconv.tables import html_table

SHOWN = 20  # epochs of a notebook's table


class History(Callback):
    """The course of a training.

    Attributes
    ----------
    history : dict of str to list of float
        Loss and metrics, one number per epoch; those of validation begin with ``val_`` and have a
        number for each epoch that was validated.
    epoch : list of int
    params : dict
        ``epochs``, ``batch_size`` and ``steps`` of the call, and ``verbose``.
    fingerprint : str
        SHA-256 of the weights at the end: names, shapes and values. A saved model carries the same.
    """

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}
        self.fingerprint = ""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch, self.history = [], {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.fingerprint = self.model.fingerprint()

    def get_state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "history": self.history}

    def set_state(self, state: dict[str, Any]) -> None:
        self.epoch, self.history = list(state["epoch"]), dict(state["history"])

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4f}" for name, values in self.history.items())
        return f"<History of {len(self.epoch)} epochs: {last}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row per epoch; of many the first and the last ones."""
        count = len(self.epoch)
        whole = {name: values for name, values in self.history.items() if len(values) == count}
        columns = [[str(epoch + 1) for epoch in self.epoch]]
        columns += [[f"{value:.4g}" for value in values] for values in whole.values()]
        rows = list(zip(*columns, strict=True))
        if count > SHOWN:
            rows[SHOWN // 2 : -SHOWN // 2] = [("…",) * len(columns)]
        notes = [  # of what was not measured in every epoch, as with ``validation_freq``
            f"{name}: {', '.join(f'{value:.4g}' for value in values[-SHOWN:])}"
            for name, values in self.history.items()
            if name not in whole
        ]
        return html_table(f"{count} epochs", ["epoch", *whole], rows, notes)

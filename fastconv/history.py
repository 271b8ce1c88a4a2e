"""What `fit` returns: the numbers of every epoch."""

from typing import Any


class History:
    """The course of a training.

    Attributes
    ----------
    history : dict of str to list of float
        Loss and metrics, one number per epoch; those of validation begin with ``val_``.
    epoch : list of int
    params : dict
        ``epochs``, ``batch_size`` and ``steps`` of the call.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def append(self, epoch: int, logs: dict[str, float]) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4f}" for name, values in self.history.items())
        return f"<History of {len(self.epoch)} epochs: {last}>"

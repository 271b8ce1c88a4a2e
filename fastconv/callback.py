"""The contract of a callback, and the list that `fit` speaks to.

A hook that nobody overrides is never called: a training without callbacks per batch pays nothing
for them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastconv import shapes

if TYPE_CHECKING:
    from fastconv.fitting import Run
    from fastconv.model import Model

Logs = dict[str, float]


class Callback:
    """Base of all callbacks: override the hooks that are wanted.

    Attributes
    ----------
    model : Model
        Set before the first hook. ``model.stop_training = True`` ends the training after the batch.
    params : dict
        ``epochs``, ``steps``, ``batch_size`` and ``verbose`` of the call.
    run : Run or None
        The training under way: its place, and its state. None in `evaluate` and `predict`.
    """

    model: "Model"
    params: dict[str, Any]
    run: "Run | None" = None
    last = False  # whether it has its turn after all that have not

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("on_") and name not in (*HOOKS, *OLDER.values()):
                text = shapes.unknown(name, HOOKS, f"hook of {cls.__name__}")
                raise TypeError(f"{text}: it would never be called")

    def set_model(self, model: "Model") -> None:
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch, also one that was stopped; not after an error."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch and its validation. What is put into ``logs`` stands in the history."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a step, counted from 0 in every epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step; ``logs`` has the means over the epoch so far."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation or a validation."""

    def on_test_end(self, logs: Logs | None = None) -> None: ...

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...

    def on_predict_begin(self, logs: Logs | None = None) -> None: ...

    def on_predict_end(self, logs: Logs | None = None) -> None: ...

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...

    def close(self) -> None:
        """Give back files and the like; called however the training ended, after an error too."""

    def get_state(self) -> dict[str, Any]:
        """What a run that goes on must know, as JSON has it (`BackupAndRestore`)."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_state` gave."""


# Keras' older names of the hooks of a training batch
OLDER = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}
HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


class CallbackList:
    """Several callbacks as one; ``hooks`` are those that somebody has overridden."""

    def __init__(self, callbacks: Any = None) -> None:
        self.callbacks = sorted(_as_list(callbacks), key=lambda callback: callback.last)
        self.hooks: dict[str, list[Any]] = {}
        for hook in HOOKS:
            found = [f for callback in self.callbacks if (f := _overridden(callback, hook))]
            if found:
                self.hooks[hook] = found

    def begin(self, model: "Model", params: dict[str, Any], run: "Run | None" = None) -> None:
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(model)
            callback.run = run

    def call(self, hook: str, *arguments: Any) -> None:
        for function in self.hooks.get(hook, ()):
            function(*arguments)

    def close(self) -> None:
        """Close all, whatever one of them raises."""
        error: BaseException | None = None
        for callback in self.callbacks:
            callback.run = None
            try:
                callback.close()
            except Exception as raised:
                error = error or raised
        if error is not None:
            raise error


def _overridden(callback: Callback, hook: str) -> Any:
    """The callback's own hook, or None where it has none."""
    base = getattr(Callback, hook)
    if getattr(type(callback), hook, base) is not base or hook in vars(callback):
        return getattr(callback, hook)
    return getattr(callback, OLDER.get(hook, ""), None)


def _as_list(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    if isinstance(callbacks, CallbackList):
        return callbacks.callbacks
    items = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for item in items:
        if not isinstance(item, Callback):
            hint = "; make one: write ()" if isinstance(item, type) else ""
            raise ValueError(f"callbacks are objects of fastconv.callbacks, not {item!r}{hint}")
    return items

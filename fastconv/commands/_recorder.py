"""Run a script and write down the weights after each of its first steps: a child of `verify-run`.

    python -m fastconv.commands._recorder RECORD STEPS SCRIPT [ARGUMENT …]

`Model.fit` is given one more callback; in loops of the script's own every `Optimizer.apply` is a
step, and what went into `Model.forward` in training, or `train_on_batch`, is its batch. The script
ends when it has made so many steps.
"""

import hashlib
import inspect
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.callback import Callback, CallbackList, Logs
from fastconv.model import Model
from fastconv.optimizers import Optimizer
from fastconv.parameter import Parameter
from fastconv.weights import fingerprint


class Enough(BaseException):
    """All steps are recorded; no script catches it by accident."""


class Recorder(Callback):
    """Of every step: the loss so far, what was fed, the weights, and each parameter by itself."""

    def __init__(self, path: str, steps: int) -> None:
        self.path, self.steps = Path(path), steps
        self.lines: list[dict[str, Any]] = []
        self.models: list[Model] = []  # that the script's own loops run
        self.digest = hashlib.blake2b(digest_size=16)  # of what they were fed

    # -- fit ------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        assert self.run is not None
        self.run.recorded = True
        if not self.lines:
            self.note(None, self.run.digest.hexdigest(), self.model.parameters())

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        assert self.run is not None
        loss = (logs or {})["loss"]
        self.note(loss, self.run.digest.hexdigest(), self.model.parameters())

    # -- loops of the script's own ----------------------------------------------------------------

    def fed(self, model: Model, *arrays: Any) -> None:
        """What a model is about to learn from."""
        if self.run is not None:
            return
        if model not in self.models:
            self.models.append(model)
        for array in _leaves(arrays):
            self.digest.update(np.ascontiguousarray(array).data)

    def applied(self, optimizer: Optimizer, apply: Any) -> None:
        """An update, and the weights before the first and after every one."""
        if self.run is not None:
            apply(optimizer)
            return
        owned = [p for model in self.models for p in model.parameters()]
        parameters = list(dict.fromkeys([*owned, *optimizer._parameters]))
        if not self.lines:
            self.note(None, "", parameters)
        apply(optimizer)
        self.note(None, self.digest.hexdigest(), parameters)

    # -- lines ------------------------------------------------------------------------------------

    def note(self, loss: float | None, data: str, parameters: Sequence[Parameter]) -> None:
        self.lines.append(
            {
                "loss": loss,
                "data": data,
                "weights": fingerprint(parameters),
                "parameters": {p.name: fingerprint([p])[:16] for p in parameters},
            }
        )
        if len(self.lines) > self.steps:
            self.write()
            raise Enough

    def write(self) -> None:
        self.path.write_text(json.dumps(self.lines))


def _leaves(value: Any) -> list[Any]:
    """The arrays of lists and dicts of them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [] if value is None else [value]


def listen(recorder: Recorder) -> None:
    """Let the recorder hear of every step that a script makes."""
    fit, forward, on_batch = Model.fit, Model.forward, Model.train_on_batch
    apply = Optimizer.apply

    def recorded_fit(*given: Any, **options: Any) -> Any:
        call = inspect.signature(fit).bind(*given, **options)
        listed = CallbackList(call.arguments.get("callbacks")).callbacks
        call.arguments["callbacks"] = [*listed, recorder]
        return fit(*call.args, **call.kwargs)

    def recorded_forward(model: Model, x: Any, training: bool = False) -> Any:
        if training:
            recorder.fed(model, x)
        return forward(model, x, training)

    def recorded_batch(model: Model, x: Any, y: Any, *given: Any, **options: Any) -> Any:
        recorder.fed(model, x, y)
        return on_batch(model, x, y, *given, **options)

    def recorded_apply(optimizer: Optimizer) -> None:
        recorder.applied(optimizer, apply)

    Model.fit = recorded_fit  # type: ignore[method-assign]
    Model.forward = recorded_forward  # type: ignore[method-assign, assignment]
    Model.train_on_batch = recorded_batch  # type: ignore[method-assign, assignment]
    Optimizer.apply = recorded_apply  # type: ignore[method-assign, assignment]


def main() -> None:
    path, steps, script, *arguments = sys.argv[1:]
    recorder = Recorder(path, int(steps))
    listen(recorder)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
        recorder.write()  # a script of fewer steps
    except Enough:
        pass


if __name__ == "__main__":
    main()

"""Run a script and write down the weights after each of its first steps: a child of `verify-run`.

    python -m fastconv.commands._recorder RECORD STEPS SCRIPT [ARGUMENT …]

`Model.fit` is given one more callback; the script ends when it has made so many steps.
"""

import inspect
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from fastconv.callback import Callback, CallbackList, Logs
from fastconv.model import Model
from fastconv.weights import fingerprint


class Enough(BaseException):
    """All steps are recorded; no script catches it by accident."""


class Recorder(Callback):
    """Of every step: the loss so far, what was fed, the weights, and each parameter by itself."""

    def __init__(self, path: str, steps: int) -> None:
        self.path, self.steps = Path(path), steps
        self.lines: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        assert self.run is not None
        self.run.recorded = True
        if not self.lines:
            self.note(None)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.note((logs or {})["loss"])
        if len(self.lines) > self.steps:
            self.write()
            raise Enough

    def note(self, loss: float | None) -> None:
        assert self.run is not None
        parameters = self.model.parameters()
        self.lines.append(
            {
                "loss": loss,
                "data": self.run.digest.hexdigest(),
                "weights": fingerprint(parameters),
                "parameters": {p.name: fingerprint([p])[:16] for p in parameters},
            }
        )

    def write(self) -> None:
        self.path.write_text(json.dumps(self.lines))


def main() -> None:
    path, steps, script, *arguments = sys.argv[1:]
    recorder = Recorder(path, int(steps))
    fit = Model.fit

    def recorded(*given: Any, **options: Any) -> Any:
        call = inspect.signature(fit).bind(*given, **options)
        listed = CallbackList(call.arguments.get("callbacks")).callbacks
        call.arguments["callbacks"] = [*listed, recorder]
        return fit(*call.args, **call.kwargs)

    Model.fit = recorded  # type: ignore[method-assign]
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
        recorder.write()  # a script of fewer steps
    except Enough:
        pass


if __name__ == "__main__":
    main()

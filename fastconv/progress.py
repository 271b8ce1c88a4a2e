"""What training shows, as Keras shows it: a bar per epoch, or a line per epoch."""

import sys
import time
from collections.abc import Callable
from typing import Any

REFRESH = 0.1  # seconds between two updates of the bar
FORM = "{n_fmt}/{total_fmt} {bar:20} {desc}"  # as tqdm fills it in

Logs = dict[str, float]


def check_verbose(verbose: Any) -> int:
    """Keras' ``verbose``: 0 silent, 1 or "auto" a bar, 2 one line per epoch."""
    if verbose == "auto":
        return 1
    if verbose not in (0, 1, 2):
        raise ValueError(f'verbose is 0, 1, 2 or "auto", not {verbose!r}')
    return int(verbose)


class Progress:
    """The display of one epoch, evaluation or prediction.

    Parameters
    ----------
    title : str
        A line above the bar; none where it is empty.
    steps : int or None
        Batches to come, where that is known.
    verbose : int
    done : int
        Batches that are through already (a run that goes on).
    """

    def __init__(self, title: str, steps: int | None, verbose: int, done: int = 0) -> None:
        self.steps = steps
        self.verbose = verbose
        self.done = self.first = done
        self.samples = 0
        self.start = self.shown = time.perf_counter()
        self.bar: Any = None
        if verbose and title:
            print(title, flush=True)
        if verbose == 1:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=steps, initial=done, file=sys.stdout, ascii=" ━", leave=True,
                            bar_format=FORM if steps else "{n_fmt}/Unknown {desc}")  # fmt: skip

    def update(self, samples: int, logs: Callable[[], Logs]) -> None:
        """Another batch is through; ``samples`` so far, ``logs()`` gives the means so far."""
        self.done += 1
        if self.bar is None:
            return
        now = time.perf_counter()
        if now - self.shown >= REFRESH:
            self.shown = now
            self.samples = samples
            self._show(logs(), now - self.start, left=True)

    def close(self, samples: int, logs: Logs | None) -> None:
        """The last numbers; None where the epoch was broken off."""
        self.samples = samples
        seconds = time.perf_counter() - self.start
        if self.bar is not None:
            if logs is not None:
                if self.steps is None:  # now it is known
                    self.bar.total, self.bar.bar_format = self.done, FORM
                self._show(logs, seconds)
            self.bar.n = self.done
            self.bar.close()  # which draws it for the last time
        elif self.verbose == 2 and logs is not None:
            whole = f"{self.done}/{self.steps or self.done} - "
            print(whole + self._numbers(logs, seconds, " - "), flush=True)

    def _show(self, logs: Logs, seconds: float, left: bool = False) -> None:
        self.bar.set_description_str(self._numbers(logs, seconds, " ", left), refresh=False)
        self.bar.n = self.done
        if left:
            self.bar.refresh()

    def _numbers(self, logs: Logs, seconds: float, between: str, left: bool = False) -> str:
        """``3s 3ms/step - accuracy: 0.9101 - loss: 0.2921``; ``left``: the time yet to come."""
        steps = max(1, self.done - self.first)
        each = seconds / steps
        whole = each * (self.steps - self.done) if left and self.steps else seconds
        rate = f"{self.samples / max(seconds, 1e-9):,.0f} images/s"
        numbers = [f"{name}: {_number(logs[name])}" for name in sorted(logs)]
        return " - ".join([f"{_time(whole)}{between}{_each(each)}/step", *numbers, rate])


def _time(seconds: float) -> str:
    """``12s``, ``3:05``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _each(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.0f}s"
    return f"{1e3 * seconds:.0f}ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f}us"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) > 1e-3 or value == 0 else f"{value:.4e}"

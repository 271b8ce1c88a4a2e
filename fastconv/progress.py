"""What training shows, as Keras shows it: a bar per epoch, or a line per epoch."""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

REFRESH = 0.1  # seconds between two updates of the bar
BARS = (20, 10, 0)  # columns of the bar, where there is room, where there is less, and hardly any
NOTEBOOK = 100  # columns of a notebook that has no widgets

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
        self.widget = False  # whether the bar is a notebook's
        if verbose and title:
            print(title, flush=True)
        if verbose == 1:
            tqdm = _bar()
            self.widget = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
            self.bar = tqdm(total=steps, initial=done, file=sys.stdout, ascii=" ━", leave=True,
                            bar_format=self._form(BARS[0]), dynamic_ncols=True)  # fmt: skip

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
                    self.steps = self.bar.total = self.done
                    if self.widget:
                        self.bar.reset(self.done)
                self._show(logs, seconds)
            self.bar.n = self.done
            self.bar.close()  # which draws it for the last time
        elif self.verbose == 2 and logs is not None:
            whole = f"{self.done}/{self.steps or self.done} - "
            print(whole + " - ".join(self._words(logs, seconds)), flush=True)

    def _show(self, logs: Logs, seconds: float, left: bool = False) -> None:
        width, words = self._fitted(self._words(logs, seconds, left))
        self.bar.bar_format = self._form(width)
        self.bar.set_description_str(words, refresh=False)
        self.bar.n = self.done
        if left:
            self.bar.refresh()

    def _form(self, width: int) -> str:
        """A line as tqdm fills it in, with a bar of so many columns."""
        if self.widget:  # its bar stands between what is left and right of it
            return "{n_fmt}/{total_fmt} {bar} {desc}" if self.steps else "{n_fmt} {bar} {desc}"
        if self.steps is None:
            return "{n_fmt}/Unknown {desc}"
        bar = f"{{bar:{width}}} " if width else ""
        return f"{{n_fmt}}/{{total_fmt}} {bar}{{desc}}"

    def _words(self, logs: Logs, seconds: float, left: bool = False) -> list[str]:
        """``3s 3ms/step``, ``accuracy: 0.9101``, ``loss: 0.2921``, ``914 images/s``; ``left``: the
        time yet to come."""
        each = seconds / max(1, self.done - self.first)
        whole = each * (self.steps - self.done) if left and self.steps else seconds
        between = " - " if self.verbose == 2 else " "
        numbers = [f"{name}: {_number(logs[name])}" for name in sorted(logs)]
        rate = f"{self.samples / max(seconds, 1e-9):,.0f} images/s"
        return [f"{_time(whole)}{between}{_each(each)}/step", *numbers, rate]

    def _fitted(self, words: list[str]) -> tuple[int, str]:
        """Columns of the bar and the words beside it, as many as there is room for: the speed goes
        first, then the bar, the time, and all numbers but the losses."""
        room = self._columns()
        count = len(f"{self.done}/{self.steps or 'Unknown'} ")
        plain, numbers = words[:-1], words[1:-1]
        losses = [word for word in numbers if word.startswith(("loss:", "val_loss:"))]
        choices = [(BARS[0], words), *((bar, plain) for bar in BARS), (0, numbers)]
        choices += [(0, some) for some in (losses, losses[:1]) if some]
        for bar, some in choices:
            text = " - ".join(some)
            if room is None or count + (bar + 1 if bar else 0) + len(text) <= room:
                break
        return bar, text

    def _columns(self) -> int | None:
        """The width of the line; None where it may be as long as it is."""
        if self.widget:
            return None  # it wraps
        columns: int | None = self.bar.format_dict["ncols"]
        in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
        return NOTEBOOK if columns is None and in_notebook else columns


def _bar() -> Any:
    """tqdm's bar; in a notebook its widget, or without ipywidgets the bar in text, with no word of
    it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm
    return tqdm


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

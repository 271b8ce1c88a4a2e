"""What training shows: a tqdm bar per epoch, or a line per epoch."""

import sys
import time
from typing import Any

REFRESH = 0.1  # seconds between two updates of the numbers beside the bar


def check_verbose(verbose: Any) -> int:
    """Keras' ``verbose``: 0 silent, 1 or "auto" a bar, 2 one line per epoch."""
    if verbose == "auto":
        return 1
    if verbose not in (0, 1, 2):
        raise ValueError(f'verbose is 0, 1, 2 or "auto", not {verbose!r}')
    return int(verbose)


class Progress:
    """The display of one epoch (or evaluation) of ``samples`` images in ``batches``."""

    def __init__(self, title: str, batches: int, samples: int, verbose: int) -> None:
        self.title = title
        self.samples = samples
        self.verbose = verbose
        self.start = self.shown = time.perf_counter()
        self.bar: Any = None
        if verbose == 1:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=batches, desc=title, unit="batch", mininterval=REFRESH,
                            file=sys.stdout, dynamic_ncols=True, leave=True)  # fmt: skip

    def update(self, done: int, logs: Any) -> None:
        """``done`` images are through; ``logs()`` gives the means so far."""
        if self.bar is None:
            return
        now = time.perf_counter()
        if now - self.shown >= REFRESH:
            self.shown = now
            self.bar.set_postfix_str(self._numbers(done, logs()), refresh=False)
        self.bar.update(1)

    def close(self, done: int, logs: dict[str, float] | None) -> None:
        """The last numbers; None where the epoch was broken off."""
        if self.bar is not None:
            if logs is not None:
                self.bar.set_postfix_str(self._numbers(done, logs))
            self.bar.close()
        elif self.verbose == 2 and logs is not None:
            print(f"{self.title}: {self._numbers(done, logs)}", flush=True)

    def _numbers(self, done: int, logs: dict[str, float]) -> str:
        rate = done / max(1e-9, time.perf_counter() - self.start)
        numbers = [f"{name}={value:.4f}" for name, value in logs.items()]
        return ", ".join([*numbers, f"{rate:,.0f} images/s"])

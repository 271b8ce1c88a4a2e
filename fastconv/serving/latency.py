"""How long a session takes for a batch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastconv.serving.session import Session

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch, from arrays to arrays.

    Attributes
    ----------
    name, provider : str
    repeats : int
    milliseconds : dict
        Batch size → {percentile: milliseconds}.
    """

    name: str
    provider: str
    repeats: int
    milliseconds: dict[int, dict[int, float]]

    def __str__(self) -> str:
        lines = [f"{self.name} on {self.provider}, {self.repeats} runs each, milliseconds"]
        head = "".join(f"{f'p{p}':>10}" for p in PERCENTILES)
        lines.append(f"{'batch':>7}{head}{'samples/s':>12}")
        for batch, found in self.milliseconds.items():
            times = "".join(f"{found[p]:10.3f}" for p in PERCENTILES)
            lines.append(f"{batch:7}{times}{1000 * batch / found[50]:12,.0f}")
        return "\n".join(lines)

    __repr__ = __str__


def measure(session: "Session", batch_sizes: Sequence[int], repeats: int) -> Latency:
    """Time a session at each batch size; a few runs before the first count do not count."""
    found = {}
    for batch in batch_sizes:
        feeds = session.example(batch)
        for _ in range(3):
            session.run(feeds)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            session.run(feeds)
            times.append(1000 * (time.perf_counter() - start))
        found[batch] = {p: float(np.percentile(times, p)) for p in PERCENTILES}
    return Latency(session.name, session.provider, repeats, found)

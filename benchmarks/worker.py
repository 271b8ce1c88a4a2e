"""Each side in a process of its own, and the turns that they take.

A worker is a process that holds one object and calls its methods when the driver says so, over a
pair of pipes. What one library sets, spins or keeps cannot touch another one, every side has its
own settings of the memory allocator, and while one computes the others wait for their pipe. That
they do wait is measured: a report says how much CPU time was spent out of turn.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

PAUSE = 0.02  # seconds before a turn: idle OpenMP threads spin some milliseconds, then they sleep
SAMPLE = 0.05  # seconds: a sample repeats a short call until it lasts about so long
LONG = 0.1  # seconds: a call so long needs none before it to wake the threads and fill the caches
WARM_UP = 12  # calls at most, see `KEEP_MEMORY`
SETTLE = 0.5  # seconds that a system may take to give every new thread a processor of its own

# glibc keeps what is freed instead of giving it back to the system after every large tensor. The
# first dozen aligned allocations still take new memory, because the small pieces that they cut off
# stay in the thread's cache until it is full: hence a dozen calls to warm up.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
# Between two calls GNU OpenMP's threads spin for some milliseconds, as long as PyTorch's copy of it
# does; fastconv asks its own to sleep at once, for the sake of other programs. Where single kernels
# are timed, a thread that falls asleep between two calls and wakes up on the other one's processor
# would be half of what is measured.
KEEP_SPINNING = {"GOMP_SPINCOUNT": "300000"}


class WorkerError(RuntimeError):
    """A side failed; the message has its traceback."""


class Side:
    """What a worker holds: ``task`` is what it times, set by the methods of a subclass."""

    task: Callable[[], object]

    def run(self, calls: int) -> float:
        """Seconds per call of so many calls in a row."""
        start = time.perf_counter()
        for _ in range(calls):
            self.task()
        return (time.perf_counter() - start) / calls

    def sample(self, calls: int, wake: bool) -> dict[str, float]:
        """One sample; ``wake``: after a call that is not timed."""
        idle_until = time.process_time()
        if wake:
            self.task()
        taken = self.run(calls)
        return {"seconds": taken, "cpu_before": idle_until, "cpu_after": time.process_time()}


class Worker:
    """The driver's end.

    Parameters
    ----------
    side : type
        A subclass of `Side`, which the process imports by its module's name.
    keep_memory : bool
        Tell glibc to keep freed memory.
    keep_spinning : bool
        Have idle threads wait as PyTorch's do, also on our side.
    **options
        What ``side`` is made with; plain values.
    """

    def __init__(
        self,
        side: type[Side],
        keep_memory: bool = False,
        keep_spinning: bool = False,
        **options: Any,
    ) -> None:
        kept = (KEEP_MEMORY if keep_memory else {}) | (KEEP_SPINNING if keep_spinning else {})
        self.name = side.__name__
        self.process = subprocess.Popen(
            [sys.executable, __file__, side.__module__, side.__name__, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **kept},
        )  # fmt: skip

    def send(self, method: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `receive` says how it ended
            self.process.stdin.write(json.dumps({"call": method, "with": arguments}) + "\n")
            self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name} ended with code {self.process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.name}: {reply['error']}")
        return reply["result"]

    def call(self, method: str, **arguments: Any) -> Any:
        self.send(method, **arguments)
        return self.receive()

    def close(self) -> None:
        """End the process; one that does not listen is killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # what it did not read any more
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.process.kill()
        self.close()


@contextmanager
def started(sides: dict[str, dict[str, Any]]) -> Iterator[dict[str, Worker]]:
    """Workers by name, from the arguments of `Worker`; all of them are ended at the end."""
    workers: dict[str, Worker] = {}
    try:
        for name, arguments in sides.items():
            workers[name] = Worker(**arguments)
        yield workers
    except BaseException:
        for worker in workers.values():
            worker.process.kill()
        raise
    finally:
        for worker in workers.values():
            worker.close()


# -- turns --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over the rounds; ``spread`` is the interquartile range by the median."""

    median: float
    min: float
    spread: float
    calls: int  # in one sample
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: list[float], calls: int = 1) -> "Timing":
        median = statistics.median(samples)
        low, _, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
        return cls(median, min(samples), (high - low) / median, calls, tuple(samples))


def take_turns(
    workers: dict[str, Worker], rounds: int, sample: float = SAMPLE
) -> tuple[dict[str, Timing], float]:
    """Time what every worker has as its task, one worker at a time.

    All are warmed up by the same number of calls, then by as many as take `SETTLE`. A turn is a
    pause, a call that is not timed (where calls are short), and then as many calls as fill
    ``sample`` seconds. The order within a round moves on by one from round to round, so that a slow
    minute of the machine hits all.

    Returns
    -------
    times : dict of Timing
    idle : float
        CPU seconds that workers spent while it was another's turn, per second of the turns.
    """
    first = {name: worker.call("run", calls=1) for name, worker in workers.items()}
    warm_up = max(1, min(WARM_UP, int(1 / max(first.values()))))
    calls, longest = {}, 0.0
    for name, worker in workers.items():
        worker.call("run", calls=warm_up)
        one = worker.call("run", calls=1)
        longest = max(longest, one)
        calls[name] = max(1, min(10_000, round(sample / one)))
        if one < SETTLE:
            worker.call("run", calls=min(10_000, round(SETTLE / one)))
    samples: dict[str, list[float]] = {name: [] for name in workers}
    ended: dict[str, float] = {}
    order, idle, start = list(workers), 0.0, time.perf_counter()
    for _ in range(rounds):
        for name in order:
            time.sleep(PAUSE)
            taken = workers[name].call("sample", calls=calls[name], wake=longest < LONG)
            samples[name].append(taken["seconds"])
            idle += taken["cpu_before"] - ended.get(name, taken["cpu_before"])
            ended[name] = taken["cpu_after"]
        order.append(order.pop(0))
    idle /= time.perf_counter() - start
    return {name: Timing.of(samples[name], calls[name]) for name in workers}, idle


def speedup(times: dict[str, Timing], name: str = "fastconv") -> float | None:
    """How often ``name`` is faster than the best of the others: the ratio of the medians."""
    others = [t.median for key, t in times.items() if key != name]
    return min(others) / times[name].median if name in times and others else None


def best_other(times: dict[str, Timing], name: str = "fastconv") -> str | None:
    others = [key for key in times if key != name]
    return min(others, key=lambda key: times[key].median) if others else None


def as_json(times: dict[str, Timing]) -> dict[str, Any]:
    return {name: asdict(timing) for name, timing in times.items()}


def idle_notes(rows: list[dict[str, Any]]) -> list[str]:
    """A sentence for the report where sides computed out of turn. The few milliseconds for which
    idle threads spin fall into the pause, and are well below what is told."""
    worst = max((row["idle_cpus"] for row in rows), default=0.0)
    return [f"**Waiting sides kept {worst:.2f} CPUs busy at worst.**"] if worst > 0.2 else []


# -- the worker's end ---------------------------------------------------------------------------


def main() -> None:
    module, name, options = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the replies
    side: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if side is None:
                side = getattr(importlib.import_module(module), name)(**json.loads(options))
            reply = {"result": getattr(side, request["call"])(**request["with"])}
        except Exception:
            reply = {"error": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()

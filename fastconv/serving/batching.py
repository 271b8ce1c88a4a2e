"""Requests that arrive together go to the network together.

One thread runs the network; while it does, what arrives waits in a bounded queue, and what waits is
the next batch. So batches grow with the load by themselves, and a lone request waits for nobody
unless `max_delay` asks it to.

A batch holds requests of one shape only. A request of more than `max_batch` samples is cut into
parts, which are joined again. A batch that fails is run again request by request, so that a bad one
(an index beyond a table, say) fails alone. Everything but the run itself happens on the event
loop's thread.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays, Sequence[str]], Sequence[np.ndarray]]


class Full(Exception):
    """The queue is full; `retry_after` is the seconds after which there may be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class Expired(Exception):
    """The request's time was over before its results were there."""


class Closed(Exception):
    """The batcher takes no more requests."""


class Result(NamedTuple):
    """Outputs of a request in the order asked for, and where its time went, in seconds."""

    outputs: list[np.ndarray]
    queue: float
    compute: float
    batch: int  # samples that ran together, at most over the parts


class Batch(NamedTuple):
    """What `observe` is told of each run."""

    rows: int
    compute: float
    failed: bool


@dataclass(slots=True, eq=False)
class _Request:
    outputs: tuple[str, ...]
    future: "asyncio.Future[Result]"
    arrived: float
    missing: int  # parts
    results: list[Sequence[np.ndarray]]
    started: float = 0.0
    compute: float = 0.0
    batch: int = 0
    over: bool = False  # expired, failed or cancelled: what is left of it need not run


@dataclass(slots=True, eq=False)
class _Part:
    request: _Request
    place: int
    feeds: Arrays
    rows: int
    kind: tuple[Any, ...]  # only parts of one kind may share a batch


def buckets(max_batch: int) -> tuple[int, ...]:
    """The batch sizes 1, 2, 4 … up to `max_batch`, which is always the last."""
    sizes = [1]
    while sizes[-1] * 2 < max_batch:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes) if max_batch == 1 else (*sizes, max_batch)


@dataclass
class Batcher:
    """A queue before a network, and the thread that runs it.

    Parameters
    ----------
    run : callable
        ``run(feeds, outputs) -> arrays``; feeds and arrays have the samples along the first axis.
    max_batch : int
        Samples that run together at most.
    max_delay : float
        Seconds that a request may wait for others to fill its batch; 0 turns waiting off.
    queue : int
        Samples that may wait. A request is refused when it would bring more, except that an empty
        queue takes any.
    sizes : sequence of int
        Batch sizes to run; a batch is filled up to the next with zeros. Empty: any size runs as it
        is, which is what a CPU likes best.
    observe : callable, optional
        ``observe(Batch)`` after each run, on the event loop's thread.
    alone : bool
        The network has no batch axis: every request runs by itself, as it came.
    """

    run: Run
    max_batch: int = 32
    max_delay: float = 0.0
    queue: int = 256
    sizes: Sequence[int] = ()
    observe: Callable[[Batch], None] | None = None
    alone: bool = False
    waiting: int = field(default=0, init=False)  # samples

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parts: deque[_Part] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._speed = 0.0  # seconds per sample, of late
        self._thread = threading.Thread(target=self._work, name="fastconv-batcher", daemon=True)
        self._thread.start()

    async def submit(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], timeout: float | None = None
    ) -> Result:
        """The outputs for these feeds; all have as many samples along the first axis.

        Raises
        ------
        Full, Expired, Closed
        Exception
            Whatever the network raised.
        """
        request = self._enter(feeds, tuple(outputs))
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(timeout, self._expire, request)
        try:
            return await request.future
        finally:
            request.over = True
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        """Take no more requests; returns once those in the queue are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await self._loop.run_in_executor(None, self._thread.join)

    # -- the event loop's side --------------------------------------------------------------------

    def _enter(self, feeds: Mapping[str, np.ndarray], outputs: tuple[str, ...]) -> _Request:
        future = self._loop.create_future()
        request = _Request(outputs, future, time.perf_counter(), 0, [])
        parts = self._cut(request, feeds)
        rows = sum(part.rows for part in parts)
        request.missing = len(parts)
        request.results = [()] * len(parts)
        with self._changed:
            if self._closed:
                raise Closed
            if self.waiting and self.waiting + rows > self.queue:
                raise Full(max(1.0, self.waiting * self._speed))
            self._parts.extend(parts)
            self.waiting += rows
            self._changed.notify()
        return request

    def _cut(self, request: _Request, feeds: Mapping[str, np.ndarray]) -> list[_Part]:
        if self.alone:
            return [_Part(request, 0, dict(feeds), 1, (request,))]
        most = self.max_batch
        rows = len(next(iter(feeds.values())))
        kind = (request.outputs, *((name, array.shape[1:]) for name, array in feeds.items()))
        if rows <= most:
            return [_Part(request, 0, dict(feeds), rows, kind)]
        parts = []
        for place, start in enumerate(range(0, rows, most)):
            taken = {name: array[start : start + most] for name, array in feeds.items()}
            parts.append(_Part(request, place, taken, min(most, rows - start), kind))
        return parts

    def _expire(self, request: _Request) -> None:
        request.over = True
        if not request.future.done():
            request.future.set_exception(Expired())

    def _deliver(self, batch: Batch, answers: list[tuple[_Request, Exception | None]]) -> None:
        for request, error in answers:
            if request.future.done():
                continue
            if error is not None:
                request.future.set_exception(error)
                continue
            joined = (
                list(request.results[0])
                if len(request.results) == 1
                else [np.concatenate(pieces) for pieces in zip(*request.results, strict=True)]
            )
            waited = request.started - request.arrived
            request.future.set_result(Result(joined, waited, request.compute, request.batch))
        if self.observe is not None:
            self.observe(batch)

    # -- the thread's side ------------------------------------------------------------------------

    def _work(self) -> None:
        while (parts := self._next_batch()) and not self._loop.is_closed():
            if not self._answer(parts, final=len(parts) == 1):
                # what one request spoilt is no fault of the others: each is run by itself
                while parts:
                    self._answer([parts.pop(0)], final=True)
            del parts  # nothing of this batch is kept alive while the thread waits

    def _answer(self, parts: list[_Part], final: bool) -> bool:
        """Run parts as a batch and hand out what came of it; whether the network ran. A failure
        is handed out only where it is final."""
        start = time.perf_counter()
        error: Exception | None = None
        results: Sequence[np.ndarray] = ()
        rows = sum(part.rows for part in parts)
        try:
            results = self._run_batch(parts, rows)
        except Exception as caught:  # whatever the runtime raises is the requests' answer
            error = caught
        compute = time.perf_counter() - start
        self._speed = 0.8 * self._speed + 0.2 * compute / rows if self._speed else compute / rows
        answers = []
        if error is None or final:
            answers = self._settle(parts, results, error, start, compute, rows)
        batch = Batch(rows, compute, error is not None)
        with contextlib.suppress(RuntimeError):  # the loop has ended, nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver, batch, answers)
        return error is None

    def _next_batch(self) -> list[_Part]:
        """The first part in the queue and those of its kind behind it; none: the end."""
        with self._changed:
            while True:
                self._discard()
                if not self._parts:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                first = self._parts[0]
                left = first.request.arrived + self.max_delay - time.perf_counter()
                if self.max_delay <= 0 or self._closed or left <= 0 or self._is_full(first.kind):
                    return self._take(first.kind)
                self._changed.wait(left)

    def _discard(self) -> None:
        while self._parts and self._parts[0].request.over:
            self.waiting -= self._parts.popleft().rows

    def _is_full(self, kind: tuple[Any, ...]) -> bool:
        rows = 0
        for part in self._parts:
            rows += part.rows if part.kind == kind else 0
            if rows >= self.max_batch:
                return True
        return False

    def _take(self, kind: tuple[Any, ...]) -> list[_Part]:
        """Parts of this kind, in order, as many as fit; the others keep their places."""
        taken: list[_Part] = []
        passed: list[_Part] = []
        rows = 0
        while self._parts and rows < self.max_batch:
            part = self._parts.popleft()
            if part.request.over:
                self.waiting -= part.rows
            elif part.kind != kind:
                passed.append(part)
            elif rows + part.rows > self.max_batch:
                self._parts.appendleft(part)
                break
            else:
                taken.append(part)
                rows += part.rows
        self._parts.extendleft(reversed(passed))
        self.waiting -= rows
        return taken

    def _run_batch(self, parts: list[_Part], rows: int) -> Sequence[np.ndarray]:
        names = parts[0].feeds
        if self.alone:
            return self.run(names, parts[0].request.outputs)
        size = next((size for size in self.sizes if size >= rows), rows)
        if len(parts) == 1 and size == rows:
            feeds = names
        else:
            feeds = {}
            for name in names:
                pieces = [part.feeds[name] for part in parts]
                if size > rows:
                    pieces.append(np.zeros((size - rows, *pieces[0].shape[1:]), pieces[0].dtype))
                feeds[name] = np.concatenate(pieces)
        results = self.run(feeds, parts[0].request.outputs)
        for name, array in zip(parts[0].request.outputs, results, strict=True):
            if array.ndim == 0 or len(array) != size:
                raise ValueError(
                    f"output {name!r} has the shape {array.shape} for {size} samples: it has no "
                    "batch axis, so that requests cannot be told apart in it"
                )
        return results

    def _settle(
        self,
        parts: list[_Part],
        results: Sequence[np.ndarray],
        error: Exception | None,
        start: float,
        compute: float,
        rows: int,
    ) -> list[tuple[_Request, Exception | None]]:
        """Hand each part its rows; the requests that are complete, or lost, by this."""
        answers: list[tuple[_Request, Exception | None]] = []
        row = 0
        for part in parts:
            request = part.request
            request.started = request.started or start
            request.compute += compute
            request.batch = max(request.batch, rows)
            request.missing -= 1
            if error is not None:
                if not request.over:
                    answers.append((request, error))
                request.over = True
            else:
                whole = self.alone or (len(parts) == 1 and len(results[0]) == rows)
                request.results[part.place] = (
                    results if whole else [a[row : row + part.rows] for a in results]
                )
                if request.missing == 0:
                    answers.append((request, None))
            row += part.rows
        return answers

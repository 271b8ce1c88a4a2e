"""Batches from a pipeline: `Dataset`, whose stages are joined like those of ``tf.data``.

A data set is a description. Walking through it is an *epoch*, which has a seed: the same seed gives
the same batches, whatever the number of threads. All that is random in a pipeline, shuffling and
the generators that `Dataset.map` hands out, follows from it. So a training that was killed can walk
through the same epoch again (`Dataset.epoch`).
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, shapes
from fastconv.arguments import explained
from fastconv.config import get_num_threads

if TYPE_CHECKING:
    from concurrent.futures import Future

AUTOTUNE = -1  # as many threads as the process computes with
INFINITE, UNKNOWN = -1, -2  # lengths: see `Dataset.cardinality`
AHEAD = 2  # elements under way per thread
SEEDS = 0x9E3779B97F4A7C15  # keeps the random numbers of two stages apart
MASK = (1 << 64) - 1
LAYERS = 0x6C61  # keeps what layers draw in `Dataset.map` apart from its function's own generator

Element = Any  # an array, or a tuple or dict of them


class Dataset:
    """A sequence of elements that can be walked through again and again.

    Made by `from_tensor_slices` or `from_generator`; each method gives a new data set. `fit`,
    `evaluate` and `predict` take one whose elements are batches, ``(x, y)`` or
    ``(x, y, sample_weight)``.

    Examples
    --------
    >>> images = np.zeros((100, 8, 8), np.uint8)
    >>> data = Dataset.from_tensor_slices((images, np.arange(100) % 10))
    >>> data = data.shuffle(100, seed=0).batch(32).prefetch(2)
    >>> len(data), next(iter(data))[0].shape
    (4, (32, 8, 8))
    """

    def __init__(
        self,
        walk: Callable[[int], Iterator[Element]],
        length: Callable[[], int | None],
        fingerprint: Callable[[], str] | None = None,
        rows: "_Rows | None" = None,
    ) -> None:
        self._walk = walk
        self._length = length
        self._fingerprint = fingerprint
        self._rows = rows  # where elements are rows of arrays, in an order that is known
        self._maps = (0, 0)  # before it, and random ones: keeps the numbers of two of them apart
        self.class_names: list[str] | None = None
        self.file_paths: list[str] | None = None

    # -- sources ------------------------------------------------------------------------------

    @classmethod
    def from_tensor_slices(cls, tensors: Any) -> "Dataset":
        """One element per row of an array, or of several of one length (a tuple or a dict)."""
        leaves = _leaves(tensors)
        if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves):
            raise ValueError("from_tensor_slices takes arrays with rows")
        sizes = {len(leaf) for leaf in leaves}
        if len(sizes) > 1:
            raise ValueError(f"the arrays have different lengths: {sorted(sizes)}")
        arrays = _map_leaves(np.asarray, tensors)
        return _of_rows(_Rows(arrays, sizes.pop()))

    from_arrays = from_tensor_slices

    @classmethod
    def from_generator(cls, generator: Callable[[], Iterable[Element]], **unused: Any) -> "Dataset":
        """Elements of whatever ``generator()`` gives; called anew for every epoch."""
        if unused:
            raise ValueError(f"from_generator does not take {', '.join(unused)}: shapes are seen")
        if not callable(generator):
            raise ValueError("from_generator takes a function that makes a new iterator each time")
        return cls(lambda seed: iter(generator()), lambda: None)

    # -- stages -------------------------------------------------------------------------------

    def _then(
        self,
        walk: Callable[[int], Iterator[Element]],
        what: str,
        length: Callable[[], int | None] | None = None,
        rows: "_Rows | None" = None,
    ) -> "Dataset":
        mark = self._fingerprint
        found = Dataset(
            walk, length or self._length, None if mark is None else lambda: f"{mark()} {what}", rows
        )
        found.class_names, found.file_paths = self.class_names, self.file_paths
        found._maps = self._maps
        return found

    @explained
    def map(
        self,
        function: Callable[..., Element],
        num_parallel_calls: int | None = None,
        random: bool = False,
    ) -> "Dataset":
        """``function`` of every element; a tuple is handed over as several arguments.

        Layers that it calls on arrays (`layers.RandomFlip` …) draw numbers that are this element's
        own in this epoch: augmentation repeats, whatever the threads.

        Parameters
        ----------
        function : callable
        num_parallel_calls : int, optional
            Threads that call it; ``AUTOTUNE`` (−1) takes as many as compute. The order stays. It
            pays where the function releases the GIL, as Pillow and numpy do with large arrays.
        random : bool
            ``function`` is given a ``numpy.random.Generator`` as its last argument, this element's
            own in this epoch, too.
        """
        threads = _threads(num_parallel_calls)
        maps, drawing = self._maps
        stage = [drawing] if drawing else []

        def walk(seed: int) -> Iterator[Element]:
            def call(job: tuple[int, Element]) -> Element:
                number, element = job
                own = [_mix(seed, 1), number, *stage]
                more = (np.random.default_rng(own),) if random else ()
                with backend.seeded([LAYERS, maps, *own]):  # apart from what `more` draws
                    if isinstance(element, tuple):
                        return function(*element, *more)
                    return function(element, *more)

            jobs = enumerate(self._walk(seed))
            return map(call, jobs) if threads == 1 else _in_threads(call, jobs, threads)

        what = f"map {getattr(function, '__qualname__', type(function).__name__)}"
        found = self._then(walk, what)
        found._maps = (maps + 1, drawing + random)
        return found

    def filter(self, predicate: Callable[..., bool]) -> "Dataset":
        """The elements for which ``predicate`` holds."""

        def walk(seed: int) -> Iterator[Element]:
            for element in self._walk(seed):
                if predicate(*element) if isinstance(element, tuple) else predicate(element):
                    yield element

        return self._then(walk, "filter", lambda: None)

    @explained
    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool = True
    ) -> "Dataset":
        """Elements in a random order.

        Parameters
        ----------
        buffer_size : int
            The next element is drawn from so many. Rows of arrays are always permuted as a whole.
        seed : int, optional
            By default from `fastconv.set_random_seed`.
        reshuffle_each_iteration : bool
            Another order in every epoch.
        """
        size = shapes.integer(buffer_size, "buffer_size")
        own = None if seed is None else shapes.integer(seed, "seed", 0)
        kept = backend.next_seed() if own is None and not reshuffle_each_iteration else own

        def generator(seed: int) -> np.random.Generator:
            if not reshuffle_each_iteration:
                return np.random.default_rng(kept)
            return np.random.default_rng([_mix(seed, 2), own or 0])

        what = f"shuffle {size} {own} {reshuffle_each_iteration}"
        rows = self._rows
        if rows is not None:
            before = rows.order

            def order(seed: int) -> np.ndarray:
                return before(seed)[generator(seed).permutation(rows.count)]

            shuffled = _Rows(rows.arrays, rows.count, order)
            return self._then(shuffled.walk, what, rows=shuffled)

        def walk(seed: int) -> Iterator[Element]:
            draw = generator(seed)
            source = self._walk(seed)
            waiting = list(islice(source, size))
            for element in source:
                place = int(draw.integers(len(waiting)))
                yield waiting[place]
                waiting[place] = element
            for place in draw.permutation(len(waiting)):
                yield waiting[place]

        return self._then(walk, what)

    @explained
    def batch(self, batch_size: int, drop_remainder: bool = False) -> "Dataset":
        """So many elements stacked into one."""
        size = shapes.integer(batch_size, "batch_size")

        def length() -> int | None:
            count = self._length()
            if count is None or count == INFINITE:
                return count
            return count // size if drop_remainder else -(-count // size)

        def walk(seed: int) -> Iterator[Element]:
            if self._rows is not None:  # a copy of the rows, without a step per element
                order = self._rows.order(seed)
                for start in range(0, length() * size, size):  # type: ignore[operator]
                    yield self._rows.take(order[start : start + size])
                return
            source = self._walk(seed)
            while elements := list(islice(source, size)):
                if len(elements) == size or not drop_remainder:
                    yield _stack(elements)

        return self._then(walk, f"batch {size}", length)

    def unbatch(self) -> "Dataset":
        """The rows of each element as elements of their own."""

        def walk(seed: int) -> Iterator[Element]:
            for element in self._walk(seed):
                for i in range(len(_leaves(element)[0])):
                    yield _row(element, i)

        return self._then(walk, "unbatch", lambda: None)

    def cache(self) -> "Dataset":
        """The first epoch's elements are kept in memory for those that follow.

        Stages before it run once: put what is random behind it.
        """
        kept: list[Element] = []
        whole = threading.Event()
        lock = threading.Lock()

        def walk(seed: int) -> Iterator[Element]:
            if whole.is_set():
                yield from kept
                return
            found = []
            for element in self._walk(0):
                found.append(element)
                yield element
            with lock:
                if not whole.is_set():
                    kept.extend(found)
                    whole.set()

        def length() -> int | None:
            return len(kept) if whole.is_set() else self._length()

        return self._then(walk, "cache", length)

    def prefetch(self, buffer_size: int) -> "Dataset":
        """Up to so many elements are made ahead, in a thread of their own."""
        size = _threads(buffer_size, "buffer_size")
        return self._then(lambda seed: _ahead(self._walk(seed), size), "prefetch")

    def take(self, count: int) -> "Dataset":
        """The first elements alone; −1 takes all."""
        if count == -1:
            return self
        count = shapes.integer(count, "count", 0)
        return self._then(
            lambda seed: islice(self._walk(seed), count),
            f"take {count}",
            lambda: (
                n if (n := self._length()) is None else count if n == INFINITE else min(n, count)
            ),
        )

    def skip(self, count: int) -> "Dataset":
        """All but the first elements."""
        count = shapes.integer(count, "count", 0)
        return self._then(
            lambda seed: islice(self._walk(seed), count, None),
            f"skip {count}",
            lambda: n if (n := self._length()) in (None, INFINITE) else max(0, n - count),
        )

    def repeat(self, count: int | None = None) -> "Dataset":
        """The elements so many times over; without a count without end."""
        times = None if count in (None, -1) else shapes.integer(count, "count", 0)

        def walk(seed: int) -> Iterator[Element]:
            number = 0
            while times is None or number < times:
                empty = True
                for element in self._walk(_mix(seed, 3 + number) if number else seed):
                    empty = False
                    yield element
                if empty:
                    return
                number += 1

        def length() -> int | None:
            n = self._length()
            if times is None:
                return INFINITE
            return n if n in (None, INFINITE) else n * times

        return self._then(walk, f"repeat {times}", length)

    def concatenate(self, other: "Dataset") -> "Dataset":
        """The elements of this one, then those of the other."""

        def length() -> int | None:
            a, b = self._length(), other._length()
            if a is None or b is None:
                return None
            return INFINITE if INFINITE in (a, b) else a + b

        return self._then(
            lambda seed: chain(self._walk(seed), other._walk(seed)), "concatenate", length
        )

    # -- walking ------------------------------------------------------------------------------

    def epoch(self, seed: int) -> Iterator[Element]:
        """Walk through the elements as this seed has them."""
        return self._walk(seed)

    def __iter__(self) -> Iterator[Element]:
        return self._walk(backend.next_seed())

    def as_numpy_iterator(self) -> Iterator[Element]:
        return iter(self)

    def __len__(self) -> int:
        count = self.cardinality()
        if count == INFINITE:
            raise TypeError("this data set has no end")
        if count == UNKNOWN:
            raise TypeError("the length of this data set is not known before it was walked through")
        return count

    def cardinality(self) -> int:
        """The number of elements; −1 where there is no end, −2 where it is not known."""
        count = self._length()
        return UNKNOWN if count is None else count

    def fingerprint(self) -> str | None:
        """What the data set is made of, as a short text: another one for other data.

        Arrays are looked at byte by byte, files by path, size and time; None where the elements
        come from a generator.
        """
        if self._fingerprint is None:
            return None
        return hashlib.sha256(self._fingerprint().encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        words = {INFINITE: "endless", UNKNOWN: "an unknown number of"}
        count = self.cardinality()
        return f"<Dataset of {words.get(count, count)} elements>"


class _Rows:
    """Arrays of one length, and the order in which their rows are taken: by default as they lie."""

    def __init__(
        self, arrays: Any, count: int, order: Callable[[int], np.ndarray] | None = None
    ) -> None:
        self.arrays = arrays
        self.count = count
        self._order = order

    def order(self, seed: int) -> np.ndarray:
        return np.arange(self.count) if self._order is None else self._order(seed)

    def take(self, index: np.ndarray) -> Element:
        return _map_leaves(lambda array: array.take(index, axis=0), self.arrays)

    def walk(self, seed: int) -> Iterator[Element]:
        for i in self.order(seed):
            yield _row(self.arrays, i)

    def fingerprint(self) -> str:
        return " ".join(array_fingerprint(leaf) for leaf in _leaves(self.arrays))


def _of_rows(rows: _Rows) -> Dataset:
    return Dataset(rows.walk, lambda: rows.count, rows.fingerprint, rows)


def from_files(paths: Sequence[str], labels: Any = None) -> Dataset:
    """Elements (path, label), or paths alone; other files of these names are other data."""
    arrays = (np.array(paths), np.asarray(labels)) if labels is not None else np.array(paths)
    rows = _Rows(arrays, len(paths))

    def fingerprint() -> str:
        stats = [(path, os.stat(path)) for path in paths]
        told = "\n".join(f"{path} {s.st_size} {s.st_mtime_ns}" for path, s in stats)
        return f"{told} {'' if labels is None else array_fingerprint(np.asarray(labels))}"

    found = Dataset(rows.walk, lambda: rows.count, fingerprint, rows)
    found.file_paths = list(paths)
    return found


def array_fingerprint(array: np.ndarray) -> str:
    """Dtype, shape and a hash of all bytes."""
    digest = hashlib.blake2b(f"{array.dtype.str} {array.shape} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


# -- threads ------------------------------------------------------------------------------------


def _threads(value: int | None, name: str = "num_parallel_calls") -> int:
    if value is None:
        return 1
    return get_num_threads() if value == AUTOTUNE else shapes.integer(value, name)


def _in_threads(
    call: Callable[[Any], Element], jobs: Iterator[Any], threads: int
) -> Iterator[Element]:
    """Results in the order of the jobs, which several threads work off."""
    from concurrent.futures import ThreadPoolExecutor  # where threads are wanted

    pool = ThreadPoolExecutor(threads, thread_name_prefix="fastconv-map")
    pending: deque[Future[Element]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(call, job))
            if len(pending) > AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(source: Iterator[Element], size: int) -> Iterator[Element]:
    """The elements of ``source``, so many of which one thread makes ahead."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1, thread_name_prefix="fastconv-prefetch")
    end = object()
    pending = deque(pool.submit(next, source, end) for _ in range(size))
    try:
        while (element := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, source, end))
            yield element
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if close := getattr(source, "close", None):
            close()


# -- elements -----------------------------------------------------------------------------------


def _mix(seed: int, stage: int) -> int:
    return (seed + stage * SEEDS) & MASK


def _leaves(element: Element) -> list[Any]:
    if isinstance(element, dict):
        return [leaf for value in element.values() for leaf in _leaves(value)]
    if isinstance(element, tuple):
        return [leaf for value in element for leaf in _leaves(value)]
    return [element]


def _map_leaves(function: Callable[[Any], Any], element: Element) -> Element:
    if isinstance(element, dict):
        return {name: _map_leaves(function, value) for name, value in element.items()}
    if isinstance(element, tuple):
        return tuple([_map_leaves(function, value) for value in element])
    return function(element)


def _row(element: Element, i: int) -> Element:
    return _map_leaves(lambda leaf: leaf[i], element)


def _stack(elements: Sequence[Element]) -> Element:
    first = elements[0]
    if isinstance(first, dict):
        return {name: _stack([e[name] for e in elements]) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(_stack(list(column)) for column in zip(*elements, strict=True))
    try:
        return np.stack([np.asarray(element) for element in elements])
    except ValueError as error:
        found = sorted({str(np.shape(element)) for element in elements})
        raise ValueError(
            f"elements of the shapes {' and '.join(found[:4])} do not make a batch"
        ) from error


def stack(elements: Sequence[Element]) -> Element:
    """Elements of one form as a batch."""
    return _stack(elements)


def has_length(value: Any) -> bool:
    """Whether ``len(value)`` is an answer."""
    if not isinstance(value, Sized):
        return False
    try:
        len(value)
    except TypeError:
        return False
    return True

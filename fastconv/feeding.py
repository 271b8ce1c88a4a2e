"""What `fit`, `evaluate` and `predict` are given, as batches.

Arrays are read by row numbers, so that shuffling copies nothing. Everything else is walked through:
data sets, lists and generators of batches, loaders, objects with ``__len__`` and ``__getitem__``.

A source is walked through in *epochs*, each with a seed. The same seed gives the same batches as
far as the source allows it, and a run that was broken off walks through the same epoch again.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np

from fastconv.dataset import INFINITE, Dataset, array_fingerprint, has_length, stack
from fastconv.losses import as_array

Arrays = list[np.ndarray]


@dataclass(slots=True)
class Batch:
    """n rows of arrays: those of ``index``, or all where there is none."""

    x: Arrays
    y: Arrays
    weights: Arrays | None
    index: np.ndarray | None
    n: int

    def parts(self, count: int) -> "list[Batch]":
        """The batch in so many parts of one size, the last one smaller."""
        size = -(-self.n // count)
        found = []
        for start in range(0, self.n, size):
            rows = slice(start, min(start + size, self.n))
            if self.index is not None:
                index = np.ascontiguousarray(self.index[rows])
                found.append(replace(self, index=index, n=len(index)))
                continue
            w = None if self.weights is None else [a[rows] for a in self.weights]
            found.append(
                Batch([a[rows] for a in self.x], [a[rows] for a in self.y], w, None,
                      rows.stop - rows.start)
            )  # fmt: skip
        return found

    def rows(self) -> "tuple[Arrays, Arrays]":
        """Inputs and targets of this batch alone."""
        if self.index is None:
            return [a[: self.n] for a in self.x], [a[: self.n] for a in self.y]
        return [a[self.index] for a in self.x], [a[self.index] for a in self.y]


class Source(Protocol):
    """Where batches come from."""

    random: bool  # whether an epoch's order follows from its seed

    @property
    def batch_size(self) -> int | None:
        """Samples of a batch, where that is known."""

    @property
    def largest(self) -> int | None:
        """Samples of the largest batch, where that is known."""

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, where that is known."""

    def epoch(self, seed: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without the first ``skip``."""

    def fingerprint(self) -> str | None:
        """Another one for other data; None where nobody can tell."""

    def state(self) -> dict[str, Any]:
        """What `replay` takes in another process."""

    def replay(self, seed: int, step: int, state: Mapping[str, Any]) -> Iterator[Batch]:
        """The last of the first ``step`` batches of an epoch, or all of them where only they tell
        what the data are; `epoch` goes on behind them."""


class ArraySource:
    """Rows ``start … stop`` of arrays, in order or in a new order in each epoch."""

    def __init__(
        self, x: Arrays, y: Arrays, weights: Arrays | None, batch_size: int,
        start: int = 0, stop: int | None = None, shuffle: bool = False,
    ) -> None:  # fmt: skip
        self.x, self.y, self.weights = x, y, weights
        self.start, self.stop = start, len(x[0]) if stop is None else stop
        self.batch_size = batch_size
        self.samples = self.stop - self.start
        self.largest = min(batch_size, self.samples)
        self.steps = -(-self.samples // batch_size)
        self.random = shuffle

    def epoch(self, seed: int, skip: int = 0) -> Iterator[Batch]:
        x, y, weights, size = self.x, self.y, self.weights, self.batch_size
        if self.random:
            order = np.random.default_rng(seed).permutation(self.samples)
            if self.start:
                order += self.start
            for first in range(skip * size, min(self.samples, self.steps * size), size):
                index = order[first : first + size]
                yield Batch(x, y, weights, index, len(index))
            return
        stop = min(self.stop, self.start + self.steps * size)
        for first in range(self.start + skip * size, stop, size):
            rows = slice(first, min(first + size, stop))
            w = None if weights is None else [a[rows] for a in weights]
            yield Batch([a[rows] for a in x], [a[rows] for a in y], w, None, rows.stop - first)

    def fingerprint(self) -> str | None:
        arrays = [*self.x, *self.y, *(self.weights or [])]
        told = " ".join(array_fingerprint(a[self.start : self.stop]) for a in arrays)
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def state(self) -> dict[str, Any]:
        return {}

    def replay(self, seed: int, step: int, state: Mapping[str, Any]) -> Iterator[Batch]:
        yield from islice(self.epoch(seed, step - 1), 1) if step else ()


class StreamSource:
    """Batches that something outside makes.

    Parameters
    ----------
    data
        What was given: see `is_stream`.
    check : callable
        ``check(element, what)`` → `Batch`: the arrays, checked.
    batch_size : int, optional
        For sources of single samples.
    shuffle : bool
        For sources with ``__getitem__``.
    steps : int, optional
        Batches of an epoch; the source goes on where the last epoch ended,
    anew : bool
        or begins anew in each, where it can.
    sample_rank : int
        Axes of one sample of the first input: tells samples from batches.
    what, steps_name : str
        How messages call it, and ``steps``.
    """

    def __init__(
        self,
        data: Any,
        check: Callable[[Any, str], Batch],
        *,
        batch_size: int | None = None,
        shuffle: bool = True,
        steps: int | None = None,
        anew: bool = False,
        sample_rank: int | None = None,
        what: str = "x",
        steps_name: str = "steps_per_epoch",
    ) -> None:
        self.data = data
        self.check = check
        self.what, self.steps_name = what, steps_name
        self.limit = steps
        self.items = _is_sequence(data)
        self.single = self.items and _is_sample(data, sample_rank)
        if batch_size is not None and not self.single:
            raise ValueError(
                f"batch_size is not taken where {what} gives batches already: it decides their size"
            )
        self.batch_size = (batch_size or 32) if self.single else None
        self.largest = self.batch_size
        self.shuffle = shuffle and self.items
        self.random = isinstance(data, Dataset) or self.shuffle
        self.once = isinstance(data, Iterator)
        self.flows = steps is not None and (self.once or not anew)
        self._open: Iterator[Any] | None = None  # of a source whose epochs follow one another
        self._taken = 0
        self._seed = 0
        self._resumed: Iterator[Any] | None = None  # behind what was replayed
        if steps is None and isinstance(data, Dataset) and data.cardinality() == INFINITE:
            raise ValueError(f"{what} has no end: say how many steps an epoch takes")
        self.steps = steps if steps is not None else self._length()

    def _length(self) -> int | None:
        if not has_length(self.data):
            return None
        count = len(self.data)
        if count == 0:
            raise ValueError(f"{self.what} holds no batches")
        return -(-count // self.batch_size) if self.single and self.batch_size else count

    def epoch(self, seed: int, skip: int = 0) -> Iterator[Batch]:
        number = skip
        if not self.flows:
            elements = self._resumed if skip else None
            elements, self._resumed = elements or self._counted(self._walk(seed)), None
        else:
            if self._open is None:
                self._begin(seed)
            assert self._open is not None
            elements = self._open
        if number == self.limit:
            return
        for element in elements:
            number += 1
            yield self._checked(element, number - 1)
            if number == self.limit:
                return
        if number == 0 or self.limit is not None:
            raise ValueError(self._ended(number))

    def _begin(self, seed: int) -> None:
        self._seed = seed
        self._open = self._counted(self._endless(seed))

    def state(self) -> dict[str, Any]:
        return {} if self._open is None else {"taken": self._taken, "seed": self._seed}

    def replay(self, seed: int, step: int, state: Mapping[str, Any]) -> Iterator[Batch]:
        elements = self._counted(self._walk(seed))
        if self.flows and state:
            self._begin(state["seed"])
            assert self._open is not None
            elements = self._open
            for _ in range(state["taken"] - step):
                next(elements, None)
        for number, element in enumerate(islice(elements, step)):
            yield self._checked(element, number)
        self._resumed = elements

    def _counted(self, elements: Iterator[Any]) -> Iterator[Any]:
        """The elements; what is raised while one is made says which."""
        while True:
            try:
                element = next(elements)
            except StopIteration:
                return
            except Exception as error:
                error.add_note(f"raised by {self.what} while batch {self._taken} was made")
                raise
            self._taken += 1
            yield element

    def _endless(self, seed: int) -> Iterator[Any]:
        """One epoch after the other; a generator has but one."""
        number = 0
        while True:
            before = self._taken
            yield from self._walk(seed + number)
            number += 1
            if self.once or self._taken == before:
                return

    def _walk(self, seed: int) -> Iterator[Any]:
        data = self.data
        if isinstance(data, Dataset):
            return data.epoch(seed)
        if not self.items:
            return iter(data)
        return self._by_index(seed)

    def _by_index(self, seed: int) -> Iterator[Any]:
        data, count = self.data, len(self.data)
        order = np.random.default_rng(seed).permutation(count) if self.shuffle else range(count)
        if not self.single:
            for i in order:
                yield data[int(i)]
        else:
            size = self.batch_size or 1
            for start in range(0, count, size):
                yield stack([_plain(data[int(i)]) for i in order[start : start + size]])
        if callable(ended := getattr(data, "on_epoch_end", None)):
            ended()

    def _checked(self, element: Any, number: int) -> Batch:
        try:
            return self.check(element, self.what)
        except ValueError as error:
            raise ValueError(f"batch {number} of {self.what}: {error}") from error

    def _ended(self, number: int) -> str:
        kind = "generator" if self.once else type(self.data).__name__
        if self.limit is None:
            if self.once and self._taken:
                return (
                    f"the {kind} given as {self.what} has ended after {self._taken} batches, and "
                    "another epoch needs it again: give something that begins anew (a list, "
                    f"fc.Dataset.from_generator), or {self.steps_name}"
                )
            return f"{self.what} gave no batches"
        return (
            f"the {kind} given as {self.what} has ended after {self._taken} batches, "
            f"{number} of the {self.limit} that this epoch takes ({self.steps_name})"
        )

    def first(self) -> Any:
        """The first element, which stays where it was."""
        data = self.data
        if isinstance(data, Dataset):
            return next(iter(data.epoch(0)))
        if self.items:
            return stack([_plain(data[0])]) if self.single else data[0]
        elements = iter(data)
        try:
            element = next(elements)
        except StopIteration:
            raise ValueError(f"{self.what} gave no batches") from None
        if self.once:
            self.data = chain([element], elements)
        return element

    def fingerprint(self) -> str | None:
        if isinstance(self.data, Dataset):
            return self.data.fingerprint()
        return None


def is_stream(x: Any, y: Any) -> bool:
    """Whether ``x`` is not arrays but something that gives batches (or samples) of all."""
    if type(x) is np.ndarray:
        return False
    if isinstance(x, Dataset):
        return True
    if isinstance(x, (np.ndarray, Mapping, str)) or hasattr(x, "__array__"):
        return False
    if isinstance(x, (list, tuple)):  # arrays per input, unless these are pairs of arrays
        return y is None and bool(x) and all(map(_is_pair, x))
    return isinstance(x, Iterable) or _is_sequence(x)


def _is_pair(item: Any) -> bool:
    """A batch, not a sample whose two or three numbers are given as a tuple."""
    return isinstance(item, tuple) and len(item) in (2, 3) and hasattr(item[0], "__len__")


def split(element: Any) -> tuple[Any, Any, Any]:
    """x, targets and sample weights of an element: a tuple of one to three, or x alone."""
    if isinstance(element, list) and 1 < len(element) <= 3:
        element = tuple(element)  # as torch's loaders have it
    if not isinstance(element, tuple):
        return _plain(element), None, None
    if not 1 <= len(element) <= 3:
        raise ValueError(f"an element is x, (x, y) or (x, y, sample_weight), not {len(element)}")
    x, y, w = (*map(_plain, element), None, None)[:3]
    return x, y, w


def _is_sequence(data: Any) -> bool:
    return (
        hasattr(data, "__getitem__") and has_length(data) and not isinstance(data, (Dataset, dict))
    )


def _is_sample(data: Sequence[Any], rank: int | None) -> bool:
    """Whether ``data[0]`` is one sample (as torch's data sets give) instead of a batch."""
    if rank is None or not len(data):
        return False
    x, _, _ = split(data[0])
    if isinstance(x, Mapping):
        x = next(iter(x.values()))
    elif isinstance(x, (list, tuple)):
        x = x[0]
    return np.ndim(x) == rank


def _plain(value: Any) -> Any:
    """Arrays of other libraries as numpy's; tuples, lists and dicts of them likewise."""
    if type(value) is np.ndarray or value is None:
        return value
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple([_plain(item) for item in value])
    if isinstance(value, list) and any(hasattr(item, "__array__") for item in value):
        return [_plain(item) for item in value]
    if hasattr(value, "__array__"):
        return as_array(value, "an array of the batch")
    return value

"""A learning-rate finder: train for a few batches with a rate that grows, and look at the loss.

Below some rate nothing happens, above another one the loss explodes; a good rate lies between,
where the loss falls fastest (Smith 2017).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, data, shapes
from fastconv.arguments import explained
from fastconv.feeding import is_stream, split
from fastconv.schedules import LearningRateSchedule
from fastconv.tables import html_table

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

    from fastconv.model import Model

LEAST = 20  # steps of a sweep
SHOWN = 10  # rates in a notebook's table
ROOM = 2.0  # losses above so many times the first ones say that it explodes, and no more


@dataclass(frozen=True)
class LearningRates:
    """What `find_learning_rate` saw.

    Attributes
    ----------
    rates, losses : ndarray
        Of each step: its learning rate, and the loss of its batch before the update.
    smoothed : ndarray
        The losses averaged over the steps around each.
    suggestion : float
        The rate at which the smoothed loss falls fastest: an order of magnitude below where it
        begins to rise, as a rule. NaN where it does not fall by more than the batches differ.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float

    def plot(self, figure: "FigureBase | None" = None) -> "FigureBase":
        """The losses over the rates, with the suggestion. Needs matplotlib."""
        from fastconv.plots import plot_learning_rates

        return plot_learning_rates(self, figure)

    def __repr__(self) -> str:
        return (
            f"LearningRates(suggestion={self.suggestion:.2g}, {len(self.rates)} steps, rates from "
            f"{self.rates[0]:.2g} to {self.rates[-1]:.2g})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: some of the rates and their losses, and the suggestion."""
        shown = np.unique(np.linspace(0, len(self.rates) - 1, SHOWN).round().astype(int))
        columns = (self.rates, self.losses, self.smoothed)
        rows = [[f"{column[k]:.3g}" for column in columns] for k in shown]
        notes = [f"suggestion: {self.suggestion:.2g}; a picture is made by plot()"]
        return html_table(
            f"{len(self.rates)} steps", ["learning rate", "loss", "smoothed"], rows, notes
        )


class _Sweep(LearningRateSchedule):
    """``start · (end / start)^k``, k from 0 to 1 in ``steps`` updates after ``before`` others."""

    def __init__(self, start: float, end: float, steps: int, before: int) -> None:
        self.start, self.end, self.steps, self.before = start, end, steps, before

    def __call__(self, step: int) -> float:
        return self.start * (self.end / self.start) ** ((step - self.before) / (self.steps - 1))


@explained
def find_learning_rate(
    model: "Model",
    x: Any,
    y: Any = None,
    *,
    batch_size: int = 32,
    start: float = 1e-6,
    end: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    stop_at: float = 4.0,
) -> LearningRates:
    """Train with a rate that grows from batch to batch until the loss explodes (Smith 2017).

    The model is as before afterwards: weights, statistics, optimizer and random state.

    Parameters
    ----------
    model : Model
        Compiled.
    x, y : array_like, or x alone: batches
        As `Model.fit` takes them; begun anew where they end before ``steps``.
    batch_size : int
        Of arrays. What is found holds for this size.
    start, end : float
        The first and the last rate; each is the same factor above the one before.
    steps : int
        Batches, at most.
    smoothing : float
        Weight of the neighbor in the losses' average: 0.9 averages about ten.
    stop_at : float
        End where the average is so many times its least, or no number.

    Returns
    -------
    LearningRates
        With ``suggestion`` and ``plot()``.

    Examples
    --------
    >>> found = fc.find_learning_rate(model, x, y)
    >>> found.plot().savefig("rates.png")
    >>> model.optimizer.learning_rate = found.suggestion
    """
    start, end = shapes.real(start, "start", 0), shapes.real(end, "end", 0)
    if not 0 < start < end:
        raise ValueError(f"start must be above 0 and below end, not {start:g} and {end:g}")
    steps = shapes.integer(steps, "steps", LEAST)
    smoothing = shapes.real(smoothing, "smoothing", 0, 1)
    if smoothing == 1:
        raise ValueError("smoothing must be below 1")
    rates: list[float] = []
    losses: list[float] = []
    average = Average(smoothing)
    least = math.inf
    batches = _batches(x, y, shapes.integer(batch_size, "batch_size"))
    first = next(batches)
    model._build_for(first[0])
    optimizer = model.optimizer
    optimizer.build(model._trainable())
    parameters = model.parameters()
    live = [p.value for p in parameters] + list(optimizer.variables(parameters).values())
    kept = [array.copy() for array in live]
    rate, iterations, random = (
        optimizer._learning_rate,
        optimizer.iterations,
        backend.random_state(),
    )
    optimizer.learning_rate = _Sweep(start, end, steps, iterations)
    try:
        for number in range(steps):
            rates.append(optimizer.learning_rate)
            report = model.train_on_batch(*(first if not number else next(batches)))
            losses.append(float(report[0] if isinstance(report, list) else report))
            mean = average(losses[-1])
            least = min(least, mean)
            if not math.isfinite(mean) or (number >= LEAST and mean > stop_at * least):
                break
    finally:
        for array, value in zip(live, kept, strict=True):
            array[...] = value
        optimizer._learning_rate, optimizer.iterations = rate, iterations
        backend.set_random_state(random)
    if len(losses) < 3:
        raise ValueError(
            f"the loss is {losses[-1]} at the rate {rates[-1]:.2g}: start below {start:g}"
        )
    return _judge(np.array(rates), np.array(losses), smoothing)


class Average:
    """A moving average of numbers, without the zero that it begins with (Kingma and Ba 2015)."""

    def __init__(self, weight: float) -> None:
        self.weight, self.total, self.count = weight, 0.0, 0

    def __call__(self, number: float) -> float:
        """The average with one more number."""
        self.count += 1
        self.total = self.weight * self.total + (1 - self.weight) * number
        return self.total / (1 - self.weight**self.count)


def _judge(rates: np.ndarray, losses: np.ndarray, smoothing: float) -> LearningRates:
    """Smooth the losses without delay, from both ends, and look where they fall fastest."""
    ceiling = ROOM * np.median(losses[:LEAST])
    bounded = np.minimum(np.nan_to_num(losses, nan=ceiling), ceiling)
    ahead, back = ([*map(Average(smoothing), line)] for line in (bounded, bounded[::-1]))
    smoothed = (np.array(ahead) + np.array(back)[::-1]) / 2
    end = int(smoothed.argmin()) + 1
    noise = float(np.std(losses[: LEAST // 2]))
    suggestion = math.nan
    if end > 2 and smoothed[:LEAST].mean() - smoothed[end - 1] > 2 * noise:
        slopes = np.gradient(smoothed[:end], np.log(rates[:end]))
        suggestion = float(rates[slopes.argmin()])
    return LearningRates(rates, losses, smoothed, suggestion)


def _batches(x: Any, y: Any, size: int) -> Iterator[tuple[Any, ...]]:
    """x, targets and weights of batches, without end."""
    generator = np.random.default_rng(0)
    while True:
        count = 0
        if is_stream(x, y):
            for element in x:
                count += 1
                yield split(element)
        else:
            if y is None:
                raise ValueError("find_learning_rate needs targets: y is missing")
            order = generator.permutation(len(data.first(x)))
            size = min(size, len(order))
            for start in range(0, len(order) - size + 1, max(size, 1)):  # whole batches
                count += size
                rows = np.sort(order[start : start + size])
                yield _rows(x, rows), _rows(y, rows), None
        if not count:
            raise ValueError("the batches of find_learning_rate end before its steps do")


def _rows(arrays: Any, rows: np.ndarray) -> Any:
    """These rows of an array, or of each in a list or a dict of them."""
    if isinstance(arrays, Mapping):
        return {name: _rows(array, rows) for name, array in arrays.items()}
    if isinstance(arrays, (list, tuple)) and hasattr(arrays[0], "__len__"):
        return [_rows(array, rows) for array in arrays]
    return np.asarray(arrays)[rows]

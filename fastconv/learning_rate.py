"""A learning-rate finder: train for a few batches with a rate that grows, and look at the loss.

Below some rate nothing happens, above another one the loss explodes; a good rate lies between,
where the loss falls fastest (Smith 2017).
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, plots, schedules, shapes

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

    from fastconv.model import Model

SMOOTHING = 0.9  # weight of the old mean
DIVERGED = 4.0  # times the smallest loss


class LearningRates:
    """What `find_learning_rate` found.

    Attributes
    ----------
    rates, losses : ndarray
        Of every batch, in order; losses are smoothed.
    suggestion : float
        Where the loss falls fastest on the logarithmic axis.
    """

    def __init__(self, rates: np.ndarray, losses: np.ndarray) -> None:
        self.rates = rates
        self.losses = losses
        self.suggestion = float(rates[_steepest(losses)])

    def plot(self, figure: "FigureBase | None" = None) -> "FigureBase":
        """The loss over the rate, with the suggestion marked; needs matplotlib.

        Returns
        -------
        matplotlib.figure.FigureBase
        """
        figure = plots.new_figure(6, 4) if figure is None else figure
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="C0")
        axes.axvline(self.suggestion, color="C1", linestyle="--",
                     label=f"steepest: {self.suggestion:.1e}")  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss (smoothed)")
        axes.legend()
        return figure

    def __repr__(self) -> str:
        return f"LearningRates(suggestion={self.suggestion:.2e}, batches={len(self.rates)})"


def find_learning_rate(
    model: "Model",
    x: Any,
    y: Any,
    *,
    start: float = 1e-6,
    end: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
) -> LearningRates:
    """Try rates from ``start`` to ``end``, a batch each, and tell where the loss falls fastest.

    The model must be compiled; its weights, statistics, optimizer and the process' random numbers
    are afterwards as they were.

    Parameters
    ----------
    model : Model
    x, y : array
    start, end : float
        The rates grow by the same factor from batch to batch. A loss that explodes ends the search.
    steps : int
        Batches, at least 10; the samples come round again where there are fewer.
    batch_size : int

    Returns
    -------
    LearningRates
        ``suggestion``, and `LearningRates.plot` for the eye.

    Examples
    --------
    >>> found = fc.find_learning_rate(model, x, y)
    >>> model.optimizer.learning_rate = found.suggestion
    """
    start, end = shapes.real(start, "start", 0), shapes.real(end, "end", 0)
    if not 0 < start < end:
        raise ValueError(f"start must be above 0 and below end, not {start:g} and {end:g}")
    steps = shapes.integer(steps, "steps", 10)
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y) or not len(x):
        raise ValueError(f"x has {len(x)} samples, y has {len(y)}")
    batch_size = min(shapes.integer(batch_size, "batch_size"), len(x))
    tried, losses, mean = [], [], 0.0
    with _as_before(model):
        batches = _batches(len(x), batch_size, np.random.default_rng(backend.next_seed()))
        for step in range(steps):
            rate = start * (end / start) ** (step / (steps - 1))
            model.optimizer._learning_rate = schedules.get(rate)
            rows = next(batches)
            found = model.train_on_batch(x[rows], y[rows])
            loss = float(found[0] if isinstance(found, (list, tuple)) else found)
            if not math.isfinite(loss):
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            tried.append(rate)
            losses.append(mean / (1 - SMOOTHING ** (step + 1)))
            if step >= 10 and losses[-1] > DIVERGED * min(losses):
                break
    if len(losses) < 3:
        raise ValueError(f"the loss is not finite at the rate {rate:g}: begin below {start:g}")
    return LearningRates(np.array(tried), np.array(losses))


class _as_before:
    """Puts weights, optimizer and random numbers back where they were."""

    def __init__(self, model: "Model") -> None:
        self.model = model

    def __enter__(self) -> None:
        model, optimizer = self.model, self.model.optimizer
        optimizer.build([p for p in model.parameters() if p.trainable])
        self.arrays = [p.value for p in model.parameters()]
        self.arrays += optimizer.variables(model.parameters()).values()
        self.copies = [array.copy() for array in self.arrays]
        self.settings = optimizer._learning_rate, optimizer.iterations
        self.random = backend.random_state()

    def __exit__(self, *error: Any) -> None:
        for array, copy in zip(self.arrays, self.copies, strict=True):
            array[...] = copy
        optimizer = self.model.optimizer
        optimizer._learning_rate, optimizer.iterations = self.settings
        backend.set_random_state(self.random)


def _batches(n: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Whole batches of shuffled samples, without end."""
    while True:
        order = generator.permutation(n)
        for first in range(0, n - size + 1, size):
            yield order[first : first + size]


def _steepest(losses: np.ndarray) -> int:
    """Where the loss falls fastest, before its smallest value."""
    last = max(int(losses.argmin()), 2)
    return int(np.gradient(losses[: last + 1]).argmin())

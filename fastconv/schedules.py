"""Learning-rate schedules: functions of the number of updates so far, with Keras 3's formulas.

Given as an optimizer's ``learning_rate``. Pure functions of a step: a run that goes on after an
interruption needs nothing of them but the optimizer's ``iterations``.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from fastconv import arguments, shapes

CLASSES: dict[str, type["LearningRateSchedule"]] = {}


class LearningRateSchedule:
    """Base: a subclass defines ``__call__(step)`` and gives its arguments by `get_config`.

    Attributes
    ----------
    name : str
    """

    name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls

    def __call__(self, step: int) -> float:
        """The learning rate of the update that follows ``step`` others."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this schedule again."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRateSchedule":
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items() if k != "name")
        return f"{type(self).__name__}({arguments})"


class ExponentialDecay(LearningRateSchedule):
    """``initial · decay_rate^(step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
        Updates after which the rate has been multiplied by decay_rate.
    decay_rate : float
    staircase : bool
        The exponent is rounded down: the rate falls in steps.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = _steps(decay_steps, "decay_steps")
        self.decay_rate = shapes.real(decay_rate, "decay_rate", 0)
        self.staircase = bool(staircase)
        self.name = name

    def __call__(self, step: int) -> float:
        p = step / self.decay_steps
        p = math.floor(p) if self.staircase else p
        return self.initial_learning_rate * self.decay_rate**p


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]`` up to and with step ``boundaries[i]``, the last value behind them all.

    Parameters
    ----------
    boundaries : sequence of number
        Steps, ascending.
    values : sequence of float
        One more than boundaries.
    """

    def __init__(
        self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant"
    ) -> None:
        self.boundaries = [shapes.real(step, "boundaries", 0) for step in boundaries]
        self.values = [_rate(value, "values") for value in values]
        self.name = name
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"{len(self.boundaries)} boundaries part {len(self.boundaries) + 1} values, there "
                f"are {len(self.values)}"
            )
        if sorted(set(self.boundaries)) != self.boundaries:
            raise ValueError(f"boundaries must ascend: {self.boundaries}")

    def __call__(self, step: int) -> float:
        return self.values[bisect_left(self.boundaries, step)]


class PolynomialDecay(LearningRateSchedule):
    """``(initial − end) · (1 − step / decay_steps)^power + end``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    end_learning_rate, power : float
    cycle : bool
        After decay_steps the rate does not stay at its end: decay_steps becomes the next multiple
        of itself that is not below the step.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = _steps(decay_steps, "decay_steps")
        self.end_learning_rate = _rate(end_learning_rate, "end_learning_rate")
        self.power = shapes.real(power, "power", 0)
        self.cycle = bool(cycle)
        self.name = name

    def __call__(self, step: int) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, math.ceil(step / steps))
        left = 1 - min(step, steps) / steps
        start, end = self.initial_learning_rate, self.end_learning_rate
        return (start - end) * left**self.power + end


class InverseTimeDecay(LearningRateSchedule):
    """``initial / (1 + decay_rate · step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate, staircase
        As in `ExponentialDecay`.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = _steps(decay_steps, "decay_steps")
        self.decay_rate = shapes.real(decay_rate, "decay_rate", 0)
        self.staircase = bool(staircase)
        self.name = name

    def __call__(self, step: int) -> float:
        p = step / self.decay_steps
        return self.initial_learning_rate / (
            1 + self.decay_rate * (math.floor(p) if self.staircase else p)
        )


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate to ``alpha`` times it (Loshchilov and Hutter 2017).

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    alpha : float
        The last rate as a share of the first.
    warmup_target : float, optional
        The rate first rises from initial_learning_rate to this in warmup_steps, and decays from it.
    warmup_steps : int
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = _steps(decay_steps, "decay_steps")
        self.alpha = shapes.real(alpha, "alpha", 0)
        self.name = name
        self.warmup_target = warmup_target
        if warmup_target is not None:
            self.warmup_target = _rate(warmup_target, "warmup_target")
        self.warmup_steps = shapes.integer(warmup_steps, "warmup_steps", 0)

    def __call__(self, step: int) -> float:
        start = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return start + (self.warmup_target - start) * step / self.warmup_steps
            start, step = self.warmup_target, step - self.warmup_steps
        return start * _cosine(min(step, self.decay_steps) / self.decay_steps, 1, self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """Cosine decays one after the other (Loshchilov and Hutter 2017, SGDR).

    Parameters
    ----------
    initial_learning_rate : float
    first_decay_steps : int
    t_mul, m_mul : float
        Each decay takes t_mul times as many steps as the one before, and begins at m_mul times its
        rate.
    alpha : float
        As in `CosineDecay`.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "initial_learning_rate")
        self.first_decay_steps = _steps(first_decay_steps, "first_decay_steps")
        self.t_mul = shapes.real(t_mul, "t_mul", 1)
        self.m_mul = shapes.real(m_mul, "m_mul", 0)
        self.alpha = shapes.real(alpha, "alpha", 0)
        self.name = name

    def __call__(self, step: int) -> float:
        length, factor, done = float(self.first_decay_steps), 1.0, 0.0
        if self.t_mul == 1:
            before = math.floor(step / length)
            done, factor = before * length, self.m_mul**before
        else:  # as many rounds as restarts: the logarithm of the step
            while step >= done + length:
                done += length
                length *= self.t_mul
                factor *= self.m_mul
        return self.initial_learning_rate * _cosine((step - done) / length, factor, self.alpha)


class WarmUp(LearningRateSchedule):
    """Rise from ``start`` to a schedule's first rate, and then follow the schedule.

    Beyond Keras, which warms up within `CosineDecay` alone.

    Parameters
    ----------
    schedule : float or LearningRateSchedule
        What follows; a number is a constant rate.
    warmup_steps : int
    start : float
    """

    def __init__(
        self, schedule: Any, warmup_steps: int, start: float = 0.0, name: str = "WarmUp"
    ) -> None:
        self.schedule = get(schedule)
        self.warmup_steps = shapes.integer(warmup_steps, "warmup_steps", 0)
        self.start = _rate(start, "start")
        self.name = name

    def __call__(self, step: int) -> float:
        if step >= self.warmup_steps:
            return at(self.schedule, step - self.warmup_steps)
        top = at(self.schedule, 0)
        return self.start + (top - self.start) * step / self.warmup_steps

    def get_config(self) -> dict[str, Any]:
        return {**vars(self), "schedule": to_config(self.schedule)}


class OneCycle(LearningRateSchedule):
    """Up to ``max_learning_rate`` and down to nearly nothing, by half cosines (Smith, Topin 2019).

    Beyond Keras. The rate rises from ``max / div_factor`` in the first ``rise`` of the steps, falls
    to ``max / div_factor / final_div_factor`` in the rest, and stays there.

    Parameters
    ----------
    max_learning_rate : float
    total_steps : int
        Updates of the whole training: epochs · steps per epoch.
    rise : float
        Share of the steps.
    div_factor, final_div_factor : float
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        rise: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        name: str = "OneCycle",
    ) -> None:
        self.max_learning_rate = _rate(max_learning_rate, "max_learning_rate")
        self.total_steps = shapes.integer(total_steps, "total_steps")
        self.rise = shapes.real(rise, "rise", 0, 1)
        self.div_factor = shapes.real(div_factor, "div_factor", 1)
        self.final_div_factor = shapes.real(final_div_factor, "final_div_factor", 1)
        self.name = name

    def __call__(self, step: int) -> float:
        top, up = self.max_learning_rate, self.rise * self.total_steps
        start = top / self.div_factor
        if step < up:
            return top + (start - top) * _cosine(step / up)
        end = start / self.final_div_factor
        down = self.total_steps - 1 - up  # the last update has the last rate
        return end + (top - end) * _cosine(min((step - up) / down, 1) if down > 0 else 1)


def get(identifier: Any) -> "float | LearningRateSchedule":
    """A rate or a schedule from itself or from its config, ``{"class": name, **arguments}``."""
    if isinstance(identifier, LearningRateSchedule):
        return identifier
    if isinstance(identifier, dict):
        config = dict(identifier)
        cls = CLASSES[shapes.choice(config.pop("class", None), CLASSES, "learning-rate schedule")]
        return cls.from_config(config)
    return _rate(identifier, "learning_rate")


def at(schedule: "float | LearningRateSchedule", step: int) -> float:
    """The rate after ``step`` updates."""
    return schedule if isinstance(schedule, float) else float(schedule(step))


def to_config(schedule: "float | LearningRateSchedule") -> Any:
    """What `get` makes the same schedule from."""
    if isinstance(schedule, float):
        return schedule
    return {"class": type(schedule).__name__, **schedule.get_config()}


def _cosine(share: float, factor: float = 1.0, alpha: float = 0.0) -> float:
    """From factor at 0 to nothing at 1, and all of it above alpha."""
    return (1 - alpha) * factor * 0.5 * (1 + math.cos(math.pi * share)) + alpha


def _rate(value: Any, name: str) -> float:
    return shapes.real(value, name, 0)


def _steps(value: Any, name: str) -> int | float:
    """A number of steps above 0; fractions too, as Keras takes them."""
    number = shapes.real(value, name, 0)
    if number == 0:
        raise ValueError(f"{name} must be above 0")
    return int(number) if number.is_integer() else number


arguments.explain(globals())

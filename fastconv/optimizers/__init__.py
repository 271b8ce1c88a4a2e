"""Optimizers: each is one fused pass over all parameters, with Keras 3's formulas and defaults.

In the same pass go penalties L1 and L2 on weights, clipping, weight decay and the moving average of
the weights. The learning rate is a number or one of `schedules`.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np

from fastconv import arguments, regularizers, shapes
from fastconv._native import update
from fastconv.optimizers import schedules
from fastconv.parameter import Parameter, zeros

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Nadam", "Optimizer",
    "RMSprop", "get", "schedules", "to_config",
]  # fmt: skip

CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
AVERAGE = "average"  # the state that ``use_ema`` keeps

Rate = float | schedules.LearningRateSchedule


class Common(TypedDict, total=False):
    """What every optimizer takes: see `Optimizer`."""

    weight_decay: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: None
    gradient_accumulation_steps: None
    name: str | None


KEPT = [*CLIPS, "weight_decay", "use_ema", "ema_momentum", "ema_overwrite_frequency"]


class Optimizer:
    """Base of all optimizers, and the arguments that all of them take.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
    weight_decay : float, optional
        Each update takes ``learning_rate · weight_decay · w`` from every weight, apart from its
        gradient (Loshchilov and Hutter 2019).
    clipnorm : float, optional
        Gradients of a larger norm are scaled down to it, each parameter's by itself.
    clipvalue : float, optional
        Each element of the gradients is clamped to ± this.
    global_clipnorm : float, optional
        As ``clipnorm``, with one norm for the gradients of all parameters together.
    use_ema : bool
        Keep the exponential moving average of the weights, and put it in their place at the end of
        `fit`, or when `finalize_variable_values` is called.
    ema_momentum : float
        Weight of the old average.
    ema_overwrite_frequency : int, optional
        Put the average in the weights' place after every so many updates, too.
    loss_scale_factor, gradient_accumulation_steps : None
        Keras': float32 needs no scale, and parts of a batch are `fit`'s ``accumulate_steps``.
    name : str, optional

    Attributes
    ----------
    learning_rate : float
        That of the next update. May be set at any time, but where a schedule has it.
    schedule : LearningRateSchedule or None
    iterations : int
        Updates so far.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "update_step" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.update_step would never be called: an optimizer is a pass in C "
                "over all parameters. A rule of your own is a loop: model.forward, model.backward, "
                "parameter.assign"
            )

    name = "optimizer"
    states: tuple[str, ...] = ()  # arrays kept per parameter
    initial = 0.0  # their first value

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: None = None,
        gradient_accumulation_steps: None = None,
        name: str | None = None,
    ) -> None:
        if loss_scale_factor is not None:
            raise ValueError(f"{type(self).__name__}: loss_scale_factor: float32 needs none")
        if gradient_accumulation_steps is not None:
            raise ValueError(
                f"{type(self).__name__}: gradient_accumulation_steps: give fit accumulate_steps"
            )
        self._learning_rate = schedules.get(learning_rate)
        self.weight_decay = _optional(weight_decay, "weight_decay")
        self.clipnorm = _optional(clipnorm, "clipnorm")
        self.clipvalue = _optional(clipvalue, "clipvalue")
        self.global_clipnorm = _optional(global_clipnorm, "global_clipnorm")
        given = [clip for clip in CLIPS if getattr(self, clip) is not None]
        if len(given) > 1:
            raise ValueError(f"only one of {' and '.join(given)} can be given")
        self.use_ema = bool(use_ema)
        self.ema_momentum = shapes.real(ema_momentum, "ema_momentum", 0, 1)
        self.ema_overwrite_frequency = ema_overwrite_frequency
        if ema_overwrite_frequency is not None:
            shapes.integer(ema_overwrite_frequency, "ema_overwrite_frequency")
        self.name = name or type(self).name
        self.iterations = 0
        self._segments: update.Segments | None = None
        self._parameters: tuple[Parameter, ...] = ()
        self._state: dict[Parameter, dict[str, np.ndarray]] = {}
        self._undecayed: tuple[frozenset[Parameter], re.Pattern[str] | None] = frozenset(), None

    @property
    def schedule(self) -> schedules.LearningRateSchedule | None:
        rate = self._learning_rate
        return None if isinstance(rate, float) else rate

    @property
    def learning_rate(self) -> float:
        return schedules.at(self._learning_rate, self.iterations)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self.schedule is not None and not isinstance(value, schedules.LearningRateSchedule):
            raise ValueError(
                f"the learning rate is {self.schedule!r}'s, it cannot be set to {value!r}: make "
                "the optimizer with a number, or give it another schedule"
            )
        self._learning_rate = schedules.get(value)

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[Parameter] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Name parameters that keep out of weight decay, before the optimizer is built.

        Parameters
        ----------
        var_list : sequence of Parameter, optional
        var_names : sequence of str, optional
            Words (regular expressions) of which one appears in the names: ``["bias", "gamma"]``.
        """
        if self._segments is not None:
            raise ValueError("exclude_from_weight_decay comes before the optimizer is built")
        words = re.compile("|".join(var_names)) if var_names else None
        self._undecayed = frozenset(var_list or ()), words

    def build(self, parameters: Sequence[Parameter]) -> None:
        """Make the state for these parameters; the same ones may be given again."""
        if self._segments is not None and parameters is self._parameters:
            return
        known = self._segments is not None and tuple(parameters) == self._parameters
        self._parameters = tuple(parameters)  # a tuple is the same object the next time
        if known:
            return
        keys = (*self.states, *([AVERAGE] if self.use_ema else []))
        for parameter in parameters:
            if parameter not in self._state:
                self._state[parameter] = {key: self._new(parameter, key) for key in keys}
        self._segments = update.Segments(
            [parameter.value for parameter in parameters],
            [parameter.grad for parameter in parameters],
            *([self._state[p][key] for p in parameters] for key in self.states),
            means=[self._state[p][AVERAGE] for p in parameters] if self.use_ema else None,
        )
        self._settle(self._segments)

    def _new(self, parameter: Parameter, key: str) -> np.ndarray:
        array = zeros(parameter.shape, parameter.value.dtype)
        if key in self.states and self.initial:
            array[...] = self.initial
        return array

    def _settle(self, segments: update.Segments) -> None:
        """Tell the segments what happens beside the rule."""
        listed, words = self._undecayed
        for i, parameter in enumerate(self._parameters):
            l1, l2 = regularizers.fused(parameter.regularizer) or (0.0, 0.0)
            decayed = parameter not in listed and not (words and words.search(parameter.name))
            segments.terms(i, l1=l1, l2=2 * l2, decay=decayed)
        segments.weight_decay = self.weight_decay or 0.0
        segments.clip_norm = math.inf if self.clipnorm is None else self.clipnorm
        segments.clip_value = math.inf if self.clipvalue is None else self.clipvalue
        segments.global_clip_norm = (
            math.inf if self.global_clipnorm is None else self.global_clipnorm
        )
        self._penalized = [
            p for p in self._parameters
            if p.regularizer is not None and regularizers.fused(p.regularizer) is None
        ]  # fmt: skip
        self._constrained = [p for p in self._parameters if p.constraint is not None]

    def apply(self) -> None:
        """One update of all parameters from their gradients."""
        segments = self._segments
        if segments is None:
            raise ValueError("build the optimizer with the parameters first")
        rate = self.learning_rate
        self.iterations += 1
        if not len(segments):
            return
        for parameter in self._penalized:
            assert parameter.regularizer is not None
            parameter.grad += regularizers.gradient_of(
                parameter.regularizer, parameter.value, parameter.name
            )
        segments.mean_momentum = self.ema_momentum if self.iterations > 1 else 0.0
        self.update(segments, rate)
        if self.ema_overwrite_frequency and self.iterations % self.ema_overwrite_frequency == 0:
            self.finalize_variable_values()
        for parameter in self._constrained:
            assert parameter.constraint is not None
            parameter.value[...] = parameter.constraint(parameter.value)

    def update(self, segments: update.Segments, rate: float) -> None:
        """The fused pass."""
        raise NotImplementedError(f"{type(self).__name__} must define update")

    def finalize_variable_values(self, parameters: Sequence[Parameter] | None = None) -> None:
        """With ``use_ema``, put the moving averages in the weights' place."""
        if not self.use_ema or not self.iterations:
            return
        for parameter in self._parameters if parameters is None else parameters:
            if parameter in self._state:
                parameter.value[...] = self._state[parameter][AVERAGE]

    def variables(self, parameters: Sequence[Parameter]) -> dict[str, np.ndarray]:
        """The state that there is for these, by name, ``<parameter>/<state>``: the live arrays."""
        return {
            f"{parameter.name}/{key}": array
            for parameter in parameters
            for key, array in self._state.get(parameter, {}).items()
        }

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its state."""
        return {
            "learning_rate": schedules.to_config(self._learning_rate),
            **{key: getattr(self, key) for key in KEPT},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Optimizer":
        return cls(**config)

    def __repr__(self) -> str:
        make: Callable[[], Optimizer] = type(self)
        defaults = make().get_config()
        given = {k: v for k, v in self.get_config().items() if v != defaults.get(k)}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"


class SGD(Optimizer):
    """``m ← momentum · m − rate · g``; ``w ← w + m``, or with Nesterov
    ``w ← w + momentum · m − rate · g``.

    Parameters
    ----------
    learning_rate, momentum : float
    nesterov : bool
    """

    name = "sgd"

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.momentum = shapes.real(momentum, "momentum", 0, 1)
        self.nesterov = bool(nesterov)
        self.states = ("momentum",) if self.momentum else ()

    def update(self, segments: update.Segments, rate: float) -> None:
        update.sgd(segments, rate, self.momentum, self.nesterov)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``,
    ``w ← w − rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + epsilon)`` (Kingma and Ba 2015).

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon : float
    amsgrad : bool
        The largest v so far stands in the last formula (Reddi et al. 2018).
    """

    name = "adam"
    states: tuple[str, ...] = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.beta_1, self.beta_2 = _betas(beta_1, beta_2)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)
        self.amsgrad = bool(amsgrad)
        if self.amsgrad:
            self.states = (*self.states, "velocity_hat")

    def update(self, segments: update.Segments, rate: float) -> None:
        update.adam(
            segments, rate, self.beta_1, self.beta_2, self.epsilon, self.iterations, self.amsgrad
        )

    def get_config(self) -> dict[str, Any]:
        names = ("beta_1", "beta_2", "epsilon", "amsgrad")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class AdamW(Adam):
    """`Adam` with weight decay by default (Loshchilov and Hutter 2019).

    Parameters
    ----------
    learning_rate, weight_decay, beta_1, beta_2, epsilon : float
    amsgrad : bool
    """

    name = "adamw"

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Any,
    ) -> None:
        if weight_decay is None:
            raise ValueError("AdamW needs a weight_decay; Adam does without")
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **common
        )


class Nadam(Optimizer):
    """Adam with Nesterov's look ahead (Dozat 2016): m and v as in `Adam`,
    ``u_t = β₁ (1 − 0.96ᵗ / 2)``, ``U_t = u_1 · … · u_t``,
    ``m̂ = u_{t+1} m / (1 − U_{t+1}) + (1 − u_t) g / (1 − U_t)``,
    ``w ← w − rate · m̂ / (√(v / (1 − β₂ᵗ)) + epsilon)``.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon : float
    """

    name = "nadam"
    states = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.beta_1, self.beta_2 = _betas(beta_1, beta_2)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)

    def update(self, segments: update.Segments, rate: float) -> None:
        update.nadam(segments, rate, self.beta_1, self.beta_2, self.epsilon, self.iterations)

    def get_config(self) -> dict[str, Any]:
        config = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **config}


class Adamax(Nadam):
    """Adam with the largest gradient for v (Kingma and Ba 2015): m as in `Adam`,
    ``u ← max(β₂ u, |g|)``, ``w ← w − rate / (1 − β₁ᵗ) · m / (u + epsilon)``.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon : float
    """

    name = "adamax"
    states = ("momentum", "norm")

    def update(self, segments: update.Segments, rate: float) -> None:
        update.adamax(segments, rate, self.beta_1, self.beta_2, self.epsilon, self.iterations)


class RMSprop(Optimizer):
    """``v ← ρ v + (1 − ρ) g²``, ``step = rate · g / √(v + epsilon)``; centered,
    ``a ← ρ a + (1 − ρ) g`` and v − a² in v's place. ``w ← w − step``, or with momentum
    ``m ← momentum · m + step`` and ``w ← w − m`` (Tieleman and Hinton 2012).

    Parameters
    ----------
    learning_rate, rho, momentum, epsilon : float
    centered : bool
        The gradients' variance instead of their square, at the cost of another array.
    """

    name = "rmsprop"

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.rho = shapes.real(rho, "rho", 0, 1)
        self.momentum = shapes.real(momentum, "momentum", 0, 1)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)
        self.centered = bool(centered)
        self.states = (
            "velocity",
            *(["momentum"] if self.momentum else []),
            *(["average_gradient"] if self.centered else []),
        )

    def update(self, segments: update.Segments, rate: float) -> None:
        update.rmsprop(segments, rate, self.rho, self.momentum, self.epsilon, self.centered)

    def get_config(self) -> dict[str, Any]:
        names = ("rho", "momentum", "epsilon", "centered")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class Adagrad(Optimizer):
    """``a ← a + g²``, ``w ← w − rate · g / √(a + epsilon)`` (Duchi et al. 2011).

    Parameters
    ----------
    learning_rate, epsilon : float
    initial_accumulator_value : float
        Of a.
    """

    name = "adagrad"
    states = ("accumulator",)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.initial = shapes.real(initial_accumulator_value, "initial_accumulator_value", 0)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)

    def update(self, segments: update.Segments, rate: float) -> None:
        update.adagrad(segments, rate, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        config = {"initial_accumulator_value": self.initial, "epsilon": self.epsilon}
        return {**super().get_config(), **config}


class Adadelta(Optimizer):
    """``a ← ρ a + (1 − ρ) g²``, ``δ = √(d + epsilon) / √(a + epsilon) · g``,
    ``d ← ρ d + (1 − ρ) δ²``, ``w ← w − rate · δ`` (Zeiler 2012, who has the rate 1).

    Parameters
    ----------
    learning_rate, rho, epsilon : float
    """

    name = "adadelta"
    states = ("accumulated_grad", "accumulated_delta")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.rho = shapes.real(rho, "rho", 0, 1)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)

    def update(self, segments: update.Segments, rate: float) -> None:
        update.adadelta(segments, rate, self.rho, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}


class Lion(Optimizer):
    """``w ← w − rate · sign(β₁ m + (1 − β₁) g)``, ``m ← β₂ m + (1 − β₂) g`` (Chen et al. 2023).

    Every weight moves by the rate in every update: take a rate 3 to 10 times smaller than Adam's.

    Parameters
    ----------
    learning_rate, beta_1, beta_2 : float
    """

    name = "lion"
    states = ("momentum",)

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(learning_rate, **common)
        self.beta_1 = shapes.real(beta_1, "beta_1", 0, 1)
        self.beta_2 = shapes.real(beta_2, "beta_2", 0, 1)
        if not self.beta_1:
            raise ValueError("beta_1 must be above 0: without it Lion looks at signs alone")

    def update(self, segments: update.Segments, rate: float) -> None:
        update.lion(segments, rate, self.beta_1, self.beta_2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2}


NAMES: dict[str, Callable[..., Optimizer]] = {
    cls.name: cls for cls in (SGD, RMSprop, Adam, AdamW, Adadelta, Adagrad, Adamax, Nadam, Lion)
}


def get(identifier: Any) -> Optimizer:
    """An optimizer from its name, its config ``{"name": …, **arguments}``, or itself."""
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        make: Callable[..., Optimizer] = identifier
        return make()
    if isinstance(identifier, dict):
        config = dict(identifier)
        return NAMES[shapes.choice(config.pop("name", None), NAMES, "optimizer")](**config)
    name = identifier.lower() if isinstance(identifier, str) else identifier
    return NAMES[shapes.choice(name, NAMES, "optimizer")]()


def to_config(optimizer: Optimizer) -> dict[str, Any]:
    """What `get` makes the same optimizer from, without its state."""
    return {
        "name": shapes.choice(type(optimizer).name, NAMES, "optimizer"),
        **optimizer.get_config(),
    }


def _optional(value: Any, name: str) -> float | None:
    return None if value is None else shapes.real(value, name, 0)


def _betas(beta_1: Any, beta_2: Any) -> tuple[float, float]:
    betas = shapes.real(beta_1, "beta_1", 0, 1), shapes.real(beta_2, "beta_2", 0, 1)
    if 1 in betas:
        raise ValueError("beta_1 and beta_2 must be below 1")
    return betas


arguments.explain(globals())

"""Optimizers: each is one fused pass over all parameters, with Keras 3's formulas and defaults."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv import shapes
from fastconv._native import update
from fastconv.parameter import Parameter


class Optimizer:
    """Base of all optimizers.

    Attributes
    ----------
    learning_rate : float
        May be set at any time.
    iterations : int
        Updates so far.
    """

    name = "optimizer"
    states: tuple[str, ...] = ()  # arrays kept per parameter

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = shapes.real(learning_rate, "learning_rate", 0)
        self.iterations = 0
        self._segments: update.Segments | None = None
        self._parameters: tuple[Parameter, ...] = ()
        self._state: dict[Parameter, dict[str, np.ndarray]] = {}

    def build(self, parameters: Sequence[Parameter]) -> None:
        """Make the state for these parameters; the same ones may be given again."""
        if self._segments is not None and parameters is self._parameters:
            return
        known = self._segments is not None and tuple(parameters) == self._parameters
        self._parameters = tuple(parameters)  # a tuple is the same object the next time
        if known:
            return
        for parameter in parameters:
            if parameter not in self._state:
                self._state[parameter] = {
                    key: np.zeros_like(parameter.value) for key in self.states
                }
        self._segments = update.Segments(
            [parameter.value for parameter in parameters],
            [parameter.grad for parameter in parameters],
            *([self._state[p][key] for p in parameters] for key in self.states),
        )

    def apply(self) -> None:
        """One update of all parameters from their gradients."""
        if self._segments is None:
            raise ValueError("build the optimizer with the parameters first")
        self.iterations += 1
        if len(self._segments):
            self.update(self._segments)

    def update(self, segments: update.Segments) -> None:
        """The fused pass."""
        raise NotImplementedError(f"{type(self).__name__} must define update")

    def variables(self, parameters: Sequence[Parameter]) -> dict[str, np.ndarray]:
        """The state that there is for these, by name, ``<parameter>/<state>``: the live arrays."""
        return {
            f"{parameter.name}/{key}": array
            for parameter in parameters
            for key, array in self._state.get(parameter, {}).items()
        }

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate}


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
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False
    ) -> None:
        super().__init__(learning_rate)
        self.momentum = shapes.real(momentum, "momentum", 0, 1)
        self.nesterov = bool(nesterov)
        self.states = ("momentum",) if self.momentum else ()

    def update(self, segments: update.Segments) -> None:
        update.sgd(segments, self.learning_rate, self.momentum, self.nesterov)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``,
    ``w ← w − rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + epsilon)`` (Kingma and Ba 2015).

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon : float
    """

    name = "adam"
    states = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate)
        self.beta_1 = shapes.real(beta_1, "beta_1", 0, 1)
        self.beta_2 = shapes.real(beta_2, "beta_2", 0, 1)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)
        if self.beta_1 == 1 or self.beta_2 == 1:
            raise ValueError("beta_1 and beta_2 must be below 1")

    def update(self, segments: update.Segments) -> None:
        update.adam(
            segments, self.learning_rate, self.beta_1, self.beta_2, self.epsilon, self.iterations
        )

    def get_config(self) -> dict[str, Any]:
        config = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
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
        self, learning_rate: float = 0.001, rho: float = 0.95, epsilon: float = 1e-7
    ) -> None:
        super().__init__(learning_rate)
        self.rho = shapes.real(rho, "rho", 0, 1)
        self.epsilon = shapes.real(epsilon, "epsilon", 0)

    def update(self, segments: update.Segments) -> None:
        update.adadelta(segments, self.learning_rate, self.rho, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}


NAMES: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "adam": Adam, "adadelta": Adadelta}


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
        "name": shapes.choice(optimizer.name, NAMES, "optimizer"),
        **optimizer.get_config(),
    }

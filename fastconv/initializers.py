"""Initial weights. Each initializer is a function of a shape and a seed.

The scaled ones keep the variance of activations from layer to layer: a weight of fan-in n that is
summed n times has variance 1/n (LeCun et al. 1998), 2/n before a ReLU (He et al. 2015), or
2/(n_in + n_out) as the compromise between forward and backward (Glorot and Bengio 2010).
"""

import math
from typing import Any

import numpy as np

from fastconv import arguments, shapes
from fastconv.backend import next_seed


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Fan-in and fan-out of a weight; (…window, IC, OC) counts the window in both."""
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


CLASSES: dict[str, type["Initializer"]] = {}


class Initializer:
    """Base: subclasses draw numbers of a shape from a generator.

    A subclass of one's own is known by its class' name where a model is loaded; ``get_config``
    gives the arguments that make it again.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        CLASSES[cls.__name__] = cls

    def __init__(self, seed: int | None = None) -> None:
        self.seed = None if seed is None else shapes.integer(seed, "seed", 0)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        seed = next_seed() if self.seed is None else self.seed
        return self.draw(shape, np.random.default_rng(seed))

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))


class Constant(Initializer):
    """Every number is ``value``."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = shapes.real(value, "value")

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return np.full(shape, self.value)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


class Zeros(Initializer):
    """Zeros."""

    def __init__(self) -> None:
        super().__init__()

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return np.zeros(shape)

    def get_config(self) -> dict[str, Any]:
        return {}


class Ones(Zeros):
    """Ones."""

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return np.ones(shape)


class RandomNormal(Initializer):
    """Normal numbers of ``mean`` and ``stddev``."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = shapes.real(mean, "mean")
        self.stddev = shapes.real(stddev, "stddev", 0)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return generator.normal(self.mean, self.stddev, shape)


class RandomUniform(Initializer):
    """Uniform numbers from [minval, maxval)."""

    def __init__(
        self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.minval = shapes.real(minval, "minval")
        self.maxval = shapes.real(maxval, "maxval", self.minval)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return generator.uniform(self.minval, self.maxval, shape)


class TruncatedNormal(RandomNormal):
    """Normal numbers of ``mean`` and ``stddev``; those beyond two ``stddev`` are drawn again.

    Their standard deviation is therefore 0.88 of ``stddev``, as in Keras.
    """

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        return self.mean + self.stddev * _truncated_normal(shape, generator)


class Orthogonal(Initializer):
    """``gain`` times a matrix of orthonormal rows or columns (Saxe et al. 2014).

    A weight (…, IC, OC) is seen as a matrix of OC columns: the Q of a random matrix' QR
    factorization, with the signs that make every rotation equally likely.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = shapes.real(gain, "gain")

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal fills matrices and windows, not the shape {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(generator.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diag(r))
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


class Identity(Initializer):
    """``gain`` times the identity matrix, for weights of two axes."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = shapes.real(gain, "gain")

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        if len(shape) != 2:
            raise ValueError(f"Identity fills matrices, not a weight of shape {shape}")
        return self.gain * np.eye(*shape)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain}


class VarianceScaling(Initializer):
    """Numbers of variance ``scale / fan``, as Keras draws them.

    Parameters
    ----------
    scale : float
    mode : {"fan_in", "fan_out", "fan_avg"}
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        The truncated normal is cut at two standard deviations and widened to keep the variance.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.scale = shapes.real(scale, "scale", 0)
        self.mode = shapes.choice(mode, ["fan_in", "fan_out", "fan_avg"], "mode")
        self.distribution = shapes.choice(
            distribution, ["truncated_normal", "untruncated_normal", "uniform"], "distribution"
        )

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return generator.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return generator.normal(0, math.sqrt(variance), shape)
        # the standard normal cut at ±2 has standard deviation 0.8796…
        return math.sqrt(variance) / 0.87962566103423978 * _truncated_normal(shape, generator)


def _truncated_normal(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Standard normal numbers inside ±2: those outside are drawn again."""
    out = generator.standard_normal(shape)
    outside = np.abs(out) > 2
    while outside.any():
        out[outside] = generator.standard_normal(int(outside.sum()))
        outside = np.abs(out) > 2
    return out


class _Scaled(VarianceScaling):
    """A named case of variance scaling: only the seed is free."""

    case: tuple[float, str, str]

    def __init__(self, seed: int | None = None) -> None:
        scale, mode, distribution = self.case
        super().__init__(scale, mode, distribution, seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class GlorotUniform(_Scaled):
    """Uniform of variance 2 / (fan_in + fan_out)."""

    case = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal of variance 2 / (fan_in + fan_out)."""

    case = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform of variance 2 / fan_in."""

    case = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal of variance 2 / fan_in."""

    case = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform of variance 1 / fan_in."""

    case = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal of variance 1 / fan_in."""

    case = (1.0, "fan_in", "truncated_normal")


NAMES: dict[str, type[Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "truncated_normal": TruncatedNormal,
    "orthogonal": Orthogonal,
    "identity": Identity,
    "variance_scaling": VarianceScaling,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
}


def __getattr__(name: str) -> Any:
    """The classes by Keras' other names: ``initializers.he_normal()``."""
    if name in NAMES:
        return NAMES[name]
    raise AttributeError(f"fastconv.initializers has no {name!r}")


SHORT = {"zero": Zeros, "one": Ones, "normal": RandomNormal, "uniform": RandomUniform}


def get(identifier: Any, name: str = "initializer") -> Initializer:
    """An initializer from its name, its config ``{"name": …, **arguments}``, or itself."""
    if isinstance(identifier, Initializer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if isinstance(identifier, dict):
        config = dict(identifier)
        return _class(config.pop("name", None), name)(**config)
    return _class(identifier, name)()


def _class(identifier: Any, name: str) -> type[Initializer]:
    if isinstance(identifier, str) and identifier in CLASSES:
        return CLASSES[identifier]
    if identifier in SHORT:
        return SHORT[identifier]
    return NAMES[shapes.choice(identifier, NAMES, name)]


def to_config(initializer: Initializer) -> dict[str, Any]:
    """What `get` makes the same initializer from."""
    names = {cls: name for name, cls in NAMES.items()}
    cls = type(initializer)
    return {"name": names.get(cls, cls.__name__), **initializer.get_config()}


arguments.explain(globals())

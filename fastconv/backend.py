"""Settings of the whole process: the compute type and the random seed."""

from collections.abc import Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import numpy as np

MASK = (1 << 64) - 1  # of a seed

_floatx = "float32"
_image_data_format = "channels_last"
_generator = np.random.default_rng()
_own: ContextVar["_Seeded | None"] = ContextVar("own", default=None)  # of `seeded`


def floatx() -> str:
    """The compute type of models that are built from now on: ``"float32"`` or ``"float64"``."""
    return _floatx


def set_floatx(dtype: str) -> None:
    """Choose the compute type of models that are built from now on.

    ``"float64"`` runs the reference kernels: the same text compiled in double, exact enough to
    check gradients with finite differences, and slow. Train in ``"float32"``.
    """
    global _floatx
    if dtype not in ("float32", "float64"):
        raise ValueError(f'floatx is "float32" or "float64", not {dtype!r}')
    _floatx = dtype


def set_random_seed(seed: int) -> None:
    """Seed everything random: initial weights, shuffling and dropout.

    After it, the same program gives the same bits, whatever the number of threads.
    """
    global _generator
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed is an integer ≥ 0, not {seed!r}")
    _generator = np.random.default_rng(int(seed))


def next_seed() -> int:
    """A fresh 63-bit seed from the process' generator, or that of `seeded`."""
    return int(_current().integers(1 << 63))


def generator(
    seed: int | None = None, own: np.random.Generator | None = None
) -> np.random.Generator:
    """A generator for one call of a layer: fresh, or ``own`` where it has a ``seed`` of its own.

    Within `seeded` everything is a function of that seed, and of ``seed``.
    """
    if own is not None and _own.get() is None:
        return own
    return np.random.default_rng([next_seed(), *([] if seed is None else [seed])])


class seeded:
    """Inside, in this thread, everything random follows ``seed``; the process' generator, and what
    other threads do, stay as they are."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        self._mine = _Seeded(seed)

    def __enter__(self) -> None:
        self._token = _own.set(self._mine)

    def __exit__(self, *error: object) -> None:
        _own.reset(self._token)


class _Seeded:
    """A seed, and its generator once somebody asks for it: making one takes 20 µs."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.seed = seed

    @cached_property
    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def _current() -> np.random.Generator:
    own = _own.get()
    return _generator if own is None else own.generator


def random_state() -> dict[str, Any]:
    """Where the generator stands, as plain data."""
    return _current().bit_generator.state  # type: ignore[return-value]


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generator where `random_state` found it."""
    _current().bit_generator.state = state


def image_data_format() -> str:
    """How images are shown to a script: ``"channels_last"``, (samples, height, width, channels), or
    ``"channels_first"``, (samples, channels, height, width)."""
    return _image_data_format


def set_image_data_format(data_format: str) -> None:
    """Choose the ``data_format`` of layers that are made from now on and are not told another."""
    global _image_data_format
    _image_data_format = data_format_of(data_format)


def data_format_of(value: Any) -> str:
    """Keras' argument ``data_format``; None stands for `image_data_format`."""
    if value is None:
        return _image_data_format
    if value not in ("channels_last", "channels_first"):
        raise ValueError(f'data_format is "channels_last" or "channels_first", not {value!r}')
    return str(value)


def epsilon() -> float:
    """The small number of Keras' formulas, 1e-7."""
    return 1e-7


def clear_session() -> None:
    """Forget the layers' automatic names: the next ones are numbered from the beginning."""
    from fastconv import layer

    layer.forget_names()

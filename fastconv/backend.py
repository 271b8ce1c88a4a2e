"""Settings of the whole process: the compute type and the random seed."""

import numpy as np

_floatx = "float32"
_generator = np.random.default_rng()


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
    """A fresh 63-bit seed from the process' generator."""
    return int(_generator.integers(1 << 63))

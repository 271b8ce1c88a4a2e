"""In which precision `fit` multiplies: float32, or bfloat16 where the CPU gains by it."""

import warnings

from fastconv import shapes
from fastconv._native import bf16, dispatch

POLICIES = ("float32", "mixed_bfloat16")
WORTHWHILE = 1.5  # times float32's speed, in the registers; memory and the rest take their share

_policy = "float32"
_gain: float | None = None  # of bfloat16, measured once


def dtype_policy() -> str:
    """The policy of models that are compiled from now on: "float32" or "mixed_bfloat16"."""
    return _policy


def set_dtype_policy(policy: str) -> None:
    """Choose how models that are compiled from now on multiply in `fit`.

    Parameters
    ----------
    policy : {"float32", "mixed_bfloat16"}
        "mixed_bfloat16": convolutions round their operands to bfloat16 and add in float32, where
        this is faster than float32 (1×1, strided and other direct ones with 32 channels and more).
        Weights, activations, gradients and the optimizer's state stay float32, and so do
        `predict`, `evaluate` and the exported file.

    Raises
    ------
    ValueError
        Where this CPU or kernel table cannot, or does not gain by it; with the reason.
    """
    global _policy
    _policy = check_dtype_policy(policy)


def check_dtype_policy(policy: object) -> str:
    """The policy, if this machine can have it; None is that of the process."""
    policy = _policy if policy is None else shapes.choice(policy, POLICIES, "dtype policy")
    why = None if policy == "float32" else no_bf16()
    if why:
        raise ValueError(f"mixed_bfloat16 cannot be had: {why}; train in float32")
    return policy


def nearest_policy(policy: object) -> str:
    """The policy of a model that may come from another machine: float32, with a warning, where
    this one cannot have it."""
    policy = shapes.choice(policy, POLICIES, "dtype policy")
    try:
        return check_dtype_policy(policy)
    except ValueError as error:
        warnings.warn(f"this model was compiled for {policy}: {error}", stacklevel=2)
        return "float32"


def no_bf16() -> str | None:
    """Why products of bfloat16 are not to be had here; None where they are."""
    global _gain
    if not dispatch.has_bf16():
        if dispatch.isa() == dispatch.isa_names()[0]:
            return "this CPU has no AVX512-BF16"
        return f"the kernel table {dispatch.isa()} has no products of bfloat16"
    if _gain is None:
        _gain = bf16.gain()
    if _gain < WORTHWHILE:
        return f"on this CPU it is {_gain:.2f} times as fast as float32, less than {WORTHWHILE}"
    return None

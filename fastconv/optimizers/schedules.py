"""Keras' path of `fastconv.schedules`: `from fastconv.optimizers.schedules import …`."""

from fastconv.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    OneCycle,
    PiecewiseConstantDecay,
    PolynomialDecay,
    WarmUp,
    at,
    get,
    to_config,
)

__all__ = [
    "CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay",
    "LearningRateSchedule", "OneCycle", "PiecewiseConstantDecay", "PolynomialDecay", "WarmUp", "at",
    "get", "to_config",
]  # fmt: skip

"""Exponential linear unit."""

from typing import Any

from fastconv import activations, shapes
from fastconv.layers.activation import Activation


class ELU(Activation):
    """``y = x where x > 0, else alpha · (eˣ − 1)``; gradient 1, or y + alpha.

    Clevert et al. 2016.

    Parameters
    ----------
    alpha : float
        ≥ 0.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        self.alpha = shapes.real(alpha, "alpha", 0)
        super().__init__(activations.Activation("elu", self.alpha), **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["activation"]
        return {**config, "alpha": self.alpha}

"""Images read along affine maps, each with its own: rotations, shifts, zooms; and the gradient."""

import numpy as np

EDGES: tuple[str, ...]

def affine(
    x: np.ndarray,
    y: np.ndarray,
    maps: np.ndarray,
    edge: str,
    linear: bool,
    fill: float = 0,
) -> None: ...
def affine_gradient(
    dy: np.ndarray,
    dx: np.ndarray,
    maps: np.ndarray,
    edge: str,
    linear: bool,
) -> None: ...

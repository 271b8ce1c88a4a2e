"""The proof before a network is served: the file's own samples, on the device that will serve it.

The exporter stored inputs, what the trainer gives for them, and how far a runtime may be from it
(`fastconv.onnx.proof` says how that was measured).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.onnx import metadata

if TYPE_CHECKING:
    from fastconv.serving.session import Session

# TF32 keeps 10 bits of the factors where float32 keeps 23: a rounding of 2⁻¹¹ per factor. NVIDIA's
# and PyTorch's comparisons find 2e-3 of the scale for long sums.
TF32_TOLERANCE = 5e-3


@dataclass(frozen=True)
class Proof:
    """How far a session's outputs lie from the trainer's.

    Attributes
    ----------
    ok : bool
        Nothing speaks against serving: the outputs agree, or the file carries no samples.
    provider : str
    tolerance, difference : float
        Of the output that comes closest to its tolerance, as shares of its scale.
    samples : int
        How many were run; 0 for a file that carries none.
    reason : str or None
        Why it failed, or why there was nothing to run.
    """

    ok: bool
    provider: str
    tolerance: float
    difference: float
    samples: int
    reason: str | None = None

    def __str__(self) -> str:
        if not self.samples:
            return f"not proved: {self.reason}"
        words = (
            f"{self.samples} samples on {self.provider}, {self.difference:.2g} of the scale "
            f"(tolerance {self.tolerance:.2g})"
        )
        return f"proved: {words}" if self.ok else f"failed: {self.reason}"


def prove(session: "Session") -> Proof:
    """Run the samples of the session's file and compare."""
    data = session.metadata.get("samples")
    if not data:
        reason = "the file carries no samples with outputs to compare with"
        return Proof(True, session.provider, 0.0, 0.0, 0, reason)
    count = int(data["count"])
    inputs, expected = metadata.decode_samples(data)
    names = [info.name for info in session.outputs]
    if unknown := set(expected) - set(names):
        reason = f"the file's samples name outputs that it does not have: {', '.join(unknown)}"
        return Proof(False, session.provider, 0.0, float("inf"), count, reason)
    try:
        found = dict(zip(names, session.run(inputs), strict=True))
    except (ValueError, RuntimeError) as error:
        reason = f"its samples cannot be run: {error}"
        return Proof(False, session.provider, 0.0, float("inf"), count, reason)
    worst = (-1.0, 0.0, 0.0, "")
    for name, want in expected.items():
        tolerance = max(data["tolerance"][name], TF32_TOLERANCE if session.tf32 else 0.0)
        difference = _difference(want, found[name]) / data["scale"][name]
        share = difference / tolerance
        if not share <= worst[0]:  # NaN is the worst of all
            worst = (share, tolerance, difference, name)
    share, tolerance, difference, name = worst
    if share <= 1:
        return Proof(True, session.provider, tolerance, difference, count)
    reason = (
        f"{session.provider} gives an output {name!r} that is {difference:.2g} of its scale away "
        f"from the trainer's (tolerance {tolerance:.2g})"
    )
    return Proof(False, session.provider, tolerance, difference, count, reason)


def _difference(want: np.ndarray | Mapping[str, Any], got: np.ndarray) -> float:
    """The largest distance; from a summary, of the values that it keeps."""
    if isinstance(want, np.ndarray):
        if want.shape != got.shape:
            return float("inf")
        return float(np.abs(want - got).max(initial=0.0))
    if tuple(want["shape"]) != got.shape:
        return float("inf")
    values = metadata.decode_array(want["values"])
    return max(
        float(np.abs(values - got.ravel()[want["places"]]).max()),
        abs(want["mean"] - float(got.mean(dtype=np.float64))),
        abs(want["largest"] - float(np.abs(got).max())),
    )

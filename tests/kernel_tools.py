"""What kernel tests share: tensors with gaps and canaries, and runs on every table and team."""

import numpy as np
import pytest

from fastconv._native import dispatch
from fastconv._native.step import execute

TABLES = [*dispatch.isa_names(), "float64"]
LANES = 16  # of the widest vector: edges of it are edges of the others
CHANNELS = (1, 3, LANES - 1, LANES, LANES + 1, 4 * LANES + 5)
CANARY = 123  # every type of a slot has it
GUARD = 64  # elements before and behind, a widest vector and more


@pytest.fixture(params=TABLES)
def dtype(request):
    """float32 under every table that this CPU can run, then float64; the table is chosen."""
    before = dispatch.isa()
    if request.param != "float64":
        dispatch.set_isa(request.param)
    yield np.dtype(np.float64 if request.param == "float64" else np.float32)
    dispatch.set_isa(before)


def tolerance(dtype, float32=2e-6):
    """Of a result's scale."""
    return float32 if dtype == np.float32 else 1e-13


def close(got, expected, dtype, float32=2e-6):
    """Equal up to the tolerance of the type, as a share of the expected values' scale."""
    expected = np.asarray(expected, float)
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(
        got / scale, expected / scale, rtol=0, atol=tolerance(dtype, float32)
    )


class Tensor:
    """(n, …, channels) whose pixels lie ``stride`` elements apart, inside a larger array.

    Everything around and between the pixels holds a canary.
    """

    def __init__(self, values, dtype, stride=None):
        values = np.asarray(values)
        channels = values.shape[-1]
        self.shape, self.stride = values.shape, stride or channels
        pixels = values.size // channels
        self.all = np.full(2 * GUARD + pixels * self.stride, CANARY, dtype)
        size = (pixels - 1) * self.stride + channels
        self.array = self.all[GUARD : GUARD + size]  # what the step gets, to the last element
        self.view = self.all[GUARD : GUARD + pixels * self.stride].reshape(pixels, self.stride)
        self.view[:, :channels] = values.reshape(pixels, channels)

    @property
    def values(self):
        return self.view[:, : self.shape[-1]].reshape(self.shape).copy()

    def check(self):
        outside = self.all.copy()
        inside = outside[GUARD : GUARD + self.view.size].reshape(self.view.shape)
        inside[:, : self.shape[-1]] = CANARY
        assert (outside == CANARY).all(), "written outside"


def empty(shape, dtype, stride=None):
    """An output that a kernel must overwrite: NaN, or the largest integer."""
    blank = np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return Tensor(np.full(shape, blank, dtype), dtype, stride)


def run(step, slots, n, **options):
    """Execute a step on tensors by slot; inputs stay as they were, canaries live."""
    written = {extent.slot for extent in step.writes}
    inputs = {slot: t.all.copy() for slot, t in slots.items() if slot not in written}
    execute(step, {slot: t.array for slot, t in slots.items()}, n, **options)
    for slot, t in slots.items():
        t.check()
        if slot in inputs:
            np.testing.assert_array_equal(t.all, inputs[slot], err_msg="an input changed")


def same_for_all_teams(outputs):
    """``outputs()`` gives the same bits with 1, 2, 3, 4, 7 and 16 threads."""
    before = dispatch.num_threads()
    try:
        seen = set()
        for threads in (1, 2, 3, 4, 7, 16):
            dispatch.set_num_threads(threads)
            seen.add(tuple(np.asarray(a).tobytes() for a in outputs()))
        assert len(seen) == 1, "threads change bits"
    finally:
        dispatch.set_num_threads(before)


def randoms(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)

"""Fixtures that all tests share."""

import os
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from fastconv._native import dispatch

ROOT = Path(__file__).resolve().parents[1]
# A forced instruction set is the only one tested; else all that this CPU has.
ISAS = [dispatch.isa()] if os.environ.get("FASTCONV_ISA") else list(dispatch.isa_names())

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def runs_kernels(module: object) -> bool:
    """Whether a test module works with kernels themselves, not with models."""
    values = vars(module).values()
    names = {getattr(v, "__module__", None) or getattr(v, "__name__", "") for v in values}
    names.discard("fastconv._native.dispatch")
    return any(n.startswith(("fastconv._native.", "fastconv.functional")) for n in names)


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        if "isa" in item.fixturenames or runs_kernels(item.module):
            item.add_marker(pytest.mark.kernels)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """This test's own random numbers; a failure shows the seed, FASTCONV_TEST_SEED sets it."""
    seed = int(os.environ.get("FASTCONV_TEST_SEED") or zlib.crc32(request.node.nodeid.encode()))
    print(f"FASTCONV_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with each kernel table that this CPU can run; gives its name."""
    before = dispatch.isa()
    dispatch.set_isa(request.param)
    yield request.param
    dispatch.set_isa(before)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """`set_num_threads`, with the count put back after the test."""
    count, why = dispatch.num_threads(), dispatch.num_threads_why()
    yield dispatch.set_num_threads
    dispatch.set_num_threads(count, why)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is Python's own, also where a shell has started the tests in the background."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def data_dir() -> Callable[[str], Path]:
    """Folder of a real data set: ``data_dir("mnist")``; the test is skipped where it is not."""

    def find(name: str) -> Path:
        given = os.environ.get("FASTCONV_DATA")
        roots = [Path(given)] if given else [ROOT.parent / "shared" / "data"]
        for root in roots:
            if (root / name).is_dir():
                return root / name
        places = ", ".join(str(root / name) for root in roots)
        pytest.skip(f"no {name} data at {places}; FASTCONV_DATA names another folder")

    return find

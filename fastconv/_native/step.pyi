from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT: int

class Extent(NamedTuple):
    slot: int
    per_sample: int = 0
    fixed: int = 0
    itemsize: int = 0

class Step:
    reads: tuple[Extent, ...]
    writes: tuple[Extent, ...]
    algorithm: str
    @property
    def title(self) -> str: ...
    def flops(self, n: int) -> float: ...

class PythonStep(Step):
    def __init__(
        self,
        function: Callable[[list[NDArray[Any]], bool, bool], object],
        slots: Iterable[tuple[int, tuple[int, ...] | None, tuple[int, ...] | None]],
        reads: Iterable[Extent],
        writes: Iterable[Extent],
    ) -> None: ...

class Program:
    steps: list[Step]
    def __init__(self, steps: Iterable[Step]) -> None: ...
    def __len__(self) -> int: ...

class Pass:
    def __init__(self, slots: int, nbytes: int, double: bool = False) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def place(self, slot: int, offset: int) -> None: ...
    def bind(self, slot: int, array: NDArray[Any]) -> None: ...
    def unbind(self, slot: int) -> None: ...
    def view(
        self, slot: int, shape: Sequence[int], dtype: DTypeLike | None = None
    ) -> NDArray[Any]: ...
    def run(
        self,
        program: Program,
        n: int,
        training: bool = False,
        accumulate: bool = False,
        seed: int = 0,
        step: int = 0,
        seconds: NDArray[Any] | None = None,
    ) -> None: ...

def execute(
    step: Step,
    arrays: Mapping[int, NDArray[Any]],
    n: int,
    *,
    training: bool = False,
    accumulate: bool = False,
    seed: int = 0,
    step_number: int = 0,
) -> None: ...

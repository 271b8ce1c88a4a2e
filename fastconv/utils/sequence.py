"""Keras' base of data sets of one's own; any object with the two methods will do."""

from typing import Any


class PyDataset:
    """A data set of batches: define ``__len__`` and ``__getitem__``, and `on_epoch_end` at will.

    Keras' arguments for worker processes are taken as far as they are 1 and False: to load in
    threads, use `fastconv.Dataset`.
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        if workers != 1 or use_multiprocessing:
            raise ValueError("workers are not supported: fastconv.Dataset.map loads in threads")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    @property
    def num_batches(self) -> int:
        return len(self)

    def on_epoch_end(self) -> None:
        """After every epoch."""


Sequence = PyDataset

"""Keras' base of data sets of one's own; any object with the two methods will do."""

from typing import Any


class PyDataset:
    """A data set of batches: define ``__len__`` and ``__getitem__``, and `on_epoch_end` at will.

    Keras' arguments say how batches are loaded, not which: ``workers`` and ``max_queue_size``
    change nothing here, where batches are asked for one after the other. To load in threads, use
    `fastconv.Dataset`. Processes are refused.
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        if use_multiprocessing:
            raise ValueError("processes are not supported: fastconv.Dataset.map loads in threads")

    def __len__(self) -> int:
        if type(self).num_batches is not PyDataset.num_batches:
            return self.num_batches  # where Keras 3 looks
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    @property
    def num_batches(self) -> int:
        return len(self)

    def on_epoch_end(self) -> None:
        """After every epoch."""


Sequence = PyDataset

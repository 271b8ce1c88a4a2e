"""TensorBoard's event files: records of a few protocol buffer fields, each with its checksums.

A file is a sequence of records: length (8 bytes), checksum of the length, data, checksum of the
data; the checksum is a masked CRC-32C. The data is an ``Event`` message, of which five fields are
needed here: wall_time (1), step (2), file_version (3) and summary (5), which holds values with a
tag (1), simple_value (2), histo (5) and metadata (9).
"""

import itertools
import math
import os
import socket
import struct
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastconv import shapes
from fastconv.callback import Callback, Logs
from fastconv.files import naming

POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), bits reversed
BINS = 30
_numbers = itertools.count()


def _crc_table() -> list[int]:
    found = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
        found.append(crc)
    return found


TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """The checksum of a record, as TensorFlow masks it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# -- fields of a message --------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _doubles(field: int, values: Any) -> bytes:
    return _bytes(field, np.asarray(values, "<f8").tobytes())


def histogram(values: np.ndarray) -> bytes:
    """A HistogramProto: min, max, number, sum, sum of squares, upper limits and counts of bins."""
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        values = np.zeros(1)
    low, high = float(values.min()), float(values.max())
    if low == high:
        edges, counts = np.array([low, math.nextafter(low, math.inf)]), np.array([values.size])
    else:
        counts, edges = np.histogram(values, BINS)
    return b"".join(
        [
            _double(1, low), _double(2, high), _double(3, values.size), _double(4, values.sum()),
            _double(5, float(values @ values)), _doubles(6, edges[1:]), _doubles(7, counts),
        ]
    )  # fmt: skip


class EventWriter:
    """A new event file in a folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.path = Path(folder, f"{name}.{next(_numbers)}")
        self.file: IO[bytes] = open(self.path, "xb")  # noqa: SIM115
        self._event(_bytes(3, b"brain.Event:2"))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._value(_bytes(1, tag.encode()) + _float(2, value), step)

    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        self._value(_bytes(1, tag.encode()) + _bytes(5, histogram(values)), step)

    def _value(self, value: bytes, step: int) -> None:
        self._event(_integer(2, step) + _bytes(5, _bytes(1, value)))

    def _event(self, fields: bytes) -> None:
        data = _double(1, time.time()) + fields
        length = struct.pack("<Q", len(data))
        with naming(self.path):
            self.file.write(
                length + struct.pack("<I", masked_crc(length)) + data
                + struct.pack("<I", masked_crc(data))
            )  # fmt: skip

    def flush(self) -> None:
        with naming(self.path):
            self.file.flush()

    def close(self) -> None:
        with naming(self.path):
            self.file.close()


class TensorBoard(Callback):
    """Write losses, metrics and the weights' histograms for TensorBoard.

    Training stands in ``train/``, validation in ``validation/``: ``tensorboard --logdir LOG_DIR``.

    Parameters
    ----------
    log_dir : str or path-like
    histogram_freq : int
        Every so many epochs the weights' histograms; 0: none.
    write_graph, write_images : bool
        Refused: there is no TensorFlow graph (see `fastconv.utils.plot_model`).
    write_steps_per_second : bool
    update_freq : "epoch", "batch" or int
        Also after every batch, or every so many.
    profile_batch : 0
        Refused: `Model.profile` times every step.
    embeddings_freq : 0
        Refused.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = False,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: Any = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        refused = {
            "write_graph": write_graph, "write_images": write_images,
            "profile_batch": profile_batch, "embeddings_freq": embeddings_freq,
            "embeddings_metadata": embeddings_metadata,
        }  # fmt: skip
        for name, value in refused.items():
            if value:
                raise ValueError(f"TensorBoard: {name}={value!r} is not supported")
        self.log_dir = Path(log_dir)
        self.histogram_freq = shapes.integer(histogram_freq, "histogram_freq", 0)
        self.write_steps_per_second = bool(write_steps_per_second)
        self.every = 0
        if update_freq != "epoch":
            self.every = 1 if update_freq == "batch" else shapes.integer(update_freq, "update_freq")
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]
        self.writers: dict[str, EventWriter] = {}
        self.began = (0.0, 0)

    def writer(self, name: str) -> EventWriter:
        if name not in self.writers:
            self.writers[name] = EventWriter(self.log_dir / name)
        return self.writers[name]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.on_epoch_begin(0)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.began = time.perf_counter(), self.model.optimizer.iterations

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        step = self.model.optimizer.iterations
        if step % self.every == 0:
            for name, value in (logs or {}).items():
                self.writer("train").scalar(f"batch_{name}", value, step)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        for name, value in (logs or {}).items():
            validated = name.startswith("val_")
            writer = self.writer("validation" if validated else "train")
            tag = name.removeprefix("val_")
            writer.scalar(f"epoch_{tag}", value, epoch)
        if self.write_steps_per_second:
            start, before = self.began
            steps = self.model.optimizer.iterations - before
            rate = steps / max(time.perf_counter() - start, 1e-9)
            self.writer("train").scalar("epoch_steps_per_second", rate, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for parameter in self.model.parameters():
                self.writer("train").histogram(parameter.name, parameter.value, epoch)
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.close()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers = {}

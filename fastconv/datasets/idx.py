"""IDX files, the format of MNIST, and folders that hold the four files of an MNIST-like data set.

An IDX file is two zero bytes, a byte that names the type of the elements, a byte that counts the
dimensions, the extent of each as a big-endian uint32, and the elements, big-endian, in C order.
"""

import gzip
import math
import os
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from fastconv.files import replacing

from ._files import CHUNK

StrPath = str | os.PathLike[str]
Split = tuple[NDArray[np.uint8], NDArray[np.uint8]]

DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MAX_RANK = 32  # what every numpy can hold; the format's counter goes to 255
GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_LIMIT = 1032  # deflate's densest code is two bits for a run of 258 bytes


def read_idx(path: StrPath) -> NDArray:
    """Read an IDX file, gzip-compressed or not (its content tells, not its name).

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    ndarray
        A fresh array in the machine's byte order: uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is not an IDX file, or has fewer or more bytes than its header says. The header is
        never believed: memory is taken only for bytes that are there.
    """
    path = Path(path)
    with open(path, "rb") as file:
        room = os.fstat(file.fileno()).st_size
        try:
            if file.peek(2)[:2] != GZIP_MAGIC:
                return _parse(file, room)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _parse(cast(BinaryIO, unpacked), room * DEFLATE_LIMIT)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: damaged gzip data: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _parse(stream: BinaryIO, room: int) -> NDArray:
    """Read one array; `room` is the most bytes that the stream can have."""
    dtype, shape = _parse_header(stream)
    # Python's integers do not overflow; zeros are left out because numpy refuses an extent
    # that it cannot count with, even where the array is empty.
    if math.prod(extent or 1 for extent in shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"the shape {shape} in the header is too large for any memory")
    size = math.prod(shape) * dtype.itemsize
    says = f"the header says shape {shape} of {dtype.name}, {size} bytes"
    if size > room:
        raise ValueError(f"truncated: {says}, more than the file can hold")

    elements = bytearray()
    # One byte more than needed: it finds trailing bytes, and makes gzip check its CRC at the end.
    while chunk := stream.read(min(CHUNK, size + 1 - len(elements))):
        elements += chunk
    if len(elements) < size:
        raise ValueError(f"truncated: {says}, but only {len(elements)} follow")
    if len(elements) > size:
        raise ValueError(f"trailing bytes: {says}, but more follow")
    array = np.frombuffer(elements, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _parse_header(stream: BinaryIO) -> tuple[np.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"not an IDX file: it has only {len(magic)} bytes")
    if magic[:2] != b"\0\0":
        raise ValueError(f"not an IDX file: it begins with {magic[:2].hex(' ')}, not with 00 00")
    code, rank = magic[2:]
    if code not in DTYPES:
        known = ", ".join(f"{code:#04x} ({dtype.name})" for code, dtype in DTYPES.items())
        raise ValueError(f"unknown IDX data type {code:#04x}; known are {known}")
    if rank > MAX_RANK:
        raise ValueError(f"the header says {rank} dimensions, at most {MAX_RANK} are supported")
    extents = stream.read(4 * rank)
    if len(extents) < 4 * rank:
        raise ValueError(f"truncated: the header of {rank} dimensions is cut off")
    return DTYPES[code], tuple(np.frombuffer(extents, ">u4").tolist())


def write_idx(path: StrPath, array: NDArray) -> None:
    """Write an array as an IDX file; a name that ends in ``.gz`` is gzip-compressed.

    The file appears whole or not at all, and the same array gives the same bytes.

    Parameters
    ----------
    path : str or path-like
    array : ndarray
        uint8, int8, int16, int32, float32 or float64, in any memory layout and byte order.

    Raises
    ------
    ValueError
        The array's type or shape has no IDX form.
    """
    path, array = Path(path), np.asarray(array)
    codes = {dtype: code for code, dtype in DTYPES.items()}
    dtype = array.dtype.newbyteorder(">")
    if dtype not in codes:
        known = ", ".join(dtype.name for dtype in codes)
        raise ValueError(f"{path}: an IDX file cannot hold {array.dtype}, only {known}")
    if array.ndim > MAX_RANK or max(array.shape, default=0) > 0xFFFF_FFFF:
        raise ValueError(f"{path}: an IDX file cannot hold the shape {array.shape}")
    content = bytes([0, 0, codes[dtype], array.ndim])
    content += np.array(array.shape, ">u4").tobytes() + array.astype(dtype).tobytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    with replacing(path) as file:
        file.write(content)


def load_folder(path: StrPath) -> tuple[Split, Split]:
    """Read a folder of MNIST-format files.

    The names are MNIST's: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``, and
    with ``-`` or ``.`` before ``idx``.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of uint8 ndarray
        Images of shape (n, height, width), (n, 28, 28) for MNIST, and labels of shape (n,).

    Raises
    ------
    OSError
        A file is missing or cannot be read.
    ValueError
        A file is damaged, or images and labels do not belong together.
    """
    folder = Path(path)
    x_train, y_train, x_test, y_test = (
        read_idx(_find(folder, f"{split}-{kind}"))
        for split in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    )
    return check_splits(folder, (x_train, y_train), (x_test, y_test))


def _find(folder: Path, kind: str) -> Path:
    name = f"{kind}-ubyte"
    names = [n + end for n in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    raise FileNotFoundError(f"{folder}: holds none of {', '.join(names)}")


def check_splits(path: Path, train: Split, test: Split) -> tuple[Split, Split]:
    """Return the splits read from `path` if their arrays have the form of MNIST's."""
    for split, (x, y) in (("training", train), ("test", test)):
        if x.dtype != np.uint8 or x.ndim != 3 or x.size == 0:
            raise ValueError(
                f"{path}: expected {split} images of uint8 and shape (n, height, width), "
                f"got {x.dtype} and {x.shape}"
            )
        if y.dtype != np.uint8 or y.ndim != 1:
            raise ValueError(
                f"{path}: expected {split} labels of uint8 and shape (n,), "
                f"got {y.dtype} and {y.shape}"
            )
        if len(x) != len(y):
            raise ValueError(f"{path}: {len(x)} {split} images, but {len(y)} labels")
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = f"{train[0].shape[1:]} and {test[0].shape[1:]}"
        raise ValueError(f"{path}: training and test images differ in size: {sizes}")
    return train, test

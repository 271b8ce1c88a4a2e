"""MNIST: 70,000 handwritten digits of 28 x 28 pixels, 60,000 to train and 10,000 to test.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
"""

import math
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._files import Published, locate
from .idx import DEFLATE_LIMIT, Split, StrPath, check_splits, load_folder

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {
    "train-images-idx3-ubyte.gz": Published(
        9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": Published(
        28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": Published(
        1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": Published(
        4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}


def load_data(path: StrPath | None = None) -> tuple[Split, Split]:
    """Load MNIST, or a data set in its format.

    Parameters
    ----------
    path : str or path-like, optional
        A folder of IDX files (see `idx.load_folder`) or a file as Keras' ``mnist.npz``. Without
        it: the folder ``$FASTCONV_DATA/mnist`` where it exists, then the user's cache
        (``$XDG_CACHE_HOME/fastconv/mnist`` or ``~/.cache/fastconv/mnist``), into which what is
        missing is downloaded and checked against its SHA-256.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of uint8 ndarray
        Images of shape (n, 28, 28), 0 = paper, and labels of shape (n,), 0 to 9.

    Raises
    ------
    OSError
        A file is missing and cannot be downloaded, or cannot be read.
    ValueError
        A file is damaged.
    """
    # Keras' default is the bare name of a file in its cache, and scripts that spell it out exist.
    if path is None or (str(path) == "mnist.npz" and not os.path.exists(path)):
        return load_folder(locate("mnist", FILES, MIRRORS))
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such folder or file; load_data() without a path looks in "
            "$FASTCONV_DATA/mnist and the user's cache, and downloads"
        )
    return load_folder(path) if path.is_dir() else _load_npz(path)


def _load_npz(path: Path) -> tuple[Split, Split]:
    try:
        with zipfile.ZipFile(path) as archive:
            room = path.stat().st_size * DEFLATE_LIMIT
            x_train, y_train, x_test, y_test = (
                _read_member(archive, f"{name}.npy", room)
                for name in ("x_train", "y_train", "x_test", "y_test")
            )
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not a whole .npz file: {error}") from error
    return check_splits(path, (x_train, y_train), (x_test, y_test))


def _read_member(archive: zipfile.ZipFile, name: str, room: int) -> NDArray:
    """Read one array of an .npz file, once its header agrees with the bytes that are there.

    `numpy.load` takes the memory that the header asks for before it looks at the content.
    """
    info = archive.getinfo(name)
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ValueError(f"{name} has npy version {version}, expected (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        size = member.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or not size == info.file_size <= room:
            raise ValueError(f"{name} holds {info.file_size} bytes, not {dtype} of shape {shape}")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)

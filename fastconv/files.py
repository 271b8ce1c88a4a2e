"""Files that appear whole or not at all, and sizes as people read them."""

import contextlib
import errno
import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# what a disk says that takes no more: errors without the name of a file
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
FRESH = 60.0  # seconds in which a file that nobody holds may be one that was just begun


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file beside `path` and move it there once the block has ended well.

    Whatever goes wrong in the block, `path` is as it was and the file beside it is gone. What has
    been moved is on the disk: after a power cut there is the old file or the new one. What a killed
    process has left beside `path` goes with the next writing.

    Raises
    ------
    OSError
        The file cannot be written; the error names `path`, not the file beside it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a device or a folder is not to be replaced
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    _sweep(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # Not `tempfile`: its files are private to the user even where the umask shares them.
        with naming(path), open(part, "xb") as file:
            _lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.filename == str(part):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def check_overwrite(path: str | os.PathLike[str], overwrite: bool) -> None:
    """A FileExistsError where a file stands that must stay."""
    if not overwrite and os.path.exists(path):
        raise FileExistsError(f"{os.fspath(path)} exists; overwrite=True replaces it")


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An error of a full disk, which does not tell by itself, names the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def _lock(descriptor: int) -> bool:
    """Hold a file until it is closed; False where another process does, or nobody can."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(path: Path) -> None:
    """Take away what was left beside `path` by processes that were killed while they wrote it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError), open(part, "rb") as file:
            if time.time() - part.stat().st_mtime > FRESH and _lock(file.fileno()):
                part.unlink(missing_ok=True)


def size_text(size: float) -> str:
    """A number of bytes, in the unit that suits it."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"

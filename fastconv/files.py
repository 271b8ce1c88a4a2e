"""Files that appear whole or not at all, and sizes as people read them."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file beside `path` and move it there once the block has ended well.

    Whatever goes wrong in the block, `path` is as it was and the file beside it is gone. What has
    been moved is on the disk: after a power cut there is the old file or the new one.

    Raises
    ------
    OSError
        The file cannot be written; the error names `path`, not the file beside it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a device or a folder is not to be replaced
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # Not `tempfile`: its files are private to the user even where the umask shares them.
        with open(part, "xb") as file:
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


def size_text(size: float) -> str:
    """A number of bytes, in the unit that suits it."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"

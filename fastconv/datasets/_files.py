"""Where a data set's files are found or fetched."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fastconv.files import replacing

CHUNK = 1 << 20  # bytes read at a time
TIMEOUT = 30.0  # seconds without an answer before the next mirror is tried


class Published(NamedTuple):
    """What is published about a file: its size in bytes and its SHA-256."""

    size: int
    sha256: str


def cache_folder(name: str) -> Path:
    """Folder of data set `name` in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
        base = os.path.expanduser("~/.cache")
    return Path(base, "fastconv", name)


def locate(name: str, files: Mapping[str, Published], mirrors: Sequence[str]) -> Path:
    """Find the folder of a data set, or download it into the user's cache.

    Parameters
    ----------
    name : str
        Name of the folder: ``$FASTCONV_DATA/<name>`` is taken as it is where it exists. Otherwise
        the cache's folder is made complete: a file that is missing or damaged is downloaded.
    files : mapping of str to Published
        The data set's files.
    mirrors : sequence of str
        Addresses ending in ``/``, each of a folder with all the files; tried in order.

    Raises
    ------
    OSError
        No mirror gave a whole file. The message says where the files were looked for.
    """
    looked = []
    if data := os.environ.get("FASTCONV_DATA"):
        folder = Path(data, name)
        if folder.is_dir():
            return folder
        looked.append(f"{folder} ($FASTCONV_DATA)")
    cache = cache_folder(name)
    looked.append(f"{cache} (the cache)")
    for file, published in files.items():
        if not _is_whole(cache / file, published):
            _fetch(cache / file, published, mirrors, looked)
    return cache


def _is_whole(path: Path, published: Published) -> bool:
    if not path.is_file() or path.stat().st_size != published.size:
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == published.sha256


def _fetch(path: Path, published: Published, mirrors: Sequence[str], looked: list[str]) -> None:
    """Download one file from the first mirror that has it whole."""
    from http.client import HTTPException  # a costly import that only a download needs

    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in mirrors:
        try:
            return _download(mirror + path.name, path, published)
        except (OSError, HTTPException) as error:
            failures.append(f"{mirror}{path.name}: {str(error) or type(error).__name__}")
    raise OSError(
        f"{path.name} is not in {' nor in '.join(looked)}, and could not be downloaded "
        f"({'; '.join(failures)}). Where the files are already at hand, name their folder: "
        "load_data(path)"
    )


def _download(url: str, path: Path, published: Published) -> None:
    """Download one file. It appears at `path` only if its size and SHA-256 are the published."""
    from urllib.request import urlopen

    from tqdm import tqdm

    digest, size = hashlib.sha256(), 0
    with (
        urlopen(url, timeout=TIMEOUT) as response,
        replacing(path) as file,
        tqdm(desc=path.name, total=published.size, unit="B", unit_scale=True) as progress,
    ):
        # One byte more than published is enough to know: an endless answer fills no disk.
        while chunk := response.read(min(CHUNK, published.size + 1 - size)):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            progress.update(len(chunk))
        if size != published.size:
            found = f"more than {published.size}" if size > published.size else str(size)
            raise OSError(f"sent {found} bytes, expected {published.size}")
        if digest.hexdigest() != published.sha256:
            raise OSError(f"has SHA-256 {digest.hexdigest()}, expected {published.sha256}")

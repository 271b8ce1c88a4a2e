"""What `train` and `evaluate` read: folders of pictures, a class per folder, and IDX files."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastconv import shapes
from fastconv.config import get_num_threads
from fastconv.dataset import AUTOTUNE, Dataset, from_files
from fastconv.datasets import idx
from fastconv.utils.images import (
    CHANNELS,
    MODES,
    SUFFIXES,
    pictures_below,
    read_image,
    visible_folders,
)

MEMORY = 1 << 30  # bytes of pixels up to which all pictures are read once and kept
AHEAD = 2  # batches that are made while one is learned
TOLD = 5  # broken files that a message names
BY_CHANNELS = {CHANNELS[mode]: mode for mode in MODES.values()}
HELD, TEST = ("val", "validation", "valid"), ("test",)  # folders beside "train"


class Form(NamedTuple):
    """How pictures become arrays; None leaves IDX files as they are."""

    size: tuple[int, int] | None
    channels: int | None
    fit: str = "stretch"


class Part:
    """Pictures of one purpose, with their classes.

    Attributes
    ----------
    labels : ndarray of int, (n,)
    images : ndarray of uint8, (n, H, W, C), or None
        None where they do not fit in memory; then they are read whenever they are needed.
    shape : (int, int, int)
        Of one image.
    left_out : list of str
        Which files could not be read, and why.
    """

    def __init__(
        self,
        labels: np.ndarray,
        shape: tuple[int, int, int],
        images: np.ndarray | None = None,
        paths: Sequence[str] = (),
        fit: str = "stretch",
        left_out: Sequence[str] = (),
    ) -> None:
        self.labels, self.shape, self.images = labels, shape, images
        self.paths, self.fit, self.left_out = list(paths), fit, list(left_out)

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, classes: int) -> np.ndarray:
        """How many there are of each class."""
        return np.bincount(self.labels, minlength=classes)

    def at(self, index: np.ndarray) -> "Part":
        """Some of them."""
        images = None if self.images is None else self.images[index]
        paths = [self.paths[i] for i in index] if self.paths else []
        return Part(self.labels[index], self.shape, images, paths, self.fit, self.left_out)

    def batches(self, size: int, shuffle: bool = False, augment: Any = None) -> Dataset:
        """Batches (images, labels), made ahead."""
        if self.images is not None:
            data = Dataset.from_tensor_slices((self.images, self.labels))
        else:
            data = from_files(self.paths, self.labels)
        if shuffle:
            data = data.shuffle(len(self))
        if self.images is None:
            data = data.map(self._read, AUTOTUNE)
        data = data.batch(size)
        if augment is not None:
            data = data.map(augment, random=True)
        return data.prefetch(AHEAD)

    def _read(self, path: Any, label: Any) -> tuple[np.ndarray, Any]:
        height, width, channels = self.shape
        mode = BY_CHANNELS[channels]
        return read_image(str(path), mode, (height, width), fit=self.fit), label


class Pictures(NamedTuple):
    """A data set: the names of its classes and its parts."""

    title: str
    names: list[str]
    train: Part
    held: Part
    test: Part | None = None

    @property
    def left_out(self) -> list[str]:
        """Which files could not be read, and why."""
        parts = [self.train, self.held, *([self.test] if self.test is not None else [])]
        return list(dict.fromkeys(words for part in parts for words in part.left_out))


def is_idx(folder: Path) -> bool:
    """Whether a folder holds MNIST's four files rather than a folder per class."""
    return any(folder.glob("*-idx[13]-ubyte*")) or any(folder.glob("*.idx[13]-ubyte*"))


def read_all(folder: Path, form: Form, share: float, seed: int, skip_broken: bool) -> Pictures:
    """What to train with: the training part, and what is held back.

    Parameters
    ----------
    folder : Path
        A folder per class; or the folders ``train`` and, at will, ``val`` and ``test``, which have
        one per class; or IDX files with MNIST's names.
    form : Form
    share : float
        Of each class, held back where the folder has no ``val``.
    seed : int
        Of the split.
    skip_broken : bool
        Leave out files that are no pictures, instead of an error that names them.
    """
    folder = _folder(folder)
    title = folder.resolve().name
    if is_idx(folder):
        (x, y), (x_test, y_test) = idx.load_folder(folder)
        names = [str(label) for label in range(int(max(y.max(), y_test.max())) + 1)]
        train, test = _from_idx(x, y, form), _from_idx(x_test, y_test, form)
        return Pictures(title, names, *split(train, names, share, seed), test)
    below = folder / "train"
    names = class_folders(below if below.is_dir() else folder)
    if not below.is_dir():
        part = read_folder(folder, names, form, skip_broken)
        return Pictures(title, names, *split(part, names, share, seed))

    def beside(words: Sequence[str]) -> Part | None:
        there = next((folder / word for word in words if (folder / word).is_dir()), None)
        if there is None:
            return None
        for name in visible_folders(there):
            shapes.choice(name, names, f"class folder of {there}")
        return read_folder(there, names, form, skip_broken)

    part = read_folder(below, names, form, skip_broken)
    held = beside(HELD)
    parts = split(part, names, share, seed) if held is None else (part, held)
    return Pictures(title, names, *parts, beside(TEST))


def read_test(folder: Path, names: Sequence[str] | None, form: Form, skip_broken: bool
              ) -> tuple[list[str], Part]:  # fmt: skip
    """What to ask a finished network about, with the names of its classes.

    Of a folder with ``test`` or ``val`` below it, that one; of IDX files the test images.
    """
    folder = _folder(folder)
    if is_idx(folder):
        _, (x, y) = idx.load_folder(folder)
        found = list(names or map(str, range(int(y.max()) + 1)))
        if int(y.max()) >= len(found):
            raise ValueError(f"{folder}: has the label {y.max()}, the network {len(found)} classes")
        return found, _from_idx(x, y, form)
    below = next((folder / n for n in (*TEST, *HELD) if (folder / n).is_dir()), None)
    if (folder / "train").is_dir() and below is not None:
        folder = below
    there = class_folders(folder)
    found = list(names or there)
    for name in there:
        shapes.choice(name, found, f"class of {folder}")
    return found, read_folder(folder, found, form, skip_broken)


def class_folders(folder: Path) -> list[str]:
    """The names of the classes, sorted as everywhere."""
    names = visible_folders(_folder(folder))
    if len(names) < 2:
        there = f"only {names[0]!r}" if names else "none"
        raise ValueError(f"{folder}: a folder for each of two or more classes is needed: {there}")
    return names


def read_folder(folder: Path, names: Sequence[str], form: Form, skip_broken: bool) -> Part:
    """The pictures below a folder per class; a class may lack its folder."""
    assert form.size is not None
    assert form.channels is not None
    by_class = [pictures_below(folder / name) if (folder / name).is_dir() else [] for name in names]
    paths = [path for found in by_class for path in found]
    labels = np.repeat(np.arange(len(names)), [len(found) for found in by_class])
    if not paths:
        raise ValueError(f"{folder}: no pictures below it ({', '.join(SUFFIXES)})")
    if lacking := [name for name, found in zip(names, by_class, strict=True) if not found]:
        words = f"{folder} has no pictures of {', '.join(lacking)}"
        print(f"fastconv: warning: {words}", file=sys.stderr)
    shape = (*form.size, form.channels)
    part = Part(labels, shape, None, paths, form.fit)
    if len(paths) * int(np.prod(shape)) > MEMORY and not skip_broken:
        return part
    return _read(part, skip_broken)


def _read(part: Part, skip_broken: bool) -> Part:
    """All pictures, read once, and kept where they fit in memory."""
    room = len(part) * int(np.prod(part.shape)) <= MEMORY
    images = np.empty((len(part), *part.shape), np.uint8) if room else None
    broken: dict[int, str] = {}

    def read(i: int) -> None:
        try:
            image, _ = part._read(part.paths[i], None)
        except OSError as error:
            broken[i] = str(error)
            return
        if images is not None:
            images[i] = image

    with ThreadPoolExecutor(get_num_threads()) as pool:
        list(pool.map(read, range(len(part))))
    left_out = [broken[i] for i in sorted(broken)]
    if left_out and not skip_broken:
        raise ValueError(f"{broken_text(left_out)}; --skip-broken leaves them out")
    if left_out:
        print(f"Left out: {broken_text(left_out)}")
    whole = np.array([i for i in range(len(part)) if i not in broken], int)
    if not len(whole):
        raise ValueError("none of the files is a picture that can be read")
    kept = Part(part.labels, part.shape, images, part.paths, part.fit, left_out)
    return kept if not broken else kept.at(whole)


def broken_text(words: Sequence[str]) -> str:
    """How many files are broken, and which."""
    more = len(words) - TOLD
    listed = "; ".join(words[:TOLD]) + (f"; and {more} more" if more > 0 else "")
    count = "1 file" if len(words) == 1 else f"{len(words)} files"
    return f"{count} cannot be read: {listed}"


def split(part: Part, names: Sequence[str], share: float, seed: int) -> tuple[Part, Part]:
    """Training part and held-back part, with the same share of every class in both."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(part), bool)
    for label, name in enumerate(names):
        own = np.flatnonzero(part.labels == label)
        if len(own) < 2:
            raise ValueError(
                f"class {name!r} has {len(own)} pictures; to train and to check, 2 are needed"
            )
        count = min(max(1, round(share * len(own))), len(own) - 1)
        held[rng.permutation(own)[:count]] = True
    return part.at(np.flatnonzero(~held)), part.at(np.flatnonzero(held))


def _from_idx(x: np.ndarray, y: np.ndarray, form: Form) -> Part:
    size, channels = form.size or x.shape[1:3], form.channels or 1
    if x.shape[1:3] != size:
        from PIL import Image

        pictures = map(Image.fromarray, x)
        how = Image.Resampling.BILINEAR
        x = np.stack([np.asarray(picture.resize(size[::-1], how)) for picture in pictures])
    images = np.repeat(x[..., None], channels, -1) if channels > 1 else x[..., None]
    return Part(y.astype(np.int64), images.shape[1:], images)


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    return folder

"""Folders of pictures, a folder per class, as a `Dataset`. Pillow reads them, in threads."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import backend, shapes
from fastconv.arguments import explained
from fastconv.dataset import AUTOTUNE, Dataset, from_files
from fastconv.utils.arrays import to_categorical

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp", ".tif", ".tiff")
MODES = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}
CHANNELS = {"RGB": 3, "RGBA": 4, "L": 1}
TOLD = 5  # broken files that a message names


@explained
def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    verbose: bool = True,
    on_error: str = "raise",
    num_parallel_calls: int = AUTOTUNE,
) -> Dataset:
    """Pictures of a folder as batches of uint8 images and labels.

    Parameters
    ----------
    directory : str or path-like
        Has a folder per class; with ``labels=None`` pictures anywhere below it. What is hidden (a
        name with a dot in front) is not looked at.
    labels : "inferred", None, or list of int
        From the folders, none, or one per file in the order of their sorted paths.
    label_mode : {"int", "categorical", "binary", None}
        Class numbers, one-hot rows, rows of 0 or 1, or images alone.
    class_names : list of str, optional
        The folders to read, in the order of their numbers; by default all, sorted.
    color_mode : {"rgb", "rgba", "grayscale"}
    batch_size : int or None
        None gives single images.
    image_size : (int, int)
        Height and width; every picture is resized.
    shuffle : bool
        A new order in every epoch.
    seed : int, optional
        Of the order, and of the split.
    validation_split : float, optional
    subset : {"training", "validation", "both"}, optional
        Which part of the split; "both" gives the two.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "area"}
    follow_links : bool
        Into folders that are links.
    crop_to_aspect_ratio, pad_to_aspect_ratio : bool
        Cut the middle out, or put black beside, instead of stretching.
    data_format : "channels_last" or "channels_first", optional
        By default as `fastconv.backend.image_data_format` says.
    verbose : bool
        Print how many files were found.
    on_error : {"raise", "skip"}
        What a file does that is no picture: an error that names it, or a warning, and it is left
        out. (All files are opened once beforehand where they are to be skipped.)
    num_parallel_calls : int
        Threads that decode; −1: as many as compute.

    Returns
    -------
    Dataset, or a pair of them
        With ``class_names`` and ``file_paths``.

    Raises
    ------
    OSError
        The folder or a file cannot be read; a broken picture is named.
    ValueError
        There are no pictures, in a class folder neither, or an argument is wrong.
    """
    check_pillow()
    first = backend.data_format_of(data_format) == "channels_first"
    size = shapes.integers(image_size, 2, "image_size")
    shuffle = shapes.flag(shuffle, "shuffle")
    mode = MODES[shapes.choice(color_mode, MODES, "color_mode")]
    shapes.choice(interpolation, FILTERS, "interpolation")
    shapes.choice(on_error, ["raise", "skip"], "on_error")
    if label_mode is not None:
        shapes.choice(label_mode, ["int", "categorical", "binary"], "label_mode")
    fit = "crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch"
    paths, numbers, names = _index(Path(directory), labels, class_names, follow_links)
    if on_error == "skip":
        paths, numbers = _whole(paths, numbers)
    if verbose:
        classes = f" in {len(names)} classes" if numbers is not None else ""
        print(f"Found {len(paths):,} images{classes}")
    parts = _parts(len(paths), validation_split, subset, seed)
    found = []
    for part in parts:
        own = None if numbers is None or label_mode is None else numbers[part]
        data = from_files([paths[i] for i in part], _rows(own, label_mode, len(names)))
        if shuffle:
            data = data.shuffle(len(part), seed)
        data = data.map(_Reader(mode, size, interpolation, fit, first), num_parallel_calls)
        data = data.batch(batch_size) if batch_size is not None else data
        data.class_names = list(names) if numbers is not None else None
        found.append(data)
    return found[0] if len(found) == 1 else tuple(found)  # type: ignore[return-value]


FILTERS = {
    "nearest": "NEAREST",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "lanczos": "LANCZOS",
    "area": "BOX",
}


class _Reader:
    """``reader(path, label)``: the picture as an array (H, W, C) of uint8, or (C, H, W)."""

    def __init__(
        self, mode: str, size: tuple[int, ...], interpolation: str, fit: str, first: bool
    ) -> None:
        self.mode, self.size, self.fit, self.first = mode, size, fit, first
        self.interpolation = interpolation
        self.__qualname__ = f"{mode} {size} {interpolation} {fit}" + " channels first" * first

    def __call__(self, path: Any, *label: Any) -> Any:
        array = read_image(str(path), self.mode, self.size, self.interpolation, self.fit)
        array = np.moveaxis(array, -1, 0) if self.first else array
        return (array, *label) if label else array


def read_image(
    path: str, mode: str, size: tuple[int, ...], interpolation: str = "bilinear",
    fit: str = "stretch",
) -> np.ndarray:  # fmt: skip
    """One picture as viewers show it, resized; a JPEG is decoded no larger than it must be.

    Photographs are turned as their EXIF entry says, and transparent parts lie over white, as
    `fastconv predict` reads them.

    Raises
    ------
    OSError
        It cannot be read, or is no picture: the message names the path.
    """
    from PIL import Image, ImageOps

    height, width = size
    how = Image.Resampling[FILTERS[interpolation]]
    try:
        with Image.open(path) as image:
            if fit == "stretch":  # of a square at least, for the picture may yet be turned
                image.draft(mode, (max(size), max(size)))
            picture = as_seen(image, mode)
        if fit == "crop":
            picture = ImageOps.fit(picture, (width, height), how)
        elif fit == "pad":
            picture = ImageOps.pad(picture, (width, height), how)
        elif picture.size != (width, height):
            picture = picture.resize((width, height), how)
        return np.asarray(picture).reshape(height, width, CHANNELS[mode])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: not a picture that can be read: {error}") from error


def as_seen(image: Any, mode: str) -> Any:
    """A Pillow image in this mode, turned as its EXIF entry says, over white."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if mode != "RGBA" and (image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    elif image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        image = image.point(lambda level: level / 257).convert("L")
    return image.convert(mode)


def check_pillow() -> None:
    """Name the mend where Pillow is missing."""
    from importlib.util import find_spec

    if find_spec("PIL") is None:
        raise ImportError(
            "pictures are read by Pillow, which is missing: pip install 'fastconv[data]'"
        )


def _index(
    folder: Path, labels: Any, class_names: Sequence[str] | None, follow: bool
) -> tuple[list[str], np.ndarray | None, list[str]]:
    """Paths, class numbers and class names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if labels is None:
        return _some(pictures_below(folder, follow), folder), None, []
    if not isinstance(labels, str):
        paths = _some(pictures_below(folder, follow), folder)
        numbers = np.asarray(labels)
        if numbers.shape != (len(paths),) or numbers.dtype.kind not in "iu":
            raise ValueError(f"labels: {len(paths)} files need as many integers")
        names = list(map(str, class_names or range(int(numbers.max()) + 1)))
        return paths, numbers, names
    shapes.choice(labels, ["inferred"], "labels")
    there = visible_folders(folder)
    names = list(class_names) if class_names is not None else there
    for name in names:
        shapes.choice(name, there, f"class folder of {folder}")
    by_class = [pictures_below(folder / name, follow) for name in names]
    empty = [name for name, found in zip(names, by_class, strict=True) if not found]
    if empty and class_names is None and len(empty) < len(names):
        # left out, it would move the numbers of the classes behind it
        raise ValueError(
            f"{folder / empty[0]}: no pictures below this folder, is it a class? Remove it, or "
            "name the classes, class_names=[…]"
        )
    paths = _some([path for found in by_class for path in found], folder)
    return paths, np.repeat(np.arange(len(names)), list(map(len, by_class))), names


def visible_folders(folder: Path) -> list[str]:
    """The names of the folders in it, sorted; not those of other programs (.git)."""
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))


def pictures_below(folder: Path, follow: bool = False) -> list[str]:
    """The files below a folder whose names are those of pictures, sorted; what is hidden, copies of
    other programs (.ipynb_checkpoints, ._name.jpg), is none."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=follow):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in files if not name.startswith(".")]
        found += [os.path.join(root, f) for f in shown if f.lower().endswith(SUFFIXES)]
    return sorted(found)


def _some(paths: list[str], folder: Path) -> list[str]:
    if not paths:
        raise ValueError(f"{folder}: no pictures below it ({', '.join(SUFFIXES)})")
    return paths


def _whole(paths: list[str], numbers: np.ndarray | None) -> tuple[list[str], np.ndarray | None]:
    """The files that are pictures; the others are counted and named in a warning."""
    from PIL import Image

    broken: dict[int, str] = {}
    for i, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            broken[i] = f"{path}: {error}"
    if broken:
        told = "\n".join(list(broken.values())[:TOLD])
        warnings.warn(f"{len(broken)} files are left out:\n{told}", UserWarning, stacklevel=3)
    kept = [i for i in range(len(paths)) if i not in broken]
    if not kept:
        raise ValueError("none of the files is a picture that can be read")
    return [paths[i] for i in kept], None if numbers is None else numbers[kept]


def _parts(
    count: int, share: float | None, subset: str | None, seed: int | None
) -> list[np.ndarray]:
    """Which files each data set has."""
    if share is None and subset is None:
        return [np.arange(count)]
    if share is None or subset is None:
        raise ValueError("validation_split and subset belong together")
    shapes.choice(subset, ["training", "validation", "both"], "subset")
    held = round(count * shapes.real(share, "validation_split", 0, 1))
    if held in (0, count):
        raise ValueError(f"validation_split {share:g} of {count} images leaves an empty part")
    if seed is None and subset != "both":
        raise ValueError("both subsets need the same seed, or they overlap: seed=…")
    drawn = backend.next_seed() if seed is None else seed
    order = np.random.default_rng(drawn).permutation(count)
    train, validation = np.sort(order[held:]), np.sort(order[:held])
    return {"training": [train], "validation": [validation], "both": [train, validation]}[subset]


def _rows(numbers: np.ndarray | None, mode: str | None, classes: int) -> np.ndarray | None:
    if numbers is None or mode == "int":
        return numbers
    if mode == "categorical":
        return to_categorical(numbers, classes)
    if classes != 2:
        raise ValueError(f'label_mode "binary" needs two classes, there are {classes}')
    return numbers[:, None].astype(np.float32)

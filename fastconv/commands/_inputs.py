"""What `fastconv predict` reads: arrays and images, brought to a network's input."""

import os

import numpy as np

from fastconv.serving.contract import Contract
from fastconv.serving.images import image_sample

NPY_MAGIC = b"\x93NUMPY"


def read_samples(
    path: str, network: Contract, limits: tuple[float, float] | None, invert: bool
) -> np.ndarray:
    """The samples of one file, (n, *network.shape).

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is neither an array nor an image, or does not fit the network. The file is named.
    """
    try:
        if not is_image(path):
            return _array_samples(path, network)
        return image_sample(path, network, limits, invert)
    except (ValueError, OverflowError, EOFError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from error


def is_image(path: str) -> bool:
    """Whether a file is read as an image: whatever is no array."""
    with open(path, "rb") as file:
        return file.read(len(NPY_MAGIC)) != NPY_MAGIC


def _array_samples(path: str, network: Contract) -> np.ndarray:
    # mapped, not read: a header that claims more than the file holds takes no memory
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"holds {array.dtype}, real numbers are expected")
    samples = _as_samples(array, network)
    if len(samples) == 0:
        raise ValueError("holds no samples")
    return samples


def _as_samples(array: np.ndarray, network: Contract) -> np.ndarray:
    """A batch, or one sample; a single channel may be left out."""
    shape = network.shape
    shapes = [shape]
    if network.channels == 1:
        shapes.append(tuple(network.size))
    for candidate in shapes:
        for view in (array, array[None]):
            if _fits(view.shape[1:], candidate):
                return view.reshape(len(view), *_known(view.shape[1:], shape))
    raise ValueError(
        f"has the shape {array.shape}; {network.path} takes samples of {network.shape_text()}, "
        "one, or many along a first axis"
    )


def _fits(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(given) == len(wanted) and all(
        w in (None, g) for g, w in zip(given, wanted, strict=True)
    )


def _known(given: tuple[int, ...], shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """``shape`` with its free sizes taken from a sample that may lack the channel axis."""
    if len(given) == len(shape):
        return given
    sizes = iter(given)
    # the axis that is missing is the channels', whose size, 1, is known
    return (1, *sizes) if shape[0] == 1 else (*sizes, 1)


def outside(samples: np.ndarray, limits: tuple[float, float] | None) -> str | None:
    """A remark where values lie far outside what the network was trained on."""
    if limits is None:
        return None
    low, high = limits
    slack = 0.5 * (high - low)
    least, most = float(np.min(samples)), float(np.max(samples))
    if low - slack <= least and most <= high + slack:
        return None
    return f"holds values from {least:g} to {most:g}, the network takes {low:g} to {high:g}"


def label(path: str, index: int, count: int) -> str:
    """How a sample is called in the results: its file, and its number where there are several."""
    name = os.fspath(path)
    return name if count == 1 else f"{name}[{index}]"

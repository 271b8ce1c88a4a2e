"""What `fastconv predict` reads: arrays and images, brought to a network's input."""

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastconv.commands._network import Network

NPY_MAGIC = b"\x93NUMPY"
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # pillow's names by the number of channels
DEFAULT_RANGE = (0.0, 1.0)


def read_samples(
    path: str, network: "Network", limits: tuple[float, float] | None, invert: bool
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
        return _image_sample(path, network, limits or network.input_range or DEFAULT_RANGE, invert)
    except (ValueError, OverflowError, EOFError, MemoryError) as error:
        raise ValueError(f"{path}: {error}") from error


def is_image(path: str) -> bool:
    """Whether a file is read as an image: whatever is no array."""
    with open(path, "rb") as file:
        return file.read(len(NPY_MAGIC)) != NPY_MAGIC


# -- arrays -----------------------------------------------------------------------------------


def _array_samples(path: str, network: "Network") -> np.ndarray:
    # mapped, not read: a header that claims more than the file holds takes no memory
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"holds {array.dtype}, real numbers are expected")
    samples = _as_samples(array, network)
    if len(samples) == 0:
        raise ValueError("holds no samples")
    return samples


def _as_samples(array: np.ndarray, network: "Network") -> np.ndarray:
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


# -- images -----------------------------------------------------------------------------------


def _image_sample(
    path: str, network: "Network", limits: tuple[float, float], invert: bool
) -> np.ndarray:
    """One image as the only sample, in the colours, size, scale and layout of the network."""
    channels = network.channels
    if channels not in MODES:
        raise ValueError(
            f"not a .npy file, and {network.path} does not take images: its input is "
            f"{network.shape_text()}"
        )
    pixels = _read_image(path, MODES[channels], network.size)  # (H, W, C) in 0…1
    if invert:
        pixels = 1 - pixels
    low, high = limits
    pixels = low + pixels * (high - low)
    if network.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return pixels[None].astype(np.float32)


def _read_image(path: str, mode: str, size: tuple[int | None, int | None]) -> np.ndarray:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(
            "to read images, pillow is needed, which is not installed: pip install 'fastconv[data]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
                if image.mode == "F":
                    raise ValueError("an image of floats, whose black and white nobody knows")
                wide = image.mode.startswith("I")  # 16 bits
                image = _to_mode(image, "F" if wide else mode)
    except UnidentifiedImageError as error:
        raise ValueError("neither a .npy file nor an image that pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"the image is too large: {error}") from error
    except (OSError, SyntaxError) as error:  # pillow's words for a damaged file
        raise ValueError(f"damaged image: {error}") from error
    height, width = (wanted or have for wanted, have in zip(size, image.size[::-1], strict=True))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32) / (65535 if wide else 255)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.repeat(pixels, len(mode), -1) if wide else pixels


def _to_mode(image: Any, mode: str) -> Any:
    """The image in this mode, transparent parts over white as viewers show them."""
    from PIL import Image

    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if mode == "RGBA":
            return image
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return image.convert(mode)


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

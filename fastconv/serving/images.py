"""Images, brought to what a network takes: colours, size, scale and layout."""

import os
import warnings
from typing import Any, BinaryIO

import numpy as np

from fastconv.serving.contract import Contract

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # pillow's names by the number of channels
DEFAULT_RANGE = (0.0, 1.0)
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


class ImageError(ValueError):
    """What was given is no image, or none that is taken."""


def is_image(body: bytes) -> bool:
    """Whether bytes begin like a PNG or JPEG file."""
    return body.startswith(MAGIC)


def available() -> bool:
    """Whether pillow is there."""
    from importlib.util import find_spec

    return find_spec("PIL") is not None


def image_sample(
    file: str | os.PathLike[str] | BinaryIO,
    contract: Contract,
    limits: tuple[float, float] | None = None,
    invert: bool = False,
    formats: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """One image as a batch of one, (1, *contract.shape), of the network's type.

    Parameters
    ----------
    file : path or binary file
        PNG, JPEG or whatever else pillow reads.
    contract : Contract
    limits : (black, white), optional
        Default: as the network's file says, else 0 and 1.
    invert : bool
        Exchange black and white.
    formats : tuple of str, optional
        pillow's names of what is read; for bytes of strangers, to whom all that pillow reads is
        too much.
    max_pixels : int, optional
        Larger ones are refused by what their header says, before a pixel is unpacked. pillow has a
        limit of its own, of 89 million.

    Raises
    ------
    ImageError
        It is no image, a damaged or too large one, or the network takes no images.
    ImportError
        pillow is not installed.
    """
    channels = contract.channels
    if channels is None:
        raise ImageError(
            f"not a .npy file, and {contract.path} does not take images: its input is "
            f"{contract.shape_text()}"
        )
    pixels = _read(file, MODES[channels], contract.size, formats, max_pixels)  # (H, W, C) in 0…1
    if invert:
        pixels = 1 - pixels
    low, high = limits or contract.input_range or DEFAULT_RANGE
    pixels = low + pixels * (high - low)
    if contract.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    if contract.dtype.kind in "iu":
        pixels = np.rint(pixels)  # what was a whole number is one again
    return np.ascontiguousarray(pixels[None], contract.dtype)


def _read(
    path: str | os.PathLike[str] | BinaryIO,
    mode: str,
    size: tuple[int | None, int | None],
    formats: tuple[str, ...] | None,
    max_pixels: int | None,
) -> np.ndarray:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(
            "to read images, pillow is needed, which is not installed: pip install 'fastconv[data]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats) as file:
                if max_pixels is not None and file.width * file.height > max_pixels:
                    raise ImageError(
                        f"the image has {file.width} × {file.height} pixels, at most "
                        f"{max_pixels:,} are taken"
                    )
                image = ImageOps.exif_transpose(file)
                if image.mode == "F":
                    raise ImageError("an image of floats, whose black and white nobody knows")
                wide = image.mode.startswith("I")  # 16 bits
                image = _to_mode(image, "F" if wide else mode)
    except UnidentifiedImageError as error:
        raise ImageError("neither a .npy file nor an image that pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"the image is too large: {error}") from error
    except ImageError:
        raise
    # pillow's words for a damaged file
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:
        raise ImageError(f"damaged image: {error}") from error
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

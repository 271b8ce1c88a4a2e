<<<<<<< HEAD
"""An image, as bytes of a stranger, brought to a network's input.

What the input means, the file's metadata tell: how channels lie, what black and white are. The
image gets the colours, size, range and layout of the network; transparent parts lie over white.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastconv.serving.session import Session

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # pillow's names by the number of channels
FORMATS = ("PNG", "JPEG")
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
DEFAULT_RANGE = (0.0, 1.0)
MAX_PIXELS = 16 * 2**20


class ImageError(ValueError):
    """Bytes that are no image, or none that a network takes; the message says why."""


@dataclass(frozen=True)
class ImageInput:
    """What a network that takes images wants.

    Attributes
    ----------
    name : str
        Of its only input.
    dtype : numpy.dtype
    layout : "NCHW" or "NHWC"
    channels : int
    size : (int or None, int or None)
        Height and width; None where the image's own is taken.
    range : (float, float)
        What black and white are.
    range_known : bool
        Whether the file tells the range; 0 to 1 is taken where it does not.
    """

    name: str
    dtype: np.dtype
    layout: str
    channels: int
    size: tuple[int | None, int | None]
    range: tuple[float, float]
    range_known: bool


def image_input(session: "Session") -> ImageInput | None:
    """What the network of a session wants of an image; None where it takes none."""
    if len(session.inputs) != 1 or len(session.inputs[0].shape) != 4:
        return None
    info = session.inputs[0]
    shape = info.shape[1:]
    layout = session.metadata.get("layout") or _guessed_layout(shape)
    if layout not in ("NCHW", "NHWC"):
        return None
    channels, size = (shape[0], shape[1:]) if layout == "NCHW" else (shape[2], shape[:2])
    if channels not in MODES:
        return None
    told = session.metadata.get("inputs", {}).get(info.name, {}).get("range")
    low, high = told or DEFAULT_RANGE
    return ImageInput(
        info.name, np.dtype(info.dtype), layout, channels, (size[0], size[1]),
        (float(low), float(high)), told is not None,
    )  # fmt: skip


def _guessed_layout(shape: Sequence[int | None]) -> str | None:
    """For files of others: an axis of 1, 3 or 4 is that of the channels."""
    if shape[0] in MODES:
        return "NCHW"
    return "NHWC" if shape[2] in MODES else None


def is_image(body: bytes) -> bool:
    """Whether the bytes begin like a PNG or JPEG file."""
    return body.startswith(MAGIC)


def available() -> bool:
    """Whether pillow is there."""
    from importlib.util import find_spec

    return find_spec("PIL") is not None


def sample(
    body: bytes, wanted: ImageInput, invert: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """An image as a batch of one.

    Parameters
    ----------
    body : bytes
        A PNG or JPEG file.
    invert : bool
        Exchange black and white: dark ink on paper for a network trained on the reverse.
    max_pixels : int
        Larger images are refused by what their header says, before any pixel is unpacked.

    Raises
    ------
    ImageError
    ImportError
        pillow is missing.
    """
    pixels = _read(body, MODES[wanted.channels], wanted.size, max_pixels)
    low, high = wanted.range
    pixels = low + (1 - pixels if invert else pixels) * (high - low)
    if wanted.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    if wanted.dtype.kind in "iu":
        pixels = np.rint(pixels)
    return np.ascontiguousarray(pixels[None], wanted.dtype)


def _read(
    body: bytes, mode: str, size: tuple[int | None, int | None], max_pixels: int
) -> np.ndarray:
    """The pixels (H, W, C), float32 in 0…1."""
=======
"""Images, brought to what a network takes: colours, size, scale and layout."""

import os
import warnings
from typing import Any, BinaryIO

import numpy as np

from fastconv.serving.contract import Contract

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # pillow's names by the number of channels
DEFAULT_RANGE = (0.0, 1.0)


def image_sample(
    file: str | os.PathLike[str] | BinaryIO,
    contract: Contract,
    limits: tuple[float, float] | None = None,
    invert: bool = False,
) -> np.ndarray:
    """One image as a batch of one, (1, *contract.shape), float32.

    Parameters
    ----------
    file : path or binary file
        PNG, JPEG or whatever else pillow reads.
    contract : Contract
    limits : (black, white), optional
        Default: as the network's file says, else 0 and 1.
    invert : bool
        Exchange black and white.

    Raises
    ------
    ValueError
        It is no image, a damaged or too large one, or the network takes no images.
    ImportError
        pillow is not installed.
    """
    channels = contract.channels
    if channels is None:
        raise ValueError(
            f"not a .npy file, and {contract.path} does not take images: its input is "
            f"{contract.shape_text()}"
        )
    pixels = _read(file, MODES[channels], contract.size)  # (H, W, C) in 0…1
    if invert:
        pixels = 1 - pixels
    low, high = limits or contract.input_range or DEFAULT_RANGE
    pixels = low + pixels * (high - low)
    if contract.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None], np.float32)


def _read(
    path: str | os.PathLike[str] | BinaryIO, mode: str, size: tuple[int | None, int | None]
) -> np.ndarray:
>>>>>>> serve-session
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(
            "to read images, pillow is needed, which is not installed: pip install 'fastconv[data]'"
        ) from error
    try:
        with warnings.catch_warnings():
<<<<<<< HEAD
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            with Image.open(io.BytesIO(body), formats=FORMATS) as file:
                width, height = file.size
                if width * height > max_pixels:
                    raise ImageError(
                        f"the image has {width} × {height} pixels, {max_pixels:,} are taken at most"
                    )
                image = ImageOps.exif_transpose(file)
                wide = image.mode.startswith("I")  # 16 bits
                image = _to_mode(image, "F" if wide else mode)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not a PNG or JPEG image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:
        raise ImageError(f"damaged image: {error}") from error  # pillow's words for it
    goal_height, goal_width = (want or have for want, have in zip(size, image.size[::-1], strict=True))
    if image.size != (goal_width, goal_height):
        image = image.resize((goal_width, goal_height), Image.Resampling.BILINEAR)
=======
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
>>>>>>> serve-session
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

"""Single pictures: from files to arrays and back, by Pillow."""

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, shapes
from fastconv.files import replacing
from fastconv.layers._resized import same_shape
from fastconv.utils.images import CHANNELS, MODES, as_seen, check_pillow

if TYPE_CHECKING:
    from PIL.Image import Image

RESAMPLINGS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


def load_img(
    path: str | os.PathLike[str] | io.BytesIO,
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> "Image":
    """A picture as viewers show it, as a Pillow image.

    Photographs are turned as their EXIF entry says, and transparent parts lie over white, as
    `image_dataset_from_directory` reads them.

    Parameters
    ----------
    path : str, path-like or BytesIO
    color_mode : {"rgb", "rgba", "grayscale"}
    target_size : (int, int), optional
        Height and width.
    interpolation : {"nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"}
    keep_aspect_ratio : bool
        Cut the middle out, instead of stretching.

    Raises
    ------
    OSError
        It cannot be read, or is no picture: the message names the path.
    """
    check_pillow()
    from PIL import Image

    mode = MODES[shapes.choice(color_mode, MODES, "color_mode")]
    how = Image.Resampling[shapes.choice(interpolation, RESAMPLINGS, "interpolation").upper()]
    size = None if target_size is None else shapes.integers(target_size, 2, "target_size")
    try:
        with Image.open(path) as image:
            picture = as_seen(image, mode)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: not a picture that can be read: {error}") from error
    if size is None or picture.size == size[::-1]:
        return picture
    box = None
    if keep_aspect_ratio:
        part = same_shape(picture.height, picture.width, (size[0], size[1]))
        box = (part.left, part.top, part.left + part.width, part.top + part.height)
    return picture.resize(size[::-1], how, box=box)


def img_to_array(img: Any, data_format: str | None = None, dtype: Any = None) -> np.ndarray:
    """A Pillow image as an array (H, W, C), by default float32; levels stay 0 to 255.

    With ``data_format="channels_first"``, which `fastconv.backend.image_data_format` may say, too,
    (C, H, W).
    """
    first = backend.data_format_of(data_format) == "channels_first"
    x = np.array(img, backend.floatx() if dtype is None else dtype)
    if x.ndim not in (2, 3):
        raise ValueError(f"an image has two or three axes, not the shape {x.shape}")
    x = x.reshape(*x.shape, 1) if x.ndim == 2 else x
    return np.moveaxis(x, -1, 0) if first else x


def array_to_img(
    x: Any, data_format: str | None = None, scale: bool = True, dtype: Any = None
) -> "Image":
    """An array (H, W, C) with 1, 3 or 4 channels as a Pillow image.

    Parameters
    ----------
    x : array
    data_format : "channels_last" or "channels_first", optional
        (C, H, W); by default as `fastconv.backend.image_data_format` says.
    scale : bool
        The least value becomes 0 and the largest 255; else values are levels, cut to whole ones.
    dtype : optional
        Of the arithmetic; by default float32.
    """
    check_pillow()
    from PIL import Image

    array = np.array(x, backend.floatx() if dtype is None else dtype)
    if backend.data_format_of(data_format) == "channels_first" and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[2] not in CHANNELS.values():
        raise ValueError(f"an image is (H, W, C) with 1, 3 or 4 channels, not {array.shape}")
    if scale:
        array = array - array.min()
        largest = array.max()
        array = array * (255 / largest) if largest else array
    if array.shape[2] > 1:
        return Image.fromarray(array.astype(np.uint8))
    deep = array.max(initial=0) > 255  # more levels than a byte has
    return Image.fromarray(array[:, :, 0].astype(np.int32 if deep else np.uint8))


def save_img(
    path: Any,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Write an array (H, W, C) as a picture.

    Parameters
    ----------
    path : str, path-like, or file open for writing
        A file at a path appears whole or not at all.
    x : array
    data_format : "channels_last" or "channels_first", optional
        (C, H, W); by default as `fastconv.backend.image_data_format` says.
    file_format : str, optional
        By default from the path's suffix.
    scale : bool
        The least value becomes 0 and the largest 255; else values are levels.
    **kwargs
        For `PIL.Image.Image.save`.
    """
    image = array_to_img(x, data_format, scale)
    named = isinstance(path, (str, os.PathLike))
    kind = (file_format or (Path(path).suffix[1:] if named else "")).lower()
    kind = "jpeg" if kind == "jpg" else kind
    if kind == "jpeg" and image.mode == "RGBA":
        warnings.warn("JPEG has no transparency: it is left out", UserWarning, stacklevel=2)
        image = image.convert("RGB")
    if not named:
        image.save(path, kind or None, **kwargs)
        return
    from PIL import Image

    Image.init()
    shapes.choice(kind.upper(), sorted(Image.SAVE), "file_format")
    with replacing(path) as file:
        image.save(file, kind, **kwargs)

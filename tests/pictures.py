"""Small photographs of shapes for the tests: noise, colours, sizes and formats as they come."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("circle", "square", "triangle")


def picture(kind: str, rng: np.random.Generator) -> Image.Image:
    width, height = map(int, rng.integers(40, 90, 2))
    image = Image.fromarray(rng.integers(0, 90, (height, width, 3)).astype(np.uint8))
    r = int(min(width, height) * rng.uniform(0.28, 0.42))
    x, y = int(rng.integers(r, width - r + 1)), int(rng.integers(r, height - r + 1))
    colour = tuple(map(int, rng.integers(130, 256, 3)))
    draw = ImageDraw.Draw(image)
    if kind == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif kind == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    else:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    return image


def write_folder(folder: Path, count: int, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> Path:
    """``count`` pictures in all, PNG and JPEG by turns, a folder per kind."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        kind = kinds[i % len(kinds)]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        suffix = ("png", "jpg")[i // len(kinds) % 2]
        picture(kind, rng).save(folder / kind / f"{i:03}.{suffix}")
    return folder

"""Which algorithm carries out a convolution: a function of one sample's shape.

It knows nothing of the batch, the threads or the clock, so that a sample's result is the same bits
wherever it is computed.
"""

import os
from math import prod

from fastconv import shapes
from fastconv._native.geometry import ConvGeometry
from fastconv._native.winograd import WinogradGeometry

VARIABLE = "FASTCONV_CONV"
CHOICES = ("auto", "direct", "winograd")
CHANNELS = 16  # on both sides: below, transforms cost as much as the products that they save
GAIN = 2.0  # how many times fewer multiplications: less on maps that tiles cover badly
PAIRED = 32  # channels of a group, on both sides, from which products of bfloat16 pay


def choice(value: str | None = None) -> str:
    """What the caller wants: ``value``, else the environment's ``FASTCONV_CONV``, else "auto"."""
    if value is not None:
        return shapes.choice(value, CHOICES, "convolution algorithm")
    return shapes.choice(os.environ.get(VARIABLE) or "auto", CHOICES, VARIABLE)


def convolution(
    geometry: ConvGeometry, direction: str = "forward", wanted: str = "auto", bf16: bool = False
) -> str:
    """ "winograd", "depthwise", "direct" or "bf16".

    Winograd's F(4×4, 3×3) needs a quarter of the multiplications, F(2×2, 5×5) 36/100, or a little
    more where tiles of outputs stand out over the image. What it saves must pay for its transforms,
    which touch each number once, whatever the channels. Where every channel has a window of its
    own there are no products to save.

    Parameters
    ----------
    geometry : ConvGeometry
    direction : {"forward", "input_gradient", "weight_gradient"}
    wanted : {"auto", "direct", "winograd"}
        "winograd" uses it wherever it is possible.
    bf16 : bool
        Operands may be rounded to bfloat16. Then the direct sum is, where channels are many enough
        and the weight, which is rounded anew in every pass, meets more than one pixel. Winograd in
        float32 stays ahead of it: it saves more than half of the multiplications.
    """
    found = _exact(geometry, direction, wanted)
    many = min(geometry.channels, geometry.filters) >= PAIRED * geometry.groups
    pays = many and prod(geometry.out_size) > 1
    return "bf16" if bf16 and found == "direct" and pays else found


def _exact(geometry: ConvGeometry, direction: str, wanted: str) -> str:
    """The algorithm in the type of the pass."""
    if 1 < geometry.groups == geometry.channels == geometry.filters:
        return "depthwise"  # the direct sum, by the kernels for one channel a window
    if wanted == "direct" or not WinogradGeometry.possible(geometry):
        return "direct"
    if wanted == "winograd":
        return "winograd"
    few = min(geometry.channels, geometry.filters) < CHANNELS
    height, width = geometry.in_size[1:] if direction == "input_gradient" else geometry.out_size[1:]
    window = geometry.kernel[2]
    outputs = 7 - window  # of a tile, along one axis
    tiles = -(-height // outputs) * -(-width // outputs)
    gain = window**2 * height * width / (36 * tiles)
    return "direct" if few or gain < GAIN else "winograd"

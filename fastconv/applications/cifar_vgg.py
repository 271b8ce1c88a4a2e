"""A small VGG with batch normalization, for images of 32×32 pixels."""

from typing import Any

from fastconv.applications._ends import (
    MINUS_ONE_TO_ONE,
    MOMENTUM,
    beginning,
    channel_axis,
    predictions,
)
from fastconv.arguments import explained
from fastconv.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPooling2D,
    ReLU,
)
from fastconv.model import Sequential


@explained
def CifarVGG(
    input_shape: Any = (32, 32, 3),
    classes: int = 10,
    *,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = False,
    name: str = "cifar_vgg",
) -> Sequential:
    """Six convolutions of 3×3 with batch normalization, in three blocks of 32, 64, 128 channels.

    551,914 parameters for images of 32×32 pixels, half of them in the first dense layer, which
    grows with the size of the images: at 64×64 it has 786,432 more.

    Parameters
    ----------
    input_shape : (int, int, int)
        Height and width from 8 on, and channels.
    classes : int
    classifier_activation : str or None
        Of the last layer; None leaves logits.
    include_preprocessing : bool
        The network begins with a layer that takes bytes, 0 to 255, to −1…1.
    name : str

    Returns
    -------
    Sequential
        With fresh weights, not compiled.

    References
    ----------
    Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition,
    arXiv:1409.1556 (2014). Ioffe, Szegedy: Batch Normalization, arXiv:1502.03167 (2015).
    """
    stack = beginning(input_shape, include_preprocessing, MINUS_ONE_TO_ONE)
    for block, filters in enumerate((32, 64, 128), 1):
        for number in (1, 2):
            at = f"block{block}_"
            stack += [
                Conv2D(
                    filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal",
                    name=f"{at}conv{number}",
                ),
                BatchNormalization(channel_axis(), MOMENTUM, name=f"{at}norm{number}"),
                ReLU(name=f"{at}relu{number}"),
            ]  # fmt: skip
        stack.append(MaxPooling2D(2, name=f"block{block}_pool"))
    stack += [
        Flatten(name="flatten"),
        Dense(128, activation="relu", kernel_initializer="he_normal", name="dense"),
        Dropout(0.5, name="dropout"),
        predictions(classes, classifier_activation),
    ]
    return Sequential(stack, name)

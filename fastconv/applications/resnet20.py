"""ResNet-20, the smallest of the residual networks for CIFAR."""

from typing import Any

from fastconv.applications._ends import (
    MINUS_ONE_TO_ONE,
    MOMENTUM,
    beginning,
    channel_axis,
    predictions,
)
from fastconv.arguments import explained
from fastconv.layer import Tensor
from fastconv.layers import Add, BatchNormalization, Conv2D, GlobalAveragePooling2D, ReLU
from fastconv.model import Model

STAGES = ((16, 1), (32, 2), (64, 2))  # filters, and the stride of the stage's first block
BLOCKS = 3  # of a stage


@explained
def ResNet20(
    input_shape: Any = (32, 32, 3),
    classes: int = 10,
    *,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = False,
    name: str = "resnet20",
) -> Model:
    """ResNet-20: a convolution, three stages of three residual blocks, a mean over all pixels.

    274,042 parameters, whatever the size of the images. Where a block changes the shape, its
    shortcut is a 1×1 convolution with batch normalization (the paper's option B).

    Parameters
    ----------
    input_shape : (int or None, int or None, int)
        Height, width and channels; None takes images of any size.
    classes : int
    classifier_activation : str or None
        Of the last layer; None leaves logits.
    include_preprocessing : bool
        The network begins with a layer that takes bytes, 0 to 255, to −1…1.
    name : str

    Returns
    -------
    Model
        With fresh weights, not compiled.

    References
    ----------
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, arXiv:1512.03385 (2015),
    section 4.2.
    """
    inputs, *rest = beginning(input_shape, include_preprocessing, MINUS_ONE_TO_ONE, fixed=False)
    x = inputs
    for layer in rest:
        x = layer(x)
    x = ReLU(name="relu")(_normed(x, 16, name="conv"))
    for stage, (filters, first) in enumerate(STAGES, 1):
        for block in range(1, BLOCKS + 1):
            x = _block(x, filters, first if block == 1 else 1, f"stage{stage}_block{block}")
    x = GlobalAveragePooling2D(name="pool")(x)
    return Model(inputs, predictions(classes, classifier_activation)(x), name)


def _block(x: Tensor, filters: int, stride: int, name: str) -> Tensor:
    """Two convolutions beside a shortcut."""
    y = ReLU(name=f"{name}_relu1")(_normed(x, filters, stride, name=f"{name}_conv1"))
    y = _normed(y, filters, name=f"{name}_conv2")
    if stride > 1 or x.sample_shape[-1] != filters:
        x = _normed(x, filters, stride, 1, name=f"{name}_shortcut")
    return ReLU(name=f"{name}_relu2")(Add(name=f"{name}_add")([y, x]))


def _normed(x: Tensor, filters: int, stride: int = 1, kernel: int = 3, *, name: str) -> Tensor:
    """A convolution with batch normalization."""
    x = Conv2D(
        filters, kernel, strides=stride, padding=kernel // 2, use_bias=False,
        kernel_initializer="he_normal", name=name,
    )(x)  # fmt: skip
    return BatchNormalization(channel_axis(), MOMENTUM, name=f"{name}_norm")(x)

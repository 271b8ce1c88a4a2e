"""The convolutional network of Keras' MNIST example, with which many have begun."""

from typing import Any

from fastconv.applications._ends import ZERO_TO_ONE, beginning, predictions
from fastconv.arguments import explained
from fastconv.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from fastconv.model import Sequential


@explained
def MNISTNet(
    input_shape: Any = (28, 28, 1),
    classes: int = 10,
    *,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = False,
    name: str = "mnist",
) -> Sequential:
    """Two convolutions of 3×3, one max pooling, a dense layer of 128, and dropout before and after.

    1,199,882 parameters for images of 28×28 pixels, nearly all of them in the dense layer: they
    grow with the size of the images.

    Parameters
    ----------
    input_shape : (int, int, int)
        Height, width and channels.
    classes : int
    classifier_activation : str or None
        Of the last layer; None leaves logits.
    include_preprocessing : bool
        The network begins with a layer that takes bytes, 0 to 255, to 0…1.
    name : str

    Returns
    -------
    Sequential
        With fresh weights, not compiled.

    References
    ----------
    ``mnist_cnn.py`` of Keras' examples, versions 1 and 2.
    """
    stack = [
        *beginning(input_shape, include_preprocessing, ZERO_TO_ONE),
        Conv2D(32, 3, activation="relu", name="conv1"),
        Conv2D(64, 3, activation="relu", name="conv2"),
        MaxPooling2D(2, name="pool"),
        Dropout(0.25, name="dropout1"),
        Flatten(name="flatten"),
        Dense(128, activation="relu", name="dense"),
        Dropout(0.5, name="dropout2"),
        predictions(classes, classifier_activation),
    ]
    return Sequential(stack, name)

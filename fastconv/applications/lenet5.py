"""LeNet-5, the network that read cheques."""

from typing import Any

from fastconv.applications._ends import ZERO_TO_ONE, beginning, predictions
from fastconv.arguments import explained
from fastconv.layers import AveragePooling2D, Conv2D, Dense, Flatten
from fastconv.model import Sequential


@explained
def LeNet5(
    input_shape: Any = (28, 28, 1),
    classes: int = 10,
    *,
    classifier_activation: str | None = "softmax",
    include_preprocessing: bool = False,
    name: str = "lenet5",
) -> Sequential:
    """LeNet-5: two convolutions of 5×5 with average pooling and tanh, three dense layers.

    61,706 parameters for images of 28×28 pixels. The layers carry the paper's names: C1, S2, C3,
    S4, C5, F6. Three things are as everybody builds it today: pooling has no weights, C3 sees all
    maps of S2, and the output is a softmax instead of radial basis functions.

    Parameters
    ----------
    input_shape : (int, int, int)
        Height, width and channels; the paper's 32×32 pixels are 28×28 with a border, which C1
        brings.
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
    LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition.
    Proceedings of the IEEE 86 (1998).
    """
    stack = [
        *beginning(input_shape, include_preprocessing, ZERO_TO_ONE),
        Conv2D(6, 5, padding="same", activation="tanh", name="c1"),
        AveragePooling2D(2, name="s2"),
        Conv2D(16, 5, activation="tanh", name="c3"),
        AveragePooling2D(2, name="s4"),
        Flatten(name="flatten"),
        Dense(120, activation="tanh", name="c5"),
        Dense(84, activation="tanh", name="f6"),
        predictions(classes, classifier_activation),
    ]
    return Sequential(stack, name)

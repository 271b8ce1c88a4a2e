"""The networks that `fastconv bench` knows by name: small ones that people teach and train."""

from collections.abc import Callable
from typing import Any


def lenet5() -> Any:
    """LeNet-5 with average pooling and tanh (LeCun et al. 1998)."""
    import fastconv as fc
    from fastconv import layers

    return fc.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="tanh"),
            layers.Dense(84, activation="tanh"),
            layers.Dense(10, activation="softmax"),
        ],
        "lenet5",
    )


def mnist() -> Any:
    """The convolutional network of Keras' MNIST example."""
    import fastconv as fc
    from fastconv import layers

    return fc.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ],
        "mnist",
    )


def vgg() -> Any:
    """Six 3×3 convolutions with batch norm in three stages, for images of 32×32 pixels."""
    import fastconv as fc
    from fastconv import layers

    stack: list[Any] = [layers.Input((32, 32, 3))]
    for filters in (32, 64, 128):
        for _ in range(2):
            stack.append(layers.Conv2D(filters, 3, padding="same", use_bias=False))
            stack += [layers.BatchNormalization(), layers.ReLU()]
        stack.append(layers.MaxPooling2D(2))
    stack += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.5)]
    return fc.Sequential([*stack, layers.Dense(10, activation="softmax")], "vgg")


def resnet20() -> Any:
    """ResNet-20 for images of 32×32 pixels: three stages of three blocks (He et al. 2016)."""
    import fastconv as fc
    from fastconv import layers

    def conv(x: Any, filters: int, stride: int = 1, size: int = 3) -> Any:
        x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = layers.Input((32, 32, 3))
    x = layers.ReLU()(conv(inputs, 16))
    for filters, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, 1, 1):
            y = conv(layers.ReLU()(conv(x, filters, stride)), filters)
            skip = x if x.shape == y.shape else conv(x, filters, stride, 1)
            x = layers.ReLU()(layers.Add()([y, skip]))
    x = layers.GlobalAveragePooling2D()(x)
    return fc.Model(inputs, layers.Dense(10, activation="softmax")(x), "resnet20")


# name: the network and the batch that it is usually trained with; 10 classes each
NETWORKS: dict[str, tuple[Callable[[], Any], int]] = {
    "lenet5": (lenet5, 64),
    "mnist": (mnist, 128),
    "vgg": (vgg, 64),
    "resnet20": (resnet20, 128),
}

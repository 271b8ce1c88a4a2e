"""The networks with fastconv's layers. Each function: images of ``size``, channels times ``width``,
with or without dropout. `torch_networks.py` has the same ones in the same order."""

import fastconv as fc
from fastconv import layers
from fastconv.layer import Tensor

DROPOUT = 0.5


def scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def lenet5(size: int = 28, width: float = 1, dropout: bool = True) -> fc.Sequential:
    """LeNet-5 (LeCun et al., 1998) with average pooling and tanh."""
    return fc.Sequential(
        [
            layers.Input((size, size, 1)),
            layers.Conv2D(scaled(6, width), 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(scaled(16, width), 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(scaled(120, width), activation="tanh"),
            layers.Dense(scaled(84, width), activation="tanh"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def mnist(size: int = 28, width: float = 1, dropout: bool = True) -> fc.Sequential:
    """The convolutional network of Keras' MNIST example."""
    return fc.Sequential(
        [
            layers.Input((size, size, 1)),
            layers.Conv2D(scaled(32, width), 3, activation="relu"),
            layers.Conv2D(scaled(64, width), 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25 * dropout),
            layers.Flatten(),
            layers.Dense(scaled(128, width), activation="relu"),
            layers.Dropout(DROPOUT * dropout),
            layers.Dense(10, activation="softmax"),
        ]
    )


def cifar_vgg(size: int = 32, width: float = 1, dropout: bool = True) -> fc.Sequential:
    """Six 3x3 convolutions with batch norm, in pairs of 32, 64 and 128 channels."""
    stack: list = [layers.Input((size, size, 3))]
    for filters in (32, 64, 128):
        for _ in range(2):
            stack += [
                layers.Conv2D(scaled(filters, width), 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
            ]
        stack.append(layers.MaxPooling2D(2))
    stack += [
        layers.Flatten(),
        layers.Dense(scaled(128, width), activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
    return fc.Sequential(stack)


def conv_norm(x: Tensor, filters: int, kernel: int = 3, stride: int = 1) -> Tensor:
    x = layers.Conv2D(
        filters, kernel, strides=stride, padding=(kernel - 1) // 2, use_bias=False
    )(x)  # fmt: skip
    return layers.BatchNormalization()(x)


def basic_block(x: Tensor, filters: int, stride: int) -> Tensor:
    y = layers.ReLU()(conv_norm(x, filters, stride=stride))
    y = conv_norm(y, filters)
    skip = x if x.shape == y.shape else conv_norm(x, filters, 1, stride)
    return layers.ReLU()(layers.Add()([y, skip]))


def bottleneck(x: Tensor, filters: int, stride: int) -> Tensor:
    """With the stride in the 3x3 convolution (version 1.5)."""
    y = layers.ReLU()(conv_norm(x, filters, 1))
    y = layers.ReLU()(conv_norm(y, filters, 3, stride))
    y = conv_norm(y, 4 * filters, 1)
    skip = x if x.shape == y.shape else conv_norm(x, 4 * filters, 1, stride)
    return layers.ReLU()(layers.Add()([y, skip]))


def resnet20(size: int = 32, width: float = 1, dropout: bool = True) -> fc.Model:
    """ResNet-20 for CIFAR (He et al., 2015): three stages of three blocks."""
    inputs = layers.Input((size, size, 3))
    x = layers.ReLU()(conv_norm(inputs, scaled(16, width)))
    for filters, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, 1, 1):
            x = basic_block(x, scaled(filters, width), stride)
    x = layers.GlobalAveragePooling2D()(x)
    return fc.Model(inputs, layers.Dense(10, activation="softmax")(x))


def imagenet_resnet(block, depths: tuple[int, ...], size: int, width: float) -> fc.Model:
    inputs = layers.Input((size, size, 3))
    x = layers.ReLU()(conv_norm(inputs, scaled(64, width), 7, 2))
    x = layers.MaxPooling2D(3, strides=2, padding=1)(x)
    for stage, depth in enumerate(depths):
        for number in range(depth):
            stride = 2 if stage and number == 0 else 1
            x = block(x, scaled(64 << stage, width), stride)
    x = layers.GlobalAveragePooling2D()(x)
    return fc.Model(inputs, layers.Dense(1000, activation="softmax")(x))


def resnet18(size: int = 224, width: float = 1, dropout: bool = True) -> fc.Model:
    """ResNet-18 (He et al., 2015)."""
    return imagenet_resnet(basic_block, (2, 2, 2, 2), size, width)


def resnet50(size: int = 224, width: float = 1, dropout: bool = True) -> fc.Model:
    """ResNet-50, version 1.5."""
    return imagenet_resnet(bottleneck, (3, 4, 6, 3), size, width)


def vgg16(size: int = 224, width: float = 1, dropout: bool = True) -> fc.Sequential:
    """VGG-16, configuration D (Simonyan and Zisserman, 2014)."""
    stack: list = [layers.Input((size, size, 3))]
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            stack.append(
                layers.Conv2D(scaled(filters, width), 3, padding="same", activation="relu")
            )
        stack.append(layers.MaxPooling2D(2))
    stack.append(layers.Flatten())
    for _ in range(2):
        stack.append(layers.Dense(scaled(4096, width), activation="relu"))
        stack.append(layers.Dropout(DROPOUT * dropout))
    return fc.Sequential([*stack, layers.Dense(1000, activation="softmax")])


def alexnet(size: int = 224, width: float = 1, dropout: bool = True) -> fc.Sequential:
    """AlexNet in its one-column form (Krizhevsky, 2014)."""

    def conv(filters: int, kernel: int, stride: int = 1, padding: int = 1) -> layers.Conv2D:
        return layers.Conv2D(
            scaled(filters, width), kernel, strides=stride, padding=padding, activation="relu"
        )

    return fc.Sequential(
        [
            layers.Input((size, size, 3)),
            conv(64, 11, 4, 2),
            layers.MaxPooling2D(3, strides=2),
            conv(192, 5, padding=2),
            layers.MaxPooling2D(3, strides=2),
            conv(384, 3),
            conv(256, 3),
            conv(256, 3),
            layers.MaxPooling2D(3, strides=2),
            layers.Flatten(),
            layers.Dropout(DROPOUT * dropout),
            layers.Dense(scaled(4096, width), activation="relu"),
            layers.Dropout(DROPOUT * dropout),
            layers.Dense(scaled(4096, width), activation="relu"),
            layers.Dense(1000, activation="softmax"),
        ]
    )


MOBILENET = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


def mobilenet(size: int = 224, width: float = 1, dropout: bool = True) -> fc.Model:
    """MobileNet-v1 (Howard et al., 2017): depthwise 3x3 and pointwise 1x1, alternating."""
    inputs = layers.Input((size, size, 3))
    x = layers.ReLU()(conv_norm(inputs, scaled(32, width), 3, 2))
    for filters, stride in MOBILENET:
        x = layers.DepthwiseConv2D(3, strides=stride, padding=1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.ReLU()(conv_norm(x, scaled(filters, width), 1))
    x = layers.GlobalAveragePooling2D()(x)
    return fc.Model(inputs, layers.Dense(1000, activation="softmax")(x))


def unet(size: int = 128, width: float = 1, dropout: bool = True) -> fc.Model:
    """U-Net (Ronneberger et al., 2015), padded, base 32: a class for every pixel."""

    def pair(x: Tensor, filters: int) -> Tensor:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return x

    inputs = layers.Input((size, size, 1))
    widths = [scaled(32 << level, width) for level in range(5)]
    x, skips = inputs, []
    for filters in widths[:-1]:
        skips.append(pair(x, filters))
        x = layers.MaxPooling2D(2)(skips[-1])
    x = pair(x, widths[-1])
    for filters, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        up = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        x = pair(layers.Concatenate()([skip, up]), filters)
    return fc.Model(inputs, layers.Conv2D(2, 1, activation="softmax")(x))

"""All layers, one file each; names, arguments and meaning are Keras 3's."""

from difflib import get_close_matches
from typing import Any

from fastconv import arguments
from fastconv.layer import Layer, Tensor
from fastconv.layers.activation import Activation
from fastconv.layers.add import Add
from fastconv.layers.average_pooling2d import AveragePooling2D
from fastconv.layers.batch_normalization import BatchNormalization
from fastconv.layers.center_crop import CenterCrop
from fastconv.layers.concatenate import Concatenate
from fastconv.layers.conv2d import Conv2D
from fastconv.layers.conv2d_transpose import Conv2DTranspose
from fastconv.layers.dense import Dense
from fastconv.layers.depthwise_conv2d import DepthwiseConv2D
from fastconv.layers.dropout import Dropout
from fastconv.layers.elu import ELU
from fastconv.layers.flatten import Flatten
from fastconv.layers.global_average_pooling2d import GlobalAveragePooling2D
from fastconv.layers.global_max_pooling2d import GlobalMaxPooling2D
from fastconv.layers.input import Input, InputLayer
from fastconv.layers.leaky_relu import LeakyReLU
from fastconv.layers.max_pooling2d import MaxPooling2D
from fastconv.layers.normalization import Normalization
from fastconv.layers.random_brightness import RandomBrightness
from fastconv.layers.random_contrast import RandomContrast
from fastconv.layers.random_crop import RandomCrop
from fastconv.layers.random_flip import RandomFlip
from fastconv.layers.random_rotation import RandomRotation
from fastconv.layers.random_translation import RandomTranslation
from fastconv.layers.random_zoom import RandomZoom
from fastconv.layers.relu import ReLU
from fastconv.layers.rescaling import Rescaling
from fastconv.layers.reshape import Reshape
from fastconv.layers.resizing import Resizing
from fastconv.layers.separable_conv2d import SeparableConv2D
from fastconv.layers.softmax import Softmax
from fastconv.layers.zero_padding2d import ZeroPadding2D

__all__ = [
    "Layer",
    "Input",
    "InputLayer",
    "Dense",
    "Conv2D",
    "DepthwiseConv2D",
    "SeparableConv2D",
    "Conv2DTranspose",
    "MaxPooling2D",
    "AveragePooling2D",
    "GlobalMaxPooling2D",
    "GlobalAveragePooling2D",
    "BatchNormalization",
    "Activation",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "Softmax",
    "Dropout",
    "Flatten",
    "Reshape",
    "Add",
    "Concatenate",
    "ZeroPadding2D",
    "Rescaling",
    "Normalization",
    "Resizing",
    "CenterCrop",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "RandomContrast",
    "RandomBrightness",
    "AvgPool2D",
    "Convolution2D",
    "Convolution2DTranspose",
    "DepthwiseConvolution2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "MaxPool2D",
    "SeparableConvolution2D",
    "add",
    "concatenate",
]


# what scripts ask for, and what does it here
INSTEAD = {
    "Lambda": "a layer of your own: fastconv.own.NumpyLayer",
    "UpSampling2D": "Conv2DTranspose, or a layer of your own",
    "Multiply": "a layer of your own: fastconv.own.NumpyLayer",
    "Subtract": "a layer of your own, or Add with Rescaling(-1)",
    "Average": "Add, then Rescaling(1 / n)",
    "average": "add, then Rescaling(1 / n)",
    "LayerNormalization": "BatchNormalization",
    "SpatialDropout2D": "Dropout",
    "GaussianNoise": "Dataset.map with a function of (x, y, generator)",
    "PReLU": "LeakyReLU, whose slope is fixed",
    "Cropping2D": "CenterCrop",
}
NOT_HERE = ("LSTM", "GRU", "SimpleRNN", "Embedding", "MultiHeadAttention", "Attention",
            "Bidirectional", "TimeDistributed", "Conv1D", "Conv3D", "MaxPooling1D")  # fmt: skip


def __getattr__(name: str) -> Any:
    """Say what to use instead of a layer that is not there."""
    if name in INSTEAD:
        raise AttributeError(f"there is no layer {name} yet; use {INSTEAD[name]}")
    if name in NOT_HERE:
        raise AttributeError(f"there is no layer {name}: fastconv is for images (docs/limits.md)")
    near = get_close_matches(name, __all__, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise AttributeError(f"fastconv.layers has no {name!r}{hint}")


# Keras' short names
Convolution2D, Convolution2DTranspose = Conv2D, Conv2DTranspose
DepthwiseConvolution2D, SeparableConvolution2D = DepthwiseConv2D, SeparableConv2D
MaxPool2D, AvgPool2D = MaxPooling2D, AveragePooling2D
GlobalMaxPool2D, GlobalAvgPool2D = GlobalMaxPooling2D, GlobalAveragePooling2D


def add(inputs: Any, **kwargs: Any) -> Tensor:
    """``Add()(inputs)``."""
    return Add(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Tensor:
    """``Concatenate(axis)(inputs)``."""
    return Concatenate(axis=axis, **kwargs)(inputs)


arguments.explain(globals())

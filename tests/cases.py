"""One list of layer cases for every sweep: gradients, tables against float64, export parity.

A layer of the registry without a case makes `test_gradients.py::test_every_layer_has_a_case` fail.
Each case makes fresh layers: a function from symbolic inputs to an output, and the inputs' shapes.
"""

from dataclasses import dataclass

import numpy as np

from fastconv import initializers, layers


@dataclass(frozen=True)
class Case:
    id: str
    inputs: tuple[tuple[int, ...], ...]
    make: object  # symbolic inputs → output
    ties: bool = False  # inputs must be far apart: a maximum is taken
    kink: float | None = None  # inputs must keep away from this number


class Alternating(initializers.Initializer):
    """2, −2, 2, …: biases that keep what comes out away from a kink at zero, on both sides."""

    def draw(self, shape, generator):
        return np.resize([2.0, -2.0], shape)


FAR_FROM_ZERO = {
    "kernel_initializer": initializers.RandomUniform(-0.1, 0.1),
    "bias_initializer": Alternating(),
}


def one(make, shape, **kwargs):
    """A case of one input through one layer."""
    layer_id = kwargs.pop("id")
    return Case(layer_id, (shape,), lambda x: make()(x), **kwargs)


def conv(shape, *args, **kwargs):
    named = [v for k, v in kwargs.items() if not k.endswith("initializer")]
    words = "_".join(str(v).replace(" ", "") for v in (*shape, *args, *named))
    return one(lambda: layers.Conv2D(*args, **kwargs), shape, id=f"conv2d_{words}")


def depthwise(shape, *args, **kwargs):
    named = [v for k, v in kwargs.items() if not k.endswith("initializer")]
    words = "_".join(str(v).replace(" ", "") for v in (*shape, *args, *named))
    return one(lambda: layers.DepthwiseConv2D(*args, **kwargs), shape, id=f"depthwise_{words}")


def transpose(shape, *args, **kwargs):
    named = [v for k, v in kwargs.items() if not k.endswith("initializer")]
    words = "_".join(str(v).replace(" ", "") for v in (*shape, *args, *named))
    return one(lambda: layers.Conv2DTranspose(*args, **kwargs), shape, id=f"transpose_{words}")


def pool(cls, shape, *args, **kwargs):
    words = "_".join(str(v).replace(" ", "") for v in (*shape, *args, *kwargs.values()))
    ties = cls is layers.MaxPooling2D
    return one(lambda: cls(*args, **kwargs), shape, id=f"{cls.__name__}_{words}", ties=ties)


def sequence(*makers):
    def run(x):
        for make in makers:
            x = make()(x)
        return x

    return run


CASES = [
    conv((5, 6, 3), 4, 3),
    conv((5, 6, 1), 2, 3, padding="same"),
    conv((7, 8, 2), 3, 3, strides=2, padding="same"),
    conv((8, 7, 2), 3, (2, 3), strides=(3, 2)),
    conv((9, 9, 2), 3, 3, dilation_rate=2),
    conv((9, 8, 4), 6, 3, groups=2, padding="same"),
    conv((6, 6, 4), 4, 3, groups=4),
    conv((5, 5, 2), 3, 3, padding=((0, 2), (1, 0))),
    conv((4, 4, 3), 5, 1),
    conv((4, 4, 3), 5, 1, strides=2),
    conv((3, 3, 2), 3, 5, padding=2),
    conv((5, 5, 2), 3, 3, use_bias=False),
    conv((5, 5, 2), 3, 3, activation="sigmoid"),
    conv((5, 5, 2), 3, 3, activation="tanh"),
    conv((5, 5, 2), 3, 2, activation="relu", **FAR_FROM_ZERO),
    conv((5, 5, 2), 3, 2, activation="leaky_relu", **FAR_FROM_ZERO),
    conv((5, 5, 2), 3, 2, activation="elu", **FAR_FROM_ZERO),
    conv((4, 4, 2), 3, 2, activation="softmax"),
    conv((6, 5, 3), 3, 3, groups=3, padding="same", activation="tanh"),
    depthwise((7, 8, 3), 3, padding="same"),
    depthwise((9, 8, 17), 3, strides=2, padding="same", activation="tanh"),
    depthwise((7, 12, 2), (2, 3), strides=(3, 2)),
    depthwise((9, 11, 2), 3, dilation_rate=(2, 3)),
    depthwise((9, 9, 2), 3, dilation_rate=2, strides=2, padding="same"),
    depthwise((6, 5, 3), 3, padding=((0, 2), (1, 0)), depth_multiplier=2),
    depthwise((5, 5, 1), 3, padding="same"),
    depthwise((5, 5, 2), 5, padding=2, use_bias=False),
    depthwise(
        (5, 5, 2),
        2,
        activation="relu",
        bias_initializer=Alternating(),
        depthwise_initializer=initializers.RandomUniform(-0.1, 0.1),
    ),
    depthwise((4, 4, 2), 2, activation="softmax"),
    one(lambda: layers.SeparableConv2D(4, 3), (6, 7, 3), id="separable"),
    one(
        lambda: layers.SeparableConv2D(
            5, 3, 2, "same", depth_multiplier=2, use_bias=False, activation="tanh"
        ),
        (7, 8, 2),
        id="separable_same",
    ),
    one(
        lambda: layers.SeparableConv2D(3, (2, 3), dilation_rate=2, trainable=False),
        (7, 8, 2),
        id="separable_frozen",
    ),
    Case(
        "separable_in_place",
        ((5, 5, 2),),
        lambda x: layers.Concatenate()(
            [layers.SeparableConv2D(3, 3, padding="same")(layers.Conv2D(2, 1)(x)), x]
        ),
    ),
    transpose((3, 4, 5), 2, 2, strides=2),
    transpose((3, 4, 2), 3, 3, strides=2, padding="same"),
    transpose((3, 4, 2), 3, 4, strides=2, padding="same", activation="tanh"),
    transpose((4, 3, 2), 3, 3),
    transpose((4, 5, 3), 18, 3, padding="same", use_bias=False),
    transpose((3, 4, 2), 3, (2, 1), strides=(3, 2)),
    transpose((3, 4, 2), 3, (2, 1), strides=(3, 2), padding="same"),
    transpose((3, 4, 2), 3, (3, 2), strides=(3, 2), output_padding=(2, 1)),
    transpose((3, 4, 2), 3, (5, 4), strides=(3, 2), padding="same", output_padding=1),
    transpose((4, 3, 2), 3, 3, dilation_rate=(2, 3)),
    transpose((4, 3, 2), 3, 3, dilation_rate=2, strides=2, padding="same"),
    transpose((3, 3, 2), 3, 2, strides=2, activation="relu", **FAR_FROM_ZERO),
    transpose((3, 3, 2), 3, 2, strides=2, activation="softmax"),
    one(lambda: layers.Dense(5), (7,), id="dense"),
    one(lambda: layers.Dense(5, activation="tanh"), (7,), id="dense_tanh"),
    one(lambda: layers.Dense(5, activation="softmax"), (7,), id="dense_softmax"),
    one(lambda: layers.Dense(3, use_bias=False), (4, 5, 6), id="dense_on_images"),
    pool(layers.MaxPooling2D, (6, 6, 3)),
    pool(layers.MaxPooling2D, (7, 8, 2), 3, 2),
    pool(layers.MaxPooling2D, (7, 8, 2), 3, (1, 2), padding="same"),
    pool(layers.MaxPooling2D, (7, 5, 2), (2, 3), (3, 2), padding=((1, 0), (0, 2))),
    pool(layers.AveragePooling2D, (6, 6, 3)),
    pool(layers.AveragePooling2D, (7, 8, 2), 3, 2, padding="same"),
    pool(layers.AveragePooling2D, (7, 8, 2), 3, 1, padding="same", count_include_pad=True),
    pool(layers.AveragePooling2D, (7, 5, 2), (2, 3), (3, 2)),
    one(lambda: layers.GlobalMaxPooling2D(), (4, 5, 3), id="global_max", ties=True),
    one(lambda: layers.GlobalAveragePooling2D(), (4, 5, 3), id="global_average"),
    one(lambda: layers.GlobalAveragePooling2D(keepdims=True), (4, 5, 3), id="global_average_keep"),
    one(lambda: layers.BatchNormalization(), (4, 5, 3), id="batch_norm"),
    one(lambda: layers.BatchNormalization(), (6,), id="batch_norm_vector"),
    one(lambda: layers.BatchNormalization(center=False), (4, 3), id="batch_norm_scale_only"),
    one(lambda: layers.BatchNormalization(scale=False), (4, 3), id="batch_norm_center_only"),
    one(lambda: layers.BatchNormalization(trainable=False), (4, 5, 3), id="batch_norm_frozen"),
    one(lambda: layers.Activation("relu"), (4, 3), id="relu_activation", kink=0.0),
    one(lambda: layers.Activation("leaky_relu"), (4, 3), id="leaky_activation", kink=0.0),
    one(lambda: layers.Activation("linear"), (4, 3), id="linear_activation"),
    one(lambda: layers.ReLU(), (4, 5, 3), id="relu", kink=0.0),
    one(lambda: layers.ReLU(negative_slope=0.3), (4, 5, 3), id="relu_slope", kink=0.0),
    one(lambda: layers.LeakyReLU(), (4, 5, 3), id="leaky_relu", kink=0.0),
    one(lambda: layers.ELU(0.7), (4, 5, 3), id="elu", kink=0.0),
    one(lambda: layers.Softmax(), (4, 5), id="softmax"),
    one(lambda: layers.Dropout(0.4), (4, 5, 3), id="dropout"),
    one(lambda: layers.Flatten(), (4, 5, 3), id="flatten"),
    one(lambda: layers.Reshape((5, -1)), (4, 5, 3), id="reshape"),
    one(lambda: layers.ZeroPadding2D(((1, 0), (2, 3))), (4, 5, 3), id="zero_padding"),
    one(lambda: layers.Rescaling(1 / 255, -0.5), (4, 5, 3), id="rescaling"),
    *(
        one(lambda cls=cls, kwargs=kwargs: cls(**kwargs), (5, 6, 2), id=f"{cls.__name__}_{i}")
        for i, (cls, kwargs) in enumerate(
            [
                (layers.RandomFlip, {}),
                (layers.RandomFlip, {"mode": "horizontal", "seed": 3}),
                (layers.RandomFlip, {"mode": "vertical"}),
                *(
                    (
                        layers.RandomRotation,
                        {"factor": 0.3, "fill_mode": fill, "interpolation": how},
                    )
                    for fill in ("reflect", "wrap", "constant", "nearest")
                    for how in ("bilinear", "nearest")
                ),
                (layers.RandomTranslation, {"height_factor": 0.9, "width_factor": (0.1, 0.4)}),
                (layers.RandomZoom, {"height_factor": 0.5, "width_factor": (-0.9, 0.8)}),
                (layers.RandomContrast, {"factor": 0.5, "value_range": (-1.5, 1.6)}),
                (layers.RandomBrightness, {"factor": 0.2, "value_range": (-1.5, 1.6)}),
                (layers.RandomCrop, {"height": 3, "width": 6}),
                (layers.RandomCrop, {"height": 7, "width": 4, "seed": 1}),
                (layers.CenterCrop, {"height": 2, "width": 5}),
                (layers.CenterCrop, {"height": 3, "width": 9}),
                (layers.Resizing, {"height": 7, "width": 4}),
                (layers.Resizing, {"height": 5, "width": 4}),
                (layers.Resizing, {"height": 3, "width": 9, "interpolation": "nearest"}),
                (layers.Resizing, {"height": 8, "width": 3, "interpolation": "bicubic"}),
                (layers.Resizing, {"height": 8, "width": 3, "interpolation": "lanczos3"}),
                (layers.Resizing, {"height": 2, "width": 3, "antialias": True}),
                (layers.Resizing, {"height": 4, "width": 9, "crop_to_aspect_ratio": True}),
                (layers.Resizing, {"height": 8, "width": 3, "pad_to_aspect_ratio": True}),
                (
                    layers.Resizing,
                    {
                        "height": 8,
                        "width": 3,
                        "pad_to_aspect_ratio": True,
                        "fill_value": 0.5,
                        "interpolation": "nearest",
                    },
                ),
                (layers.Normalization, {}),
                (layers.Normalization, {"axis": None, "invert": True}),
                (layers.Normalization, {"axis": (1, 3)}),
                (layers.Normalization, {"mean": (0.5, 1.0), "variance": (2.0, 0.3)}),
            ]
        )
    ),
    one(lambda: layers.Normalization(), (4,), id="Normalization_of_vectors"),
    Case(
        "Normalization_behind_flatten",
        ((3, 4, 2),),
        lambda x: layers.Normalization()(layers.Flatten()(layers.Conv2D(2, 1)(x))),
    ),
    Case("add", ((4, 3), (4, 3), (4, 3)), lambda *x: layers.Add()(x)),
    Case("add_twice_the_same", ((4, 3),), lambda x: layers.Add()([x, x])),
    Case("concatenate", ((4, 5, 2), (4, 5, 3)), lambda *x: layers.Concatenate()(x)),
    Case("concatenate_rows", ((2, 5, 3), (4, 5, 3)), lambda *x: layers.Concatenate(axis=1)(x)),
    Case(
        "concatenate_in_place",
        ((5, 5, 2),),
        lambda x: layers.Concatenate()(
            [
                layers.Conv2D(3, 3, padding="same", activation="tanh")(x),
                layers.MaxPooling2D(3, 1, padding="same")(x),
                x,
            ]
        ),
        ties=True,
    ),
    Case(
        "nested_concatenations",
        ((4, 4, 2),),
        lambda x: _dense_block(x, 3),
    ),
    Case("channels_first", ((3, 5, 4),), lambda x: _channels_first(x)),
    Case("residual_block", ((5, 5, 4),), lambda x: _residual(x)),
    Case("shared_layer", ((4, 4, 2), (4, 4, 2)), lambda a, b: _siamese(a, b)),
    Case(
        "flatten_of_a_slice",
        ((3, 3, 2),),
        lambda x: _flatten_a_slice(x),
    ),
    Case(
        "small_net",
        ((9, 9, 2),),
        sequence(
            lambda: layers.Conv2D(4, 3, activation="tanh"),
            lambda: layers.AveragePooling2D(2),
            lambda: layers.Flatten(),
            lambda: layers.Dense(6, activation="sigmoid"),
            lambda: layers.Dense(3, activation="softmax"),
        ),
    ),
]


def _channels_first(x):
    x = layers.Conv2D(2, 3, data_format="channels_first", activation="tanh")(x)
    x = layers.BatchNormalization(axis=1)(x)
    return layers.Dense(3)(x)  # over the width


def _dense_block(x, count):
    for _ in range(count):
        y = layers.Conv2D(2, 3, padding="same", activation="tanh")(x)
        x = layers.Concatenate()([x, y])
    return x


def _residual(x):
    y = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    y = layers.Activation("tanh")(y)
    y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
    y = layers.BatchNormalization()(y)
    return layers.Activation("sigmoid")(layers.Add()([x, y]))


def _siamese(a, b):
    shared = layers.Conv2D(3, 2, activation="tanh")
    return layers.Add()([shared(a), shared(b)])


def _flatten_a_slice(x):
    a = layers.Conv2D(2, 2, activation="tanh")(x)
    b = layers.Conv2D(3, 2, activation="tanh")(x)
    joined = layers.Concatenate()([a, b])
    return layers.Concatenate()([layers.Flatten()(a), layers.Flatten()(joined)])

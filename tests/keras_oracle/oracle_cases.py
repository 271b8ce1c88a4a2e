"""What is asked of Keras 3 once, and of fastconv in every test run: the cases and their numbers.

A case is a class' name with its arguments; both sides compute it from the same inputs, which are
made here without a generator, so that they are the same whatever numpy's version is.
"""

import numpy as np

BATCH, CLASSES = 6, 4
STEPS = (0, 1, 2, 5, 9, 10, 11, 15, 20, 29, 30, 31, 100)


def uniform(*shape, seed=0, low=0.0, high=1.0):
    """Numbers that look random, with four decimals, as float32."""
    k = np.arange(1, np.prod(shape, dtype=int) + 1, dtype=np.float64)
    wave = np.sin(k * 12.9898 + seed * 78.233) * 43758.5453
    numbers = np.round(wave - np.floor(wave), 4).reshape(shape)
    return (low + (high - low) * numbers).astype(np.float32)


# -- optimizers -------------------------------------------------------------------------------

COMMON = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.7},
    "clipvalue": {"clipvalue": 0.3},
    "global_clipnorm": {"global_clipnorm": 0.7},
    "ema": {"use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": 3},
    "decay and clip": {"weight_decay": 0.2, "clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.5},
}
ADAM = ["plain", "decay", "clipnorm", "clipvalue", "global_clipnorm", "ema", "decay and clip"]
FEW = ["plain", "decay and clip"]
OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.1}, ADAM),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}, FEW),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}, FEW),
    ("Adam", {}, ADAM),
    ("Adam", {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.01}, FEW),
    ("Adam", {"learning_rate": 0.02, "amsgrad": True}, FEW),
    ("AdamW", {}, ["plain", "clipnorm"]),
    ("AdamW", {"learning_rate": 0.1, "weight_decay": 0.3}, ["plain"]),
    ("Nadam", {"learning_rate": 0.01}, FEW),
    ("Adamax", {"learning_rate": 0.01}, FEW),
    ("Adamax", {"learning_rate": 0.01, "beta_1": 0.7, "epsilon": 0.01}, ["plain"]),
    ("RMSprop", {}, FEW),
    ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9}, FEW),
    ("RMSprop", {"learning_rate": 0.01, "centered": True, "epsilon": 1e-3}, FEW),
    ("RMSprop", {"learning_rate": 0.01, "centered": True, "momentum": 0.5, "epsilon": 1e-3},
     ["plain"]),
    ("Adagrad", {"learning_rate": 0.1}, FEW),
    ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.0, "epsilon": 0.1},
     ["plain"]),
    ("Adadelta", {}, FEW),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-3}, ["plain"]),
    ("Lion", {}, FEW),
    ("Lion", {"learning_rate": 0.01, "beta_1": 0.6}, ["plain"]),
]  # fmt: skip
OPTIMIZER_CASES = {
    f"{name} {arguments} {more}": (name, {**arguments, **COMMON[more]})
    for name, arguments, mores in OPTIMIZERS
    for more in mores
}
UPDATES = 3


def weights():
    return [uniform(3, 4, seed=1, low=-1), uniform(5, seed=2, low=-1)]


def gradients(step):
    return [uniform(3, 4, seed=10 + step, low=-1), uniform(5, seed=20 + step, low=-1)]


SCHEDULES = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5,
                          "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [2, 10, 30], "values": [1.0, 0.5, 0.1, 0.01]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "power": 2.0}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 10,
                         "end_learning_rate": 0.01, "cycle": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5,
                          "staircase": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "alpha": 0.1}),
    ("CosineDecay", {"initial_learning_rate": 0.0, "decay_steps": 20, "warmup_target": 0.1,
                     "warmup_steps": 10}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.0,
                             "m_mul": 0.8, "alpha": 0.1}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 7, "t_mul": 1.5,
                             "m_mul": 0.9}),
]  # fmt: skip

# -- losses -----------------------------------------------------------------------------------


def probabilities(*shape, seed=0):
    p = uniform(*shape, seed=seed, low=0.05)
    return (p / p.sum(axis=-1, keepdims=True)).astype(np.float32)


def one_hot(labels, classes=CLASSES):
    return np.eye(classes, dtype=np.float32)[labels]


def labels(*shape, seed=0, classes=CLASSES):
    return np.minimum(uniform(*shape, seed=seed) * classes, classes - 1).astype(np.int32)


INPUTS = {
    "labels": lambda: (labels(BATCH, 3, seed=3), probabilities(BATCH, 3, CLASSES, seed=4)),
    "label logits": lambda: (labels(BATCH, 3, seed=3), uniform(BATCH, 3, CLASSES, seed=4, low=-3,
                                                               high=3)),
    "classes": lambda: (one_hot(labels(BATCH, seed=5)), probabilities(BATCH, CLASSES, seed=6)),
    "soft classes": lambda: (probabilities(BATCH, CLASSES, seed=7),
                             probabilities(BATCH, CLASSES, seed=6)),
    "class logits": lambda: (one_hot(labels(BATCH, seed=5)),
                             uniform(BATCH, CLASSES, seed=6, low=-3, high=3)),
    "binary": lambda: (labels(BATCH, 3, seed=8, classes=2).astype(np.float32),
                       uniform(BATCH, 3, seed=9, low=0.05, high=0.95)),
    "binary logits": lambda: (labels(BATCH, 3, seed=8, classes=2).astype(np.float32),
                              uniform(BATCH, 3, seed=9, low=-3, high=3)),
    "numbers": lambda: (uniform(BATCH, 3, seed=11, low=-2, high=2),
                        uniform(BATCH, 3, seed=12, low=-2, high=2)),
    "images": lambda: (uniform(BATCH, 2, 2, 3, seed=11, low=-2, high=2),
                       uniform(BATCH, 2, 2, 3, seed=12, low=-2, high=2)),
    "positive": lambda: (uniform(BATCH, 3, seed=13, low=0.1, high=3),
                         uniform(BATCH, 3, seed=14, low=0.1, high=3)),
    "signs": lambda: (2 * labels(BATCH, 3, seed=15, classes=2).astype(np.float32) - 1,
                      uniform(BATCH, 3, seed=16, low=-2, high=2)),
    "masks": lambda: (labels(BATCH, 2, 3, 1, seed=17, classes=2).astype(np.float32),
                      uniform(BATCH, 2, 3, 1, seed=18, low=0.05, high=0.95)),
}  # fmt: skip

LOSSES = [
    ("BinaryCrossentropy", {}, "binary"),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, "binary"),
    ("BinaryCrossentropy", {"from_logits": True}, "binary logits"),
    ("BinaryFocalCrossentropy", {}, "binary"),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5},
     "binary"),
    ("BinaryFocalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, "binary logits"),
    ("CategoricalCrossentropy", {}, "classes"),
    ("CategoricalCrossentropy", {}, "soft classes"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "classes"),
    ("CategoricalCrossentropy", {"from_logits": True}, "class logits"),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, "class logits"),
    ("CategoricalFocalCrossentropy", {}, "classes"),
    ("CategoricalFocalCrossentropy", {"alpha": 0.4, "gamma": 1.5, "from_logits": True},
     "class logits"),
    ("SparseCategoricalCrossentropy", {}, "labels"),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, "label logits"),
    ("SparseCategoricalCrossentropy", {"ignore_class": 1}, "labels"),
    ("SparseCategoricalCrossentropy", {"ignore_class": 0, "from_logits": True}, "label logits"),
    ("MeanSquaredError", {}, "numbers"),
    ("MeanSquaredError", {}, "images"),
    ("MeanAbsoluteError", {}, "numbers"),
    ("MeanAbsolutePercentageError", {}, "numbers"),
    ("MeanSquaredLogarithmicError", {}, "positive"),
    ("Huber", {}, "numbers"),
    ("Huber", {"delta": 0.5}, "numbers"),
    ("LogCosh", {}, "numbers"),
    ("Hinge", {}, "signs"),
    ("Hinge", {}, "binary"),
    ("SquaredHinge", {}, "signs"),
    ("CategoricalHinge", {}, "class logits"),
    ("KLDivergence", {}, "soft classes"),
    ("Poisson", {}, "positive"),
    ("CosineSimilarity", {}, "numbers"),
    ("Dice", {}, "masks"),
    ("Dice", {"axis": [1, 2, 3]}, "masks"),
    ("Tversky", {}, "masks"),
    ("Tversky", {"alpha": 0.3, "beta": 0.7, "axis": [1, 2, 3]}, "masks"),
]  # fmt: skip
REDUCTIONS = ("sum_over_batch_size", "sum", "mean_with_sample_weight")
LOSS_CASES = {f"{name} {arguments} {inputs}": (name, arguments, inputs)
              for name, arguments, inputs in LOSSES}  # fmt: skip


def sample_weight(n=BATCH):
    return uniform(n, seed=30, low=0.1, high=2)


def row_weight(shape):
    """The samples' weights for losses of this shape: Keras does not spread them by itself."""
    if not shape:
        return sample_weight(1)[0]
    weight = sample_weight(shape[0])
    return np.broadcast_to(weight.reshape(-1, *(1,) * (len(shape) - 1)), shape)


# -- metrics ----------------------------------------------------------------------------------

METRICS = [
    ("BinaryAccuracy", {}, "binary"),
    ("BinaryAccuracy", {"threshold": 0.3}, "binary"),
    ("CategoricalAccuracy", {}, "classes"),
    ("SparseCategoricalAccuracy", {}, "labels"),
    ("TopKCategoricalAccuracy", {"k": 2}, "classes"),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, "labels"),
    ("Precision", {}, "binary"),
    ("Precision", {"thresholds": [0.2, 0.6]}, "binary"),
    ("Precision", {"top_k": 2}, "classes"),
    ("Precision", {"class_id": 1}, "classes"),
    ("Recall", {}, "binary"),
    ("Recall", {"thresholds": 0.3}, "binary"),
    ("Recall", {"top_k": 1}, "classes"),
    ("TruePositives", {}, "binary"),
    ("FalsePositives", {}, "binary"),
    ("TrueNegatives", {}, "binary"),
    ("FalseNegatives", {"thresholds": [0.3, 0.5]}, "binary"),
    ("FBetaScore", {}, "classes"),
    ("FBetaScore", {"average": "micro", "beta": 2.0}, "classes"),
    ("FBetaScore", {"average": "macro", "beta": 0.5}, "classes"),
    ("FBetaScore", {"average": "weighted", "threshold": 0.4}, "classes"),
    ("F1Score", {"average": "macro"}, "classes"),
    ("AUC", {}, "binary"),
    ("AUC", {"curve": "PR"}, "binary"),
    ("AUC", {"curve": "PR", "summation_method": "minoring", "num_thresholds": 20}, "binary"),
    ("AUC", {"summation_method": "majoring", "num_thresholds": 10}, "binary"),
    ("AUC", {"multi_label": True}, "binary"),
    ("AUC", {"from_logits": True}, "binary logits"),
    ("MeanIoU", {"num_classes": CLASSES, "sparse_y_pred": False}, "labels"),
    ("IoU", {"num_classes": CLASSES, "target_class_ids": [0, 2], "sparse_y_pred": False},
     "labels"),
    ("OneHotMeanIoU", {"num_classes": CLASSES}, "classes"),
    ("BinaryIoU", {}, "binary"),
    ("MeanSquaredError", {}, "numbers"),
    ("RootMeanSquaredError", {}, "numbers"),
    ("MeanAbsoluteError", {}, "numbers"),
    ("MeanAbsolutePercentageError", {}, "numbers"),
    ("MeanSquaredLogarithmicError", {}, "positive"),
    ("CosineSimilarity", {}, "numbers"),
    ("LogCoshError", {}, "numbers"),
    ("R2Score", {}, "numbers"),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "numbers"),
    ("R2Score", {"class_aggregation": None}, "numbers"),
    ("R2Score", {"num_regressors": 2}, "numbers"),
    ("Hinge", {}, "signs"),
    ("SquaredHinge", {}, "signs"),
    ("CategoricalHinge", {}, "class logits"),
    ("KLDivergence", {}, "soft classes"),
    ("Poisson", {}, "positive"),
    ("BinaryCrossentropy", {}, "binary"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "classes"),
    ("SparseCategoricalCrossentropy", {}, "labels"),
]  # fmt: skip
METRIC_CASES = {f"{name} {arguments} {inputs}": (name, arguments, inputs)
                for name, arguments, inputs in METRICS}  # fmt: skip

# Where Keras 3.15 gives something else: docs/keras.md says why.
DIFFERENT = {
    "OneHotMeanIoU {'num_classes': 4} classes": "Keras cuts fractions off the samples' weights",
}

OTHER_DEFAULTS = {("TensorBoard", "write_graph"): "there is no graph of TensorFlow's to write"}

# -- weights ----------------------------------------------------------------------------------

MATRIX, KERNEL = (4, 5), (2, 2, 3, 4)
REGULARIZERS = [
    ("L1", {}, MATRIX), ("L2", {}, KERNEL), ("L1L2", {}, MATRIX),
    ("L1L2", {"l1": 0.02, "l2": 0.3}, KERNEL), ("OrthogonalRegularizer", {}, MATRIX),
    ("OrthogonalRegularizer", {"factor": 0.5, "mode": "columns"}, MATRIX),
]  # fmt: skip
CONSTRAINTS = [
    ("MaxNorm", {}, MATRIX), ("MaxNorm", {"max_value": 0.8, "axis": [0, 1, 2]}, KERNEL),
    ("NonNeg", {}, MATRIX), ("UnitNorm", {}, MATRIX), ("UnitNorm", {"axis": [0, 1, 2]}, KERNEL),
    ("MinMaxNorm", {}, MATRIX),
    ("MinMaxNorm", {"min_value": 1.5, "max_value": 2.0, "rate": 0.5, "axis": 1}, MATRIX),
]  # fmt: skip
DRAWN = (3, 3, 16, 32)
INITIALIZERS = [
    ("Zeros", {}, DRAWN), ("Ones", {}, DRAWN), ("Constant", {"value": 0.3}, DRAWN),
    ("RandomNormal", {}, DRAWN), ("RandomUniform", {}, DRAWN), ("TruncatedNormal", {}, DRAWN),
    ("VarianceScaling", {}, DRAWN),
    ("VarianceScaling", {"scale": 2.0, "mode": "fan_out", "distribution": "uniform"}, DRAWN),
    ("VarianceScaling", {"mode": "fan_avg", "distribution": "untruncated_normal"}, DRAWN),
    ("GlorotUniform", {}, DRAWN), ("GlorotNormal", {}, DRAWN), ("HeUniform", {}, DRAWN),
    ("HeNormal", {}, DRAWN), ("LecunUniform", {}, DRAWN), ("LecunNormal", {}, DRAWN),
    ("GlorotUniform", {}, (64, 128)), ("HeNormal", {}, (4096,)),
    ("Orthogonal", {}, DRAWN), ("Orthogonal", {"gain": 2.0}, (32, 64)),
    ("Identity", {"gain": 3.0}, (4, 6)),
]  # fmt: skip


def weight(shape):
    return uniform(*shape, seed=40, low=-1.5, high=1.5)


# -- layers -----------------------------------------------------------------------------------

IMAGE = (2, 5, 6, 2)
LAYERS = [
    ("Dense", {"units": 3}, (2, 4)),
    ("Dense", {"units": 3, "activation": "relu", "use_bias": False}, (2, 3, 4)),
    ("Conv2D", {"filters": 3, "kernel_size": 3}, IMAGE),
    ("Conv2D", {"filters": 3, "kernel_size": [2, 3], "strides": 2, "padding": "same",
                "activation": "tanh"}, IMAGE),
    ("Conv2D", {"filters": 2, "kernel_size": 2, "dilation_rate": 2, "groups": 2}, IMAGE),
    ("DepthwiseConv2D", {"kernel_size": 3, "padding": "same", "depth_multiplier": 2}, IMAGE),
    ("SeparableConv2D", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same",
                         "depth_multiplier": 2, "activation": "tanh"}, IMAGE),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"},
     (2, 3, 2, 2)),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 2, "strides": 2}, (2, 3, 2, 2)),
    ("MaxPooling2D", {}, IMAGE),
    ("MaxPooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, IMAGE),
    ("AveragePooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, IMAGE),
    ("GlobalMaxPooling2D", {}, IMAGE),
    ("GlobalAveragePooling2D", {"keepdims": True}, IMAGE),
    ("BatchNormalization", {}, IMAGE),
    ("BatchNormalization", {"momentum": 0.6, "epsilon": 0.1, "scale": False}, (3, 4)),
    ("Conv2D", {"filters": 3, "kernel_size": 2, "data_format": "channels_first"}, IMAGE),
    ("DepthwiseConv2D", {"kernel_size": 2, "data_format": "channels_first"}, IMAGE),
    ("MaxPooling2D", {"data_format": "channels_first"}, IMAGE),
    ("GlobalAveragePooling2D", {"data_format": "channels_first"}, IMAGE),
    ("Flatten", {"data_format": "channels_first"}, IMAGE),
    ("ZeroPadding2D", {"padding": [1, 2], "data_format": "channels_first"}, IMAGE),
    ("BatchNormalization", {"axis": 1}, IMAGE),
    ("Softmax", {"axis": 1}, IMAGE),
    ("Activation", {"activation": "relu"}, (3, 5)),
    ("Activation", {"activation": "leaky_relu"}, (3, 5)),
    ("Activation", {"activation": "elu"}, (3, 5)),
    ("Activation", {"activation": "sigmoid"}, (3, 5)),
    ("Activation", {"activation": "tanh"}, (3, 5)),
    ("Activation", {"activation": "softmax"}, (3, 5)),
    ("Activation", {"activation": "linear"}, (3, 5)),
    ("ReLU", {}, (3, 5)),
    ("ReLU", {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}, (3, 5)),
    ("LeakyReLU", {}, (3, 5)),
    ("LeakyReLU", {"negative_slope": 0.05}, (3, 5)),
    ("ELU", {}, (3, 5)),
    ("ELU", {"alpha": 0.5}, (3, 5)),
    ("Softmax", {}, (3, 5)),
    ("Flatten", {}, (2, 2, 3, 2)),
    ("Reshape", {"target_shape": [3, -1]}, (2, 2, 3, 2)),
    ("ZeroPadding2D", {"padding": [[1, 0], [2, 1]]}, (2, 2, 3, 2)),
    ("Rescaling", {"scale": 0.5, "offset": -1.0}, (2, 2, 3, 2)),
    ("Dropout", {"rate": 0.5}, (2, 4)),
    ("Add", {}, [(2, 3, 2), (2, 3, 2)]),
    ("Concatenate", {}, [(2, 3, 2), (2, 3, 1)]),
]  # fmt: skip
# random ones with both ends of what they draw the same
SMALL = (1, 4, 5, 2)
PINNED = {
    "RandomRotation": {"factor": [0.1, 0.1]},
    "RandomTranslation": {"height_factor": [0.2, 0.2], "width_factor": [0.15, 0.15]},
    "RandomZoom": {"height_factor": [0.3, 0.3]},
}
LAYERS += [
    (name, {**arguments, "fill_mode": fill, "interpolation": how, "fill_value": 0.7}, SMALL)
    for name, arguments in PINNED.items()
    for fill in ("reflect", "wrap", "constant", "nearest")
    for how in ("bilinear", "nearest")
]
LAYERS += [
    ("RandomRotation", {"factor": [-0.3, -0.3]}, (1, 5, 3, 1)),
    ("RandomTranslation", {"height_factor": [-0.9, -0.9], "width_factor": [1, 1]}, (1, 5, 3, 1)),
    ("RandomZoom", {"height_factor": [0.9, 0.9], "width_factor": [-0.4, -0.4]}, (1, 5, 3, 1)),
    ("RandomZoom", {"height_factor": [0.9, 0.9], "fill_mode": "wrap"}, (1, 3, 4, 3)),
    ("RandomContrast", {"factor": [-0.3, 0.3], "value_range": [-1.5, 1.6]}, SMALL),
    ("RandomContrast", {"factor": [-0.7, 0.7], "value_range": [-9, 9]}, SMALL),
    ("RandomBrightness", {"factor": [0.2, 0.2], "value_range": [-1.5, 1.6]}, SMALL),
    ("CenterCrop", {"height": 3, "width": 2}, IMAGE),
    ("CenterCrop", {"height": 7, "width": 4}, IMAGE),
    ("Normalization", {}, IMAGE), ("Normalization", {"axis": None}, (3, 4)),
    ("Normalization", {"axis": [1, 3], "invert": True}, SMALL),
    ("Normalization", {"mean": [0.5, -1.0], "variance": [2.0, 0.0]}, SMALL),
    ("Normalization", {"axis": [1, -1], "mean": 0.5, "variance": 2.0, "invert": True}, SMALL),
    ("Normalization", {"axis": [1, -1], "mean": [0.5, 1], "variance": [2.0, 0.3]}, SMALL),
]  # fmt: skip
LAYERS += [
    ("Resizing", {"height": height, "width": width, "interpolation": how, **more}, SMALL)
    for how in ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
    for height, width, more in (
        (7, 6, {}), (3, 2, {}), (2, 9, {"crop_to_aspect_ratio": True}),
        (3, 2, {"antialias": how != "nearest"}),
    )
] + [
    ("Resizing", {"height": height, "width": width, "pad_to_aspect_ratio": True, "fill_value": 0.5},
     SMALL) for height, width in ((9, 3), (2, 6), (4, 4))
]  # fmt: skip
LAYER_CASES = {f"{name} {arguments} {shape}": (name, arguments, shape)
               for name, arguments, shape in LAYERS}  # fmt: skip


def layer_inputs(shape):
    shapes = shape if isinstance(shape, list) else [shape]
    return [uniform(*s, seed=50 + i, low=-2, high=2) for i, s in enumerate(shapes)]


def layer_gradient(shape):
    return uniform(*shape, seed=60, low=-1)


def layer_weight(index, name, shape):
    """A layer's weight: variances are positive."""
    low = 0.5 if "variance" in name else -1
    return uniform(*shape, seed=70 + index, low=low)


# -- layers on arrays -------------------------------------------------------------------------

ADAPTED = [(-1, (9, 3, 2, 3)), (None, (9, 3)), ([1, 3], (5, 3, 2, 3)), (2, (5, 3, 4))]
RESIZED = [
    {"height": 7, "width": 11}, {"height": 2, "width": 3, "interpolation": "bicubic"},
    {"height": 9, "width": 7, "interpolation": "lanczos3"},
    {"height": 7, "width": 2, "interpolation": "nearest"},
]  # fmt: skip


def adapted(shape):
    return uniform(*shape, seed=80, low=-1, high=3)


def picture():
    """Bytes, the darkest and the brightest among them."""
    return np.round(uniform(4, 6, 2, seed=81, low=-60, high=315)).clip(0, 255).astype(np.uint8)

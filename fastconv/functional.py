"""The kernels alone, on numpy arrays: forward functions and their ``_backward`` twins.

Arrays are channels last with the batch in front: x (N, H, W, C), weights (KH, KW, IC / groups, OC).
Results are fresh arrays. float64 in gives float64 out, by the reference kernels; everything else is
computed in float32. A ``_backward`` takes the gradient at the output first, then what the forward
took, and returns the gradients in the order of the forward's arrays.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fastconv import activations as _activations
from fastconv import shapes
from fastconv._native import activation as _activation
from fastconv._native import conv as _conv
from fastconv._native import depthwise as _depthwise
from fastconv._native import loss as _loss
from fastconv._native import norm as _norm
from fastconv._native import pool as _pool
from fastconv._native import random as _random
from fastconv._native import weight_gradient as _weight_gradient
from fastconv._native.geometry import ConvGeometry as _ConvGeometry
from fastconv._native.step import Step, execute
from fastconv.losses import check_labels, real_array

Array = np.ndarray

__all__ = [
    "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward", "conv2d",
    "conv2d_backward", "conv2d_transpose", "conv2d_transpose_backward", "dense", "dense_backward",
    "depthwise_conv2d", "depthwise_conv2d_backward", "dropout", "dropout_backward", "elu",
    "elu_backward", "global_avg_pool2d", "global_avg_pool2d_backward", "global_max_pool2d",
    "global_max_pool2d_backward", "leaky_relu", "leaky_relu_backward", "max_pool2d",
    "max_pool2d_backward", "relu", "relu_backward", "sigmoid", "sigmoid_backward", "softmax",
    "softmax_backward", "sparse_categorical_crossentropy", "tanh", "tanh_backward",
]  # fmt: skip


def _arrays(**given: Any) -> list[Array]:
    """The arrays in one compute type: float64 when all are, else float32."""
    arrays = [real_array(value, name) for name, value in given.items()]
    double = all(array.dtype == np.float64 for array in arrays)
    return [np.ascontiguousarray(a, np.float64 if double else np.float32) for a in arrays]


def _images(x: Array, name: str) -> Array:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{name} must be images (N, H, W, C), not an array of shape {x.shape}")
    return x


def _same(a: Array, shape: Sequence[int], name: str) -> None:
    if a.shape != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {a.shape}")


def _run(step: Step, n: int, *arrays: Array | None, **options: Any) -> None:
    """Run a step whose slots are 0, 1, 2 … in the order of the arrays."""
    execute(step, {i: a for i, a in enumerate(arrays) if a is not None}, n, **options)


# -- convolution and dense -----------------------------------------------------------------------


def _conv_geometry(
    x: Sequence[int], weight: Array, strides: Any, padding: Any, dilation: Any, groups: int
) -> _ConvGeometry:
    if weight.ndim != 4:
        raise ValueError(f"weight must be (KH, KW, IC / groups, OC), not {weight.shape}")
    strides = shapes.integers(strides, 2, "strides")
    dilation = shapes.integers(dilation, 2, "dilation_rate")
    groups = shapes.integer(groups, "groups")
    kernel = weight.shape[:2]
    if x[-1] != weight.shape[2] * groups:
        raise ValueError(
            f"x has {x[-1]} channels, the weight {weight.shape} with {groups} groups "
            f"takes {weight.shape[2] * groups}"
        )
    padding = shapes.check_padding(padding, 2)
    pads = shapes.resolve_padding(padding, x[1:3], kernel, strides, dilation)
    shapes.window_shape("conv2d", tuple(x[1:3]), kernel, strides, dilation, padding)
    return _ConvGeometry(
        in_size=shapes.three(x[1:3], 1), kernel=shapes.three(kernel, 1),
        strides=shapes.three(strides, 1), dilation=shapes.three(dilation, 1),
        pads=shapes.three(pads, (0, 0)), channels=x[-1], filters=weight.shape[-1], groups=groups,
    )  # fmt: skip


def conv2d(
    x: Any, weight: Any, bias: Any = None, strides: Any = 1, padding: Any = "valid",
    dilation_rate: Any = 1, groups: int = 1,
) -> Array:  # fmt: skip
    """2-D convolution: x (N, H, W, IC), weight (KH, KW, IC / groups, OC) → (N, OH, OW, OC)."""
    x, weight, *rest = _arrays(x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    g = _conv_geometry(_images(x, "x").shape, weight, strides, padding, dilation_rate, groups)
    for b in rest:
        _same(b, (g.filters,), "bias")
    panel = np.empty(g.forward_panel_size, x.dtype)
    _run(_conv.PackForward(g, weight=0, panel=1), 1, weight, panel)
    y = np.empty((len(x), *g.out_size[1:], g.filters), x.dtype)
    step = _conv.ConvForward(g, x=0, panel=1, bias=3 if rest else -1, y=2)
    _run(step, len(x), x, panel, y, *rest)
    return y


def conv2d_backward(
    dy: Any, x: Any, weight: Any, strides: Any = 1, padding: Any = "valid",
    dilation_rate: Any = 1, groups: int = 1,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Gradients (dx, dweight, dbias) of `conv2d` from dy (N, OH, OW, OC)."""
    dy, x, weight = _arrays(dy=dy, x=x, weight=weight)
    g = _conv_geometry(_images(x, "x").shape, weight, strides, padding, dilation_rate, groups)
    _same(dy, (len(x), *g.out_size[1:], g.filters), "dy")
    panel = np.empty(g.backward_panel_size, x.dtype)
    _run(_conv.PackBackward(g, weight=0, panel=1), 1, weight, panel)
    dx, dweight = np.empty_like(x), np.empty_like(weight)
    _run(_conv.ConvInputGradient(g, dy=0, panel=1, dx=2), len(x), dy, panel, dx)
    scratch = np.empty(g.scratch_size, x.dtype)
    step: Step = _weight_gradient.ConvWeightGradient(g, x=0, dy=1, dw=2, scratch=3)
    _run(step, len(x), x, dy, dweight, scratch)
    return dx, dweight, _bias_gradient(dy)


def _bias_gradient(dy: Array) -> Array:
    channels = dy.shape[-1]
    db = np.empty(channels, dy.dtype)
    scratch = np.empty(_activation.BiasBackward.scratch(channels), dy.dtype)
    pixels, c = prod(dy.shape[1:-1]), channels
    step = _activation.BiasBackward(None, pixels, c, -1, c, 0, c, -1, c, 1, 2)
    _run(step, len(dy), dy, db, scratch)
    return db


def _depthwise_weight(x: Array, weight: Array) -> Array:
    """(KH, KW, C, M) as the weight of a convolution with C groups: (KH, KW, 1, C · M)."""
    if weight.ndim != 4:
        raise ValueError(f"weight must be (KH, KW, C, depth multiplier), not {weight.shape}")
    if _images(x, "x").shape[-1] != weight.shape[2]:
        raise ValueError(f"x has {x.shape[-1]} channels, the weight {weight.shape[2]}")
    return weight.reshape(*weight.shape[:2], 1, -1)


def depthwise_conv2d(
    x: Any, weight: Any, bias: Any = None, strides: Any = 1, padding: Any = "valid",
    dilation_rate: Any = 1,
) -> Array:  # fmt: skip
    """Each channel by itself: x (N, H, W, C), weight (KH, KW, C, M) → (N, OH, OW, C · M)."""
    x, weight, *rest = _arrays(x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    w = _depthwise_weight(x, weight)
    x = _repeat_channels(x, weight.shape[3])
    g = _conv_geometry(x.shape, w, strides, padding, dilation_rate, x.shape[-1])
    for b in rest:
        _same(b, (g.filters,), "bias")
    y = np.empty((len(x), *g.out_size[1:], g.filters), x.dtype)
    step = _depthwise.DepthwiseForward(g, x=0, weight=1, y=2, bias=3 if rest else -1)
    _run(step, len(x), x, w, y, *rest)
    return y


def depthwise_conv2d_backward(
    dy: Any, x: Any, weight: Any, strides: Any = 1, padding: Any = "valid", dilation_rate: Any = 1
) -> tuple[Array, Array, Array]:
    """Gradients (dx, dweight, dbias) of `depthwise_conv2d` from dy (N, OH, OW, C · M)."""
    dy, x, weight = _arrays(dy=dy, x=x, weight=weight)
    w = _depthwise_weight(x, weight)
    channels, times = weight.shape[2:]
    x = _repeat_channels(x, times)
    g = _conv_geometry(x.shape, w, strides, padding, dilation_rate, x.shape[-1])
    _same(dy, (len(x), *g.out_size[1:], g.filters), "dy")
    dx, dw = np.empty_like(x), np.empty_like(weight)
    _run(_depthwise.DepthwiseInputGradient(g, dy=0, weight=1, dx=2), len(x), dy, w, dx)
    scratch = np.empty(_depthwise.DepthwiseWeightGradient.scratch_size(g), x.dtype)
    step = _depthwise.DepthwiseWeightGradient(g, x=0, dy=1, dw=2, scratch=3)
    _run(step, len(x), x, dy, dw, scratch)
    if times > 1:
        wide, dx = dx, np.empty((*x.shape[:-1], channels), x.dtype)
        pixels = prod(x.shape[1:3])
        fold = _depthwise.FoldChannels(
            pixels, channels, times, 0, channels * times, 1, channels
        )  # fmt: skip
        _run(fold, len(x), wide, dx)
    return dx, dw, _bias_gradient(dy)


def _repeat_channels(x: Array, times: int) -> Array:
    if times == 1:
        return x
    n, h, w, channels = x.shape
    y = np.empty((n, h, w, channels * times), x.dtype)
    step = _depthwise.RepeatChannels(h * w, channels, times, 0, channels, 1, channels * times)
    _run(step, n, x, y)
    return y


def _transposed_geometry(
    x: Array, weight: Array, strides: Any, padding: str, output_padding: Any, dilation: Any
) -> _ConvGeometry:
    """The convolution whose input gradient the transposed one is: from its output to x."""
    if weight.ndim != 4:
        raise ValueError(f"weight must be (KH, KW, OC, IC), not {weight.shape}")
    if _images(x, "x").shape[-1] != weight.shape[3]:
        raise ValueError(f"x has {x.shape[-1]} channels, the weight {weight.shape[3]}")
    kernel, filters = weight.shape[:2], weight.shape[2]
    strides = shapes.integers(strides, 2, "strides")
    dilation = shapes.integers(dilation, 2, "dilation_rate")
    out, pads = shapes.transposed_window(
        "conv2d_transpose", x.shape[1:3], kernel, strides, dilation,
        shapes.choice(padding, ["valid", "same"], "padding"),
        shapes.check_output_padding(output_padding, strides),
    )  # fmt: skip
    return _ConvGeometry(
        in_size=shapes.three(out, 1), kernel=shapes.three(kernel, 1),
        strides=shapes.three(strides, 1), dilation=shapes.three(dilation, 1),
        pads=shapes.three([(before, max(after, 0)) for before, after in pads], (0, 0)),
        channels=filters, filters=x.shape[-1],
    )  # fmt: skip


def conv2d_transpose(
    x: Any, weight: Any, bias: Any = None, strides: Any = 1, padding: str = "valid",
    output_padding: Any = None, dilation_rate: Any = 1,
) -> Array:  # fmt: skip
    """Transposed convolution: x (N, H, W, IC), weight (KH, KW, OC, IC) → (N, OH, OW, OC)."""
    x, weight, *rest = _arrays(x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    g = _transposed_geometry(x, weight, strides, padding, output_padding, dilation_rate)
    for b in rest:
        _same(b, (g.channels,), "bias")
    panel = np.empty(g.backward_panel_size, x.dtype)
    _run(_conv.PackBackward(g, weight=0, panel=1), 1, weight, panel)
    y = np.empty((len(x), *g.in_size[1:], g.channels), x.dtype)
    step = _conv.ConvInputGradient(g, dy=0, panel=1, dx=2, bias=3 if rest else -1)
    _run(step, len(x), x, panel, y, *rest)
    return y


def conv2d_transpose_backward(
    dy: Any, x: Any, weight: Any, strides: Any = 1, padding: str = "valid",
    output_padding: Any = None, dilation_rate: Any = 1,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Gradients (dx, dweight, dbias) of `conv2d_transpose` from dy (N, OH, OW, OC)."""
    dy, x, weight = _arrays(dy=dy, x=x, weight=weight)
    g = _transposed_geometry(x, weight, strides, padding, output_padding, dilation_rate)
    _same(dy, (len(x), *g.in_size[1:], g.channels), "dy")
    panel = np.empty(g.forward_panel_size, x.dtype)
    _run(_conv.PackForward(g, weight=0, panel=1), 1, weight, panel)
    dx, dweight = np.empty_like(x), np.empty_like(weight)
    _run(_conv.ConvForward(g, x=0, panel=1, y=2), len(x), dy, panel, dx)
    scratch = np.empty(g.scratch_size, x.dtype)
    step = _weight_gradient.ConvWeightGradient(g, x=0, dy=1, dw=2, scratch=3)
    _run(step, len(x), dy, x, dweight, scratch)
    return dx, dweight, _bias_gradient(dy)


def _as_pixels(x: Array, name: str) -> Array:
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"{name} must have the shape (N, …, channels), not {x.shape}")
    return x.reshape(len(x), 1, -1, x.shape[-1])


def dense(x: Any, weight: Any, bias: Any = None) -> Array:
    """``x @ weight + bias``: x (N, …, I), weight (I, O) → (N, …, O)."""
    x, weight, *rest = _arrays(x=x, weight=weight, **({} if bias is None else {"bias": bias}))
    if weight.ndim != 2:
        raise ValueError(f"weight must be (I, O), not {weight.shape}")
    y = conv2d(_as_pixels(x, "x"), weight[None, None], rest[0] if rest else None)
    return y.reshape(*x.shape[:-1], weight.shape[1])


def dense_backward(dy: Any, x: Any, weight: Any) -> tuple[Array, Array, Array]:
    """Gradients (dx, dweight, dbias) of `dense` from dy (N, …, O)."""
    dy, x, weight = _arrays(dy=dy, x=x, weight=weight)
    if weight.ndim != 2:
        raise ValueError(f"weight must be (I, O), not {weight.shape}")
    dx, dweight, dbias = conv2d_backward(
        _as_pixels(dy, "dy"), _as_pixels(x, "x"), weight[None, None]
    )
    return dx.reshape(x.shape), dweight[0, 0], dbias


# -- pooling -------------------------------------------------------------------------------------


def _pool_geometry(
    x: Sequence[int], pool_size: Any, strides: Any, padding: Any
) -> _pool.PoolGeometry:
    window = shapes.integers(pool_size, 2, "pool_size")
    strides = window if strides is None else shapes.integers(strides, 2, "strides")
    padding = shapes.check_padding(padding, 2)
    pads = shapes.resolve_padding(padding, x[1:3], window, strides, (1, 1))
    shapes.window_shape("pooling", tuple(x[1:3]), window, strides, (1, 1), padding)
    return _pool.PoolGeometry(
        in_size=shapes.three(x[1:3], 1), window=shapes.three(window, 1),
        strides=shapes.three(strides, 1), pads=shapes.three(pads, (0, 0)), channels=x[-1],
        x_stride=x[-1], y_stride=x[-1],
    )  # fmt: skip


def _max_pool(x: Array, g: _pool.PoolGeometry) -> tuple[Array, Array]:
    y = np.empty((len(x), *g.out_size[1:], x.shape[-1]), x.dtype)
    winner = np.empty(y.shape, f"u{g.index_size}")
    _run(_pool.MaxPoolForward(g, x=0, y=1, index=2), len(x), x, y, winner)
    return y, winner


def max_pool2d(x: Any, pool_size: Any = 2, strides: Any = None, padding: Any = "valid") -> Array:
    """Largest value of each window: x (N, H, W, C) → (N, OH, OW, C)."""
    (x,) = _arrays(x=x)
    return _max_pool(x, _pool_geometry(_images(x, "x").shape, pool_size, strides, padding))[0]


def max_pool2d_backward(
    dy: Any, x: Any, pool_size: Any = 2, strides: Any = None, padding: Any = "valid"
) -> Array:
    """Gradient at x of `max_pool2d` from dy (N, OH, OW, C)."""
    dy, x = _arrays(dy=dy, x=x)
    g = _pool_geometry(_images(x, "x").shape, pool_size, strides, padding)
    _, winner = _max_pool(x, g)
    _same(dy, winner.shape, "dy")
    dx = np.empty_like(x)
    _run(_pool.MaxPoolBackward(g, dy=0, index=1, dx=2), len(x), dy, winner, dx)
    return dx


def avg_pool2d(
    x: Any, pool_size: Any = 2, strides: Any = None, padding: Any = "valid",
    count_include_pad: bool = False,
) -> Array:  # fmt: skip
    """Mean of each window: x (N, H, W, C) → (N, OH, OW, C)."""
    (x,) = _arrays(x=x)
    g = _pool_geometry(_images(x, "x").shape, pool_size, strides, padding)
    y = np.empty((len(x), *g.out_size[1:], x.shape[-1]), x.dtype)
    _run(_pool.AveragePoolForward(g, count_include_pad, x=0, y=1), len(x), x, y)
    return y


def avg_pool2d_backward(
    dy: Any, x: Any, pool_size: Any = 2, strides: Any = None, padding: Any = "valid",
    count_include_pad: bool = False,
) -> Array:  # fmt: skip
    """Gradient at x of `avg_pool2d` from dy (N, OH, OW, C)."""
    dy, x = _arrays(dy=dy, x=x)
    g = _pool_geometry(_images(x, "x").shape, pool_size, strides, padding)
    _same(dy, (len(x), *g.out_size[1:], x.shape[-1]), "dy")
    dx = np.empty_like(x)
    _run(_pool.AveragePoolBackward(g, count_include_pad, dy=0, dx=1), len(x), dy, dx)
    return dx


def _one_pixel(x: Array) -> dict[str, int]:
    return {"pixels": x.shape[1] * x.shape[2], "channels": x.shape[3], "x_stride": x.shape[3],
            "y_stride": x.shape[3]}  # fmt: skip


def global_avg_pool2d(x: Any) -> Array:
    """Mean of each channel: x (N, H, W, C) → (N, C)."""
    (x,) = _arrays(x=x)
    y = np.empty((len(_images(x, "x")), x.shape[-1]), x.dtype)
    _run(_pool.GlobalAveragePoolForward(**_one_pixel(x), x=0, y=1), len(x), x, y)
    return y


def global_avg_pool2d_backward(dy: Any, x: Any) -> Array:
    """Gradient at x of `global_avg_pool2d` from dy (N, C)."""
    dy, x = _arrays(dy=dy, x=x)
    _same(dy, (len(_images(x, "x")), x.shape[-1]), "dy")
    dx = np.empty_like(x)
    sizes = _one_pixel(x)
    step = _pool.GlobalAveragePoolBackward(
        pixels=sizes["pixels"], channels=sizes["channels"], dy=0, dy_stride=x.shape[-1],
        dx=1, dx_stride=x.shape[-1],
    )  # fmt: skip
    _run(step, len(x), dy, dx)
    return dx


def _global_max_pool(x: Array) -> tuple[Array, Array]:
    y = np.empty((len(_images(x, "x")), x.shape[-1]), x.dtype)
    winner = np.empty(y.shape, np.int32)
    _run(_pool.GlobalMaxPoolForward(**_one_pixel(x), x=0, y=1, index=2), len(x), x, y, winner)
    return y, winner


def global_max_pool2d(x: Any) -> Array:
    """Largest value of each channel: x (N, H, W, C) → (N, C)."""
    (x,) = _arrays(x=x)
    return _global_max_pool(x)[0]


def global_max_pool2d_backward(dy: Any, x: Any) -> Array:
    """Gradient at x of `global_max_pool2d` from dy (N, C)."""
    dy, x = _arrays(dy=dy, x=x)
    _, winner = _global_max_pool(x)
    _same(dy, winner.shape, "dy")
    dx = np.empty_like(x)
    step = _pool.GlobalMaxPoolBackward(
        pixels=x.shape[1] * x.shape[2], channels=x.shape[-1], dy=0, dy_stride=x.shape[-1],
        index=1, dx=2, dx_stride=x.shape[-1],
    )  # fmt: skip
    _run(step, len(x), dy, winner, dx)
    return dx


# -- activations ---------------------------------------------------------------------------------


def _activate(x: Any, f: _activations.Activation) -> Array:
    (x,) = _arrays(x=x)
    pixels = _as_pixels(x, "x")
    y = np.empty_like(x)
    c = x.shape[-1]
    if f.name == "softmax":
        step: Step = _activation.SoftmaxForward(pixels.shape[2], c, 0, c, 1, c)
    else:
        kind = getattr(_activation, f.name.upper())
        step = _activation.ActivationForward(
            kind, f.alpha, f.beta, f.gamma, pixels.shape[2], c, 0, c, 1, c
        )
    _run(step, len(x), x, y)
    return y


def _activate_backward(dy: Any, x: Any, f: _activations.Activation) -> Array:
    dy, x = _arrays(dy=dy, x=x)
    _same(dy, x.shape, "dy")
    y = _activate(x, f)
    dx = np.empty_like(x)
    pixels, c = _as_pixels(x, "x").shape[2], x.shape[-1]
    if f.name == "softmax":
        step: Step = _activation.SoftmaxBackward(pixels, c, 0, c, 1, c, 2, c)
    else:
        kind = getattr(_activation, f.name.upper())
        step = _activation.ActivationBackward(
            kind, f.alpha, f.beta, f.gamma, pixels, c, 0, c, 1, c, 2, c
        )
    _run(step, len(x), y, dy, dx)
    return dx


def relu(x: Any, negative_slope: float = 0.0) -> Array:
    """max(x, 0), or negative_slope · x below 0."""
    return _activate(x, _activations.Activation("relu", shapes.real(negative_slope, "slope", 0)))


def relu_backward(dy: Any, x: Any, negative_slope: float = 0.0) -> Array:
    """Gradient at x of `relu`."""
    f = _activations.Activation("relu", shapes.real(negative_slope, "slope", 0))
    return _activate_backward(dy, x, f)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Array:
    """x, or negative_slope · x below 0."""
    return relu(x, negative_slope)


def leaky_relu_backward(dy: Any, x: Any, negative_slope: float = 0.2) -> Array:
    """Gradient at x of `leaky_relu`."""
    return relu_backward(dy, x, negative_slope)


def elu(x: Any, alpha: float = 1.0) -> Array:
    """x, or alpha · (eˣ − 1) below 0."""
    return _activate(x, _activations.Activation("elu", shapes.real(alpha, "alpha", 0)))


def elu_backward(dy: Any, x: Any, alpha: float = 1.0) -> Array:
    """Gradient at x of `elu`."""
    f = _activations.Activation("elu", shapes.real(alpha, "alpha", 0))
    return _activate_backward(dy, x, f)


def sigmoid(x: Any) -> Array:
    """1 / (1 + e⁻ˣ)."""
    return _activate(x, _activations.get("sigmoid"))


def sigmoid_backward(dy: Any, x: Any) -> Array:
    """Gradient at x of `sigmoid`."""
    return _activate_backward(dy, x, _activations.get("sigmoid"))


def tanh(x: Any) -> Array:
    """Hyperbolic tangent."""
    return _activate(x, _activations.get("tanh"))


def tanh_backward(dy: Any, x: Any) -> Array:
    """Gradient at x of `tanh`."""
    return _activate_backward(dy, x, _activations.get("tanh"))


def softmax(x: Any) -> Array:
    """e^(x − max) / Σ e^(x − max) over the last axis."""
    return _activate(x, _activations.SOFTMAX)


def softmax_backward(dy: Any, x: Any) -> Array:
    """Gradient at x of `softmax`."""
    return _activate_backward(dy, x, _activations.SOFTMAX)


# -- batch norm, dropout, loss -------------------------------------------------------------------


def batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float = 1e-3) -> tuple[Array, Array, Array]:
    """Normalise each channel by the batch: returns (y, mean, biased variance)."""
    x, gamma, beta = _arrays(x=x, gamma=gamma, beta=beta)
    pixels, c = _as_pixels(x, "x").shape[2], x.shape[-1]
    _same(gamma, (c,), "gamma")
    _same(beta, (c,), "beta")
    mean, variance, y = np.empty_like(gamma), np.empty_like(gamma), np.empty_like(x)
    scratch = np.empty(_norm.BatchNormStatistics.scratch(c), x.dtype)
    _run(_norm.BatchNormStatistics(pixels, c, 0, c, 1, 2, 3), len(x), x, mean, variance, scratch)
    epsilon = shapes.real(epsilon, "epsilon", 0)
    step = _norm.BatchNormForward(pixels, c, epsilon, 0, c, 1, 2, 3, 4, 5, c)
    _run(step, len(x), x, mean, variance, gamma, beta, y)
    return y, mean, variance


def batch_norm_backward(
    dy: Any, x: Any, gamma: Any, epsilon: float = 1e-3
) -> tuple[Array, Array, Array]:
    """Gradients (dx, dgamma, dbeta) of `batch_norm` from dy."""
    dy, x, gamma = _arrays(dy=dy, x=x, gamma=gamma)
    _same(dy, x.shape, "dy")
    _, mean, variance = batch_norm(x, gamma, np.zeros_like(gamma), epsilon)
    pixels, c = _as_pixels(x, "x").shape[2], x.shape[-1]
    dx, dgamma, dbeta = np.empty_like(x), np.empty_like(gamma), np.empty_like(gamma)
    scratch = np.empty(_norm.BatchNormBackward.scratch(c), x.dtype)
    step = _norm.BatchNormBackward(
        pixels, c, shapes.real(epsilon, "epsilon", 0), 0, c, 1, 2, 3, 4, c, 5, c, 6, 7, 8
    )
    _run(step, len(x), x, mean, variance, gamma, dy, dx, dgamma, dbeta, scratch)
    return dx, dgamma, dbeta


def dropout(x: Any, rate: float, seed: int) -> Array:
    """x with a share ``rate`` of its values dropped and the rest scaled by 1 / (1 − rate)."""
    (x,) = _arrays(x=x)
    y = np.empty_like(x)
    size = x.size // len(_as_pixels(x, "x"))
    seed = shapes.integer(seed, "seed", 0)
    _run(_random.DropoutForward(rate, size, 0, 0, 1), len(x), x, y, training=True, seed=seed)
    return y


def dropout_backward(dy: Any, rate: float, seed: int) -> Array:
    """Gradient at x of `dropout`: dy under the same mask."""
    return dropout(dy, rate, seed)


def sparse_categorical_crossentropy(logits: Any, labels: Any) -> tuple[float, Array]:
    """Mean of −log softmax(logits)[label], and its gradient at the logits (N, classes)."""
    (logits,) = _arrays(logits=logits)
    rows = _as_pixels(logits, "logits").shape[2]
    checked = check_labels(labels, logits.shape[1:], "labels").astype(np.int32)
    if len(checked) != len(logits):
        raise ValueError(f"{len(checked)} labels for {len(logits)} rows of logits")
    c = logits.shape[-1]
    value, dx = np.empty(1), np.empty_like(logits)
    step = _loss.SparseCrossEntropy(
        rows_per_sample=rows, classes=c, from_logits=True, fused=False, scale=1.0, p=0, p_stride=c,
        labels=1, loss=2, dx=3, dx_stride=c, scratch=4,
    )  # fmt: skip
    _run(step, len(logits), logits, checked, value, dx, np.empty(_loss.SCRATCH))
    return float(value[0]), dx

"""The textbook form of every layer, loss and update in plain numpy and float64.

Nothing here is fast and nothing here knows a kernel: these are the definitions that the kernels
are compared with, written so that a reader can check them against a book. `test_reference.py`
proves each backward numerically, and each forward on numbers worked by hand.

Arrays are channels last: x is (N, *spatial, C) with one, two or three spatial axes, read off from
x itself. Sizes, strides and dilations are one integer for all axes or one per axis. Padding is
"valid", "same" (as TensorFlow: the odd element goes to the end) or a (before, after) pair per axis.
"""

from itertools import product

import numpy as np

# ---- geometry -----------------------------------------------------------------------------------


def per_axis(value, axes):
    """One integer per spatial axis, from one integer for all or a sequence of them."""
    values = (value,) * axes if np.ndim(value) == 0 else tuple(value)
    if len(values) != axes:
        raise ValueError(f"expected {axes} values, one per spatial axis, got {value!r}")
    return tuple(int(v) for v in values)


def output_size(size, kernel, stride, dilation, before, after):
    """Windows that fit on one axis of `size` elements padded by `before` and `after`: the window
    spans (kernel − 1)·dilation + 1 elements, the first starts at 0, each next one stride later."""
    span = (kernel - 1) * dilation + 1
    return (before + size + after - span) // stride + 1


def same_padding(size, kernel, stride, dilation):
    """(before, after) of "same" padding on one axis: as little as gives ceil(size / stride)
    windows, split in halves, the odd element at the end."""
    span = (kernel - 1) * dilation + 1
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


def padding_pairs(sizes, kernel_size, strides, padding, dilation):
    """(before, after) per spatial axis for padding "valid", "same" or explicit pairs."""
    if isinstance(padding, str):
        if padding == "valid":
            return [(0, 0) for _ in sizes]
        if padding == "same":
            axes = zip(sizes, kernel_size, strides, dilation, strict=True)
            return [same_padding(*axis) for axis in axes]
        raise ValueError(f"padding must be 'valid', 'same' or pairs, got {padding!r}")
    pairs = [(int(before), int(after)) for before, after in padding]
    if len(pairs) != len(sizes):
        raise ValueError(f"expected {len(sizes)} padding pairs, got {padding!r}")
    return pairs


def pad(x, pairs, value=0.0):
    """x (N, *spatial, C) with `before` and `after` elements of `value` around each spatial axis."""
    return np.pad(x, [(0, 0), *pairs, (0, 0)], constant_values=value)


def unpad(xp, pairs):
    """The inverse of `pad`: the part of xp that lies inside the padding."""
    inside = (slice(b, n - a) for n, (b, a) in zip(xp.shape[1:-1], pairs, strict=True))
    return xp[:, *inside, :]


def sliding(x, kernel_size, strides, padding, dilation):
    """How a window slides over x (N, *spatial, C): the padding pairs, and for each tap of the
    window, in row-major order, the slices that pick from the *padded* x what that tap sees, one
    element per window. So `pad(x)[where]` is (N, *output, C): the tap's view of the input.
    strides=None sets the windows side by side."""
    axes = x.ndim - 2
    strides = kernel_size if strides is None else strides
    kernel_size, strides, dilation = (per_axis(v, axes) for v in (kernel_size, strides, dilation))
    sizes = x.shape[1:-1]
    pairs = padding_pairs(sizes, kernel_size, strides, padding, dilation)
    outputs = [
        output_size(n, k, s, d, *p)
        for n, k, s, d, p in zip(sizes, kernel_size, strides, dilation, pairs, strict=True)
    ]
    if min(outputs) < 1:
        raise ValueError(f"no window of {kernel_size} fits: output sizes would be {outputs}")
    taps = {}
    for tap in product(*map(range, kernel_size)):
        start = [k * d for k, d in zip(tap, dilation, strict=True)]
        picks = (
            slice(b, b + (o - 1) * s + 1, s)
            for b, o, s in zip(start, outputs, strides, strict=True)
        )
        taps[tap] = (slice(None), *picks, slice(None))
    return pairs, taps


# ---- convolution and dense ----------------------------------------------------------------------


def conv(x, w, b=None, strides=1, padding="valid", dilation=1, groups=1):
    """Convolution (cross-correlation, as everywhere in deep learning).

    x (N, *spatial, IC), w (*kernel, IC/groups, OC), b (OC) or None → y (N, *output, OC). Each tap
    adds its view of the input times its IC × OC matrix. Group g reads the g-th run of IC/groups
    input channels and writes the g-th run of OC/groups output channels."""
    x, w = np.asarray(x, float), np.asarray(w, float)
    if groups > 1:
        parts = zip(_split(x, groups), _split(w, groups), strict=True)
        y = np.concatenate([conv(xg, wg, None, strides, padding, dilation) for xg, wg in parts], -1)
    else:
        pairs, taps = sliding(x, w.shape[:-2], strides, padding, dilation)
        xp = pad(x, pairs)
        y = sum(xp[where] @ w[tap] for tap, where in taps.items())
    return y if b is None else y + np.asarray(b, float)


def conv_backward(x, w, dy, strides=1, padding="valid", dilation=1, groups=1):
    """Gradients of `conv`: x, w as there, dy (N, *output, OC) → dx like x, dw like w, db (OC).

    Where forward reads xp[where] @ w[tap], backward hands dy back along the same slices: dy·wᵀ is
    added to the elements that were read, and the tap's weights collect x·dy over all outputs."""
    x, w, dy = (np.asarray(a, float) for a in (x, w, dy))
    if groups > 1:
        parts = zip(_split(x, groups), _split(w, groups), _split(dy, groups), strict=True)
        grads = [conv_backward(xg, wg, g, strides, padding, dilation) for xg, wg, g in parts]
        dx, dw, db = (np.concatenate(g, -1) for g in zip(*grads, strict=True))
        return dx, dw, db
    pairs, taps = sliding(x, w.shape[:-2], strides, padding, dilation)
    xp = pad(x, pairs)
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for tap, where in taps.items():
        dxp[where] += dy @ w[tap].T
        dw[tap] = _pixels(xp[where]).T @ _pixels(dy)
    return unpad(dxp, pairs), dw, _pixels(dy).sum(0)


def depthwise_conv(x, w, b=None, strides=1, padding="valid", dilation=1):
    """Every channel convolved by itself: x (N, *spatial, C), w (*kernel, C, M), b (C·M) or None
    → y (N, *output, C·M); channel c fills the outputs c·M … c·M + M − 1."""
    x, w = np.asarray(x, float), np.asarray(w, float)
    pairs, taps = sliding(x, w.shape[:-2], strides, padding, dilation)
    xp = pad(x, pairs)
    y = sum(xp[where][..., None] * w[tap] for tap, where in taps.items())
    y = y.reshape(*y.shape[:-2], -1)
    return y if b is None else y + np.asarray(b, float)


def depthwise_conv_backward(x, w, dy, strides=1, padding="valid", dilation=1):
    """Gradients of `depthwise_conv`: dx like x, dw like w, db (C·M)."""
    x, w, dy = (np.asarray(a, float) for a in (x, w, dy))
    pairs, taps = sliding(x, w.shape[:-2], strides, padding, dilation)
    xp, g = pad(x, pairs), dy.reshape(*dy.shape[:-1], *w.shape[-2:])
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for tap, where in taps.items():
        dxp[where] += (g * w[tap]).sum(-1)
        dw[tap] = (xp[where][..., None] * g).sum(tuple(range(dy.ndim - 1)))
    return unpad(dxp, pairs), dw, _pixels(dy).sum(0)


def transposed_size(size, kernel, stride, dilation, padding, output_padding=None):
    """Outputs of a transposed window on one axis, and how many of the uncropped ones lie before
    them, as Keras has it: "same" makes size · stride, "valid" all that windows touch, no less than
    a stride for each."""
    span = (kernel - 1) * dilation + 1
    if padding == "valid":
        extra = max(stride - span, 0) if output_padding is None else output_padding
        return (size - 1) * stride + span + extra, 0
    tail = stride if output_padding is None else span % 2 + output_padding
    cut = span - tail  # of both sides; the smaller half before, the odd one after
    return (size - 1) * stride + tail, max(cut // 2, 0)


def _transposed_taps(x, kernel_size, strides, padding, output_padding, dilation):
    """The output of all windows without cropping, what of it is kept, and for each tap the slices
    to which it brings its products."""
    axes = x.ndim - 2
    strides, dilation = per_axis(strides, axes), per_axis(dilation, axes)
    extra = (None,) * axes if output_padding is None else per_axis(output_padding, axes)
    whole, kept = [], []
    for n, k, s, d, e in zip(x.shape[1:-1], kernel_size, strides, dilation, extra, strict=True):
        size, before = transposed_size(n, k, s, d, padding, e)
        whole.append(max((n - 1) * s + (k - 1) * d + 1, before + size))
        kept.append(slice(before, before + size))
    taps = {}
    for tap in product(*map(range, kernel_size)):
        axes = zip(tap, dilation, x.shape[1:-1], strides, strict=True)
        steps = [slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in axes]
        taps[tap] = (slice(None), *steps)
    return whole, (slice(None), *kept), taps


def conv_transpose(x, w, b=None, strides=1, padding="valid", output_padding=None, dilation=1):
    """Transposed convolution: x (N, *spatial, IC), w (*kernel, OC, IC), b (OC) or None.

    Every input pixel brings its products with the window to the outputs under it; windows lie
    `strides` apart, and the padding says what of the outputs is kept."""
    x, w = np.asarray(x, float), np.asarray(w, float)
    whole, kept, taps = _transposed_taps(
        x, w.shape[:-2], strides, padding, output_padding, dilation
    )
    y = np.zeros((len(x), *whole, w.shape[-2]))
    for tap, where in taps.items():
        y[where] += x @ w[tap].T
    return y[kept] if b is None else y[kept] + np.asarray(b, float)


def conv_transpose_backward(x, w, dy, strides=1, padding="valid", output_padding=None, dilation=1):
    """Gradients of `conv_transpose`: dx like x, dw like w, db (OC)."""
    x, w, dy = (np.asarray(a, float) for a in (x, w, dy))
    whole, kept, taps = _transposed_taps(
        x, w.shape[:-2], strides, padding, output_padding, dilation
    )
    g = np.zeros((len(x), *whole, w.shape[-2]))
    g[kept] = dy
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for tap, where in taps.items():
        dx += g[where] @ w[tap]
        dw[tap] = _pixels(g[where]).T @ _pixels(x)
    return dx, dw, _pixels(dy).sum(0)


def _split(a, groups):
    return np.split(a, groups, axis=-1)


def _pixels(a):
    """(…, C) as a matrix with one row per pixel."""
    return a.reshape(-1, a.shape[-1])


def dense(x, w, b=None):
    """x (…, IC) @ w (IC, OC) + b (OC) → y (…, OC)."""
    y = np.asarray(x, float) @ np.asarray(w, float)
    return y if b is None else y + np.asarray(b, float)


def dense_backward(x, w, dy):
    """x (…, IC), w (IC, OC), dy (…, OC) → dx like x, dw like w, db (OC)."""
    x, w, dy = (np.asarray(a, float) for a in (x, w, dy))
    return dy @ w.T, _pixels(x).T @ _pixels(dy), _pixels(dy).sum(0)


# ---- pooling ------------------------------------------------------------------------------------


def max_pool(x, pool_size, strides=None, padding="valid", dilation=1):
    """Largest element of each window, per channel: x (N, *spatial, C) → y (N, *output, C).

    Padding counts as −∞ and can never win. strides=None means pool_size."""
    views, *_ = _max_pool_views(x, pool_size, strides, padding, dilation)
    return views.max(0)


def max_pool_index(x, pool_size, strides=None, padding="valid", dilation=1):
    """The winning tap of each window of `max_pool` (N, *output, C), counted row-major inside the
    window. Where several elements tie, the first one wins."""
    views, *_ = _max_pool_views(x, pool_size, strides, padding, dilation)
    return views.argmax(0)


def max_pool_backward(x, dy, pool_size, strides=None, padding="valid", dilation=1):
    """x and dy (N, *output, C) → dx like x: each window hands its dy to its winner; an element
    that wins in several windows collects them all."""
    views, pairs, taps = _max_pool_views(x, pool_size, strides, padding, dilation)
    index = views.argmax(0)
    dxp = np.zeros_like(pad(np.asarray(x, float), pairs))
    for number, where in enumerate(taps.values()):
        dxp[where] += np.where(index == number, dy, 0.0)
    return unpad(dxp, pairs)


def _max_pool_views(x, pool_size, strides, padding, dilation):
    x = np.asarray(x, float)
    pairs, taps = sliding(x, pool_size, strides, padding, dilation)
    _elements_per_window(x, pairs, taps)
    xp = pad(x, pairs, -np.inf)
    return np.stack([xp[where] for where in taps.values()]), pairs, taps


def avg_pool(x, pool_size, strides=None, padding="valid", count_padding=False, dilation=1):
    """Mean of each window, per channel: x (N, *spatial, C) → y (N, *output, C).

    count_padding=False divides by the number of elements that lie inside the image (Keras),
    count_padding=True by the size of the window, padding being zeros. strides=None: pool_size."""
    x = np.asarray(x, float)
    pairs, taps = sliding(x, pool_size, strides, padding, dilation)
    xp = pad(x, pairs)
    return sum(xp[where] for where in taps.values()) / _divisor(x, pairs, taps, count_padding)


def avg_pool_backward(
    x, dy, pool_size, strides=None, padding="valid", count_padding=False, dilation=1
):
    """x and dy (N, *output, C) → dx like x: each window hands dy / divisor to all its elements;
    what falls on padding is dropped."""
    x = np.asarray(x, float)
    pairs, taps = sliding(x, pool_size, strides, padding, dilation)
    share = np.asarray(dy, float) / _divisor(x, pairs, taps, count_padding)
    dxp = np.zeros_like(pad(x, pairs))
    for where in taps.values():
        dxp[where] += share
    return unpad(dxp, pairs)


def _divisor(x, pairs, taps, count_padding):
    inside = _elements_per_window(x, pairs, taps)
    return float(len(taps)) if count_padding else inside


def _elements_per_window(x, pairs, taps):
    """How many elements of the image, not of its padding, each window sees: (1, *output, 1)."""
    ones = pad(np.ones((1, *x.shape[1:-1], 1)), pairs)
    inside = sum(ones[where] for where in taps.values())
    if inside.min() == 0:
        raise ValueError("a pooling window lies wholly in the padding")
    return inside


def global_max_pool(x):
    """x (N, *spatial, C) → y (N, C), the largest element of each channel."""
    x = np.asarray(x, float)
    return x.reshape(len(x), -1, x.shape[-1]).max(1)


def global_max_pool_backward(x, dy):
    """x (N, *spatial, C), dy (N, C) → dx like x: dy at the first largest element, else zero."""
    x = np.asarray(x, float)
    rows = x.reshape(len(x), -1, x.shape[-1])
    first = rows.argmax(1)[:, None, :] == np.arange(rows.shape[1])[None, :, None]
    return np.where(first, np.asarray(dy, float)[:, None, :], 0.0).reshape(x.shape)


def global_avg_pool(x):
    """x (N, *spatial, C) → y (N, C), the mean of each channel."""
    x = np.asarray(x, float)
    return x.reshape(len(x), -1, x.shape[-1]).mean(1)


def global_avg_pool_backward(x, dy):
    """x (N, *spatial, C), dy (N, C) → dx like x: every pixel receives dy / pixels."""
    x, dy = np.asarray(x, float), np.asarray(dy, float)
    pixels = np.prod(x.shape[1:-1])
    return np.broadcast_to((dy / pixels).reshape(len(x), *[1] * (x.ndim - 2), -1), x.shape).copy()


# ---- activations --------------------------------------------------------------------------------


def relu(x, negative_slope=0.0, max_value=None, threshold=0.0):
    """Keras' general ReLU on any shape: x above the threshold, at most max_value;
    negative_slope·(x − threshold) up to the threshold. Keras allows only threshold ≥ 0."""
    x = np.asarray(x, float)
    above = x if max_value is None else np.minimum(x, max_value)
    below = negative_slope * (x - threshold) if negative_slope else 0.0  # 0 · −∞ is not 0
    return np.where(x > threshold, above, below)


def relu_backward(x, dy, negative_slope=0.0, max_value=None, threshold=0.0):
    """x, dy → dx = dy · (negative_slope up to the threshold, then 1, and 0 from max_value on). The
    kinks, where there is no derivative, go with the left rule at the threshold and with the right
    one at max_value, as in Keras."""
    x = np.asarray(x, float)
    above = np.ones_like(x) if max_value is None else np.where(x < max_value, 1.0, 0.0)
    return np.where(x > threshold, above, negative_slope) * dy


def leaky_relu(x, negative_slope):
    """x where x > 0, negative_slope · x elsewhere."""
    return relu(x, negative_slope=negative_slope)


def leaky_relu_backward(x, dy, negative_slope):
    """x, dy → dx = dy where x > 0, negative_slope · dy elsewhere."""
    return relu_backward(x, dy, negative_slope=negative_slope)


def elu(x, alpha=1.0):
    """x where x > 0, alpha · (eˣ − 1) elsewhere."""
    x = np.asarray(x, float)
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def elu_backward(x, dy, alpha=1.0):
    """x, dy → dx = dy where x > 0, alpha · eˣ · dy elsewhere."""
    x = np.asarray(x, float)
    return np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0))) * dy


def sigmoid(x):
    """1 / (1 + e⁻ˣ), by the form that cannot overflow: with e = e^−|x|, 1/(1+e) or e/(1+e)."""
    x = np.asarray(x, float)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def sigmoid_backward(x, dy):
    """x, dy → dx = dy · e⁻ˣ / (1 + e⁻ˣ)², which is even in x: e^−|x| serves both signs."""
    e = np.exp(-np.abs(np.asarray(x, float)))
    return e / (1.0 + e) ** 2 * dy


def tanh(x):
    """Hyperbolic tangent."""
    return np.tanh(np.asarray(x, float))


def tanh_backward(x, dy):
    """x, dy → dx = dy / cosh² x, as 4e²/(1 + e²)² with e = e^−|x| so that nothing overflows."""
    e2 = np.exp(-2.0 * np.abs(np.asarray(x, float)))
    return 4.0 * e2 / (1.0 + e2) ** 2 * dy


def softmax(x):
    """e^x / Σ e^x over the last axis; subtracting the largest x first changes nothing but the
    range of the exponentials."""
    x = np.asarray(x, float)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_backward(x, dy):
    """x, dy (…, C) → dx (…, C) through the whole Jacobian J[i, j] = y[i]·([i = j] − y[j])."""
    y = softmax(x)
    jacobian = y[..., :, None] * (np.eye(y.shape[-1]) - y[..., None, :])
    return np.einsum("...i,...ij->...j", np.asarray(dy, float), jacobian)


# ---- batch normalisation ------------------------------------------------------------------------


def batch_norm(x, gamma, beta, epsilon=1e-3):
    """Training form: x (N, *spatial, C), gamma and beta (C) → y like x, mean (C), variance (C).

    The statistics are those of this batch, per channel over all pixels; the variance is biased
    (divided by the number of pixels) both here and in the moving average, as in Keras."""
    x = np.asarray(x, float)
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    variance = ((x - mean) ** 2).mean(axes)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta, mean, variance


def batch_norm_backward(x, gamma, dy, epsilon=1e-3):
    """Gradients of the training form: x, dy (N, *spatial, C), gamma (C) → dx, dgamma, dbeta.

    The mean and the variance depend on x too: that path takes away the part of the gradient that
    would shift all pixels alike and the part that would scale them alike."""
    x, dy = np.asarray(x, float), np.asarray(dy, float)
    axes = tuple(range(x.ndim - 1))
    deviation = np.sqrt(x.var(axes) + epsilon)
    normal = (x - x.mean(axes)) / deviation
    dnormal = dy * gamma
    dx = (dnormal - dnormal.mean(axes) - normal * (dnormal * normal).mean(axes)) / deviation
    return dx, (dy * normal).sum(axes), dy.sum(axes)


def moving_average(moving, batch, momentum=0.99):
    """momentum is the weight of the old value: moving·momentum + batch·(1 − momentum)."""
    return np.asarray(moving, float) * momentum + np.asarray(batch, float) * (1.0 - momentum)


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon=1e-3):
    """Inference form: the same formula with given (moving) statistics, all of shape (C)."""
    scale = np.asarray(gamma, float) / np.sqrt(np.asarray(variance, float) + epsilon)
    return (np.asarray(x, float) - mean) * scale + beta


def batch_norm_inference_backward(x, gamma, mean, variance, dy, epsilon=1e-3):
    """Gradients of the inference form (a frozen layer): the statistics are constants, so
    dx = dy·gamma/√(variance + epsilon). → dx, dgamma, dbeta."""
    x, dy = np.asarray(x, float), np.asarray(dy, float)
    axes = tuple(range(x.ndim - 1))
    deviation = np.sqrt(np.asarray(variance, float) + epsilon)
    return dy * gamma / deviation, (dy * (x - mean) / deviation).sum(axes), dy.sum(axes)


# ---- dropout ------------------------------------------------------------------------------------


def dropout(x, keep, rate):
    """keep is a mask of booleans like x: what is kept grows by 1/(1 − rate), so that the
    expectation stays. Its own backward: dropout(dy, keep, rate)."""
    return np.where(keep, np.asarray(x, float) / (1.0 - rate), 0.0)


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon et al., 2011): counter (four 32-bit words), key (two) → four words.
    Ten rounds of two 32×32 → 64 bit products, the halves swapped and mixed with the key."""
    c0, c1, c2, c3 = (int(c) for c in counter)
    k0, k1 = (int(k) for k in key)
    word = 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & word, (p0 >> 32) ^ c3 ^ k1, p0 & word
        k0, k1 = (k0 + 0x9E3779B9) & word, (k1 + 0xBB67AE85) & word
    return c0, c1, c2, c3


# ---- losses -------------------------------------------------------------------------------------

CLIP = 1e-7  # Keras' backend epsilon: probabilities are held in [CLIP, 1 − CLIP]


def one_hot(labels, classes):
    """Integer labels (…) → (…, classes) of zeros with a one at the label."""
    labels = np.asarray(labels)
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}")
    return np.eye(classes)[labels]


def categorical_crossentropy(target, y, from_logits=False):
    """Mean over all samples of −Σ target·log(probability); target and y (…, classes) → scalar.

    from_logits: y goes through log-softmax, log Σ eʸ being taken with the largest y split off.
    Otherwise, as in Keras, y is divided by its sum and held in [1e-7, 1 − 1e-7]."""
    target, y = np.asarray(target, float), np.asarray(y, float)
    if from_logits:
        shifted = y - y.max(-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    else:
        log_p = np.log(np.clip(y / y.sum(-1, keepdims=True), CLIP, 1.0 - CLIP))
    return -(target * log_p).sum(-1).mean()


def categorical_crossentropy_backward(target, y, from_logits=False):
    """Gradient with respect to y, like y. Logits: (Σtarget · softmax(y) − target) / samples.
    Probabilities: −target/p / samples where the clip does not hold p, then back through the
    division by the sum s: (dp − Σ dp·p) / s."""
    target, y = np.asarray(target, float), np.asarray(y, float)
    samples = y.size // y.shape[-1]
    if from_logits:
        return (target.sum(-1, keepdims=True) * softmax(y) - target) / samples
    total = y.sum(-1, keepdims=True)
    p = y / total
    free = (p > CLIP) & (p < 1.0 - CLIP)
    dp = np.where(free, -target / np.clip(p, CLIP, None), 0.0) / samples
    return (dp - (dp * p).sum(-1, keepdims=True)) / total


def sparse_categorical_crossentropy(labels, y, from_logits=False):
    """`categorical_crossentropy` with integer labels (…) instead of one-hot rows (…, classes)."""
    return categorical_crossentropy(one_hot(labels, np.shape(y)[-1]), y, from_logits)


def sparse_categorical_crossentropy_backward(labels, y, from_logits=False):
    """Gradient with respect to y, like y."""
    return categorical_crossentropy_backward(one_hot(labels, np.shape(y)[-1]), y, from_logits)


def mean_squared_error(target, y):
    """Mean of (y − target)² over the last axis, then over the samples; (…, C) twice → scalar."""
    return ((np.asarray(y, float) - np.asarray(target, float)) ** 2).mean(-1).mean()


def mean_squared_error_backward(target, y):
    """Gradient with respect to y: 2·(y − target) / number of elements."""
    y = np.asarray(y, float)
    return 2.0 * (y - np.asarray(target, float)) / y.size


# ---- optimizers: one update of one parameter, as Keras 3 defines it -----------------------------


def sgd(w, dw, velocity, learning_rate=0.01, momentum=0.0, nesterov=False):
    """→ w, velocity. velocity ← momentum·velocity − rate·dw, and w moves by it; Nesterov looks one
    step ahead: w moves by momentum·velocity − rate·dw with the new velocity."""
    velocity = momentum * velocity - learning_rate * dw
    step = momentum * velocity - learning_rate * dw if nesterov else velocity
    return w + step, velocity


def adam(w, dw, m, v, step, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """→ w, m, v after update number `step` (the first is 1). m and v are moving means of dw and
    dw². Keras folds both bias corrections into the rate and adds epsilon to the *uncorrected* √v
    (the "epsilon hat" of Kingma & Ba)."""
    m = beta_1 * m + (1.0 - beta_1) * dw
    v = beta_2 * v + (1.0 - beta_2) * dw**2
    rate = learning_rate * np.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step)
    return w - rate * m / (np.sqrt(v) + epsilon), m, v


def adadelta(w, dw, grad2, delta2, learning_rate=0.001, rho=0.95, epsilon=1e-7):
    """→ w, grad2, delta2: moving means of dw² and of the squared steps. Epsilon stands inside both
    roots; the step enters delta2 before the learning rate scales it."""
    grad2 = rho * grad2 + (1.0 - rho) * dw**2
    delta = -np.sqrt(delta2 + epsilon) / np.sqrt(grad2 + epsilon) * dw
    delta2 = rho * delta2 + (1.0 - rho) * delta**2
    return w + learning_rate * delta, grad2, delta2


# ---- images along affine maps -------------------------------------------------------------------


def beyond(i, n, edge):
    """The pixel that stands at place i of an axis of n, None outside."""
    if edge == "constant":
        return i if 0 <= i < n else None
    if edge == "nearest":
        return min(max(i, 0), n - 1)
    if edge == "wrap":
        return i % n
    return i % (2 * n) if i % (2 * n) < n else 2 * n - 1 - i % (2 * n)


def affine(x, maps, edge, linear, fill=0.0):
    """y at column c, row r = x at column a c + b r + u, row d c + e r + v, pixel by pixel; between
    four pixels by bilinear weights."""
    y = np.zeros(x.shape)
    n, rows, cols, _ = x.shape
    for i, r, c in np.ndindex(n, rows, cols):
        a, b, u, d, e, v = maps[i]
        col, row = a * c + b * r + u, d * c + e * r + v
        if linear:
            top, left = int(np.floor(row)), int(np.floor(col))
            down, right = row - top, col - left
            parts = [
                (top + j, left + k, (down if j else 1 - down) * (right if k else 1 - right))
                for j in (0, 1) for k in (0, 1)
            ]  # fmt: skip
        else:
            parts = [(round(row), round(col), 1)]
        for j, k, weight in parts:
            p, q = beyond(j, rows, edge), beyond(k, cols, edge)
            y[i, r, c] += weight * (fill if p is None or q is None else x[i, p, q])
    return y

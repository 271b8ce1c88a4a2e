"""Pointwise activations and softmax.

Tensors are pixels × channels with a pixel stride. The backward steps need the output y alone, so
that a forward pass may work in place.
"""

from libc.math cimport INFINITY, NAN

from fastconv._native.dispatch cimport f32, f64, fc_activation, real
from fastconv._native.split cimport (
    COLUMNS, PIECES, RowStep, SplitStep, blocks, piece_rows,
)
from fastconv._native.step cimport Context

from fastconv._native.checks import extent, in_place, number, stride_of, strided, whole

LINEAR, RELU, LEAKY_RELU, ELU, SIGMOID, TANH, RELU_DROPPED = range(7)

cdef enum:  # the kinds of csrc/kernels/activation.inl
    K_LINEAR, K_RELU, K_RELU_GENERAL, K_ELU, K_SIGMOID, K_TANH, K_RELU_DROPPED


cdef kernel_form(kind, alpha, beta, gamma):
    """The kind and the three numbers by which the kernels know an activation, checked."""
    alpha, beta = number("alpha", alpha, 0), number("beta", beta, 0)
    gamma = number("gamma", gamma, 0)
    if kind == LEAKY_RELU:
        beta, gamma = INFINITY, 0
    if kind in (RELU, LEAKY_RELU):
        if alpha == 0 and beta == INFINITY and gamma == 0:
            return K_RELU, alpha, NAN, gamma
        return K_RELU_GENERAL, alpha, NAN if beta == INFINITY else beta, gamma  # no x reaches NaN
    if kind == RELU_DROPPED:
        return K_RELU_DROPPED, alpha, NAN, gamma
    if kind not in (LINEAR, ELU, SIGMOID, TANH):
        raise ValueError(f"kind is one of this module's constants, not {kind!r}")
    code = {LINEAR: K_LINEAR, ELU: K_ELU, SIGMOID: K_SIGMOID, TANH: K_TANH}[kind]
    return code, alpha, beta, gamma


cdef fc_activation carried(activation, bint dropped=False):
    """The activation that a step applies in its pass, from (kind, alpha, beta, gamma) or None.
    ``dropped``: the step knows RELU_DROPPED too."""
    cdef fc_activation f
    kind, alpha, beta, gamma = activation or (LINEAR, 0, 0, 0)
    if kind not in (LINEAR, RELU, LEAKY_RELU) and not (dropped and kind == RELU_DROPPED):
        raise ValueError(f"activation is linear, relu or leaky_relu, not {activation!r}")
    f.kind, f.alpha, f.beta, f.gamma = kernel_form(kind, alpha, beta, gamma)
    return f


cdef class _Activation(RowStep):
    """What the two directions share: which function, on how many pixels and channels."""

    cdef int kind
    cdef double alpha, beta, gamma

    cdef choose(self, kind, alpha, beta, gamma, pixels, channels):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.kind, self.alpha, self.beta, self.gamma = kernel_form(kind, alpha, beta, gamma)


cdef class ActivationForward(_Activation):
    """y = f(x); x and y may be one slot.

    Parameters
    ----------
    kind : int
        LINEAR, RELU, LEAKY_RELU, ELU, SIGMOID or TANH.
    alpha, beta, gamma : float
        Slope below the threshold (RELU, LEAKY_RELU) or scale (ELU); cap (RELU, inf: none);
        threshold (RELU).
    pixels, channels : int
        Of one sample.
    x, y : int
        Slots, (n, pixels, channels).
    x_stride, y_stride : int
        Elements from one pixel to the next.
    """

    cdef Py_ssize_t x, x_stride, y, y_stride

    def __init__(self, kind, alpha, beta, gamma, pixels, channels, x, x_stride, y, y_stride):
        if kind == RELU_DROPPED:
            raise ValueError("RELU_DROPPED is known by its derivative alone")
        self.choose(kind, alpha, beta, gamma, pixels, channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        in_place(x, x_stride, y, y_stride)
        self.reads = (strided(x, pixels, channels, x_stride),)
        self.writes = (strided(y, pixels, channels, y_stride),)
        self.x, self.y = x, y
        self.flat = x_stride == y_stride == channels
        self.cost = 10 if self.kind >= K_ELU else 1  # an exponential: about ten operations

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t x = self.at(first, self.x_stride), y = self.at(first, self.y_stride)
        if c.f64:
            f64.activation_forward(
                self.kind, rows, cols, self.alpha, self.beta, self.gamma,
                <double *> c.ptr[self.x] + x, self.x_stride,
                <double *> c.ptr[self.y] + y, self.y_stride)
        else:
            f32.activation_forward(
                self.kind, rows, cols, self.alpha, self.beta, self.gamma,
                <float *> c.ptr[self.x] + x, self.x_stride,
                <float *> c.ptr[self.y] + y, self.y_stride)


cdef class ActivationBackward(_Activation):
    """dx = dy · f'(x), the derivative taken from y alone; dy and dx may be one slot.

    A NaN in y or dy is one in dx (but ReLU's zeros hide dy's). At y = 0 the derivative is the one
    from below, at ReLU's largest value it is zero. Parameters as in `ActivationForward`;
    RELU_DROPPED is a ReLU and a dropout behind it that made y: dx = dy · alpha where y > 0,
    alpha = 1 / (1 − rate).
    """

    cdef Py_ssize_t y, y_stride, dy, dy_stride, dx, dx_stride

    def __init__(self, kind, alpha, beta, gamma, pixels, channels, y, y_stride, dy, dy_stride, dx,
                 dx_stride):
        self.choose(kind, alpha, beta, gamma, pixels, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        self.dy_stride = stride_of("dy_stride", dy_stride, channels)
        self.dx_stride = stride_of("dx_stride", dx_stride, channels)
        in_place(dy, dy_stride, dx, dx_stride)
        in_place(y, y_stride, dx, dx_stride)
        self.reads = (strided(y, pixels, channels, y_stride),
                      strided(dy, pixels, channels, dy_stride))
        self.writes = (strided(dx, pixels, channels, dx_stride),)
        self.y, self.dy, self.dx = y, dy, dx
        self.flat = y_stride == dy_stride == dx_stride == channels
        self.cost = 1

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t y = self.at(first, self.y_stride)
        cdef Py_ssize_t dy = self.at(first, self.dy_stride), dx = self.at(first, self.dx_stride)
        if c.f64:
            f64.activation_backward(
                self.kind, rows, cols, self.alpha, self.beta,
                <double *> c.ptr[self.y] + y, self.y_stride,
                <double *> c.ptr[self.dy] + dy, self.dy_stride,
                <double *> c.ptr[self.dx] + dx, self.dx_stride)
        else:
            f32.activation_backward(
                self.kind, rows, cols, self.alpha, self.beta,
                <float *> c.ptr[self.y] + y, self.y_stride,
                <float *> c.ptr[self.dy] + dy, self.dy_stride,
                <float *> c.ptr[self.dx] + dx, self.dx_stride)


cdef class BiasBackward(SplitStep):
    """dz = dy · f'(x) and the gradient of a bias, db = Σ dz, in one pass; dz may be dy's slot.

    Parameters
    ----------
    activation : (kind, alpha, beta, gamma) or None
        f: relu, leaky_relu, relu_dropped of `ActivationBackward`, or linear (None), where dz is dy
        and is not written.
    pixels, channels : int
        Of one sample.
    y, y_stride, dy, dy_stride, dz, dz_stride : int
        Slots, (n, pixels, channels), and their pixel strides; y and dz −1 where f is linear.
    db : int
        Slot, (channels,).
    scratch : int
        Slot of ``scratch(channels)`` elements.
    accumulate : bool
        Add to db, as a run with ``accumulate`` does; else it is overwritten.
    """

    cdef fc_activation f
    cdef Py_ssize_t pixels, channels, y, y_stride, dy, dy_stride, dz, dz_stride, db, scratch_
    cdef bint accumulate

    def __init__(self, activation, pixels, channels, y, y_stride, dy, dy_stride, dz, dz_stride,
                 db, scratch, bint accumulate=False):
        self.f = carried(activation, True)
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.dy_stride = stride_of("dy_stride", dy_stride, channels)
        self.y = self.dz = -1
        self.reads = (strided(dy, pixels, channels, dy_stride),)
        self.writes = (extent(db, 0, channels), extent(scratch, 0, self.scratch(channels)))
        if self.f.kind != K_LINEAR:
            self.y_stride = stride_of("y_stride", y_stride, channels)
            self.dz_stride = stride_of("dz_stride", dz_stride, channels)
            in_place(dy, dy_stride, dz, dz_stride)
            self.reads += (strided(y, pixels, channels, y_stride),)
            self.writes += (strided(dz, pixels, channels, dz_stride),)
            self.y, self.dz = y, dz
        self.dy, self.db, self.scratch_, self.accumulate = dy, db, scratch, accumulate

    @staticmethod
    def scratch(channels):
        """Elements of scratch that a step for so many channels needs."""
        return PIECES * whole("channels", channels)

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.pixels, block = piece_rows(rows)
        self.split(c, 0, blocks(rows, block), 1, 2.0 * block * self.channels)
        self.split(c, 1, self.channels, COLUMNS, 2.0 * blocks(rows, block))

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if c.f64:
            bias_backward(self, c, phase, first, last, <double *> NULL)
        else:
            bias_backward(self, c, phase, first, last, <float *> NULL)


cdef inline real *at(const Context *c, Py_ssize_t slot, Py_ssize_t element, real *_) noexcept nogil:
    return <real *> c.ptr[slot] + element if slot >= 0 else NULL


cdef void bias_backward(BiasBackward s, Context *c, int phase, Py_ssize_t first, Py_ssize_t last,
                        real *_) noexcept nogil:
    """The pieces first..last, or their merge for the channels first..last."""
    cdef Py_ssize_t rows = c.n * s.pixels, block = piece_rows(rows), i, row, count
    cdef bint add = s.accumulate or c.accumulate
    if phase == 1:
        if real is float:
            f32.sums_merge(blocks(rows, block), s.channels, first, last, add,
                           at(c, s.scratch_, 0, _), at(c, s.db, 0, _))
        else:
            f64.sums_merge(blocks(rows, block), s.channels, first, last, add,
                           at(c, s.scratch_, 0, _), at(c, s.db, 0, _))
        return
    for i in range(first, last):
        row, count = i * block, min(block, rows - i * block)
        if real is float:
            f32.activation_sums(count, s.channels, &s.f, at(c, s.y, row * s.y_stride, _),
                                s.y_stride, at(c, s.dy, row * s.dy_stride, _), s.dy_stride,
                                at(c, s.dz, row * s.dz_stride, _), s.dz_stride,
                                at(c, s.scratch_, i * s.channels, _))
        else:
            f64.activation_sums(count, s.channels, &s.f, at(c, s.y, row * s.y_stride, _),
                                s.y_stride, at(c, s.dy, row * s.dy_stride, _), s.dy_stride,
                                at(c, s.dz, row * s.dz_stride, _), s.dz_stride,
                                at(c, s.scratch_, i * s.channels, _))


cdef class SoftmaxForward(RowStep):
    """y = e^(x − max) / Σ e^(x − max) over the channels of each row; x and y may be one slot.

    Parameters
    ----------
    rows, channels : int
        Rows (pixels) of one sample, classes.
    x, y : int
        Slots, (n, rows, channels).
    x_stride, y_stride : int
        Elements from one row to the next.
    """

    cdef Py_ssize_t x, x_stride, y, y_stride

    def __init__(self, rows, channels, x, x_stride, y, y_stride):
        self.pixels, self.channels = whole("rows", rows), whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        in_place(x, x_stride, y, y_stride)
        self.reads = (strided(x, rows, channels, x_stride),)
        self.writes = (strided(y, rows, channels, y_stride),)
        self.x, self.y = x, y
        self.cost = 20

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t x = first * self.x_stride, y = first * self.y_stride
        if c.f64:
            f64.softmax_forward(rows, cols, <double *> c.ptr[self.x] + x, self.x_stride,
                                <double *> c.ptr[self.y] + y, self.y_stride)
        else:
            f32.softmax_forward(rows, cols, <float *> c.ptr[self.x] + x, self.x_stride,
                                <float *> c.ptr[self.y] + y, self.y_stride)


cdef class SoftmaxBackward(RowStep):
    """dx = y (dy − Σ y dy) over the channels of each row; dy and dx may be one slot.

    Parameters as in `SoftmaxForward`.
    """

    cdef Py_ssize_t y, y_stride, dy, dy_stride, dx, dx_stride

    def __init__(self, rows, channels, y, y_stride, dy, dy_stride, dx, dx_stride):
        self.pixels, self.channels = whole("rows", rows), whole("channels", channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        self.dy_stride = stride_of("dy_stride", dy_stride, channels)
        self.dx_stride = stride_of("dx_stride", dx_stride, channels)
        in_place(dy, dy_stride, dx, dx_stride)
        in_place(y, y_stride, dx, dx_stride)
        self.reads = (strided(y, rows, channels, y_stride),
                      strided(dy, rows, channels, dy_stride))
        self.writes = (strided(dx, rows, channels, dx_stride),)
        self.y, self.dy, self.dx = y, dy, dx
        self.cost = 4

    cdef void rows(self, Context *c, Py_ssize_t first, Py_ssize_t rows,
                   Py_ssize_t cols) noexcept nogil:
        cdef Py_ssize_t y = first * self.y_stride, dy = first * self.dy_stride
        cdef Py_ssize_t dx = first * self.dx_stride
        if c.f64:
            f64.softmax_backward(rows, cols, <double *> c.ptr[self.y] + y, self.y_stride,
                                 <double *> c.ptr[self.dy] + dy, self.dy_stride,
                                 <double *> c.ptr[self.dx] + dx, self.dx_stride)
        else:
            f32.softmax_backward(rows, cols, <float *> c.ptr[self.y] + y, self.y_stride,
                                 <float *> c.ptr[self.dy] + dy, self.dy_stride,
                                 <float *> c.ptr[self.dx] + dx, self.dx_stride)

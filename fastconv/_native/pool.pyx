"""Max and average pooling, over windows and over whole images."""

from libc.stdint cimport int32_t

from fastconv._native.dispatch cimport f32, f64, fc_window
from fastconv._native.mask cimport Mask, drop, mask_of
from fastconv._native.split cimport PIECE, SplitStep
from fastconv._native.step cimport Context

from fastconv._native.checks import distinct, extent, pairs, stride_of, strided, triple, whole

cdef enum:
    COLUMNS = 64  # channels of one piece of a global pooling, whole cache lines


cdef class PoolGeometry:
    """Sizes of one pooling, checked.

    Parameters
    ----------
    in_size, window, strides : (int, int, int)
        In D, H, W.
    pads : three pairs (before, after)
        Every window keeps a pixel of the image.
    channels : int
    x_stride, y_stride : int
        Elements from one pixel to the next, of x and dx, and of y and dy.

    Attributes
    ----------
    out_size : (int, int, int)
        (in + before + after − window) // stride + 1 in each dimension.
    """

    cdef fc_window window
    cdef readonly Py_ssize_t channels, x_stride, y_stride
    cdef readonly tuple in_size, out_size

    def __init__(self, in_size, window, strides, pads, channels, x_stride, y_stride):
        sizes, windows = triple("in_size", in_size), triple("window", window)
        steps, borders = triple("strides", strides), pairs("pads", pads)
        out = []
        for i in range(3):
            before, after = borders[i]
            size, extra = sizes[i], sizes[i] + before + after - windows[i]
            if extra < 0:
                raise ValueError(f"window {windows[i]} is larger than in_size {size} with its pads")
            out.append(extra // steps[i] + 1)
            if before >= windows[i] or (out[i] - 1) * steps[i] - before >= size:
                raise ValueError(f"pads {borders[i]}: a window of {windows[i]} would hold no pixel")
            self.window.in_[i], self.window.out[i], self.window.window[i] = size, out[i], windows[i]
            self.window.stride[i], self.window.dilation[i] = steps[i], 1
            self.window.pad[i] = before
        self.in_size, self.out_size = sizes, tuple(out)
        self.channels = whole("channels", channels)
        self.x_stride = stride_of("x_stride", x_stride, channels)
        self.y_stride = stride_of("y_stride", y_stride, channels)

    @property
    def index_size(self):
        """Bytes of a winning tap's number."""
        return 1 if self.taps <= 256 else 2

    @property
    def taps(self):
        """Pixels of a window."""
        return self.window.window[0] * self.window.window[1] * self.window.window[2]

    def x_extent(self, slot):
        """What a step touches of x or dx."""
        d, h, w = self.in_size
        return strided(slot, d * h * w, self.channels, self.x_stride)

    def y_extent(self, slot):
        """What a step touches of y or dy."""
        d, h, w = self.out_size
        return strided(slot, d * h * w, self.channels, self.y_stride)

    def index_extent(self, slot):
        """What a step touches of the winning taps: ``index_size`` bytes each, without gaps."""
        d, h, w = self.out_size
        return extent(slot, d * h * w * self.channels, 0, self.index_size)


cdef class _Pool(SplitStep):
    """A pooling over the rows (sample, D, H) of the tensor that it writes."""

    cdef PoolGeometry geometry
    cdef fc_window window
    cdef Py_ssize_t channels, x_stride, y_stride
    cdef Py_ssize_t[3] size     # of the tensor that is written
    cdef Mask mask              # forward: of a dropout that follows

    cdef take(self, PoolGeometry geometry, bint backward, dropout=None):
        self.mask = mask_of(dropout)
        self.geometry, self.window = geometry, geometry.window
        self.channels = geometry.channels
        self.x_stride, self.y_stride = geometry.x_stride, geometry.y_stride
        for i in range(3):
            self.size[i] = geometry.window.in_[i] if backward else geometry.window.out[i]

    cdef void run(self, Context *c) noexcept nogil:
        cdef double line = self.size[2] * self.channels
        self.split(c, 0, c.n * self.size[0] * self.size[1], max(1, <Py_ssize_t> (PIECE / line)),
                   (8 if self.mask.rate else 4) * line)

    cdef void dropped(self, Context *c, Py_ssize_t first, Py_ssize_t last,
                      Py_ssize_t y) noexcept nogil:
        """Dropout of the rows first..last of slot y, which are still in the cache."""
        cdef Py_ssize_t line = self.size[2] * self.channels
        if self.mask.rate:
            drop(c, &self.mask, first * line, last * line, self.channels, y, self.y_stride, y,
                 self.y_stride)


cdef class MaxPoolForward(_Pool):
    """y = the largest x of each window; the first one wins, a NaN beats every number.

    Parameters
    ----------
    geometry : PoolGeometry
    x, y : int
        Slots, (n, D, H, W, channels) and (n, OD, OH, OW, channels).
    index : int
        Slot, (n, OD, OH, OW, channels) uint8, or uint16 where the geometry's ``index_size`` is 2:
        the winning tap, (td · KH + th) · KW + tw. −1: none.
    dropout : (rate, stream), optional
        Of a dropout that follows: y is dropped too, by the mask of `random.DropoutForward`.
    """

    cdef Py_ssize_t x, y, index
    cdef int bytes

    def __init__(self, PoolGeometry geometry not None, x, y, index=-1, dropout=None):
        self.take(geometry, False, dropout)
        self.bytes = geometry.index_size
        if whole("index", index, -1) >= 0 and geometry.taps > 65536:
            raise ValueError(f"a window of {geometry.taps} taps has no 16-bit index")
        distinct(x=x, y=y)
        self.reads = (geometry.x_extent(x),)
        self.writes = (geometry.y_extent(y),)
        if index >= 0:
            self.writes += (geometry.index_extent(index),)
        self.x, self.y, self.index = x, y, index

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef void *index = c.ptr[self.index] if self.index >= 0 else NULL
        if c.f64:
            f64.max_pool_forward(&self.window, self.channels, <double *> c.ptr[self.x],
                                 self.x_stride, <double *> c.ptr[self.y], self.y_stride, index,
                                 self.bytes, first, last)
        else:
            f32.max_pool_forward(&self.window, self.channels, <float *> c.ptr[self.x],
                                 self.x_stride, <float *> c.ptr[self.y], self.y_stride, index,
                                 self.bytes, first, last)
        self.dropped(c, first, last, self.y)


cdef class MaxPoolBackward(_Pool):
    """dx = the sum of dy over the windows whose maximum the pixel was.

    Parameters
    ----------
    geometry : PoolGeometry
        With the strides of dx and dy.
    dy : int
        Slot, (n, OD, OH, OW, channels).
    index : int
        Slot: the winning taps, from `MaxPoolForward`.
    dx : int
        Slot, (n, D, H, W, channels).
    """

    cdef Py_ssize_t dy, index, dx
    cdef int bytes

    def __init__(self, PoolGeometry geometry not None, dy, index, dx):
        self.take(geometry, True)
        self.bytes = geometry.index_size
        distinct(dy=dy, index=index, dx=dx)
        self.reads = (geometry.y_extent(dy), geometry.index_extent(index))
        self.writes = (geometry.x_extent(dx),)
        self.dy, self.index, self.dx = dy, index, dx

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef const void *index = c.ptr[self.index]
        if c.f64:
            f64.max_pool_backward(&self.window, self.channels, <double *> c.ptr[self.dy],
                                  self.y_stride, index, self.bytes, <double *> c.ptr[self.dx],
                                  self.x_stride, first, last)
        else:
            f32.max_pool_backward(&self.window, self.channels, <float *> c.ptr[self.dy],
                                  self.y_stride, index, self.bytes, <float *> c.ptr[self.dx],
                                  self.x_stride, first, last)


cdef class AveragePoolForward(_Pool):
    """y = the mean of each window.

    Parameters
    ----------
    geometry : PoolGeometry
    count_padding : bool
        Divide by the window's size; else by its pixels inside the image.
    x, y : int
        Slots, (n, D, H, W, channels) and (n, OD, OH, OW, channels).
    dropout : (rate, stream), optional
        As in `MaxPoolForward`.
    """

    cdef bint count_padding
    cdef Py_ssize_t x, y

    def __init__(self, PoolGeometry geometry not None, bint count_padding, x, y, dropout=None):
        self.take(geometry, False, dropout)
        distinct(x=x, y=y)
        self.count_padding = count_padding
        self.reads, self.writes = (geometry.x_extent(x),), (geometry.y_extent(y),)
        self.x, self.y = x, y

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if c.f64:
            f64.average_pool_forward(&self.window, self.channels, self.count_padding,
                                     <double *> c.ptr[self.x], self.x_stride,
                                     <double *> c.ptr[self.y], self.y_stride, first, last)
        else:
            f32.average_pool_forward(&self.window, self.channels, self.count_padding,
                                     <float *> c.ptr[self.x], self.x_stride,
                                     <float *> c.ptr[self.y], self.y_stride, first, last)
        self.dropped(c, first, last, self.y)


cdef class AveragePoolBackward(_Pool):
    """dx = the sum of dy / count over the windows that cover the pixel.

    Parameters as in `AveragePoolForward`; the geometry has the strides of dx and dy.
    """

    cdef bint count_padding
    cdef Py_ssize_t dy, dx

    def __init__(self, PoolGeometry geometry not None, bint count_padding, dy, dx):
        self.take(geometry, True)
        distinct(dy=dy, dx=dx)
        self.count_padding = count_padding
        self.reads, self.writes = (geometry.y_extent(dy),), (geometry.x_extent(dx),)
        self.dy, self.dx = dy, dx

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        if c.f64:
            f64.average_pool_backward(&self.window, self.channels, self.count_padding,
                                      <double *> c.ptr[self.dy], self.y_stride,
                                      <double *> c.ptr[self.dx], self.x_stride, first, last)
        else:
            f32.average_pool_backward(&self.window, self.channels, self.count_padding,
                                      <float *> c.ptr[self.dy], self.y_stride,
                                      <float *> c.ptr[self.dx], self.x_stride, first, last)


cdef class _GlobalPool(SplitStep):
    """All pixels of an image and one value a channel: split into samples × blocks of channels."""

    cdef Py_ssize_t pixels, channels
    cdef Py_ssize_t image, image_stride     # x or dx
    cdef Py_ssize_t vector, vector_stride   # y or dy

    cdef shape(self, pixels, channels, image, image_stride, image_name, vector, vector_stride,
               vector_name):
        self.pixels, self.channels = whole("pixels", pixels), whole("channels", channels)
        self.image_stride = stride_of(f"{image_name}_stride", image_stride, channels)
        self.vector_stride = stride_of(f"{vector_name}_stride", vector_stride, channels)
        distinct(**{image_name: image, vector_name: vector})
        self.image, self.vector = image, vector
        return (strided(image, pixels, channels, image_stride),
                strided(vector, 1, channels, vector_stride))

    cdef void run(self, Context *c) noexcept nogil:
        self.split(c, 0, c.n * ((self.channels + COLUMNS - 1) // COLUMNS), 1,
                   <double> self.pixels * min(COLUMNS, self.channels))

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t cuts = (self.channels + COLUMNS - 1) // COLUMNS, i, sample, column, cols
        for i in range(first, last):
            sample = i // cuts
            column = i % cuts * COLUMNS
            cols = min(COLUMNS, self.channels - column)
            self.columns(c, cols, sample * self.pixels * self.image_stride + column,
                         sample * self.vector_stride + column, sample * self.channels + column)

    cdef void columns(self, Context *c, Py_ssize_t cols, Py_ssize_t image, Py_ssize_t vector,
                      Py_ssize_t index) noexcept nogil:
        """``cols`` channels that start at these elements."""
        pass


cdef class GlobalAveragePoolForward(_GlobalPool):
    """y = the mean over the pixels.

    Parameters
    ----------
    pixels, channels : int
        Of one sample.
    x, x_stride : int
        Slot, (n, pixels, channels), and elements from one pixel to the next.
    y, y_stride : int
        Slot, (n, channels), and elements from one sample to the next.
    """

    def __init__(self, pixels, channels, x, x_stride, y, y_stride=None):
        stride = channels if y_stride is None else y_stride
        read, written = self.shape(pixels, channels, x, x_stride, "x", y, stride, "y")
        self.reads, self.writes = (read,), (written,)

    cdef void columns(self, Context *c, Py_ssize_t cols, Py_ssize_t image, Py_ssize_t vector,
                      Py_ssize_t index) noexcept nogil:
        if c.f64:
            f64.global_average_forward(self.pixels, cols, <double *> c.ptr[self.image] + image,
                                       self.image_stride, <double *> c.ptr[self.vector] + vector)
        else:
            f32.global_average_forward(self.pixels, cols, <float *> c.ptr[self.image] + image,
                                       self.image_stride, <float *> c.ptr[self.vector] + vector)


cdef class GlobalAveragePoolBackward(_GlobalPool):
    """dx = dy / pixels at every pixel. Parameters as in `GlobalAveragePoolForward`."""

    def __init__(self, pixels, channels, dy, dx, dx_stride, dy_stride=None):
        stride = channels if dy_stride is None else dy_stride
        written, read = self.shape(pixels, channels, dx, dx_stride, "dx", dy, stride, "dy")
        self.reads, self.writes = (read,), (written,)

    cdef void columns(self, Context *c, Py_ssize_t cols, Py_ssize_t image, Py_ssize_t vector,
                      Py_ssize_t index) noexcept nogil:
        if c.f64:
            f64.global_average_backward(self.pixels, cols, <double *> c.ptr[self.vector] + vector,
                                        <double *> c.ptr[self.image] + image, self.image_stride)
        else:
            f32.global_average_backward(self.pixels, cols, <float *> c.ptr[self.vector] + vector,
                                        <float *> c.ptr[self.image] + image, self.image_stride)


cdef class GlobalMaxPoolForward(_GlobalPool):
    """y = the largest over the pixels; the first one wins, a NaN beats every number.

    Parameters
    ----------
    pixels, channels, x, x_stride, y, y_stride : int
        As in `GlobalAveragePoolForward`; at most 2^24 pixels.
    index : int
        Slot, (n, channels) int32: the winning pixel. −1: none.
    """

    cdef Py_ssize_t index

    def __init__(self, pixels, channels, x, x_stride, y, y_stride=None, index=-1):
        whole("pixels", pixels, 1, 2**24)
        stride = channels if y_stride is None else y_stride
        read, written = self.shape(pixels, channels, x, x_stride, "x", y, stride, "y")
        self.reads, self.writes = (read,), (written,)
        if whole("index", index, -1) >= 0:
            self.writes += (extent(index, channels, 0, 4),)
        self.index = index

    cdef void columns(self, Context *c, Py_ssize_t cols, Py_ssize_t image, Py_ssize_t vector,
                      Py_ssize_t index) noexcept nogil:
        cdef int32_t *winner = NULL
        if self.index >= 0:
            winner = <int32_t *> c.ptr[self.index] + index
        if c.f64:
            f64.global_max_forward(self.pixels, cols, <double *> c.ptr[self.image] + image,
                                   self.image_stride, <double *> c.ptr[self.vector] + vector,
                                   winner)
        else:
            f32.global_max_forward(self.pixels, cols, <float *> c.ptr[self.image] + image,
                                   self.image_stride, <float *> c.ptr[self.vector] + vector,
                                   winner)


cdef class GlobalMaxPoolBackward(_GlobalPool):
    """dx = dy at the pixel that was the maximum, else 0. Parameters: `GlobalMaxPoolForward`."""

    cdef Py_ssize_t index

    def __init__(self, pixels, channels, dy, index, dx, dx_stride, dy_stride=None):
        whole("pixels", pixels, 1, 2**24)
        stride = channels if dy_stride is None else dy_stride
        written, read = self.shape(pixels, channels, dx, dx_stride, "dx", dy, stride, "dy")
        self.reads, self.writes = (read, extent(index, channels, 0, 4)), (written,)
        self.index = index

    cdef void columns(self, Context *c, Py_ssize_t cols, Py_ssize_t image, Py_ssize_t vector,
                      Py_ssize_t index) noexcept nogil:
        cdef const int32_t *winner = <const int32_t *> c.ptr[self.index] + index
        if c.f64:
            f64.global_max_backward(self.pixels, cols, <double *> c.ptr[self.vector] + vector,
                                    winner, <double *> c.ptr[self.image] + image,
                                    self.image_stride)
        else:
            f32.global_max_backward(self.pixels, cols, <float *> c.ptr[self.vector] + vector,
                                    winner, <float *> c.ptr[self.image] + image,
                                    self.image_stride)

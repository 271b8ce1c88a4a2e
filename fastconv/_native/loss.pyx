"""Losses with their gradients, and the hits that accuracies count.

A loss is the mean over all rows (pixels) of the batch, in double, summed in at most PIECES pieces
that their number alone decides. Its gradient is that of this mean, times ``scale``.
"""

from libc.stdint cimport int32_t

from fastconv._native.dispatch cimport f32, f64
from fastconv._native.split cimport SplitStep, blocks
from fastconv._native.step cimport Context, fail

from fastconv._native.checks import distinct, extent, in_place, number, stride_of, strided, whole

cdef enum:
    PIECES = 256    # of a sum, at most
    SHORTEST = 64   # rows of a piece, at least

SCRATCH = PIECES + 1  # doubles that every step here needs as scratch: one more for a count
NONE = -2**31  # no label: the one that means that none is ignored

cdef int32_t NO_LABEL = NONE

cdef enum:  # the modes of csrc/kernels/loss.inl
    FUSED, PROBABILITIES, LOGITS


cdef inline Py_ssize_t piece_rows(Py_ssize_t rows) noexcept nogil:
    return max(SHORTEST, blocks(rows, PIECES))


cdef class _RowSum(SplitStep):
    """A sum over all rows of the batch: pieces into scratch, then added in order."""

    cdef Py_ssize_t rows, classes, scratch

    cdef double total(self, Context *c, double cost) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.rows, block = piece_rows(rows), i
        cdef const double *pieces = <const double *> c.ptr[self.scratch]
        cdef double total = 0
        self.split(c, 0, blocks(rows, block), 1, cost * block * self.classes)
        for i in range(blocks(rows, block)):
            total += pieces[i]
        return total

    cdef void part(self, Context *c, int phase, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.rows, block = piece_rows(rows), i
        for i in range(first, last):
            (<double *> c.ptr[self.scratch])[i] = self.piece(
                c, i * block, min(block, rows - i * block))

    cdef double piece(self, Context *c, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
        return 0


cdef Py_ssize_t labelled(Context *c, Py_ssize_t slot, Py_ssize_t rows, Py_ssize_t classes,
                         int32_t ignore) noexcept nogil:
    """How many labels are not ``ignore``; −1 where one of these is no class, and the run fails with
    a ValueError."""
    cdef const int32_t *labels = <const int32_t *> c.ptr[slot]
    cdef Py_ssize_t i, count = rows
    for i in range(rows):
        if not 0 <= labels[i] < classes or labels[i] == ignore:
            if labels[i] != ignore or ignore == NO_LABEL:
                with gil:
                    fail(c, ValueError(f"label {labels[i]} is no class number in 0..{classes - 1}"))
                return -1
            count -= 1
    return count


cdef class _CrossEntropy(_RowSum):
    """−Σ t log p of labels or of targets."""

    cdef int mode
    cdef int32_t ignore
    cdef double scale, smooth
    cdef Py_ssize_t p, p_stride, labels, targets, weight, loss, dx, dx_stride

    cdef bind_slots(self, rows, classes, from_logits, fused, scale, p, p_stride, weight, loss, dx,
                    dx_stride, scratch, target, target_extent):
        if from_logits and fused:
            raise ValueError("fused means that p is a softmax, from_logits that it is not")
        self.mode = FUSED if fused else LOGITS if from_logits else PROBABILITIES
        self.rows, self.classes = rows, classes
        self.scale = number("scale", scale)
        self.p_stride = stride_of("p_stride", p_stride, classes)
        self.dx_stride = classes
        self.reads = (strided(p, rows, classes, p_stride), target_extent)
        if whole("weight", weight, -1) >= 0:
            self.reads += (extent(weight, 1),)
        self.writes = (extent(loss, 0, 1, 8), extent(scratch, 0, SCRATCH, 8))
        distinct(p=p, target=target, loss=loss, scratch=scratch)
        if whole("dx", dx, -1) >= 0:
            self.dx_stride = stride_of("dx_stride", classes if dx_stride is None else dx_stride,
                                       classes)
            if self.mode == PROBABILITIES:
                distinct(p=p, dx=dx)
            in_place(p, p_stride, dx, self.dx_stride)
            distinct(target=target, loss=loss, scratch=scratch, dx=dx)
            self.writes += (strided(dx, rows, classes, self.dx_stride),)
        self.p, self.weight, self.loss, self.dx, self.scratch = p, weight, loss, dx, scratch
        self.labels = self.targets = -1
        self.ignore = NO_LABEL

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.rows
        if self.labels >= 0:
            rows = labelled(c, self.labels, rows, self.classes, self.ignore)
            if rows < 0:
                return
        (<double *> c.ptr[self.scratch])[PIECES] = rows
        (<double *> c.ptr[self.loss])[0] = self.total(c, 20) / max(rows, 1)

    cdef double piece(self, Context *c, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
        cdef Py_ssize_t p = first * self.p_stride, dx = first * self.dx_stride
        cdef Py_ssize_t t = first * self.classes
        cdef double scale = self.scale / max((<double *> c.ptr[self.scratch])[PIECES], 1)
        cdef const int32_t *labels = NULL
        if self.labels >= 0:
            labels = <const int32_t *> c.ptr[self.labels] + first
        if c.f64:
            return f64.cross_entropy(
                self.mode, first, rows, self.classes, <double *> c.ptr[self.p] + p, self.p_stride,
                labels, self.ignore,
                <double *> c.ptr[self.targets] + t if self.targets >= 0 else NULL, self.classes,
                self.smooth, <double *> c.ptr[self.weight] if self.weight >= 0 else NULL,
                self.rows, scale, <double *> c.ptr[self.dx] + dx if self.dx >= 0 else NULL,
                self.dx_stride)
        return f32.cross_entropy(
            self.mode, first, rows, self.classes, <float *> c.ptr[self.p] + p, self.p_stride,
            labels, self.ignore,
            <float *> c.ptr[self.targets] + t if self.targets >= 0 else NULL, self.classes,
            self.smooth, <float *> c.ptr[self.weight] if self.weight >= 0 else NULL,
            self.rows, scale, <float *> c.ptr[self.dx] + dx if self.dx >= 0 else NULL,
            self.dx_stride)


cdef class SparseCrossEntropy(_CrossEntropy):
    """loss = mean over rows of −log p[label].

    From probabilities, p is divided by its sum and clipped to 1e-7..1 − 1e-7, as Keras 3 does; its
    gradient is that of this formula. ``fused``: p is the output of a softmax, and dx is the
    gradient at the softmax' logits, (p − t) / rows. ``from_logits``: p are logits. A label outside
    of the classes raises ValueError.

    Parameters
    ----------
    rows_per_sample, classes : int
    from_logits : bool
    p : int
        Slot, (n, rows, classes).
    labels : int
        Slot, (n, rows) int32.
    loss : int
        Slot, one double.
    scratch : int
        Slot, ``SCRATCH`` doubles.
    p_stride, dx_stride : int
        Elements from one row to the next; by default the classes.
    weight : int
        Slot, (n,): factors of the samples' losses; −1: ones. The mean divides by rows, not weights.
    dx : int
        Slot, (n, rows, classes); −1: not wanted. May be p but for probabilities.
    fused : bool
    scale : float
        Factor of dx.
    ignore : int, optional
        Rows with this label count nothing: their dx is 0, and the mean is that of the others.
    """

    def __init__(self, rows_per_sample, classes, from_logits, p, p_stride, labels, loss, scratch,
                 weight=-1, dx=-1, dx_stride=None, bint fused=False, scale=1.0, ignore=None):
        rows, classes = whole("rows_per_sample", rows_per_sample), whole("classes", classes)
        self.bind_slots(rows, classes, from_logits, fused, scale, p, p_stride, weight, loss, dx,
                        dx_stride, scratch, labels, extent(labels, rows, 0, 4))
        self.labels = labels
        self.ignore = NO_LABEL if ignore is None else whole("ignore", ignore, NONE)


cdef class CategoricalCrossEntropy(_CrossEntropy):
    """loss = mean over rows of −Σ t log p.

    Parameters
    ----------
    targets : int
        Slot, (n, rows, classes).
    label_smoothing : float
        This share of the targets is spread evenly over the classes.
    others
        As in `SparseCrossEntropy`.
    """

    def __init__(self, rows_per_sample, classes, from_logits, p, p_stride, targets, loss, scratch,
                 weight=-1, dx=-1, dx_stride=None, bint fused=False, scale=1.0,
                 label_smoothing=0.0):
        rows, classes = whole("rows_per_sample", rows_per_sample), whole("classes", classes)
        self.bind_slots(rows, classes, from_logits, fused, scale, p, p_stride, weight, loss, dx,
                        dx_stride, scratch, targets, extent(targets, rows * classes))
        self.targets = targets
        self.smooth = number("label_smoothing", label_smoothing, 0, 1)


cdef class _Elementwise(_RowSum):
    """The mean of something of every element of y and its target."""

    cdef double scale
    cdef Py_ssize_t y, y_stride, targets, weight, loss, dx, dx_stride

    cdef bind_slots(self, pixels, channels, y, y_stride, targets, loss, scratch, weight, dx,
                    dx_stride, scale):
        self.rows, self.classes = whole("pixels", pixels), whole("channels", channels)
        self.scale = number("scale", scale)
        self.y_stride = stride_of("y_stride", y_stride, channels)
        self.dx_stride = channels
        self.reads = (strided(y, pixels, channels, y_stride), extent(targets, pixels * channels))
        if whole("weight", weight, -1) >= 0:
            self.reads += (extent(weight, 1),)
        self.writes = (extent(loss, 0, 1, 8), extent(scratch, 0, SCRATCH, 8))
        distinct(y=y, targets=targets, loss=loss, scratch=scratch)
        if whole("dx", dx, -1) >= 0:
            self.dx_stride = stride_of("dx_stride", channels if dx_stride is None else dx_stride,
                                       channels)
            in_place(y, y_stride, dx, self.dx_stride)
            distinct(targets=targets, loss=loss, scratch=scratch, dx=dx)
            self.writes += (strided(dx, pixels, channels, self.dx_stride),)
        self.y, self.targets, self.weight, self.loss, self.dx = y, targets, weight, loss, dx
        self.scratch = scratch

    cdef double mean(self, Context *c, double cost) noexcept nogil:
        return self.total(c, cost) / (<double> c.n * self.rows * self.classes)

    cdef double piece(self, Context *c, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
        """Stretches of rows that lie together and have one weight."""
        cdef bint flat = self.y_stride == self.classes == self.dx_stride
        cdef Py_ssize_t row = first, count
        cdef double total = 0, weight = 1, scale = self.scale / (<double> c.n * self.rows
                                                                 * self.classes)
        while row < first + rows:
            count = 1
            if flat:  # to the end of the sample
                count = min(first + rows, (row // self.rows + 1) * self.rows) - row
                if self.weight < 0:
                    count = first + rows - row
            if self.weight >= 0 and c.f64:
                weight = (<double *> c.ptr[self.weight])[row // self.rows]
            elif self.weight >= 0:
                weight = (<float *> c.ptr[self.weight])[row // self.rows]
            total += weight * self.stretch(c, row, count * self.classes, weight * scale)
            row += count
        return total

    cdef double stretch(self, Context *c, Py_ssize_t row, Py_ssize_t count,
                        double scale) noexcept nogil:
        """The sum over count elements from this row on; dx is scale times its gradient."""
        return 0


cdef class MeanSquaredError(_Elementwise):
    """loss = mean over samples, pixels and channels of (y − t)².

    Parameters
    ----------
    pixels, channels : int
        Of one sample.
    y, y_stride : int
        Slot, (n, pixels, channels), and elements from one pixel to the next.
    targets : int
        Slot, (n, pixels, channels), without gaps.
    loss, scratch, weight, dx, dx_stride, scale
        As in `SparseCrossEntropy`.
    """

    def __init__(self, pixels, channels, y, y_stride, targets, loss, scratch, weight=-1, dx=-1,
                 dx_stride=None, scale=1.0):
        self.bind_slots(pixels, channels, y, y_stride, targets, loss, scratch, weight, dx,
                        dx_stride, scale)

    cdef void run(self, Context *c) noexcept nogil:
        (<double *> c.ptr[self.loss])[0] = self.mean(c, 2)

    cdef double stretch(self, Context *c, Py_ssize_t row, Py_ssize_t count,
                        double scale) noexcept nogil:
        cdef Py_ssize_t y = row * self.y_stride, dx = row * self.dx_stride, t = row * self.classes
        if c.f64:
            return f64.squared_error(
                count, <double *> c.ptr[self.y] + y, <double *> c.ptr[self.targets] + t, 2 * scale,
                <double *> c.ptr[self.dx] + dx if self.dx >= 0 else NULL)
        return f32.squared_error(
            count, <float *> c.ptr[self.y] + y, <float *> c.ptr[self.targets] + t,
            <float> (2 * scale), <float *> c.ptr[self.dx] + dx if self.dx >= 0 else NULL)


cdef class BinaryCrossEntropy(_Elementwise):
    """loss = mean over samples, pixels and channels of −t log p − (1 − t) log(1 − p).

    From probabilities, p is clipped to 1e-7..1 − 1e-7, as Keras 3 does; its gradient is that of
    this formula. ``fused``: p is the output of a sigmoid, and dx the gradient at its logits, p − t.

    Parameters
    ----------
    pixels, channels, targets
        As in `MeanSquaredError`.
    from_logits : bool
    p, p_stride : int
        Slot, (n, pixels, channels), and elements from one pixel to the next.
    label_smoothing : float
        Targets move by this share towards ½.
    loss, scratch, weight, dx, dx_stride, fused, scale
        As in `SparseCrossEntropy`.
    """

    cdef int mode
    cdef double smooth

    def __init__(self, pixels, channels, from_logits, p, p_stride, targets, loss, scratch,
                 weight=-1, dx=-1, dx_stride=None, bint fused=False, scale=1.0,
                 label_smoothing=0.0):
        if from_logits and fused:
            raise ValueError("fused means that p is a sigmoid, from_logits that it is not")
        self.mode = FUSED if fused else LOGITS if from_logits else PROBABILITIES
        self.smooth = number("label_smoothing", label_smoothing, 0, 1)
        self.bind_slots(pixels, channels, p, p_stride, targets, loss, scratch, weight, dx,
                        dx_stride, scale)

    cdef void run(self, Context *c) noexcept nogil:
        (<double *> c.ptr[self.loss])[0] = self.mean(c, 40)

    cdef double stretch(self, Context *c, Py_ssize_t row, Py_ssize_t count,
                        double scale) noexcept nogil:
        cdef Py_ssize_t y = row * self.y_stride, dx = row * self.dx_stride, t = row * self.classes
        if c.f64:
            return f64.binary_entropy(
                self.mode, count, <double *> c.ptr[self.y] + y, <double *> c.ptr[self.targets] + t,
                self.smooth, scale, <double *> c.ptr[self.dx] + dx if self.dx >= 0 else NULL)
        return f32.binary_entropy(
            self.mode, count, <float *> c.ptr[self.y] + y, <float *> c.ptr[self.targets] + t,
            self.smooth, scale, <float *> c.ptr[self.dx] + dx if self.dx >= 0 else NULL)


cdef class _Accuracy(SplitStep):
    """total += hits of this batch. Hits are whole numbers: their order changes nothing."""

    cdef Py_ssize_t rows, classes, y, y_stride, targets, total

    cdef bind_slots(self, rows, classes, y, y_stride, targets, total, target_extent):
        self.rows, self.classes = rows, classes
        self.y_stride = stride_of("y_stride", y_stride, classes)
        distinct(y=y, targets=targets, total=total)
        counter = extent(total, 0, 1, 8)
        self.reads = (strided(y, rows, classes, y_stride), target_extent, counter)
        self.writes = (counter,)
        self.y, self.targets, self.total = y, targets, total

    cdef void add(self, Context *c, double hits) noexcept nogil:
        cdef double *total = <double *> c.ptr[self.total]
        total[0] += hits


cdef class SparseAccuracy(_Accuracy):
    """total += rows whose largest y stands at the label.

    Parameters
    ----------
    rows_per_sample, classes : int
    y, y_stride : int
        Slot, (n, rows, classes), and elements from one row to the next.
    targets : int
        Slot, (n, rows) int32.
    total : int
        Slot, one double, added to.
    """

    def __init__(self, rows_per_sample, classes, y, y_stride, targets, total):
        rows, classes = whole("rows_per_sample", rows_per_sample), whole("classes", classes)
        self.bind_slots(rows, classes, y, y_stride, targets, total, extent(targets, rows, 0, 4))

    cdef void run(self, Context *c) noexcept nogil:
        cdef const int32_t *labels = <const int32_t *> c.ptr[self.targets]
        if c.f64:
            self.add(c, f64.count_hits(c.n * self.rows, self.classes, <double *> c.ptr[self.y],
                                       self.y_stride, labels, NULL, 0))
        else:
            self.add(c, f32.count_hits(c.n * self.rows, self.classes, <float *> c.ptr[self.y],
                                       self.y_stride, labels, NULL, 0))


cdef class CategoricalAccuracy(_Accuracy):
    """total += rows whose largest y stands where the largest target does.

    Parameters as in `SparseAccuracy`; targets (n, rows, classes) in the pass' real.
    """

    def __init__(self, rows_per_sample, classes, y, y_stride, targets, total):
        rows, classes = whole("rows_per_sample", rows_per_sample), whole("classes", classes)
        self.bind_slots(rows, classes, y, y_stride, targets, total, extent(targets, rows * classes))

    cdef void run(self, Context *c) noexcept nogil:
        if c.f64:
            self.add(c, f64.count_hits(c.n * self.rows, self.classes, <double *> c.ptr[self.y],
                                       self.y_stride, NULL, <double *> c.ptr[self.targets],
                                       self.classes))
        else:
            self.add(c, f32.count_hits(c.n * self.rows, self.classes, <float *> c.ptr[self.y],
                                       self.y_stride, NULL, <float *> c.ptr[self.targets],
                                       self.classes))


cdef class BinaryAccuracy(_Accuracy):
    """total += each row's share of outputs that lie on their target's side of ``threshold``.

    Parameters as in `CategoricalAccuracy`; a target is met where it equals (y > threshold).
    """

    cdef double threshold

    def __init__(self, rows_per_sample, classes, y, y_stride, targets, total, threshold=0.5):
        rows, classes = whole("rows_per_sample", rows_per_sample), whole("classes", classes)
        self.bind_slots(rows, classes, y, y_stride, targets, total, extent(targets, rows * classes))
        self.threshold = number("threshold", threshold)

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t hits = 0, row
        for row in range(c.n * self.rows):
            if c.f64:
                hits += f64.count_binary_hits(
                    self.classes, self.threshold, <double *> c.ptr[self.y] + row * self.y_stride,
                    <double *> c.ptr[self.targets] + row * self.classes)
            else:
                hits += f32.count_binary_hits(
                    self.classes, <float> self.threshold,
                    <float *> c.ptr[self.y] + row * self.y_stride,
                    <float *> c.ptr[self.targets] + row * self.classes)
        self.add(c, <double> hits / self.classes)

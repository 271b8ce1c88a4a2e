"""The shapes of a convolution, checked once, and where each of its taps reads.

A *lattice* is a set of output pixels that share one list of taps. Forward has one lattice, all
output pixels. The input gradient has one per phase of the stride: pixel i receives from output o
through tap k where o · stride = i + pad − k · dilation, so pixels that agree modulo the stride
share their taps, and along a phase o moves by one. A dense layer is one tap over one pixel. For the
weight gradient, a *rectangle* is the outputs to which a tap brings a pixel.

Letters: N samples, D H W space, IC input channels and OC output channels; taps = KD · KH · KW.
"""

import itertools
import math

from libc.stdlib cimport calloc, free

from fastconv._native.tiles cimport WIDEST

SCATTERED = 512     # elements between pixels

from fastconv._native.step import Extent

# elements of one array; with room for panels and for a batch in bytes of doubles
LARGEST = (2**63 - 1) // 8 // (WIDEST * WIDEST)


def _triple(name, value, least):
    """``value`` as three ints, each at least ``least``."""
    try:
        triple = tuple(int(v) for v in value)
    except TypeError:
        raise ValueError(f"{name} has three entries, not {value!r}") from None
    if len(triple) != 3 or any(v != w for v, w in zip(triple, value)):
        raise ValueError(f"{name} has three whole entries, not {value!r}")
    if min(triple) < least:
        raise ValueError(f"{name} has entries of at least {least}, not {value!r}")
    return triple


def count_of(name, value, least=1):
    if int(value) != value or value < least:
        raise ValueError(f"{name} is a whole number of at least {least}, not {value!r}")
    return int(value)


cdef class ConvGeometry:
    """The shapes of a convolution, checked: x (N, D, H, W, IC) and y (N, OD, OH, OW, OC).

    Parameters
    ----------
    in_size, kernel, strides, dilation : tuples of three ints
    pads : three pairs
        Rows of zeros before and after, per dimension.
    channels, filters, groups : int
        IC and OC; both are multiples of ``groups``.
    x_stride, y_stride : int, optional
        Elements from one pixel to the next, at least the channels; by default just these.
    """

    def __init__(self, *, in_size, kernel, strides=(1, 1, 1), dilation=(1, 1, 1),
                 pads=((0, 0), (0, 0), (0, 0)), channels, filters, groups=1, x_stride=None,
                 y_stride=None):
        if self.phases is not NULL:
            raise ValueError("a geometry is made once")
        self.in_size = _triple("in_size", in_size, 1)
        self.kernel = _triple("kernel", kernel, 1)
        self.strides = _triple("strides", strides, 1)
        self.dilation = _triple("dilation", dilation, 1)
        before, after = (_triple("pads", side, 0) for side in _pairs(pads))
        self.pads = tuple(zip(before, after))
        channels, filters = count_of("channels", channels), count_of("filters", filters)
        groups = count_of("groups", groups)
        if channels % groups or filters % groups:
            raise ValueError(f"groups={groups} does not divide channels={channels} "
                             f"and filters={filters}")
        x_stride = channels if x_stride is None else count_of("x_stride", x_stride, channels)
        y_stride = filters if y_stride is None else count_of("y_stride", y_stride, filters)
        out_size = tuple(
            (i + b + a - (k - 1) * d - 1) // s + 1 for i, k, s, d, (b, a)
            in zip(self.in_size, self.kernel, self.strides, self.dilation, self.pads))
        if min(out_size) < 1:
            raise ValueError(f"kernel {self.kernel} with dilation {self.dilation} does not fit "
                             f"into in_size {self.in_size} with pads {self.pads}")
        self._check_products(out_size, channels, filters, groups, x_stride, y_stride)
        self.out_size = out_size
        self.channels, self.filters, self.groups = channels, filters, groups
        self.x_stride, self.y_stride = x_stride, y_stride
        taps = math.prod(self.kernel)
        self.weight_size = taps * (channels // groups) * filters
        self.forward_panel_size = panel_size(taps, groups, channels // groups, filters // groups)
        self.backward_panel_size = panel_size(taps, groups, filters // groups, channels // groups)
        self._lay_out()

    @staticmethod
    def dense(inputs, units, x_stride=None, y_stride=None):
        """A dense layer is one tap over one pixel: x (N, inputs), y (N, units)."""
        return ConvGeometry(in_size=(1, 1, 1), kernel=(1, 1, 1), channels=inputs, filters=units,
                            x_stride=x_stride, y_stride=y_stride)

    def _check_products(self, out_size, channels, filters, groups, x_stride, y_stride):
        """Every size that is computed later fits a Py_ssize_t, in bytes of doubles."""
        padded = [i + b + a for i, (b, a) in zip(self.in_size, self.pads)]
        products = {
            "in_size": math.prod(self.in_size) * x_stride,
            "pads": math.prod(padded) * x_stride,
            "out_size": math.prod(out_size) * y_stride,
            "kernel": math.prod(self.kernel) * channels * filters,
            "strides": math.prod(self.strides),
            "dilation": math.prod(k * d for k, d in zip(self.kernel, self.dilation)),
        }
        for name, product in products.items():
            if product > LARGEST:
                raise ValueError(f"{name} makes an array of {product} elements: too large")

    def _lay_out(self):
        """The lattices and rectangles: where each tap reads."""
        taps = list(itertools.product(*map(range, self.kernel)))
        # phases past the image have no pixels
        cdef Py_ssize_t phases = math.prod(map(min, self.strides, self.in_size)), count = len(taps)
        self.phases = <Lattice *> calloc(phases, sizeof(Lattice))
        self.order = <Py_ssize_t *> calloc(count, sizeof(Py_ssize_t))
        self.seen = <Rectangle *> calloc(count, sizeof(Rectangle))
        if self.phases is NULL or self.order is NULL or self.seen is NULL:
            raise MemoryError
        self.phase_count = phases
        self.forward = _gather(self.in_size, self.out_size, self.x_stride, self.y_stride,
                               self.channels // self.groups, self.filters // self.groups,
                               self.groups, count)
        self.backward = _gather(self.out_size, self.in_size, self.y_stride, self.x_stride,
                                self.filters // self.groups, self.channels // self.groups,
                                self.groups, count)
        before = [b for b, _ in self.pads]
        shifts = [tuple(k * d - b for k, d, b in zip(tap, self.dilation, before)) for tap in taps]
        _lattice(&self.outputs, &self.forward, self.out_size, (0, 0, 0), (1, 1, 1), self.strides,
                 shifts, 0)
        self._lay_out_phases(taps, before)
        self._lay_out_rectangles(shifts)

    def _lay_out_rectangles(self, shifts):
        cdef Py_ssize_t t
        cdef Outer *o = &self.outer
        o.depth, o.width = self.forward.depth, self.forward.width
        o.groups, o.taps, o.out = self.groups, len(shifts), self.out_size
        o.span = self.kernel[2] if self.dilation[2] == 1 and self.x_stride == o.depth else 1
        # so many that x stays in the L2 cache, over which strides spread the pixels that are read
        o.walk = WALK if o.depth < 16 else max(
            WALK // 8, min(WALK // math.prod(self.strides), SCATTERED * 128 // o.depth))
        x_step, dy_step = [self.x_stride], [self.y_stride]
        for size, out in zip(reversed(self.in_size), reversed(self.out_size)):
            x_step.insert(0, x_step[0] * size)
            dy_step.insert(0, dy_step[0] * out)
        o.x_step = [step * stride for step, stride in zip(x_step, (1, *self.strides))]
        o.dy_step = dy_step
        strided = max(self.strides) > 1
        o.scattered = ((strided or len(shifts) == 1)
                       and o.x_step[3] >= (SCATTERED // 2 if strided else SCATTERED))
        for t, shift in enumerate(shifts):  # 0 ≤ o * stride + shift < in
            first = [max(0, -(v // s)) for v, s in zip(shift, self.strides)]
            last = [min(out, (size - 1 - v) // s + 1) for v, s, out, size
                    in zip(shift, self.strides, self.out_size, self.in_size)]
            self.seen[t].first, self.seen[t].last = first, last
            self.seen[t].delta = sum(v * step for v, step in zip(shift, x_step[1:]))

    def _lay_out_phases(self, taps, before):
        place = 0
        for p, phase in enumerate(itertools.product(
                *map(range, map(min, self.strides, self.in_size)))):
            shifts = []
            for t in reversed(range(len(taps))):    # backwards: the gather reads upwards
                reach = [q + b - k * d for q, b, k, d
                         in zip(phase, before, taps[t], self.dilation)]
                if all(r % s == 0 for r, s in zip(reach, self.strides)):
                    self.order[<Py_ssize_t> (place + len(shifts))] = t
                    shifts.append(tuple(r // s for r, s in zip(reach, self.strides)))
            count = [max(0, -((q - i) // s)) for q, i, s
                     in zip(phase, self.in_size, self.strides)]
            _lattice(&self.phases[<Py_ssize_t> p], &self.backward, count, phase, self.strides,
                     (1, 1, 1), shifts, place)
            place += len(shifts)

    def __dealloc__(self):
        cdef Py_ssize_t p
        free(self.outputs.shift)
        free(self.outputs.delta)
        for p in range(self.phase_count):
            free(self.phases[p].shift)
            free(self.phases[p].delta)
        free(self.phases)
        free(self.order)
        free(self.seen)

    cdef Py_ssize_t pieces(self, Py_ssize_t n) noexcept nogil:
        """Pieces of a batch of n in the weight gradient.

        Several while the copies of dw are small and each has pixels enough to be worth it.
        """
        cdef Py_ssize_t pieces = 1, out = self.outer.out[0] * self.outer.out[1] * self.outer.out[2]
        while (2 * pieces <= min(n, PIECES) and 2 * pieces * self.weight_size <= COPIES
               and 2 * pieces * WALK <= n * out):
            pieces *= 2
        return pieces

    @property
    def scratch_size(self):
        """Elements of scratch that a `ConvWeightGradient` needs."""
        pieces = self.pieces(WALK * PIECES)     # a batch for which pixels are no limit
        return pieces * self.weight_size if pieces > 1 else 0

    def flops(self, n):
        """Multiplications and additions of the direct sum over n samples, either direction:
        every tap of every output counts, those in the padding too."""
        return 2 * n * math.prod(self.out_size) * self.weight_size

    def x_extent(self, slot):
        """What a batch touches of x (or dx)."""
        pixels = math.prod(self.in_size)
        return Extent(slot, pixels * self.x_stride, self.channels - self.x_stride)

    def y_extent(self, slot):
        """What a batch touches of y (or dy)."""
        pixels = math.prod(self.out_size)
        return Extent(slot, pixels * self.y_stride, self.filters - self.y_stride)


def _pairs(pads):
    """Three (before, after) as before and after."""
    try:
        pairs = [tuple(pair) for pair in pads]
    except TypeError:
        pairs = []
    if len(pairs) != 3 or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"pads has three pairs (before, after), not {pads!r}")
    return zip(*pairs)


def panel_size(taps, groups, depth, width):
    """Elements of all panels, for the widest table: a change of ISA never outgrows them."""
    return groups * -(-width // WIDEST) * WIDEST * taps * depth


cdef Gather _gather(src, dst, src_stride, dst_stride, depth, width, groups, taps):
    cdef Gather g
    g.src, g.dst = src, dst
    g.src_stride, g.dst_stride = src_stride, dst_stride
    g.depth, g.width, g.groups, g.taps = depth, width, groups, taps
    return g


cdef _lattice(Lattice *s, const Gather *g, count, start, step, move, shifts, first):
    cdef Py_ssize_t t, i
    s.count, s.start, s.step, s.move = count, start, step, move
    s.taps, s.first = len(shifts), first
    s.shift = <Py_ssize_t *> calloc(3 * s.taps + 1, sizeof(Py_ssize_t))
    s.delta = <Py_ssize_t *> calloc(s.taps + 1, sizeof(Py_ssize_t))
    if s.shift is NULL or s.delta is NULL:
        raise MemoryError
    for t in range(s.taps):
        for i in range(3):
            s.shift[3 * t + i] = shifts[t][i]
            s.low[i] = min(s.low[i], s.shift[3 * t + i]) if t else s.shift[i]
            s.high[i] = max(s.high[i], s.shift[3 * t + i]) if t else s.shift[i]
        s.delta[t] = ((s.shift[3 * t] * g.src[1] + s.shift[3 * t + 1]) * g.src[2]
                      + s.shift[3 * t + 2]) * g.src_stride
    # taps of a row lie side by side where pixels do: an image of few channels becomes a longer tap
    s.run = 1
    if g.src_stride == g.depth and s.taps <= TAPS and s.taps * g.depth <= DEPTH:
        while s.run < s.taps and s.delta[s.run] == s.run * g.depth + s.delta[0]:
            s.run += 1
        for t in range(s.taps):
            if s.taps % s.run or s.delta[t] != s.delta[t - t % s.run] + t % s.run * g.depth:
                s.run = 1

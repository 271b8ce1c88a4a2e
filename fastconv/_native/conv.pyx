"""Convolutions and dense layers: the tile and block loops around the two micro-kernels.

Design. Forward, the input gradient and dense layers are one walk, `gather`: every output pixel is a
sum over taps × channels, and what changes is where a tap reads. A *lattice* is a set of output
pixels that share one list of taps. Forward has one lattice, all output pixels. The input gradient
has one per phase of the stride: pixel i receives from output o through tap k where
o · stride = i + pad − k · dilation, so pixels that agree modulo the stride share their taps, and
along a phase o moves by one. A dense layer is one tap over one pixel.

Weights are read from panels, [group][panel][tap][channel][NR], packed once per run (the input
gradient's have the two channel axes changed over and the taps sorted by phase). With a single tap
the forward walk can read the weights where they lie, which is best for dense layers.

Each output adds its terms in the order of the panel, tap by tap and channel by channel. Cutting the
sum into chunks stores and reloads the same partial sums, and a pixel never looks at its neighbours,
so tiles, blocks and threads leave the bits alone, and chunk sizes need no rule but speed.

The weight gradient adds over the batch. Its samples are cut into pieces, a function of shape and
batch size only; each piece fills its own copy and the copies are added in order.

Letters: N samples, D H W space, IC input channels and OC output channels; taps = KD · KH · KW.
"""

import itertools
import math

from cython.parallel cimport parallel, prange
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastconv._native.dispatch cimport (
    f32, f64, fc_walk, flush_denormals_on, flush_denormals_restore, real,
)
from fastconv._native.step cimport FMAS, Context, Step, team

from fastconv._native.step import Extent

cdef enum:
    WIDEST = 32         # every table's gather_nr and outer_nr divide this
    TALLEST = 16        # no table's gather_mr is larger
    DEPTH = 2048        # taps × channels summed at a time: a panel of 256 KB stays in the L2 cache
    BLOCK = 16          # tiles that share a chunk of a panel
    POINTERS = 4096     # source pointers of a block and chunk
    TAPS = POINTERS // TALLEST  # taps of a chunk
    IN_PLACE_DEPTH = 256    # the same of weights in place, which lie scattered
    PAGE = 4096         # bytes: pixels so far apart are copied before they are read,
    COPIED = 4          # so many tiles
    COPY_DEPTH = 128    # of so many channels at a time,
    PITCH = COPY_DEPTH + 16     # a row of the copy and the next one's are 64 bytes out of step
    WALK = 1024         # pixels that a weight gradient walks over at a time
    PIECES = 16         # of a batch, at most,
    COPIES = 1 << 18    # while their copies of dw have no more elements than this
    STRIPS = 64         # pieces of a bias gradient, at most,
    STRIP = 1024        # each of at least so many pixels
    SLAB = 4096         # elements of one task when pieces are added

cdef double[DEPTH] zeros    # what a tap reads in the padding; never written

NONE, RELU, LEAKY_RELU = 0, 1, 2

# elements of one array; with room for panels and for a batch in bytes of doubles
LARGEST = (2**63 - 1) // 8 // (WIDEST * WIDEST)


# ---- the tables, once per kernel ----------------------------------------------------------------

cdef inline Py_ssize_t gather_mr(const real *_) noexcept nogil:
    return f32.gather_mr if real is float else f64.gather_mr


cdef inline Py_ssize_t gather_nr(const real *_) noexcept nogil:
    return f32.gather_nr if real is float else f64.gather_nr


cdef inline Py_ssize_t outer_mr(const real *_) noexcept nogil:
    return f32.outer_mr if real is float else f64.outer_mr


cdef inline Py_ssize_t outer_nr(const real *_) noexcept nogil:
    return f32.outer_nr if real is float else f64.outer_nr


cdef inline void pack_panel(const real *w, Py_ssize_t row_stride, Py_ssize_t col_stride,
                            Py_ssize_t rows, Py_ssize_t cols, real *panel) noexcept nogil:
    if real is float:
        f32.pack_panel(w, row_stride, col_stride, rows, cols, panel)
    else:
        f64.pack_panel(w, row_stride, col_stride, rows, cols, panel)


cdef inline void gather_tile(Py_ssize_t m, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t depth,
                             const real *const *x, const real *const *w, Py_ssize_t w_stride,
                             const real *bias, bint accumulate, int activation, real slope,
                             real *const *y) noexcept nogil:
    if real is float:
        f32.gather_tile(m, n, taps, depth, x, w, w_stride, bias, accumulate, activation, slope, y)
    else:
        f64.gather_tile(m, n, taps, depth, x, w, w_stride, bias, accumulate, activation, slope, y)


cdef inline void outer_tile(Py_ssize_t m, Py_ssize_t n, const fc_walk *walk, const real *x,
                            const real *dy, real *dw, Py_ssize_t dw_stride,
                            bint accumulate) noexcept nogil:
    if real is float:
        f32.outer_tile(m, n, walk, x, dy, dw, dw_stride, accumulate)
    else:
        f64.outer_tile(m, n, walk, x, dy, dw, dw_stride, accumulate)


def tile_sizes(bint double=False):
    """The register tiles of the table in use: ``gather_mr``, ``gather_nr``, ``outer_mr``, ..."""
    if double:
        return {"gather_mr": f64.gather_mr, "gather_nr": f64.gather_nr,
                "outer_mr": f64.outer_mr, "outer_nr": f64.outer_nr}
    return {"gather_mr": f32.gather_mr, "gather_nr": f32.gather_nr,
            "outer_mr": f32.outer_mr, "outer_nr": f32.outer_nr}


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return (a + b - 1) // b


cdef inline Py_ssize_t share(Py_ssize_t i, Py_ssize_t parts, Py_ssize_t total) noexcept nogil:
    """Where part i begins when total is cut into parts that differ by at most one."""
    return total // parts * i + min(i, total % parts)


# ---- geometry -----------------------------------------------------------------------------------

cdef struct Lattice:
    # destination pixels start + j * step, 0 ≤ j < count; tap t reads pixel j * move + shift[t]
    Py_ssize_t[3] count, start, step, move
    Py_ssize_t taps, first      # first: place of tap 0 in a panel
    Py_ssize_t *shift           # [taps][3]
    Py_ssize_t *delta           # [taps]: the shift in elements of the source
    Py_ssize_t[3] low, high     # smallest and largest shift
    Py_ssize_t run              # so many taps in a row read on without a gap

cdef struct Gather:
    Py_ssize_t[3] src, dst      # extents of an image
    Py_ssize_t src_stride, dst_stride
    Py_ssize_t depth, width     # channels of a group, summed over and written
    Py_ssize_t groups, taps     # taps of a panel

cdef struct Rectangle:
    # outputs first..last to which a tap brings a pixel; output o reads input o * stride + shift
    Py_ssize_t[3] first, last
    Py_ssize_t delta            # the shift in elements of x

cdef struct Outer:
    Py_ssize_t[3] out
    Py_ssize_t[4] x_step, dy_step   # elements from sample to sample, plane, row, pixel of y
    Py_ssize_t depth, width, groups, taps
    Py_ssize_t span             # taps that lie side by side in x, pixel after pixel
    Py_ssize_t walk             # pixels of y that are walked at a time


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


def _count(name, value, least=1):
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

    cdef readonly tuple in_size, out_size, kernel, strides, dilation, pads
    cdef readonly Py_ssize_t channels, filters, groups, x_stride, y_stride
    cdef readonly Py_ssize_t weight_size, forward_panel_size, backward_panel_size
    cdef Gather forward, backward
    cdef Lattice outputs            # of the forward walk
    cdef Lattice *phases            # of the input gradient
    cdef Py_ssize_t phase_count
    cdef Py_ssize_t *order          # [taps]: the tap at each place of a backward panel
    cdef Outer outer                # of the weight gradient
    cdef Rectangle *seen            # [taps]

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
        channels, filters = _count("channels", channels), _count("filters", filters)
        groups = _count("groups", groups)
        if channels % groups or filters % groups:
            raise ValueError(f"groups={groups} does not divide channels={channels} "
                             f"and filters={filters}")
        x_stride = channels if x_stride is None else _count("x_stride", x_stride, channels)
        y_stride = filters if y_stride is None else _count("y_stride", y_stride, filters)
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
        # strides spread the pixels of x that are read, until they no longer fit the L2 cache
        o.walk = WALK if o.depth < 16 else max(WALK // 4, WALK // math.prod(self.strides))
        x_step, dy_step = [self.x_stride], [self.y_stride]
        for size, out in zip(reversed(self.in_size), reversed(self.out_size)):
            x_step.insert(0, x_step[0] * size)
            dy_step.insert(0, dy_step[0] * out)
        o.x_step = [step * stride for step, stride in zip(x_step, (1, *self.strides))]
        o.dy_step = dy_step
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


# ---- the gather: forward, input gradient, dense --------------------------------------------------

cdef struct Pixels:
    # of a block: elements into the source (where a shift of 0 reads) and the destination,
    # coordinates of that source pixel, and whether every tap stays inside the image
    Py_ssize_t[BLOCK * TALLEST] src, dst, d, h, w
    char[BLOCK * TALLEST] inside


cdef void list_pixels(const Gather *g, const Lattice *s, Py_ssize_t first, Py_ssize_t count,
                      Pixels *pixels) noexcept nogil:
    """Pixels first.. of the lattice, counted through all samples, row by row."""
    cdef Py_ssize_t n, d, h, w, i, k, src, dst, end, p = 0
    cdef Py_ssize_t[3] j
    cdef bint inside
    n = first
    for i in range(2, -1, -1):
        j[i] = n % s.count[i]
        n = n // s.count[i]
    while p < count:
        end = min(count, p + s.count[2] - j[2])     # of this row
        d, h, w = j[0] * s.move[0], j[1] * s.move[1], j[2] * s.move[2]
        src = ((n * g.src[0] + d) * g.src[1] + h) * g.src[2] + w
        dst = (n * g.dst[0] + s.start[0] + j[0] * s.step[0]) * g.dst[1] + s.start[1]
        dst = (dst + j[1] * s.step[1]) * g.dst[2] + s.start[2] + j[2] * s.step[2]
        inside = (d + s.low[0] >= 0 and d + s.high[0] < g.src[0]
                  and h + s.low[1] >= 0 and h + s.high[1] < g.src[1])
        for k in range(p, end):
            pixels.d[k], pixels.h[k], pixels.w[k] = d, h, w
            pixels.src[k], pixels.dst[k] = src * g.src_stride, dst * g.dst_stride
            pixels.inside[k] = inside & (w + s.low[2] >= 0) & (w + s.high[2] < g.src[2])
            w += s.move[2]
            src += s.move[2]
            dst += s.step[2]
        p = end
        j[2] = 0
        j[1] += 1
        if j[1] == s.count[1]:
            j[1] = 0
            j[0] += 1
            if j[0] == s.count[0]:
                j[0] = 0
                n += 1


cdef inline bint all_inside(const Pixels *pixels, Py_ssize_t first, Py_ssize_t m) noexcept nogil:
    cdef Py_ssize_t r
    cdef char inside = True
    for r in range(first, first + m):
        inside &= pixels.inside[r]
    return inside


cdef Py_ssize_t list_sources(const Gather *g, const Lattice *s, const Pixels *pixels,
                             Py_ssize_t first, Py_ssize_t m, Py_ssize_t t0, Py_ssize_t t1,
                             Py_ssize_t hop, bint inside, const real *x, const real **rows,
                             short *kept) noexcept nogil:
    """rows[j][r]: what tap t0 + kept[j] · hop reads for pixel first + r; zeros in the padding.

    Returns how many taps are kept. One that meets nothing but padding adds only zeros: it is left
    out, but for the single tap of a sum.
    """
    cdef Py_ssize_t k, r, count = 0, mr = gather_mr(x)
    cdef const Py_ssize_t *shift
    cdef const real *tap
    cdef bint meets, any_meets
    for k in range(ceil_div(t1 - t0, hop)):
        tap = x + s.delta[t0 + k * hop]
        shift = s.shift + 3 * (t0 + k * hop)
        any_meets = inside or s.taps == 1
        if inside:
            for r in range(m):
                rows[r] = tap + pixels.src[first + r]
        else:
            for r in range(m):  # a negative coordinate is a large size_t
                meets = ((<size_t> (pixels.w[first + r] + shift[2]) < <size_t> g.src[2])
                         & (<size_t> (pixels.h[first + r] + shift[1]) < <size_t> g.src[1])
                         & (<size_t> (pixels.d[first + r] + shift[0]) < <size_t> g.src[0]))
                rows[r] = tap + pixels.src[first + r] if meets else <const real *> zeros
                any_meets |= meets
        if any_meets:
            kept[count] = <short> k
            count += 1
            rows += mr
    return count


cdef struct Chunk:
    # taps t0..t1, channels i0..i1: one stretch of the sum
    Py_ssize_t t0, t1, i0, i1
    bint first, final


cdef struct Task:
    # tiles tile0..tile1 of the lattice's pixels, panels panel0..panel1 of one group
    Py_ssize_t pixels, tiles, tile0, tile1, group, panel0, panel1
    Py_ssize_t tap_step, depth_step     # a chunk has at most so many taps and channels
    bint copied


cdef void gather_panel(const Gather *g, const Lattice *s, const Task *task, const Chunk *chunk,
                       const Pixels *pixels, const real **rows, const bint *inside,
                       const Py_ssize_t *counts, const short *kept, Py_ssize_t panel,
                       const real *w, bint packed, const real *bias, int activation, real slope,
                       real *y) noexcept nogil:
    """The tiles of a task through one chunk of one panel."""
    cdef const real *taps[TAPS]
    cdef const real *rest[TALLEST]
    cdef real *ends[TALLEST]
    cdef real[WIDEST * WIDEST] tail
    cdef Py_ssize_t mr = gather_mr(w), nr = gather_nr(w)
    cdef Py_ssize_t column = task.group * g.width + panel * nr
    cdef Py_ssize_t cols = min(nr, g.width - panel * nr)
    cdef Py_ssize_t stride = nr if packed else g.groups * g.width
    cdef Py_ssize_t depth = chunk.i1 - chunk.i0, count, hop
    cdef Py_ssize_t t, r, m, tile, first = share(task.tile0, task.tiles, task.pixels), at = first
    cdef Py_ssize_t safe = depth
    if packed:
        w += ((task.group * ceil_div(g.width, nr) + panel) * g.taps + s.first + chunk.t0) \
            * g.depth * nr + chunk.i0 * nr
    else:
        w += (s.first + chunk.t0) * g.depth * stride + chunk.i0 * stride + column
        if chunk.final and cols < nr:
            # the kernel loads whole vectors: the last rows, where these would run past the weights,
            # are read from a copy
            safe = max(0, depth - ceil_div(nr - cols, stride))
            pack_panel(w + safe * stride, stride, 1, depth - safe, cols, tail)
    if bias is not NULL:
        bias += column
    for tile in range(task.tile0, task.tile1):
        m = share(tile + 1, task.tiles, task.pixels) - at
        for r in range(m):
            ends[r] = y + pixels.dst[at - first + r] + column
        hop = s.run if inside[tile - task.tile0] else 1
        count = counts[tile - task.tile0]
        for t in range(count):
            taps[t] = w + kept[t] * hop * g.depth * stride
        gather_tile(m, cols, count, min(depth, safe) * hop, rows, taps, stride, bias,
                    not chunk.first, activation if chunk.final and safe == depth else 0, slope,
                    ends)
        if safe < depth:
            for r in range(m):
                rest[r] = rows[r] + safe
            taps[0] = tail
            gather_tile(m, cols, 1, depth - safe, rest, taps, nr, bias, True, activation,
                        slope, ends)
        rows += mr * count
        kept += count
        at += m


cdef void copy_sources(Py_ssize_t m, Py_ssize_t depth, const real **rows,
                       real *copy) noexcept nogil:
    """Read from a copy. Where pixels lie a multiple of a memory page apart, all pixels of a tile
    fall into the same lines of the L1 cache and would drive each other out."""
    cdef Py_ssize_t r
    for r in range(m):
        memcpy(copy + r * PITCH, rows[r], depth * sizeof(real))
        rows[r] = copy + r * PITCH


cdef void gather_block(const Gather *g, const Lattice *s, const Task *task, const real *x,
                       const real *w, bint packed, const real *bias, int activation, real slope,
                       real *y) noexcept nogil:
    """One task: its sum chunk by chunk, panels over tiles within a chunk."""
    cdef const real *rows[POINTERS]
    cdef real[COPIED * TALLEST * PITCH] copies
    cdef Pixels pixels
    cdef bint[BLOCK] inside
    cdef Py_ssize_t[BLOCK] counts   # taps kept for each tile,
    cdef short[POINTERS] kept       # and which
    cdef Chunk chunk
    cdef Py_ssize_t mr = gather_mr(x)
    cdef Py_ssize_t tap_chunks = max(1, ceil_div(s.taps, task.tap_step))
    cdef Py_ssize_t depth_chunks = ceil_div(g.depth, task.depth_step)
    cdef Py_ssize_t k, i, panel, hop, at, m, place
    cdef Py_ssize_t first = share(task.tile0, task.tiles, task.pixels)
    list_pixels(g, s, first, share(task.tile1, task.tiles, task.pixels) - first, &pixels)
    x += task.group * g.depth
    for k in range(tap_chunks * depth_chunks):
        chunk.t0 = share(k // depth_chunks, tap_chunks, s.taps)
        chunk.t1 = share(k // depth_chunks + 1, tap_chunks, s.taps)
        chunk.i0 = share(k % depth_chunks, depth_chunks, g.depth)
        chunk.i1 = share(k % depth_chunks + 1, depth_chunks, g.depth)
        chunk.first = k == 0
        chunk.final = k == tap_chunks * depth_chunks - 1
        place = 0
        for i in range(task.tile1 - task.tile0):
            at = share(task.tile0 + i, task.tiles, task.pixels)
            m = share(task.tile0 + i + 1, task.tiles, task.pixels) - at
            inside[i] = all_inside(&pixels, at - first, m)
            hop = s.run if inside[i] else 1
            counts[i] = list_sources(g, s, &pixels, at - first, m, chunk.t0, chunk.t1, hop,
                                     inside[i], x + chunk.i0, rows + place * mr, kept + place)
            if task.copied:
                copy_sources(m, chunk.i1 - chunk.i0, rows + place * mr,
                             copies + i * TALLEST * PITCH)
            place += counts[i]
        for panel in range(task.panel0, task.panel1):
            gather_panel(g, s, task, &chunk, &pixels, rows, inside, counts, kept, panel, w, packed,
                         bias, activation, slope, y)


cdef void gather(const Context *c, const Gather *g, const Lattice *s, const real *x, const real *w,
                 bint packed, const real *bias, int activation, real slope, real *y) noexcept nogil:
    """y = activation(bias + Σ taps · x) for the pixels of a lattice, all samples and groups."""
    cdef Task task
    cdef Py_ssize_t i, blocks, slices, panels, block, mr = gather_mr(x)
    cdef unsigned mode = 0
    cdef int threads
    task.pixels = c.n * s.count[0] * s.count[1] * s.count[2]
    if task.pixels == 0:
        return
    threads = team(c, task.pixels * (s.taps + 1) * g.depth * g.width * g.groups / <double> FMAS)
    task.tiles = ceil_div(task.pixels, mr)
    panels = ceil_div(g.width, gather_nr(x))
    # as many taps as a panel's share of the cache and the list of pointers allow
    task.tap_step = max(1, min(min(s.taps, DEPTH // g.depth), TAPS))
    task.copied = s.taps == 1 and g.src_stride * sizeof(real) % PAGE == 0
    task.depth_step = COPY_DEPTH if task.copied else DEPTH if packed else IN_PLACE_DEPTH
    block = min(<Py_ssize_t> (COPIED if task.copied else BLOCK), POINTERS // (mr * task.tap_step))
    blocks = ceil_div(task.tiles, block)
    # each thread has its share of the blocks; with few pixels, of the panels as well
    blocks = min(task.tiles, ceil_div(blocks, threads) * threads)
    slices = min(panels, ceil_div(threads, blocks))
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(g.groups * slices * blocks, schedule="dynamic"):
            gather_task(g, s, task, i, blocks, slices, panels, x, w, packed, bias, activation,
                        slope, y)
        flush_denormals_restore(mode)


cdef void gather_task(const Gather *g, const Lattice *s, Task task, Py_ssize_t i, Py_ssize_t blocks,
                      Py_ssize_t slices, Py_ssize_t panels, const real *x, const real *w,
                      bint packed, const real *bias, int activation, real slope,
                      real *y) noexcept nogil:
    """Task i of groups × slices of the panels × blocks of tiles."""
    cdef Py_ssize_t block = i % blocks, slice = i // blocks % slices
    task.group = i // (blocks * slices)
    task.tile0, task.tile1 = share(block, blocks, task.tiles), share(block + 1, blocks, task.tiles)
    task.panel0, task.panel1 = share(slice, slices, panels), share(slice + 1, slices, panels)
    gather_block(g, s, &task, x, w, packed, bias, activation, slope, y)


# ---- packing -------------------------------------------------------------------------------------

cdef void pack_task(const Gather *g, const Py_ssize_t *order, Py_ssize_t i, const real *w,
                    real *panel) noexcept nogil:
    """Panel and tap number i, of groups × panels × taps; ``order`` is NULL for the forward walk."""
    cdef Py_ssize_t nr = gather_nr(w), panels = ceil_div(g.width, nr)
    cdef Py_ssize_t tap = i % g.taps, column = i // g.taps % panels * nr
    cdef Py_ssize_t group = i // (g.taps * panels), cols = min(nr, g.width - column)
    panel += i * g.depth * nr
    if order is NULL:   # w (taps, IC / groups, OC)
        w += tap * g.depth * g.groups * g.width + group * g.width + column
        pack_panel(w, g.groups * g.width, 1, g.depth, cols, panel)
    else:               # the same w, whose OC axis is now summed over
        w += (order[tap] * g.width + column) * g.groups * g.depth + group * g.depth
        pack_panel(w, 1, g.groups * g.depth, g.depth, cols, panel)


cdef void pack(const Context *c, const Gather *g, const Py_ssize_t *order, const real *w,
               real *panel) noexcept nogil:
    cdef Py_ssize_t i, tasks = g.groups * ceil_div(g.width, gather_nr(w)) * g.taps
    for i in prange(tasks, num_threads=team(c, 1.0 * tasks * g.depth * gather_nr(w)),
                    schedule="static"):
        pack_task(g, order, i, w, panel)


cdef class PackForward(Step):
    """Pack weights (KD, KH, KW, IC / groups, OC) for `ConvForward`."""

    cdef ConvGeometry geometry
    cdef Py_ssize_t weight, panel

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t weight, Py_ssize_t panel):
        self.geometry, self.weight, self.panel = geometry, weight, panel
        self.reads = (Extent(weight, 0, geometry.weight_size),)
        self.writes = (Extent(panel, 0, geometry.forward_panel_size),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.forward
        if c.f64:
            pack(c, g, NULL, <const double *> c.ptr[self.weight], <double *> c.ptr[self.panel])
        else:
            pack(c, g, NULL, <const float *> c.ptr[self.weight], <float *> c.ptr[self.panel])


cdef class PackBackward(Step):
    """Pack weights (KD, KH, KW, IC / groups, OC) for `ConvInputGradient`."""

    cdef ConvGeometry geometry
    cdef Py_ssize_t weight, panel

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t weight, Py_ssize_t panel):
        self.geometry, self.weight, self.panel = geometry, weight, panel
        self.reads = (Extent(weight, 0, geometry.weight_size),)
        self.writes = (Extent(panel, 0, geometry.backward_panel_size),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.backward
        cdef const Py_ssize_t *order = self.geometry.order
        if c.f64:
            pack(c, g, order, <const double *> c.ptr[self.weight], <double *> c.ptr[self.panel])
        else:
            pack(c, g, order, <const float *> c.ptr[self.weight], <float *> c.ptr[self.panel])


# ---- forward and input gradient ------------------------------------------------------------------

cdef inline void *address(const Context *c, Py_ssize_t slot) noexcept nogil:
    return c.ptr[slot] if slot >= 0 else NULL


def _check_activation(activation, slope):
    if activation not in (NONE, RELU, LEAKY_RELU):
        raise ValueError(f"activation is 0, 1 or 2, not {activation}")
    if activation == LEAKY_RELU and not 0 <= slope <= 1:
        raise ValueError(f"slope lies in 0..1, not at {slope}")


cdef class ConvForward(Step):
    """y = activation(bias + x ∗ weight): each output sums the inputs under its window.

    Parameters
    ----------
    geometry : ConvGeometry
    x, y : slot
        (N, D, H, W, IC) and (N, OD, OH, OW, OC), with the geometry's pixel strides.
    panel : slot
        Written by `PackForward`; the weights themselves where ``packed`` is false.
    bias : slot, optional
        (OC,), −1 for none.
    activation : int
        `NONE`, `RELU` or `LEAKY_RELU` with ``slope`` in 0..1.
    packed : bool
        False reads the weights in place; only a kernel of a single tap can.
    """

    algorithm = "direct"
    cdef ConvGeometry geometry
    cdef Py_ssize_t x, panel, bias, y
    cdef int activation
    cdef double slope
    cdef bint packed

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t x, Py_ssize_t panel,
                 Py_ssize_t y, Py_ssize_t bias=-1, int activation=0, double slope=0.0,
                 bint packed=True):
        _check_activation(activation, slope)
        if not packed and geometry.forward.taps > 1:
            raise ValueError("packed=False is for kernels of one tap")
        self.geometry, self.x, self.panel, self.y, self.bias = geometry, x, panel, y, bias
        self.activation, self.slope, self.packed = activation, slope, packed
        size = geometry.forward_panel_size if packed else geometry.weight_size
        self.reads = (geometry.x_extent(x), Extent(panel, 0, size))
        if bias >= 0:
            self.reads += (Extent(bias, 0, geometry.filters),)
        self.writes = (geometry.y_extent(y),)

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.forward
        cdef const Lattice *s = &self.geometry.outputs
        if c.f64:
            gather(c, g, s, <const double *> c.ptr[self.x], <const double *> c.ptr[self.panel],
                   self.packed, <const double *> address(c, self.bias), self.activation,
                   self.slope, <double *> c.ptr[self.y])
        else:
            gather(c, g, s, <const float *> c.ptr[self.x], <const float *> c.ptr[self.panel],
                   self.packed, <const float *> address(c, self.bias), self.activation,
                   <float> self.slope, <float *> c.ptr[self.y])


cdef class ConvInputGradient(Step):
    """dx: each input pixel receives from every output whose window covered it; overwritten.

    With the epilogue it is a transposed convolution, dx = activation(bias + dy ∗ flipped weight).

    Parameters
    ----------
    geometry : ConvGeometry
    dy, dx : slot
        (N, OD, OH, OW, OC) and (N, D, H, W, IC), with the geometry's pixel strides.
    panel : slot
        Written by `PackBackward`.
    bias : slot, optional
        (IC,), −1 for none.
    activation, slope
        As in `ConvForward`.
    """

    algorithm = "direct"
    cdef ConvGeometry geometry
    cdef Py_ssize_t dy, panel, dx, bias
    cdef int activation
    cdef double slope

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t dy, Py_ssize_t panel,
                 Py_ssize_t dx, Py_ssize_t bias=-1, int activation=0, double slope=0.0):
        _check_activation(activation, slope)
        self.geometry, self.dy, self.panel, self.dx, self.bias = geometry, dy, panel, dx, bias
        self.activation, self.slope = activation, slope
        self.reads = (geometry.y_extent(dy), Extent(panel, 0, geometry.backward_panel_size))
        if bias >= 0:
            self.reads += (Extent(bias, 0, geometry.channels),)
        self.writes = (geometry.x_extent(dx),)

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.backward
        cdef Py_ssize_t p
        for p in range(self.geometry.phase_count):
            if c.f64:
                gather(c, g, &self.geometry.phases[p], <const double *> c.ptr[self.dy],
                       <const double *> c.ptr[self.panel], True,
                       <const double *> address(c, self.bias), self.activation, self.slope,
                       <double *> c.ptr[self.dx])
            else:
                gather(c, g, &self.geometry.phases[p], <const float *> c.ptr[self.dy],
                       <const float *> c.ptr[self.panel], True,
                       <const float *> address(c, self.bias), self.activation,
                       <float> self.slope, <float *> c.ptr[self.dx])


# ---- weight gradient -----------------------------------------------------------------------------

cdef void fold(const Py_ssize_t *extent, const Py_ssize_t *x_step, const Py_ssize_t *dy_step,
               fc_walk *walk, Py_ssize_t *outer) noexcept nogil:
    """Four nested loops as few as they can be: samples, planes, rows and pixels of y.

    A loop whose steps continue those of the next one in is one with it (a dense layer is one loop
    over samples, a 1×1 convolution one over pixels). ``outer`` receives count, step in x and step
    in dy of the fourth loop that is left, around the kernel's three.
    """
    cdef Py_ssize_t i, k = 3
    cdef Py_ssize_t[4] count = [1, 1, 1, 1], xs = [0, 0, 0, 0], ds = [0, 0, 0, 0]
    for i in range(3, -1, -1):
        if extent[i] == 1:
            continue
        if count[k] != 1 and (xs[k] * count[k] != x_step[i] or ds[k] * count[k] != dy_step[i]):
            k -= 1
        if count[k] == 1:
            xs[k], ds[k] = x_step[i], dy_step[i]
        count[k] *= extent[i]
    for i in range(3):
        walk.count[i], walk.x_step[i], walk.dy_step[i] = count[i + 1], xs[i + 1], ds[i + 1]
    outer[0], outer[1], outer[2] = count[0], xs[0], ds[0]


cdef struct Box:
    # some pixels of y and what a tap sees there: a walk, a loop around it, and where it starts
    fc_walk walk
    Py_ssize_t count, x_step, dy_step, x, dy
    bint empty


cdef Box outer_box(const Outer *o, const Rectangle *tap, const Py_ssize_t *low,
                   const Py_ssize_t *high, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Columns first..last of low..high (samples, D, H, W), as far as the tap sees them."""
    cdef Box box
    cdef Py_ssize_t i, begin, end
    cdef Py_ssize_t[4] extent
    cdef Py_ssize_t[3] outer
    extent[0] = high[0] - low[0]
    box.x, box.dy = low[0] * o.x_step[0] + tap.delta, low[0] * o.dy_step[0]
    for i in range(3):
        begin = max(low[i + 1], tap.first[i] if i < 2 else first)
        end = min(high[i + 1], tap.last[i] if i < 2 else last)
        extent[i + 1] = max(0, end - begin)
        box.x += begin * o.x_step[i + 1]
        box.dy += begin * o.dy_step[i + 1]
    box.empty = extent[1] * extent[2] * extent[3] == 0
    fold(extent, o.x_step, o.dy_step, &box.walk, outer)
    box.count, box.x_step, box.dy_step = outer[0], outer[1], outer[2]
    return box


cdef inline void outer_rows(const Box *box, Py_ssize_t m, Py_ssize_t n, const real *x,
                            const real *dy, real *dw, Py_ssize_t stride,
                            bint accumulate) noexcept nogil:
    """dw[:m, :n] (+)= Σ x · dy over a box."""
    cdef Py_ssize_t i
    if box.empty and accumulate:
        return
    for i in range(box.count):
        outer_tile(m, n, &box.walk, x + box.x + i * box.x_step, dy + box.dy + i * box.dy_step, dw,
                   stride, accumulate or i > 0)


cdef struct Span:
    # taps tap.. side by side in x, a panel of one group; their rows fall into tiles
    Py_ssize_t tap, taps, tiles, group, column, cols


cdef void outer_span(const Outer *o, const Rectangle *seen, const Span *s, Py_ssize_t tile0,
                     Py_ssize_t tile1, const Py_ssize_t *low, const Py_ssize_t *high,
                     const real *x, const real *dy, real *dw, bint accumulate) noexcept nogil:
    """Tiles tile0.. of a span over the pixels low..high (samples, D, H, W) of y.

    First the columns of y where all taps of the span lie inside the image, then what single taps
    see to the left and to the right of these.
    """
    cdef Py_ssize_t t, tile, row, end, stride = o.groups * o.width, rows = o.depth * s.taps
    cdef Py_ssize_t first = seen[s.tap].first[2], last = seen[s.tap].last[2]
    cdef Box box
    x += s.group * o.depth
    dy += s.column
    dw += s.tap * o.depth * stride + s.column
    for t in range(s.tap + 1, s.tap + s.taps):
        first, last = max(first, seen[t].first[2]), min(last, seen[t].last[2])
    last = max(first, last)
    box = outer_box(o, &seen[s.tap], low, high, first, last)
    row = share(tile0, s.tiles, rows)
    for tile in range(tile0, tile1):
        end = share(tile + 1, s.tiles, rows)
        outer_rows(&box, end - row, s.cols, x + row, dy, dw + row * stride, stride, accumulate)
        row = end
    if s.taps == 1:
        return
    for t in range(s.taps):
        row = max(share(tile0, s.tiles, rows), t * o.depth)
        end = min(share(tile1, s.tiles, rows), (t + 1) * o.depth)
        if row < end:
            box = outer_box(o, &seen[s.tap], low, high, seen[s.tap + t].first[2],
                            min(first, seen[s.tap + t].last[2]))
            outer_rows(&box, end - row, s.cols, x + row, dy, dw + row * stride, stride, True)
            box = outer_box(o, &seen[s.tap], low, high, max(last, seen[s.tap + t].first[2]),
                            seen[s.tap + t].last[2])
            outer_rows(&box, end - row, s.cols, x + row, dy, dw + row * stride, stride, True)


cdef inline Py_ssize_t span_taps(const Outer *o, const real *x) noexcept nogil:
    """Taps side by side in memory make one taller tile where channels are few."""
    return o.span if 2 * o.depth <= outer_mr(x) else 1


cdef inline Py_ssize_t outer_units(const Outer *o, const real *x) noexcept nogil:
    """Register tiles of dw."""
    cdef Py_ssize_t taps = span_taps(o, x)
    return (o.groups * (o.taps // taps) * ceil_div(o.depth * taps, outer_mr(x))
            * ceil_div(o.width, outer_nr(x)))


cdef void outer_chunk(const Outer *o, const Rectangle *seen, Py_ssize_t unit0, Py_ssize_t unit1,
                      const Py_ssize_t *low, const Py_ssize_t *high, const real *x,
                      const real *dy, real *dw, bint accumulate) noexcept nogil:
    """Units unit0.. (groups × panels × spans × tiles) over the pixels low..high of y."""
    cdef Py_ssize_t nr = outer_nr(x), panels = ceil_div(o.width, nr), unit = unit0
    cdef Py_ssize_t spans, tile, end, i
    cdef Span s
    s.taps = span_taps(o, x)
    s.tiles = ceil_div(o.depth * s.taps, outer_mr(x))
    spans = o.taps // s.taps
    while unit < unit1:
        i, tile = unit // s.tiles, unit % s.tiles
        end = min(s.tiles, tile + unit1 - unit)
        s.tap = i % spans * s.taps
        s.group = i // (spans * panels)
        s.column = i // spans % panels * nr
        s.cols = min(nr, o.width - s.column)
        s.column += s.group * o.width
        outer_span(o, seen, &s, tile, end, low, high, x, dy, dw, accumulate)
        unit += end - tile


cdef void outer_block(const Outer *o, const Rectangle *seen, Py_ssize_t unit0, Py_ssize_t unit1,
                      Py_ssize_t sample0, Py_ssize_t sample1, const real *x, const real *dy,
                      real *dw, bint accumulate) noexcept nogil:
    """Units unit0.. over some samples, chunk by chunk of pixels.

    A chunk's slice of dy, one panel wide, stays in the L2 cache while all taps pass over it.
    """
    cdef Py_ssize_t[4] extent = [sample1 - sample0, o.out[0], o.out[1], o.out[2]]
    cdef Py_ssize_t[4] parts, low, high
    cdef Py_ssize_t i, k, rest, chunks = 1, room = o.walk
    for i in range(3, -1, -1):
        parts[i] = ceil_div(extent[i], max(1, room))
        room = room // extent[i]
        chunks *= parts[i]
    for k in range(chunks):
        rest = k
        for i in range(3, -1, -1):
            low[i] = share(rest % parts[i], parts[i], extent[i])
            high[i] = share(rest % parts[i] + 1, parts[i], extent[i])
            rest = rest // parts[i]
        low[0] += sample0
        high[0] += sample0
        outer_chunk(o, seen, unit0, unit1, low, high, x, dy, dw, accumulate or k > 0)


cdef void add_slab(const real *copies, Py_ssize_t pieces, Py_ssize_t size, Py_ssize_t first,
                   Py_ssize_t last, real *total, bint accumulate) noexcept nogil:
    cdef Py_ssize_t i, p
    cdef real s
    for i in range(first, last):
        s = copies[i]
        for p in range(1, pieces):
            s += copies[p * size + i]
        total[i] = total[i] + s if accumulate else s


cdef void add_pieces(const Context *c, const real *copies, Py_ssize_t pieces, Py_ssize_t size,
                     real *total, bint accumulate) noexcept nogil:
    """total (+)= Σ_p copies[p], in the order of the pieces."""
    cdef Py_ssize_t i
    cdef unsigned mode = 0
    with parallel(num_threads=team(c, 1.0 * pieces * size)):
        mode = flush_denormals_on()
        for i in prange(ceil_div(size, SLAB), schedule="static"):
            add_slab(copies, pieces, size, i * SLAB, min(size, (i + 1) * SLAB), total, accumulate)
        flush_denormals_restore(mode)


cdef void weight_gradient(const Context *c, const Outer *o, const Rectangle *seen,
                          Py_ssize_t pieces, const real *x, const real *dy, real *dw,
                          real *scratch, bint accumulate) noexcept nogil:
    """dw (+)= Σ over the batch and the pixels of y of x · dy."""
    cdef Py_ssize_t size = o.taps * o.depth * o.groups * o.width, pixels, units, slices, i
    cdef bint direct = pieces == 1      # one piece needs no copy
    cdef unsigned mode = 0
    cdef int threads
    pixels = c.n * o.out[0] * o.out[1] * o.out[2]
    units = outer_units(o, x)
    threads = team(c, pixels * size / <double> FMAS)
    slices = min(units, ceil_div(4 * threads, pieces))
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(pieces * slices, schedule="dynamic"):
            outer_block(o, seen, share(i % slices, slices, units),
                        share(i % slices + 1, slices, units), share(i // slices, pieces, c.n),
                        share(i // slices + 1, pieces, c.n), x, dy,
                        dw if direct else scratch + i // slices * size, accumulate and direct)
        flush_denormals_restore(mode)
    if not direct:
        add_pieces(c, scratch, pieces, size, dw, accumulate)


cdef class ConvWeightGradient(Step):
    """dw: each weight's gradient is the sum over the outputs it touched of x · dy.

    Parameters
    ----------
    geometry : ConvGeometry
    x, dy : slot
        (N, D, H, W, IC) and (N, OD, OH, OW, OC), with the geometry's pixel strides.
    dw : slot
        (KD, KH, KW, IC / groups, OC).
    scratch : slot
        ``geometry.scratch_size`` elements; may be −1 where that is 0.
    accumulate : bool
        Add to dw instead of overwriting it; so does a pass that accumulates.
    """

    algorithm = "direct"
    cdef ConvGeometry geometry
    cdef Py_ssize_t x, dy, dw, scratch
    cdef bint accumulate

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t x, Py_ssize_t dy,
                 Py_ssize_t dw, Py_ssize_t scratch=-1, bint accumulate=False):
        self.geometry, self.x, self.dy, self.dw, self.scratch = geometry, x, dy, dw, scratch
        self.accumulate = accumulate
        self.reads = (geometry.x_extent(x), geometry.y_extent(dy))
        self.writes = (Extent(dw, 0, geometry.weight_size),)
        if geometry.scratch_size:
            if scratch < 0:
                raise ValueError("scratch is needed: the batch is summed in pieces")
            self.writes += (Extent(scratch, 0, geometry.scratch_size),)

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Outer *o = &self.geometry.outer
        cdef const Rectangle *seen = self.geometry.seen
        cdef Py_ssize_t pieces = self.geometry.pieces(c.n)
        cdef bint accumulate = self.accumulate or c.accumulate
        if c.f64:
            weight_gradient(c, o, seen, pieces, <const double *> c.ptr[self.x],
                            <const double *> c.ptr[self.dy], <double *> c.ptr[self.dw],
                            <double *> address(c, self.scratch), accumulate)
        else:
            weight_gradient(c, o, seen, pieces, <const float *> c.ptr[self.x],
                            <const float *> c.ptr[self.dy], <float *> c.ptr[self.dw],
                            <float *> address(c, self.scratch), accumulate)


# ---- bias gradient -------------------------------------------------------------------------------

cdef void sum_strip(const real *dy, Py_ssize_t rows, Py_ssize_t channels, Py_ssize_t stride,
                    real *total) noexcept nogil:
    """total = Σ of the rows: an outer product with a one, in chunks that the L1 cache holds."""
    cdef real one = 1
    cdef fc_walk walk
    cdef Py_ssize_t chunk, first, panel, column, nr = outer_nr(dy)
    cdef Py_ssize_t step = max(8, SLAB // channels)
    walk.count, walk.x_step, walk.dy_step = [1, 1, 0], [0, 0, 0], [0, 0, stride]
    for chunk in range(ceil_div(rows, step)):
        first = chunk * step
        walk.count[2] = min(step, rows - first)
        for panel in range(ceil_div(channels, nr)):
            column = panel * nr
            outer_tile(1, min(nr, channels - column), &walk, &one, dy + first * stride + column,
                       total + column, channels, first > 0)


cdef void bias_gradient(const Context *c, Py_ssize_t rows, Py_ssize_t channels, Py_ssize_t stride,
                        const real *dy, real *db, real *scratch, bint accumulate) noexcept nogil:
    cdef Py_ssize_t i, strips = min(STRIPS, ceil_div(rows, STRIP))
    cdef unsigned mode = 0
    with parallel(num_threads=team(c, 1.0 * rows * channels)):
        mode = flush_denormals_on()
        for i in prange(strips, schedule="static"):
            sum_strip(dy + share(i, strips, rows) * stride,
                      share(i + 1, strips, rows) - share(i, strips, rows), channels, stride,
                      scratch + i * channels)
        flush_denormals_restore(mode)
    add_pieces(c, scratch, strips, channels, db, accumulate)


cdef class BiasGradient(Step):
    """db: the sum of dy over samples and pixels.

    Parameters
    ----------
    pixels, channels : int
        dy is (N, pixels, channels).
    dy_stride : int, optional
        Elements from one pixel to the next; by default ``channels``.
    dy, db : slot
    scratch : slot
        ``BiasGradient.scratch_size(channels)`` elements.
    accumulate : bool
        Add to db instead of overwriting it; so does a pass that accumulates.
    """

    cdef Py_ssize_t pixels, channels, dy_stride, dy, db, scratch
    cdef bint accumulate

    def __init__(self, *, pixels, channels, dy_stride=None, Py_ssize_t dy, Py_ssize_t db,
                 Py_ssize_t scratch, bint accumulate=False):
        pixels, channels = _count("pixels", pixels), _count("channels", channels)
        dy_stride = channels if dy_stride is None else _count("dy_stride", dy_stride, channels)
        if pixels * dy_stride > LARGEST or self.scratch_size(channels) > LARGEST:
            raise ValueError(f"pixels={pixels} of dy_stride={dy_stride} are too many elements")
        self.pixels, self.channels, self.dy_stride = pixels, channels, dy_stride
        self.dy, self.db, self.scratch, self.accumulate = dy, db, scratch, accumulate
        self.reads = (Extent(dy, pixels * dy_stride, channels - dy_stride),)
        self.writes = (Extent(db, 0, channels), Extent(scratch, 0, self.scratch_size(channels)))

    @staticmethod
    def scratch_size(channels):
        """Elements of scratch for so many channels."""
        return STRIPS * channels

    cdef void run(self, Context *c) noexcept nogil:
        cdef Py_ssize_t rows = c.n * self.pixels
        cdef bint accumulate = self.accumulate or c.accumulate
        if c.f64:
            bias_gradient(c, rows, self.channels, self.dy_stride, <const double *> c.ptr[self.dy],
                          <double *> c.ptr[self.db], <double *> c.ptr[self.scratch], accumulate)
        else:
            bias_gradient(c, rows, self.channels, self.dy_stride, <const float *> c.ptr[self.dy],
                          <float *> c.ptr[self.db], <float *> c.ptr[self.scratch], accumulate)

"""The gradients of a convolution's weight and bias: sums over the batch and the pixels of y.

Each weight's gradient is the sum over the outputs it touched of x · dy, an outer product of two
channel vectors per pixel. Samples are cut into pieces, a function of shape and batch size only;
each piece fills its own copy of dw and the copies are added in order. Within a piece every weight
adds its terms in the order in which the pixels are walked.

Letters: N samples, D H W space, IC input channels and OC output channels; taps = KD · KH · KW.
"""

from cython.parallel cimport parallel, prange

from fastconv._native.dispatch cimport flush_denormals_on, flush_denormals_restore, fc_walk, real
from fastconv._native.geometry cimport ConvGeometry, Outer, Rectangle
from fastconv._native.step cimport FMAS, Context, Step, team
from fastconv._native.tiles cimport (
    address, ceil_div, outer_mr, outer_nr, outer_tile, share,
)

from fastconv._native.geometry import LARGEST, count_of
from fastconv._native.step import Extent

cdef enum:
    STRIPS = 64         # pieces of a bias gradient, at most,
    STRIP = 1024        # each of at least so many pixels
    SLAB = 4096         # elements of one task when pieces are added


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
        pixels, channels = count_of("pixels", pixels), count_of("channels", channels)
        dy_stride = channels if dy_stride is None else count_of("dy_stride", dy_stride, channels)
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

"""Convolutions of stride 1 by Winograd's minimal filtering: F(4×4, 3×3) and F(2×2, 5×5).

Design. An image is cut into tiles of 4×4 outputs (2×2 for windows of 5×5), each seen by 6×6 inputs.
Transformed, the convolution becomes 36 products, one per *plane*: tiles × IC by IC × OC, which the
micro-kernel of the direct convolution carries. A quarter of the multiplications is left (36/100 for
5×5), and the transforms, which touch each number once, are vectorised over channels. Formulas:
csrc/kernels/winograd.inl.

Forward and the input gradient are one walk: the input gradient is a convolution of dy with the
flipped window. A task takes some tiles through all of it, so that what is transformed stays in the
caches: inputs, 36 products, outputs. The transformed windows, a multiple of the weights, are made
once and shared, [panel][plane][IC][NR]. Where they would not fit the caches (`wide`) it is the
other way round: transformed inputs of some tiles are shared, and a task takes one panel of the
weights through all of it, transformed six planes at a time. Both give the same bits.

The weight gradient sums over tiles. The planes fall into six rows that never meet before the end; a
task is one row and one piece of the tiles. It sums its six planes, IC × OC each, turns the six into
the window's columns, and at the end rows and pieces are added in their order and turned into taps.
Where channels are many and tiles few, a task is a block of IC × OC instead, with all planes and
tiles.

A tile's sums never look at other tiles, pieces are a function of shape and batch size: so threads
change no bit.
"""

from cython.parallel cimport parallel, prange, threadid

from fastconv._native.dispatch cimport (
    f32, f64, fc_epilogue, fc_tile, fc_walk, flush_denormals_on, flush_denormals_restore, real,
)
from fastconv._native.epilogue cimport Epilogue
from fastconv._native.step cimport FMAS, Context, Step, team
from fastconv._native.tiles cimport (
    TALLEST, WIDEST, ceil_div, columns_from, gather_mr, gather_nr, gather_tile, outer_mr,
    outer_nr, outer_tile, pack_panel, share,
)

import math

from fastconv._native.checks import distinct
from fastconv._native.dispatch import num_threads
from fastconv._native.step import Extent

cdef enum:
    PLANES = 36
    LARGEST = 5             # window
    TILES = 56              # of a task: the transformed windows are read once for so many
    COLUMNS = 128           # outputs of a task that are multiplied and transformed at a time
    DEPTH = 32              # rows of a window that are turned over before they are transformed
    SUMMED = 64             # tiles that a weight gradient transforms at a time
    PIECES = 16             # of the tiles in a weight gradient, at most,
    COPIES = 1 << 22        # while their sums have no more elements than this
    SLAB = 2048             # elements of one task when pieces are added
    WIDE = 256 * 256        # IC · OC from which transformed windows do not fit the caches
    SHARED = 128            # tiles whose transforms are shared then
    BLOCK = 56              # rows of a task's block of a weight gradient then
    PIECE = 8               # tiles of a piece of the moments; TILES and SHARED are multiples


cdef inline Py_ssize_t pitch(Py_ssize_t channels) noexcept nogil:
    """From row to row of a transformed plane: whole vectors, rows out of step with the cache."""
    return ceil_div(channels, WIDEST) * WIDEST + 16


# ---- geometry -----------------------------------------------------------------------------------

cdef struct Map:
    # from one image to another: output o sees inputs o − pad .. o − pad + window − 1
    int window, outputs     # of the window and of a tile, along one axis
    Py_ssize_t[2] src, dst, pad, tiles
    Py_ssize_t src_stride, dst_stride, depth, width
    Py_ssize_t images       # of a sample: its planes


cdef class WinogradGeometry:
    """The same shapes as a `ConvGeometry` with 3×3 or 5×5 windows, as tiles.

    Parameters
    ----------
    geometry : ConvGeometry
        One for which `possible` holds.

    Attributes
    ----------
    wide : bool
        The steps read the weights themselves: there are no transformed windows.
    forward_window_size, backward_window_size : int
        Elements of the transformed windows.
    forward_scratch, backward_scratch, gradient_scratch : int
        Elements of scratch of the three steps.
    moments_size : int
        Elements of a sample's moments.
    """

    cdef readonly object conv
    cdef readonly Py_ssize_t lanes
    cdef Map forward, backward

    def __init__(self, conv):
        if not self.possible(conv):
            raise ValueError("Winograd's filtering is for windows of 3×3 or 5×5, stride and "
                             "dilation 1, one group")
        self.conv = conv
        self.lanes = num_threads()
        planes, *src = conv.in_size
        dst = conv.out_size[1:]
        pad = [before for before, _ in conv.pads[1:]]
        window = conv.kernel[2]
        self.forward = _map(window, src, dst, pad, conv.x_stride, conv.y_stride, conv.channels,
                            conv.filters, planes)
        self.backward = _map(window, dst, src, [window - 1 - p for p in pad], conv.y_stride,
                             conv.x_stride, conv.filters, conv.channels, planes)

    @staticmethod
    def possible(conv):
        """Whether windows are of 3×3 or 5×5, stride and dilation 1, in one group."""
        return (conv.kernel in ((1, 3, 3), (1, 5, 5)) and conv.strides == (1, 1, 1)
                and conv.groups == 1 and conv.dilation[1:] == (1, 1) and conv.pads[0] == (0, 0))

    @property
    def wide(self):
        return self.window >= WIDE

    @property
    def forward_window_size(self):
        return _window_size(self.conv.channels, self.conv.filters)

    @property
    def backward_window_size(self):
        return _window_size(self.conv.filters, self.conv.channels)

    @property
    def forward_scratch(self):
        return walk_scratch(&self.forward, self.lanes)

    @property
    def moments_size(self):
        return 2 * self.conv.filters * ceil_div(image_tiles(&self.forward), PIECE)

    @property
    def backward_scratch(self):
        return walk_scratch(&self.backward, self.lanes)

    @property
    def gradient_scratch(self):
        pieces = self.pieces(2**40)     # a batch for which tiles are no limit
        by_rows = (self.lanes * row_lane_size(&self.forward)
                   + pieces * 6 * self.forward.window * self.window)
        return max(by_rows, blocks_scratch(&self.forward, self.lanes)) if self.wide else by_rows

    @property
    def window(self):
        """Elements of one tap of the weights."""
        return self.conv.channels * self.conv.filters

    def windows_extent(self, slot, backward):
        """What a walk reads of the weights or their transforms."""
        size = self.backward_window_size if backward else self.forward_window_size
        return Extent(slot, 0, self.weight_size if self.wide else size)

    @property
    def weight_size(self):
        return self.forward.window ** 2 * self.window

    cdef Py_ssize_t pieces(self, Py_ssize_t tiles) noexcept:
        return pieces_of(&self.forward, tiles)

    def multiplications(self, n, bint backward=False):
        """Multiply-adds of the 36 products for n samples: over tiles of the output, or, in the
        input gradient, of the input."""
        cdef Py_ssize_t tiles = image_tiles(&self.backward if backward else &self.forward)
        return n * tiles * PLANES * self.window


cdef Map _map(window, src, dst, pad, src_stride, dst_stride, depth, width, images):
    cdef Map m
    m.window, m.outputs = window, 7 - window
    m.src, m.dst, m.pad = src, dst, pad
    m.tiles = [ceil_div(size, 7 - window) for size in dst]
    m.src_stride, m.dst_stride, m.depth, m.width, m.images = (
        src_stride, dst_stride, depth, width, images)
    return m


def _window_size(depth, width):
    """Elements of all transformed windows, for the widest table."""
    return PLANES * depth * ceil_div(width, WIDEST) * WIDEST


cdef inline Py_ssize_t image_tiles(const Map *g) noexcept nogil:
    return g.images * g.tiles[0] * g.tiles[1]


cdef inline Py_ssize_t plane_size(Py_ssize_t tiles, Py_ssize_t channels) noexcept nogil:
    return tiles * pitch(channels) + 16


cdef inline Py_ssize_t lane_size(const Map *g) noexcept nogil:
    """Scratch of a thread in a walk: transformed inputs, products of some columns."""
    return PLANES * (plane_size(TILES, g.depth) + plane_size(TILES, min(g.width, COLUMNS)))


cdef inline Py_ssize_t panel_lane_size(const Map *g) noexcept nogil:
    """Scratch of a thread in a wide walk: a panel turned over, a row of its planes, products."""
    return (6 + g.window * g.window) * g.depth * WIDEST + PLANES * plane_size(SHARED, WIDEST)


cdef inline Py_ssize_t walk_scratch(const Map *g, Py_ssize_t lanes) noexcept nogil:
    if g.depth * g.width < WIDE:
        return lanes * lane_size(g)
    return PLANES * plane_size(SHARED, g.depth) + lanes * panel_lane_size(g)


cdef inline Py_ssize_t block_lane_size() noexcept nogil:
    """Scratch of a thread that takes a block of a weight gradient: all planes, then half of it."""
    return (PLANES + 6 * LARGEST) * BLOCK * WIDEST


cdef inline Py_ssize_t blocks_scratch(const Map *g, Py_ssize_t lanes) noexcept nogil:
    return (PLANES * (plane_size(SHARED, g.depth) + plane_size(SHARED, g.width))
            + lanes * block_lane_size())


cdef inline Py_ssize_t row_lane_size(const Map *g) noexcept nogil:
    """Scratch of a thread in a weight gradient: a row of six planes of x, of dy and of sums."""
    return 6 * (plane_size(SUMMED, g.depth) + plane_size(SUMMED, g.width) + g.depth * g.width + 16)


cdef inline Py_ssize_t pieces_of(const Map *g, Py_ssize_t tiles) noexcept nogil:
    """Pieces of the tiles in a weight gradient: as many as have work, while their sums are small.

    A piece's part of x and dy should stay in the last cache while its six rows pass over it.
    """
    cdef Py_ssize_t pieces = 1
    while (2 * pieces <= PIECES and 2 * pieces * 6 * g.window * g.depth * g.width <= COPIES
           and 4 * pieces * SUMMED <= tiles):
        pieces *= 2
    return pieces


cdef inline void clip(Py_ssize_t start, Py_ssize_t size, Py_ssize_t extent, Py_ssize_t *first,
                      Py_ssize_t *last) noexcept nogil:
    """Which of ``size`` pixels from ``start`` on lie in an image of this extent."""
    first[0] = min(size, max(0, -start))
    last[0] = max(first[0], min(size, extent - start))


cdef inline Py_ssize_t find_tile(const Map *g, Py_ssize_t tile, Py_ssize_t *origin) noexcept nogil:
    """The image that holds a tile, and its first output there."""
    cdef Py_ssize_t rest = tile // g.tiles[1]
    origin[1] = g.outputs * (tile % g.tiles[1])
    origin[0] = g.outputs * (rest % g.tiles[0])
    return rest // g.tiles[0]


cdef inline Py_ssize_t source_tile(const Map *g, Py_ssize_t index, fc_tile *tile) noexcept nogil:
    """The 6×6 inputs of a tile: elements from the first image to the first of them."""
    cdef Py_ssize_t[2] origin
    cdef Py_ssize_t image = find_tile(g, index, origin), i
    for i in range(2):
        origin[i] -= g.pad[i]
        clip(origin[i], 6, g.src[i], &tile.first[i], &tile.last[i])
    tile.row_step, tile.pixel_step = g.src[1] * g.src_stride, g.src_stride
    return ((image * g.src[0] + origin[0]) * g.src[1] + origin[1]) * g.src_stride


cdef inline Py_ssize_t destination_tile(const Map *g, Py_ssize_t index,
                                        fc_tile *tile) noexcept nogil:
    """The outputs of a tile: elements from the first image to the first of them."""
    cdef Py_ssize_t[2] origin
    cdef Py_ssize_t image = find_tile(g, index, origin), i
    for i in range(2):
        clip(origin[i], g.outputs, g.dst[i], &tile.first[i], &tile.last[i])
    tile.row_step, tile.pixel_step = g.dst[1] * g.dst_stride, g.dst_stride
    return ((image * g.dst[0] + origin[0]) * g.dst[1] + origin[1]) * g.dst_stride


# ---- windows ------------------------------------------------------------------------------------

cdef void turn(const Map *g, Py_ssize_t column, Py_ssize_t first, Py_ssize_t count,
               const real *w, real *turned) noexcept nogil:
    """turned[tap][count][NR]: the window as backward sees it, from w (taps, width, depth)."""
    cdef Py_ssize_t nr = gather_nr(w), cols = min(nr, g.width - column), t
    cdef Py_ssize_t taps = g.window * g.window, tap = g.depth * g.width
    w += column * g.depth + first
    for t in range(taps):
        pack_panel(w + (taps - 1 - t) * tap, 1, g.depth, count, cols, turned + t * count * nr)


cdef inline void window_rows(const Map *g, Py_ssize_t count, Py_ssize_t cols, int row0, int row1,
                             const real *w, Py_ssize_t tap_step, Py_ssize_t row_step, real *u,
                             Py_ssize_t plane) noexcept nogil:
    if real is float:
        f32.winograd_window(g.window, count, cols, row0, row1, w, tap_step, row_step, u, plane)
    else:
        f64.winograd_window(g.window, count, cols, row0, row1, w, tap_step, row_step, u, plane)


cdef void window_task(const Map *g, bint backward, Py_ssize_t panel, Py_ssize_t first,
                      Py_ssize_t last, const real *w, real *u) noexcept nogil:
    """All planes of first..last of the depth, at most DEPTH, of one panel."""
    cdef real[LARGEST * LARGEST * DEPTH * WIDEST] turned
    cdef Py_ssize_t nr = gather_nr(w), plane = g.depth * nr, count = last - first
    u += panel * PLANES * plane + first * nr
    if backward:
        turn(g, panel * nr, first, count, w, turned)
        window_rows(g, count, nr, 0, 6, turned, count * nr, nr, u, plane)
    else:                   # w (taps, depth, width)
        window_rows(g, count, min(nr, g.width - panel * nr), 0, 6,
                    w + first * g.width + panel * nr, g.depth * g.width, g.width, u, plane)


cdef void transform_windows(const Context *c, const Map *g, bint backward, const real *w,
                            real *u) noexcept nogil:
    cdef Py_ssize_t i, steps = ceil_div(g.depth, DEPTH)
    cdef Py_ssize_t tasks = steps * ceil_div(g.width, gather_nr(w))
    cdef unsigned mode = 0
    with parallel(num_threads=team(c, <double> PLANES * g.depth * g.width)):
        mode = flush_denormals_on()
        for i in prange(tasks, schedule="static"):
            window_task(g, backward, i // steps, i % steps * DEPTH,
                        min(g.depth, (i % steps + 1) * DEPTH), w, u)
        flush_denormals_restore(mode)


cdef class WinogradWindows(Step):
    """Transform the weights (KH, KW, IC, OC) for `WinogradForward` or `WinogradInputGradient`.

    Parameters
    ----------
    geometry : WinogradGeometry
    weight, windows : slot
    backward : bool
        For the input gradient.
    """

    cdef WinogradGeometry geometry
    cdef Py_ssize_t weight, windows
    cdef bint backward

    def __init__(self, WinogradGeometry geometry not None, *, Py_ssize_t weight,
                 Py_ssize_t windows, bint backward=False):
        self.geometry, self.weight, self.windows = geometry, weight, windows
        self.backward = backward
        size = geometry.backward_window_size if backward else geometry.forward_window_size
        if geometry.wide:
            raise ValueError("the steps of a wide geometry read the weights themselves")
        self.reads = (Extent(weight, 0, geometry.weight_size),)
        self.writes = (Extent(windows, 0, size),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Map *g = &self.geometry.backward if self.backward else &self.geometry.forward
        if c.f64:
            transform_windows(c, g, self.backward, <const double *> c.ptr[self.weight],
                              <double *> c.ptr[self.windows])
        else:
            transform_windows(c, g, self.backward, <const float *> c.ptr[self.weight],
                              <float *> c.ptr[self.windows])


# ---- forward and input gradient -----------------------------------------------------------------

cdef void transform_inputs(const Map *g, Py_ssize_t first, Py_ssize_t last, const real *x, real *v,
                           Py_ssize_t plane) noexcept nogil:
    cdef fc_tile tile
    cdef Py_ssize_t i, at
    for i in range(first, last):
        at = source_tile(g, i, &tile)
        if real is float:
            f32.winograd_input(&tile, g.depth, 0, 6, x + at, v, plane)
        else:
            f64.winograd_input(&tile, g.depth, 0, 6, x + at, v, plane)
        v += pitch(g.depth)


cdef void multiply(Py_ssize_t tiles, Py_ssize_t depth, Py_ssize_t cols, const real *v,
                   Py_ssize_t v_pitch, const real *u, real *m, Py_ssize_t m_pitch) noexcept nogil:
    """One plane: m[tile][:cols] = v[tile][:depth] · u, a panel of at most NR columns."""
    cdef const real *rows[TALLEST]
    cdef real *ends[TALLEST]
    cdef Py_ssize_t mr = gather_mr(v), count = ceil_div(tiles, mr), i, r, first, last
    for i in range(count):
        first, last = share(i, count, tiles), share(i + 1, count, tiles)
        for r in range(last - first):
            rows[r] = v + (first + r) * v_pitch
            ends[r] = m + (first + r) * m_pitch
        gather_tile(last - first, cols, 1, depth, <const real *const *> rows, NULL, &u,
                    gather_nr(v), NULL, False, False, NULL, False, <real *const *> ends)


cdef void transform_outputs(const Map *g, Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols,
                            const real *m, Py_ssize_t m_pitch, Py_ssize_t plane,
                            const fc_epilogue *e, real *y) noexcept nogil:
    cdef const real *residual = NULL
    cdef real *moments = NULL
    cdef fc_tile tile
    cdef Py_ssize_t i, at, count = 0
    for i in range(first, last):
        at = destination_tile(g, i, &tile)
        if e.moments is not NULL and i % PIECE == 0:
            moments = <real *> e.moments + i // PIECE * 2 * e.moments_stride
            count = 0
        if e.residual is not NULL:
            residual = <const real *> e.residual + at // g.dst_stride * e.residual_stride
        if real is float:
            f32.winograd_output(g.window, &tile, cols, m, plane, e, residual, y + at, count,
                                moments)
        else:
            f64.winograd_output(g.window, &tile, cols, m, plane, e, residual, y + at, count,
                                moments)
        count += tile.last[0] * tile.last[1]
        m += m_pitch


cdef void walk_task(const Map *g, Py_ssize_t first, Py_ssize_t last, const real *x, const real *u,
                    const fc_epilogue *whole, real *y, real *scratch) noexcept nogil:
    """Tiles first..last: inputs, products and outputs, some columns at a time."""
    cdef Py_ssize_t nr = gather_nr(x), tiles = last - first, v_pitch = pitch(g.depth)
    cdef Py_ssize_t v_plane = plane_size(tiles, g.depth), i, column, k, panel, end
    cdef Py_ssize_t m_pitch, m_plane
    cdef fc_epilogue e
    cdef real *m = scratch + PLANES * plane_size(TILES, g.depth)
    transform_inputs(g, first, last, x, scratch, v_plane)
    for i in range(ceil_div(g.width, COLUMNS)):
        column = i * COLUMNS
        end = min(g.width, column + COLUMNS)
        m_pitch = pitch(end - column)
        m_plane = plane_size(tiles, end - column)
        e = columns_from(whole, column, m)
        for k in range(PLANES):
            for panel in range(column // nr, ceil_div(end, nr)):
                multiply(tiles, g.depth, min(nr, g.width - panel * nr), scratch + k * v_plane,
                         v_pitch, u + (panel * PLANES + k) * g.depth * nr,
                         m + k * m_plane + panel * nr - column, m_pitch)
        transform_outputs(g, first, last, end - column, m, m_pitch, m_plane, &e, y + column)


cdef inline Py_ssize_t piece_of(const fc_epilogue *e) noexcept nogil:
    """Tiles that belong to one task, whatever the threads: their moments are one piece."""
    return PIECE if e.moments is not NULL else 1


cdef Py_ssize_t outputs_before(const Map *g, Py_ssize_t tile) noexcept nogil:
    """Outputs in the tiles before this one."""
    cdef Py_ssize_t[2] origin
    cdef Py_ssize_t image = find_tile(g, tile, origin)
    return ((image * g.dst[0] + origin[0]) * g.dst[1]
            + min(<Py_ssize_t> g.outputs, g.dst[0] - origin[0]) * origin[1])


cdef void merge_moments(const Map *g, Py_ssize_t tiles, real *moments, real *mean,
                        real *variance) noexcept nogil:
    """The moments of all tiles from those of the pieces, two by two in a tree of their number."""
    cdef Py_ssize_t pieces = ceil_div(tiles, PIECE), size = 2 * g.width, gap = 1, i, c
    cdef Py_ssize_t start, middle, end, rows = outputs_before(g, tiles)
    while gap < pieces:
        i = 0
        while i + gap < pieces:
            start, middle = outputs_before(g, i * PIECE), outputs_before(g, (i + gap) * PIECE)
            end = outputs_before(g, min(tiles, (i + 2 * gap) * PIECE))
            if real is float:
                f32.moments_join(g.width, middle - start, end - middle, moments + i * size,
                                 moments + (i + gap) * size, g.width)
            else:
                f64.moments_join(g.width, middle - start, end - middle, moments + i * size,
                                 moments + (i + gap) * size, g.width)
            i += 2 * gap
        gap *= 2
    for c in range(g.width):
        mean[c], variance[c] = moments[c], moments[g.width + c] / rows


cdef void walk_tiles(const Context *c, const Map *g, Py_ssize_t lanes, const real *x,
                     const real *u, const fc_epilogue *e, real *y, real *scratch) noexcept nogil:
    """As `walk`, from transformed windows: tiles are the tasks."""
    cdef Py_ssize_t tiles = c.n * image_tiles(g), tasks, i, piece = piece_of(e)
    cdef Py_ssize_t pieces = ceil_div(tiles, piece)
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * g.depth * g.width / FMAS)
    threads = min(threads, <int> lanes)
    tasks = ceil_div(tiles, TILES)
    tasks = min(pieces, ceil_div(tasks, threads) * threads)
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(tasks, schedule="dynamic"):
            walk_task(g, piece * share(i, tasks, pieces),
                      min(tiles, piece * share(i + 1, tasks, pieces)), x, u, e, y,
                      scratch + threadid() * lane_size(g))
        flush_denormals_restore(mode)


cdef void panel_task(const Map *g, bint backward, Py_ssize_t panel, Py_ssize_t first,
                     Py_ssize_t last, const real *v, const real *w, const fc_epilogue *whole,
                     real *y, real *scratch) noexcept nogil:
    """One panel of columns for tiles first..last, whose transformed inputs are v."""
    cdef Py_ssize_t nr = gather_nr(v), column = panel * nr, cols = min(nr, g.width - column)
    cdef Py_ssize_t tiles = last - first, plane = plane_size(tiles, nr), row, j
    cdef Py_ssize_t v_plane = plane_size(tiles, g.depth), size = g.depth * nr
    cdef fc_epilogue e = columns_from(whole, column, v)
    cdef real *u = scratch + g.window * g.window * size
    cdef real *m = u + 6 * size
    if backward:
        turn(g, column, 0, g.depth, w, scratch)
    for row in range(6):
        if backward:
            window_rows(g, g.depth, nr, <int> row, <int> row + 1, scratch, size, nr, u, size)
        else:
            window_rows(g, g.depth, cols, <int> row, <int> row + 1, w + column,
                        g.depth * g.width, g.width, u, size)
        for j in range(6):
            multiply(tiles, g.depth, cols, v + (6 * row + j) * v_plane, pitch(g.depth),
                     u + j * size, m + (6 * row + j) * plane, pitch(nr))
    transform_outputs(g, first, last, cols, m, pitch(nr), plane, &e, y + column)


cdef void walk_wide(const Context *c, const Map *g, bint backward, Py_ssize_t lanes,
                    const real *x, const real *w, const fc_epilogue *e, real *y,
                    real *scratch) noexcept nogil:
    """As `walk`, from the weights themselves: panels are the tasks."""
    cdef Py_ssize_t tiles = c.n * image_tiles(g), chunks = ceil_div(tiles, SHARED), k, i
    cdef Py_ssize_t first, last, panels = ceil_div(g.width, gather_nr(x)), piece = piece_of(e)
    cdef Py_ssize_t pieces = ceil_div(tiles, piece)
    cdef Py_ssize_t shared = PLANES * plane_size(SHARED, g.depth)
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * g.depth * g.width / FMAS)
    threads = min(threads, <int> lanes)
    for k in range(chunks):
        first = piece * share(k, chunks, pieces)
        last = min(tiles, piece * share(k + 1, chunks, pieces))
        with parallel(num_threads=threads):
            mode = flush_denormals_on()
            for i in prange(first, last, schedule="static"):
                transform_inputs(g, i, i + 1, x, scratch + (i - first) * pitch(g.depth),
                                 plane_size(last - first, g.depth))
            for i in prange(panels, schedule="dynamic"):
                panel_task(g, backward, i, first, last, scratch, w, e, y,
                           scratch + shared + threadid() * panel_lane_size(g))
            flush_denormals_restore(mode)


cdef void walk(const Context *c, const Map *g, bint backward, Py_ssize_t lanes, const real *x,
               const real *u, const fc_epilogue *e, real *y, real *scratch) noexcept nogil:
    """y = x ∗ window and the epilogue, for all tiles of all samples."""
    if g.depth * g.width >= WIDE:
        walk_wide(c, g, backward, lanes, x, u, e, y, scratch)
    else:
        walk_tiles(c, g, lanes, x, u, e, y, scratch)


cdef class _Walk(Step):
    """What forward and the input gradient share: one walk, from one image to the other."""

    algorithm = "winograd"
    cdef WinogradGeometry geometry
    cdef Py_ssize_t x, windows, y, scratch
    cdef Py_ssize_t mean, variance, moments
    cdef Epilogue epilogue
    cdef bint backward

    cdef take(self, WinogradGeometry geometry, bint backward, Py_ssize_t x, Py_ssize_t windows,
              Py_ssize_t y, Py_ssize_t scratch, dict epilogue):
        self.mean = self.variance = self.moments = -1
        self.geometry, self.backward, self.x, self.windows = geometry, backward, x, windows
        self.y, self.scratch = y, scratch
        conv = geometry.conv
        pixels = math.prod(conv.in_size if backward else conv.out_size)
        channels = conv.channels if backward else conv.filters
        self.epilogue = Epilogue(pixels, channels, y, **epilogue)
        ends = (conv.x_extent, conv.y_extent)
        self.reads = (ends[backward](x), geometry.windows_extent(windows, backward),
                      *self.epilogue.reads)
        size = geometry.backward_scratch if backward else geometry.forward_scratch
        self.writes = (ends[not backward](y), Extent(scratch, 0, size))

    def flops(self, n):
        return 2 * self.geometry.multiplications(n, backward=self.backward)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Map *g = &self.geometry.backward if self.backward else &self.geometry.forward
        cdef fc_epilogue e = self.epilogue.bound(c)
        cdef Py_ssize_t tiles = c.n * image_tiles(g)
        if self.moments >= 0:
            e.moments, e.moments_stride = c.ptr[self.moments], g.width
        if c.f64:
            walk(c, g, self.backward, self.geometry.lanes, <const double *> c.ptr[self.x],
                 <const double *> c.ptr[self.windows], &e, <double *> c.ptr[self.y],
                 <double *> c.ptr[self.scratch])
        else:
            walk(c, g, self.backward, self.geometry.lanes, <const float *> c.ptr[self.x],
                 <const float *> c.ptr[self.windows], &e, <float *> c.ptr[self.y],
                 <float *> c.ptr[self.scratch])
        if self.moments >= 0 and c.f64:
            merge_moments(g, tiles, <double *> c.ptr[self.moments], <double *> c.ptr[self.mean],
                          <double *> c.ptr[self.variance])
        elif self.moments >= 0:
            merge_moments(g, tiles, <float *> c.ptr[self.moments], <float *> c.ptr[self.mean],
                          <float *> c.ptr[self.variance])


cdef class WinogradForward(_Walk):
    """y = x ∗ weight and the epilogue, as `conv.ConvForward`.

    Parameters
    ----------
    geometry : WinogradGeometry
    x, y : slot
        (N, D, H, W, IC) and (N, D, OH, OW, OC), with the geometry's pixel strides.
    windows : slot
        Written by `WinogradWindows`; the weights themselves where the geometry is ``wide``.
    scratch : slot
        ``geometry.forward_scratch`` elements.
    moments : (mean, variance, pieces), optional
        Slots for the batch norm that follows: mean and biased variance of each channel of y, (OC,),
        and scratch of ``geometry.moments_size`` elements a sample. Then there is a bias at most.
    bias, activation, norm, residual, residual_stride
        Of `epilogue.Epilogue`.
    """

    def __init__(self, WinogradGeometry geometry not None, *, Py_ssize_t x, Py_ssize_t windows,
                 Py_ssize_t y, Py_ssize_t scratch, moments=None, **epilogue):
        self.take(geometry, False, x, windows, y, scratch, epilogue)
        if moments is None:
            return
        if not self.epilogue.plain:
            raise ValueError("moments are of sums with a bias at most")
        self.mean, self.variance, self.moments = moments
        distinct(y=y, scratch=scratch, mean=self.mean, variance=self.variance,
                 moments=self.moments)
        filters = geometry.conv.filters
        self.writes += (Extent(self.mean, 0, filters), Extent(self.variance, 0, filters),
                        Extent(self.moments, geometry.moments_size))


cdef class WinogradInputGradient(_Walk):
    """dx, as `conv.ConvInputGradient`; overwritten.

    Parameters
    ----------
    geometry : WinogradGeometry
    dy, dx : slot
        (N, D, OH, OW, OC) and (N, D, H, W, IC), with the geometry's pixel strides.
    windows : slot
        Written by `WinogradWindows` with ``backward``; the weights where the geometry is ``wide``.
    scratch : slot
        ``geometry.backward_scratch`` elements.
    bias, activation, norm, residual, residual_stride
        Of `epilogue.Epilogue`: a transposed convolution is this step with a bias (IC,).
    """

    def __init__(self, WinogradGeometry geometry not None, *, Py_ssize_t dy, Py_ssize_t windows,
                 Py_ssize_t dx, Py_ssize_t scratch, **epilogue):
        self.take(geometry, True, dy, windows, dx, scratch, epilogue)


# ---- weight gradient ----------------------------------------------------------------------------

cdef void transform_rows(const Map *g, int row0, int row1, Py_ssize_t first, Py_ssize_t last,
                         const real *x, const real *dy, real *v, Py_ssize_t v_plane, real *z,
                         Py_ssize_t z_plane) noexcept nogil:
    """Rows row0..row1 of six planes of x and of dy for some tiles."""
    cdef fc_tile source, end
    cdef Py_ssize_t i, at, to
    for i in range(first, last):
        at, to = source_tile(g, i, &source), destination_tile(g, i, &end)
        if real is float:
            f32.winograd_input(&source, g.depth, row0, row1, x + at, v, v_plane)
            f32.winograd_gradient(g.window, &end, g.width, row0, row1, dy + to, z, z_plane)
        else:
            f64.winograd_input(&source, g.depth, row0, row1, x + at, v, v_plane)
            f64.winograd_gradient(g.window, &end, g.width, row0, row1, dy + to, z, z_plane)
        v += pitch(g.depth)
        z += pitch(g.width)


cdef void add_products(const Map *g, Py_ssize_t tiles, Py_ssize_t depth, Py_ssize_t width,
                       const real *v, const real *z, real *sums,
                       bint accumulate) noexcept nogil:
    """One plane: sums[depth][width] (+)= Σ over tiles of v · z."""
    cdef fc_walk walk
    cdef Py_ssize_t mr = outer_mr(v), nr = outer_nr(v), count = ceil_div(depth, mr)
    cdef Py_ssize_t i, panel, column, first, last, cols
    walk.count, walk.x_step, walk.dy_step = [1, 1, tiles], [0, 0, 0], [0, 0, 0]
    walk.x_step[2], walk.dy_step[2] = pitch(g.depth), pitch(g.width)
    for panel in range(ceil_div(width, nr)):
        column = panel * nr
        cols = min(nr, width - column)
        for i in range(count):
            first, last = share(i, count, depth), share(i + 1, count, depth)
            outer_tile(last - first, cols, &walk, v + first, z + column,
                       sums + first * width + column, width, accumulate, False)


cdef void gradient_task(const Map *g, int row, Py_ssize_t first, Py_ssize_t last, const real *x,
                        const real *dy, real *half, real *scratch) noexcept nogil:
    """One row of planes summed over tiles first..last, then its columns of the window."""
    cdef Py_ssize_t v_plane = plane_size(SUMMED, g.depth), z_plane = plane_size(SUMMED, g.width)
    cdef Py_ssize_t window = g.depth * g.width, block, start, end, j
    cdef real *z = scratch + 6 * v_plane
    cdef real *sums = z + 6 * z_plane
    for block in range(ceil_div(last - first, SUMMED)):
        start = first + block * SUMMED
        end = min(last, start + SUMMED)
        transform_rows(g, row, row + 1, start, end, x, dy, scratch, v_plane, z, z_plane)
        for j in range(6):
            add_products(g, end - start, g.depth, g.width, scratch + j * v_plane, z + j * z_plane,
                         sums + j * (window + 16), block > 0)
    if real is float:
        f32.winograd_window_half(g.window, window, sums, window + 16, half, window)
    else:
        f64.winograd_window_half(g.window, window, sums, window + 16, half, window)


cdef void block_task(const Map *g, Py_ssize_t tiles, Py_ssize_t row, Py_ssize_t column,
                     const real *v, Py_ssize_t v_plane, const real *z, Py_ssize_t z_plane,
                     real *dw, bint accumulate, real *sums) noexcept nogil:
    """A block of dw, BLOCK rows and a panel of columns at most, from all planes and tiles."""
    cdef Py_ssize_t rows = min(<Py_ssize_t> BLOCK, g.depth - row), size, i, k, first
    cdef Py_ssize_t cols = min(outer_nr(v), g.width - column), window = g.depth * g.width
    cdef real *half = sums + PLANES * BLOCK * WIDEST
    size = rows * cols
    for i in range(PLANES):
        for k in range(ceil_div(tiles, SUMMED)):
            first = k * SUMMED
            add_products(g, min(<Py_ssize_t> SUMMED, tiles - first), rows, cols,
                         v + i * v_plane + first * pitch(g.depth) + row,
                         z + i * z_plane + first * pitch(g.width) + column, sums + i * size,
                         k > 0)
    for i in range(6):
        if real is float:
            f32.winograd_window_half(g.window, size, sums + 6 * i * size, size,
                                     half + g.window * i * size, size)
        else:
            f64.winograd_window_half(g.window, size, sums + 6 * i * size, size,
                                     half + g.window * i * size, size)
    dw += row * g.width + column
    for i in range(rows):
        if real is float:
            f32.winograd_window_gradient(g.window, cols, 1, half + i * cols, size, accumulate,
                                         dw + i * g.width, window)
        else:
            f64.winograd_window_gradient(g.window, cols, 1, half + i * cols, size, accumulate,
                                         dw + i * g.width, window)


cdef void gradient_by_blocks(const Context *c, const Map *g, Py_ssize_t lanes, const real *x,
                             const real *dy, real *dw, real *scratch,
                             bint accumulate) noexcept nogil:
    """dw (+)= Σ over the tiles of all samples, which are few."""
    cdef Py_ssize_t tiles = c.n * image_tiles(g), rows = ceil_div(g.depth, BLOCK), i
    cdef Py_ssize_t nr = outer_nr(x), columns = ceil_div(g.width, nr)
    cdef Py_ssize_t v_plane = plane_size(tiles, g.depth), z_plane = plane_size(tiles, g.width)
    cdef real *z = scratch + PLANES * v_plane
    cdef real *lane = z + PLANES * z_plane
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * g.depth * g.width / FMAS)
    threads = min(threads, <int> lanes)
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(tiles, schedule="static"):
            transform_rows(g, 0, 6, i, i + 1, x, dy, scratch + i * pitch(g.depth), v_plane,
                           z + i * pitch(g.width), z_plane)
        for i in prange(rows * columns, schedule="dynamic"):
            block_task(g, tiles, i % rows * BLOCK, i // rows * nr, scratch, v_plane, z, z_plane,
                       dw, accumulate, lane + threadid() * block_lane_size())
        flush_denormals_restore(mode)


cdef void gradient_by_rows(const Context *c, const Map *g, Py_ssize_t lanes, const real *x,
                           const real *dy, real *dw, real *scratch,
                           bint accumulate) noexcept nogil:
    """dw (+)= Σ over the tiles of all samples, row by row of the planes."""
    cdef Py_ssize_t tiles = c.n * image_tiles(g), pieces = pieces_of(g, tiles), i, first, count
    cdef Py_ssize_t window = g.depth * g.width, lane = row_lane_size(g)
    cdef real *half = scratch + lanes * lane     # [piece][row][column][IC][OC]
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * window / FMAS)
    threads = min(threads, <int> lanes)
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(6 * pieces, schedule="dynamic"):
            gradient_task(g, <int> (i % 6), share(i // 6, pieces, tiles),
                          share(i // 6 + 1, pieces, tiles), x, dy, half + i * g.window * window,
                          scratch + threadid() * lane)
        for i in prange(ceil_div(window, SLAB), schedule="static"):
            first = i * SLAB
            count = min(<Py_ssize_t> SLAB, window - first)
            if real is float:
                f32.winograd_window_gradient(g.window, count, pieces, half + first, window,
                                             accumulate, dw + first, window)
            else:
                f64.winograd_window_gradient(g.window, count, pieces, half + first, window,
                                             accumulate, dw + first, window)
        flush_denormals_restore(mode)


cdef void weight_gradient(const Context *c, const Map *g, Py_ssize_t lanes, const real *x,
                          const real *dy, real *dw, real *scratch,
                          bint accumulate) noexcept nogil:
    """dw (+)= Σ over the tiles of all samples."""
    if g.depth * g.width >= WIDE and c.n * image_tiles(g) <= SHARED:
        gradient_by_blocks(c, g, lanes, x, dy, dw, scratch, accumulate)
    else:
        gradient_by_rows(c, g, lanes, x, dy, dw, scratch, accumulate)


cdef class WinogradWeightGradient(Step):
    """dw, as `conv.ConvWeightGradient`.

    Parameters
    ----------
    geometry : WinogradGeometry
    x, dy : slot
        (N, D, H, W, IC) and (N, D, OH, OW, OC), with the geometry's pixel strides.
    dw : slot
        (KH, KW, IC, OC).
    scratch : slot
        ``geometry.gradient_scratch`` elements.
    accumulate : bool
        Add to dw instead of overwriting it; so does a pass that accumulates.
    """

    algorithm = "winograd"
    cdef WinogradGeometry geometry
    cdef Py_ssize_t x, dy, dw, scratch
    cdef bint accumulate

    def __init__(self, WinogradGeometry geometry not None, *, Py_ssize_t x, Py_ssize_t dy,
                 Py_ssize_t dw, Py_ssize_t scratch, bint accumulate=False):
        self.geometry, self.x, self.dy, self.dw = geometry, x, dy, dw
        self.scratch, self.accumulate = scratch, accumulate
        self.reads = (geometry.conv.x_extent(x), geometry.conv.y_extent(dy))
        self.writes = (Extent(dw, 0, geometry.weight_size),
                       Extent(scratch, 0, geometry.gradient_scratch))

    def flops(self, n):
        return 2 * self.geometry.multiplications(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Map *g = &self.geometry.forward
        cdef bint accumulate = self.accumulate or c.accumulate
        if c.f64:
            weight_gradient(c, g, self.geometry.lanes, <const double *> c.ptr[self.x],
                            <const double *> c.ptr[self.dy], <double *> c.ptr[self.dw],
                            <double *> c.ptr[self.scratch], accumulate)
        else:
            weight_gradient(c, g, self.geometry.lanes, <const float *> c.ptr[self.x],
                            <const float *> c.ptr[self.dy], <float *> c.ptr[self.dw],
                            <float *> c.ptr[self.scratch], accumulate)

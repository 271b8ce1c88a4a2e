"""Convolutions of stride 1 by Winograd's minimal filtering: F(4×4, 3×3) and F(2×2, 5×5).

Design. An image is cut into tiles of 4×4 outputs (2×2 for windows of 5×5), each seen by 6×6 inputs.
Transformed, the convolution becomes 36 products, one per *plane*: tiles × IC by IC × OC, which the
micro-kernel of the direct convolution carries. A quarter of the multiplications is left (36/100 for
5×5), and the transforms, which touch each number once, are vectorised over channels. Formulas:
csrc/kernels/winograd.inl.

Forward and the input gradient are one walk: the input gradient is a convolution of dy with the
flipped window. A task takes some tiles through all of it, so that what is transformed stays in the
caches: inputs, then panel by panel 36 products and outputs. The transformed windows, a multiple of
the weights, are made once and shared, [panel][plane][IC][NR]. Where they would not fit the caches
(`wide`) it is the other way round: transformed inputs of some tiles are shared, and a task takes
one panel of the weights through all of it, transformed six planes at a time. Both give the same
bits.

A transformed plane has its tiles in groups, and of a group one vector of channels of all tiles
together: the products find every tile at a fixed distance, without pointers, and run at the peak.
What is read and written next is fetched from memory while they run.

The weight gradient sums over tiles. The planes fall into three pairs of rows that never meet before
the end; a task is one pair (or all, where channels are few) and one piece of the tiles. It sums its
planes, IC × OC each, turns them into the window's columns, and at the end rows and pieces are added
in their order and turned into taps. Where channels are many, all planes of some tiles are shared
instead, and a task is a block of IC × OC.

A tile's sums never look at other tiles, pieces are a function of shape and batch size: so threads
change no bit.
"""

from cython.parallel cimport parallel, prange, threadid

from fastconv._native.dispatch cimport (
    f32, f64, fc_epilogue, fc_tile, flush_denormals_on, flush_denormals_restore, real,
)
from fastconv._native.epilogue cimport Epilogue
from fastconv._native.step cimport FMAS, Context, Step, team
from fastconv._native.tiles cimport (
    TALLEST, WIDEST, ceil_div, columns_from, gather_mr, gather_nr, pack_panel, share,
)

import math

from fastconv._native.checks import distinct
from fastconv._native.dispatch import num_threads
from fastconv._native.step import Extent

cdef enum:
    PLANES = 36
    LARGEST = 5             # window
    LANES = 16              # no table's vector is wider
    NARROWEST = 4           # and no panel narrower
    TILES = 12              # of a walk at a time; more of them push one another out of the caches
    BLOCKS = 8              # such blocks in a task
    UNCACHED = 1 << 14      # tiles · channels from which some lie in no cache and are fetched
    DEPTH = 32              # rows of a window that are turned over before they are transformed
    TOGETHER = 32 * 64      # IC · OC to which a weight gradient sums all its planes at a time,
    FEW = 28                # of so many tiles;
    SUMMED = 64             # else twelve planes of so many
    PIECES = 16             # of the tiles in a weight gradient, at most,
    COPIES = 1 << 22        # while their sums have no more elements than this
    LEAST = 256             # and each has so many tiles
    SLAB = 2048             # elements of one task when pieces are added
    WIDE = 256 * 256        # IC · OC from which transformed windows do not fit the caches,
    BLOCKED = 128 * 128     # and from which the sums of a weight gradient do not
    SHARED = 128            # tiles whose transforms are shared then
    BLOCK = 64              # rows and columns of a task's block of a weight gradient then
    PIECE = 8               # tiles of a piece of the moments; SHARED is a multiple

cdef enum Pair:             # of rows of planes, as csrc/kernels/winograd.inl has them
    ENDS, NEAR, FAR, ALL


cdef inline Py_ssize_t row_size(Py_ssize_t channels) noexcept nogil:
    """Elements of a tile's channels in a transformed plane: whole vectors."""
    return ceil_div(channels, LANES) * LANES


cdef inline Py_ssize_t plane_size(Py_ssize_t tiles, Py_ssize_t channels) noexcept nogil:
    """Elements from plane to plane of transformed tiles, out of step with the cache."""
    return tiles * row_size(channels) + LANES


cdef inline Py_ssize_t window_plane(Py_ssize_t depth, Py_ssize_t columns) noexcept nogil:
    """Elements from plane to plane of transformed windows, or of sums; out of step as well."""
    return depth * columns + LANES


cdef inline Py_ssize_t whole_groups(Py_ssize_t tiles, Py_ssize_t group) noexcept nogil:
    """So many tiles, the last group filled up."""
    return ceil_div(tiles, group) * group


cdef inline Py_ssize_t lanes_of(const real *x) noexcept nogil:
    """Elements of a vector."""
    return gather_nr(x) // 2


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
        if self.window >= BLOCKED:
            return blocks_scratch(&self.forward, self.lanes)
        return (self.lanes * pair_lane_size(&self.forward)
                + pieces * 6 * self.forward.window * (self.window + LANES))

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
    """Elements of all transformed windows, for the widest table or the narrowest one."""
    return PLANES * (depth * ceil_div(width, WIDEST) * WIDEST + LANES * ceil_div(width, NARROWEST))


cdef inline Py_ssize_t image_tiles(const Map *g) noexcept nogil:
    return g.images * g.tiles[0] * g.tiles[1]


cdef inline Py_ssize_t block_tiles(const real *x) noexcept nogil:
    """Tiles that a walk takes at a time: whole register tiles of the table."""
    return ceil_div(<Py_ssize_t> TILES, gather_mr(x)) * gather_mr(x)


cdef inline Py_ssize_t products_size(Py_ssize_t tiles) noexcept nogil:
    """All products of some tiles with a panel."""
    return PLANES * (tiles * WIDEST + LANES)


cdef inline Py_ssize_t lane_size(const Map *g) noexcept nogil:
    """Scratch of a thread in a walk: transformed inputs and the products of a panel."""
    cdef Py_ssize_t tiles = TILES + TALLEST     # of any table
    return PLANES * plane_size(tiles, g.depth) + products_size(tiles)


cdef inline Py_ssize_t panel_lane_size(const Map *g) noexcept nogil:
    """Scratch of a thread in a wide walk: a panel turned over, a row of its planes, products."""
    return (g.window * g.window * g.depth * WIDEST + 6 * window_plane(g.depth, WIDEST)
            + products_size(SHARED))


cdef inline Py_ssize_t walk_scratch(const Map *g, Py_ssize_t lanes) noexcept nogil:
    if g.depth * g.width < WIDE:
        return lanes * lane_size(g)
    return PLANES * plane_size(SHARED + TALLEST, g.depth) + lanes * panel_lane_size(g)


cdef inline Py_ssize_t block_lane_size() noexcept nogil:
    """Scratch of a thread that takes a block of a weight gradient: a row of planes, then half of
    all."""
    return 6 * (1 + LARGEST) * window_plane(BLOCK, BLOCK)


cdef inline Py_ssize_t blocks_scratch(const Map *g, Py_ssize_t lanes) noexcept nogil:
    return (PLANES * (plane_size(SHARED, g.depth) + plane_size(SHARED, g.width))
            + lanes * block_lane_size())


cdef inline Py_ssize_t pair_lane_size(const Map *g) noexcept nogil:
    """Scratch of a thread in a weight gradient: a pair of rows of x, of dy and of sums."""
    cdef bint together = g.depth * g.width <= TOGETHER
    cdef Py_ssize_t tiles = FEW if together else SUMMED
    return (PLANES if together else 12) * (plane_size(tiles, g.depth) + plane_size(tiles, g.width)
                                           + g.depth * g.width + LANES)


cdef inline Py_ssize_t pieces_of(const Map *g, Py_ssize_t tiles) noexcept nogil:
    """Pieces of the tiles in a weight gradient: as many as have work, while their sums are small.

    A piece's part of x and dy should stay in the last cache while its pairs of rows pass over it.
    """
    cdef Py_ssize_t pieces = 1
    while (2 * pieces <= PIECES and 2 * pieces * 6 * g.window * g.depth * g.width <= COPIES
           and 2 * pieces * LEAST <= tiles):
        pieces *= 2
    return pieces


cdef inline void clip(Py_ssize_t start, Py_ssize_t size, Py_ssize_t extent, Py_ssize_t *first,
                      Py_ssize_t *last) noexcept nogil:
    """Which of ``size`` pixels from ``start`` on lie in an image of this extent."""
    first[0] = min(size, max(0, -start))
    last[0] = max(first[0], min(size, extent - start))


cdef struct Cursor:
    Py_ssize_t image
    Py_ssize_t[2] tile      # of the image: row and column


cdef inline Cursor find_tile(const Map *g, Py_ssize_t index) noexcept nogil:
    cdef Cursor at
    cdef Py_ssize_t rest = index // g.tiles[1]
    at.tile[1], at.tile[0], at.image = index % g.tiles[1], rest % g.tiles[0], rest // g.tiles[0]
    return at


cdef inline void advance(const Map *g, Cursor *at) noexcept nogil:
    at.tile[1] += 1
    if at.tile[1] == g.tiles[1]:
        at.tile[1] = 0
        at.tile[0] += 1
        if at.tile[0] == g.tiles[0]:
            at.tile[0] = 0
            at.image += 1


cdef inline Py_ssize_t source_tile(const Map *g, const Cursor *at, fc_tile *tile) noexcept nogil:
    """The 6×6 inputs of a tile: elements from the first image to the first of them."""
    cdef Py_ssize_t[2] origin
    cdef Py_ssize_t i
    for i in range(2):
        origin[i] = g.outputs * at.tile[i] - g.pad[i]
        clip(origin[i], 6, g.src[i], &tile.first[i], &tile.last[i])
    tile.row_step, tile.pixel_step = g.src[1] * g.src_stride, g.src_stride
    return ((at.image * g.src[0] + origin[0]) * g.src[1] + origin[1]) * g.src_stride


cdef inline Py_ssize_t destination_tile(const Map *g, const Cursor *at,
                                        fc_tile *tile) noexcept nogil:
    """The outputs of a tile: elements from the first image to the first of them."""
    cdef Py_ssize_t[2] origin
    cdef Py_ssize_t i
    for i in range(2):
        origin[i] = g.outputs * at.tile[i]
        clip(origin[i], g.outputs, g.dst[i], &tile.first[i], &tile.last[i])
    tile.row_step, tile.pixel_step = g.dst[1] * g.dst_stride, g.dst_stride
    return ((at.image * g.dst[0] + origin[0]) * g.dst[1] + origin[1]) * g.dst_stride


cdef Py_ssize_t outputs_before(const Map *g, Py_ssize_t tile) noexcept nogil:
    """Outputs in the tiles before this one."""
    cdef Cursor at = find_tile(g, tile)
    cdef Py_ssize_t row = g.outputs * at.tile[0]
    return ((at.image * g.dst[0] + row) * g.dst[1]
            + min(<Py_ssize_t> g.outputs, g.dst[0] - row) * g.outputs * at.tile[1])


cdef void fetch(Py_ssize_t images, Py_ssize_t rows, const Py_ssize_t *tiles, Py_ssize_t row,
                Py_ssize_t first, Py_ssize_t last, const real *x) noexcept nogil:
    """Bring the share of an array that tiles first..last take.

    ``images`` in all have ``rows`` rows of ``row`` elements each. Tiles are walked row by row, and
    so is memory, but a tile is some rows high: it is brought that much earlier.
    """
    cdef Py_ssize_t count = tiles[0] * tiles[1], image = rows * row, lead = ceil_div(rows, tiles[0])
    cdef Py_ssize_t start = first // count * image + first % count * image // count + lead * row
    cdef Py_ssize_t end = last // count * image + last % count * image // count + lead * row
    end = min(end, images * image)
    if real is float:
        f32.fetch_stretch(x + start, x + end)
    else:
        f64.fetch_stretch(x + start, x + end)


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
    cdef Py_ssize_t nr = gather_nr(w), plane = window_plane(g.depth, nr), count = last - first
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

cdef void transform_inputs(const Map *g, Py_ssize_t first, Py_ssize_t last, Py_ssize_t start,
                           const real *x, real *v, Py_ssize_t plane) noexcept nogil:
    """Tiles first..last into planes whose first tile is number ``start``."""
    cdef Py_ssize_t i, at, mr = gather_mr(x), lanes = lanes_of(x)
    cdef Py_ssize_t group = ceil_div(g.depth, lanes) * lanes * mr
    cdef Cursor cursor = find_tile(g, first)
    cdef fc_tile tile
    cdef real *to
    for i in range(first - start, last - start):
        at = source_tile(g, &cursor, &tile)
        advance(g, &cursor)
        to = v + i // mr * group + i % mr * lanes
        if real is float:
            f32.winograd_input(&tile, g.depth, ALL, x + at, to, plane, mr * lanes)
        else:
            f64.winograd_input(&tile, g.depth, ALL, x + at, to, plane, mr * lanes)


cdef inline void multiply(Py_ssize_t planes, Py_ssize_t tiles, Py_ssize_t depth, Py_ssize_t cols,
                          const real *v, Py_ssize_t v_plane, const real *u, real *m,
                          Py_ssize_t m_plane) noexcept nogil:
    """Some planes with a panel of at most NR columns."""
    if real is float:
        f32.winograd_products(planes, tiles, depth, cols, v, v_plane, u,
                              window_plane(depth, gather_nr(u)), m, m_plane)
    else:
        f64.winograd_products(planes, tiles, depth, cols, v, v_plane, u,
                              window_plane(depth, gather_nr(u)), m, m_plane)


cdef void transform_outputs(const Map *g, Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols,
                            const real *m, Py_ssize_t plane, const fc_epilogue *e,
                            real *y) noexcept nogil:
    cdef const real *residual = NULL
    cdef real *moments = NULL
    cdef fc_tile tile
    cdef Cursor cursor = find_tile(g, first)
    cdef Py_ssize_t i, at, count = 0
    if e.moments is not NULL:   # the piece that the tiles before have begun
        i = first // PIECE
        moments = <real *> e.moments + i * 2 * e.moments_stride
        count = outputs_before(g, first) - outputs_before(g, i * PIECE)
    for i in range(first, last):
        at = destination_tile(g, &cursor, &tile)
        advance(g, &cursor)
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
        m += gather_nr(m)


cdef void walk_block(const Map *g, Py_ssize_t first, Py_ssize_t last, Py_ssize_t end,
                     Py_ssize_t images, const real *x, const real *u, const fc_epilogue *whole,
                     real *y, real *scratch) noexcept nogil:
    """Tiles first..last: inputs, then products and outputs panel by panel.

    While the products run, memory brings what will be written and tiles last..end, which follow.
    """
    cdef Py_ssize_t nr = gather_nr(x), tiles = last - first, panel, row, cols, slice
    cdef Py_ssize_t panels = ceil_div(g.width, nr), slices = 6 * panels
    cdef Py_ssize_t v_plane = plane_size(whole_groups(tiles, gather_mr(x)), g.depth)
    cdef Py_ssize_t m_plane = tiles * nr + LANES, u_plane = window_plane(g.depth, nr)
    cdef real *m = scratch + PLANES * v_plane
    cdef fc_epilogue e
    transform_inputs(g, first, last, first, x, scratch, v_plane)
    for panel in range(panels):
        cols = min(nr, g.width - panel * nr)
        for row in range(6):
            slice = 6 * panel + row
            if images > 0:
                if panel == 0:
                    fetch(images, g.dst[0], g.tiles, g.dst[1] * g.dst_stride,
                          first + share(row, 6, tiles), first + share(row + 1, 6, tiles), y)
                fetch(images, g.src[0], g.tiles, g.src[1] * g.src_stride,
                      last + share(slice, slices, end - last),
                      last + share(slice + 1, slices, end - last), x)
            multiply(6, tiles, g.depth, cols, scratch + 6 * row * v_plane, v_plane,
                     u + 6 * row * u_plane, m + 6 * row * m_plane, m_plane)
        e = columns_from(whole, panel * nr, m)
        transform_outputs(g, first, last, cols, m, m_plane, &e, y + panel * nr)
        u += PLANES * u_plane


cdef void walk_task(const Map *g, Py_ssize_t first, Py_ssize_t last, Py_ssize_t images,
                    const real *x, const real *u, const fc_epilogue *e, real *y,
                    real *scratch) noexcept nogil:
    """Tiles first..last block by block."""
    cdef Py_ssize_t tiles = last - first, blocks = ceil_div(tiles, block_tiles(x)), i
    for i in range(blocks):
        walk_block(g, first + share(i, blocks, tiles), first + share(i + 1, blocks, tiles),
                   first + share(min(i + 2, blocks), blocks, tiles), images, x, u, e, y,
                   scratch)


cdef inline Py_ssize_t piece_of(const fc_epilogue *e) noexcept nogil:
    """Tiles that belong to one task, whatever the threads: their moments are one piece."""
    return PIECE if e.moments is not NULL else 1


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
    cdef Py_ssize_t images = c.n * g.images if tiles * (g.depth + g.width) >= UNCACHED else 0
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * g.depth * g.width / FMAS)
    threads = min(threads, <int> lanes)
    tasks = ceil_div(tiles, BLOCKS * block_tiles(x))
    tasks = min(pieces, ceil_div(tasks, threads) * threads)
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(tasks, schedule="dynamic"):
            walk_task(g, piece * share(i, tasks, pieces),
                      min(tiles, piece * share(i + 1, tasks, pieces)), images, x, u, e, y,
                      scratch + threadid() * lane_size(g))
        flush_denormals_restore(mode)


cdef void panel_task(const Map *g, bint backward, Py_ssize_t panel, Py_ssize_t first,
                     Py_ssize_t last, const real *v, Py_ssize_t v_plane, const real *w,
                     const fc_epilogue *whole, real *y, real *scratch) noexcept nogil:
    """One panel of columns for tiles first..last, whose transformed inputs are v."""
    cdef Py_ssize_t nr = gather_nr(v), column = panel * nr, cols = min(nr, g.width - column)
    cdef Py_ssize_t tiles = last - first, m_plane = tiles * nr + LANES, size = g.depth * nr, row
    cdef Py_ssize_t u_plane = window_plane(g.depth, nr)
    cdef fc_epilogue e = columns_from(whole, column, v)
    cdef real *u = scratch + g.window * g.window * size
    cdef real *m = u + 6 * u_plane
    if backward:
        turn(g, column, 0, g.depth, w, scratch)
    for row in range(6):
        if backward:
            window_rows(g, g.depth, nr, <int> row, <int> row + 1, scratch, size, nr, u,
                        u_plane)
        else:
            window_rows(g, g.depth, cols, <int> row, <int> row + 1, w + column,
                        g.depth * g.width, g.width, u, u_plane)
        multiply(6, tiles, g.depth, cols, v + 6 * row * v_plane, v_plane, u,
                 m + 6 * row * m_plane, m_plane)
    transform_outputs(g, first, last, cols, m, m_plane, &e, y + column)


cdef void walk_wide(const Context *c, const Map *g, bint backward, Py_ssize_t lanes,
                    const real *x, const real *w, const fc_epilogue *e, real *y,
                    real *scratch) noexcept nogil:
    """As `walk`, from the weights themselves: panels are the tasks."""
    cdef Py_ssize_t tiles = c.n * image_tiles(g), chunks = ceil_div(tiles, SHARED), k, i
    cdef Py_ssize_t first, last, panels = ceil_div(g.width, gather_nr(x)), v_plane
    cdef Py_ssize_t piece = piece_of(e), pieces = ceil_div(tiles, piece)
    cdef real *own = scratch + PLANES * plane_size(SHARED + TALLEST, g.depth)
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * g.depth * g.width / FMAS)
    threads = min(threads, <int> lanes)
    for k in range(chunks):
        first = piece * share(k, chunks, pieces)
        last = min(tiles, piece * share(k + 1, chunks, pieces))
        v_plane = plane_size(whole_groups(last - first, gather_mr(x)), g.depth)
        with parallel(num_threads=threads):
            mode = flush_denormals_on()
            for i in prange(first, last, schedule="static"):
                transform_inputs(g, i, i + 1, first, x, scratch, v_plane)
            for i in prange(panels, schedule="dynamic"):
                panel_task(g, backward, i, first, last, scratch, v_plane, w, e, y,
                           own + threadid() * panel_lane_size(g))
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

cdef void transform_pair(const Map *g, Pair pair, Py_ssize_t first, Py_ssize_t last,
                         const real *x, const real *dy, real *v, Py_ssize_t v_plane, real *z,
                         Py_ssize_t z_plane, Py_ssize_t tiles) noexcept nogil:
    """Planes of x and of dy for tiles first..last, in groups of ``tiles`` tiles."""
    cdef Py_ssize_t _i, at, to, lanes = lanes_of(x), block = tiles * lanes
    cdef Cursor cursor = find_tile(g, first)
    cdef fc_tile source, end
    for _i in range(last - first):
        at, to = source_tile(g, &cursor, &source), destination_tile(g, &cursor, &end)
        advance(g, &cursor)
        if real is float:
            f32.winograd_input(&source, g.depth, pair, x + at, v, v_plane, block)
            f32.winograd_gradient(g.window, &end, g.width, pair, dy + to, z, z_plane, block)
        else:
            f64.winograd_input(&source, g.depth, pair, x + at, v, v_plane, block)
            f64.winograd_gradient(g.window, &end, g.width, pair, dy + to, z, z_plane, block)
        v += lanes
        z += lanes


cdef inline void add_products(Py_ssize_t planes, Py_ssize_t tiles, Py_ssize_t depth,
                              Py_ssize_t width, const real *v, Py_ssize_t v_plane, const real *z,
                              Py_ssize_t z_plane, Py_ssize_t block, real *sums, Py_ssize_t plane,
                              bint accumulate) noexcept nogil:
    """sums[depth][width] (+)= Σ over tiles of v · z, for some planes."""
    if real is float:
        f32.winograd_sums(planes, tiles, depth, width, v, v_plane, block, z, z_plane, block, sums,
                          plane, width, accumulate)
    else:
        f64.winograd_sums(planes, tiles, depth, width, v, v_plane, block, z, z_plane, block, sums,
                          plane, width, accumulate)


cdef inline void half_of(const Map *g, Py_ssize_t count, const real *sums, Py_ssize_t plane,
                         real *half) noexcept nogil:
    """A row of six planes to the window's columns, as far apart."""
    if real is float:
        f32.winograd_window_half(g.window, count, sums, plane, half, plane)
    else:
        f64.winograd_window_half(g.window, count, sums, plane, half, plane)


cdef inline void window_gradient(const Map *g, Py_ssize_t count, Py_ssize_t pieces,
                                 const real *half, Py_ssize_t plane, bint accumulate,
                                 real *dw) noexcept nogil:
    """The columns of all rows to taps."""
    if real is float:
        f32.winograd_window_gradient(g.window, count, pieces, half, plane, accumulate, dw,
                                     g.depth * g.width)
    else:
        f64.winograd_window_gradient(g.window, count, pieces, half, plane, accumulate, dw,
                                     g.depth * g.width)


cdef void gradient_task(const Map *g, Pair pair, Py_ssize_t first, Py_ssize_t last,
                        Py_ssize_t images, const real *x, const real *dy, real *half,
                        real *scratch) noexcept nogil:
    """One pair of rows of planes summed over tiles first..last, or all, then their columns of the
    window. Meanwhile memory brings the tiles that follow."""
    cdef Py_ssize_t rows = 6 if pair == ALL else 2, tiles = FEW if pair == ALL else SUMMED
    cdef Py_ssize_t v_plane = plane_size(tiles, g.depth), z_plane = plane_size(tiles, g.width)
    cdef Py_ssize_t window = g.depth * g.width, plane = window_plane(g.depth, g.width)
    cdef Py_ssize_t count = last - first, blocks = ceil_div(count, tiles), i, j, row
    cdef Py_ssize_t start, end, next, soon, later
    cdef real *z = scratch + 6 * rows * v_plane
    cdef real *sums = z + 6 * rows * z_plane
    for i in range(blocks):
        start, end = first + share(i, blocks, count), first + share(i + 1, blocks, count)
        next = first + share(min(i + 2, blocks), blocks, count) - end
        transform_pair(g, pair, start, end, x, dy, scratch, v_plane, z, z_plane, tiles)
        for j in range(rows):
            if images > 0:
                soon, later = end + share(j, rows, next), end + share(j + 1, rows, next)
                fetch(images, g.src[0], g.tiles, g.src[1] * g.src_stride, soon, later, x)
                fetch(images, g.dst[0], g.tiles, g.dst[1] * g.dst_stride, soon, later, dy)
            add_products(6, end - start, g.depth, g.width, scratch + 6 * j * v_plane, v_plane,
                         z + 6 * j * z_plane, z_plane, tiles * lanes_of(x), sums + 6 * j * plane,
                         plane, i > 0)
    for j in range(rows):
        row = j if pair == ALL else 5 * j if pair == ENDS else 2 * pair - 1 + j
        half_of(g, window, sums + 6 * j * plane, plane, half + row * g.window * plane)


cdef void block_task(const Map *g, Py_ssize_t tiles, Py_ssize_t row, Py_ssize_t column,
                     const real *v, Py_ssize_t v_plane, const real *z, Py_ssize_t z_plane,
                     real *dw, bint accumulate, real *sums) noexcept nogil:
    """A block of dw, BLOCK rows and columns at most, from all planes of some tiles."""
    cdef Py_ssize_t rows = min(<Py_ssize_t> BLOCK, g.depth - row), i
    cdef Py_ssize_t cols = min(<Py_ssize_t> BLOCK, g.width - column), size = rows * cols
    cdef Py_ssize_t plane = window_plane(rows, cols)
    cdef real *half = sums + 6 * plane
    v += row * tiles
    z += column * tiles
    for i in range(6):
        add_products(6, tiles, rows, cols, v + 6 * i * v_plane, v_plane, z + 6 * i * z_plane,
                     z_plane, tiles * lanes_of(v), sums, plane, False)
        half_of(g, size, sums, plane, half + i * g.window * plane)
    dw += row * g.width + column
    for i in range(rows):
        window_gradient(g, cols, 1, half + i * cols, plane, accumulate, dw + i * g.width)


cdef void gradient_by_blocks(const Context *c, const Map *g, Py_ssize_t lanes, const real *x,
                             const real *dy, real *dw, real *scratch,
                             bint accumulate) noexcept nogil:
    """dw (+)= Σ over the tiles of all samples: blocks of dw are the tasks."""
    cdef Py_ssize_t tiles = c.n * image_tiles(g), chunks = ceil_div(tiles, SHARED), k, i
    cdef Py_ssize_t rows = ceil_div(g.depth, BLOCK), columns = ceil_div(g.width, BLOCK)
    cdef Py_ssize_t first, last, count, v_plane, z_plane, lane = lanes_of(x)
    cdef real *z = scratch + PLANES * plane_size(SHARED, g.depth)
    cdef real *own = z + PLANES * plane_size(SHARED, g.width)
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * g.depth * g.width / FMAS)
    threads = min(threads, <int> lanes)
    for k in range(chunks):
        first, last = share(k, chunks, tiles), share(k + 1, chunks, tiles)
        count = last - first
        v_plane, z_plane = plane_size(count, g.depth), plane_size(count, g.width)
        with parallel(num_threads=threads):
            mode = flush_denormals_on()
            for i in prange(first, last, schedule="static"):
                transform_pair(g, ALL, i, i + 1, x, dy, scratch + (i - first) * lane, v_plane,
                               z + (i - first) * lane, z_plane, count)
            for i in prange(rows * columns, schedule="dynamic"):
                block_task(g, count, i % rows * BLOCK, i // rows * BLOCK, scratch, v_plane, z,
                           z_plane, dw, accumulate or k > 0, own + threadid() * block_lane_size())
            flush_denormals_restore(mode)


cdef void gradient_by_pairs(const Context *c, const Map *g, Py_ssize_t lanes, const real *x,
                            const real *dy, real *dw, real *scratch,
                            bint accumulate) noexcept nogil:
    """dw (+)= Σ over the tiles of all samples: pairs of rows of planes are the tasks."""
    cdef Py_ssize_t tiles = c.n * image_tiles(g), pieces = pieces_of(g, tiles), i, first, count
    cdef Py_ssize_t window = g.depth * g.width, lane = pair_lane_size(g)
    cdef Py_ssize_t plane = window_plane(g.depth, g.width)
    cdef Py_ssize_t images = c.n * g.images if tiles * (g.depth + g.width) >= UNCACHED else 0
    cdef Py_ssize_t pairs = 1 if window <= TOGETHER else 3
    cdef real *half = scratch + lanes * lane     # [piece][row][column][IC][OC]
    cdef unsigned mode = 0
    cdef int threads = team(c, <double> PLANES * tiles * window / FMAS)
    threads = min(threads, <int> lanes)
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(pairs * pieces, schedule="dynamic"):
            gradient_task(g, <Pair> (i % pairs) if pairs > 1 else ALL,
                          share(i // pairs, pieces, tiles), share(i // pairs + 1, pieces, tiles),
                          images, x, dy, half + i // pairs * 6 * g.window * plane,
                          scratch + threadid() * lane)
        for i in prange(ceil_div(window, SLAB), schedule="static"):
            first = i * SLAB
            count = min(<Py_ssize_t> SLAB, window - first)
            window_gradient(g, count, pieces, half + first, plane, accumulate, dw + first)
        flush_denormals_restore(mode)


cdef void weight_gradient(const Context *c, const Map *g, Py_ssize_t lanes, const real *x,
                          const real *dy, real *dw, real *scratch,
                          bint accumulate) noexcept nogil:
    """dw (+)= Σ over the tiles of all samples."""
    if g.depth * g.width >= BLOCKED:
        gradient_by_blocks(c, g, lanes, x, dy, dw, scratch, accumulate)
    else:
        gradient_by_pairs(c, g, lanes, x, dy, dw, scratch, accumulate)


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

"""Convolutions whose operands are rounded to bfloat16, as a CPU with AVX512-BF16 multiplies them.

Everything in memory is float32: activations, gradients, master weights, sums. A walk rounds what it
reads as it copies it for the register tiles, two terms of a sum (channels; pixels in the weight
gradient) in the place of one, and the CPU multiplies both at once. Such a product runs up to twice
as fast as the same in float32; rounding to 8 bits of mantissa is its price.

The walks are those of `conv` and `weight_gradient` where these copy, and their order is fixed in
the same way: each output adds its terms tap by tap and pair by pair, whatever tiles, blocks and
threads are. They are there in float32 alone, and where the CPU has the product.
"""

from cython.parallel cimport parallel, prange

from fastconv._native.conv cimport (
    BLOCK, Chunk, Pixels, all_inside, goes_on, list_pixels, list_sources,
)
from fastconv._native.dispatch cimport (
    bf16, f32, fc_epilogue, fc_pair, flush_denormals_on, flush_denormals_restore,
)
from fastconv._native.epilogue cimport Epilogue
from fastconv._native.geometry cimport (
    POINTERS, TAPS, ConvGeometry, Gather, Lattice, Outer, Rectangle,
)
from fastconv._native.step cimport FMAS, Context, Step, clock_seconds, fail, team
from fastconv._native.tiles cimport FAR, LINE, TALLEST, address, ceil_div, columns_from, share
from fastconv._native.weight_gradient cimport (
    Block, Box, Cut, add_pieces, block_at, chunk_box, copied_blocks, cut_pixels,
)

import math

from fastconv._native.step import Extent

cdef enum:
    NR = 32             # of both tiles: pairs in a row of a panel
    LANES = 16          # pairs of a row that lie side by side in a copy
    TERMS = 2048        # taps × channels summed at a time,
    ROOM = 1 << 16      # in pairs: copies of a block of tiles (a quarter of the L2 cache)
    STRETCH = 4         # blocks of a task; each fetches what the next one reads
    COPIED = 320        # pixels of a weight gradient that are copied at a time,
    COPIED_PAIRS = 160  # of
    TILES = 10          # tiles of x and
    PANELS = 16         # panels of dy, at most

cdef enum:              # of the measurement
    PAIRS = 64          # pairs of channels of a tile: operands in the L1 cache
    DEPTH = 2 * PAIRS
    CALLS = 2000
    ROUNDS = 5


def gain() -> float:
    """How many times as fast as float32 the products are, measured: the best of several rounds of
    a tile on operands that the L1 cache holds; 0 where the CPU or the kernel table has none."""
    cdef double start, exact = 1e9, rounded = 1e9
    if bf16 is NULL:
        return 0.0
    for _ in range(ROUNDS):
        start = clock_seconds()
        with nogil:
            float32_tiles()
        exact = min(exact, clock_seconds() - start)
        start = clock_seconds()
        with nogil:
            bf16_tiles()
        rounded = min(rounded, clock_seconds() - start)
    return exact / rounded


cdef void float32_tiles() noexcept nogil:
    cdef float[DEPTH * NR] panel
    cdef float[TALLEST * NR] y
    cdef const float *x[TALLEST]
    cdef const float *taps[1]
    cdef float *ends[TALLEST]
    cdef Py_ssize_t i, _
    for i in range(DEPTH * NR):
        panel[i] = 0.5
    taps[0] = panel
    for i in range(f32.gather_mr):
        x[i], ends[i] = panel + i * DEPTH, y + i * NR
    for _ in range(CALLS):
        f32.gather_tile(f32.gather_mr, NR, 1, DEPTH, x, NULL, taps, NR, NULL, False, True, NULL,
                        False, ends)


cdef void bf16_tiles() noexcept nogil:
    cdef fc_pair[(TALLEST + NR) * PAIRS] copies
    cdef float[TALLEST * NR] y
    cdef const fc_pair *taps[1]
    cdef float *ends[TALLEST]
    cdef Py_ssize_t i, _
    for i in range((TALLEST + NR) * PAIRS):
        copies[i] = 0x3f003f00      # 0.5 twice
    taps[0] = copies + TALLEST * PAIRS
    for i in range(bf16.mr):
        ends[i] = y + i * NR
    for _ in range(CALLS):
        bf16.gather_tile(bf16.mr, NR, 1, PAIRS, copies, taps, NULL, False, False, ends)


# ---- packing -------------------------------------------------------------------------------------

cdef inline Py_ssize_t pairs_of(Py_ssize_t terms) noexcept nogil:
    return ceil_div(terms, 2)


def panel_size(ConvGeometry geometry not None, bint backward=False):
    """Elements (of 4 bytes) of all panels: [group][panel][tap][pair][NR]."""
    cdef const Gather *g = &geometry.backward if backward else &geometry.forward
    return g.groups * ceil_div(g.width, NR) * g.taps * pairs_of(g.depth) * NR


cdef void pack_task(const Gather *g, const Py_ssize_t *order, Py_ssize_t i, const float *w,
                    fc_pair *panel) noexcept nogil:
    """Panel and tap number i, of groups × panels × taps; ``order`` is NULL for the forward walk."""
    cdef Py_ssize_t panels = ceil_div(g.width, NR), tap = i % g.taps, group
    cdef Py_ssize_t column = i // g.taps % panels * NR, cols = min(NR, g.width - column)
    group = i // (g.taps * panels)
    panel += i * pairs_of(g.depth) * NR
    if order is NULL:   # w (taps, IC / groups, OC)
        w += tap * g.depth * g.groups * g.width + group * g.width + column
        bf16.pack_panel(w, g.groups * g.width, 1, g.depth, cols, panel)
    else:               # the same w, whose OC axis is now summed over
        w += (order[tap] * g.width + column) * g.groups * g.depth + group * g.depth
        bf16.pack_panel(w, 1, g.groups * g.depth, g.depth, cols, panel)


cdef class Bf16Pack(Step):
    """Pack weights (KD, KH, KW, IC / groups, OC) for `Bf16Forward`, or for `Bf16InputGradient`."""

    cdef ConvGeometry geometry
    cdef Py_ssize_t weight, panel
    cdef bint backward

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t weight, Py_ssize_t panel,
                 bint backward=False):
        self.geometry, self.weight, self.panel = geometry, weight, panel
        self.backward = backward
        self.reads = (Extent(weight, 0, geometry.weight_size),)
        self.writes = (Extent(panel, 0, panel_size(geometry, backward)),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.backward if self.backward else &self.geometry.forward
        cdef const Py_ssize_t *order = self.geometry.order if self.backward else NULL
        cdef const float *w = <const float *> c.ptr[self.weight]
        cdef fc_pair *panel = <fc_pair *> c.ptr[self.panel]
        cdef Py_ssize_t i, tasks = g.groups * ceil_div(g.width, NR) * g.taps
        cdef int threads
        if not ready(c):
            return
        threads = team(c, 1.0 * tasks * g.depth * NR)
        if threads == 1:
            for i in range(tasks):
                pack_task(g, order, i, w, panel)
            return
        for i in prange(tasks, num_threads=threads, schedule="static"):
            pack_task(g, order, i, w, panel)


cdef bint ready(Context *c) noexcept nogil:
    """Whether this pass can run here; else it fails."""
    if bf16 is not NULL and not c.f64:
        return True
    with gil:
        fail(c, RuntimeError("products of bfloat16 need float32 and a kernel table that has them"))
    return False


# ---- forward and input gradient ------------------------------------------------------------------

cdef struct Task:
    # tiles tile0..tile1 of the lattice's pixels, panels panel0..panel1 of one group; the block that
    # follows ends with tile2
    Py_ssize_t pixels, tiles, tile0, tile1, tile2, group, panel0, panel1
    Py_ssize_t tap_step, depth_step     # a chunk has at most so many taps and channels
    Py_ssize_t pitch                    # pairs of a tile's copy
    bint streamed                       # the destination is written past the caches


cdef void copy_block(const Gather *g, const Lattice *s, const Task *task, const Chunk *chunk,
                     const Pixels *pixels, const float *x, fc_pair *copies, Py_ssize_t *counts,
                     short *kept) noexcept nogil:
    """What the tiles of a block read in one chunk, rounded: tile by tile, tap by tap."""
    cdef const float *rows[POINTERS]
    cdef Py_ssize_t first = share(task.tile0, task.tiles, task.pixels), i, t, at, m
    cdef Py_ssize_t depth = chunk.i1 - chunk.i0
    cdef Py_ssize_t size = ceil_div(pairs_of(depth), LANES) * LANES * bf16.mr
    for i in range(task.tile1 - task.tile0):
        at = share(task.tile0 + i, task.tiles, task.pixels)
        m = share(task.tile0 + i + 1, task.tiles, task.pixels) - at
        counts[i] = list_sources(g, s, pixels, at - first, m, chunk.t0, chunk.t1, 1,
                                 all_inside(pixels, at - first, m), x + chunk.i0,
                                 <const float **> rows, kept + i * task.tap_step)
        for t in range(counts[i]):
            bf16.pack_rows(m, depth, <const float *const *> rows + t * f32.gather_mr,
                           copies + i * task.pitch + t * size)


cdef void panel_tiles(const Gather *g, const Lattice *s, const Task *task, const Chunk *chunk,
                      const Pixels *pixels, const Pixels *soon, Py_ssize_t coming, const float *x,
                      const fc_pair *copies, const Py_ssize_t *counts, const short *kept,
                      Py_ssize_t panel, const fc_pair *w, const fc_epilogue *whole,
                      float *y) noexcept nogil:
    """The tiles of a block through one chunk of one panel; the ``coming`` pixels of the next block
    are fetched meanwhile."""
    cdef const fc_pair *taps[TAPS]
    cdef float *ends[TALLEST]
    cdef const float *residuals[TALLEST]
    cdef Py_ssize_t column = task.group * g.width + panel * NR
    cdef Py_ssize_t cols = min(NR, g.width - panel * NR), depth = chunk.i1 - chunk.i0
    cdef Py_ssize_t first = share(task.tile0, task.tiles, task.pixels), at = first, i, t, r, m
    cdef Py_ssize_t tiles = task.tile1 - task.tile0, call, calls, end
    cdef fc_epilogue e = columns_from(whole, column, y)
    calls = (task.panel1 - task.panel0) * tiles
    w += ((task.group * ceil_div(g.width, NR) + panel) * g.taps + s.first + chunk.t0) \
        * pairs_of(g.depth) * NR + chunk.i0 // 2 * NR
    for i in range(tiles):
        call = (panel - task.panel0) * tiles + i
        for r in range(share(call, calls, coming), share(call + 1, calls, coming)):
            f32.fetch_stretch(x + soon.src[r], x + soon.src[r] + g.depth)
        m = share(task.tile0 + i + 1, task.tiles, task.pixels) - at
        for r in range(m):
            end = pixels.dst[at - first + r]
            ends[r] = y + end * g.dst_stride + column
            if e.residual is not NULL:
                residuals[r] = <const float *> e.residual + end * e.residual_stride
        for t in range(counts[i]):
            taps[t] = w + kept[i * task.tap_step + t] * pairs_of(g.depth) * NR
        bf16.gather_tile(m, cols, counts[i], pairs_of(depth), copies + i * task.pitch, taps,
                         <const float *> e.bias, not chunk.first, task.streamed, ends)
        if chunk.final and goes_on(&e):     # what follows the sums, which the L1 cache still has
            f32.gather_tile(m, cols, 0, 0, NULL, NULL, NULL, NR, &e, True, True,
                            residuals if e.residual is not NULL else NULL, False, ends)
        at += m


cdef void gather_block(const Gather *g, const Lattice *s, const Task *task, const float *x,
                       const fc_pair *w, const fc_epilogue *e, float *y) noexcept nogil:
    """One block: its sum chunk by chunk, panels over tiles within a chunk."""
    cdef fc_pair[ROOM] copies
    cdef Pixels pixels, soon
    cdef Py_ssize_t[BLOCK] counts   # taps kept for each tile,
    cdef short[POINTERS] kept       # and which
    cdef Chunk chunk
    cdef Py_ssize_t tap_chunks = max(1, ceil_div(s.taps, task.tap_step))
    cdef Py_ssize_t depth_chunks = ceil_div(g.depth, task.depth_step)
    cdef Py_ssize_t first = share(task.tile0, task.tiles, task.pixels), k, panel, coming = 0
    cdef Py_ssize_t end = share(task.tile1, task.tiles, task.pixels)
    list_pixels(g, s, first, end - first, &pixels)
    if s.taps == 1:     # others find most of what they read in the cache
        coming = share(task.tile2, task.tiles, task.pixels) - end
        list_pixels(g, s, end, coming, &soon)
    x += task.group * g.depth
    for k in range(tap_chunks * depth_chunks):
        chunk.t0 = share(k // depth_chunks, tap_chunks, s.taps)
        chunk.t1 = share(k // depth_chunks + 1, tap_chunks, s.taps)
        chunk.i0 = k % depth_chunks * task.depth_step
        chunk.i1 = min(g.depth, chunk.i0 + task.depth_step)
        chunk.first = k == 0
        chunk.final = k == tap_chunks * depth_chunks - 1
        copy_block(g, s, task, &chunk, &pixels, x, copies, counts, kept)
        for panel in range(task.panel0, task.panel1):
            panel_tiles(g, s, task, &chunk, &pixels, &soon, coming if chunk.final else 0, x,
                        copies, counts, kept, panel, w, e, y)


cdef void gather_task(const Gather *g, const Lattice *s, Task task, Py_ssize_t i,
                      Py_ssize_t stretches, Py_ssize_t blocks, Py_ssize_t slices, const float *x,
                      const fc_pair *w, const fc_epilogue *e, float *y) noexcept nogil:
    """Task i of groups × slices of the panels × stretches of blocks."""
    cdef Py_ssize_t panels = ceil_div(g.width, NR), stretch = i % stretches, block, last
    cdef Py_ssize_t slice = i // stretches % slices
    task.group = i // (stretches * slices)
    task.panel0, task.panel1 = share(slice, slices, panels), share(slice + 1, slices, panels)
    last = share(stretch + 1, stretches, blocks)
    for block in range(share(stretch, stretches, blocks), last):
        task.tile0 = share(block, blocks, task.tiles)
        task.tile1 = share(block + 1, blocks, task.tiles)
        task.tile2 = share(min(block + 2, last), blocks, task.tiles)
        gather_block(g, s, &task, x, w, e, y)


cdef void gather(const Context *c, const Gather *g, const Lattice *s, const float *x,
                 const fc_pair *w, const fc_epilogue *e, float *y) noexcept nogil:
    """y = Σ taps · x and the epilogue, for the pixels of a lattice, all samples and groups."""
    cdef Task task
    cdef Py_ssize_t i, depth, block, blocks, stretches, slices, panels = ceil_div(g.width, NR)
    cdef unsigned mode = 0
    cdef int threads
    task.pixels = c.n * s.count[0] * s.count[1] * s.count[2]
    if task.pixels == 0:
        return
    threads = team(c, task.pixels * (s.taps + 1) * g.depth * g.width * g.groups
                   / <double> (2 * FMAS))
    task.tiles = ceil_div(task.pixels, bf16.mr)
    depth = ceil_div(g.depth, 2 * LANES) * 2 * LANES    # of a tap's copy
    task.depth_step = min(depth, TERMS)
    task.tap_step = max(1, min(min(s.taps, TERMS // depth), TAPS))
    task.pitch = bf16.mr * task.tap_step * task.depth_step // 2
    task.streamed = (task.pixels * g.dst_stride >= FAR and task.tap_step >= s.taps
                     and task.depth_step >= g.depth and not goes_on(e) and <size_t> y % LINE == 0
                     and g.dst_stride * sizeof(float) % LINE == 0
                     and (g.groups == 1 or g.width * sizeof(float) % LINE == 0))
    block = min(BLOCK, min(ROOM // task.pitch, POINTERS // (f32.gather_mr * task.tap_step)))
    blocks = ceil_div(ceil_div(task.tiles, block), threads) * threads
    blocks = min(task.tiles, blocks)
    slices = min(panels, ceil_div(threads, blocks))
    stretches = max(min(blocks, 4 * threads), ceil_div(blocks, STRETCH))
    if threads == 1:
        for i in range(g.groups * slices * stretches):
            gather_task(g, s, task, i, stretches, blocks, slices, x, w, e, y)
        f32.fence()
        return
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(g.groups * slices * stretches, schedule="dynamic"):
            gather_task(g, s, task, i, stretches, blocks, slices, x, w, e, y)
        f32.fence()
        flush_denormals_restore(mode)


cdef class Bf16Forward(Step):
    """y = x ∗ weight and the epilogue, of x and weight rounded to bfloat16.

    Parameters
    ----------
    geometry : ConvGeometry
    x, y : slot
        (N, D, H, W, IC) and (N, OD, OH, OW, OC), with the geometry's pixel strides.
    panel : slot
        Written by `Bf16Pack`.
    bias, activation, norm, residual, residual_stride
        Of `epilogue.Epilogue`.
    """

    algorithm = "bf16"
    cdef ConvGeometry geometry
    cdef Py_ssize_t x, panel, y
    cdef Epilogue epilogue

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t x, Py_ssize_t panel,
                 Py_ssize_t y, **epilogue):
        self.geometry, self.x, self.panel, self.y = geometry, x, panel, y
        self.epilogue = Epilogue(math.prod(geometry.out_size), geometry.filters, y, **epilogue)
        self.reads = (geometry.x_extent(x), Extent(panel, 0, panel_size(geometry)),
                      *self.epilogue.reads)
        self.writes = (geometry.y_extent(y),)

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef fc_epilogue e = self.epilogue.bound(c)
        if ready(c):
            gather(c, &self.geometry.forward, &self.geometry.outputs,
                   <const float *> c.ptr[self.x], <const fc_pair *> c.ptr[self.panel], &e,
                   <float *> c.ptr[self.y])


cdef class Bf16InputGradient(Step):
    """dx of dy and weight rounded to bfloat16; overwritten.

    Parameters
    ----------
    geometry : ConvGeometry
    dy, dx : slot
        (N, OD, OH, OW, OC) and (N, D, H, W, IC), with the geometry's pixel strides.
    panel : slot
        Written by `Bf16Pack` with ``backward``.
    bias, activation, norm, residual, residual_stride
        Of `epilogue.Epilogue`.
    """

    algorithm = "bf16"
    cdef ConvGeometry geometry
    cdef Py_ssize_t dy, panel, dx
    cdef Epilogue epilogue

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t dy, Py_ssize_t panel,
                 Py_ssize_t dx, **epilogue):
        self.geometry, self.dy, self.panel, self.dx = geometry, dy, panel, dx
        self.epilogue = Epilogue(math.prod(geometry.in_size), geometry.channels, dx, **epilogue)
        self.reads = (geometry.y_extent(dy), Extent(panel, 0, panel_size(geometry, True)),
                      *self.epilogue.reads)
        self.writes = (geometry.x_extent(dx),)

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef fc_epilogue e = self.epilogue.bound(c)
        cdef Py_ssize_t p
        if not ready(c):
            return
        for p in range(self.geometry.phase_count):
            gather(c, &self.geometry.backward, &self.geometry.phases[p],
                   <const float *> c.ptr[self.dy], <const fc_pair *> c.ptr[self.panel], &e,
                   <float *> c.ptr[self.dx])


# ---- weight gradient -----------------------------------------------------------------------------

cdef struct Listed:
    # the pixels of a box in its order: where x and dy have their channels, of this block of dw
    Py_ssize_t count
    const float *x[COPIED]
    const float *dy[COPIED]


cdef void list_box(const Outer *o, const Block *b, Box *box, const float *x, const float *dy,
                   Listed *pixels) noexcept nogil:
    cdef Py_ssize_t i, plane, row, p, count = 0
    cdef Py_ssize_t[3] xs = box.walk.x_step, ds = box.walk.dy_step
    x += box.x + b.group * o.depth + b.tile0 * bf16.mr
    dy += box.dy + b.group * o.width + b.panel0 * NR
    for i in range(0 if box.empty else box.count):
        for plane in range(box.walk.count[0]):
            for row in range(box.walk.count[1]):
                for p in range(box.walk.count[2]):
                    pixels.x[count] = x + i * box.x_step + plane * xs[0] + row * xs[1] + p * xs[2]
                    pixels.dy[count] = dy + i * box.dy_step + plane * ds[0] + row * ds[1] \
                        + p * ds[2]
                    count += 1
    pixels.count = count


cdef void outer_chunk(const Outer *o, const Block *b, const Listed *here, const Listed *next,
                      float *dw, bint accumulate) noexcept nogil:
    """A block of dw over some pixels; fetches those of the next chunk meanwhile."""
    cdef fc_pair[COPIED_PAIRS * TILES * LANES] xs
    cdef fc_pair[COPIED_PAIRS * PANELS * NR] dys
    cdef Py_ssize_t mr = bf16.mr, stride = o.groups * o.width, i, tile, panel, p
    cdef Py_ssize_t row = b.tile0 * mr, rows = min(o.depth, b.tile1 * mr) - row
    cdef Py_ssize_t column = b.panel0 * NR, cols = min(o.width, b.panel1 * NR) - column
    cdef Py_ssize_t tiles = ceil_div(rows, mr), units = tiles * ceil_div(cols, NR)
    cdef Py_ssize_t pairs = pairs_of(here.count)
    dw += (b.tap * o.depth + row) * stride + b.group * o.width + column
    for tile in range(tiles):
        row = share(tile, tiles, rows)
        bf16.pack_pixels(here.count, here.x, row, share(tile + 1, tiles, rows) - row, LANES,
                         xs + tile * pairs * LANES)
    for panel in range(ceil_div(cols, NR)):
        bf16.pack_pixels(here.count, here.dy, panel * NR, min(NR, cols - panel * NR), NR,
                         dys + panel * pairs * NR)
    for i in range(units):
        panel, tile = i // tiles, i % tiles
        row = share(tile, tiles, rows)
        for p in range(share(i, units, next.count), share(i + 1, units, next.count)):
            f32.fetch_stretch(next.x[p], next.x[p] + rows)
            f32.fetch_stretch(next.dy[p], next.dy[p] + cols)
        bf16.outer_tile(share(tile + 1, tiles, rows) - row, min(NR, cols - panel * NR), pairs,
                        xs + tile * pairs * LANES, dys + panel * pairs * NR,
                        dw + row * stride + panel * NR, stride, accumulate)


cdef void outer_task(const Outer *o, const Rectangle *seen, const Block *b, Py_ssize_t sample0,
                     Py_ssize_t sample1, const float *x, const float *dy, float *dw,
                     bint accumulate) noexcept nogil:
    """A block of dw over some samples, chunk by chunk of pixels."""
    cdef Cut cut = cut_pixels(o, sample1 - sample0, COPIED)
    cdef Listed[2] pixels
    cdef Py_ssize_t k
    cdef Box box = chunk_box(o, &seen[b.tap], &cut, 0, sample0)
    list_box(o, b, &box, x, dy, &pixels[0])
    for k in range(cut.chunks):
        if k + 1 < cut.chunks:
            box = chunk_box(o, &seen[b.tap], &cut, k + 1, sample0)
            list_box(o, b, &box, x, dy, &pixels[(k + 1) % 2])
        else:
            pixels[(k + 1) % 2].count = 0
        if pixels[k % 2].count > 0 or k == 0:   # the first writes zeros
            outer_chunk(o, b, &pixels[k % 2], &pixels[(k + 1) % 2], dw, accumulate or k > 0)


cdef void piece_task(const Context *c, const Outer *o, const Rectangle *seen, Py_ssize_t piece,
                     Py_ssize_t pieces, const Block *b, const float *x, const float *dy, float *dw,
                     float *scratch, bint accumulate) noexcept nogil:
    cdef Py_ssize_t size = o.taps * o.depth * o.groups * o.width
    outer_task(o, seen, b, share(piece, pieces, c.n), share(piece + 1, pieces, c.n), x, dy,
               dw if pieces == 1 else scratch + piece * size, accumulate and pieces == 1)


cdef void weight_gradient(const Context *c, const Outer *o, const Rectangle *seen,
                          Py_ssize_t pieces, const float *x, const float *dy, float *dw,
                          float *scratch, bint accumulate) noexcept nogil:
    """dw (+)= Σ over the batch and the pixels of y of x · dy."""
    cdef Py_ssize_t size = o.taps * o.depth * o.groups * o.width, i, rows = 0, cols = 0, blocks
    cdef Py_ssize_t pixels = c.n * o.out[0] * o.out[1] * o.out[2]
    cdef Block b
    cdef unsigned mode = 0
    cdef int threads = team(c, pixels * size / <double> (2 * FMAS))
    blocks = copied_blocks(o, TILES, PANELS, ceil_div(4 * threads, pieces), x, &rows, &cols)
    if threads == 1:
        for i in range(pieces * blocks):
            b = block_at(o, i % blocks, rows, cols, x)
            piece_task(c, o, seen, i // blocks, pieces, &b, x, dy, dw, scratch, accumulate)
    else:
        with parallel(num_threads=threads):
            mode = flush_denormals_on()
            for i in prange(pieces * blocks, schedule="dynamic"):
                b = block_at(o, i % blocks, rows, cols, x)
                piece_task(c, o, seen, i // blocks, pieces, &b, x, dy, dw, scratch, accumulate)
            flush_denormals_restore(mode)
    if pieces > 1:
        add_pieces(c, scratch, pieces, size, dw, accumulate)


cdef class Bf16WeightGradient(Step):
    """dw = Σ x · dy over the outputs that each weight touched, of x and dy rounded to bfloat16.

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

    algorithm = "bf16"
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
        if ready(c):
            weight_gradient(c, &self.geometry.outer, self.geometry.seen,
                            self.geometry.pieces(c.n), <const float *> c.ptr[self.x],
                            <const float *> c.ptr[self.dy], <float *> c.ptr[self.dw],
                            <float *> address(c, self.scratch), self.accumulate or c.accumulate)

"""Forward and the input gradient: the tile and block loops around the gather tile.

Every output pixel is a sum over taps × channels, and what changes is where a tap reads: that is a
lattice of `geometry`. So forward, the input gradient and dense layers are one walk, `gather`.

Weights are read from panels, [group][panel][tap][channel][NR], packed once per run (the input
gradient's have the two channel axes changed over and the taps sorted by phase). A single tap's
weights may be given as they lie: each block of tiles then makes a panel's chunk when it needs it,
and a dense layer of few samples reads along their rows.

Each output adds its terms in the order of the panel, tap by tap and channel by channel. Cutting the
sum into chunks stores and reloads the same partial sums, and a pixel never looks at its neighbours,
so tiles, blocks and threads leave the bits alone, and chunk sizes need no rule but speed.

An input gradient of few channels is `spread` instead: the same tile, turned around. A gather would
fill few lanes, and list a pointer per tap and pixel for them. Here an output pixel brings a row of
the kernel at once, its columns × channels side by side as they are in dx, and adds it there.
"""

from cython.parallel cimport parallel, prange
from libc.string cimport memcpy

from fastconv._native.dispatch cimport (
    f32, f64, fc_epilogue, flush_denormals_on, flush_denormals_restore, real,
)
from fastconv._native.epilogue cimport Epilogue
from fastconv._native.geometry cimport DEPTH, POINTERS, TAPS, ConvGeometry, Gather, Lattice
from fastconv._native.step cimport FMAS, Context, Step, team
from fastconv._native.tiles cimport (
    FAR, LINE, TALLEST, WIDEST, ceil_div, columns_from, dot_mr, dot_nr, dot_tile, fence,
    fetch_pixels, gather_mr, gather_nr, gather_tile, pack_panel, share, sweep_k, sweep_mr,
    sweep_tile,
)

import math

from fastconv._native.step import Extent

cdef enum:
    SOURCES = 1 << 17   # elements that BLOCK tiles read, at most (half the L2 cache),
    FEWEST = 16         # or so many
    PAGE = 4096         # bytes: pixels so far apart are copied before they are read,
    COPIED = 16         # so many tiles
    COPY_DEPTH = 128    # of so many channels at a time,
    PITCH = COPY_DEPTH + 16     # a row of the copy and the next one's are 64 bytes out of step
    ROOM = 8 * TALLEST * PITCH  # doubles for these copies
    ONCE = 256          # channels of a panel that a block of tiles makes for itself
    FEW = 16            # samples of a dense layer that reads its weight along the rows:
    SEGMENT = 1024      # so many columns of it for the output (their sums, a little further apart,
    SWEEP = SEGMENT + 16    # fall into different lines of the L1 cache),
    DOT_ROWS = 32       # so many rows for the input gradient
    FEW_CHANNELS = 8    # of an input gradient that is spread: half a vector, at most

cdef enum Weights:      # a walk finds its weights
    PANELS              # packed,
    ROWS                # as they lie: a row for each channel that is summed over,
    COLUMNS             # or a column; in place only a single tap's

cdef double[DEPTH] zeros    # what a tap reads in the padding; never written


def tile_sizes(bint double=False):
    """The register tiles of the table in use: ``gather_mr``, ``gather_nr``, ``outer_mr``, ..."""
    if double:
        return {"gather_mr": f64.gather_mr, "gather_nr": f64.gather_nr,
                "outer_mr": f64.outer_mr, "outer_nr": f64.outer_nr}
    return {"gather_mr": f32.gather_mr, "gather_nr": f32.gather_nr,
            "outer_mr": f32.outer_mr, "outer_nr": f32.outer_nr}


# ---- the gather: forward, input gradient, dense --------------------------------------------------

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
            pixels.src[k], pixels.dst[k] = src * g.src_stride, dst
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


cdef bint all_inside(const Pixels *pixels, Py_ssize_t first, Py_ssize_t m) noexcept nogil:
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


cdef struct Task:
    # tiles tile0..tile1 of the lattice's pixels, panels panel0..panel1 of one group
    Py_ssize_t pixels, tiles, tile0, tile1, group, panel0, panel1
    Py_ssize_t tap_step, depth_step     # a chunk has at most so many taps and channels
    Weights weights
    bint copied                         # the sources are
    bint streamed                       # the destination is


cdef inline Py_ssize_t hop_of(const Lattice *s, const Task *task, bint inside) noexcept nogil:
    """Taps that a tile reads as one, side by side in memory."""
    return s.run if inside and not task.copied else 1


cdef void gather_panel(const Gather *g, const Lattice *s, const Task *task, const Chunk *chunk,
                       const Pixels *pixels, const real **rows, const real **soon,
                       const bint *inside, const Py_ssize_t *counts, const short *kept,
                       Py_ssize_t panel, const real *w, const fc_epilogue *whole,
                       real *y) noexcept nogil:
    """The tiles of a task through one chunk of one panel."""
    cdef const real *taps[TAPS]
    cdef const real *const *fetched = NULL
    cdef real *ends[TALLEST]
    cdef const real *residuals[TALLEST]
    cdef real[ONCE * WIDEST] made
    cdef Py_ssize_t mr = gather_mr(w), nr = gather_nr(w), stride = nr
    cdef Py_ssize_t column = task.group * g.width + panel * nr
    cdef Py_ssize_t cols = min(nr, g.width - panel * nr), depth = chunk.i1 - chunk.i0
    cdef Py_ssize_t t, r, m, tile, hop, first = share(task.tile0, task.tiles, task.pixels)
    cdef Py_ssize_t length = 0, tiles = task.tile1 - task.tile0
    cdef const real *to_come = NULL     # of the weights, for the next panel: so many rows and
    cdef Py_ssize_t[3] count, step      # how far apart, each of that length
    cdef fc_epilogue e = columns_from(whole, column, w)
    cdef const real *residual = <const real *> e.residual
    cdef Py_ssize_t at = first, all_rows = g.groups * g.width, all_columns = g.groups * g.depth
    if task.weights == PANELS:
        w += ((task.group * ceil_div(g.width, nr) + panel) * g.taps + s.first + chunk.t0) \
            * g.depth * nr + chunk.i0 * nr
    elif s.taps == 0:       # a phase of the stride that no output reaches: zeros
        pass
    elif task.weights == COLUMNS:
        w += panel * nr * all_columns + task.group * g.depth + chunk.i0
        pack_panel(w, 1, all_columns, depth, cols, made)
        to_come, count, step, length = w + nr * all_columns, [1, 1, nr], [0, 0, all_columns], depth
        w = made
    else:
        w += chunk.i0 * all_rows + column
        pack_panel(w, all_rows, 1, depth, cols, made)
        to_come, count, step, length = w + nr, [1, 1, depth], [0, 0, all_rows], nr
        w = made
    for tile in range(task.tile0, task.tile1):
        m = share(tile + 1, task.tiles, task.pixels) - at
        for r in range(m):
            ends[r] = y + pixels.dst[at - first + r] * g.dst_stride + column
        if residual is not NULL:
            for r in range(m):
                residuals[r] = residual + pixels.dst[at - first + r] * e.residual_stride
        hop = hop_of(s, task, inside[tile - task.tile0])
        for t in range(counts[tile - task.tile0]):
            taps[t] = w + kept[t] * hop * g.depth * stride
        if to_come is not NULL and panel + 1 < task.panel1:
            t = tile - task.tile0
            fetch_pixels(count, step, share(t, tiles, count[2]), share(t + 1, tiles, count[2]),
                         length, to_come)
        if panel == task.panel0 and s.taps == 1:    # the others find x in the cache
            fetched = (soon + (tile - task.tile0) * mr if task.copied
                       else rows + mr if tile + 1 < task.tile1 else NULL)
        gather_tile(m, cols, counts[tile - task.tile0], depth * hop, rows, fetched, taps, stride,
                    &e, not chunk.first, chunk.final,
                    residuals if residual is not NULL else NULL, task.streamed, ends)
        rows += mr * counts[tile - task.tile0]
        kept += counts[tile - task.tile0]
        at += m


cdef void copy_sources(Py_ssize_t m, Py_ssize_t depth, const real **rows, const real **soon,
                       real *copy) noexcept nogil:
    """Read from a copy. Where pixels lie a multiple of a memory page apart, all pixels of a tile
    fall into the same lines of the L1 cache and would drive each other out. ``soon`` receives what
    will be copied next."""
    cdef Py_ssize_t r
    for r in range(m):
        soon[r] = rows[r] + depth
        memcpy(copy + r * PITCH, rows[r], depth * sizeof(real))
        rows[r] = copy + r * PITCH


cdef void gather_block(const Gather *g, const Lattice *s, const Task *task, const real *x,
                       const real *w, const fc_epilogue *e, real *y) noexcept nogil:
    """One task: its sum chunk by chunk, panels over tiles within a chunk."""
    cdef const real *rows[POINTERS]
    cdef const real *soon[COPIED * TALLEST]
    cdef double[ROOM] room      # as many bytes for doubles, whose tiles are half as tall
    cdef real *copies = <real *> room
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
            hop = hop_of(s, task, inside[i])
            counts[i] = list_sources(g, s, &pixels, at - first, m, chunk.t0, chunk.t1, hop,
                                     inside[i], x + chunk.i0, rows + place * mr, kept + place)
            if task.copied and counts[i] > 0:
                copy_sources(m, chunk.i1 - chunk.i0, rows + place * mr, soon + i * mr,
                             copies + i * mr * PITCH)
            place += counts[i]
        for panel in range(task.panel0, task.panel1):
            gather_panel(g, s, task, &chunk, &pixels, rows, soon, inside, counts, kept, panel, w,
                         e, y)


cdef inline Py_ssize_t pixels_of(const Py_ssize_t *size) noexcept nogil:
    return size[0] * size[1] * size[2]


cdef void gather(const Context *c, const Gather *g, const Lattice *s, const real *x, const real *w,
                 Weights weights, const fc_epilogue *e, real *y) noexcept nogil:
    """y = Σ taps · x and the epilogue, for the pixels of a lattice, all samples and groups."""
    cdef Task task
    cdef Py_ssize_t i, blocks, slices, panels, block, depth, mr = gather_mr(x)
    cdef unsigned mode = 0
    cdef int threads
    task.pixels = c.n * s.count[0] * s.count[1] * s.count[2]
    if task.pixels == 0:
        return
    if (weights != PANELS and c.n <= FEW and g.groups == 1
            and pixels_of(g.src) * pixels_of(g.dst) == 1):
        few_samples(c, g, x, w, weights, e, y)
        return
    threads = team(c, task.pixels * (s.taps + 1) * g.depth * g.width * g.groups / <double> FMAS)
    task.weights = weights
    task.tiles = ceil_div(task.pixels, mr)
    panels = ceil_div(g.width, gather_nr(x))
    plan_chunks(g, s, &task, sizeof(real))
    task.streamed = (task.pixels * g.dst_stride >= FAR and task.tap_step >= s.taps
                     and task.depth_step >= g.depth and <size_t> y % LINE == 0
                     and g.dst_stride * sizeof(real) % LINE == 0
                     and (g.groups == 1 or g.width * sizeof(real) % LINE == 0))
    depth = task.tap_step * g.depth
    block = COPIED if task.copied else max(FEWEST, min(BLOCK, SOURCES // (mr * depth)))
    block = min(block, POINTERS // (mr * task.tap_step))
    blocks = ceil_div(task.tiles, block)
    # each thread has its share of the blocks; where weights are read in place by a single one, of
    # the panels: each weight is then read once
    if weights == PANELS or panels < threads or blocks > 1:
        blocks = min(task.tiles, ceil_div(blocks, threads) * threads)
    slices = min(panels, ceil_div(threads, blocks))
    if threads == 1:    # a region of one thread costs more than a small layer's products
        for i in range(g.groups * slices * blocks):
            gather_task(g, s, task, i, blocks, slices, panels, x, w, e, y)
        fence(x)
        return
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(g.groups * slices * blocks, schedule="dynamic"):
            gather_task(g, s, task, i, blocks, slices, panels, x, w, e, y)
        fence(x)
        flush_denormals_restore(mode)


cdef void few_samples(const Context *c, const Gather *g, const real *x, const real *w,
                      Weights weights, const fc_epilogue *e, real *y) noexcept nogil:
    """A dense layer's output or input gradient for few samples: as fast as w can be read."""
    cdef Py_ssize_t i, size = SEGMENT if weights == ROWS else DOT_ROWS
    cdef Py_ssize_t tasks = ceil_div(g.width, size)
    cdef unsigned mode = 0
    cdef int threads = team(c, c.n * g.depth * g.width / <double> FMAS)
    if threads == 1:
        for i in range(tasks):
            few_samples_task(g, c.n, i * size, min(g.width, (i + 1) * size), x, w, weights, e, y)
        return
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(tasks, schedule="dynamic"):
            few_samples_task(g, c.n, i * size, min(g.width, (i + 1) * size), x, w, weights, e, y)
        flush_denormals_restore(mode)


cdef inline void few_samples_task(const Gather *g, Py_ssize_t n, Py_ssize_t first, Py_ssize_t last,
                                  const real *x, const real *w, Weights weights,
                                  const fc_epilogue *e, real *y) noexcept nogil:
    if weights == ROWS:
        sweep_block(g, n, first, last, x, w, e, y)
    else:
        dot_block(g, n, first, last, x, w, y)


cdef void touch_up(Py_ssize_t n, Py_ssize_t cols, const fc_epilogue *whole, bint final,
                   real *sums) noexcept nogil:
    """sums = bias, or the rest of the epilogue: tiles whose sums have no more terms."""
    cdef real *ends[1]
    cdef const real *residuals[1]
    cdef fc_epilogue e
    cdef Py_ssize_t nr = gather_nr(sums), sample, panel
    for sample in range(n):
        for panel in range(ceil_div(cols, nr)):
            e = columns_from(whole, panel * nr, sums)
            ends[0] = sums + sample * SWEEP + panel * nr
            if e.residual is not NULL:
                residuals[0] = <const real *> e.residual + sample * e.residual_stride
            gather_tile(1, min(nr, cols - panel * nr), 0, 0, NULL, NULL, NULL, nr, &e, final, final,
                        residuals if e.residual is not NULL else NULL, False, ends)


cdef void sweep_block(const Gather *g, Py_ssize_t n, Py_ssize_t first, Py_ssize_t last,
                      const real *x, const real *w, const fc_epilogue *whole,
                      real *y) noexcept nogil:
    """Columns first.. of the output: some rows of the weight at a time, for all samples.

    The sums lie close together meanwhile; in y they might be a page apart.
    """
    cdef real[FEW * SWEEP] sums
    cdef Py_ssize_t rows = sweep_k(w), tiles = ceil_div(n, sweep_mr(w)), block, i, tile, sample
    cdef fc_epilogue e = columns_from(whole, first, w)
    touch_up(n, last - first, &e, False, sums)
    for block in range(ceil_div(g.depth, rows)):
        i = block * rows
        for tile in range(tiles):
            sample = share(tile, tiles, n)
            sweep_tile(share(tile + 1, tiles, n) - sample, min(rows, g.depth - i), last - first,
                       x + sample * g.src_stride + i, g.src_stride, w + i * g.width + first,
                       g.width, sums + sample * SWEEP, SWEEP)
    if goes_on(whole):
        touch_up(n, last - first, &e, True, sums)
    for sample in range(n):
        memcpy(y + sample * g.dst_stride + first, sums + sample * SWEEP,
               (last - first) * sizeof(real))


cdef void dot_block(const Gather *g, Py_ssize_t n, Py_ssize_t first, Py_ssize_t last,
                    const real *dy, const real *w, real *dx) noexcept nogil:
    """Rows first.. of the weight, a tile's few for all samples while they are in the cache."""
    cdef Py_ssize_t nr = dot_nr(w), tiles = ceil_div(n, dot_mr(w)), row = first, tile, sample
    while row < last:
        for tile in range(tiles):
            sample = share(tile, tiles, n)
            dot_tile(share(tile + 1, tiles, n) - sample, min(nr, last - row), g.depth,
                     dy + sample * g.src_stride, g.src_stride, w + row * g.depth, g.depth,
                     dx + sample * g.dst_stride + row, g.dst_stride)
        row += nr


cdef void plan_chunks(const Gather *g, const Lattice *s, Task *task,
                      Py_ssize_t itemsize) noexcept nogil:
    """As many taps and channels at a time as the caches and the list of pointers allow."""
    task.copied = s.taps > 0 and s.move[2] * g.src_stride * itemsize % PAGE == 0
    task.tap_step = 1 if task.copied else max(1, min(min(s.taps, DEPTH // g.depth), TAPS))
    task.depth_step = COPY_DEPTH if task.copied else DEPTH if task.weights == PANELS else ONCE
    if s.taps == 0:
        task.depth_step = g.depth


cdef void gather_task(const Gather *g, const Lattice *s, Task task, Py_ssize_t i, Py_ssize_t blocks,
                      Py_ssize_t slices, Py_ssize_t panels, const real *x, const real *w,
                      const fc_epilogue *e, real *y) noexcept nogil:
    """Task i of groups × slices of the panels × blocks of tiles."""
    cdef Py_ssize_t block = i % blocks, slice = i // blocks % slices
    task.group = i // (blocks * slices)
    task.tile0, task.tile1 = share(block, blocks, task.tiles), share(block + 1, blocks, task.tiles)
    task.panel0, task.panel1 = share(slice, slices, panels), share(slice + 1, slices, panels)
    gather_block(g, s, &task, x, w, e, y)


# ---- the spread: an input gradient of few channels -----------------------------------------------

cdef struct Spread:
    # (H, W): the output o adds the kernel's row i to row o * stride + i * dilation − pad of dx
    bint used
    Py_ssize_t[2] kernel, stride, pad
    Py_ssize_t dilation


cdef Spread spread_of(ConvGeometry g):
    """Used where few channels lie without gaps, in planes."""
    cdef Spread s
    s.kernel, s.stride, s.dilation = g.kernel[1:], g.strides[1:], g.dilation[1]
    s.pad = [before for before, _ in g.pads[1:]]
    s.used = (g.groups == 1 and g.channels <= FEW_CHANNELS and g.x_stride == g.channels
              and g.in_size[0] == g.out_size[0] == g.kernel[0] == 1 and g.pads[0] == (0, 0)
              and g.kernel[2] > 1 and g.dilation[2] == 1)
    return s


cdef void pack_spread(const Gather *g, const Spread *s, const real *w, real *panel) noexcept nogil:
    """The weights as [kernel row][panel][filter][NR]: columns × channels, which are dx's."""
    cdef Py_ssize_t nr = gather_nr(w), cols = s.kernel[1] * g.width, i, p, size = g.depth * nr
    cdef Py_ssize_t panels = ceil_div(cols, nr)
    for i in range(s.kernel[0]):
        for p in range(panels):
            pack_panel(w + (i * cols + p * nr) * g.depth, 1, g.depth, g.depth,
                       min(nr, cols - p * nr), panel + (i * panels + p) * size)


cdef void spread_row(const Gather *g, const Spread *s, Py_ssize_t m, const real *dy, const real *w,
                     Py_ssize_t pitch, real *dx) noexcept nogil:
    """One row of the kernel for m rows of dy, pixel by pixel; rows of dx lie ``pitch`` apart."""
    cdef const real *rows[TALLEST]
    cdef const real *taps[1]
    cdef real *ends[TALLEST]
    cdef Py_ssize_t nr = gather_nr(w), o, r, left, low, high, panel, first, last
    for o in range(g.src[2]):
        left = o * s.stride[1] - s.pad[1]
        low = max(0, -left) * g.width       # what of the kernel's row lies in the image
        high = min(s.kernel[1], g.dst[2] - left) * g.width
        for panel in range(low // nr, ceil_div(max(0, high), nr)):
            first, last = max(low, panel * nr), min(high, (panel + 1) * nr)
            if first >= last:
                continue
            for r in range(m):
                rows[r] = dy + (r * g.src[2] + o) * g.src_stride
                ends[r] = dx + r * pitch + left * g.width + first
            taps[0] = w + panel * g.depth * nr + first - panel * nr
            gather_tile(m, last - first, 1, g.depth, rows, NULL, taps, nr, NULL, True, False, NULL,
                        False, ends)


cdef void finish_pixels(const Gather *g, Py_ssize_t pixels, const fc_epilogue *whole, bint final,
                        const real *residual, real *dx) noexcept nogil:
    """dx = bias, or the rest of the epilogue: tiles whose sums have no more terms."""
    cdef real *ends[TALLEST]
    cdef const real *residuals[TALLEST]
    cdef fc_epilogue e
    cdef Py_ssize_t mr = gather_mr(dx), nr = gather_nr(dx), tile, column, m, panel, r
    for tile in range(ceil_div(pixels, mr)):
        m = min(mr, pixels - tile * mr)
        for panel in range(ceil_div(g.width, nr)):  # a vector of doubles may be shorter
            column = panel * nr
            e = columns_from(whole, column, dx)
            for r in range(m):
                ends[r] = dx + (tile * mr + r) * g.width + column
                if residual is not NULL:
                    residuals[r] = residual + (tile * mr + r) * e.residual_stride + column
            gather_tile(m, min(nr, g.width - column), 0, 0, NULL, NULL, NULL, nr, &e, final, final,
                        residuals if residual is not NULL else NULL, False, ends)


cdef void spread_band(const Gather *g, const Spread *s, Py_ssize_t low, Py_ssize_t high,
                      const real *dy, const real *w, const fc_epilogue *e, const real *residual,
                      real *dx) noexcept nogil:
    """Rows low..high of one sample's dx: every row of the kernel, from all outputs that it joins
    with the band."""
    cdef Py_ssize_t pitch = g.dst[2] * g.width, i, shift, first, last
    cdef Py_ssize_t size = ceil_div(s.kernel[1] * g.width, gather_nr(w)) * gather_nr(w) * g.depth
    finish_pixels(g, (high - low) * g.dst[2], e, False, <const real *> NULL, dx + low * pitch)
    for i in range(s.kernel[0]):
        shift = i * s.dilation - s.pad[0]
        first = ceil_div(max(0, low - shift), s.stride[0])
        last = min(g.src[1], ceil_div(max(0, high - shift), s.stride[0]))
        if first < last:
            spread_row(g, s, last - first, dy + first * g.src[2] * g.src_stride, w + i * size,
                       s.stride[0] * pitch, dx + (first * s.stride[0] + shift) * pitch)
    if residual is not NULL:
        residual += low * g.dst[2] * e.residual_stride
    if goes_on(e):
        finish_pixels(g, (high - low) * g.dst[2], e, True, residual, dx + low * pitch)


cdef inline void spread_task(const Gather *g, const Spread *s, Py_ssize_t i, Py_ssize_t bands,
                             const real *dy, const real *w, const fc_epilogue *e,
                             real *dx) noexcept nogil:
    """Band i % bands of sample i // bands."""
    cdef Py_ssize_t rows = g.dst[1], pixels = rows * g.dst[2], sample = i // bands
    cdef const real *residual = NULL
    if e.residual is not NULL:
        residual = <const real *> e.residual + sample * pixels * e.residual_stride
    spread_band(g, s, share(i % bands, bands, rows), share(i % bands + 1, bands, rows),
                dy + sample * g.src[1] * g.src[2] * g.src_stride, w, e, residual,
                dx + sample * pixels * g.width)


cdef void spread(const Context *c, const Gather *g, const Spread *s, const real *dy, const real *w,
                 const fc_epilogue *e, real *dx) noexcept nogil:
    """dx = Σ dy · w and the epilogue, in bands of rows that meet a tile's height of outputs.

    Each element adds by row of the kernel, then by output from left to right, whatever the bands.
    """
    cdef Py_ssize_t bands = ceil_div(g.dst[1], gather_mr(w) * s.stride[0]), i
    cdef unsigned mode = 0
    cdef double work = g.src[1] * g.src[2] * s.kernel[0] * s.kernel[1] * g.width * g.depth
    cdef int threads = team(c, c.n * work / FMAS)
    if threads == 1:
        for i in range(c.n * bands):
            spread_task(g, s, i, bands, dy, w, e, dx)
        return
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(c.n * bands, schedule="static"):
            spread_task(g, s, i, bands, dy, w, e, dx)
        flush_denormals_restore(mode)


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
    cdef int threads = team(c, 1.0 * tasks * g.depth * gather_nr(w))
    if threads == 1:
        for i in range(tasks):
            pack_task(g, order, i, w, panel)
        return
    for i in prange(tasks, num_threads=threads, schedule="static"):
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
    cdef Spread spread
    cdef Py_ssize_t weight, panel

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t weight, Py_ssize_t panel):
        self.geometry, self.weight, self.panel = geometry, weight, panel
        self.spread = spread_of(geometry)
        self.reads = (Extent(weight, 0, geometry.weight_size),)
        self.writes = (Extent(panel, 0, geometry.backward_panel_size),)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.backward
        cdef const Py_ssize_t *order = self.geometry.order
        cdef const Spread *s = &self.spread
        if s.used and c.f64:
            pack_spread(g, s, <const double *> c.ptr[self.weight], <double *> c.ptr[self.panel])
        elif s.used:
            pack_spread(g, s, <const float *> c.ptr[self.weight], <float *> c.ptr[self.panel])
        elif c.f64:
            pack(c, g, order, <const double *> c.ptr[self.weight], <double *> c.ptr[self.panel])
        else:
            pack(c, g, order, <const float *> c.ptr[self.weight], <float *> c.ptr[self.panel])


# ---- forward and input gradient ------------------------------------------------------------------


cdef _check_packed(ConvGeometry geometry, bint packed):
    if not packed and geometry.forward.taps > 1:
        raise ValueError("packed=False is for kernels of one tap")


cdef class ConvForward(Step):
    """y = x ∗ weight and the epilogue: each output sums the inputs under its window.

    Parameters
    ----------
    geometry : ConvGeometry
    x, y : slot
        (N, D, H, W, IC) and (N, OD, OH, OW, OC), with the geometry's pixel strides.
    panel : slot
        Written by `PackForward`; the weights themselves where ``packed`` is false.
    packed : bool
        False reads the weights in place; only a kernel of a single tap can.
    bias, activation, norm, residual, residual_stride
        Of `epilogue.Epilogue`.
    """

    algorithm = "direct"
    cdef ConvGeometry geometry
    cdef Py_ssize_t x, panel, y
    cdef Epilogue epilogue
    cdef bint packed

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t x, Py_ssize_t panel,
                 Py_ssize_t y, bint packed=True, **epilogue):
        _check_packed(geometry, packed)
        self.geometry, self.x, self.panel, self.y = geometry, x, panel, y
        self.packed = packed
        self.epilogue = Epilogue(math.prod(geometry.out_size), geometry.filters, y, **epilogue)
        size = geometry.forward_panel_size if packed else geometry.weight_size
        self.reads = (geometry.x_extent(x), Extent(panel, 0, size), *self.epilogue.reads)
        self.writes = (geometry.y_extent(y),)

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.forward
        cdef const Lattice *s = &self.geometry.outputs
        cdef Weights weights = PANELS if self.packed else ROWS
        cdef fc_epilogue e = self.epilogue.bound(c)
        if c.f64:
            gather(c, g, s, <const double *> c.ptr[self.x], <const double *> c.ptr[self.panel],
                   weights, &e, <double *> c.ptr[self.y])
        else:
            gather(c, g, s, <const float *> c.ptr[self.x], <const float *> c.ptr[self.panel],
                   weights, &e, <float *> c.ptr[self.y])


cdef class ConvInputGradient(Step):
    """dx: each input pixel receives from every output whose window covered it; overwritten.

    Parameters
    ----------
    geometry : ConvGeometry
    dy, dx : slot
        (N, OD, OH, OW, OC) and (N, D, H, W, IC), with the geometry's pixel strides.
    panel : slot
        Written by `PackBackward`; the weights themselves where ``packed`` is false.
    packed : bool
        False reads the weights in place; only a kernel of a single tap can, without an epilogue.
    bias, activation, norm, residual, residual_stride
        Of `epilogue.Epilogue`.
    """

    algorithm = "direct"
    cdef ConvGeometry geometry
    cdef Spread spread
    cdef Py_ssize_t dy, panel, dx
    cdef Epilogue epilogue
    cdef bint packed

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t dy, Py_ssize_t panel,
                 Py_ssize_t dx, bint packed=True, **epilogue):
        _check_packed(geometry, packed)
        self.geometry, self.dy, self.panel, self.dx = geometry, dy, panel, dx
        self.packed = packed
        self.epilogue = Epilogue(math.prod(geometry.in_size), geometry.channels, dx, **epilogue)
        self.spread = spread_of(geometry)
        size = geometry.backward_panel_size if packed else geometry.weight_size
        self.reads = (geometry.y_extent(dy), Extent(panel, 0, size), *self.epilogue.reads)
        self.writes = (geometry.x_extent(dx),)

    def flops(self, n):
        return self.geometry.flops(n)

    cdef void run(self, Context *c) noexcept nogil:
        cdef const Gather *g = &self.geometry.backward
        cdef Weights weights = PANELS if self.packed else COLUMNS
        cdef const Spread *s = &self.spread
        cdef fc_epilogue e = self.epilogue.bound(c)
        cdef Py_ssize_t p
        if s.used and c.f64:
            spread(c, g, s, <const double *> c.ptr[self.dy], <const double *> c.ptr[self.panel],
                   &e, <double *> c.ptr[self.dx])
            return
        if s.used:
            spread(c, g, s, <const float *> c.ptr[self.dy], <const float *> c.ptr[self.panel],
                   &e, <float *> c.ptr[self.dx])
            return
        for p in range(self.geometry.phase_count):
            if c.f64:
                gather(c, g, &self.geometry.phases[p], <const double *> c.ptr[self.dy],
                       <const double *> c.ptr[self.panel], weights, &e,
                       <double *> c.ptr[self.dx])
            else:
                gather(c, g, &self.geometry.phases[p], <const float *> c.ptr[self.dy],
                       <const float *> c.ptr[self.panel], weights, &e, <float *> c.ptr[self.dx])

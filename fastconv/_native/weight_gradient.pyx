"""The gradients of a convolution's weight and bias: sums over the batch and the pixels of y.

Each weight's gradient is the sum over the outputs it touched of x · dy, an outer product of two
channel vectors per pixel. Samples are cut into pieces, a function of shape and batch size only;
each piece fills its own copy of dw and the copies are added in order. Within a piece every weight
adds its terms in the order in which the pixels are walked.

Letters: N samples, D H W space, IC input channels and OC output channels; taps = KD · KH · KW.
"""

from cython.parallel cimport parallel, prange

from fastconv._native.dispatch cimport flush_denormals_on, flush_denormals_restore, fc_walk, real
from fastconv._native.geometry cimport WALK, ConvGeometry, Outer, Rectangle
from fastconv._native.step cimport FMAS, Context, Step, team
from fastconv._native.tiles cimport (
    FAR, LINE, address, ceil_div, fence, outer_mr, outer_nr, outer_tile, outer_tile_ahead,
    pack_pixels, share,
)

from fastconv._native.step import Extent

cdef enum:
    SLAB = 4096         # elements of one task when pieces are added
    STREAMED = 32       # samples of a dense layer whose dw is written row by row, at most
    COPIED = 224        # pixels that are copied at a time, of
    TILES = 10          # tiles of x and
    PANELS = 8          # panels of dy,
    COPY = 9 << 11      # doubles that hold either: a tile has at most 64 bytes a pixel, a panel 128


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
                            const real *dy, const real *const *next, Py_ssize_t lines,
                            real *dw, Py_ssize_t stride, bint accumulate) noexcept nogil:
    """dw[:m, :n] (+)= Σ x · dy over a box."""
    cdef Py_ssize_t i
    if box.empty and accumulate:
        return
    for i in range(box.count):
        outer_tile_ahead(m, n, &box.walk, x + box.x + i * box.x_step,
                         dy + box.dy + i * box.dy_step, next, lines, dw, stride,
                         accumulate or i > 0, False)


cdef Py_ssize_t list_lines(const Box *box, const Py_ssize_t *step, Py_ssize_t i, Py_ssize_t parts,
                           Py_ssize_t cols, const real *source, Py_ssize_t place,
                           const real **lines) noexcept nogil:
    """Part i of the lines that hold so many channels of a box's pixels (of its first walk), from
    lines[place] on, as many as there is room for; returns where they end."""
    cdef Py_ssize_t p = share(i, parts, pixels_of(box)), end = share(i + 1, parts, pixels_of(box))
    cdef Py_ssize_t rows = box.walk.count[1], columns = box.walk.count[2], row, column, last, k, _
    cdef Py_ssize_t length = ceil_div(cols * sizeof(real), LINE)
    cdef const real *pixel
    while p < end:
        row, column = p // columns, p % columns
        pixel = source + row // rows * step[0] + row % rows * step[1] + column * step[2]
        last = min(end, p + columns - column)
        for _ in range(p, last):
            for k in range(min(length, WALK - place)):
                lines[place] = pixel + k * (LINE // <Py_ssize_t> sizeof(real))
                place += 1
            pixel += step[2]
        p = last
    return place


cdef struct Soon:
    # what a tap of its own reads next, fetched tile by tile: dy of the panel that follows, and of
    # the chunk that follows the x of all tiles, of which this span's are first.. of so many
    const Box *x
    const Box *dy
    Py_ssize_t column, cols, first, units


cdef struct Span:
    # taps tap.. side by side in x, a panel of one group; their rows fall into tiles
    Py_ssize_t tap, taps, tiles, group, column, cols


cdef void outer_span(const Outer *o, const Rectangle *seen, const Span *s, Py_ssize_t tile0,
                     Py_ssize_t tile1, const Py_ssize_t *low, const Py_ssize_t *high,
                     const Soon *soon, const real *x, const real *dy, real *dw,
                     bint accumulate) noexcept nogil:
    """Tiles tile0.. of a span over the pixels low..high (samples, D, H, W) of y.

    First the columns of y where all taps of the span lie inside the image, then what single taps
    see to the left and to the right of these.
    """
    cdef Py_ssize_t t, tile, row, end, stride = o.groups * o.width, rows = o.depth * s.taps
    cdef Py_ssize_t first = seen[s.tap].first[2], last = seen[s.tap].last[2]
    cdef const real *lines[WALK]
    cdef const real *all_dy = dy
    cdef Py_ssize_t place = 0
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
        if soon is not NULL:
            place = list_lines(soon.dy, soon.dy.walk.dy_step, tile - tile0, tile1 - tile0,
                               soon.cols, all_dy + soon.dy.dy + soon.column, 0, lines)
            place = list_lines(soon.x, soon.x.walk.x_step, soon.first + tile - tile0, soon.units,
                               o.depth, x + soon.x.x, place, lines)
        outer_rows(&box, end - row, s.cols, x + row, dy, lines, place, dw + row * stride,
                   stride, accumulate)
        row = end
    if s.taps == 1:
        return
    for t in range(s.taps):
        row = max(share(tile0, s.tiles, rows), t * o.depth)
        end = min(share(tile1, s.tiles, rows), (t + 1) * o.depth)
        if row < end:
            box = outer_box(o, &seen[s.tap], low, high, seen[s.tap + t].first[2],
                            min(first, seen[s.tap + t].last[2]))
            outer_rows(&box, end - row, s.cols, x + row, dy, lines, 0, dw + row * stride,
                       stride, True)
            box = outer_box(o, &seen[s.tap], low, high, max(last, seen[s.tap + t].first[2]),
                            seen[s.tap + t].last[2])
            outer_rows(&box, end - row, s.cols, x + row, dy, lines, 0, dw + row * stride,
                       stride, True)


cdef inline Py_ssize_t span_taps(const Outer *o, const real *x) noexcept nogil:
    """Taps side by side in memory make one taller tile where channels are few."""
    return o.span if 2 * o.depth <= outer_mr(x) else 1


cdef inline Py_ssize_t outer_units(const Outer *o, const real *x) noexcept nogil:
    """Register tiles of dw."""
    cdef Py_ssize_t taps = span_taps(o, x)
    return (o.groups * (o.taps // taps) * ceil_div(o.depth * taps, outer_mr(x))
            * ceil_div(o.width, outer_nr(x)))


cdef void outer_chunk(const Outer *o, const Rectangle *seen, Py_ssize_t unit0, Py_ssize_t unit1,
                      const Py_ssize_t *low, const Py_ssize_t *high, const Box *here,
                      const Box *next, const real *x, const real *dy, real *dw,
                      bint accumulate) noexcept nogil:
    """Units unit0.. (groups × panels × spans × tiles) over the pixels low..high of y.

    A single tap reads every pixel but once per tile and panel: memory would keep it waiting. So
    what it sees, ``here`` and then ``next``, is fetched beforehand.
    """
    cdef Py_ssize_t nr = outer_nr(x), panels = ceil_div(o.width, nr), unit = unit0
    cdef Py_ssize_t spans, tile, end, i, panel
    cdef Span s
    cdef Soon soon
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
        soon.first, soon.units, soon.x = unit - unit0, unit1 - unit0, next
        i, soon.dy = (i + 1, here) if unit + end - tile < unit1 else (unit0 // s.tiles, next)
        panel = i // spans % panels * nr
        soon.cols, soon.column = min(nr, o.width - panel), i // (spans * panels) * o.width + panel
        outer_span(o, seen, &s, tile, end, low, high, &soon if o.taps == 1 else NULL, x, dy, dw,
                   accumulate)
        unit += end - tile


cdef Cut cut_pixels(const Outer *o, Py_ssize_t samples, Py_ssize_t room) noexcept nogil:
    """Chunks of at most ``room`` pixels, whole rows, planes and samples where these fit."""
    cdef Cut cut
    cdef Py_ssize_t i
    cut.extent, cut.chunks = [samples, o.out[0], o.out[1], o.out[2]], 1
    for i in range(3, -1, -1):
        cut.parts[i] = ceil_div(cut.extent[i], max(1, room))
        room = room // cut.extent[i]
        cut.chunks *= cut.parts[i]
    return cut


cdef void chunk_corners(const Cut *cut, Py_ssize_t chunk, Py_ssize_t sample, Py_ssize_t *low,
                        Py_ssize_t *high) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(3, -1, -1):
        low[i] = share(chunk % cut.parts[i], cut.parts[i], cut.extent[i])
        high[i] = share(chunk % cut.parts[i] + 1, cut.parts[i], cut.extent[i])
        chunk = chunk // cut.parts[i]
    low[0] += sample
    high[0] += sample


cdef Box chunk_box(const Outer *o, const Rectangle *tap, const Cut *cut, Py_ssize_t chunk,
                   Py_ssize_t sample) noexcept nogil:
    """What a tap sees of a chunk."""
    cdef Py_ssize_t[4] low, high
    chunk_corners(cut, chunk, sample, low, high)
    return outer_box(o, tap, low, high, max(low[3], tap.first[2]), min(high[3], tap.last[2]))


cdef void outer_block(const Outer *o, const Rectangle *seen, Py_ssize_t unit0, Py_ssize_t unit1,
                      Py_ssize_t sample0, Py_ssize_t sample1, const real *x, const real *dy,
                      real *dw, bint accumulate) noexcept nogil:
    """Units unit0.. over some samples, chunk by chunk of pixels.

    A chunk's slice of dy, one panel wide, stays in the L2 cache while all taps pass over it.
    """
    cdef Cut cut = cut_pixels(o, sample1 - sample0, o.walk)
    cdef Py_ssize_t[4] low, high
    cdef Py_ssize_t k
    cdef Box here, next = chunk_box(o, seen, &cut, 0, sample0)
    for k in range(cut.chunks):
        chunk_corners(&cut, k, sample0, low, high)
        here, next = next, chunk_box(o, seen, &cut, min(k + 1, cut.chunks - 1), sample0)
        outer_chunk(o, seen, unit0, unit1, low, high, &here, &next, x, dy, dw,
                    accumulate or k > 0)


# Where the pixels that a tap reads lie far apart, x and dy are copied first: a block of tiles of
# the one and a block of panels of the other, pixel after pixel.

cdef bint is_copied(const Outer *o, const real *x) noexcept nogil:
    """Copies pay where each is used often enough."""
    return (o.scattered and o.depth >= 2 * outer_mr(x) and o.width >= 2 * outer_nr(x))


cdef Py_ssize_t copy_box(const Box *box, const Py_ssize_t *step, Py_ssize_t outer_step,
                         Py_ssize_t cols, Py_ssize_t width, Py_ssize_t pitch, const real *source,
                         real *copy) noexcept nogil:
    """The channels of the pixels of a box, ``width`` by ``width``; returns how many pixels."""
    cdef Py_ssize_t i, pixels = box.walk.count[0] * box.walk.count[1] * box.walk.count[2]
    for i in range(box.count):
        pack_pixels(box.walk.count, step, cols, width, pitch, source + i * outer_step,
                    copy + i * pixels * pitch, box.count * pixels * pitch)
    return box.count * pixels


cdef void copied_chunk(const Outer *o, const Block *b, const Box *box, const Box *next,
                       const real *x, const real *dy, real *dw, bint accumulate) noexcept nogil:
    """A block of dw over the pixels of a box; fetches those of the next one meanwhile."""
    cdef double[COPY] x_room
    cdef double[2 * COPY] dy_room
    cdef const real *lines[WALK]
    cdef real *xs = <real *> x_room
    cdef real *dys = <real *> dy_room
    cdef Py_ssize_t mr = outer_mr(x), nr = outer_nr(x), stride = o.groups * o.width
    cdef Py_ssize_t pitch = ceil_div(mr, nr // 2) * (nr // 2), i, tile, panel, pixels, place
    cdef Py_ssize_t row = b.tile0 * mr, rows = min(o.depth, b.tile1 * mr) - row
    cdef Py_ssize_t column = b.panel0 * nr, cols = min(o.width, b.panel1 * nr) - column
    cdef Py_ssize_t tiles = ceil_div(rows, mr), units = tiles * ceil_div(cols, nr)
    cdef fc_walk walk
    x += b.group * o.depth + row
    dy += b.group * o.width + column
    dw += (b.tap * o.depth + row) * stride + b.group * o.width + column
    pixels = copy_box(box, box.walk.x_step, box.x_step, rows, mr, pitch, x + box.x, xs)
    copy_box(box, box.walk.dy_step, box.dy_step, cols, nr, nr, dy + box.dy, dys)
    walk.count, walk.x_step, walk.dy_step = [1, 1, pixels], [0, 0, pitch], [0, 0, nr]
    for i in range(units):
        panel, tile = i // tiles, i % tiles
        place = list_lines(next, next.walk.x_step, i, units, rows, x + next.x, 0, lines)
        place = list_lines(next, next.walk.dy_step, i, units, cols, dy + next.dy, place, lines)
        outer_tile_ahead(min(mr, rows - tile * mr), min(nr, cols - panel * nr), &walk,
                         xs + tile * pixels * pitch, dys + panel * pixels * nr, lines, place,
                         dw + tile * mr * stride + panel * nr, stride, accumulate, False)


cdef void copied_block(const Outer *o, const Rectangle *seen, const Block *b,
                       Py_ssize_t sample0, Py_ssize_t sample1, const real *x, const real *dy,
                       real *dw, bint accumulate) noexcept nogil:
    """A block of dw over some samples, chunk by chunk of pixels."""
    cdef Cut cut = cut_pixels(o, sample1 - sample0, COPIED)
    cdef Py_ssize_t k
    cdef Box box, next = chunk_box(o, &seen[b.tap], &cut, 0, sample0)
    for k in range(cut.chunks):
        box = next
        next = chunk_box(o, &seen[b.tap], &cut, min(k + 1, cut.chunks - 1), sample0)
        if not box.empty or k == 0:     # the first writes zeros
            copied_chunk(o, b, &box, &next, x, dy, dw, accumulate or k > 0)


cdef Py_ssize_t copied_blocks(const Outer *o, Py_ssize_t height, Py_ssize_t width,
                              Py_ssize_t wanted, const real *x, Py_ssize_t *rows,
                              Py_ssize_t *cols) noexcept nogil:
    """Blocks of dw of at most height × width tiles; smaller ones until there are ``wanted``."""
    cdef Py_ssize_t tiles = ceil_div(o.depth, outer_mr(x)), panels = ceil_div(o.width, outer_nr(x))
    rows[0], cols[0] = ceil_div(tiles, height), ceil_div(panels, width)
    while rows[0] * cols[0] * o.groups * o.taps < wanted:
        if rows[0] < tiles and rows[0] * panels <= cols[0] * tiles:
            rows[0] = min(tiles, 2 * rows[0])
        elif cols[0] < panels:
            cols[0] = min(panels, 2 * cols[0])
        else:
            break
    return rows[0] * cols[0] * o.groups * o.taps


cdef Block block_at(const Outer *o, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t cols,
                    const real *x) noexcept nogil:
    """Block i of groups × taps × rows × columns of blocks."""
    cdef Py_ssize_t tiles = ceil_div(o.depth, outer_mr(x)), panels = ceil_div(o.width, outer_nr(x))
    cdef Block b
    b.panel0, b.panel1 = share(i % cols, cols, panels), share(i % cols + 1, cols, panels)
    i = i // cols
    b.tile0, b.tile1 = share(i % rows, rows, tiles), share(i % rows + 1, rows, tiles)
    b.tap, b.group = i // rows % o.taps, i // rows // o.taps
    return b


cdef void copied_task(const Outer *o, const Rectangle *seen, Py_ssize_t i, Py_ssize_t rows,
                      Py_ssize_t cols, Py_ssize_t sample0, Py_ssize_t sample1, const real *x,
                      const real *dy, real *dw, bint accumulate) noexcept nogil:
    cdef Block b = block_at(o, i, rows, cols, x)
    copied_block(o, seen, &b, sample0, sample1, x, dy, dw, accumulate)


cdef void streamed_rows(const Outer *o, Py_ssize_t tile, Py_ssize_t tiles, Py_ssize_t n,
                        const real *x, const real *dy, real *dw) noexcept nogil:
    """A tile's rows of a dense dw for few samples, from the left to the right."""
    cdef Py_ssize_t row = share(tile, tiles, o.depth), end = share(tile + 1, tiles, o.depth)
    cdef Py_ssize_t panel, nr = outer_nr(x)
    cdef fc_walk walk
    walk.count, walk.x_step, walk.dy_step = [1, 1, n], [0, 0, o.x_step[0]], [0, 0, o.dy_step[0]]
    for panel in range(ceil_div(o.width, nr)):
        outer_tile(end - row, min(nr, o.width - panel * nr), &walk, x + row, dy + panel * nr,
                   dw + row * o.width + panel * nr, o.width, False, True)


cdef bint is_streamed(const Outer *o, Py_ssize_t pixels, const real *dw,
                      bint accumulate) noexcept nogil:
    """Dense, few samples: writing dw is all the work. Whole lines pass by the caches."""
    return (o.taps == 1 and o.groups == 1 and o.out[0] * o.out[1] * o.out[2] == 1
            and pixels <= STREAMED and o.depth * o.width >= FAR and not accumulate
            and <size_t> dw % LINE == 0 and o.width * sizeof(real) % LINE == 0)


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
    cdef int threads = team(c, 1.0 * pieces * size)
    if threads == 1:
        add_slab(copies, pieces, size, 0, size, total, accumulate)
        return
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(ceil_div(size, SLAB), schedule="static"):
            add_slab(copies, pieces, size, i * SLAB, min(size, (i + 1) * SLAB), total, accumulate)
        flush_denormals_restore(mode)


cdef void weight_gradient(const Context *c, const Outer *o, const Rectangle *seen,
                          Py_ssize_t pieces, const real *x, const real *dy, real *dw,
                          real *scratch, bint accumulate) noexcept nogil:
    """dw (+)= Σ over the batch and the pixels of y of x · dy."""
    cdef Py_ssize_t size = o.taps * o.depth * o.groups * o.width, i
    cdef Py_ssize_t pixels = c.n * o.out[0] * o.out[1] * o.out[2]
    cdef Py_ssize_t rows = 0, cols = 0, units = outer_units(o, x), slices, piece, sample0, sample1
    cdef bint direct = pieces == 1      # one piece needs no copy
    cdef bint copied = is_copied(o, x), streamed = is_streamed(o, pixels, dw, accumulate)
    cdef unsigned mode = 0
    cdef real *total
    cdef int threads = team(c, pixels * size / <double> FMAS)
    slices = ceil_div(4 * threads, pieces)
    if copied:
        slices = copied_blocks(o, TILES, PANELS, slices, x, &rows, &cols)
    else:
        slices = min(units, slices)
    if streamed:
        slices = ceil_div(o.depth, outer_mr(x))
    if threads == 1 and not (copied or streamed):   # a region of one thread costs time
        for i in range(pieces * slices):
            piece = i // slices
            outer_block(o, seen, share(i % slices, slices, units),
                        share(i % slices + 1, slices, units), share(piece, pieces, c.n),
                        share(piece + 1, pieces, c.n), x, dy,
                        dw if direct else scratch + piece * size, accumulate and direct)
        if not direct:
            add_pieces(c, scratch, pieces, size, dw, accumulate)
        return
    with parallel(num_threads=threads):
        mode = flush_denormals_on()
        for i in prange(pieces * slices, schedule="dynamic"):
            piece = i // slices
            sample0, sample1 = share(piece, pieces, c.n), share(piece + 1, pieces, c.n)
            total = dw if direct else scratch + piece * size
            if streamed:
                streamed_rows(o, i, slices, c.n, x, dy, dw)
            elif copied:
                copied_task(o, seen, i % slices, rows, cols, sample0, sample1, x, dy, total,
                            accumulate and direct)
            else:
                outer_block(o, seen, share(i % slices, slices, units),
                            share(i % slices + 1, slices, units), sample0, sample1, x, dy, total,
                            accumulate and direct)
        fence(x)
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
    passing : bool
        dw is no parameter's gradient but a value of the pass: always overwritten.
    """

    algorithm = "direct"
    cdef ConvGeometry geometry
    cdef Py_ssize_t x, dy, dw, scratch
    cdef bint accumulate, passing

    def __init__(self, ConvGeometry geometry not None, *, Py_ssize_t x, Py_ssize_t dy,
                 Py_ssize_t dw, Py_ssize_t scratch=-1, bint accumulate=False,
                 bint passing=False):
        self.geometry, self.x, self.dy, self.dw, self.scratch = geometry, x, dy, dw, scratch
        self.accumulate, self.passing = accumulate, passing
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
        cdef bint accumulate = not self.passing and (self.accumulate or c.accumulate)
        if c.f64:
            weight_gradient(c, o, seen, pieces, <const double *> c.ptr[self.x],
                            <const double *> c.ptr[self.dy], <double *> c.ptr[self.dw],
                            <double *> address(c, self.scratch), accumulate)
        else:
            weight_gradient(c, o, seen, pieces, <const float *> c.ptr[self.x],
                            <const float *> c.ptr[self.dy], <float *> c.ptr[self.dw],
                            <float *> address(c, self.scratch), accumulate)

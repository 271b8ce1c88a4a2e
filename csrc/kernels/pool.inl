/* Max and average pooling over windows in three dimensions, and over whole images.
 *
 * The backward kernels gather: every input pixel sums over the windows that cover it, so dx is
 * written once, overlap loses nothing, and rows are free of races. A window's *tap* is its pixel's
 * number (td · KH + th) · KW + tw; forward notes the winning tap in one byte beside y's
 * four, in two where a window has more than 256 pixels. */

typedef uint16_t shortvec __attribute__((vector_size(VLEN * sizeof(uint16_t))));

/* n ≤ VLEN ≤ 16 winning taps, a tail in steps of known size; bytes by way
 * of 16 bits, as compilers know a vector conversion to twice the size */
#define TAPS(TYPE, NAME)                                                                           \
    typedef TYPE NAME##_vec __attribute__((vector_size(VLEN * sizeof(TYPE))));                     \
    INLINE ivec load_##NAME(const TYPE *p, ptrdiff_t n)                                            \
    {                                                                                              \
        TYPE lane[16] = {0};                                                                       \
        NAME##_vec taps;                                                                           \
        if (n == VLEN)                                                                             \
            __builtin_memcpy(lane, p, sizeof taps);                                                \
        else                                                                                       \
            for (ptrdiff_t size = 8, at = 0; size; size /= 2)                                      \
                if (n & size) {                                                                    \
                    __builtin_memcpy(lane + at, p + at, (size_t)size * sizeof *p);                 \
                    at += size;                                                                    \
                }                                                                                  \
        __builtin_memcpy(&taps, lane, sizeof taps);                                                \
        return __builtin_convertvector(__builtin_convertvector(taps, shortvec), ivec);             \
    }                                                                                              \
    INLINE void store_##NAME(TYPE *p, vec a, ptrdiff_t n)                                          \
    {                                                                                              \
        const NAME##_vec taps = __builtin_convertvector(                                           \
            __builtin_convertvector(__builtin_convertvector(a, ivec), shortvec), NAME##_vec);      \
        TYPE lane[16] = {0};                                                                       \
        __builtin_memcpy(lane, &taps, sizeof taps);                                                \
        if (n == VLEN)                                                                             \
            __builtin_memcpy(p, lane, sizeof taps);                                                \
        else                                                                                       \
            for (ptrdiff_t size = 8, at = 0; size; size /= 2)                                      \
                if (n & size) {                                                                    \
                    __builtin_memcpy(p + at, lane + at, (size_t)size * sizeof *p);                 \
                    at += size;                                                                    \
                }                                                                                  \
    }

TAPS(uint8_t, taps8)
TAPS(uint16_t, taps16)
#undef TAPS

/* The winning taps of a tensor, one for each output; p NULL: there are none. */
typedef struct {
    void *p;
    int bytes;
} winners;

INLINE ivec load_taps(winners index, ptrdiff_t at, ptrdiff_t n)
{
    return index.bytes == 1 ? load_taps8((const uint8_t *)index.p + at, n)
                            : load_taps16((const uint16_t *)index.p + at, n);
}

/* a where the winner is `tap`, else 0 */
INLINE vec where_won(ivec winner, ptrdiff_t tap, vec a)
{
    return (vec)((ivec)a & (winner == (ivec){0} + (int)tap));
}

INLINE void store_taps(winners index, ptrdiff_t at, vec a, ptrdiff_t n)
{
    if (index.bytes == 1)
        store_taps8((uint8_t *)index.p + at, a, n);
    else
        store_taps16((uint16_t *)index.p + at, a, n);
}

/* Where row `row` of (sample, D, H) of a tensor lies. */
typedef struct {
    ptrdiff_t sample, d, h;
} pool_row;

INLINE pool_row pool_row_of(ptrdiff_t row, const ptrdiff_t *size)
{
    return (pool_row){row / (size[0] * size[1]), row / size[1] % size[0], row % size[1]};
}

/* What of the window at output position o lies inside the image: taps lo..hi of one dimension. */
typedef struct {
    ptrdiff_t lo, hi;
} span;

INLINE span taps_inside(const fc_window *g, int dim, ptrdiff_t o)
{
    const ptrdiff_t start = o * g->stride[dim] - g->pad[dim], left = g->in[dim] - start;
    return (span){start < 0 ? -start : 0, left < g->window[dim] ? left : g->window[dim]};
}

/* A division of a ≥ 0; nearly always by one or two. */
INLINE ptrdiff_t quotient(ptrdiff_t a, ptrdiff_t b) { return b == 1 ? a : b == 2 ? a >> 1 : a / b; }

/* The windows lo..hi of one dimension that cover input position i. */
INLINE span windows_over(const fc_window *g, int dim, ptrdiff_t i)
{
    const ptrdiff_t at = i + g->pad[dim], s = g->stride[dim], before = at - g->window[dim];
    const ptrdiff_t last = quotient(at, s) + 1;
    return (span){before < 0 ? 0 : quotient(before, s) + 1,
                  last < g->out[dim] ? last : g->out[dim]};
}

/* n channels of one output pixel; x is the address of tap (0, 0, 0) as an offset into image. */
INLINE void max_pool_lanes(const fc_window *g, span d, span h, span w, const real *image,
                           ptrdiff_t x, ptrdiff_t x_stride, ptrdiff_t n, real *y, winners index,
                           ptrdiff_t at)
{
    vec best = v_set1(-INFINITY);
    vec winner = v_set1((real)((d.lo * g->window[1] + h.lo) * g->window[2] + w.lo));
    for (ptrdiff_t td = d.lo; td < d.hi; td++)
        for (ptrdiff_t th = h.lo; th < h.hi; th++) {
            const ptrdiff_t line = (td * g->in[1] + th) * g->in[2];
            const ptrdiff_t tap = (td * g->window[1] + th) * g->window[2];
            for (ptrdiff_t tw = w.lo; tw < w.hi; tw++) {
                const vec a = load_part(image + x + (line + tw) * x_stride, n);
                const mask better = v_or(v_gt(a, best), v_nan(a));
                best = v_select(better, a, best);
                if (index.p)
                    winner = v_select(better, v_set1((real)(tap + tw)), winner);
            }
        }
    store_part(y, best, n);
    if (index.p)
        store_taps(index, at, winner, n);
}

INLINE void max_pool_pixel(const fc_window *g, span d, span h, span w, ptrdiff_t channels,
                           const real *image, ptrdiff_t x, ptrdiff_t x_stride, real *y,
                           winners index, ptrdiff_t at)
{
    ptrdiff_t c = 0;
    for (; c + VLEN <= channels; c += VLEN)
        max_pool_lanes(g, d, h, w, image, x + c, x_stride, VLEN, y + c, index, at + c);
    if (c < channels)
        max_pool_lanes(g, d, h, w, image, x + c, x_stride, channels - c, y + c, index, at + c);
}

/* n for a window 1 × n × n that lies in the image with all its pixels, 0 for any other one: the
 * common windows are forms that the compiler knows. */
INLINE ptrdiff_t whole_square(const fc_window *g, span h, span w)
{
    const ptrdiff_t n = g->window[0] == 1 && g->window[1] == g->window[2] ? g->window[1] : 0;
    return h.hi - h.lo == n && w.hi - w.lo == n ? n : 0;
}

/* Fetches a pixel's share of what the next row of outputs will read: while maxima are sought, memory
 * works. Its first new row lies below this window's. */
INLINE void fetch_below(const fc_window *g, ptrdiff_t channels, const real *x, ptrdiff_t x_stride)
{
    for (ptrdiff_t i = 0; i < g->stride[1]; i++)
        for (ptrdiff_t j = 0; j < g->stride[2]; j++) {
            const real *pixel = x + ((g->window[1] + i) * g->in[2] + j) * x_stride;
            for (ptrdiff_t c = 0; c < channels; c += FETCH)
                __builtin_prefetch(pixel + c);
        }
}

INLINE void max_pool_rows(const fc_window *g, ptrdiff_t channels, const real *x, ptrdiff_t x_stride,
                          real *y, ptrdiff_t y_stride, winners index, ptrdiff_t first,
                          ptrdiff_t last)
{
    const fc_window two = {.in = {g->in[0], g->in[1], g->in[2]}, .window = {1, 2, 2}};
    const fc_window three = {.in = {g->in[0], g->in[1], g->in[2]}, .window = {1, 3, 3}};
    const winners byte = {index.p, 1}; /* enough for their taps */
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row at = pool_row_of(row, g->out);
        const span d = taps_inside(g, 0, at.d), h = taps_inside(g, 1, at.h);
        const ptrdiff_t top = (at.sample * g->in[0] + at.d * g->stride[0] - g->pad[0]) * g->in[1] +
                              at.h * g->stride[1] - g->pad[1];
        for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
            const span w = taps_inside(g, 2, ow), one = {0, 1};
            const ptrdiff_t at_x = (top * g->in[2] + ow * g->stride[2] - g->pad[2]) * x_stride;
            const ptrdiff_t o = row * g->out[2] + ow, side = whole_square(g, h, w);
            real *yo = y + o * y_stride;
            fetch_below(g, channels, x + at_x, x_stride);
            if (side == 2)
                max_pool_pixel(&two, one, (span){0, 2}, (span){0, 2}, channels, x, at_x, x_stride,
                               yo, byte, o * channels);
            else if (side == 3)
                max_pool_pixel(&three, one, (span){0, 3}, (span){0, 3}, channels, x, at_x, x_stride,
                               yo, byte, o * channels);
            else
                max_pool_pixel(g, d, h, w, channels, x, at_x, x_stride, yo, index, o * channels);
        }
    }
}

/* Rows [first, last) of (n, OD, OH): y = the window's maximum, index (or NULL) = its tap, in `bytes`
 * bytes: 1 up to 256 taps, else 2. The first maximum wins, a NaN beats numbers. x, y, index are
 * whole tensors; index has no gaps. */
static void max_pool_forward(const fc_window *g, ptrdiff_t channels, const real *x,
                             ptrdiff_t x_stride, real *y, ptrdiff_t y_stride, void *index,
                             int bytes, ptrdiff_t first, ptrdiff_t last)
{
    const winners noted = {index, bytes}, none = {NULL, 0};
    if (index)
        max_pool_rows(g, channels, x, x_stride, y, y_stride, noted, first, last);
    else
        max_pool_rows(g, channels, x, x_stride, y, y_stride, none, first, last);
}

/* 1 / the pixels that a window averages: all taps, or those inside the image. */
INLINE real average_weight(const fc_window *g, int count_padding, span d, span h, span w)
{
    if (count_padding)
        return 1 / (real)(g->window[0] * g->window[1] * g->window[2]);
    return 1 / (real)((d.hi - d.lo) * (h.hi - h.lo) * (w.hi - w.lo));
}

/* Whether every window of a row has all its columns inside the image. */
INLINE int columns_are_inside(const fc_window *g)
{
    return g->pad[2] == 0 && (g->out[2] - 1) * g->stride[2] + g->window[2] <= g->in[2];
}

INLINE int windows_are_separate(const fc_window *g)
{
    return g->stride[0] >= g->window[0] && g->stride[1] >= g->window[1] &&
           g->stride[2] >= g->window[2];
}

INLINE void zero_pixels(real *dx, ptrdiff_t dx_stride, ptrdiff_t channels, ptrdiff_t first,
                        ptrdiff_t last)
{
    for (ptrdiff_t p = first; p < last; p++)
        for (ptrdiff_t c = 0; c < channels; c += VLEN)
            store_part(dx + p * dx_stride + c, v_zero(), channels - c < VLEN ? channels - c : VLEN);
}

/* n channels of the pixels lo..hi of one window's row; the first pixel of the row has tap `tap`. */
INLINE void spread_lanes(ptrdiff_t n, real weight, const real *dy, winners index, ptrdiff_t at,
                         ptrdiff_t tap, span w, real *dx, ptrdiff_t dx_stride)
{
    const vec g = load_part(dy, n);
    const ivec winner = index.p ? load_taps(index, at, n) : (ivec){0};
    const vec share = v_mul(g, v_set1(weight));
    for (ptrdiff_t tw = w.lo; tw < w.hi; tw++)
        store_part(dx + tw * dx_stride, index.p ? where_won(winner, tap + tw, g) : share, n);
}

INLINE void spread_pixels(ptrdiff_t channels, real weight, const real *dy, winners index,
                          ptrdiff_t at, ptrdiff_t tap, span w, real *dx, ptrdiff_t dx_stride)
{
    ptrdiff_t c = 0;
    for (; c + VLEN <= channels; c += VLEN)
        spread_lanes(VLEN, weight, dy + c, index, at + c, tap, w, dx + c, dx_stride);
    if (c < channels)
        spread_lanes(channels - c, weight, dy + c, index, at + c, tap, w, dx + c, dx_stride);
}

/* One row of dx where windows do not overlap: the only window over (D, H) hands each of its pixels
 * what is due, and pixels between windows get zero. no winners: average pooling. */
static void spread_row(const fc_window *g, ptrdiff_t channels, int count_padding, pool_row r,
                       const real *dy, ptrdiff_t dy_stride, winners index, real *dx,
                       ptrdiff_t dx_stride)
{
    const span d = windows_over(g, 0, r.d), h = windows_over(g, 1, r.h);
    ptrdiff_t done = 0;
    if (d.lo < d.hi && h.lo < h.hi) {
        const ptrdiff_t first = ((r.sample * g->out[0] + d.lo) * g->out[1] + h.lo) * g->out[2];
        const ptrdiff_t tap = ((r.d + g->pad[0] - d.lo * g->stride[0]) * g->window[1] + r.h +
                               g->pad[1] - h.lo * g->stride[1]) *
                              g->window[2];
        const span td = taps_inside(g, 0, d.lo), th = taps_inside(g, 1, h.lo);
        const span columns = {0, g->window[2]};
        const int inside = columns_are_inside(g);
        real weight = index.p ? 1 : average_weight(g, count_padding, td, th, columns);
        for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
            const span tw = inside ? columns : taps_inside(g, 2, ow);
            const ptrdiff_t start = ow * g->stride[2] - g->pad[2], o = first + ow;
            if (!inside && !index.p)
                weight = average_weight(g, count_padding, td, th, tw);
            zero_pixels(dx, dx_stride, channels, done, start + tw.lo);
            done = start + tw.hi;
            if (tw.lo == 0 && tw.hi == 2) /* the common window, unrolled */
                spread_pixels(channels, weight, dy + o * dy_stride, index, o * channels, tap,
                              (span){0, 2}, dx + start * dx_stride, dx_stride);
            else
                spread_pixels(channels, weight, dy + o * dy_stride, index, o * channels, tap, tw,
                              dx + start * dx_stride, dx_stride);
        }
    }
    zero_pixels(dx, dx_stride, channels, done, g->in[2]);
}

/* The windows nd × nh × nw over one input pixel: the first of them as an output pixel `o`, and the
 * tap that the input pixel is in it. */
typedef struct {
    ptrdiff_t nd, nh, nw, o, tap;
} cover;

/* n channels of one input pixel: Σ dy[o] over the windows o whose maximum it was; without winners
 * Σ weight dy[o]. */
INLINE vec gather_lanes(const fc_window *g, cover at, ptrdiff_t channels, ptrdiff_t c, ptrdiff_t n,
                        real weight, const real *dy, ptrdiff_t dy_stride, winners index)
{
    vec sum = v_zero();
    for (ptrdiff_t i = 0; i < at.nd; i++)
        for (ptrdiff_t j = 0; j < at.nh; j++)
            for (ptrdiff_t k = 0; k < at.nw; k++) {
                const ptrdiff_t o = at.o + (i * g->out[1] + j) * g->out[2] + k;
                const ptrdiff_t back =
                    (i * g->stride[0] * g->window[1] + j * g->stride[1]) * g->window[2] +
                    k * g->stride[2];
                const vec a = load_part(dy + o * dy_stride + c, n);
                if (index.p)
                    sum = v_add(sum,
                                where_won(load_taps(index, o * channels + c, n), at.tap - back, a));
                else
                    sum = v_fma(a, v_set1(weight), sum);
            }
    return sum;
}

INLINE void gather_pixel(const fc_window *g, cover at, ptrdiff_t channels, real weight,
                         const real *dy, ptrdiff_t dy_stride, winners index, real *dx)
{
    ptrdiff_t c = 0;
    for (; c + VLEN <= channels; c += VLEN)
        v_store(dx + c, gather_lanes(g, at, channels, c, VLEN, weight, dy, dy_stride, index));
    if (c < channels)
        v_store_tail(dx + c,
                     gather_lanes(g, at, channels, c, channels - c, weight, dy, dy_stride, index),
                     channels - c);
}

/* One pixel of dx; few windows in one plane, whose taps fit a byte, are forms that the compiler
 * knows. */
INLINE void gather_forms(const fc_window *g, cover at, ptrdiff_t channels, real weight,
                         const real *dy, ptrdiff_t dy_stride, winners index, real *dx)
{
    const winners known = {index.p, 1};
#define FORM(NH, NW)                                                                               \
    if (index.bytes < 2 && at.nd == 1 && at.nh == NH && at.nw == NW)                               \
        gather_pixel(g, (cover){1, NH, NW, at.o, at.tap}, channels, weight, dy, dy_stride, known,  \
                     dx);                                                                          \
    else
    FORM(1, 1)
    FORM(1, 2)
    FORM(2, 1)
    FORM(2, 2)
    FORM(3, 3)

    gather_pixel(g, at, channels, weight, dy, dy_stride, index, dx);
#undef FORM
}

/* The windows over the pixel iw of a row; d and h are those over the row. */
INLINE cover cover_of(const fc_window *g, pool_row r, span d, span h, span w, ptrdiff_t iw)
{
    const ptrdiff_t td = r.d + g->pad[0] - d.lo * g->stride[0];
    const ptrdiff_t th = r.h + g->pad[1] - h.lo * g->stride[1];
    const ptrdiff_t tw = iw + g->pad[2] - w.lo * g->stride[2];
    return (cover){d.hi - d.lo, h.hi - h.lo, w.hi - w.lo,
                   ((r.sample * g->out[0] + d.lo) * g->out[1] + h.lo) * g->out[2] + w.lo,
                   (td * g->window[1] + th) * g->window[2] + tw};
}

/* Rows [first, last) of (n, ID, IH) of dx, from dy and the taps that forward noted. */
static void max_pool_backward(const fc_window *g, ptrdiff_t channels, const real *dy,
                              ptrdiff_t dy_stride, const void *index, int bytes, real *dx,
                              ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last)
{
    const int separate = windows_are_separate(g);
    const winners won = {(void *)index, bytes};
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->in);
        if (separate) {
            spread_row(g, channels, 0, r, dy, dy_stride, won, dx + row * g->in[2] * dx_stride,
                       dx_stride);
            continue;
        }
        const span d = windows_over(g, 0, r.d), h = windows_over(g, 1, r.h);
        for (ptrdiff_t iw = 0; iw < g->in[2]; iw++)
            gather_forms(g, cover_of(g, r, d, h, windows_over(g, 2, iw), iw), channels, 1, dy,
                         dy_stride, won, dx + (row * g->in[2] + iw) * dx_stride);
    }
}

/* n channels of the mean of one window; x is the address of tap (0, 0, 0) as an offset. */
INLINE void average_pixel(const fc_window *g, span d, span h, span w, real share,
                          ptrdiff_t channels, const real *image, ptrdiff_t x, ptrdiff_t x_stride,
                          real *y)
{
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        const ptrdiff_t n = channels - c < VLEN ? channels - c : VLEN;
        vec sum = v_zero();
        for (ptrdiff_t td = d.lo; td < d.hi; td++)
            for (ptrdiff_t th = h.lo; th < h.hi; th++) {
                const ptrdiff_t line = (td * g->in[1] + th) * g->in[2];
                for (ptrdiff_t tw = w.lo; tw < w.hi; tw++)
                    sum = v_add(sum, load_part(image + x + (line + tw) * x_stride + c, n));
            }
        store_part(y + c, v_mul(sum, v_set1(share)), n);
    }
}

/* Rows [first, last) of (n, OD, OH): y = the window's mean. */
static void average_pool_forward(const fc_window *g, ptrdiff_t channels, int count_padding,
                                 const real *x, ptrdiff_t x_stride, real *y, ptrdiff_t y_stride,
                                 ptrdiff_t first, ptrdiff_t last)
{
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->out);
        const span d = taps_inside(g, 0, r.d), h = taps_inside(g, 1, r.h);
        const ptrdiff_t top = (r.sample * g->in[0] + r.d * g->stride[0] - g->pad[0]) * g->in[1] +
                              r.h * g->stride[1] - g->pad[1];
        const span one = {0, 1}, columns = {0, g->window[2]};
        const int inside = columns_are_inside(g);
        ptrdiff_t side = whole_square(g, h, columns);
        real share = average_weight(g, count_padding, d, h, columns);
        for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
            const span w = inside ? columns : taps_inside(g, 2, ow);
            const ptrdiff_t at = (top * g->in[2] + ow * g->stride[2] - g->pad[2]) * x_stride;
            if (!inside) {
                share = average_weight(g, count_padding, d, h, w);
                side = whole_square(g, h, w);
            }
            real *yo = y + (row * g->out[2] + ow) * y_stride;
            if (side == 2)
                average_pixel(g, one, (span){0, 2}, (span){0, 2}, share, channels, x, at, x_stride,
                              yo);
            else if (side == 3)
                average_pixel(g, one, (span){0, 3}, (span){0, 3}, share, channels, x, at, x_stride,
                              yo);
            else
                average_pixel(g, d, h, w, share, channels, x, at, x_stride, yo);
        }
    }
}

/* n channels of one input pixel near the border, where windows have weights of their own */
INLINE vec average_gather(const fc_window *g, int count_padding, span d, span h, span w,
                          ptrdiff_t sample, ptrdiff_t c, ptrdiff_t n, const real *dy,
                          ptrdiff_t dy_stride)
{
    vec sum = v_zero();
    for (ptrdiff_t od = d.lo; od < d.hi; od++)
        for (ptrdiff_t oh = h.lo; oh < h.hi; oh++)
            for (ptrdiff_t ow = w.lo; ow < w.hi; ow++) {
                const ptrdiff_t o = ((sample * g->out[0] + od) * g->out[1] + oh) * g->out[2] + ow;
                const real weight = average_weight(g, count_padding, taps_inside(g, 0, od),
                                                   taps_inside(g, 1, oh), taps_inside(g, 2, ow));
                sum = v_fma(load_part(dy + o * dy_stride + c, n), v_set1(weight), sum);
            }
    return sum;
}

/* Whether the windows of one dimension lie in the image with all their taps. */
INLINE int all_inside(const fc_window *g, int dim, span windows)
{
    const ptrdiff_t s = g->stride[dim], pad = g->pad[dim];
    return windows.lo * s >= pad && (windows.hi - 1) * s - pad + g->window[dim] <= g->in[dim];
}

/* Rows [first, last) of (n, ID, IH): dx = Σ dy[o] / count[o] over the windows o that cover it. */
static void average_pool_backward(const fc_window *g, ptrdiff_t channels, int count_padding,
                                  const real *dy, ptrdiff_t dy_stride, real *dx,
                                  ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last)
{
    const real share = 1 / (real)(g->window[0] * g->window[1] * g->window[2]);
    const winners none = {NULL, 0};
    const int separate = windows_are_separate(g);
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->in);
        if (separate) {
            spread_row(g, channels, count_padding, r, dy, dy_stride, none,
                       dx + row * g->in[2] * dx_stride, dx_stride);
            continue;
        }
        const span d = windows_over(g, 0, r.d), h = windows_over(g, 1, r.h);
        const int rows_inside = count_padding || (all_inside(g, 0, d) && all_inside(g, 1, h));
        for (ptrdiff_t iw = 0; iw < g->in[2]; iw++) {
            const span w = windows_over(g, 2, iw);
            real *p = dx + (row * g->in[2] + iw) * dx_stride;
            if (rows_inside && (count_padding || all_inside(g, 2, w))) {
                gather_forms(g, cover_of(g, r, d, h, w, iw), channels, share, dy, dy_stride, none,
                             p);
                continue;
            }
            for (ptrdiff_t c = 0; c < channels; c += VLEN) {
                const ptrdiff_t n = channels - c < VLEN ? channels - c : VLEN;
                store_part(p + c,
                           average_gather(g, count_padding, d, h, w, r.sample, c, n, dy, dy_stride),
                           n);
            }
        }
    }
}

/* y = mean over the pixels of one sample, for cols channels; pieces of 128 pixels keep the rounding
 * error small. */
static void global_average_forward(ptrdiff_t pixels, ptrdiff_t cols, const real *x,
                                   ptrdiff_t x_stride, real *y)
{
    const vec weight = v_set1(1 / (real)pixels);
    for (ptrdiff_t c = 0; c < cols; c += VLEN) {
        const ptrdiff_t n = cols - c < VLEN ? cols - c : VLEN;
        vec total = v_zero();
        for (ptrdiff_t p = 0; p < pixels;) {
            const ptrdiff_t end = pixels - p < 128 ? pixels : p + 128;
            vec sum = v_zero();
            for (; p < end; p++)
                sum = v_add(sum, load_part(x + p * x_stride + c, n));
            total = v_add(total, sum);
        }
        store_part(y + c, v_mul(total, weight), n);
    }
}

/* dx = dy / pixels at every pixel of one sample. */
static void global_average_backward(ptrdiff_t pixels, ptrdiff_t cols, const real *dy, real *dx,
                                    ptrdiff_t dx_stride)
{
    const vec weight = v_set1(1 / (real)pixels);
    for (ptrdiff_t p = 0; p < pixels; p++, dx += dx_stride)
        for (ptrdiff_t c = 0; c < cols; c += VLEN) {
            const ptrdiff_t n = cols - c < VLEN ? cols - c : VLEN;
            store_part(dx + c, v_mul(load_part(dy + c, n), weight), n);
        }
}

/* y = maximum over the pixels of one sample, index (or NULL) its pixel: below 2^24, exact in a
 * float lane. */
static void global_max_forward(ptrdiff_t pixels, ptrdiff_t cols, const real *x, ptrdiff_t x_stride,
                               real *y, int32_t *index)
{
    for (ptrdiff_t c = 0; c < cols; c += VLEN) {
        const ptrdiff_t n = cols - c < VLEN ? cols - c : VLEN;
        vec best = v_set1(-INFINITY), winner = v_zero();
        for (ptrdiff_t p = 0; p < pixels; p++) {
            const vec a = load_part(x + p * x_stride + c, n);
            const mask better = v_or(v_gt(a, best), v_nan(a));
            best = v_select(better, a, best);
            winner = v_select(better, v_set1((real)p), winner);
        }
        store_part(y + c, best, n);
        if (index) {
            real lane[VLEN];
            v_store(lane, winner);
            for (ptrdiff_t i = 0; i < n; i++)
                index[c + i] = (int32_t)lane[i];
        }
    }
}

/* dx = dy where the pixel is index, else 0. */
static void global_max_backward(ptrdiff_t pixels, ptrdiff_t cols, const real *dy,
                                const int32_t *index, real *dx, ptrdiff_t dx_stride)
{
    for (ptrdiff_t c = 0; c < cols; c += VLEN) {
        const ptrdiff_t n = cols - c < VLEN ? cols - c : VLEN;
        real lane[VLEN] = {0};
        for (ptrdiff_t i = 0; i < n; i++)
            lane[i] = (real)index[c + i];
        const vec winner = v_load(lane), g = load_part(dy + c, n);
        for (ptrdiff_t p = 0; p < pixels; p++)
            store_part(dx + p * dx_stride + c, v_select(v_eq(winner, v_set1((real)p)), g, v_zero()),
                       n);
    }
}

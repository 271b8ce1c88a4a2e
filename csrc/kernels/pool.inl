/* Max and average pooling over windows in three dimensions, and over whole images.
 *
 * The backward kernels gather: every input pixel sums over the windows that cover it, so dx is
 * written once, overlap loses nothing, and rows are free of races. A window's *tap* is its pixel's
 * number (td · KH + th) · KW + tw; forward notes the winning tap as uint16, 2 bytes beside y's 4. */

typedef uint16_t u16vec __attribute__((vector_size(VLEN * sizeof(uint16_t))));

/* n ≤ VLEN ≤ 16 of them, a tail in steps of known size */
INLINE vec load_taps(const uint16_t *p, ptrdiff_t n)
{
    uint16_t lane[16] = {0};
    u16vec taps;
    if (n == VLEN)
        __builtin_memcpy(lane, p, sizeof taps);
    else
        for (ptrdiff_t size = 8, at = 0; size; size /= 2)
            if (n & size) {
                __builtin_memcpy(lane + at, p + at, (size_t)size * sizeof *p);
                at += size;
            }
    __builtin_memcpy(&taps, lane, sizeof taps);
    return (vec) __builtin_convertvector(__builtin_convertvector(taps, ivec), vec);
}

INLINE void store_taps(uint16_t *p, vec a, ptrdiff_t n)
{
    const u16vec taps = __builtin_convertvector(__builtin_convertvector(a, ivec), u16vec);
    uint16_t lane[16] = {0};
    __builtin_memcpy(lane, &taps, sizeof taps);
    if (n == VLEN)
        __builtin_memcpy(p, lane, sizeof taps);
    else
        for (ptrdiff_t size = 8, at = 0; size; size /= 2)
            if (n & size) {
                __builtin_memcpy(p + at, lane + at, (size_t)size * sizeof *p);
                at += size;
            }
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

/* The windows lo..hi of one dimension that cover input position i. */
INLINE span windows_over(const fc_window *g, int dim, ptrdiff_t i)
{
    const ptrdiff_t at = i + g->pad[dim], s = g->stride[dim], before = at - g->window[dim];
    const ptrdiff_t last = at / s + 1;
    return (span){before < 0 ? 0 : before / s + 1, last < g->out[dim] ? last : g->out[dim]};
}

/* n channels of one output pixel; x is the address of tap (0, 0, 0) as an offset into image. */
INLINE void max_pool_lanes(const fc_window *g, span d, span h, span w, const real *image,
                           ptrdiff_t x, ptrdiff_t x_stride, ptrdiff_t n, real *y, uint16_t *index)
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
                if (index)
                    winner = v_select(better, v_set1((real)(tap + tw)), winner);
            }
        }
    store_part(y, best, n);
    if (index)
        store_taps(index, winner, n);
}

INLINE void max_pool_pixel(const fc_window *g, span d, span h, span w, ptrdiff_t channels,
                           const real *image, ptrdiff_t x, ptrdiff_t x_stride, real *y,
                           uint16_t *index)
{
    ptrdiff_t c = 0;
    for (; c + VLEN <= channels; c += VLEN)
        max_pool_lanes(g, d, h, w, image, x + c, x_stride, VLEN, y + c, index ? index + c : NULL);
    if (c < channels)
        max_pool_lanes(g, d, h, w, image, x + c, x_stride, channels - c, y + c,
                       index ? index + c : NULL);
}

/* Rows [first, last) of (n, OD, OH): y = the window's maximum, index (or NULL) = its tap. The first
 * maximum wins, a NaN beats numbers. x, y, index are whole tensors; index has no gaps. */
static void max_pool_forward(const fc_window *g, ptrdiff_t channels, const real *x,
                             ptrdiff_t x_stride, real *y, ptrdiff_t y_stride, uint16_t *index,
                             ptrdiff_t first, ptrdiff_t last)
{
    const fc_window two = {.in = {g->in[0], g->in[1], g->in[2]}, .window = {1, 2, 2}};
    const int is_two = g->window[0] == 1 && g->window[1] == 2 && g->window[2] == 2;
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row at = pool_row_of(row, g->out);
        const span d = taps_inside(g, 0, at.d), h = taps_inside(g, 1, at.h);
        const ptrdiff_t top = (at.sample * g->in[0] + at.d * g->stride[0] - g->pad[0]) * g->in[1] +
                              at.h * g->stride[1] - g->pad[1];
        for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
            const span w = taps_inside(g, 2, ow);
            const ptrdiff_t at_x = (top * g->in[2] + ow * g->stride[2] - g->pad[2]) * x_stride;
            const ptrdiff_t o = row * g->out[2] + ow;
            real *yo = y + o * y_stride;
            uint16_t *io = index ? index + o * channels : NULL;
            if (is_two && d.lo == 0 && d.hi == 1 && h.lo == 0 && h.hi == 2 && w.lo == 0 &&
                w.hi == 2) /* the common window, unrolled */
                max_pool_pixel(&two, (span){0, 1}, (span){0, 2}, (span){0, 2}, channels, x, at_x,
                               x_stride, yo, io);
            else
                max_pool_pixel(g, d, h, w, channels, x, at_x, x_stride, yo, io);
        }
    }
}

/* 1 / the pixels that a window averages: all taps, or those inside the image. */
INLINE real average_weight(const fc_window *g, int count_padding, span d, span h, span w)
{
    if (count_padding)
        return 1 / (real)(g->window[0] * g->window[1] * g->window[2]);
    return 1 / (real)((d.hi - d.lo) * (h.hi - h.lo) * (w.hi - w.lo));
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
INLINE void spread_lanes(ptrdiff_t n, real weight, const real *dy, const uint16_t *index,
                         ptrdiff_t tap, span w, real *dx, ptrdiff_t dx_stride)
{
    const vec g = load_part(dy, n);
    const vec winner = index ? load_taps(index, n) : v_zero(), share = v_mul(g, v_set1(weight));
    for (ptrdiff_t tw = w.lo; tw < w.hi; tw++)
        store_part(dx + tw * dx_stride,
                   index ? v_select(v_eq(winner, v_set1((real)(tap + tw))), g, v_zero()) : share,
                   n);
}

/* One row of dx where windows do not overlap: the only window over (D, H) hands each of its pixels
 * what is due, and pixels between windows get zero. index NULL: average pooling. */
static void spread_row(const fc_window *g, ptrdiff_t channels, int count_padding, pool_row r,
                       const real *dy, ptrdiff_t dy_stride, const uint16_t *index, real *dx,
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
        for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
            const span tw = taps_inside(g, 2, ow);
            const ptrdiff_t start = ow * g->stride[2] - g->pad[2], o = first + ow;
            const real weight = index ? 1 : average_weight(g, count_padding, td, th, tw);
            zero_pixels(dx, dx_stride, channels, done, start + tw.lo);
            done = start + tw.hi;
            ptrdiff_t c = 0;
            for (; c + VLEN <= channels; c += VLEN)
                spread_lanes(VLEN, weight, dy + o * dy_stride + c,
                             index ? index + o * channels + c : NULL, tap, tw,
                             dx + start * dx_stride + c, dx_stride);
            if (c < channels)
                spread_lanes(channels - c, weight, dy + o * dy_stride + c,
                             index ? index + o * channels + c : NULL, tap, tw,
                             dx + start * dx_stride + c, dx_stride);
        }
    }
    zero_pixels(dx, dx_stride, channels, done, g->in[2]);
}

/* n channels of one input pixel: Σ dy[o] over the windows o whose maximum it was. */
INLINE vec max_pool_gather(const fc_window *g, span d, span h, span w, const ptrdiff_t *at,
                           ptrdiff_t sample, ptrdiff_t channels, ptrdiff_t c, ptrdiff_t n,
                           const real *dy, ptrdiff_t dy_stride, const uint16_t *index)
{
    vec sum = v_zero();
    for (ptrdiff_t od = d.lo; od < d.hi; od++)
        for (ptrdiff_t oh = h.lo; oh < h.hi; oh++)
            for (ptrdiff_t ow = w.lo; ow < w.hi; ow++) {
                const ptrdiff_t tap =
                    ((at[0] - od * g->stride[0]) * g->window[1] + at[1] - oh * g->stride[1]) *
                        g->window[2] +
                    at[2] - ow * g->stride[2];
                const ptrdiff_t o = ((sample * g->out[0] + od) * g->out[1] + oh) * g->out[2] + ow;
                const mask won = v_eq(load_taps(index + o * channels + c, n), v_set1((real)tap));
                sum = v_add(sum, v_select(won, load_part(dy + o * dy_stride + c, n), v_zero()));
            }
    return sum;
}

/* Rows [first, last) of (n, ID, IH) of dx, from dy and the taps that forward noted. */
static void max_pool_backward(const fc_window *g, ptrdiff_t channels, const real *dy,
                              ptrdiff_t dy_stride, const uint16_t *index, real *dx,
                              ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last)
{
    const int separate = windows_are_separate(g);
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->in);
        if (separate) {
            spread_row(g, channels, 0, r, dy, dy_stride, index, dx + row * g->in[2] * dx_stride,
                       dx_stride);
            continue;
        }
        const span d = windows_over(g, 0, r.d), h = windows_over(g, 1, r.h);
        for (ptrdiff_t iw = 0; iw < g->in[2]; iw++) {
            const span w = windows_over(g, 2, iw);
            const ptrdiff_t at[3] = {r.d + g->pad[0], r.h + g->pad[1], iw + g->pad[2]};
            real *p = dx + (row * g->in[2] + iw) * dx_stride;
            ptrdiff_t c = 0;
            for (; c + VLEN <= channels; c += VLEN)
                v_store(p + c, max_pool_gather(g, d, h, w, at, r.sample, channels, c, VLEN, dy,
                                               dy_stride, index));
            if (c < channels)
                v_store_tail(p + c,
                             max_pool_gather(g, d, h, w, at, r.sample, channels, c, channels - c,
                                             dy, dy_stride, index),
                             channels - c);
        }
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
        for (ptrdiff_t ow = 0; ow < g->out[2]; ow++) {
            const span w = taps_inside(g, 2, ow);
            const vec weight = v_set1(average_weight(g, count_padding, d, h, w));
            const ptrdiff_t left = top * g->in[2] + ow * g->stride[2] - g->pad[2];
            for (ptrdiff_t c = 0; c < channels; c += VLEN) {
                const ptrdiff_t n = channels - c < VLEN ? channels - c : VLEN;
                vec sum = v_zero();
                for (ptrdiff_t td = d.lo; td < d.hi; td++)
                    for (ptrdiff_t th = h.lo; th < h.hi; th++) {
                        const ptrdiff_t line = left + (td * g->in[1] + th) * g->in[2];
                        for (ptrdiff_t tw = w.lo; tw < w.hi; tw++)
                            sum = v_add(sum, load_part(x + (line + tw) * x_stride + c, n));
                    }
                store_part(y + (row * g->out[2] + ow) * y_stride + c, v_mul(sum, weight), n);
            }
        }
    }
}

/* Rows [first, last) of (n, ID, IH): dx = Σ dy[o] / count[o] over the windows o that cover it. */
static void average_pool_backward(const fc_window *g, ptrdiff_t channels, int count_padding,
                                  const real *dy, ptrdiff_t dy_stride, real *dx,
                                  ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last)
{
    const int separate = windows_are_separate(g);
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->in);
        if (separate) {
            spread_row(g, channels, count_padding, r, dy, dy_stride, NULL,
                       dx + row * g->in[2] * dx_stride, dx_stride);
            continue;
        }
        const span d = windows_over(g, 0, r.d), h = windows_over(g, 1, r.h);
        for (ptrdiff_t iw = 0; iw < g->in[2]; iw++) {
            const span w = windows_over(g, 2, iw);
            for (ptrdiff_t c = 0; c < channels; c += VLEN) {
                const ptrdiff_t n = channels - c < VLEN ? channels - c : VLEN;
                vec sum = v_zero();
                for (ptrdiff_t od = d.lo; od < d.hi; od++)
                    for (ptrdiff_t oh = h.lo; oh < h.hi; oh++)
                        for (ptrdiff_t ow = w.lo; ow < w.hi; ow++) {
                            const ptrdiff_t o =
                                ((r.sample * g->out[0] + od) * g->out[1] + oh) * g->out[2] + ow;
                            const real weight =
                                average_weight(g, count_padding, taps_inside(g, 0, od),
                                               taps_inside(g, 1, oh), taps_inside(g, 2, ow));
                            sum = v_fma(load_part(dy + o * dy_stride + c, n), v_set1(weight), sum);
                        }
                store_part(dx + (row * g->in[2] + iw) * dx_stride + c, sum, n);
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

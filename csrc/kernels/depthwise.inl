/* Depthwise convolution: every channel has a window of its own. Vectors run along the channels; a
 * block of output pixels stands in registers, and each pixel that is loaded is used by all of them
 * that see it.
 *
 * Forward and the input gradient are one walk. What they write are *lines*: pixels of one row,
 * a fixed step apart, that share a list of taps. Forward has one line a row; the input gradient has
 * one per phase of the stride, since pixel i receives through tap k from output o where
 * o · stride = i + pad − k · dilation. The taps that meet the image are, in each dimension, an
 * arithmetic progression in both the weight and the source; taps in the padding are left out.
 * Each sum adds its taps in the order of the source, whatever the form that computes it. */

enum {
    DEPTHWISE_PIXELS = 8,  /* outputs in registers */
    DEPTHWISE_STRETCH = 4, /* the same of a weight gradient, beside its sums */
    DEPTHWISE_GROUP = 4,   /* taps of a row that a weight gradient of any form takes at a time */
};

/* Taps 0..count of one dimension: tap t has weight k + t · k_hop and reads source + t · hop. */
typedef struct {
    ptrdiff_t count, k, k_hop, source, hop;
} depthwise_taps;

/* A line: pixel j reads, through tap t, pixel source + j · move + t · hop of a row of `size`. */
typedef struct {
    depthwise_taps taps; /* of W, also those that fall outside */
    ptrdiff_t count, move, size;
} depthwise_line;

/* The rows under a line: taps of D and H that meet the image, and where the first one reads. */
typedef struct {
    ptrdiff_t count[2], x_step[2], w_step[2];
} depthwise_rows;

/* The number of a form that the compiler knows: taps side by side, few of them. 0: none. */
INLINE ptrdiff_t depthwise_form(const depthwise_line *line)
{
    return line->taps.hop == 1 && line->taps.count < 8 ? line->move * 8 + line->taps.count : 0;
}

/* Loads the next pixel of a column walk, once. To the compiler the address and the vector come from
 * nowhere: it would else compute the addresses of all columns beforehand, run out of registers for
 * them, and load a column again at every use. */
#if defined(__x86_64__)
#define FROM_NOWHERE(a) __asm__("" : "+v"(a))
#elif defined(__aarch64__)
#define FROM_NOWHERE(a) __asm__("" : "+w"(a))
#else
#define FROM_NOWHERE(a) (void)(a)
#endif
INLINE vec load_next(const real **x, const real *from, ptrdiff_t x_stride, ptrdiff_t n)
{
    vec a = load_part(from, n);
    FROM_NOWHERE(a);
    *x += x_stride;
    __asm__("" : "+r"(*x));
    return a;
}

INLINE ptrdiff_t floor_div(ptrdiff_t a, ptrdiff_t b) { return a / b - (a % b < 0); }

/* Drops the taps that read outside of 0..size. */
INLINE depthwise_taps taps_meeting(depthwise_taps t, ptrdiff_t size)
{
    const ptrdiff_t skip = t.source < 0 ? (t.hop - 1 - t.source) / t.hop : 0;
    const ptrdiff_t end = floor_div(size - 1 - t.source, t.hop) + 1;
    const ptrdiff_t count = (end < t.count ? end : t.count) - skip;
    return (depthwise_taps){count < 0 ? 0 : count, t.k + skip * t.k_hop, t.k_hop,
                            t.source + skip * t.hop, t.hop};
}

/* Forward: output o of dimension `dim` reads o · stride − pad + k · dilation. */
INLINE depthwise_taps taps_forward(const fc_window *g, int dim, ptrdiff_t o)
{
    return (depthwise_taps){g->window[dim], 0, 1, o * g->stride[dim] - g->pad[dim],
                            g->dilation[dim]};
}

/* Input gradient: input i of dimension `dim` receives from (i + pad − k · dilation) / stride; the
 * last k comes first, so that the source ascends. */
INLINE depthwise_taps taps_backward(const fc_window *g, int dim, ptrdiff_t i)
{
    const ptrdiff_t s = g->stride[dim], d = g->dilation[dim], at = i + g->pad[dim];
    ptrdiff_t k = g->window[dim] - 1, hop = 1;
    while (k >= 0 && (at - k * d) % s)
        k--;
    while (hop <= k && hop * d % s)
        hop++;
    const ptrdiff_t count = k < 0 ? 0 : k / hop + 1;
    return (depthwise_taps){count, k, -hop, floor_div(at - k * d, s), count > 1 ? hop * d / s : 1};
}

/* Memory that the next row of outputs is the first to touch. It is fetched while this row is computed,
 * a block's share at a time: the hardware does not foresee a walk along the pixels of several rows,
 * and what does not lie in a cache would come at half the speed. */
typedef struct {
    const real *start;
    ptrdiff_t size;
} depthwise_ahead;

INLINE void fetch(depthwise_ahead ahead, ptrdiff_t part, ptrdiff_t parts)
{
    const ptrdiff_t line = 64 / (ptrdiff_t)sizeof(real), lines = ahead.size / line;
    for (ptrdiff_t i = lines * part / parts; i < lines * (part + 1) / parts; i++)
        __builtin_prefetch(ahead.start + i * line, 0, 2);
}

/* Rows first..last of an image, `line` elements each, as far as they exist. */
INLINE depthwise_ahead rows_ahead(const real *image, ptrdiff_t first, ptrdiff_t last,
                                  ptrdiff_t size, ptrdiff_t line)
{
    first = first < 0 ? 0 : first;
    last = last < size ? last : size;
    return first < last ? (depthwise_ahead){image + first * line, (last - first) * line}
                        : (depthwise_ahead){image, 0};
}

/* Forward: the rows of H that output row oh + 1 sees and row oh did not. */
INLINE depthwise_ahead rows_ahead_forward(const fc_window *g, const real *x, pool_row r,
                                          ptrdiff_t x_stride)
{
    const ptrdiff_t line = g->in[2] * x_stride;
    const ptrdiff_t last =
        (r.h + 1) * g->stride[1] - g->pad[1] + (g->window[1] - 1) * g->dilation[1] + 1;
    return rows_ahead(x + (r.sample * g->in[0] + r.d * g->stride[0]) * g->in[1] * line,
                      last - g->stride[1], last, g->in[1], line);
}

/* Input gradient: the row of dy that row ih + 1 of dx is the first to see, if there is one. */
INLINE depthwise_ahead rows_ahead_backward(const fc_window *g, const real *dy, pool_row r,
                                           ptrdiff_t dy_stride)
{
    const ptrdiff_t at = r.h + 1 + g->pad[1], row = at / g->stride[1];
    const ptrdiff_t line = g->out[2] * dy_stride, d = (r.d + g->pad[0]) / g->stride[0];
    const int fresh = at % g->stride[1] == 0 && d < g->out[0];
    return rows_ahead(dy + (r.sample * g->out[0] + d) * g->out[1] * line, row, row + fresh,
                      g->out[1], line);
}

/* What a walk reads and writes; w at the taps of the first output, residual at that output. */
typedef struct {
    ptrdiff_t channels, x_stride, w_hop, y_step;
    const real *x, *w;
    const fc_epilogue *e;
    const real *residual;
    real *y;
    depthwise_ahead reads, writes; /* of the next row */
} depthwise_task;

/* What a tap reads in the padding beside an image. */
static const real depthwise_zeros[VLEN] = {0};

/* n channels of m ≤ DEPTHWISE_PIXELS outputs; x is the row from which they read. With `taps` and
 * `move` known to the compiler, and taps side by side, each column is loaded once, also those that
 * only outputs past the m-th would need; taps = 0 is any line, tap by tap. `checked`: some columns
 * lie outside the image and are zeros. */
INLINE void depthwise_block(const int taps, const int move, const int checked,
                            const depthwise_line *line, const depthwise_rows *rows,
                            const depthwise_task *k, ptrdiff_t c, ptrdiff_t first, ptrdiff_t m,
                            ptrdiff_t n)
{
    const int columns = taps ? (DEPTHWISE_PIXELS - 1) * move + taps : 0;
    const ptrdiff_t start = line->taps.source + first * line->move;
    const real *bias = k->e->bias;
    const vec origin = bias ? load_part(bias + c, n) : v_zero();
    vec sum[DEPTHWISE_PIXELS], weight[8];
    UNROLL(8)
    for (int p = 0; p < DEPTHWISE_PIXELS; p++)
        sum[p] = origin;
    for (ptrdiff_t d = 0; d < rows->count[0]; d++)
        for (ptrdiff_t h = 0; h < rows->count[1]; h++) {
            const real *xr = k->x + c + d * rows->x_step[0] + h * rows->x_step[1];
            const real *wr = k->w + c + d * rows->w_step[0] + h * rows->w_step[1];
            for (ptrdiff_t t = 0; !taps && t < line->taps.count; t++) {
                const vec a = load_part(wr + t * k->w_hop, n);
                const ptrdiff_t at = start + t * line->taps.hop;
                UNROLL(8)
                for (int p = 0; p < DEPTHWISE_PIXELS; p++) {
                    const ptrdiff_t column = at + p * line->move;
                    const real *from = (size_t)column < (size_t)line->size
                                           ? xr + column * k->x_stride
                                           : depthwise_zeros;
                    sum[p] = v_fma(load_part(from, n), a, sum[p]);
                }
            }
            UNROLL(8)
            for (int t = 0; t < taps; t++)
                weight[t] = load_part(wr + t * k->w_hop, n);
            xr += start * k->x_stride;
            UNROLL(32)
            for (int j = 0; j < columns; j++) {
                const int outside = checked && (size_t)(start + j) >= (size_t)line->size;
                const vec a = load_next(&xr, outside ? depthwise_zeros : xr, k->x_stride, n);
                UNROLL(8)
                for (int t = 0; t < taps; t++)
                    if ((j - t) % move == 0 && j >= t && (j - t) / move < DEPTHWISE_PIXELS)
                        sum[(j - t) / move] = v_fma(a, weight[t], sum[(j - t) / move]);
            }
        }
    real *y = k->y + first * k->y_step + c;
    if (!epilogue_does(k->e)) {
        const int relu = k->e->f.kind == ACTIVATION_RELU;
        UNROLL(8)
        for (int p = 0; p < DEPTHWISE_PIXELS; p++)
            if (p < m)
                store_part(y + p * k->y_step, relu ? v_max(v_zero(), sum[p]) : sum[p], n);
        return;
    }
    const epilogue_columns end = epilogue_of(k->e, c, n);
    const ptrdiff_t r_step = k->e->residual_stride;
    const real *r = k->residual ? k->residual + first * r_step + c : NULL;
    UNROLL(8)
    for (int p = 0; p < DEPTHWISE_PIXELS; p++)
        if (p < m)
            store_part(y + p * k->y_step,
                       epilogue_value(&end, sum[p], r ? r + p * r_step : NULL, n), n);
}

/* A whole line: its outputs in equal blocks, all channels of a block one after the other. */
INLINE void depthwise_blocks(const int taps, const int move, const depthwise_line *line,
                             const depthwise_rows *rows, const depthwise_task *k)
{
    const ptrdiff_t blocks = (line->count + DEPTHWISE_PIXELS - 1) / DEPTHWISE_PIXELS;
    const ptrdiff_t reach = (DEPTHWISE_PIXELS - 1) * line->move + taps;
    const ptrdiff_t part = line->count / blocks, larger = line->count % blocks;
    ptrdiff_t first = 0;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const ptrdiff_t m = part + (b < larger), start = line->taps.source + first * line->move;
        const int inside = taps && start >= 0 && start + reach <= line->size;
        ptrdiff_t c = 0;
        fetch(k->reads, b, blocks);
        fetch(k->writes, b, blocks);
        if (inside)
            for (; c + VLEN <= k->channels; c += VLEN)
                depthwise_block(taps, move, 0, line, rows, k, c, first, m, VLEN);
        else
            for (; c + VLEN <= k->channels; c += VLEN)
                depthwise_block(taps, move, 1, line, rows, k, c, first, m, VLEN);
        if (c < k->channels)
            depthwise_block(taps, move, 1, line, rows, k, c, first, m, k->channels - c);
        first += m;
    }
}

/* The forms differ in speed alone. */
static void depthwise_walk(const depthwise_line *line, const depthwise_rows *rows,
                           const depthwise_task *k)
{
#define FORM(MOVE, TAPS)                                                                           \
    case MOVE * 8 + TAPS:                                                                          \
        depthwise_blocks(TAPS, MOVE, line, rows, k);                                               \
        break;
    switch (depthwise_form(line)) {
        FORM(1, 1)
        FORM(1, 2)
        FORM(1, 3)
        FORM(1, 5)
        FORM(1, 7)
        FORM(2, 3)
        FORM(2, 5)
    default:
        depthwise_blocks(0, 0, line, rows, k);
    }
#undef FORM
}

/* The rows that the taps of D and H lead to, for an image of size[0] × size[1] × size[2]; x and w
 * move on to the first one. */
INLINE depthwise_rows depthwise_rows_of(const fc_window *g, depthwise_taps d, depthwise_taps h,
                                        ptrdiff_t sample, const ptrdiff_t *size, ptrdiff_t x_stride,
                                        ptrdiff_t channels, const real **x, ptrdiff_t *w)
{
    const ptrdiff_t line = size[2] * x_stride, w_row = g->window[2] * channels;
    d = taps_meeting(d, size[0]);
    h = taps_meeting(h, size[1]);
    if (d.count && h.count) /* else nothing is read */
        *x += ((sample * size[0] + d.source) * size[1] + h.source) * line;
    *w = (d.k * g->window[1] + h.k) * w_row;
    return (depthwise_rows){{d.count, h.count},
                            {d.hop * size[1] * line, h.hop * line},
                            {d.k_hop * g->window[1] * w_row, h.k_hop * w_row}};
}

/* Rows [first, last) of (n, OD, OH): y[o, c] = Σ_k x[o · stride + k · dilation − pad, c] · w[k, c], by
 * way of the epilogue. w is (KD, KH, KW, channels). */
static void depthwise_forward(const fc_window *g, ptrdiff_t channels, const real *x,
                              ptrdiff_t x_stride, const real *w, const fc_epilogue *e, real *y,
                              ptrdiff_t y_stride, ptrdiff_t first, ptrdiff_t last)
{
    const depthwise_line line = {taps_forward(g, 2, 0), g->out[2], g->stride[2], g->in[2]};
    const real *residual = e->residual;
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->out);
        const real *source = x;
        ptrdiff_t at;
        const depthwise_rows rows =
            depthwise_rows_of(g, taps_forward(g, 0, r.d), taps_forward(g, 1, r.h), r.sample, g->in,
                              x_stride, channels, &source, &at);
        const depthwise_task task = {channels,
                                     x_stride,
                                     line.taps.k_hop * channels,
                                     y_stride,
                                     source,
                                     w + at + line.taps.k * channels,
                                     e,
                                     residual ? residual + row * g->out[2] * e->residual_stride
                                              : NULL,
                                     y + row * g->out[2] * y_stride,
                                     rows_ahead_forward(g, x, r, x_stride),
                                     rows_ahead(y, row + 1, row + 2, last, g->out[2] * y_stride)};
        depthwise_walk(&line, &rows, &task);
    }
}

/* Rows [first, last) of (n, ID, IH): dx[i, c] = Σ dy[o, c] · w[k, c] over the o and k with
 * o · stride + k · dilation − pad = i. */
static void depthwise_input_gradient(const fc_window *g, ptrdiff_t channels, const real *dy,
                                     ptrdiff_t dy_stride, const real *w, real *dx,
                                     ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t step = g->stride[2], phases = step < g->in[2] ? step : g->in[2];
    const fc_epilogue nothing = {.bias = NULL};
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->in);
        const real *source = dy;
        ptrdiff_t at;
        const depthwise_rows rows =
            depthwise_rows_of(g, taps_backward(g, 0, r.d), taps_backward(g, 1, r.h), r.sample,
                              g->out, dy_stride, channels, &source, &at);
        depthwise_ahead reads = rows_ahead_backward(g, dy, r, dy_stride);
        depthwise_ahead writes = rows_ahead(dx, row + 1, row + 2, last, g->in[2] * dx_stride);
        for (ptrdiff_t phase = 0; phase < phases; phase++, reads.size = writes.size = 0) {
            const depthwise_line line = {taps_backward(g, 2, phase),
                                         (g->in[2] - phase + step - 1) / step, 1, g->out[2]};
            const depthwise_task task = {channels,
                                         dy_stride,
                                         line.taps.k_hop * channels,
                                         step * dx_stride,
                                         source,
                                         w + at + line.taps.k * channels,
                                         &nothing,
                                         NULL,
                                         dx + (row * g->in[2] + phase) * dx_stride,
                                         reads,
                                         writes};
            depthwise_walk(&line, &rows, &task);
        }
    }
}

/* n channels of `rows` tap rows over a row of dy, taps side by side and known to the compiler:
 * all sums in registers, and every column of x is loaded once for a stretch of pixels. */
INLINE void depthwise_sums(const int rows, const int taps, const int move,
                           const depthwise_line *line, const real *const *x, ptrdiff_t x_stride,
                           const real *dy, ptrdiff_t dy_stride, real *const *dw, ptrdiff_t w_stride,
                           ptrdiff_t n)
{
    const int columns = (DEPTHWISE_STRETCH - 1) * move + taps;
    vec sum[16];
    ptrdiff_t o = 0;
    UNROLL(4)
    for (int r = 0; r < rows; r++) {
        UNROLL(8)
        for (int t = 0; t < taps; t++)
            sum[r * taps + t] = load_part(dw[r] + t * w_stride, n);
    }
    while (o < line->count) {
        const ptrdiff_t start = line->taps.source + o * move;
        vec g[DEPTHWISE_STRETCH];
        if (o + DEPTHWISE_STRETCH <= line->count && start >= 0 && start + columns <= line->size) {
            UNROLL(4)
            for (int p = 0; p < DEPTHWISE_STRETCH; p++)
                g[p] = load_part(dy + (o + p) * dy_stride, n);
            UNROLL(4)
            for (int r = 0; r < rows; r++) {
                const real *xr = x[r] + start * x_stride;
                UNROLL(16)
                for (int j = 0; j < columns; j++) {
                    const vec a = load_next(&xr, xr, x_stride, n);
                    UNROLL(8)
                    for (int t = 0; t < taps; t++)
                        if ((j - t) % move == 0 && j >= t && (j - t) / move < DEPTHWISE_STRETCH)
                            sum[r * taps + t] = v_fma(a, g[(j - t) / move], sum[r * taps + t]);
                }
            }
            o += DEPTHWISE_STRETCH;
        } else {
            g[0] = load_part(dy + o * dy_stride, n);
            UNROLL(8)
            for (int t = 0; t < taps; t++)
                if ((size_t)(start + t) < (size_t)line->size) {
                    UNROLL(4)
                    for (int r = 0; r < rows; r++)
                        sum[r * taps + t] = v_fma(load_part(x[r] + (start + t) * x_stride, n), g[0],
                                                  sum[r * taps + t]);
                }
            o++;
        }
    }
    UNROLL(4)
    for (int r = 0; r < rows; r++) {
        UNROLL(8)
        for (int t = 0; t < taps; t++)
            store_part(dw[r] + t * w_stride, sum[r * taps + t], n);
    }
}

/* The same of one tap row and any line, a few taps at a time. */
INLINE void depthwise_sums_any(const depthwise_line *line, const real *x, ptrdiff_t x_stride,
                               const real *dy, ptrdiff_t dy_stride, real *dw, ptrdiff_t w_stride,
                               ptrdiff_t n)
{
    const ptrdiff_t size = line->size;
    for (ptrdiff_t t0 = 0; t0 < line->taps.count; t0 += DEPTHWISE_GROUP) {
        const ptrdiff_t rest = line->taps.count - t0;
        vec sum[DEPTHWISE_GROUP];
        UNROLL(4)
        for (int t = 0; t < DEPTHWISE_GROUP; t++)
            sum[t] = t < rest ? load_part(dw + (t0 + t) * w_stride, n) : v_zero();
        ptrdiff_t start = line->taps.source + t0 * line->taps.hop;
        for (ptrdiff_t o = 0; o < line->count; o++, start += line->move) {
            const vec g = load_part(dy + o * dy_stride, n);
            UNROLL(4)
            for (int t = 0; t < DEPTHWISE_GROUP; t++) {
                const ptrdiff_t at = start + t * line->taps.hop;
                if (t < rest && (size_t)at < (size_t)size)
                    sum[t] = v_fma(load_part(x + at * x_stride, n), g, sum[t]);
            }
        }
        UNROLL(4)
        for (int t = 0; t < DEPTHWISE_GROUP; t++)
            if (t < rest)
                store_part(dw + (t0 + t) * w_stride, sum[t], n);
    }
}

/* n channels of a row of dy and all tap rows that it meets: dw[k] += Σ x · dy. */
INLINE void depthwise_row_sums(const depthwise_line *line, const depthwise_rows *rows,
                               const real *x, ptrdiff_t x_stride, const real *dy,
                               ptrdiff_t dy_stride, real *dw, ptrdiff_t w_stride, ptrdiff_t n)
{
    const ptrdiff_t form = depthwise_form(line);
    for (ptrdiff_t d = 0; d < rows->count[0]; d++)
        for (ptrdiff_t h = 0; h < rows->count[1];) {
            const ptrdiff_t left = rows->count[1] - h;
            const real *xr[3];
            real *dwr[3];
            for (int r = 0; r < 3; r++) {
                const ptrdiff_t row = r < left ? h + r : h;
                xr[r] = x + d * rows->x_step[0] + row * rows->x_step[1];
                dwr[r] = dw + d * rows->w_step[0] + row * rows->w_step[1];
            }
#define FORM(ROWS, MOVE, TAPS)                                                                     \
    if (form == MOVE * 8 + TAPS && left >= ROWS) {                                                 \
        depthwise_sums(ROWS, TAPS, MOVE, line, xr, x_stride, dy, dy_stride, dwr, w_stride, n);     \
        h += ROWS;                                                                                 \
        continue;                                                                                  \
    }
            FORM(3, 1, 3)
            FORM(3, 2, 3)
            FORM(2, 1, 3)
            FORM(2, 2, 3)
            FORM(2, 1, 5)
            FORM(2, 2, 5)
            FORM(1, 1, 5)
            FORM(1, 1, 7)
#undef FORM
            depthwise_sums_any(line, xr[0], x_stride, dy, dy_stride, dwr[0], w_stride, n);
            h++;
        }
}

/* dw[k, c] = Σ x[o · stride + k · dilation − pad, c] · dy[o, c] over the rows [first, last) of
 * (n, OD, OH). dw (KD, KH, KW, channels) is overwritten. */
static void depthwise_weight_gradient(const fc_window *g, ptrdiff_t channels, const real *x,
                                      ptrdiff_t x_stride, const real *dy, ptrdiff_t dy_stride,
                                      real *dw, ptrdiff_t first, ptrdiff_t last)
{
    const depthwise_line line = {taps_forward(g, 2, 0), g->out[2], g->stride[2], g->in[2]};
    const ptrdiff_t parts = (channels + VLEN - 1) / VLEN, dy_row = g->out[2] * dy_stride;
    fill(g->window[0] * g->window[1] * g->window[2], channels, 0, dw, channels);
    for (ptrdiff_t row = first; row < last; row++) {
        const pool_row r = pool_row_of(row, g->out);
        const depthwise_ahead x_ahead = rows_ahead_forward(g, x, r, x_stride);
        const depthwise_ahead dy_ahead = rows_ahead(dy, row + 1, row + 2, last, dy_row);
        const real *source = x, *gradient = dy + row * dy_row;
        ptrdiff_t at;
        const depthwise_rows rows =
            depthwise_rows_of(g, taps_forward(g, 0, r.d), taps_forward(g, 1, r.h), r.sample, g->in,
                              x_stride, channels, &source, &at);
        for (ptrdiff_t part = 0, c = 0; part < parts; part++, c += VLEN) {
            fetch(x_ahead, part, parts);
            fetch(dy_ahead, part, parts);
            if (c + VLEN <= channels)
                depthwise_row_sums(&line, &rows, source + c, x_stride, gradient + c, dy_stride,
                                   dw + at + c, channels, VLEN);
            else
                depthwise_row_sums(&line, &rows, source + c, x_stride, gradient + c, dy_stride,
                                   dw + at + c, channels, channels - c);
        }
    }
}

/* total[i] (+)= Σ_p copies[p · size + i], in the order of the pieces, for first ≤ i < last. */
static void sum_pieces(ptrdiff_t pieces, ptrdiff_t size, ptrdiff_t first, ptrdiff_t last,
                       int accumulate, const real *copies, real *total)
{
    for (ptrdiff_t i = first; i < last; i += VLEN) {
        const ptrdiff_t n = last - i < VLEN ? last - i : VLEN;
        vec sum = load_part(copies + i, n);
        for (ptrdiff_t p = 1; p < pieces; p++)
            sum = v_add(sum, load_part(copies + p * size + i, n));
        store_part(total + i, accumulate ? v_add(load_part(total + i, n), sum) : sum, n);
    }
}

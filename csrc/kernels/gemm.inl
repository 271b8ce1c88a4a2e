/* The two micro-kernels that carry every matrix product: convolutions and dense layers, forward and
 * backward. Both keep a tile of sums in registers; each sum adds its terms in one fixed order, so a
 * result never depends on how an image is cut into tiles. */

#define GATHER_NR (2 * VLEN)
#define OUTER_NR (2 * VLEN)
#define DOT_MR (GATHER_MR > 6 ? 6 : 2)
#define DOT_NR 4
#define SWEEP_MR (GATHER_MR > 6 ? 4 : 2)
#define SWEEP_K 4

enum {
    FETCH = 64 / sizeof(real), /* elements of a cache line */
    AHEAD = 16,                /* pixels that outer_tile fetches ahead */
};

/* Rows of w are rows of the panel: copied, the rest of each row zero. */
static void pack_rows(const real *w, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t cols,
                      real *panel)
{
    for (ptrdiff_t k = 0; k < rows; k++, w += row_stride, panel += GATHER_NR)
        for (ptrdiff_t j = 0; j < GATHER_NR; j += VLEN) {
            v_store(panel + j, j + VLEN <= cols ? v_load(w + j)
                               : j < cols       ? v_load_tail(w + j, cols - j)
                                                : v_zero());
        }
}

/* Rows of w are columns of the panel: transposed in blocks that the L1 cache holds. */
static void pack_columns(const real *w, ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols,
                         real *panel)
{
    enum { BLOCK = 64 };
    for (ptrdiff_t first = 0; first < rows; first += BLOCK) {
        const ptrdiff_t last = first + BLOCK < rows ? first + BLOCK : rows;
        ptrdiff_t j = 0;
        for (; j + 4 <= cols; j += 4) {
            const real *from = w + j * col_stride;
            ptrdiff_t k = first;
            for (; k + 4 <= last; k += 4)
                transpose_quad(from + k, col_stride, panel + k * GATHER_NR + j, GATHER_NR);
            for (; k < last; k++)
                for (int i = 0; i < 4; i++)
                    panel[k * GATHER_NR + j + i] = from[i * col_stride + k];
        }
        for (; j < GATHER_NR; j++)
            for (ptrdiff_t k = first; k < last; k++)
                panel[k * GATHER_NR + j] = j < cols ? w[j * col_stride + k] : 0;
    }
}

/* panel[k][0..GATHER_NR) = w[k * row_stride + j * col_stride], zero for j ≥ cols; one of the strides
 * is 1. One panel holds the columns (output channels) of one tile for k = 0..rows. */
static void pack_panel(const real *w, ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows,
                       ptrdiff_t cols, real *panel)
{
    if (col_stride == 1)
        pack_rows(w, row_stride, rows, cols, panel);
    else
        pack_columns(w, col_stride, rows, cols, panel);
}

/* One form of gather_tile with m rows and nv vectors of columns known to the compiler. The sums go to
 * y, after a ReLU if there is one, or to `aside`, GATHER_NR a row, where the epilogue has more. */
INLINE void gather_form(const int m, const int nv, ptrdiff_t n, ptrdiff_t taps, ptrdiff_t ic,
                        const real *const *x, const real *const *next, const real *const *w,
                        ptrdiff_t w_stride, const real *bias, int accumulate, int relu, int stream,
                        real *const *y, real *aside)
{
    vec sum[GATHER_MR][2];
    const ptrdiff_t last = n - (nv - 1) * VLEN; /* columns of the last vector, 1..VLEN */

    UNROLL(16)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int v = 0; v < nv; v++) {
            const real *start = accumulate ? y[r] + v * VLEN : bias ? bias + v * VLEN : NULL;
            if (!start)
                sum[r][v] = v_zero();
            else if (v == nv - 1 && last < VLEN)
                sum[r][v] = v_load_tail(start, last);
            else
                sum[r][v] = v_load(start);
        }
    }

    /* fetch the lines that will be written while the sums run */
    if (!stream) {
        UNROLL(16)
        for (int r = 0; r < m; r++) {
            UNROLL(2)
            for (int v = 0; v < nv; v++)
                __builtin_prefetch(y[r] + v * VLEN, 1);
        }
    }

    for (ptrdiff_t t = 0; t < taps; t++) {
        const real *const *xt = x + t * GATHER_MR;
        const real *wt = w[t];
        for (ptrdiff_t i = 0, end = 0; i < ic;) {
            if (nv == 2 && next) { /* one line of each of its rows */
                UNROLL(16)
                for (int r = 0; r < m; r++)
                    __builtin_prefetch(next[r] + i);
            }
            end = nv == 2 && next && i + FETCH < ic ? i + FETCH : ic;
            for (; i < end; i++, wt += w_stride) {
                vec wv[2];
                UNROLL(2)
                for (int v = 0; v < nv; v++) {
                    wv[v] = v_load(wt + v * VLEN);
                    if (nv == 2)
                        __builtin_prefetch(wt + 8 * w_stride + v * VLEN);
                }
                UNROLL(16)
                for (int r = 0; r < m; r++) {
                    const vec a = v_set1(xt[r][i]);
                    UNROLL(2)
                    for (int v = 0; v < nv; v++)
                        sum[r][v] = v_fma(a, wv[v], sum[r][v]);
                }
            }
        }
    }

    if (aside) {
        UNROLL(16)
        for (int r = 0; r < m; r++) {
            UNROLL(2)
            for (int v = 0; v < nv; v++)
                v_store(aside + r * GATHER_NR + v * VLEN, sum[r][v]);
        }
        return;
    }
    UNROLL(16)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int v = 0; v < nv; v++) {
            const vec a = relu ? v_max(v_zero(), sum[r][v]) : sum[r][v]; /* NaN stays NaN */
            if (v == nv - 1 && last < VLEN)
                v_store_tail(y[r] + v * VLEN, a, last);
            else if (stream)
                v_stream(y[r] + v * VLEN, a);
            else
                v_store(y[r] + v * VLEN, a);
        }
    }
}

#ifdef HALF
/* gather_form for n ≤ HALF columns: the same sums in half as wide registers. */
INLINE void gather_half_form(const int m, ptrdiff_t n, ptrdiff_t taps, ptrdiff_t ic,
                             const real *const *x, const real *const *w, ptrdiff_t w_stride,
                             const real *bias, int accumulate, int relu, real *const *y,
                             real *aside)
{
    hvec sum[GATHER_MR];
    UNROLL(16)
    for (int r = 0; r < m; r++)
        sum[r] = accumulate ? h_load_some(y[r], n) : bias ? h_load_some(bias, n) : h_set1(0);
    for (ptrdiff_t t = 0; t < taps; t++) {
        const real *const *xt = x + t * GATHER_MR;
        const real *wt = w[t];
        for (ptrdiff_t i = 0; i < ic; i++, wt += w_stride) {
            const hvec wv = h_load(wt);
            UNROLL(16)
            for (int r = 0; r < m; r++)
                sum[r] = h_fma(h_set1(xt[r][i]), wv, sum[r]);
        }
    }
    UNROLL(16)
    for (int r = 0; r < m; r++) {
        const vec a = h_widen(sum[r]);
        h_store_some(aside ? aside + r * GATHER_NR : y[r], h_of(relu ? v_max(v_zero(), a) : a), n);
    }
}
#else
#define HALF 0
#define gather_half_form(...)
#endif

/* One vector of columns of gather_finish, the kind of activation known to the compiler. */
INLINE void finish_form(const int kind, ptrdiff_t m, ptrdiff_t n, ptrdiff_t c, const real *aside,
                        const fc_epilogue *e, const real *const *residual, int stream,
                        real *const *y)
{
    epilogue_columns columns = epilogue_of(e, c, n);
    columns.kind = kind;
    UNROLL(2)
    for (ptrdiff_t r = 0; r < m; r++) {
        const vec a = epilogue_value(&columns, v_load(aside + r * GATHER_NR + c),
                                     residual ? residual[r] + c : NULL, n);
        if (stream && n == VLEN)
            v_stream(y[r] + c, a);
        else
            store_part(y[r] + c, a, n);
    }
}

/* y[r][0..n) = the rest of the epilogue of the sums, which stand aside, GATHER_NR a row. They go
 * through the nearest cache: what the epilogue needs beside them would drive sums out of registers
 * while terms are still added. */
static __attribute__((noinline)) void gather_finish(ptrdiff_t m, ptrdiff_t n, const real *aside,
                                                    const fc_epilogue *e,
                                                    const real *const *residual, int stream,
                                                    real *const *y)
{
    const fc_activation *f = &e->f;
    for (ptrdiff_t c = 0; c < n; c += VLEN) {
#define WITH(KIND)                                                                                 \
    if (n - c >= VLEN)                                                                             \
        finish_form(KIND, m, VLEN, c, aside, e, residual, stream, y);                              \
    else                                                                                           \
        finish_form(KIND, m, n - c, c, aside, e, residual, stream, y);
        FOR_KINDS(WITH)
#undef WITH
    }
}

/* y[r][0..n) (+)= bias + Σ_t Σ_i x[t][r][i] · w[t][i][0..n), then the rest of the epilogue.
 *
 * m ≤ GATHER_MR output pixels at y[r], n ≤ GATHER_NR output channels; x is [taps][GATHER_MR]
 * pointers to ic input channels each (a row of zeros where padding falls); w[t] is ic rows of
 * GATHER_NR packed weights, w_stride apart. accumulate adds to y instead of starting at the bias. The
 * sums have no more terms where `final` says so: then the epilogue's norm, what stands at residual[r]
 * (NULL: nothing) and the activation follow. The vectors of e (NULL: there is none) begin at column 0
 * of the tile.
 *
 * The rest is for speed alone. next is NULL or the pointers of a tile that follows, m of which are
 * fetched into the cache meanwhile. stream writes past the caches: then every y[r] is a multiple of the vector. */
static void gather_tile(ptrdiff_t m, ptrdiff_t n, ptrdiff_t taps, ptrdiff_t ic,
                        const real *const *x, const real *const *next, const real *const *w,
                        ptrdiff_t w_stride, const fc_epilogue *e, int accumulate, int final,
                        const real *const *residual, int stream, real *const *y)
{
    real sums[GATHER_MR * GATHER_NR];
    const real *bias = e ? e->bias : NULL;
    const int more = final && epilogue_does(e), relu = !more && final && e && e->f.kind;
    real *aside = more ? sums : NULL;
    for (ptrdiff_t r = 0; more && residual && r < m; r++) {
        __builtin_prefetch(residual[r]);
        __builtin_prefetch(residual[r] + VLEN);
    }
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        if (n > VLEN)                                                                              \
            gather_form(M, 2, n, taps, ic, x, next, w, w_stride, bias, accumulate, relu, stream,   \
                        y, aside);                                                                 \
        else if (n <= HALF)                                                                        \
            gather_half_form(M, n, taps, ic, x, w, w_stride, bias, accumulate, relu, y, aside);    \
        else                                                                                       \
            gather_form(M, 1, n, taps, ic, x, next, w, w_stride, bias, accumulate, relu, stream,   \
                        y, aside);                                                                 \
        break;
    switch (m) {
        FORM(1)
        FORM(2)
        FORM(3)
        FORM(4)
        FORM(5)
        FORM(6)
#if GATHER_MR > 6
        FORM(7)
        FORM(8)
        FORM(9)
        FORM(10)
        FORM(11)
        FORM(12)
#endif
#if GATHER_MR > 12
        FORM(13)
        FORM(14)
#endif
    }
#undef FORM
    if (more)
        gather_finish(m, n, aside, e, residual, stream, y);
}

/* Channels of pixels side by side, as outer_tile likes them: to[j / width][p][j % width] = x[p][j]
 * for j < cols and pixel p of a walk with these counts and steps. A pixel has `pitch` numbers, width
 * rounded up to whole vectors (what is past the width is anything but NaN), a block of `width`
 * channels `stride`. */
static void pack_pixels(const ptrdiff_t *count, const ptrdiff_t *step, ptrdiff_t cols,
                        ptrdiff_t width, ptrdiff_t pitch, const real *x, real *to, ptrdiff_t stride)
{
    for (ptrdiff_t plane = 0; plane < count[0]; plane++)
        for (ptrdiff_t row = 0; row < count[1]; row++) {
            const real *from = x + plane * step[0] + row * step[1];
            for (ptrdiff_t p = 0; p < count[2]; p++, from += step[2], to += pitch) {
                real *end = to;
                for (ptrdiff_t j = 0; j < cols; j += width, end += stride)
                    for (ptrdiff_t i = 0; i < pitch && j + i < cols; i += VLEN)
                        v_store(end + i, j + i + VLEN <= cols
                                             ? v_load(from + j + i)
                                             : v_load_tail(from + j + i, cols - j - i));
            }
        }
}

/* Fetches into the cache what pack_pixels will read of pixels first..last of a walk. */
static void fetch_pixels(const ptrdiff_t *count, const ptrdiff_t *step, ptrdiff_t first,
                         ptrdiff_t last, ptrdiff_t cols, const real *x)
{
    for (ptrdiff_t p = first; p < last; p++) {
        const real *from = x + p % count[2] * step[2] + p / count[2] % count[1] * step[1] +
                           p / count[2] / count[1] * step[0];
        for (ptrdiff_t j = 0; j < cols; j += FETCH)
            __builtin_prefetch(from + j);
    }
}

/* Fetches a stretch of memory into the L2 cache, long before it is read or written. */
static void fetch_stretch(const real *from, const real *to)
{
    for (; from < to; from += FETCH)
        __builtin_prefetch(from, 0, 2);
}

/* One form of outer_tile with m rows and nv vectors of columns known to the compiler. */
INLINE void outer_form(const int m, const int nv, ptrdiff_t n, const fc_walk *walk, const real *x,
                       const real *dy, const real *const *next, ptrdiff_t lines, real *dw,
                       ptrdiff_t dw_stride, int accumulate, int stream)
{
    vec sum[OUTER_MR][2];
    const ptrdiff_t last = n - (nv - 1) * VLEN; /* columns of the last vector, 1..VLEN */
    const ptrdiff_t x_step = walk->x_step[2], dy_step = walk->dy_step[2];
    const real *const *const end = next + lines;

    UNROLL(16)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int v = 0; v < nv; v++) {
            const real *start = dw + r * dw_stride + v * VLEN;
            sum[r][v] = !accumulate                  ? v_zero()
                        : v == nv - 1 && last < VLEN ? v_load_tail(start, last)
                                                     : v_load(start);
        }
    }

    for (ptrdiff_t plane = 0; plane < walk->count[0]; plane++)
        for (ptrdiff_t row = 0; row < walk->count[1]; row++) {
            const real *xp = x + plane * walk->x_step[0] + row * walk->x_step[1];
            const real *dyp = dy + plane * walk->dy_step[0] + row * walk->dy_step[1];
            for (ptrdiff_t p = 0; p < walk->count[2]; p++, xp += x_step, dyp += dy_step) {
                vec g[2];
                UNROLL(2)
                for (int v = 0; v < nv; v++)
                    g[v] = v == nv - 1 && last < VLEN ? v_load_tail(dyp + v * VLEN, last)
                                                      : v_load(dyp + v * VLEN);
                __builtin_prefetch(xp + AHEAD * x_step);
                __builtin_prefetch(dyp + AHEAD * dy_step);
                __builtin_prefetch(dyp + AHEAD * dy_step + VLEN);
                if (next != end)
                    __builtin_prefetch(*next++);
                UNROLL(16)
                for (int r = 0; r < m; r++) {
                    const vec a = v_set1(xp[r]);
                    UNROLL(2)
                    for (int v = 0; v < nv; v++)
                        sum[r][v] = v_fma(a, g[v], sum[r][v]);
                }
            }
        }

    UNROLL(16)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int v = 0; v < nv; v++) {
            real *to = dw + r * dw_stride + v * VLEN;
            if (v == nv - 1 && last < VLEN)
                v_store_tail(to, sum[r][v], last);
            else if (stream)
                v_stream(to, sum[r][v]);
            else
                v_store(to, sum[r][v]);
        }
    }
}

/* dw[i][0..n) (+)= Σ_p x[p][i] · dy[p][0..n), i < m: the weight gradient of one tap for m ≤ OUTER_MR
 * input and n ≤ OUTER_NR output channels over the pixels of a walk. stream writes past the caches:
 * then every row of dw is a multiple of the vector. next are so many addresses that are fetched into
 * the cache meanwhile, one with each pixel: a core that asks memory for many lines at once waits. */
static void outer_tile(ptrdiff_t m, ptrdiff_t n, const fc_walk *walk, const real *x, const real *dy,
                       const real *const *next, ptrdiff_t lines, real *dw, ptrdiff_t dw_stride,
                       int accumulate, int stream)
{
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        if (n > VLEN)                                                                              \
            outer_form(M, 2, n, walk, x, dy, next, lines, dw, dw_stride, accumulate, stream);      \
        else                                                                                       \
            outer_form(M, 1, n, walk, x, dy, next, lines, dw, dw_stride, accumulate, stream);      \
        break;
    switch (m) {
        FORM(1)
        FORM(2)
        FORM(3)
        FORM(4)
        FORM(5)
        FORM(6)
#if OUTER_MR > 6
        FORM(7)
        FORM(8)
        FORM(9)
        FORM(10)
        FORM(11)
        FORM(12)
#endif
#if OUTER_MR > 12
        FORM(13)
        FORM(14)
#endif
    }
#undef FORM
}

/* The sum of the lanes of a vector: halves are added until one number is left. */
INLINE real sum_lanes(vec a)
{
    real lanes[VLEN];
    v_store(lanes, a);
    UNROLL(4)
    for (int half = VLEN / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

/* One form of dot_tile with m rows of x and n of w known to the compiler. */
INLINE void dot_form(const int m, const int n, ptrdiff_t depth, const real *x, ptrdiff_t x_stride,
                     const real *w, ptrdiff_t w_stride, real *y, ptrdiff_t y_stride)
{
    vec sum[DOT_MR][DOT_NR];
    ptrdiff_t k = 0;
    UNROLL(8)
    for (int r = 0; r < m; r++) {
        UNROLL(4)
        for (int j = 0; j < n; j++)
            sum[r][j] = v_zero();
    }
    for (; k + VLEN <= depth; k += VLEN) {
        vec wv[DOT_NR];
        UNROLL(4)
        for (int j = 0; j < n; j++) {
            wv[j] = v_load(w + j * w_stride + k);
            __builtin_prefetch(w + j * w_stride + k + AHEAD * FETCH);
        }
        UNROLL(8)
        for (int r = 0; r < m; r++) {
            const vec a = v_load(x + r * x_stride + k);
            UNROLL(4)
            for (int j = 0; j < n; j++)
                sum[r][j] = v_fma(a, wv[j], sum[r][j]);
        }
    }
    UNROLL(8)
    for (int r = 0; r < m; r++) {
        UNROLL(4)
        for (int j = 0; j < n; j++) {
            if (k < depth)
                sum[r][j] = v_fma(v_load_tail(x + r * x_stride + k, depth - k),
                                  v_load_tail(w + j * w_stride + k, depth - k), sum[r][j]);
            y[r * y_stride + j] = sum_lanes(sum[r][j]);
        }
    }
}

/* y[r][j] = Σ_k x[r][k] · w[j][k] for m ≤ DOT_MR rows of x and n ≤ DOT_NR rows of w: each lane adds
 * every VLEN-th term, then the lanes are added. For few rows of x, as fast as w can be read. */
static void dot_tile(ptrdiff_t m, ptrdiff_t n, ptrdiff_t depth, const real *x, ptrdiff_t x_stride,
                     const real *w, ptrdiff_t w_stride, real *y, ptrdiff_t y_stride)
{
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        if (n == DOT_NR)                                                                           \
            dot_form(M, DOT_NR, depth, x, x_stride, w, w_stride, y, y_stride);                     \
        else                                                                                       \
            for (ptrdiff_t j = 0; j < n; j++)                                                      \
                dot_form(M, 1, depth, x, x_stride, w + j * w_stride, w_stride, y + j, y_stride);   \
        break;
    switch (m) {
        FORM(1)
        FORM(2)
#if DOT_MR > 2
        FORM(3)
        FORM(4)
        FORM(5)
        FORM(6)
#endif
    }
#undef FORM
}

/* One form of sweep_tile with m rows of x and k rows of w known to the compiler. */
INLINE void sweep_form(const int m, const int k, ptrdiff_t n, const real *x, ptrdiff_t x_stride,
                       const real *w, ptrdiff_t w_stride, real *y, ptrdiff_t y_stride)
{
    vec xv[SWEEP_MR][SWEEP_K];
    UNROLL(4)
    for (int r = 0; r < m; r++) {
        UNROLL(4)
        for (int i = 0; i < k; i++)
            xv[r][i] = v_set1(x[r * x_stride + i]);
    }
    for (ptrdiff_t j = 0; j < n; j += VLEN) {
        const ptrdiff_t rest = n - j;
        vec wv[SWEEP_K];
        UNROLL(4)
        for (int i = 0; i < k; i++) {
            wv[i] = rest < VLEN ? v_load_tail(w + i * w_stride + j, rest)
                                : v_load(w + i * w_stride + j);
            __builtin_prefetch(w + (k + i) * w_stride + j); /* of the next call */
        }
        UNROLL(4)
        for (int r = 0; r < m; r++) {
            real *end = y + r * y_stride + j;
            vec sum = rest < VLEN ? v_load_tail(end, rest) : v_load(end);
            UNROLL(4)
            for (int i = 0; i < k; i++)
                sum = v_fma(xv[r][i], wv[i], sum);
            if (rest < VLEN)
                v_store_tail(end, sum, rest);
            else
                v_store(end, sum);
        }
    }
}

/* y[r][0..n) += Σ_i x[r][i] · w[i][0..n) for m ≤ SWEEP_MR rows of x and k ≤ SWEEP_K rows of w, term
 * by term as in gather_tile. For few rows of x: w is read along its rows. */
static void sweep_tile(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const real *x, ptrdiff_t x_stride,
                       const real *w, ptrdiff_t w_stride, real *y, ptrdiff_t y_stride)
{
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        if (k == SWEEP_K)                                                                          \
            sweep_form(M, SWEEP_K, n, x, x_stride, w, w_stride, y, y_stride);                      \
        else                                                                                       \
            for (ptrdiff_t i = 0; i < k; i++)                                                      \
                sweep_form(M, 1, n, x + i, x_stride, w + i * w_stride, w_stride, y, y_stride);     \
        break;
    switch (m) {
        FORM(1)
        FORM(2)
#if SWEEP_MR > 2
        FORM(3)
        FORM(4)
#endif
    }
#undef FORM
}

/* What was streamed is seen by all threads from here on. */
static void fence(void) { v_fence(); }

/* Products of operands rounded to bfloat16, sums in float: twice the multiplications of a vector of
 * floats. Everything in memory stays float; what a tile reads is rounded as it is copied.
 *
 * Two terms of a sum are one *pair*: two channels in the gather, two pixels in the weight gradient.
 * The second is added first, then the first, rounded after each (so the CPU has it). Where a sum has
 * an odd number of terms, the last pair has a zero. Each sum adds its pairs in one fixed order. */
#pragma push_macro("real")
#undef real
#include "kernels.h"
#pragma pop_macro("real")

#include "math.inl"
#include "quad.inl"

enum {
    PAIR_MR = GATHER_MR,
    PAIR_NR = 2 * VLEN,
    PAIR_BLOCK = VLEN, /* pairs of a row that lie side by side in a copy */
    PAIR_AHEAD = 8,    /* rows of a panel that a tile fetches ahead */
};

INLINE vec load_few(const float *p, ptrdiff_t n) /* zeros past the n-th */
{
    return n >= VLEN ? v_load(p) : n > 0 ? v_load_tail(p, n) : v_zero();
}

/* to[block][PAIR_MR][PAIR_BLOCK]: m ≤ PAIR_MR rows of x, `depth` channels each, zeros behind them. */
static void pair_pack_rows(ptrdiff_t m, ptrdiff_t depth, const float *const *x, fc_pair *to)
{
    for (ptrdiff_t r = 0; r < m; r++) {
        fc_pair *end = to + r * PAIR_BLOCK;
        for (ptrdiff_t k = 0; k < depth; k += 2 * VLEN, end += PAIR_MR * PAIR_BLOCK)
            p_store(end, p_join(load_few(x[r] + k, depth - k),
                                load_few(x[r] + k + VLEN, depth - k - VLEN)));
    }
}

/* to[pair][pitch]: channels first..first + cols of `count` pixels at x[p], two pixels a pair; pitch is
 * cols rounded up to whole vectors, zeros there. */
static void pair_pack_pixels(ptrdiff_t count, const float *const *x, ptrdiff_t first,
                             ptrdiff_t cols, ptrdiff_t pitch, fc_pair *to)
{
    for (ptrdiff_t p = 0; p < count; p += 2, to += pitch) {
        const float *one = x[p] + first, *other = p + 1 < count ? x[p + 1] + first : NULL;
        for (ptrdiff_t j = 0; j < cols; j += VLEN)
            p_store(to + j, p_zip(load_few(one + j, cols - j),
                                  other ? load_few(other + j, cols - j) : v_zero()));
    }
}

/* Rows of w are rows of the panel. */
static void pair_rows(const float *w, ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t cols,
                      fc_pair *panel)
{
    for (ptrdiff_t k = 0; k < rows; k += 2, w += 2 * row_stride, panel += PAIR_NR)
        for (ptrdiff_t j = 0; j < PAIR_NR; j += VLEN)
            p_store(panel + j,
                    p_zip(load_few(w + j, cols - j),
                          k + 1 < rows ? load_few(w + row_stride + j, cols - j) : v_zero()));
}

/* Rows of w are columns of the panel: pairs lie side by side already, and are transposed as if they
 * were floats. */
static void pair_columns(const float *w, ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols,
                         fc_pair *panel)
{
    fc_pair block[PAIR_NR][PAIR_BLOCK];
    for (ptrdiff_t k = 0; k < rows; k += 2 * PAIR_BLOCK, panel += PAIR_BLOCK * PAIR_NR) {
        for (ptrdiff_t j = 0; j < PAIR_NR; j++) {
            const float *from = w + j * col_stride + k;
            const ptrdiff_t some = j < cols ? rows - k : 0;
            p_store(block[j], p_join(load_few(from, some), load_few(from + VLEN, some - VLEN)));
        }
        const ptrdiff_t pairs_here = (rows - k + 1) / 2;
        for (ptrdiff_t i = 0; i < PAIR_BLOCK && i < pairs_here; i += 4) {
            if (i + 4 <= pairs_here) {
                for (ptrdiff_t j = 0; j < PAIR_NR; j += 4)
                    transpose_quad((const real *)&block[j][i], PAIR_BLOCK,
                                   (real *)panel + i * PAIR_NR + j, PAIR_NR);
            } else
                for (ptrdiff_t r = i; r < pairs_here; r++)
                    for (ptrdiff_t j = 0; j < PAIR_NR; j++)
                        panel[r * PAIR_NR + j] = block[j][r];
        }
    }
}

/* panel[k / 2][0..PAIR_NR) = pairs of w[k * row_stride + j * col_stride] and the next row's; zero past
 * rows and cols. One of the strides is 1. */
static void pair_pack_panel(const float *w, ptrdiff_t row_stride, ptrdiff_t col_stride,
                            ptrdiff_t rows, ptrdiff_t cols, fc_pair *panel)
{
    if (col_stride == 1)
        pair_rows(w, row_stride, rows, cols, panel);
    else
        pair_columns(w, col_stride, rows, cols, panel);
}

/* sum[r][v] += Σ x · w over `count` pairs, m rows and nv vectors of columns. Pair k of row r stands at
 * x[k * near + r * row] within a block of pairs, and blocks lie `far` apart. */
INLINE void pair_sums(const int m, const int nv, ptrdiff_t count, const int near, const int row,
                      ptrdiff_t far, const fc_pair *x, const fc_pair *w, vec sum[PAIR_MR][2])
{
    for (ptrdiff_t done = 0; done < count; done += PAIR_BLOCK, x += far) {
        const int here = count - done < PAIR_BLOCK ? (int)(count - done) : PAIR_BLOCK;
        for (int k = 0; k < here; k++, w += PAIR_NR) {
            pairs wv[2];
            UNROLL(2)
            for (int v = 0; v < nv; v++) {
                wv[v] = p_load(w + v * VLEN);
                __builtin_prefetch(w + PAIR_AHEAD * PAIR_NR + v * VLEN);
            }
            UNROLL(16)
            for (int r = 0; r < m; r++) {
                const pairs a = p_set1(x + k * near + r * row);
                UNROLL(2)
                for (int v = 0; v < nv; v++)
                    sum[r][v] = p_dot(sum[r][v], a, wv[v]);
            }
        }
    }
}

INLINE void pair_load(const int nv, ptrdiff_t n, const float *from, vec sum[2])
{
    UNROLL(2)
    for (int v = 0; v < nv; v++)
        sum[v] = from ? load_few(from + v * VLEN, n - v * VLEN) : v_zero();
}

INLINE void pair_store(const int nv, ptrdiff_t n, int stream, const vec sum[2], float *to)
{
    UNROLL(2)
    for (int v = 0; v < nv; v++) {
        if (n - v * VLEN < VLEN)
            v_store_tail(to + v * VLEN, sum[v], n - v * VLEN);
        else if (stream)
            v_stream(to + v * VLEN, sum[v]);
        else
            v_store(to + v * VLEN, sum[v]);
    }
}

INLINE void pair_gather_form(const int m, const int nv, ptrdiff_t n, ptrdiff_t taps,
                             ptrdiff_t count, const fc_pair *x, const fc_pair *const *w,
                             const float *bias, int accumulate, int stream, float *const *y)
{
    vec sum[PAIR_MR][2];
    const ptrdiff_t blocks = (count + PAIR_BLOCK - 1) / PAIR_BLOCK;
    UNROLL(16)
    for (int r = 0; r < m; r++) {
        pair_load(nv, n, accumulate ? y[r] : bias, sum[r]);
        if (!accumulate && !stream) { /* what will be written comes while the sums run */
            UNROLL(2)
            for (int v = 0; v < nv; v++)
                __builtin_prefetch(y[r] + v * VLEN, 1);
        }
    }
    for (ptrdiff_t t = 0; t < taps; t++, x += blocks * PAIR_MR * PAIR_BLOCK)
        pair_sums(m, nv, count, 1, PAIR_BLOCK, PAIR_MR * PAIR_BLOCK, x, w[t], sum);
    UNROLL(16)
    for (int r = 0; r < m; r++)
        pair_store(nv, n, stream, sum[r], y[r]);
}

#define PAIR_FORMS(FORM)                                                                           \
    FORM(1)                                                                                        \
    FORM(2)                                                                                        \
    FORM(3)                                                                                        \
    FORM(4)                                                                                        \
    FORM(5)                                                                                        \
    FORM(6)                                                                                        \
    FORM(7)                                                                                        \
    FORM(8)                                                                                        \
    FORM(9)                                                                                        \
    FORM(10)                                                                                       \
    FORM(11)                                                                                       \
    FORM(12)                                                                                       \
    FORM(13)                                                                                       \
    FORM(14)

/* y[r][0..n) (+)= bias + Σ_t Σ_k x[t][r][k] · w[t][k][0..n), for m ≤ PAIR_MR pixels and n ≤ PAIR_NR
 * channels: the gather tile over `pairs` pairs of each tap. x is what pack_rows made of the taps, one
 * after the other, w[t] rows of a panel. accumulate adds to y instead of starting at the bias (NULL:
 * zero); stream writes past the caches: then every y[r] is a multiple of the vector. */
static void pair_gather_tile(ptrdiff_t m, ptrdiff_t n, ptrdiff_t taps, ptrdiff_t count,
                             const fc_pair *x, const fc_pair *const *w, const float *bias,
                             int accumulate, int stream, float *const *y)
{
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        if (n > VLEN)                                                                              \
            pair_gather_form(M, 2, n, taps, count, x, w, bias, accumulate, stream, y);             \
        else                                                                                       \
            pair_gather_form(M, 1, n, taps, count, x, w, bias, accumulate, stream, y);             \
        break;
    switch (m) {
        PAIR_FORMS(FORM)
    }
#undef FORM
}

INLINE void pair_outer_form(const int m, const int nv, ptrdiff_t n, ptrdiff_t count,
                            const fc_pair *x, const fc_pair *dy, float *dw, ptrdiff_t dw_stride,
                            int accumulate)
{
    vec sum[PAIR_MR][2];
    UNROLL(16)
    for (int r = 0; r < m; r++)
        pair_load(nv, n, accumulate ? dw + r * dw_stride : NULL, sum[r]);
    pair_sums(m, nv, count, VLEN, 1, PAIR_BLOCK * VLEN, x, dy, sum);
    UNROLL(16)
    for (int r = 0; r < m; r++)
        pair_store(nv, n, 0, sum[r], dw + r * dw_stride);
}

/* dw[i][0..n) (+)= Σ_k x[k][i] · dy[k][0..n), i < m ≤ PAIR_MR, n ≤ PAIR_NR: the weight gradient over
 * pairs of pixels, which pack_pixels has copied (x a vector, dy PAIR_NR a pair). */
static void pair_outer_tile(ptrdiff_t m, ptrdiff_t n, ptrdiff_t count, const fc_pair *x,
                            const fc_pair *dy, float *dw, ptrdiff_t dw_stride, int accumulate)
{
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        if (n > VLEN)                                                                              \
            pair_outer_form(M, 2, n, count, x, dy, dw, dw_stride, accumulate);                     \
        else                                                                                       \
            pair_outer_form(M, 1, n, count, x, dy, dw, dw_stride, accumulate);                     \
        break;
    switch (m) {
        PAIR_FORMS(FORM)
    }
#undef FORM
}

extern const fc_kernels_bf16 fc_table_avx512_bf16; /* visible to dispatch.c alone */
const fc_kernels_bf16 fc_table_avx512_bf16 = {
    .mr = PAIR_MR,
    .nr = PAIR_NR,
    .block = PAIR_BLOCK,
    .pack_rows = pair_pack_rows,
    .pack_pixels = pair_pack_pixels,
    .pack_panel = pair_pack_panel,
    .gather_tile = pair_gather_tile,
    .outer_tile = pair_outer_tile,
};

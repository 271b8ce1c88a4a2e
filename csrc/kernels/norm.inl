/* Batch normalisation: x̂ = (x − mean) / sqrt(variance + eps), y = gamma x̂ + beta, statistics per
 * channel over the rows (all pixels of the batch).
 *
 * Sums over rows are taken in pieces of rows, each from its own registers, and the pieces are merged
 * pairwise in a fixed tree. Variance is merged as sums of squared deviations from the pieces' own
 * means (Chan, Golub, LeVeque 1979), never as E[x²] − E[x]². A piece's two results for all channels
 * stand one after the other in scratch[piece][2][channels].
 *
 * With g = dy: dbeta = Σ g, dgamma = Σ g x̂ and, mean and variance being functions of x,
 * dx = gamma / sqrt(variance + eps) · (g − dbeta / rows − x̂ dgamma / rows). */

/* rows whose sums are taken alone: short sums, and a block read twice stays in the nearest cache */
#define NORM_BLOCK 128

/* nv vectors of columns, the last with n ≤ VLEN of them: blocks of rows, merged in order */
INLINE void moments_form(const int nv, ptrdiff_t n, ptrdiff_t rows, const real *x,
                         ptrdiff_t x_stride, real *mean, real *m2)
{
    vec all_mean[4], all_m2[4], centre[4], sum[4];
    for (int v = 0; v < nv; v++)
        all_mean[v] = all_m2[v] = v_zero();
    for (ptrdiff_t first = 0; first < rows; first += NORM_BLOCK, x += NORM_BLOCK * x_stride) {
        const ptrdiff_t count = rows - first < NORM_BLOCK ? rows - first : NORM_BLOCK;
        for (int v = 0; v < nv; v++)
            centre[v] = sum[v] = v_zero();
        for (ptrdiff_t r = 0; r < count; r++)
            for (int v = 0; v < nv; v++)
                centre[v] = v_add(centre[v],
                                  load_part(x + r * x_stride + v * VLEN, v == nv - 1 ? n : VLEN));
        for (int v = 0; v < nv; v++)
            centre[v] = v_mul(centre[v], v_set1(1 / (real)count));
        for (ptrdiff_t r = 0; r < count; r++)
            for (int v = 0; v < nv; v++) {
                const vec d = v_sub(load_part(x + r * x_stride + v * VLEN, v == nv - 1 ? n : VLEN),
                                    centre[v]);
                sum[v] = v_fma(d, d, sum[v]);
            }
        const real share = (real)count / (real)(first + count);
        const vec to = v_set1(share), weight = v_set1((real)first * share);
        for (int v = 0; v < nv; v++) {
            const vec delta = v_sub(centre[v], all_mean[v]);
            all_mean[v] = v_fma(delta, to, all_mean[v]);
            all_m2[v] = v_add(v_add(all_m2[v], sum[v]), v_mul(v_mul(delta, delta), weight));
        }
    }
    for (int v = 0; v < nv; v++) {
        store_part(mean + v * VLEN, all_mean[v], v == nv - 1 ? n : VLEN);
        store_part(m2 + v * VLEN, all_m2[v], v == nv - 1 ? n : VLEN);
    }
}

/* mean[c] and m2[c] = Σ (x − mean)² of one piece, c < cols. */
static void moments(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride, real *mean,
                    real *m2)
{
    ptrdiff_t c = 0;
    for (; c + 4 * VLEN <= cols; c += 4 * VLEN)
        moments_form(4, VLEN, rows, x + c, x_stride, mean + c, m2 + c);
    for (; c + 2 * VLEN <= cols; c += 2 * VLEN)
        moments_form(2, VLEN, rows, x + c, x_stride, mean + c, m2 + c);
    for (; c + VLEN <= cols; c += VLEN)
        moments_form(1, VLEN, rows, x + c, x_stride, mean + c, m2 + c);
    if (c < cols)
        moments_form(1, cols - c, rows, x + c, x_stride, mean + c, m2 + c);
}

/* Merges the pieces (of `piece` rows each, the last one shorter) of channels [first, last) into
 * mean and biased variance over all rows; scratch is consumed. */
static void moments_merge(ptrdiff_t rows, ptrdiff_t piece, ptrdiff_t channels, ptrdiff_t first,
                          ptrdiff_t last, real *scratch, real *mean, real *variance)
{
    const ptrdiff_t pieces = (rows + piece - 1) / piece, stride = 2 * channels;
    for (ptrdiff_t gap = 1; gap < pieces; gap *= 2)
        for (ptrdiff_t i = 0; i + gap < pieces; i += 2 * gap) {
            real *restrict a = scratch + i * stride;
            const real *restrict b = scratch + (i + gap) * stride;
            const ptrdiff_t end = i + 2 * gap < pieces ? (i + 2 * gap) * piece : rows;
            const real na = (real)(gap * piece), nb = (real)(end - (i + gap) * piece);
            const real share = nb / (na + nb), weight = na * share;
            for (ptrdiff_t c = first; c < last; c++) {
                const real delta = b[c] - a[c];
                a[c] += delta * share;
                a[channels + c] += b[channels + c] + delta * delta * weight;
            }
        }
    for (ptrdiff_t c = first; c < last; c++) {
        mean[c] = scratch[c];
        variance[c] = scratch[channels + c] / (real)rows;
    }
}

/* gamma / sqrt(variance + eps); gamma may be NULL: ones */
INLINE vec norm_scale(const real *variance, const real *gamma, real eps, ptrdiff_t n)
{
    const vec deviation = v_sqrt(v_add(load_part(variance, n), v_set1(eps)));
    return v_div(gamma ? load_part(gamma, n) : v_set1(1), deviation);
}

INLINE void norm_forward_form(const int nv, ptrdiff_t n, ptrdiff_t rows, real eps, const real *x,
                              ptrdiff_t x_stride, const real *mean, const real *variance,
                              const real *gamma, const real *beta, real *y, ptrdiff_t y_stride)
{
    vec centre[4], scale[4], shift[4];
    for (int v = 0; v < nv; v++) {
        const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
        centre[v] = load_part(mean + c, k);
        scale[v] = norm_scale(variance + c, gamma ? gamma + c : NULL, eps, k);
        shift[v] = beta ? load_part(beta + c, k) : v_zero();
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t k = v == nv - 1 ? n : VLEN;
            const vec d = v_sub(load_part(x + r * x_stride + v * VLEN, k), centre[v]);
            store_part(y + r * y_stride + v * VLEN, v_fma(d, scale[v], shift[v]), k);
        }
}

/* y = gamma (x − mean) / sqrt(variance + eps) + beta; gamma and beta may be NULL, y may be x. */
static void norm_forward(ptrdiff_t rows, ptrdiff_t cols, real eps, const real *x,
                         ptrdiff_t x_stride, const real *mean, const real *variance,
                         const real *gamma, const real *beta, real *y, ptrdiff_t y_stride)
{
    for (ptrdiff_t c = 0; c < cols;) {
        const ptrdiff_t left = cols - c;
        const real *g = gamma ? gamma + c : NULL, *b = beta ? beta + c : NULL;
        if (left >= 4 * VLEN) {
            norm_forward_form(4, VLEN, rows, eps, x + c, x_stride, mean + c, variance + c, g, b,
                              y + c, y_stride);
            c += 4 * VLEN;
        } else if (left >= 2 * VLEN) {
            norm_forward_form(2, VLEN, rows, eps, x + c, x_stride, mean + c, variance + c, g, b,
                              y + c, y_stride);
            c += 2 * VLEN;
        } else if (left >= VLEN) {
            norm_forward_form(1, VLEN, rows, eps, x + c, x_stride, mean + c, variance + c, g, b,
                              y + c, y_stride);
            c += VLEN;
        } else {
            norm_forward_form(1, left, rows, eps, x + c, x_stride, mean + c, variance + c, g, b,
                              y + c, y_stride);
            c = cols;
        }
    }
}

INLINE void norm_sums_form(const int nv, ptrdiff_t n, ptrdiff_t rows, real eps, const real *x,
                           ptrdiff_t x_stride, const real *mean, const real *variance,
                           const real *dy, ptrdiff_t dy_stride, real *sum, real *sum_xhat)
{
    vec centre[4], all[4], all_x[4], s[4], sx[4];
    for (int v = 0; v < nv; v++) {
        centre[v] = load_part(mean + v * VLEN, v == nv - 1 ? n : VLEN);
        all[v] = all_x[v] = v_zero();
    }
    for (ptrdiff_t r = 0; r < rows;) {
        const ptrdiff_t end = rows - r < NORM_BLOCK ? rows : r + NORM_BLOCK;
        for (int v = 0; v < nv; v++)
            s[v] = sx[v] = v_zero();
        for (; r < end; r++)
            for (int v = 0; v < nv; v++) {
                const ptrdiff_t k = v == nv - 1 ? n : VLEN;
                const vec g = load_part(dy + r * dy_stride + v * VLEN, k);
                const vec d = v_sub(load_part(x + r * x_stride + v * VLEN, k), centre[v]);
                s[v] = v_add(s[v], g);
                sx[v] = v_fma(g, d, sx[v]);
            }
        for (int v = 0; v < nv; v++) {
            all[v] = v_add(all[v], s[v]);
            all_x[v] = v_add(all_x[v], sx[v]);
        }
    }
    for (int v = 0; v < nv; v++) {
        const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
        store_part(sum + c, all[v], k);
        store_part(sum_xhat + c, v_mul(all_x[v], norm_scale(variance + c, NULL, eps, k)), k);
    }
}

/* sum[c] = Σ dy and sum_xhat[c] = Σ dy x̂ of one piece. */
static void norm_sums(ptrdiff_t rows, ptrdiff_t cols, real eps, const real *x, ptrdiff_t x_stride,
                      const real *mean, const real *variance, const real *dy, ptrdiff_t dy_stride,
                      real *sum, real *sum_xhat)
{
    ptrdiff_t c = 0;
    for (; c + 4 * VLEN <= cols; c += 4 * VLEN)
        norm_sums_form(4, VLEN, rows, eps, x + c, x_stride, mean + c, variance + c, dy + c,
                       dy_stride, sum + c, sum_xhat + c);
    for (; c + VLEN <= cols; c += VLEN)
        norm_sums_form(1, VLEN, rows, eps, x + c, x_stride, mean + c, variance + c, dy + c,
                       dy_stride, sum + c, sum_xhat + c);
    if (c < cols)
        norm_sums_form(1, cols - c, rows, eps, x + c, x_stride, mean + c, variance + c, dy + c,
                       dy_stride, sum + c, sum_xhat + c);
}

/* Adds the pieces of channels [first, last) up, pairwise, into scratch's first piece, and that into
 * dbeta and dgamma (each may be NULL): overwritten, or added to. */
static void norm_sums_merge(ptrdiff_t pieces, ptrdiff_t channels, ptrdiff_t first, ptrdiff_t last,
                            int accumulate, real *scratch, real *dgamma, real *dbeta)
{
    const ptrdiff_t stride = 2 * channels;
    for (ptrdiff_t gap = 1; gap < pieces; gap *= 2)
        for (ptrdiff_t i = 0; i + gap < pieces; i += 2 * gap) {
            real *restrict a = scratch + i * stride;
            const real *restrict b = scratch + (i + gap) * stride;
            for (ptrdiff_t c = first; c < last; c++) {
                a[c] += b[c];
                a[channels + c] += b[channels + c];
            }
        }
    for (ptrdiff_t c = first; dbeta && c < last; c++)
        dbeta[c] = accumulate ? dbeta[c] + scratch[c] : scratch[c];
    for (ptrdiff_t c = first; dgamma && c < last; c++)
        dgamma[c] = accumulate ? dgamma[c] + scratch[channels + c] : scratch[channels + c];
}

INLINE void norm_backward_form(const int nv, ptrdiff_t n, ptrdiff_t rows, real eps, real weight,
                               const real *x, ptrdiff_t x_stride, const real *mean,
                               const real *variance, const real *gamma, const real *sum,
                               const real *sum_xhat, const real *dy, ptrdiff_t dy_stride, real *dx,
                               ptrdiff_t dx_stride)
{
    vec centre[2], scale[2], constant[2], slope[2];
    for (int v = 0; v < nv; v++) {
        const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
        centre[v] = load_part(mean + c, k);
        scale[v] = norm_scale(variance + c, gamma ? gamma + c : NULL, eps, k);
        constant[v] = v_mul(load_part(sum + c, k), v_set1(weight));
        slope[v] = v_mul(v_mul(load_part(sum_xhat + c, k), v_set1(weight)),
                         norm_scale(variance + c, NULL, eps, k));
    }
    for (ptrdiff_t r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t k = v == nv - 1 ? n : VLEN;
            const vec d = v_sub(load_part(x + r * x_stride + v * VLEN, k), centre[v]);
            const vec g = v_sub(load_part(dy + r * dy_stride + v * VLEN, k), constant[v]);
            store_part(dx + r * dx_stride + v * VLEN, v_mul(scale[v], v_sub(g, v_mul(d, slope[v]))),
                       k);
        }
}

/* dx = gamma / sqrt(variance + eps) · (dy − weight sum − x̂ weight sum_xhat), weight = 1 / all rows;
 * gamma may be NULL, dx may be dy. */
static void norm_backward(ptrdiff_t rows, ptrdiff_t cols, real eps, real weight, const real *x,
                          ptrdiff_t x_stride, const real *mean, const real *variance,
                          const real *gamma, const real *sum, const real *sum_xhat, const real *dy,
                          ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride)
{
    for (ptrdiff_t c = 0; c < cols;) {
        const ptrdiff_t left = cols - c;
        const real *g = gamma ? gamma + c : NULL;
        if (left >= 2 * VLEN) {
            norm_backward_form(2, VLEN, rows, eps, weight, x + c, x_stride, mean + c, variance + c,
                               g, sum + c, sum_xhat + c, dy + c, dy_stride, dx + c, dx_stride);
            c += 2 * VLEN;
        } else if (left >= VLEN) {
            norm_backward_form(1, VLEN, rows, eps, weight, x + c, x_stride, mean + c, variance + c,
                               g, sum + c, sum_xhat + c, dy + c, dy_stride, dx + c, dx_stride);
            c += VLEN;
        } else {
            norm_backward_form(1, left, rows, eps, weight, x + c, x_stride, mean + c, variance + c,
                               g, sum + c, sum_xhat + c, dy + c, dy_stride, dx + c, dx_stride);
            c = cols;
        }
    }
}

/* dx = gamma / sqrt(variance + eps) · dy: the gradient where the statistics are constants. */
static void norm_backward_constant(ptrdiff_t rows, ptrdiff_t cols, real eps, const real *variance,
                                   const real *gamma, const real *dy, ptrdiff_t dy_stride, real *dx,
                                   ptrdiff_t dx_stride)
{
    for (ptrdiff_t c = 0; c < cols; c += VLEN) {
        const ptrdiff_t n = cols - c < VLEN ? cols - c : VLEN;
        const vec scale = norm_scale(variance + c, gamma ? gamma + c : NULL, eps, n);
        for (ptrdiff_t r = 0; r < rows; r++)
            store_part(dx + r * dx_stride + c, v_mul(scale, load_part(dy + r * dy_stride + c, n)),
                       n);
    }
}

/* running = momentum · running + (1 − momentum) · batch */
static void norm_update_running(ptrdiff_t channels, real momentum, const real *batch, real *running)
{
    for (ptrdiff_t c = 0; c < channels; c++)
        running[c] = running[c] * momentum + batch[c] * (1 - momentum);
}

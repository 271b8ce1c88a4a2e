/* Batch normalisation: x̂ = (x − mean) / sqrt(variance + eps), y = gamma x̂ + beta, statistics per
 * channel over the rows (all pixels of the batch).
 *
 * Sums over rows are taken in pieces of rows, each from its own registers, and the pieces are merged
 * pairwise in a fixed tree. Variance is merged as sums of squared deviations from the pieces' own
 * means (Chan, Golub, LeVeque 1979), never as E[x²] − E[x]². A piece's two results for all channels
 * stand one after the other in scratch[piece][2][channels].
 *
 * With g = dy: dbeta = Σ g, dgamma = Σ g x̂ and, mean and variance being functions of x,
 * dx = gamma / sqrt(variance + eps) · (g − dbeta / rows − x̂ dgamma / rows).
 *
 * What stands behind the normalisation may go with it in one pass, with a residual r and a piecewise
 * linear activation f: y = f(gamma x̂ + beta + r). Then g = dy f', where f' is taken from y; without
 * a residual, y is computed again from x, to the same bits, instead of being read. */

/* rows that are read twice, from the nearest cache, to know about where the mean lies */
#define NORM_FIRST 16

/* elements of the rows that are summed together, and the most columns of them */
#define NORM_STRETCH 4096
#define NORM_COLUMNS 2048

/* nv vectors of columns, n in the last: sum += Σ (x − centre), square += Σ (x − centre)² */
INLINE void deviations_form(const int nv, ptrdiff_t n, ptrdiff_t rows, const real *x,
                            ptrdiff_t x_stride, const real *centre, real *sum, real *square)
{
    vec from[8], s[8], q[8];
    for (int v = 0; v < nv; v++) {
        const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
        from[v] = load_part(centre + c, k);
        s[v] = load_part(sum + c, k);
        q[v] = load_part(square + c, k);
    }
    for (ptrdiff_t r = 0; r < rows; r++, x += x_stride)
        for (int v = 0; v < nv; v++) {
            const vec d = v_sub(load_part(x + v * VLEN, v == nv - 1 ? n : VLEN), from[v]);
            s[v] = v_add(s[v], d);
            q[v] = v_fma(d, d, q[v]);
        }
    for (int v = 0; v < nv; v++) {
        store_part(sum + v * VLEN, s[v], v == nv - 1 ? n : VLEN);
        store_part(square + v * VLEN, q[v], v == nv - 1 ? n : VLEN);
    }
}

/* Brings rows into the nearest cache, line after line: the one order in which memory is fast. */
INLINE void fetch_rows(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride)
{
    for (ptrdiff_t r = 0; r < rows; r++, x += x_stride)
        for (ptrdiff_t c = 0; c < cols; c += 64 / (ptrdiff_t)sizeof(real))
            (void)*(const volatile real *)(x + c);
}

/* The sums of some rows from zero, in stretches of memory that the nearest cache holds. */
INLINE void deviations(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride,
                       const real *centre, real *sum, real *square)
{
    const ptrdiff_t stretch = cols < NORM_STRETCH ? NORM_STRETCH / cols : 1;
    const int one_form = cols <= VLEN || (cols <= 8 * VLEN && (cols & (cols - 1)) == 0);
    for (ptrdiff_t c = 0; c < cols; c++)
        sum[c] = square[c] = 0;
    for (ptrdiff_t r = 0; r < rows; r += stretch) {
        const ptrdiff_t count = rows - r < stretch ? rows - r : stretch;
        const real *p = x + r * x_stride;
        ptrdiff_t c = 0;
        if (!one_form)
            fetch_rows(count, cols, p, x_stride);
#define FORM(NV, N) deviations_form(NV, N, count, p + c, x_stride, centre + c, sum + c, square + c)
        for (; c + 8 * VLEN <= cols; c += 8 * VLEN)
            FORM(8, VLEN);
        for (; c + 4 * VLEN <= cols; c += 4 * VLEN)
            FORM(4, VLEN);
        for (; c + 2 * VLEN <= cols; c += 2 * VLEN)
            FORM(2, VLEN);
        for (; c + VLEN <= cols; c += VLEN)
            FORM(1, VLEN);
        if (c < cols)
            FORM(1, cols - c);
#undef FORM
    }
}

/* mean[c] and m2[c] = Σ (x − mean)² of one piece, c < cols ≤ NORM_COLUMNS. The first rows are read
 * twice, for their mean and then for their deviations from it. Each further block is read once, as
 * deviations from the mean so far, and merged: what taking the block's own mean from them loses is
 * rounding of a square of which the merge adds at least half again. */
INLINE void moments_part(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride,
                         real *mean, real *m2)
{
    real sum[NORM_COLUMNS], square[NORM_COLUMNS];
    ptrdiff_t count = rows < NORM_FIRST ? rows : NORM_FIRST;
    for (ptrdiff_t c = 0; c < cols; c++)
        mean[c] = m2[c] = 0;
    deviations(count, cols, x, x_stride, mean, sum, square);
    for (ptrdiff_t c = 0; c < cols; c++)
        mean[c] = sum[c] / (real)count;
    for (ptrdiff_t first = 0; first < rows; first += count, count = SUM_BLOCK) {
        count = rows - first < count ? rows - first : count;
        const real share = 1 / (real)(first + count), weight = (real)first * (real)count * share;
        deviations(count, cols, x + first * x_stride, x_stride, mean, sum, square);
        for (ptrdiff_t c = 0; c < cols; c++) {
            const real delta = sum[c] / (real)count; /* of the block's mean from that so far */
            const real own = square[c] - sum[c] * delta;
            m2[c] += (own < 0 ? 0 : own) + delta * delta * weight;
            mean[c] += sum[c] * share;
        }
    }
}

/* mean[c] and m2[c] = Σ (x − mean)² of one piece, c < cols: what a caller who has some rows at hand
 * may compute, to be merged with the other pieces. */
static void moments(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride, real *mean,
                    real *m2)
{
    for (ptrdiff_t c = 0; c < cols; c += NORM_COLUMNS)
        moments_part(rows, cols - c < NORM_COLUMNS ? cols - c : NORM_COLUMNS, x + c, x_stride,
                     mean + c, m2 + c);
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

/* Joins the moments of nb more rows to those of na: means a[0..cols) and b[0..cols), the sums of squared
 * deviations `stride` behind. */
static void moments_join(ptrdiff_t cols, ptrdiff_t na, ptrdiff_t nb, real *a, const real *b,
                         ptrdiff_t stride)
{
    const real share = (real)nb / ((real)na + (real)nb), weight = (real)na * share;
    for (ptrdiff_t c = 0; c < cols; c++) {
        const real delta = b[c] - a[c];
        a[c] += delta * share;
        a[stride + c] += b[stride + c] + delta * delta * weight;
    }
}

/* gamma / sqrt(variance + eps); gamma may be NULL: ones */
INLINE vec norm_scale(const real *variance, const real *gamma, real eps, ptrdiff_t n)
{
    const vec deviation = v_sqrt(v_add(load_part(variance, n), v_set1(eps)));
    return v_div(gamma ? load_part(gamma, n) : v_set1(1), deviation);
}

/* scale[c] = gamma[c] / sqrt(variance[c] + eps), what an epilogue multiplies by; gamma may be NULL. */
static void norm_scales(ptrdiff_t channels, real eps, const real *variance, const real *gamma,
                        real *scale)
{
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        const ptrdiff_t n = channels - c < VLEN ? channels - c : VLEN;
        store_part(scale + c, norm_scale(variance + c, gamma ? gamma + c : NULL, eps, n), n);
    }
}

INLINE void norm_forward_form(const int nv, ptrdiff_t n, const int kind, ptrdiff_t rows, real eps,
                              const real *x, ptrdiff_t x_stride, const real *mean,
                              const real *variance, const real *gamma, const real *beta,
                              const real *r, ptrdiff_t r_stride, const fc_activation *f, real *y,
                              ptrdiff_t y_stride)
{
    const vec alpha = v_set1((real)f->alpha), cap = v_set1((real)f->beta);
    const vec threshold = v_set1((real)f->gamma);
    vec centre[WIDEST], scale[WIDEST], shift[WIDEST];
    for (int v = 0; v < nv; v++) {
        const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
        centre[v] = load_part(mean + c, k);
        scale[v] = norm_scale(variance + c, gamma ? gamma + c : NULL, eps, k);
        shift[v] = beta ? load_part(beta + c, k) : v_zero();
    }
    for (ptrdiff_t i = 0; i < rows; i++, x += x_stride, y += y_stride, r += r ? r_stride : 0)
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
            vec a = norm_value(load_part(x + c, k), centre[v], scale[v], shift[v]);
            if (r)
                a = v_add(a, load_part(r + c, k));
            store_part(y + c, activation_value(kind, a, alpha, cap, threshold), k);
        }
}

/* y = f(gamma (x − mean) / sqrt(variance + eps) + beta + r); gamma, beta and the residual r may be
 * NULL, y may be x. */
static void norm_forward(ptrdiff_t rows, ptrdiff_t cols, real eps, const real *x,
                         ptrdiff_t x_stride, const real *mean, const real *variance,
                         const real *gamma, const real *beta, const real *r, ptrdiff_t r_stride,
                         const fc_activation *f, real *y, ptrdiff_t y_stride)
{
#define FORM(NV, N)                                                                                \
    norm_forward_form(NV, N, kind, rows, eps, x + c, x_stride, mean + c, variance + c,             \
                      gamma ? gamma + c : NULL, beta ? beta + c : NULL, r ? r + c : NULL,          \
                      r_stride, f, y + c, y_stride)
#define WITH(KIND)                                                                                 \
    const int kind = KIND;                                                                         \
    FOR_COLUMNS(FORM)
    FOR_KINDS(WITH)
#undef WITH
#undef FORM
}

INLINE void norm_sums_form(const int nv, ptrdiff_t n, const int kind, ptrdiff_t rows, real eps,
                           const real *x, ptrdiff_t x_stride, const real *mean,
                           const real *variance, const real *gamma, const real *beta,
                           const fc_activation *f, const real *y, ptrdiff_t y_stride,
                           const real *dy, ptrdiff_t dy_stride, real *dz, ptrdiff_t dz_stride,
                           real *sum, real *sum_xhat)
{
    const vec alpha = v_set1((real)f->alpha), cap = v_set1((real)f->beta);
    const vec threshold = v_set1((real)f->gamma);
    vec centre[WIDEST], scale[WIDEST], shift[WIDEST];
    vec all[WIDEST], all_x[WIDEST], s[WIDEST], sx[WIDEST];
    for (int v = 0; v < nv; v++) {
        const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
        centre[v] = load_part(mean + c, k);
        all[v] = all_x[v] = scale[v] = shift[v] = v_zero();
        if (kind != ACTIVATION_LINEAR && !y) {
            scale[v] = norm_scale(variance + c, gamma ? gamma + c : NULL, eps, k);
            shift[v] = beta ? load_part(beta + c, k) : v_zero();
        }
    }
    for (ptrdiff_t i = 0; i < rows;) {
        const ptrdiff_t end = rows - i < SUM_BLOCK ? rows : i + SUM_BLOCK;
        for (int v = 0; v < nv; v++)
            s[v] = sx[v] = v_zero();
        for (; i < end; i++)
            for (int v = 0; v < nv; v++) {
                const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
                const vec a = load_part(x + i * x_stride + c, k), d = v_sub(a, centre[v]);
                vec g = load_part(dy + i * dy_stride + c, k);
                if (kind != ACTIVATION_LINEAR) {
                    const vec b =
                        y ? load_part(y + i * y_stride + c, k)
                          : activation_value(kind, norm_value(a, centre[v], scale[v], shift[v]),
                                             alpha, cap, threshold);
                    g = activation_gradient(kind, b, g, alpha, cap);
                    if (dz)
                        store_part(dz + i * dz_stride + c, g, k);
                }
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

/* sum[c] = Σ g and sum_xhat[c] = Σ g x̂ of one piece, g = dy f'. The derivative is taken from y, or
 * from x where y is NULL (no residual). dz = g, where it is not NULL and f not linear; it may be dy. */
static void norm_sums(ptrdiff_t rows, ptrdiff_t cols, real eps, const real *x, ptrdiff_t x_stride,
                      const real *mean, const real *variance, const real *gamma, const real *beta,
                      const fc_activation *f, const real *y, ptrdiff_t y_stride, const real *dy,
                      ptrdiff_t dy_stride, real *dz, ptrdiff_t dz_stride, real *sum, real *sum_xhat)
{
#define FORM(NV, N)                                                                                \
    norm_sums_form(NV, N, kind, rows, eps, x + c, x_stride, mean + c, variance + c,                \
                   gamma ? gamma + c : NULL, beta ? beta + c : NULL, f, y ? y + c : NULL,          \
                   y_stride, dy + c, dy_stride, dz ? dz + c : NULL, dz_stride, sum + c,            \
                   sum_xhat + c)
#define WITH(KIND)                                                                                 \
    const int kind = KIND;                                                                         \
    FOR_COLUMNS(FORM)
    FOR_KINDS(WITH)
#undef WITH
#undef FORM
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

#ifndef __clang__ /* gcc does not see that two loops over nv meet the same vectors */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
INLINE void norm_backward_form(const int nv, ptrdiff_t n, const int kind, ptrdiff_t rows, real eps,
                               real weight, const real *x, ptrdiff_t x_stride, const real *mean,
                               const real *variance, const real *gamma, const real *beta,
                               const fc_activation *f, const real *sum, const real *sum_xhat,
                               const real *dy, ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride)
{
    const vec alpha = v_set1((real)f->alpha), cap = v_set1((real)f->beta);
    const vec threshold = v_set1((real)f->gamma);
    vec centre[WIDEST], scale[WIDEST], shift[WIDEST];
    vec constant[WIDEST], slope[WIDEST];
    for (int v = 0; v < nv; v++) {
        const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
        centre[v] = load_part(mean + c, k);
        scale[v] = norm_scale(variance + c, gamma ? gamma + c : NULL, eps, k);
        shift[v] = beta ? load_part(beta + c, k) : v_zero();
        constant[v] = slope[v] = v_zero();
        if (sum) {
            constant[v] = v_mul(load_part(sum + c, k), v_set1(weight));
            slope[v] = v_mul(v_mul(load_part(sum_xhat + c, k), v_set1(weight)),
                             norm_scale(variance + c, NULL, eps, k));
        }
    }
    for (ptrdiff_t i = 0; i < rows; i++, x += x_stride, dy += dy_stride, dx += dx_stride)
        for (int v = 0; v < nv; v++) {
            const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
            const vec a = load_part(x + c, k), d = v_sub(a, centre[v]);
            vec g = load_part(dy + c, k);
            if (kind != ACTIVATION_LINEAR) {
                const vec b = norm_value(a, centre[v], scale[v], shift[v]);
                g = activation_gradient(kind, activation_value(kind, b, alpha, cap, threshold), g,
                                        alpha, cap);
            }
            if (sum)
                g = v_sub(v_sub(g, constant[v]), v_mul(d, slope[v]));
            store_part(dx + c, v_mul(scale[v], g), k);
        }
}

/* dx = gamma / sqrt(variance + eps) · (g − weight sum − x̂ weight sum_xhat), weight = 1 / all rows;
 * without the sums (NULL) where mean and variance are constants. g = dy f', f' taken from x; gamma
 * and beta may be NULL, dx may be dy. */
static void norm_backward(ptrdiff_t rows, ptrdiff_t cols, real eps, real weight, const real *x,
                          ptrdiff_t x_stride, const real *mean, const real *variance,
                          const real *gamma, const real *beta, const fc_activation *f,
                          const real *sum, const real *sum_xhat, const real *dy,
                          ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride)
{
#define FORM(NV, N)                                                                                \
    norm_backward_form(NV, N, kind, rows, eps, weight, x + c, x_stride, mean + c, variance + c,    \
                       gamma ? gamma + c : NULL, beta ? beta + c : NULL, f, sum ? sum + c : NULL,  \
                       sum ? sum_xhat + c : NULL, dy + c, dy_stride, dx + c, dx_stride)
#define WITH(KIND)                                                                                 \
    const int kind = KIND;                                                                         \
    FOR_COLUMNS(FORM)
    FOR_KINDS(WITH)
#undef WITH
#undef FORM
}

#ifndef __clang__
#pragma GCC diagnostic pop
#endif

/* running = momentum · running + (1 − momentum) · batch */
static void norm_update_running(ptrdiff_t channels, real momentum, const real *batch, real *running)
{
    for (ptrdiff_t c = 0; c < channels; c++)
        running[c] = running[c] * momentum + batch[c] * (1 - momentum);
}

/* Pointwise activations. Tensors are rows (pixels) × cols (channels); a row starts `stride`
 * elements after the one before. The backward kernels need y alone, so that a forward pass may
 * overwrite its x. */

enum {
    ACTIVATION_LINEAR,
    ACTIVATION_RELU,         /* max(0, x) */
    ACTIVATION_RELU_GENERAL, /* slope alpha up to threshold gamma, cap beta (NaN: none) */
    ACTIVATION_ELU,
    ACTIVATION_SIGMOID,
    ACTIVATION_TANH,
    ACTIVATION_RELU_DROPPED, /* backward alone: a ReLU and a dropout behind it, times alpha */
};

INLINE mask at_least(vec a, vec b) { return v_or(v_gt(a, b), v_eq(a, b)); }

/* slope · a, where a slope of zero gives 0 and never 0 · inf */
INLINE vec sloped(vec slope, vec a)
{
    return v_select(v_gt(slope, v_zero()), v_mul(slope, a), v_zero());
}

INLINE vec activation_value(const int kind, vec x, vec alpha, vec beta, vec gamma)
{
    switch (kind) {
    case ACTIVATION_RELU:
        return v_max(v_zero(), x); /* NaN stays NaN */
    case ACTIVATION_RELU_GENERAL:
        return v_select(at_least(x, beta), beta,
                        v_select(at_least(gamma, x), sloped(alpha, v_sub(x, gamma)), x));
    case ACTIVATION_ELU:
        return v_select(v_gt(x, v_zero()), x, v_mul(alpha, v_expm1_negative(x)));
    case ACTIVATION_SIGMOID:
        return v_sigmoid(x);
    case ACTIVATION_TANH:
        return v_tanh(x);
    default:
        return x;
    }
}

INLINE vec activation_gradient(const int kind, vec y, vec dy, vec alpha, vec beta)
{
    const vec one = v_set1(1);
    switch (kind) {
    case ACTIVATION_RELU:
        return v_select(v_nan(y), y, v_select(v_gt(y, v_zero()), dy, v_zero()));
    case ACTIVATION_RELU_GENERAL:
        return v_select(v_nan(y), y,
                        v_select(at_least(y, beta), v_zero(),
                                 v_select(v_gt(y, v_zero()), dy, sloped(alpha, dy))));
    case ACTIVATION_ELU: /* alpha e^x = y + alpha */
        return v_mul(dy, v_select(v_gt(y, v_zero()), one, v_add(y, alpha)));
    case ACTIVATION_SIGMOID:
        return v_mul(dy, v_mul(y, v_sub(one, y)));
    case ACTIVATION_RELU_DROPPED: /* what was dropped is 0 as what the ReLU stopped */
        return v_select(v_nan(y), y, v_select(v_gt(y, v_zero()), v_mul(dy, alpha), v_zero()));
    case ACTIVATION_TANH: /* (1 − y)(1 + y): no cancellation near ±1 */
        return v_mul(dy, v_mul(v_sub(one, y), v_add(one, y)));
    default:
        return dy;
    }
}

INLINE void activation_forward_form(const int kind, ptrdiff_t rows, ptrdiff_t cols, real alpha,
                                    real beta, real gamma, const real *x, ptrdiff_t x_stride,
                                    real *y, ptrdiff_t y_stride)
{
    const vec a = v_set1(alpha), b = v_set1(beta), g = v_set1(gamma);
    for (ptrdiff_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
        ptrdiff_t i = 0;
        for (; i + VLEN <= cols; i += VLEN)
            v_store(y + i, activation_value(kind, v_load(x + i), a, b, g));
        if (i < cols)
            v_store_tail(y + i, activation_value(kind, v_load_tail(x + i, cols - i), a, b, g),
                         cols - i);
    }
}

/* y = f(x); y may be x. */
static void activation_forward(int kind, ptrdiff_t rows, ptrdiff_t cols, real alpha, real beta,
                               real gamma, const real *x, ptrdiff_t x_stride, real *y,
                               ptrdiff_t y_stride)
{
#define FORM(KIND)                                                                                 \
    case KIND:                                                                                     \
        activation_forward_form(KIND, rows, cols, alpha, beta, gamma, x, x_stride, y, y_stride);   \
        break;
    switch (kind) {
        FORM(ACTIVATION_LINEAR)
        FORM(ACTIVATION_RELU)
        FORM(ACTIVATION_RELU_GENERAL)
        FORM(ACTIVATION_ELU)
        FORM(ACTIVATION_SIGMOID)
        FORM(ACTIVATION_TANH)
    }
#undef FORM
}

INLINE void activation_backward_form(const int kind, ptrdiff_t rows, ptrdiff_t cols, real alpha,
                                     real beta, const real *y, ptrdiff_t y_stride, const real *dy,
                                     ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride)
{
    const vec a = v_set1(alpha), b = v_set1(beta);
    for (ptrdiff_t r = 0; r < rows; r++, y += y_stride, dy += dy_stride, dx += dx_stride) {
        ptrdiff_t i = 0;
        for (; i + VLEN <= cols; i += VLEN)
            v_store(dx + i, activation_gradient(kind, v_load(y + i), v_load(dy + i), a, b));
        if (i < cols) {
            const ptrdiff_t n = cols - i;
            v_store_tail(
                dx + i,
                activation_gradient(kind, v_load_tail(y + i, n), v_load_tail(dy + i, n), a, b), n);
        }
    }
}

/* dx = dy · f'(x), f' from y; dx may be dy. */
static void activation_backward(int kind, ptrdiff_t rows, ptrdiff_t cols, real alpha, real beta,
                                const real *y, ptrdiff_t y_stride, const real *dy,
                                ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride)
{
#define FORM(KIND)                                                                                 \
    case KIND:                                                                                     \
        activation_backward_form(KIND, rows, cols, alpha, beta, y, y_stride, dy, dy_stride, dx,    \
                                 dx_stride);                                                       \
        break;
    switch (kind) {
        FORM(ACTIVATION_LINEAR)
        FORM(ACTIVATION_RELU)
        FORM(ACTIVATION_RELU_GENERAL)
        FORM(ACTIVATION_ELU)
        FORM(ACTIVATION_SIGMOID)
        FORM(ACTIVATION_TANH)
        FORM(ACTIVATION_RELU_DROPPED)
    }
#undef FORM
}

/* rows whose sums are taken alone: short sums are exact sums */
#define SUM_BLOCK 128

/* vectors of columns that go over the rows together: long stretches of memory one after the other */
#define WIDEST 64

/* Calls FORM(nv, n) for stretches of nv vectors of columns from c on, n numbers in the last. Up to
 * four vectors are a form that the compiler knows and keeps in registers. */
#define FOR_COLUMNS(FORM)                                                                          \
    for (ptrdiff_t c = 0; c < cols;) {                                                             \
        const int nv = (int)(cols - c < WIDEST * VLEN ? (cols - c) / VLEN : WIDEST);               \
        if (nv == 0)                                                                               \
            FORM(1, cols - c);                                                                     \
        else if (nv == 1)                                                                          \
            FORM(1, VLEN);                                                                         \
        else if (nv == 2)                                                                          \
            FORM(2, VLEN);                                                                         \
        else if (nv == 4)                                                                          \
            FORM(4, VLEN);                                                                         \
        else                                                                                       \
            FORM(nv, VLEN);                                                                        \
        c += (nv ? nv : 1) * VLEN;                                                                 \
    }

/* Calls FORM(kind) with the kind of f as a constant; only piecewise linear ones come here. */
#define FOR_KINDS(FORM)                                                                            \
    if (f->kind == ACTIVATION_LINEAR) {                                                            \
        FORM(ACTIVATION_LINEAR)                                                                    \
    } else if (f->kind == ACTIVATION_RELU) {                                                       \
        FORM(ACTIVATION_RELU)                                                                      \
    } else {                                                                                       \
        FORM(ACTIVATION_RELU_GENERAL)                                                              \
    }

INLINE void activation_sums_form(const int nv, ptrdiff_t n, const int kind, ptrdiff_t rows,
                                 const fc_activation *f, const real *y, ptrdiff_t y_stride,
                                 const real *dy, ptrdiff_t dy_stride, real *dz, ptrdiff_t dz_stride,
                                 real *sum)
{
    const vec alpha = v_set1((real)f->alpha), cap = v_set1((real)f->beta);
    vec all[WIDEST], part[WIDEST];
    for (int v = 0; v < nv; v++)
        all[v] = v_zero();
    for (ptrdiff_t i = 0; i < rows;) {
        const ptrdiff_t end = rows - i < SUM_BLOCK ? rows : i + SUM_BLOCK;
        for (int v = 0; v < nv; v++)
            part[v] = v_zero();
        for (; i < end; i++)
            for (int v = 0; v < nv; v++) {
                const ptrdiff_t c = v * VLEN, k = v == nv - 1 ? n : VLEN;
                vec g = load_part(dy + i * dy_stride + c, k);
                if (kind != ACTIVATION_LINEAR) {
                    g = activation_gradient(kind, load_part(y + i * y_stride + c, k), g, alpha,
                                            cap);
                    store_part(dz + i * dz_stride + c, g, k);
                }
                part[v] = v_add(part[v], g);
            }
        for (int v = 0; v < nv; v++)
            all[v] = v_add(all[v], part[v]);
    }
    for (int v = 0; v < nv; v++)
        store_part(sum + v * VLEN, all[v], v == nv - 1 ? n : VLEN);
}

/* dz = dy f'(x), f' from y, and sum[c] = Σ dz over the rows: a bias' gradient. dz may be dy. Where
 * f is linear dz is dy, and neither dz nor y is looked at. */
static void activation_sums(ptrdiff_t rows, ptrdiff_t cols, const fc_activation *f, const real *y,
                            ptrdiff_t y_stride, const real *dy, ptrdiff_t dy_stride, real *dz,
                            ptrdiff_t dz_stride, real *sum)
{
#define FORM(NV, N)                                                                                \
    activation_sums_form(NV, N, kind, rows, f, y ? y + c : NULL, y_stride, dy + c, dy_stride,      \
                         dz ? dz + c : NULL, dz_stride, sum + c)
#define WITH(KIND)                                                                                 \
    const int kind = KIND;                                                                         \
    FOR_COLUMNS(FORM)
    if (f->kind == ACTIVATION_RELU_DROPPED) {
        WITH(ACTIVATION_RELU_DROPPED)
        return;
    }
    FOR_KINDS(WITH)
#undef WITH
#undef FORM
}

/* out[c] = Σ over the pieces of scratch[piece][c], pairwise, for channels [first, last); added to
 * out where `accumulate` says so. scratch is consumed. */
static void sums_merge(ptrdiff_t pieces, ptrdiff_t channels, ptrdiff_t first, ptrdiff_t last,
                       int accumulate, real *scratch, real *out)
{
    for (ptrdiff_t gap = 1; gap < pieces; gap *= 2)
        for (ptrdiff_t i = 0; i + gap < pieces; i += 2 * gap) {
            real *restrict a = scratch + i * channels;
            const real *restrict b = scratch + (i + gap) * channels;
            for (ptrdiff_t c = first; c < last; c++)
                a[c] += b[c];
        }
    for (ptrdiff_t c = first; c < last; c++)
        out[c] = accumulate ? out[c] + scratch[c] : scratch[c];
}

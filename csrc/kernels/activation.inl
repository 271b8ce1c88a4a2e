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
    }
#undef FORM
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

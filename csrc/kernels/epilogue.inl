/* What the sums of a product go through before they are stored: a batch norm with given statistics, a
 * residual and a piecewise linear activation. The operations are those of norm_forward, in its order,
 * on the sum that would have been stored: the results are the same bits.
 *
 * An fc_epilogue has one value a channel in each of its vectors; NULL: it has none. */

/* The normalised value before residual and activation, to the same bits in every kernel. */
INLINE vec norm_value(vec x, vec centre, vec scale, vec shift)
{
    return v_fma(v_sub(x, centre), scale, shift);
}

/* The epilogue for n ≤ VLEN channels from c on. */
typedef struct {
    vec centre, scale, shift, alpha, cap, threshold;
    int norm, kind;
} epilogue_columns;

/* Whether more is to be done than the bias, with which the sums begin, and a ReLU. */
INLINE int epilogue_does(const fc_epilogue *e)
{
    return e && (e->scale || e->residual || e->f.kind == ACTIVATION_RELU_GENERAL);
}

INLINE epilogue_columns epilogue_of(const fc_epilogue *e, ptrdiff_t c, ptrdiff_t n)
{
    const real *mean = e->mean, *scale = e->scale, *shift = e->shift;
    epilogue_columns columns = {.norm = scale != NULL, .kind = e->f.kind};
    columns.centre = columns.scale = columns.shift = v_zero();
    columns.alpha = columns.cap = columns.threshold = v_zero();
    if (scale) {
        columns.centre = load_part(mean + c, n);
        columns.scale = load_part(scale + c, n);
        if (shift)
            columns.shift = load_part(shift + c, n);
    }
    if (columns.kind == ACTIVATION_RELU_GENERAL) {
        columns.alpha = v_set1((real)e->f.alpha);
        columns.cap = v_set1((real)e->f.beta);
        columns.threshold = v_set1((real)e->f.gamma);
    }
    return columns;
}

/* y of a sum, n ≤ VLEN channels of it; r is the pixel's residual or NULL. */
INLINE vec epilogue_value(const epilogue_columns *e, vec sum, const real *r, ptrdiff_t n)
{
    if (e->norm)
        sum = norm_value(sum, e->centre, e->scale, e->shift);
    if (r)
        sum = v_add(sum, load_part(r, n));
    if (e->kind == ACTIVATION_LINEAR)
        return sum;
    if (e->kind == ACTIVATION_RELU)
        return activation_value(ACTIVATION_RELU, sum, e->alpha, e->cap, e->threshold);
    return activation_value(ACTIVATION_RELU_GENERAL, sum, e->alpha, e->cap, e->threshold);
}

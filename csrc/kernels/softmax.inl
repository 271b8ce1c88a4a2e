/* Softmax over the columns (channels) of each row (pixel), the row's maximum subtracted. */

INLINE real row_max(ptrdiff_t cols, const real *x)
{
    const vec lowest = v_set1(-INFINITY);
    vec top = lowest;
    ptrdiff_t i = 0;
    for (; i + VLEN <= cols; i += VLEN)
        top = v_max(v_load(x + i), top);
    if (i < cols)
        top = v_max(v_select(v_first(cols - i), v_load_tail(x + i, cols - i), lowest), top);
    return v_largest(top);
}

/* y = e^(x − top), returns the sum; a NaN that row_max passed over shows up here. y may be NULL. */
INLINE real row_exp_sum(ptrdiff_t cols, real top, const real *x, real *y)
{
    const vec shift = v_set1(top);
    vec sum = v_zero();
    ptrdiff_t i = 0;
    for (; i + VLEN <= cols; i += VLEN) {
        const vec e = v_exp(v_sub(v_load(x + i), shift));
        sum = v_add(sum, e);
        if (y)
            v_store(y + i, e);
    }
    if (i < cols) {
        const vec e = v_exp(v_sub(v_load_tail(x + i, cols - i), shift));
        sum = v_add(sum, v_select(v_first(cols - i), e, v_zero()));
        if (y)
            v_store_tail(y + i, e, cols - i);
    }
    return v_sum(sum);
}

/* A row of few columns would take as long as a whole vector, and most of that to add its lanes up. So
 * a vector holds one column of VLEN rows; where rows are fewer, the others are zeros. */
enum { FEW_COLUMNS = 8 };

static void softmax_of_few(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride,
                           real *y, ptrdiff_t y_stride)
{
    real column[FEW_COLUMNS][VLEN] = {{0}};
    vec top = v_set1(-INFINITY), sum = v_zero();
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < cols; c++)
            column[c][r] = x[r * x_stride + c];
    for (ptrdiff_t c = 0; c < cols; c++)
        top = v_max(v_load(column[c]), top);
    for (ptrdiff_t c = 0; c < cols; c++) {
        const vec e = v_exp(v_sub(v_load(column[c]), top));
        sum = v_add(sum, e);
        v_store(column[c], e);
    }
    const vec scale = v_div(v_set1(1), sum);
    for (ptrdiff_t c = 0; c < cols; c++)
        v_store(column[c], v_mul(v_load(column[c]), scale));
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < cols; c++)
            y[r * y_stride + c] = column[c][r];
}

/* y = softmax(x), row by row; y may be x. */
static void softmax_forward(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride,
                            real *y, ptrdiff_t y_stride)
{
    for (ptrdiff_t r = 0; cols <= FEW_COLUMNS && r < rows; r += VLEN)
        softmax_of_few(rows - r < VLEN ? rows - r : VLEN, cols, x + r * x_stride, x_stride,
                       y + r * y_stride, y_stride);
    if (cols <= FEW_COLUMNS)
        return;
    for (ptrdiff_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
        const vec scale = v_set1(1 / row_exp_sum(cols, row_max(cols, x), x, y));
        ptrdiff_t i = 0;
        for (; i + VLEN <= cols; i += VLEN)
            v_store(y + i, v_mul(v_load(y + i), scale));
        if (i < cols)
            v_store_tail(y + i, v_mul(v_load_tail(y + i, cols - i), scale), cols - i);
    }
}

/* dx = y (dy − Σ y dy), row by row; dx may be dy. */
static void softmax_backward(ptrdiff_t rows, ptrdiff_t cols, const real *y, ptrdiff_t y_stride,
                             const real *dy, ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride)
{
    for (ptrdiff_t r = 0; r < rows; r++, y += y_stride, dy += dy_stride, dx += dx_stride) {
        vec sum = v_zero();
        ptrdiff_t i = 0;
        for (; i + VLEN <= cols; i += VLEN)
            sum = v_fma(v_load(y + i), v_load(dy + i), sum);
        if (i < cols)
            sum = v_fma(v_load_tail(y + i, cols - i), v_load_tail(dy + i, cols - i), sum);
        const vec dot = v_set1(v_sum(sum));
        for (i = 0; i < cols; i += VLEN) {
            const ptrdiff_t n = cols - i < VLEN ? cols - i : VLEN;
            store_part(dx + i, v_mul(load_part(y + i, n), v_sub(load_part(dy + i, n), dot)), n);
        }
    }
}

/* An image read along an affine map, rows × cols × channels, contiguous: pixel (r, c) of y is x at
 * column u = map[0] c + map[1] r + map[2] and row v = map[3] c + map[4] r + map[5], the nearest pixel
 * or between four. Places are doubles in every table: which pixels are read depends on no type. */

enum { EDGE_CONSTANT, EDGE_NEAREST, EDGE_WRAP, EDGE_REFLECT };

/* The pixel that stands at place i of an axis of n; −1: none does, the fill value is there. */
INLINE ptrdiff_t sample_place(int edge, ptrdiff_t i, ptrdiff_t n)
{
    if (i >= 0 && i < n)
        return i;
    if (edge == EDGE_NEAREST)
        return i < 0 ? 0 : n - 1;
    if (edge == EDGE_CONSTANT)
        return -1;
    const ptrdiff_t period = edge == EDGE_WRAP ? n : 2 * n;
    i %= period;
    i += i < 0 ? period : 0;
    return i < n ? i : period - 1 - i; /* d c b a | a b c d | d c b a */
}

typedef struct {
    ptrdiff_t offset[4]; /* of the pixels in x, in elements; −1: outside */
    double weight[4];
    int count;
} sample_taps;

INLINE void sample_at(int edge, int linear, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels,
                      double u, double v, sample_taps *t)
{
    if (!linear) { /* halves away from zero */
        const ptrdiff_t r = sample_place(edge, (ptrdiff_t)(v < 0 ? v - 0.5 : v + 0.5), rows);
        const ptrdiff_t c = sample_place(edge, (ptrdiff_t)(u < 0 ? u - 0.5 : u + 0.5), cols);
        t->count = 1;
        t->weight[0] = 1;
        t->offset[0] = r < 0 || c < 0 ? -1 : (r * cols + c) * channels;
        return;
    }
    ptrdiff_t r = (ptrdiff_t)v, c = (ptrdiff_t)u;
    r -= (double)r > v; /* the floor */
    c -= (double)c > u;
    const double down = v - (double)r, right = u - (double)c;
    t->count = 4;
    t->weight[0] = (1 - down) * (1 - right);
    t->weight[1] = (1 - down) * right;
    t->weight[2] = down * (1 - right);
    t->weight[3] = down * right;
    if (r >= 0 && c >= 0 && r + 1 < rows && c + 1 < cols) {
        t->offset[0] = (r * cols + c) * channels;
        t->offset[1] = t->offset[0] + channels;
        t->offset[2] = t->offset[0] + cols * channels;
        t->offset[3] = t->offset[2] + channels;
        return;
    }
    for (int i = 0; i < 4; i++) {
        const ptrdiff_t row = sample_place(edge, r + i / 2, rows);
        const ptrdiff_t col = sample_place(edge, c + i % 2, cols);
        t->offset[i] = row < 0 || col < 0 ? -1 : (row * cols + col) * channels;
    }
}

INLINE void sample_rows(int edge, int linear, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels,
                        const double *map, real fill, const real *x, real *y, ptrdiff_t first,
                        ptrdiff_t last)
{
    sample_taps t;
    for (ptrdiff_t r = first; r < last; r++)
        for (ptrdiff_t c = 0; c < cols; c++) {
            real *to = y + (r * cols + c) * channels;
            sample_at(edge, linear, rows, cols, channels, map[0] * c + map[1] * r + map[2],
                      map[3] * c + map[4] * r + map[5], &t);
            if (linear && t.offset[0] >= 0 && t.offset[1] >= 0 && t.offset[2] >= 0 &&
                t.offset[3] >= 0) {
                const real w0 = (real)t.weight[0], w1 = (real)t.weight[1];
                const real w2 = (real)t.weight[2], w3 = (real)t.weight[3];
                for (ptrdiff_t k = 0; k < channels; k++)
                    to[k] = w0 * x[t.offset[0] + k] + w1 * x[t.offset[1] + k] +
                            w2 * x[t.offset[2] + k] + w3 * x[t.offset[3] + k];
                continue;
            }
            for (ptrdiff_t k = 0; k < channels; k++) {
                real sum = 0;
                for (int i = 0; i < t.count; i++)
                    sum += (real)t.weight[i] * (t.offset[i] < 0 ? fill : x[t.offset[i] + k]);
                to[k] = sum;
            }
        }
}

/* Rows [first, last) of y. */
static void affine_sample(int edge, int linear, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels,
                          const double *map, real fill, const real *x, real *y, ptrdiff_t first,
                          ptrdiff_t last)
{
    if (channels == 1) /* forms that the compiler knows */
        sample_rows(edge, linear, rows, cols, 1, map, fill, x, y, first, last);
    else if (channels == 3)
        sample_rows(edge, linear, rows, cols, 3, map, fill, x, y, first, last);
    else
        sample_rows(edge, linear, rows, cols, channels, map, fill, x, y, first, last);
}

/* The gradient: every pixel of dy goes where its value came from, with the same weights. All of dx
 * is written. */
static void affine_spread(int edge, int linear, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels,
                          const double *map, const real *dy, real *dx)
{
    sample_taps t;
    for (ptrdiff_t i = 0; i < rows * cols * channels; i++)
        dx[i] = 0;
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < cols; c++, dy += channels) {
            sample_at(edge, linear, rows, cols, channels, map[0] * c + map[1] * r + map[2],
                      map[3] * c + map[4] * r + map[5], &t);
            for (int i = 0; i < t.count; i++)
                if (t.offset[i] >= 0)
                    for (ptrdiff_t k = 0; k < channels; k++)
                        dx[t.offset[i] + k] += (real)t.weight[i] * dy[k];
        }
}

/* Winograd's minimal filtering F(4×4, 3×3): sixteen outputs of a 3×3 window from 36 products
 * instead of 144 (Winograd 1980; Lavin and Gray 2015), and F(2×2, 5×5): four outputs of a 5×5 window
 * from 36 instead of 100. With x a tile of 6×6 pixels, w the window and dy the gradients at the
 * outputs,
 *
 *     y  = Aᵀ [ (G w Gᵀ) ∘ (Bᵀ x B) ] A        dw = Gᵀ [ (A dy Aᵀ) ∘ (Bᵀ x B) ] G
 *
 * where ∘ stands, over tiles and channels, for 36 matrix products. A polynomial of degree 5 is met at
 * the points 0, ±a, ±b and ∞. The usual ±1, ±2 lose four times as many digits as these: a = √½ and
 * b = √2 keep the powers close to one, a² + b² = 5/2 and ab = 1. In the order 0, a, −a, b, −b, ∞:
 *
 *          1   0  −5/2  0  1  0         1    0     0            1  0  0   0
 *          0  −2a  −2   a  1  0       −2/3 −2a/3 −1/3           1  a  ½   a/2
 *     Bᵀ = 0   2a  −2  −a  1  0   G = −2/3  2a/3 −1/3       A = 1 −a  ½  −a/2
 *          0 −b/2 −1/2  b  1  0        1/6  b/6   1/3           1  b  2   2b
 *          0  b/2 −1/2 −b  1  0        1/6 −b/6   1/3           1 −b  2  −2b
 *          0   1   0  −5/2 0  1         0    0     1            0  0  0   1
 *
 * For windows of 5, B is the same; G has powers up to the fourth, A only 1 and the point itself, and
 * ∞ stands for the last of them. */

#define POINT_A ((real)0.70710678118654752440)
#define POINT_B ((real)1.41421356237309504880)

/* VLEN channels of a tile's pixels. A whole tile is base and two steps. Of another one, rows that lie
 * outside the image begin at zeros and do not move, columns first..last lie inside. */
typedef struct {
    const real *base, *row[6];
    ptrdiff_t row_step, pixel_step, step[6], first, last;
} tile_view;

static const real zeros[VLEN];

INLINE int whole(const int size, const fc_tile *tile)
{
    return tile->first[0] == 0 && tile->first[1] == 0 && tile->last[0] == size &&
           tile->last[1] == size;
}

/* The view of a tile of size × size pixels at x. The last channels, fewer than VLEN, are copied. */
INLINE tile_view view_clipped(const int size, const fc_tile *tile, ptrdiff_t cols, const real *x,
                              real *copy)
{
    tile_view view = {.first = tile->first[1], .last = tile->last[1]};
    UNROLL(6)
    for (int i = 0; i < size; i++) {
        const int inside = i >= tile->first[0] && i < tile->last[0];
        view.row[i] = inside ? x + i * tile->row_step : zeros;
        view.step[i] = inside ? tile->pixel_step : 0;
        if (cols >= VLEN || !inside)
            continue;
        for (ptrdiff_t j = view.first; j < view.last; j++)
            v_store(copy + (i * size + j) * VLEN,
                    v_load_tail(view.row[i] + j * view.step[i], cols));
        view.row[i] = copy + i * size * VLEN;
        view.step[i] = VLEN;
    }
    return view;
}

INLINE tile_view view_whole(const fc_tile *tile, const real *x)
{
    return (tile_view){.base = x, .row_step = tile->row_step, .pixel_step = tile->pixel_step};
}

INLINE vec pixel(const int clipped, const tile_view *x, const int i, const int j)
{
    return v_load(clipped ? x->row[i] + j * x->step[i]
                          : x->base + i * x->row_step + j * x->pixel_step);
}

INLINE int column_inside(const int clipped, const tile_view *x, const int j)
{
    return !clipped || (j >= x->first && j < x->last);
}

/* Entry i of Bᵀ d for column j of a tile, d its six rows. */
INLINE vec input_entry(const int i, const int clipped, const tile_view *d, const int j)
{
    if (i == 0 || i == 5) {
        const int k = i == 5;
        const vec sum = v_add(pixel(clipped, d, k, j), pixel(clipped, d, k + 4, j));
        return v_fma(v_set1((real)-2.5), pixel(clipped, d, k + 2, j), sum);
    }
    const int near = i < 3; /* ±a, else ±b */
    const real point = near ? POINT_A : POINT_B;
    const vec other = v_set1(near ? (real)-2 : (real)-0.5); /* −b² or −a² */
    const vec even = v_fma(other, pixel(clipped, d, 2, j), pixel(clipped, d, 4, j));
    const vec odd = v_fma(other, pixel(clipped, d, 1, j), pixel(clipped, d, 3, j));
    return v_fma(v_set1(i % 2 ? point : -point), odd, even);
}

/* v = Bᵀ d for six vectors. */
INLINE void input_line(const vec d[6], vec v[6])
{
    const vec two = v_set1((real)-2), half = v_set1((real)-0.5), five = v_set1((real)-2.5);
    const vec even_a = v_fma(two, d[2], d[4]), odd_a = v_fma(two, d[1], d[3]);
    const vec even_b = v_fma(half, d[2], d[4]), odd_b = v_fma(half, d[1], d[3]);
    v[0] = v_fma(five, d[2], v_add(d[0], d[4]));
    v[1] = v_fma(v_set1(POINT_A), odd_a, even_a);
    v[2] = v_fma(v_set1(-POINT_A), odd_a, even_a);
    v[3] = v_fma(v_set1(POINT_B), odd_b, even_b);
    v[4] = v_fma(v_set1(-POINT_B), odd_b, even_b);
    v[5] = v_fma(five, d[3], v_add(d[1], d[5]));
}

/* Outputs of a tile along one axis. */
#define OUTPUTS(window) (7 - (window))

/* Entry i of A y for column j of a tile, y its rows. */
INLINE vec gradient_entry(const int window, const int i, const int clipped, const tile_view *y,
                          const int j)
{
    if (i == 0 || i == 5)
        return pixel(clipped, y, i ? OUTPUTS(window) - 1 : 0, j);
    const int near = i < 3; /* ±a, else ±b */
    const vec point = v_set1(i % 2 ? (near ? POINT_A : POINT_B) : (near ? -POINT_A : -POINT_B));
    if (window == 5)
        return v_fma(point, pixel(clipped, y, 1, j), pixel(clipped, y, 0, j));
    const vec square = v_set1(near ? (real)0.5 : (real)2);
    const vec even = v_fma(square, pixel(clipped, y, 2, j), pixel(clipped, y, 0, j));
    const vec odd = v_fma(square, pixel(clipped, y, 3, j), pixel(clipped, y, 1, j));
    return v_fma(point, odd, even);
}

/* v = A y, four or two vectors to six. */
INLINE void gradient_line(const int window, const vec y[4], vec v[6])
{
    const vec half = v_set1((real)0.5), two = v_set1((real)2);
    vec even_a = y[0], odd_a = y[1], even_b = y[0], odd_b = y[1];
    if (window == 3) {
        even_a = v_fma(half, y[2], y[0]), odd_a = v_fma(half, y[3], y[1]);
        even_b = v_fma(two, y[2], y[0]), odd_b = v_fma(two, y[3], y[1]);
    }
    v[0] = y[0];
    v[1] = v_fma(v_set1(POINT_A), odd_a, even_a);
    v[2] = v_fma(v_set1(-POINT_A), odd_a, even_a);
    v[3] = v_fma(v_set1(POINT_B), odd_b, even_b);
    v[4] = v_fma(v_set1(-POINT_B), odd_b, even_b);
    v[5] = y[OUTPUTS(window) - 1];
}

/* y = Aᵀ m, six vectors to four or two. */
INLINE void output_line(const int window, const vec m[6], vec y[4])
{
    const vec sum_a = v_add(m[1], m[2]), sum_b = v_add(m[3], m[4]);
    const vec odd_a = v_mul(v_set1(POINT_A), v_sub(m[1], m[2]));
    const vec odd_b = v_mul(v_set1(POINT_B), v_sub(m[3], m[4]));
    y[0] = v_add(m[0], v_add(sum_a, sum_b));
    y[1] = v_add(odd_a, odd_b);
    if (window == 3) {
        y[2] = v_fma(v_set1((real)2), sum_b, v_mul(v_set1((real)0.5), sum_a));
        y[3] = v_fma(v_set1((real)2), odd_b, v_mul(v_set1((real)0.5), odd_a));
    }
    y[OUTPUTS(window) - 1] = v_add(y[OUTPUTS(window) - 1], m[5]);
}

/* Σ over the even (first = 0) or odd (first = 1) entries of w, times the powers of a² or b². */
INLINE vec powers(const int window, const int first, const vec square, const vec w[5])
{
    int k = first + (window - 1 - first) / 2 * 2;
    vec sum = w[k];
    for (k -= 2; k >= 0; k -= 2)
        sum = v_fma(square, sum, w[k]);
    return sum;
}

/* v = G w, three or five vectors to six. */
INLINE void window_line(const int window, const vec w[5], vec v[6])
{
    const vec half = v_set1((real)0.5), two = v_set1((real)2);
    const vec even_a = v_mul(v_set1((real)(-2.0 / 3)), powers(window, 0, half, w));
    const vec even_b = v_mul(v_set1((real)(1.0 / 6)), powers(window, 0, two, w));
    const vec odd_a = v_mul(v_set1(POINT_A * (real)(-2.0 / 3)), powers(window, 1, half, w));
    const vec odd_b = v_mul(v_set1(POINT_B * (real)(1.0 / 6)), powers(window, 1, two, w));
    v[0] = w[0];
    v[1] = v_add(even_a, odd_a);
    v[2] = v_sub(even_a, odd_a);
    v[3] = v_add(even_b, odd_b);
    v[4] = v_sub(even_b, odd_b);
    v[5] = w[window - 1];
}

/* Entry i of G w. */
INLINE vec window_entry(const int window, const int i, const vec w[5])
{
    if (i == 0 || i == 5)
        return w[i ? window - 1 : 0];
    const int near = i < 3;
    const vec square = v_set1(near ? (real)0.5 : (real)2);
    const real share = (real)(near ? -2.0 / 3 : 1.0 / 6);
    const vec even = v_mul(v_set1(share), powers(window, 0, square, w));
    const vec odd = v_mul(v_set1((near ? POINT_A : POINT_B) * share), powers(window, 1, square, w));
    return i % 2 ? v_add(even, odd) : v_sub(even, odd);
}

/* w = Gᵀ u, six vectors to three or five. */
INLINE void window_gradient_line(const int window, const vec u[6], vec w[5])
{
    vec even_a = v_mul(v_set1((real)(-2.0 / 3)), v_add(u[1], u[2]));
    vec even_b = v_mul(v_set1((real)(1.0 / 6)), v_add(u[3], u[4]));
    vec odd_a = v_mul(v_set1(POINT_A * (real)(-2.0 / 3)), v_sub(u[1], u[2]));
    vec odd_b = v_mul(v_set1(POINT_B * (real)(1.0 / 6)), v_sub(u[3], u[4]));
    const vec half = v_set1((real)0.5), two = v_set1((real)2);
    w[0] = v_add(u[0], v_add(even_a, even_b));
    w[1] = v_add(odd_a, odd_b);
    for (int k = 2; k < window; k += 2) {
        even_a = v_mul(half, even_a), even_b = v_mul(two, even_b);
        odd_a = v_mul(half, odd_a), odd_b = v_mul(two, odd_b);
        w[k] = v_add(even_a, even_b);
        if (k + 1 < window)
            w[k + 1] = v_add(odd_a, odd_b);
    }
    w[window - 1] = v_add(w[window - 1], u[5]);
}

/* Row i of Bᵀ x B for VLEN channels. */
INLINE void input_row(const int i, const int clipped, const tile_view *x, real *v, ptrdiff_t plane)
{
    vec d[6], t[6];
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        d[j] = column_inside(clipped, x, j) ? input_entry(i, clipped, x, j) : v_zero();
    input_line(d, t);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(v + j * plane, t[j]);
}

INLINE void input_square(const int clipped, int first, int last, const tile_view *x, real *v,
                         ptrdiff_t plane)
{
#define ROW(I)                                                                                     \
    if (first <= I && I < last)                                                                    \
        input_row(I, clipped, x, v, plane), v += 6 * plane;
    ROW(0)
    ROW(1)
    ROW(2)
    ROW(3)
    ROW(4)
    ROW(5)
#undef ROW
}

/* Fetch the pixels that the next tile of the row adds. */
INLINE void fetch_next(const tile_view *x)
{
    for (int i = 0; i < 6; i++)
        for (int j = 6; j < 10; j++)
            __builtin_prefetch(x->base + i * x->row_step + j * x->pixel_step);
}

/* Rows first..last of v = Bᵀ x B; v has six planes a row, whole vectors of channels in each.
 *
 * x is the tile's top left pixel, of which tile says what lies inside the image. */
static void winograd_input(const fc_tile *tile, ptrdiff_t channels, int first, int last,
                           const real *x, real *v, ptrdiff_t plane)
{
    real copy[36 * VLEN];
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        if (whole(6, tile) && channels - c >= VLEN) {
            const tile_view view = view_whole(tile, x + c);
            fetch_next(&view);
            input_square(0, first, last, &view, v + c, plane);
        } else {
            const tile_view view = view_clipped(6, tile, channels - c, x + c, copy);
            input_square(1, first, last, &view, v + c, plane);
        }
    }
}

/* Row i of A dy Aᵀ for VLEN channels. */
INLINE void gradient_row(const int window, const int i, const int clipped, const tile_view *dy,
                         real *v, ptrdiff_t plane)
{
    vec d[4], t[6];
    UNROLL(4)
    for (int j = 0; j < OUTPUTS(window); j++)
        d[j] = column_inside(clipped, dy, j) ? gradient_entry(window, i, clipped, dy, j) : v_zero();
    gradient_line(window, d, t);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(v + j * plane, t[j]);
}

INLINE void gradient_square(const int window, const int clipped, int first, int last,
                            const tile_view *dy, real *v, ptrdiff_t plane)
{
#define ROW(I)                                                                                     \
    if (first <= I && I < last)                                                                    \
        gradient_row(window, I, clipped, dy, v, plane), v += 6 * plane;
    ROW(0)
    ROW(1)
    ROW(2)
    ROW(3)
    ROW(4)
    ROW(5)
#undef ROW
}

INLINE void gradient_form(const int window, const fc_tile *tile, ptrdiff_t channels, int first,
                          int last, const real *dy, real *v, ptrdiff_t plane)
{
    const int size = OUTPUTS(window);
    real copy[16 * VLEN];
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        if (whole(size, tile) && channels - c >= VLEN) {
            const tile_view view = view_whole(tile, dy + c);
            gradient_square(window, 0, first, last, &view, v + c, plane);
        } else {
            const tile_view view = view_clipped(size, tile, channels - c, dy + c, copy);
            gradient_square(window, 1, first, last, &view, v + c, plane);
        }
    }
}

/* Rows first..last of v = A dy Aᵀ, as in winograd_input; the tile has 4×4 pixels for windows of 3,
 * 2×2 for windows of 5. */
static void winograd_gradient(int window, const fc_tile *tile, ptrdiff_t channels, int first,
                              int last, const real *dy, real *v, ptrdiff_t plane)
{
    if (window == 3)
        gradient_form(3, tile, channels, first, last, dy, v, plane);
    else
        gradient_form(5, tile, channels, first, last, dy, v, plane);
}

/* Aᵀ m A for VLEN channels, line by line of m so that the sums stay in registers: a point and its
 * negative meet as sum and difference. */
INLINE void output_square(const int window, const real *m, ptrdiff_t plane, vec sum[4][4])
{
    const int size = OUTPUTS(window);
    vec line[6], r[4], pair[4];
    UNROLL(6)
    for (int i = 0; i < 6; i++) {
        UNROLL(6)
        for (int j = 0; j < 6; j++)
            line[j] = v_load(m + (6 * i + j) * plane);
        output_line(window, line, r);
        const int near = i < 3;
        const vec point = v_set1(near ? POINT_A : POINT_B);
        const vec square = v_set1(near ? (real)0.5 : (real)2);
        UNROLL(4)
        for (int k = 0; k < size; k++) {
            if (i == 0)
                sum[0][k] = r[k];
            else if (i == 5)
                sum[size - 1][k] = v_add(sum[size - 1][k], r[k]);
            else if (i % 2)
                pair[k] = r[k];
            else {
                const vec even = v_add(pair[k], r[k]);
                const vec odd = v_mul(point, v_sub(pair[k], r[k]));
                sum[0][k] = v_add(sum[0][k], even);
                sum[1][k] = near ? odd : v_add(sum[1][k], odd);
                if (window == 3) {
                    sum[2][k] = near ? v_mul(square, even) : v_fma(square, even, sum[2][k]);
                    sum[3][k] = near ? v_mul(square, odd) : v_fma(square, odd, sum[3][k]);
                }
            }
        }
    }
}

/* Fetch what the tile after the next one of the row writes and reads: stores and loads of lines that
 * no near cache holds would wait for each other. */
INLINE void fetch_outputs(const int window, const fc_tile *tile, const real *residual,
                          ptrdiff_t residual_stride, const real *y)
{
    const ptrdiff_t width = tile->row_step / tile->pixel_step; /* pixels from row to row */
    UNROLL(4)
    for (int i = 0; i < OUTPUTS(window); i++) {
        UNROLL(4)
        for (int j = 2 * OUTPUTS(window); j < 3 * OUTPUTS(window); j++) {
            __builtin_prefetch(y + i * tile->row_step + j * tile->pixel_step, 1);
            if (residual)
                __builtin_prefetch(residual + (i * width + j) * residual_stride);
        }
    }
}

INLINE int tile_has(const int clipped, const fc_tile *tile, const int i, const int j)
{
    return !clipped || (i < tile->last[0] && j < tile->last[1]);
}

/* Mean and Σ (y − mean)² of a tile's outputs, joined to those of `count` outputs before. */
INLINE void tile_moments(const int size, const int clipped, const fc_tile *tile, vec y[4][4],
                         ptrdiff_t count, ptrdiff_t n, real *mean, real *m2)
{
    const real own = clipped ? (real)(tile->last[0] * tile->last[1]) : (real)(size * size);
    const real before = (real)count, share = own / (before + own);
    vec t[4];
    UNROLL(4)
    for (int i = 0; i < size; i++) {
        t[i] = v_zero();
        UNROLL(4)
        for (int j = 0; j < size; j++)
            if (tile_has(clipped, tile, i, j))
                t[i] = v_add(t[i], y[i][j]);
    }
    const vec sum =
        size == 4 ? v_add(v_add(t[0], t[1]), v_add(t[2], t[3])) : v_add(t[0], t[size - 1]);
    const vec centre = v_mul(sum, v_set1(1 / own));
    UNROLL(4)
    for (int i = 0; i < size; i++) {
        t[i] = v_zero();
        UNROLL(4)
        for (int j = 0; j < size; j++) {
            const vec d = v_sub(y[i][j], centre);
            if (tile_has(clipped, tile, i, j))
                t[i] = v_fma(d, d, t[i]);
        }
    }
    const vec square =
        size == 4 ? v_add(v_add(t[0], t[1]), v_add(t[2], t[3])) : v_add(t[0], t[size - 1]);
    if (count == 0) {
        store_part(mean, centre, n);
        store_part(m2, square, n);
        return;
    }
    const vec old = load_part(mean, n), delta = v_sub(centre, old);
    store_part(mean, v_fma(delta, v_set1(share), old), n);
    store_part(
        m2, v_add(load_part(m2, n), v_fma(v_mul(delta, delta), v_set1(before * share), square)), n);
}

/* VLEN outputs of each pixel of a tile, n of them, on their way out; r is the first residual. */
INLINE void output_store(const int size, const int clipped, const fc_tile *tile, vec sum[4][4],
                         const fc_epilogue *e, ptrdiff_t c, ptrdiff_t n, const real *r, real *y)
{
    if (!epilogue_does(e)) {
        const int relu = e->f.kind == ACTIVATION_RELU;
        UNROLL(4)
        for (int i = 0; i < size; i++) {
            UNROLL(4)
            for (int j = 0; j < size; j++)
                if (tile_has(clipped, tile, i, j))
                    store_part(y + i * tile->row_step + j * tile->pixel_step,
                               relu ? v_max(v_zero(), sum[i][j]) : sum[i][j], n);
        }
        return;
    }
    const epilogue_columns columns = epilogue_of(e, c, n);
    const ptrdiff_t width = tile->row_step / tile->pixel_step; /* pixels from row to row */
    UNROLL(4)
    for (int i = 0; i < size; i++) {
        UNROLL(4)
        for (int j = 0; j < size; j++)
            if (tile_has(clipped, tile, i, j))
                store_part(y + i * tile->row_step + j * tile->pixel_step,
                           epilogue_value(&columns, sum[i][j],
                                          r ? r + (i * width + j) * e->residual_stride : NULL, n),
                           n);
    }
}

INLINE void output_part(const int window, const int clipped, const fc_tile *tile, ptrdiff_t c,
                        ptrdiff_t n, const real *m, ptrdiff_t plane, const fc_epilogue *e,
                        const real *residual, real *y, ptrdiff_t count, real *moments)
{
    const int size = OUTPUTS(window);
    const real *bias = e->bias, *r = residual ? residual + c : NULL;
    vec sum[4][4];
    fetch_outputs(window, tile, r, e->residual_stride, y + c);
    output_square(window, m + c, plane, sum);
    const vec start = bias ? load_part(bias + c, n) : v_zero();
    UNROLL(4)
    for (int i = 0; i < size; i++) {
        UNROLL(4)
        for (int j = 0; j < size; j++)
            sum[i][j] = v_add(start, sum[i][j]);
    }
    if (moments)
        tile_moments(size, clipped, tile, sum, count, n, moments + c,
                     moments + e->moments_stride + c);
    output_store(size, clipped, tile, sum, e, c, n, r, y + c);
}

INLINE void output_form(const int window, const fc_tile *tile, ptrdiff_t channels, const real *m,
                        ptrdiff_t plane, const fc_epilogue *e, const real *residual, real *y,
                        ptrdiff_t count, real *moments)
{
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        if (whole(OUTPUTS(window), tile) && channels - c >= VLEN)
            output_part(window, 0, tile, c, VLEN, m, plane, e, residual, y, count, moments);
        else
            output_part(window, 1, tile, c, channels - c < VLEN ? channels - c : VLEN, m, plane, e,
                        residual, y, count, moments);
    }
}

/* y = Aᵀ m A, by way of the epilogue, for the pixels of a tile that lie inside the image; m has 36
 * planes. residual is where the tile's first pixel has it, or NULL. Where moments are wanted (not NULL)
 * the epilogue has a bias at most: those of the tile's outputs are joined to what stands there, the
 * moments of `count` others; of none, it is overwritten. */
static void winograd_output(int window, const fc_tile *tile, ptrdiff_t channels, const real *m,
                            ptrdiff_t plane, const fc_epilogue *e, const real *residual, real *y,
                            ptrdiff_t count, real *moments)
{
    if (window == 3)
        output_form(3, tile, channels, m, plane, e, residual, y, count, moments);
    else
        output_form(5, tile, channels, m, plane, e, residual, y, count, moments);
}

/* Row i of G w Gᵀ for VLEN output channels, the taps of which lie in g. */
INLINE void window_row(const int window, const int i, const vec g[25], real *u, ptrdiff_t plane)
{
    vec half[5], t[6];
    UNROLL(5)
    for (int b = 0; b < window; b++) {
        vec column[5];
        UNROLL(5)
        for (int a = 0; a < window; a++)
            column[a] = g[a * window + b];
        half[b] = window_entry(window, i, column);
    }
    window_line(window, half, t);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(u + j * plane, t[j]);
}

INLINE void window_form(const int window, ptrdiff_t count, ptrdiff_t cols, int first, int last,
                        const real *w, ptrdiff_t tap_step, ptrdiff_t row_step, real *u,
                        ptrdiff_t plane)
{
    for (ptrdiff_t k = 0; k < count; k++, w += row_step, u += GATHER_NR)
        for (ptrdiff_t j = 0; j < GATHER_NR; j += VLEN) {
            vec g[25];
            UNROLL(25)
            for (int t = 0; t < window * window; t++) {
                const real *from = w + t * tap_step + j;
                g[t] = j + VLEN <= cols ? v_load(from)
                       : j < cols       ? v_load_tail(from, cols - j)
                                        : v_zero();
            }
            real *to = u + j;
#define ROW(I)                                                                                     \
    if (first <= I && I < last)                                                                    \
        window_row(window, I, g, to, plane), to += 6 * plane;
            ROW(0)
            ROW(1)
            ROW(2)
            ROW(3)
            ROW(4)
            ROW(5)
#undef ROW
        }
}

/* Rows first..last of u = G w Gᵀ for count input and cols ≤ GATHER_NR output channels, zero for the
 * columns that are not there. w[t * tap_step + k * row_step + j] for the taps t; u has six panels a
 * row, each [count][GATHER_NR], plane apart. */
static void winograd_window(int window, ptrdiff_t count, ptrdiff_t cols, int first, int last,
                            const real *w, ptrdiff_t tap_step, ptrdiff_t row_step, real *u,
                            ptrdiff_t plane)
{
    if (window == 3)
        window_form(3, count, cols, first, last, w, tap_step, row_step, u, plane);
    else
        window_form(5, count, cols, first, last, w, tap_step, row_step, u, plane);
}

INLINE void window_half_form(const int window, ptrdiff_t count, const real *u, ptrdiff_t plane,
                             real *h, ptrdiff_t h_plane)
{
    for (ptrdiff_t k = 0; k < count; k += VLEN) {
        const ptrdiff_t n = count - k;
        vec t[6], w[5];
        UNROLL(6)
        for (int j = 0; j < 6; j++)
            t[j] = n < VLEN ? v_load_tail(u + j * plane + k, n) : v_load(u + j * plane + k);
        window_gradient_line(window, t, w);
        UNROLL(5)
        for (int b = 0; b < window; b++) {
            if (n < VLEN)
                v_store_tail(h + b * h_plane + k, w[b], n);
            else
                v_store(h + b * h_plane + k, w[b]);
        }
    }
}

/* Half of dw = Gᵀ u G: a row of six planes of u to the window's columns, count numbers each. */
static void winograd_window_half(int window, ptrdiff_t count, const real *u, ptrdiff_t plane,
                                 real *h, ptrdiff_t h_plane)
{
    if (window == 3)
        window_half_form(3, count, u, plane, h, h_plane);
    else
        window_half_form(5, count, u, plane, h, h_plane);
}

INLINE void window_gradient_form(const int window, ptrdiff_t count, ptrdiff_t pieces, const real *h,
                                 ptrdiff_t plane, int accumulate, real *dw, ptrdiff_t tap_step)
{
    for (ptrdiff_t k = 0; k < count; k += VLEN) {
        const ptrdiff_t n = count - k;
        for (int b = 0; b < window; b++) {
            vec t[6], w[5];
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                t[i] = v_zero();
                for (ptrdiff_t p = 0; p < pieces; p++) {
                    const real *from = h + ((p * 6 + i) * window + b) * plane + k;
                    t[i] = v_add(t[i], n < VLEN ? v_load_tail(from, n) : v_load(from));
                }
            }
            window_gradient_line(window, t, w);
            UNROLL(5)
            for (int a = 0; a < window; a++) {
                real *to = dw + (window * a + b) * tap_step + k;
                if (n < VLEN)
                    v_store_tail(to, accumulate ? v_add(v_load_tail(to, n), w[a]) : w[a], n);
                else
                    v_store(to, accumulate ? v_add(v_load(to), w[a]) : w[a]);
            }
        }
    }
}

/* The other half, over the pieces of the batch: h[piece][row 0..5][column of the window] of numbers
 * plane apart to the taps of dw, tap_step apart. */
static void winograd_window_gradient(int window, ptrdiff_t count, ptrdiff_t pieces, const real *h,
                                     ptrdiff_t plane, int accumulate, real *dw, ptrdiff_t tap_step)
{
    if (window == 3)
        window_gradient_form(3, count, pieces, h, plane, accumulate, dw, tap_step);
    else
        window_gradient_form(5, count, pieces, h, plane, accumulate, dw, tap_step);
}

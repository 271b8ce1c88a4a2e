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

/* Entry i of Bᵀ d, d[k] = *(d + k * step). */
INLINE vec input_entry(const int i, const real *d, ptrdiff_t step)
{
    if (i == 0 || i == 5) {
        const real *p = i == 5 ? d + step : d;
        const vec sum = v_add(v_load(p), v_load(p + 4 * step));
        return v_fma(v_set1((real)-2.5), v_load(p + 2 * step), sum);
    }
    const int near = i < 3; /* ±a, else ±b */
    const real point = near ? POINT_A : POINT_B;
    const vec other = v_set1(near ? (real)-2 : (real)-0.5); /* −b² or −a² */
    const vec even = v_fma(other, v_load(d + 2 * step), v_load(d + 4 * step));
    const vec odd = v_fma(other, v_load(d + step), v_load(d + 3 * step));
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

/* Entry i of A y, y[k] = *(y + k * step). */
INLINE vec gradient_entry(const int window, const int i, const real *y, ptrdiff_t step)
{
    if (i == 0)
        return v_load(y);
    if (i == 5)
        return v_load(y + (OUTPUTS(window) - 1) * step);
    const int near = i < 3; /* ±a, else ±b */
    const vec point = v_set1(i % 2 ? (near ? POINT_A : POINT_B) : (near ? -POINT_A : -POINT_B));
    if (window == 5)
        return v_fma(point, v_load(y + step), v_load(y));
    const vec square = v_set1(near ? (real)0.5 : (real)2);
    const vec even = v_fma(square, v_load(y + 2 * step), v_load(y));
    const vec odd = v_fma(square, v_load(y + 3 * step), v_load(y + step));
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

/* A tile of size × size pixels, cols ≤ VLEN channels: zeros outside the image. */
INLINE void load_clipped(const int size, const fc_tile *tile, ptrdiff_t cols, const real *x,
                         real *to)
{
    for (ptrdiff_t i = 0; i < size; i++)
        for (ptrdiff_t j = 0; j < size; j++, to += VLEN) {
            const int inside = i >= tile->first[0] && i < tile->last[0] && j >= tile->first[1] &&
                               j < tile->last[1];
            const real *from = x + i * tile->row_step + j * tile->pixel_step;
            v_store(to, !inside ? v_zero() : cols < VLEN ? v_load_tail(from, cols) : v_load(from));
        }
}

INLINE int whole(const int size, const fc_tile *tile)
{
    return tile->first[0] == 0 && tile->first[1] == 0 && tile->last[0] == size &&
           tile->last[1] == size;
}

/* Row i of Bᵀ x B for VLEN channels. */
INLINE void input_row(const int i, const real *x, ptrdiff_t row_step, ptrdiff_t pixel_step, real *v,
                      ptrdiff_t plane)
{
    vec d[6], t[6];
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        d[j] = input_entry(i, x + j * pixel_step, row_step);
    input_line(d, t);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(v + j * plane, t[j]);
}

/* Rows first..last of v = Bᵀ x B; v has six planes a row, whole vectors of channels in each.
 *
 * x is the tile's top left pixel, of which tile says what lies inside the image. */
static void winograd_input(const fc_tile *tile, ptrdiff_t channels, int first, int last,
                           const real *x, real *v, ptrdiff_t plane)
{
    real clipped[36 * VLEN];
    const int direct = whole(6, tile);
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        const real *from = x + c;
        ptrdiff_t row_step = tile->row_step, pixel_step = tile->pixel_step;
        if (!direct || channels - c < VLEN) {
            load_clipped(6, tile, channels - c, from, clipped);
            from = clipped, row_step = 6 * VLEN, pixel_step = VLEN;
        }
        real *to = v + c;
#define ROW(I)                                                                                     \
    if (first <= I && I < last)                                                                    \
        input_row(I, from, row_step, pixel_step, to, plane), to += 6 * plane;
        ROW(0)
        ROW(1)
        ROW(2)
        ROW(3)
        ROW(4)
        ROW(5)
#undef ROW
    }
}

/* Row i of A dy Aᵀ for VLEN channels. */
INLINE void gradient_row(const int window, const int i, const real *dy, ptrdiff_t row_step,
                         ptrdiff_t pixel_step, real *v, ptrdiff_t plane)
{
    vec d[4], t[6];
    UNROLL(4)
    for (int j = 0; j < OUTPUTS(window); j++)
        d[j] = gradient_entry(window, i, dy + j * pixel_step, row_step);
    gradient_line(window, d, t);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(v + j * plane, t[j]);
}

INLINE void gradient_form(const int window, const fc_tile *tile, ptrdiff_t channels, int first,
                          int last, const real *dy, real *v, ptrdiff_t plane)
{
    const int size = OUTPUTS(window), direct = whole(size, tile);
    real clipped[16 * VLEN];
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        const real *from = dy + c;
        ptrdiff_t row_step = tile->row_step, pixel_step = tile->pixel_step;
        if (!direct || channels - c < VLEN) {
            load_clipped(size, tile, channels - c, from, clipped);
            from = clipped, row_step = size * VLEN, pixel_step = VLEN;
        }
        real *to = v + c;
#define ROW(I)                                                                                     \
    if (first <= I && I < last)                                                                    \
        gradient_row(window, I, from, row_step, pixel_step, to, plane), to += 6 * plane;
        ROW(0)
        ROW(1)
        ROW(2)
        ROW(3)
        ROW(4)
        ROW(5)
#undef ROW
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

INLINE void output_form(const int window, const fc_tile *tile, ptrdiff_t channels, const real *m,
                        ptrdiff_t plane, const real *bias, int activation, real slope, real *y)
{
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        const ptrdiff_t cols = channels - c;
        vec sum[4][4];
        output_square(window, m + c, plane, sum);
        const vec start = !bias         ? v_zero()
                          : cols < VLEN ? v_load_tail(bias + c, cols)
                                        : v_load(bias + c);
        UNROLL(4)
        for (int i = 0; i < OUTPUTS(window); i++) {
            UNROLL(4)
            for (int j = 0; j < OUTPUTS(window); j++) {
                if (i >= tile->last[0] || j >= tile->last[1])
                    continue;
                const vec a = activate(v_add(start, sum[i][j]), activation, slope);
                real *to = y + i * tile->row_step + j * tile->pixel_step + c;
                if (cols < VLEN)
                    v_store_tail(to, a, cols);
                else
                    v_store(to, a);
            }
        }
    }
}

/* y = activation(bias + Aᵀ m A) for the pixels of a tile that lie inside the image; m has 36
 * planes. */
static void winograd_output(int window, const fc_tile *tile, ptrdiff_t channels, const real *m,
                            ptrdiff_t plane, const real *bias, int activation, real slope, real *y)
{
    if (window == 3)
        output_form(3, tile, channels, m, plane, bias, activation, slope, y);
    else
        output_form(5, tile, channels, m, plane, bias, activation, slope, y);
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

/* Winograd's minimal filtering F(4×4, 3×3): sixteen outputs of a 3×3 window from 36 products
 * instead of 144 (Winograd 1980; Lavin and Gray 2015). With x a tile of 6×6 pixels, w the window and
 * dy the gradients at the 4×4 outputs,
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
 */

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

/* Entry i of A y, y[k] = *(y + k * step). */
INLINE vec gradient_entry(const int i, const real *y, ptrdiff_t step)
{
    if (i == 0)
        return v_load(y);
    if (i == 5)
        return v_load(y + 3 * step);
    const int near = i < 3;
    const real point = i % 2 ? (near ? POINT_A : POINT_B) : (near ? -POINT_A : -POINT_B);
    const vec square = v_set1(near ? (real)0.5 : (real)2);
    const vec even = v_fma(square, v_load(y + 2 * step), v_load(y));
    const vec odd = v_fma(square, v_load(y + 3 * step), v_load(y + step));
    return v_fma(v_set1(point), odd, even);
}

/* v = A y, four vectors to six. */
INLINE void gradient_line(const vec y[4], vec v[6])
{
    const vec half = v_set1((real)0.5), two = v_set1((real)2);
    const vec even_a = v_fma(half, y[2], y[0]), odd_a = v_fma(half, y[3], y[1]);
    const vec even_b = v_fma(two, y[2], y[0]), odd_b = v_fma(two, y[3], y[1]);
    v[0] = y[0];
    v[1] = v_fma(v_set1(POINT_A), odd_a, even_a);
    v[2] = v_fma(v_set1(-POINT_A), odd_a, even_a);
    v[3] = v_fma(v_set1(POINT_B), odd_b, even_b);
    v[4] = v_fma(v_set1(-POINT_B), odd_b, even_b);
    v[5] = y[3];
}

/* y = Aᵀ m, six vectors to four. */
INLINE void output_line(const vec m[6], vec y[4])
{
    const vec sum_a = v_add(m[1], m[2]), sum_b = v_add(m[3], m[4]);
    const vec odd_a = v_mul(v_set1(POINT_A), v_sub(m[1], m[2]));
    const vec odd_b = v_mul(v_set1(POINT_B), v_sub(m[3], m[4]));
    y[0] = v_add(m[0], v_add(sum_a, sum_b));
    y[1] = v_add(odd_a, odd_b);
    y[2] = v_fma(v_set1((real)2), sum_b, v_mul(v_set1((real)0.5), sum_a));
    y[3] = v_fma(v_set1((real)2), odd_b, v_fma(v_set1((real)0.5), odd_a, m[5]));
}

/* v = G w, three vectors to six. */
INLINE void window_line(const vec w[3], vec v[6])
{
    const vec third = v_set1((real)(1.0 / 3)), sixth = v_set1((real)(1.0 / 6));
    const vec even_a = v_mul(v_set1((real)(-2.0 / 3)), v_fma(v_set1((real)0.5), w[2], w[0]));
    const vec even_b = v_fma(third, w[2], v_mul(sixth, w[0]));
    const vec odd_a = v_mul(v_set1(POINT_A * (real)(-2.0 / 3)), w[1]);
    const vec odd_b = v_mul(v_set1(POINT_B * (real)(1.0 / 6)), w[1]);
    v[0] = w[0];
    v[1] = v_add(even_a, odd_a);
    v[2] = v_sub(even_a, odd_a);
    v[3] = v_add(even_b, odd_b);
    v[4] = v_sub(even_b, odd_b);
    v[5] = w[2];
}

/* w = Gᵀ u, six vectors to three. */
INLINE void window_gradient_line(const vec u[6], vec w[3])
{
    const vec sum_a = v_add(u[1], u[2]), sum_b = v_add(u[3], u[4]);
    const vec odd_a = v_sub(u[1], u[2]), odd_b = v_sub(u[3], u[4]);
    const vec third = v_set1((real)(1.0 / 3)), sixth = v_set1((real)(1.0 / 6));
    w[0] = v_fma(v_set1((real)(-2.0 / 3)), sum_a, v_fma(sixth, sum_b, u[0]));
    w[1] = v_fma(v_set1(POINT_B * (real)(1.0 / 6)), odd_b,
                 v_mul(v_set1(POINT_A * (real)(-2.0 / 3)), odd_a));
    w[2] = v_fma(third, v_sub(sum_b, sum_a), u[5]);
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
INLINE void gradient_row(const int i, const real *dy, ptrdiff_t row_step, ptrdiff_t pixel_step,
                         real *v, ptrdiff_t plane)
{
    vec d[4], t[6];
    UNROLL(4)
    for (int j = 0; j < 4; j++)
        d[j] = gradient_entry(i, dy + j * pixel_step, row_step);
    gradient_line(d, t);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(v + j * plane, t[j]);
}

/* Rows first..last of v = A dy Aᵀ, as in winograd_input; the tile has 4×4 pixels. */
static void winograd_gradient(const fc_tile *tile, ptrdiff_t channels, int first, int last,
                              const real *dy, real *v, ptrdiff_t plane)
{
    real clipped[16 * VLEN];
    const int direct = whole(4, tile);
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        const real *from = dy + c;
        ptrdiff_t row_step = tile->row_step, pixel_step = tile->pixel_step;
        if (!direct || channels - c < VLEN) {
            load_clipped(4, tile, channels - c, from, clipped);
            from = clipped, row_step = 4 * VLEN, pixel_step = VLEN;
        }
        real *to = v + c;
#define ROW(I)                                                                                     \
    if (first <= I && I < last)                                                                    \
        gradient_row(I, from, row_step, pixel_step, to, plane), to += 6 * plane;
        ROW(0)
        ROW(1)
        ROW(2)
        ROW(3)
        ROW(4)
        ROW(5)
#undef ROW
    }
}

/* y = activation(bias + Aᵀ m A) for the pixels of a 4×4 tile that lie inside the image; m has 36
 * planes. */
static void winograd_output(const fc_tile *tile, ptrdiff_t channels, const real *m, ptrdiff_t plane,
                            const real *bias, int activation, real slope, real *y)
{
    for (ptrdiff_t c = 0; c < channels; c += VLEN) {
        const ptrdiff_t cols = channels - c;
        vec sum[4][4];
        vec line[6], r[4], pair[4];
        UNROLL(6)
        for (int i = 0; i < 6; i++) {
            UNROLL(6)
            for (int j = 0; j < 6; j++)
                line[j] = v_load(m + c + (6 * i + j) * plane);
            output_line(line, r);
            if (i == 0) { /* the line of point 0 */
                UNROLL(4)
                for (int k = 0; k < 4; k++)
                    sum[0][k] = r[k];
            } else if (i == 5) { /* of ∞ */
                UNROLL(4)
                for (int k = 0; k < 4; k++)
                    sum[3][k] = v_add(sum[3][k], r[k]);
            } else if (i % 2) { /* of a point, to be met by its negative */
                UNROLL(4)
                for (int k = 0; k < 4; k++)
                    pair[k] = r[k];
            } else {
                const vec square = v_set1(i == 2 ? (real)0.5 : (real)2);
                const vec point = v_set1(i == 2 ? POINT_A : POINT_B);
                UNROLL(4)
                for (int k = 0; k < 4; k++) {
                    const vec even = v_add(pair[k], r[k]);
                    const vec odd = v_mul(point, v_sub(pair[k], r[k]));
                    sum[0][k] = v_add(sum[0][k], even);
                    if (i == 2) {
                        sum[1][k] = odd;
                        sum[2][k] = v_mul(square, even);
                        sum[3][k] = v_mul(square, odd);
                    } else {
                        sum[1][k] = v_add(sum[1][k], odd);
                        sum[2][k] = v_fma(square, even, sum[2][k]);
                        sum[3][k] = v_fma(square, odd, sum[3][k]);
                    }
                }
            }
        }
        const vec start = !bias         ? v_zero()
                          : cols < VLEN ? v_load_tail(bias + c, cols)
                                        : v_load(bias + c);
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            UNROLL(4)
            for (int j = 0; j < 4; j++) {
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

/* Entry i of G w for three vectors. */
INLINE vec window_entry(const int i, const vec w[3])
{
    if (i == 0)
        return w[0];
    if (i == 5)
        return w[2];
    const int near = i < 3;
    const real point = near ? POINT_A * (real)(-2.0 / 3) : POINT_B * (real)(1.0 / 6);
    const vec odd = v_mul(v_set1(point), w[1]);
    const vec even =
        near ? v_mul(v_set1((real)(-2.0 / 3)), v_fma(v_set1((real)0.5), w[2], w[0]))
             : v_fma(v_set1((real)(1.0 / 3)), w[2], v_mul(v_set1((real)(1.0 / 6)), w[0]));
    return i % 2 ? v_add(even, odd) : v_sub(even, odd);
}

/* Row i of G w Gᵀ for VLEN output channels, the taps of which lie in g. */
INLINE void window_row(const int i, const vec g[9], real *u, ptrdiff_t plane)
{
    vec half[3], t[6];
    UNROLL(3)
    for (int b = 0; b < 3; b++) {
        const vec column[3] = {g[b], g[3 + b], g[6 + b]};
        half[b] = window_entry(i, column);
    }
    window_line(half, t);
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(u + j * plane, t[j]);
}

/* Rows first..last of u = G w Gᵀ for count input and cols ≤ GATHER_NR output channels, zero for the
 * columns that are not there. w[t * tap_step + k * row_step + j] for the taps t = 0..8; u has six
 * panels a row, each [count][GATHER_NR], plane apart. */
static void winograd_window(ptrdiff_t count, ptrdiff_t cols, int first, int last, const real *w,
                            ptrdiff_t tap_step, ptrdiff_t row_step, real *u, ptrdiff_t plane)
{
    for (ptrdiff_t k = 0; k < count; k++, w += row_step, u += GATHER_NR)
        for (ptrdiff_t j = 0; j < GATHER_NR; j += VLEN) {
            vec g[9];
            UNROLL(9)
            for (int t = 0; t < 9; t++) {
                const real *from = w + t * tap_step + j;
                g[t] = j + VLEN <= cols ? v_load(from)
                       : j < cols       ? v_load_tail(from, cols - j)
                                        : v_zero();
            }
            real *to = u + j;
#define ROW(I)                                                                                     \
    if (first <= I && I < last)                                                                    \
        window_row(I, g, to, plane), to += 6 * plane;
            ROW(0)
            ROW(1)
            ROW(2)
            ROW(3)
            ROW(4)
            ROW(5)
#undef ROW
        }
}

/* Half of dw = Gᵀ u G: a row of six planes of u to three, count numbers each. */
static void winograd_window_row(ptrdiff_t count, const real *u, ptrdiff_t plane, real *h,
                                ptrdiff_t h_plane)
{
    for (ptrdiff_t k = 0; k < count; k += VLEN) {
        const ptrdiff_t n = count - k;
        vec t[6], w[3];
        UNROLL(6)
        for (int j = 0; j < 6; j++)
            t[j] = n < VLEN ? v_load_tail(u + j * plane + k, n) : v_load(u + j * plane + k);
        window_gradient_line(t, w);
        UNROLL(3)
        for (int b = 0; b < 3; b++) {
            if (n < VLEN)
                v_store_tail(h + b * h_plane + k, w[b], n);
            else
                v_store(h + b * h_plane + k, w[b]);
        }
    }
}

/* The other half, over the pieces of the batch: h[piece][row 0..5][column 0..2] of numbers plane
 * apart to the nine taps of dw, tap_step apart. */
static void winograd_window_gradient(ptrdiff_t count, ptrdiff_t pieces, const real *h,
                                     ptrdiff_t plane, int accumulate, real *dw, ptrdiff_t tap_step)
{
    for (ptrdiff_t k = 0; k < count; k += VLEN) {
        const ptrdiff_t n = count - k;
        for (int b = 0; b < 3; b++) {
            vec t[6], w[3];
            UNROLL(6)
            for (int i = 0; i < 6; i++) {
                t[i] = v_zero();
                for (ptrdiff_t p = 0; p < pieces; p++) {
                    const real *from = h + ((p * 6 + i) * 3 + b) * plane + k;
                    t[i] = v_add(t[i], n < VLEN ? v_load_tail(from, n) : v_load(from));
                }
            }
            window_gradient_line(t, w);
            UNROLL(3)
            for (int a = 0; a < 3; a++) {
                real *to = dw + (3 * a + b) * tap_step + k;
                if (n < VLEN)
                    v_store_tail(to, accumulate ? v_add(v_load_tail(to, n), w[a]) : w[a], n);
                else
                    v_store(to, accumulate ? v_add(v_load(to), w[a]) : w[a]);
            }
        }
    }
}

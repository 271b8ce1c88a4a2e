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

/* VLEN channels of a tile's pixels: where they lie, or in a copy that has zeros outside the image. */
typedef struct {
    const real *base;
    ptrdiff_t row_step, pixel_step;
} tile_view;

INLINE int whole(const int size, const fc_tile *tile)
{
    return tile->first[0] == 0 && tile->first[1] == 0 && tile->last[0] == size &&
           tile->last[1] == size;
}

static const real zeros[VLEN];

/* The view of a tile of size × size pixels at x, of which cols channels are left. A tile that stands
 * out over the image is read from a copy with zeros there, and so are the last channels, fewer than
 * VLEN. There is no branch in it: which pixels are missing changes from tile to tile. */
INLINE tile_view view_tile(const int size, const fc_tile *tile, int complete, ptrdiff_t cols,
                           const real *x, real *copy)
{
    if (complete && cols >= VLEN)
        return (tile_view){x, tile->row_step, tile->pixel_step};
    const size_t rows = (size_t)(tile->last[0] - tile->first[0]);
    const size_t columns = (size_t)(tile->last[1] - tile->first[1]);
    UNROLL(6)
    for (int i = 0; i < size; i++) {
        const int row_inside = (size_t)(i - tile->first[0]) < rows;
        UNROLL(6)
        for (int j = 0; j < size; j++) {
            const int inside = row_inside & ((size_t)(j - tile->first[1]) < columns);
            const real *from = inside ? x + i * tile->row_step + j * tile->pixel_step : zeros;
            v_store(copy + (i * size + j) * VLEN,
                    cols < VLEN ? v_load_tail(from, cols) : v_load(from));
        }
    }
    return (tile_view){copy, size * VLEN, VLEN};
}

INLINE vec pixel(const tile_view *x, const int i, const int j)
{
    return v_load(x->base + i * x->row_step + j * x->pixel_step);
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

/* The planes fall into six rows, and these into three pairs that share most of their work: 0 and ∞,
 * ±a, ±b. */
enum { PAIR_ENDS, PAIR_A, PAIR_B, ALL_PAIRS };

INLINE void store_line(const vec line[6], real *v, ptrdiff_t plane)
{
    UNROLL(6)
    for (int j = 0; j < 6; j++)
        v_store(v + j * plane, line[j]);
}

/* Fetch the pixels that the next tile of the row adds. */
INLINE void fetch_next(const tile_view *x)
{
    for (int i = 0; i < 6; i++)
        for (int j = 6; j < 10; j++)
            __builtin_prefetch(x->base + i * x->row_step + j * x->pixel_step);
}

/* One pair of rows of Bᵀ x B for VLEN channels. */
INLINE void input_pair(const int pair, const tile_view *x, real *upper, real *lower,
                       ptrdiff_t plane)
{
    const real point = pair == PAIR_A ? POINT_A : POINT_B;
    const vec plus = v_set1(point), minus = v_set1(-point), five = v_set1((real)-2.5);
    const vec other = v_set1(pair == PAIR_A ? (real)-2 : (real)-0.5); /* −b² or −a² */
    vec d[6], e[6], line[6];
    UNROLL(6)
    for (int j = 0; j < 6; j++) {
        if (pair == PAIR_ENDS) {
            d[j] = v_fma(five, pixel(x, 2, j), v_add(pixel(x, 0, j), pixel(x, 4, j)));
            e[j] = v_fma(five, pixel(x, 3, j), v_add(pixel(x, 1, j), pixel(x, 5, j)));
        } else {
            const vec even = v_fma(other, pixel(x, 2, j), pixel(x, 4, j));
            const vec odd = v_fma(other, pixel(x, 1, j), pixel(x, 3, j));
            d[j] = v_fma(plus, odd, even);
            e[j] = v_fma(minus, odd, even);
        }
    }
    input_line(d, line);
    store_line(line, upper, plane);
    input_line(e, line);
    store_line(line, lower, plane);
}

/* v = Bᵀ x B, plane by plane, or one pair of its rows alone.
 *
 * x is the tile's top left pixel, of which tile says what lies inside the image. Planes of v are
 * plane apart, VLEN channels of the tile stand together, the next ones block behind. */
static void winograd_input(const fc_tile *tile, ptrdiff_t channels, int pair, const real *x,
                           real *v, ptrdiff_t plane, ptrdiff_t block)
{
    real copy[36 * VLEN];
    const int complete = whole(6, tile);
    for (ptrdiff_t c = 0; c < channels; c += VLEN, v += block) {
        const tile_view view = view_tile(6, tile, complete, channels - c, x + c, copy);
        if (view.base == x + c)
            fetch_next(&view);
        if (pair == PAIR_ENDS)
            input_pair(PAIR_ENDS, &view, v, v + 6 * plane, plane);
        else if (pair == PAIR_A)
            input_pair(PAIR_A, &view, v, v + 6 * plane, plane);
        else if (pair == PAIR_B)
            input_pair(PAIR_B, &view, v, v + 6 * plane, plane);
        else {
            input_pair(PAIR_ENDS, &view, v, v + 30 * plane, plane);
            input_pair(PAIR_A, &view, v + 6 * plane, v + 12 * plane, plane);
            input_pair(PAIR_B, &view, v + 18 * plane, v + 24 * plane, plane);
        }
    }
}

/* One pair of rows of A dy Aᵀ for VLEN channels. */
INLINE void gradient_pair(const int window, const int pair, const tile_view *dy, real *upper,
                          real *lower, ptrdiff_t plane)
{
    const real point = pair == PAIR_A ? POINT_A : POINT_B;
    const vec plus = v_set1(point), minus = v_set1(-point);
    const vec square = v_set1(pair == PAIR_A ? (real)0.5 : (real)2);
    vec d[4], e[4], line[6];
    UNROLL(4)
    for (int j = 0; j < OUTPUTS(window); j++) {
        vec even = pixel(dy, 0, j), odd = pixel(dy, pair == PAIR_ENDS ? OUTPUTS(window) - 1 : 1, j);
        if (pair != PAIR_ENDS && window == 3) {
            even = v_fma(square, pixel(dy, 2, j), even);
            odd = v_fma(square, pixel(dy, 3, j), odd);
        }
        d[j] = pair == PAIR_ENDS ? even : v_fma(plus, odd, even);
        e[j] = pair == PAIR_ENDS ? odd : v_fma(minus, odd, even);
    }
    gradient_line(window, d, line);
    store_line(line, upper, plane);
    gradient_line(window, e, line);
    store_line(line, lower, plane);
}

INLINE void gradient_form(const int window, const fc_tile *tile, ptrdiff_t channels, int pair,
                          const real *dy, real *v, ptrdiff_t plane, ptrdiff_t block)
{
    const int size = OUTPUTS(window), complete = whole(size, tile);
    real copy[16 * VLEN];
    for (ptrdiff_t c = 0; c < channels; c += VLEN, v += block) {
        const tile_view view = view_tile(size, tile, complete, channels - c, dy + c, copy);
        if (pair == PAIR_ENDS)
            gradient_pair(window, PAIR_ENDS, &view, v, v + 6 * plane, plane);
        else if (pair == PAIR_A)
            gradient_pair(window, PAIR_A, &view, v, v + 6 * plane, plane);
        else if (pair == PAIR_B)
            gradient_pair(window, PAIR_B, &view, v, v + 6 * plane, plane);
        else {
            gradient_pair(window, PAIR_ENDS, &view, v, v + 30 * plane, plane);
            gradient_pair(window, PAIR_A, &view, v + 6 * plane, v + 12 * plane, plane);
            gradient_pair(window, PAIR_B, &view, v + 18 * plane, v + 24 * plane, plane);
        }
    }
}

/* v = A dy Aᵀ or one pair of its rows, as in winograd_input; the tile has 4×4 pixels for windows of
 * 3, 2×2 for windows of 5. */
static void winograd_gradient(int window, const fc_tile *tile, ptrdiff_t channels, int pair,
                              const real *dy, real *v, ptrdiff_t plane, ptrdiff_t block)
{
    if (window == 3)
        gradient_form(3, tile, channels, pair, dy, v, plane, block);
    else
        gradient_form(5, tile, channels, pair, dy, v, plane, block);
}

/* y[r][0..nv · VLEN) = Σ_k v[r][k] · u[k] for m tiles, known to the compiler as nv is. */
INLINE void product_form(const int m, const int nv, ptrdiff_t depth, const real *v, ptrdiff_t block,
                         const real *u, real *y)
{
    vec sum[GATHER_MR][2];
    UNROLL(16)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int j = 0; j < nv; j++)
            sum[r][j] = v_zero();
    }
    for (ptrdiff_t k = 0; k < depth; k += VLEN, v += block) {
        const ptrdiff_t n = depth - k < VLEN ? depth - k : VLEN;
        for (ptrdiff_t i = 0; i < n; i++, u += GATHER_NR) {
            vec w[2];
            UNROLL(2)
            for (int j = 0; j < nv; j++)
                w[j] = v_load(u + j * VLEN);
            UNROLL(16)
            for (int r = 0; r < m; r++) {
                const vec a = v_set1(v[r * VLEN + i]);
                UNROLL(2)
                for (int j = 0; j < nv; j++)
                    sum[r][j] = v_fma(a, w[j], sum[r][j]);
            }
        }
    }
    UNROLL(16)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int j = 0; j < nv; j++)
            v_store(y + r * GATHER_NR + j * VLEN, sum[r][j]);
    }
}

INLINE void product_rows(const int nv, ptrdiff_t rows, ptrdiff_t depth, const real *v,
                         ptrdiff_t block, const real *u, real *y)
{
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        product_form(M, nv, depth, v, block, u, y);                                                \
        break;
    switch (rows) {
        FORM(1)
        FORM(2)
        FORM(3)
        FORM(4)
        FORM(5)
        FORM(6)
#if GATHER_MR > 6
        FORM(7)
        FORM(8)
        FORM(9)
        FORM(10)
        FORM(11)
        FORM(12)
#endif
#if GATHER_MR > 12
        FORM(13)
        FORM(14)
#endif
    }
#undef FORM
}

/* The products of some planes with one panel of cols ≤ GATHER_NR columns: m[plane][tile] = v · u.
 *
 * v[plane] has the tiles in groups of GATHER_MR; of a group VLEN channels of all its tiles stand
 * together, so that the loop finds every tile at a fixed distance and reads on and on. u[plane] is a
 * packed panel [depth][GATHER_NR], m[plane] has rows of GATHER_NR. */
static void winograd_products(ptrdiff_t planes, ptrdiff_t tiles, ptrdiff_t depth, ptrdiff_t cols,
                              const real *v, ptrdiff_t v_plane, const real *u, ptrdiff_t u_plane,
                              real *m, ptrdiff_t m_plane)
{
    const ptrdiff_t block = GATHER_MR * VLEN, group = (depth + VLEN - 1) / VLEN * block;
    for (ptrdiff_t p = 0; p < planes; p++, v += v_plane, u += u_plane, m += m_plane)
        for (ptrdiff_t t = 0; t < tiles; t += GATHER_MR) {
            const ptrdiff_t rows = tiles - t < GATHER_MR ? tiles - t : GATHER_MR;
            const real *from = v + t / GATHER_MR * group;
            real *to = m + t * GATHER_NR;
            if (cols > VLEN)
                product_rows(2, rows, depth, from, block, u, to);
            else
                product_rows(1, rows, depth, from, block, u, to);
        }
}

/* Channels of x in a tile of sums: a part of VLEN, so that every one is found at a fixed distance. */
#define SUMS_MR (VLEN >= 16 ? 8 : VLEN >= 4 ? 4 : 2)

INLINE void sums_form(const int m, const int nv, ptrdiff_t n, ptrdiff_t tiles, const real *v,
                      const real *z, ptrdiff_t z_block, real *sums, ptrdiff_t stride,
                      int accumulate)
{
    vec sum[SUMS_MR][2];
    const ptrdiff_t last = n - (nv - 1) * VLEN; /* columns of the last vector, 1..VLEN */
    UNROLL(8)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int j = 0; j < nv; j++) {
            const real *start = sums + r * stride + j * VLEN;
            sum[r][j] = !accumulate                  ? v_zero()
                        : j == nv - 1 && last < VLEN ? v_load_tail(start, last)
                                                     : v_load(start);
        }
    }
    for (ptrdiff_t t = 0; t < tiles; t++, v += VLEN, z += VLEN) {
        vec g[2];
        UNROLL(2)
        for (int j = 0; j < nv; j++)
            g[j] = v_load(z + j * z_block);
        UNROLL(8)
        for (int r = 0; r < m; r++) {
            const vec a = v_set1(v[r]);
            UNROLL(2)
            for (int j = 0; j < nv; j++)
                sum[r][j] = v_fma(a, g[j], sum[r][j]);
        }
    }
    UNROLL(8)
    for (int r = 0; r < m; r++) {
        UNROLL(2)
        for (int j = 0; j < nv; j++) {
            real *end = sums + r * stride + j * VLEN;
            if (j == nv - 1 && last < VLEN)
                v_store_tail(end, sum[r][j], last);
            else
                v_store(end, sum[r][j]);
        }
    }
}

INLINE void sums_rows(const int nv, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t tiles, const real *v,
                      const real *z, ptrdiff_t z_block, real *sums, ptrdiff_t stride,
                      int accumulate)
{
#define FORM(M)                                                                                    \
    case M:                                                                                        \
        sums_form(M, nv, n, tiles, v, z, z_block, sums, stride, accumulate);                       \
        break;
    switch (rows) {
        FORM(1)
        FORM(2)
#if VLEN >= 4
        FORM(3)
        FORM(4)
#endif
#if VLEN >= 16
        FORM(5)
        FORM(6)
        FORM(7)
        FORM(8)
#endif
    }
#undef FORM
}

/* The sums of some planes over tiles: sums[plane][depth][width] (+)= Σ_t v[t] · z[t].
 *
 * v[plane] and z[plane] have VLEN channels of all tiles together, blocks of them v_block and z_block
 * apart. Rows of sums are stride apart. */
static void winograd_sums(ptrdiff_t planes, ptrdiff_t tiles, ptrdiff_t depth, ptrdiff_t width,
                          const real *v, ptrdiff_t v_plane, ptrdiff_t v_block, const real *z,
                          ptrdiff_t z_plane, ptrdiff_t z_block, real *sums, ptrdiff_t plane,
                          ptrdiff_t stride, int accumulate)
{
    for (ptrdiff_t p = 0; p < planes; p++, v += v_plane, z += z_plane, sums += plane)
        for (ptrdiff_t c = 0; c < width; c += OUTER_NR)
            for (ptrdiff_t k = 0; k < depth; k += SUMS_MR) {
                const ptrdiff_t n = width - c < OUTER_NR ? width - c : OUTER_NR;
                const ptrdiff_t rows = depth - k < SUMS_MR ? depth - k : SUMS_MR;
                const real *from = v + k / VLEN * v_block + k % VLEN;
                const real *with = z + c / VLEN * z_block;
                real *to = sums + k * stride + c;
                if (n > VLEN)
                    sums_rows(2, rows, n, tiles, from, with, z_block, to, stride, accumulate);
                else
                    sums_rows(1, rows, n, tiles, from, with, z_block, to, stride, accumulate);
            }
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

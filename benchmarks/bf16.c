/* What AVX512-BF16 would bring to the products of 1x1 convolutions: float32 beside bfloat16, same
 * structure, whole passes on data that no cache holds.
 *
 *     cc -O3 -march=native -o bf16 bf16.c -lm && taskset -c 1 ./bf16 [shape, -1: all] [repeats]
 *
 * Both products take operands in words of 32 bits: a float, or a pair of bfloat16 (two channels; for
 * the weight gradient two pixels). So one register tile serves both, 14 x 32 sums, and only the
 * copies into its operands differ. Three ways are timed:
 *   f32   everything float32
 *   mem32 bf16 products, activations and gradients float32 in memory, rounded as they are copied
 *   mem16 bf16 products, activations and gradients bf16 in memory
 * Weights are float32 (the master copy) and packed in every pass; so is the weight's gradient. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define INLINE static inline __attribute__((always_inline))
enum { MR = 14, NR = 32, POOL = 192 << 20 };
enum { F32, MEM32, MEM16, WAYS };
typedef uint32_t word;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

INLINE __m512 madd(int bf, __m512 s, __m512 a, __m512 b)
{
    return bf ? _mm512_dpbf16_ps(s, (__m512bh)a, (__m512bh)b) : _mm512_fmadd_ps(a, b, s);
}

/* y[r][0..32) (+)= sum over words k of a[k][r] . b[k][0..32); a step of k inside a block of 16 words is
 * `near` and from block to block `far`, a row `row` words. */
INLINE void tile_form(int bf, int out16, int m, int near, int row, ptrdiff_t far, ptrdiff_t words,
                      const word *a, const word *b, void *y, ptrdiff_t pitch, int accumulate,
                      int stream)
{
    __m512 sum[MR][2];
    float *yf = y;
    uint16_t *yh = y;
#pragma GCC unroll 16
    for (int r = 0; r < m; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            sum[r][v] = accumulate ? _mm512_loadu_ps(yf + r * pitch + 16 * v) : _mm512_setzero_ps();
            if (!accumulate && !stream && (!out16 || v == 0))
                __builtin_prefetch(out16 ? (void *)(yh + r * pitch) : yf + r * pitch + 16 * v, 1);
        }
    for (ptrdiff_t block = 0; block < words; block += 16, a += far) {
        const int end = words - block < 16 ? words - block : 16;
        for (int k = 0; k < end; k++, b += NR) {
            const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);
            __builtin_prefetch(b + 8 * NR);
            __builtin_prefetch(b + 8 * NR + 16);
#pragma GCC unroll 16
            for (int r = 0; r < m; r++) {
                const __m512 x = _mm512_set1_ps(*(const float *)(a + k * near + r * row));
                sum[r][0] = madd(bf, sum[r][0], x, b0);
                sum[r][1] = madd(bf, sum[r][1], x, b1);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < m; r++) {
        if (out16) {
            const __m512i h = (__m512i)_mm512_cvtne2ps_pbh(sum[r][1], sum[r][0]);
            if (stream)
                _mm512_stream_si512((void *)(yh + r * pitch), h);
            else
                _mm512_storeu_si512(yh + r * pitch, h);
        } else
#pragma GCC unroll 2
            for (int v = 0; v < 2; v++) {
                if (stream)
                    _mm512_stream_ps(yf + r * pitch + 16 * v, sum[r][v]);
                else
                    _mm512_storeu_ps(yf + r * pitch + 16 * v, sum[r][v]);
            }
    }
}

/* ---- forward: y[p][n] = sum x[p][k] w[k][n]; the input gradient is the same with w transposed ---- */

#define ROWS(name, bf, out16, stream)                                                              \
    static __attribute__((noinline)) void name(ptrdiff_t words, const word *a, const word *b,      \
                                               void *y, ptrdiff_t pitch)                           \
    {                                                                                              \
        tile_form(bf, out16, MR, 1, 16, 16 * MR, words, a, b, y, pitch, 0, stream);                \
    }
ROWS(rows_f32, 0, 0, 0)
ROWS(rows_f32_stream, 0, 0, 1)
ROWS(rows_mem32, 1, 0, 0)
ROWS(rows_mem32_stream, 1, 0, 1)
ROWS(rows_mem16, 1, 1, 0)
ROWS(rows_mem16_stream, 1, 1, 1)
typedef void rows_tile(ptrdiff_t, const word *, const word *, void *, ptrdiff_t);
static rows_tile *const rows_tiles[WAYS][2] = {
    {rows_f32, rows_f32_stream}, {rows_mem32, rows_mem32_stream}, {rows_mem16, rows_mem16_stream}};

/* panel[n / 32][word][32]; w is k x n (turned: n x k) floats */
static void pack_weights(int bf, int turned, ptrdiff_t K, ptrdiff_t N, const float *w, word *to)
{
    const ptrdiff_t each = bf ? 2 : 1;
    static float rows[2][NR] __attribute__((aligned(64)));
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (ptrdiff_t n = 0; n < N; n += NR)
        for (ptrdiff_t k0 = 0; k0 < K; k0 += 16) { /* 16 rows of k: turned in 16 x 16 blocks */
            __m512 block[2][16];
            for (int v = 0; v < 2; v++) {
                if (!turned)
                    for (int i = 0; i < 16; i++)
                        block[v][i] = _mm512_loadu_ps(w + (k0 + i) * N + n + 16 * v);
                else {
                    const __m512i at = _mm512_mullo_epi32(
                        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                        _mm512_set1_epi32(K));
                    (void)at;
                    __m512 r[16], t[16];
                    for (int i = 0; i < 16; i++)
                        r[i] = _mm512_loadu_ps(w + (n + 16 * v + i) * K + k0);
                    for (int i = 0; i < 16; i += 2) {
                        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
                        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
                    }
                    for (int i = 0; i < 16; i += 4)
                        for (int j = 0; j < 2; j++) {
                            r[i + 2 * j] = (__m512)_mm512_unpacklo_pd((__m512d)t[i + j],
                                                                      (__m512d)t[i + 2 + j]);
                            r[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd((__m512d)t[i + j],
                                                                          (__m512d)t[i + 2 + j]);
                        }
                    for (int i = 0; i < 4; i++) {
                        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
                        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
                        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
                        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
                    }
                    for (int i = 0; i < 4; i++) {
                        block[v][i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
                        block[v][i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
                        block[v][i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
                        block[v][i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
                    }
                }
            }
            for (int i = 0; i < 16; i += each, to += NR)
                for (int v = 0; v < 2; v++) {
                    if (bf)
                        _mm512_storeu_si512(
                            to + 16 * v,
                            _mm512_permutexvar_epi16(
                                zip, (__m512i)_mm512_cvtne2ps_pbh(block[v][i + 1], block[v][i])));
                    else
                        _mm512_storeu_ps(to + 16 * v, block[v][i]);
                }
        }
    (void)rows;
}

/* A tile's rows as [block of 16 words][row][16] */
static void pack_rows(int way, ptrdiff_t K, const char *x, word *to)
{
    for (ptrdiff_t r = 0; r < MR; r++) {
        word *end = to + 16 * r;
        if (way == F32) {
            const float *from = (const float *)x + r * K;
            for (ptrdiff_t k = 0; k < K; k += 16, end += 16 * MR)
                _mm512_storeu_ps(end, _mm512_loadu_ps(from + k));
        } else if (way == MEM32) {
            const float *from = (const float *)x + r * K;
            for (ptrdiff_t k = 0; k < K; k += 32, end += 16 * MR)
                _mm512_storeu_si512(end,
                                    (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + k + 16),
                                                                 _mm512_loadu_ps(from + k)));
        } else {
            const uint16_t *from = (const uint16_t *)x + r * K;
            for (ptrdiff_t k = 0; k < K; k += 32, end += 16 * MR)
                _mm512_storeu_si512(end, _mm512_loadu_si512(from + k));
        }
    }
}

static word *copy, *panels; /* scratch */

static void rows_pass(int way, int turned, ptrdiff_t P, ptrdiff_t K, ptrdiff_t N, const char *x,
                      const float *w, char *y, ptrdiff_t budget, int stream)
{
    const ptrdiff_t words = way == F32 ? K : K / 2, size = way == MEM16 ? 2 : 4;
    ptrdiff_t tiles = budget / (words * 4 * MR);
    tiles = tiles < 1 ? 1 : tiles;
    rows_tile *const run = rows_tiles[way][stream];
    pack_weights(way != F32, turned, K, N, w, panels);
    for (ptrdiff_t p = 0; p < P; p += tiles * MR) {
        const ptrdiff_t here = P - p < tiles * MR ? (P - p) / MR : tiles;
        for (ptrdiff_t t = 0; t < here; t++)
            pack_rows(way, K, x + (p + t * MR) * K * size, copy + t * words * MR);
        /* what the next block will copy is fetched bit by bit meanwhile */
        const char *next = x + (p + here * MR) * K * size, *end = x + P * K * size;
        const ptrdiff_t calls = here * (N / NR);
        const ptrdiff_t lines = (tiles * MR * K * size / 64 + calls - 1) / calls;
        for (ptrdiff_t n = 0; n < N; n += NR)
            for (ptrdiff_t t = 0; t < here; t++) {
                for (ptrdiff_t i = 0; i < lines && next < end; i++, next += 64)
                    __builtin_prefetch(next, 0, 2);
                run(words, copy + t * words * MR, panels + n * words,
                    y + ((p + t * MR) * N + n) * size, N);
            }
    }
    if (stream)
        _mm_sfence();
}

/* ---- weight gradient: dw[k][n] = sum x[p][k] dy[p][n] ------------------------------------------- */

#define OUTER(M)                                                                                   \
    static __attribute__((noinline)) void outer_f32_##M(ptrdiff_t words, const word *a,            \
                                                        const word *b, void *y, ptrdiff_t pitch)   \
    {                                                                                              \
        tile_form(0, 0, M, 16, 1, 256, words, a, b, y, pitch, 1, 0);                               \
    }                                                                                              \
    static __attribute__((noinline)) void outer_bf16_##M(ptrdiff_t words, const word *a,           \
                                                         const word *b, void *y, ptrdiff_t pitch)  \
    {                                                                                              \
        tile_form(1, 0, M, 16, 1, 256, words, a, b, y, pitch, 1, 0);                               \
    }
OUTER(10)
OUTER(11)
OUTER(12)
OUTER(13)
OUTER(14)
static rows_tile *const outer_tiles[2][5] = {
    {outer_f32_10, outer_f32_11, outer_f32_12, outer_f32_13, outer_f32_14},
    {outer_bf16_10, outer_bf16_11, outer_bf16_12, outer_bf16_13, outer_bf16_14}};

/* to[word][width] from `pixels` pixels' channels at x; each <= 16 at a time, width 16 or 32 */
INLINE void pack_pixels(int way, int width, ptrdiff_t pixels, ptrdiff_t pitch, ptrdiff_t left,
                        const char *x, word *to)
{
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __mmask16 some = left >= 16 ? 0xffff : (1u << left) - 1;
    if (way == F32) {
        const float *from = (const float *)x;
        for (ptrdiff_t p = 0; p < pixels; p++, from += pitch, to += width)
            for (int v = 0; v < width; v += 16)
                _mm512_storeu_ps(to + v, _mm512_maskz_loadu_ps(some, from + v));
    } else if (way == MEM32) {
        const float *from = (const float *)x;
        for (ptrdiff_t p = 0; p < pixels; p += 2, from += 2 * pitch, to += width)
            for (int v = 0; v < width; v += 16)
                _mm512_storeu_si512(
                    to + v,
                    _mm512_permutexvar_epi16(zip, (__m512i)_mm512_cvtne2ps_pbh(
                                                      _mm512_maskz_loadu_ps(some, from + pitch + v),
                                                      _mm512_maskz_loadu_ps(some, from + v))));
    } else {
        const uint16_t *from = (const uint16_t *)x;
        for (ptrdiff_t p = 0; p < pixels; p += 2, from += 2 * pitch, to += width)
            for (int v = 0; v < width; v += 16)
                _mm512_storeu_si512(
                    to + v,
                    _mm512_permutexvar_epi16(
                        zip, _mm512_inserti64x4(
                                 _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(some, from + v)),
                                 _mm256_maskz_loadu_epi16(some, from + pitch + v), 1)));
    }
}

static void outer_pass(int way, ptrdiff_t P, ptrdiff_t K, ptrdiff_t N, const char *x,
                       const char *dy, float *dw, ptrdiff_t budget)
{
    const ptrdiff_t size = way == MEM16 ? 2 : 4, each = way == F32 ? 1 : 2;
    const ptrdiff_t tiles = (K + MR - 1) / MR, low = K / tiles,
                    high = K % tiles; /* high of low + 1 */
    ptrdiff_t words = budget / (64 * tiles + 4 * N) / 2 * 2;
    words = words < 28 ? 28 : words > 224 ? 224 : words;
    /* blocks of about the same size */
    const ptrdiff_t all = P / each, blocks = (all + words - 1) / words;
    words = ((all + blocks - 1) / blocks + 1) / 2 * 2;
    word *const xs = copy, *const dys = copy + tiles * 16 * words;
    memset(dw, 0, sizeof(float) * K * N);
    for (ptrdiff_t p = 0; p < all; p += words) {
        const ptrdiff_t here = all - p < words ? all - p : words;
        const char *xp = x + p * each * K * size, *dyp = dy + p * each * N * size;
        for (ptrdiff_t t = 0, k = 0; t < tiles; k += low + (t < high), t++) {
            if (way == F32)
                pack_pixels(F32, 16, here, K, K - k, xp + k * size, xs + t * 16 * words);
            else if (way == MEM32)
                pack_pixels(MEM32, 16, 2 * here, K, K - k, xp + k * size, xs + t * 16 * words);
            else
                pack_pixels(MEM16, 16, 2 * here, K, K - k, xp + k * size, xs + t * 16 * words);
        }
        for (ptrdiff_t n = 0; n < N; n += NR) {
            if (way == F32)
                pack_pixels(F32, 32, here, N, 32, dyp + n * size, dys + n * words);
            else if (way == MEM32)
                pack_pixels(MEM32, 32, 2 * here, N, 32, dyp + n * size, dys + n * words);
            else
                pack_pixels(MEM16, 32, 2 * here, N, 32, dyp + n * size, dys + n * words);
        }
        const char *next_x = xp + here * each * K * size, *end_x = x + P * K * size;
        const char *next_dy = dyp + here * each * N * size, *end_dy = dy + P * N * size;
        const ptrdiff_t calls = tiles * (N / NR);
        const ptrdiff_t lines_x = (words * each * K * size / 64 + calls - 1) / calls;
        const ptrdiff_t lines_dy = (words * each * N * size / 64 + calls - 1) / calls;
        for (ptrdiff_t n = 0; n < N; n += NR)
            for (ptrdiff_t t = 0, k = 0; t < tiles; k += low + (t < high), t++) {
                for (ptrdiff_t i = 0; i < lines_x && next_x < end_x; i++, next_x += 64)
                    __builtin_prefetch(next_x, 0, 2);
                for (ptrdiff_t i = 0; i < lines_dy && next_dy < end_dy; i++, next_dy += 64)
                    __builtin_prefetch(next_dy, 0, 2);
                outer_tiles[way != F32][low + (t < high) - 10](here, xs + t * 16 * words,
                                                               dys + n * words, dw + k * N + n, N);
            }
    }
}

/* ---- timing ------------------------------------------------------------------------------------- */

static void *large(size_t bytes)
{
    void *p =
        mmap(NULL, bytes + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    p = (void *)(((uintptr_t)p + (2 << 20) - 1) & ~(uintptr_t)((2 << 20) - 1));
    madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0, bytes);
    return p;
}

static char *pool_x, *pool_y;
static float *weights;

static float value(uint32_t i)
{
    i = i * 2654435761u + 12345;
    i ^= i >> 15;
    i *= 2246822519u;
    i ^= i >> 13;
    return (float)(i & 0xffff) / 65536 - 0.5f;
}
static uint16_t half(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static float full(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static void fill(char *to, ptrdiff_t n, int size, int seed)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        const float f = value(i * 7 + seed);
        if (size == 4)
            ((float *)to)[i] = f;
        else
            ((uint16_t *)to)[i] = half(f);
    }
}
static double get(const char *x, ptrdiff_t i, int size)
{
    return size == 4 ? ((const float *)x)[i] : full(((const uint16_t *)x)[i]);
}

/* the largest error of some results, as a share of the norm of a sum's terms */
static double check(int way, int direction, ptrdiff_t P, ptrdiff_t K, ptrdiff_t N)
{
    const int size = way == MEM16 ? 2 : 4;
    double worst = 0;
    fill(pool_x, P * K, size, 1);
    if (direction == 2) {
        fill(pool_y, P * N, size, 2);
        outer_pass(way, P, K, N, pool_x, pool_y, weights, 512 << 10);
    } else {
        fill((char *)weights, K * N, 4, 3);
        rows_pass(way, direction == 1, P, K, N, pool_x, weights, pool_y, 256 << 10, 0);
    }
    for (int s = 0; s < 300; s++) {
        const ptrdiff_t i = (ptrdiff_t)(value(s) * 1e6 + 1e6) % (direction == 2 ? K : P);
        const ptrdiff_t j = (ptrdiff_t)(value(s + 999) * 1e6 + 1e6) % N;
        double sum = 0, norm = 0;
        for (ptrdiff_t k = 0; k < (direction == 2 ? P : K); k++) {
            const double term = direction == 2
                                    ? get(pool_x, k * K + i, size) * get(pool_y, k * N + j, size)
                                    : get(pool_x, i * K + k, size) *
                                          weights[direction == 1 ? j * K + k : k * N + j];
            sum += term, norm += term * term;
        }
        const double y = direction == 2 ? weights[i * N + j] : get(pool_y, i * N + j, size);
        worst = fmax(worst, fabs(y - sum) / sqrt(norm));
    }
    return worst;
}

static int ascending(const void *a, const void *b)
{
    const double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

enum { SETTINGS = 8 };
static double pass(int way, int direction, ptrdiff_t P, ptrdiff_t K, ptrdiff_t N, int setting)
{
    static ptrdiff_t turn_x, turn_y;
    const ptrdiff_t size = way == MEM16 ? 2 : 4;
    const ptrdiff_t bx = (P * K * size + 4095) / 4096 * 4096,
                    by = (P * N * size + 4095) / 4096 * 4096;
    if ((turn_x + 1) * bx > POOL)
        turn_x = 0;
    if ((turn_y + 1) * by > POOL)
        turn_y = 0;
    char *x = pool_x + turn_x++ * bx, *y = pool_y + turn_y++ * by;
    const double start = seconds();
    if (direction == 2)
        outer_pass(way, P, K, N, x, y, weights, (ptrdiff_t)(128 << 10) << setting % 4);
    else
        rows_pass(way, direction == 1, P, K, N, x, weights, y, (ptrdiff_t)(64 << 10) << setting % 4,
                  setting / 4);
    return seconds() - start;
}

INLINE double peak(int bf)
{
    __m512 sum[28];
    const __m512 a = _mm512_set1_ps(1e-3f), b = _mm512_set1_ps(0.5f);
    double best = 1e9;
#pragma GCC unroll 32
    for (int i = 0; i < 28; i++)
        sum[i] = _mm512_set1_ps(i);
    for (int t = 0; t < 20; t++) {
        const double start = seconds();
        for (int n = 0; n < 200000; n++) {
#pragma GCC unroll 32
            for (int i = 0; i < 28; i++) {
                sum[i] = bf ? _mm512_dpbf16_ps(sum[i], (__m512bh)a, (__m512bh)b)
                            : _mm512_fmadd_ps(a, b, sum[i]);
                __asm__ volatile("" : "+v"(sum[i]));
            }
        }
        best = fmin(best, seconds() - start);
    }
    return 28 * 200000. * 32 * (1 + bf) / best * 1e-9;
}

int main(int argc, char **argv)
{
    static const ptrdiff_t shapes[][3] = {
        {25088, 64, 64},   {25088, 64, 256},  {25088, 256, 64},  {25088, 256, 128},
        {6272, 128, 512},  {6272, 512, 128},  {6272, 512, 256},  {1568, 256, 1024},
        {1568, 1024, 256}, {1568, 1024, 512}, {392, 512, 2048},  {392, 2048, 512},
        {100352, 32, 64},  {25088, 64, 128},  {25088, 128, 128}, {6272, 128, 256},
        {6272, 256, 256},  {1568, 256, 512},  {1568, 512, 512},  {392, 512, 1024},
        {392, 1024, 1024}, {6272, 256, 512},  {1568, 512, 1024}, {392, 1024, 2048},
        {6272, 1152, 128}, {1568, 2304, 256}, {392, 4608, 512},
    };
    static const char *const directions[] = {"forward", "input gradient", "weight gradient"};
    const int only = argc > 1 ? atoi(argv[1]) : -1, repeat = argc > 2 ? atoi(argv[2]) : 15;
    pool_x = large(POOL + (32 << 20));
    pool_y = large(POOL + (32 << 20));
    weights = large(32 << 20);
    copy = large(32 << 20);
    panels = large(32 << 20);
    printf("registers only: f32 %.0f, bf16 %.0f GFLOP/s\n", peak(0), peak(1));
    for (int d = 0; d < 3; d++)
        for (int way = 0; way < WAYS; way++)
            printf("error %s way %d: %.1e %.1e\n", directions[d], way, check(way, d, 392, 96, 160),
                   check(way, d, 1568, 256, 64));
    fill(pool_x, POOL / 2, 2, 1); /* as floats these are numbers as well */
    fill(pool_y, POOL / 2, 2, 2);
    fill((char *)weights, 8 << 20, 4, 3);
    _mm_setcsr(_mm_getcsr() | 0x8040);
    printf("pixels K N | direction | f32 mem32 mem16 GF/s (best setting by min) | ratios min | "
           "ratios median | settings\n");
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        if (only >= 0 && (size_t)only != s)
            continue;
        for (int d = 0; d < 3; d++) {
            const ptrdiff_t P = shapes[s][0];
            /* of y = x w: input gradient sums over N */
            const ptrdiff_t K = d == 1 ? shapes[s][2] : shapes[s][1],
                            N = d == 1 ? shapes[s][1] : shapes[s][2];
            const int settings = d == 2 ? 4 : 8;
            static double t[WAYS][SETTINGS][100];
            double low[WAYS], mid[WAYS];
            int best[WAYS];
            for (int r = 0; r < repeat; r++)
                for (int c = 0; c < settings; c++)
                    for (int way = 0; way < WAYS; way++) {
                        /* pools hold floats or halves: as finite numbers either will do */
                        t[way][c][r] = pass(way, d, P, K, N, c);
                    }
            for (int way = 0; way < WAYS; way++) {
                mid[way] = 1e9;
                for (int c = 0; c < settings; c++) {
                    qsort(t[way][c], repeat, sizeof(double), ascending);
                    if (t[way][c][repeat / 2] < mid[way])
                        mid[way] = t[way][c][repeat / 2], low[way] = t[way][c][0], best[way] = c;
                }
            }
            const double g = 2e-9 * P * K * N;
            printf("%6td %4td %4td | %-15s | %4.0f %4.0f %4.0f (median %4.0f %4.0f %4.0f) | %.2f "
                   "%.2f | %.2f %.2f | %d %d %d | ms %.3f %.3f %.3f\n",
                   P, shapes[s][1], shapes[s][2], directions[d], g / low[0], g / low[1], g / low[2],
                   g / mid[0], g / mid[1], g / mid[2], low[0] / low[1], low[0] / low[2],
                   mid[0] / mid[1], mid[0] / mid[2], best[0], best[1], best[2], 1e3 * mid[0],
                   1e3 * mid[1], 1e3 * mid[2]);
            fflush(stdout);
        }
    }
}

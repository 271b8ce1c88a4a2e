/* AVX512-BF16 beside vec_avx512.h: sixteen pairs of bfloat16 in a vector. */
typedef __m512i pairs;

static inline pairs p_set1(const uint32_t *p) { return _mm512_set1_epi32((int)*p); }
static inline pairs p_load(const uint32_t *p) { return _mm512_loadu_si512(p); }
static inline void p_store(uint32_t *p, pairs a) { _mm512_storeu_si512(p, a); }
/* sum + second · second, then + first · first, rounded after each */
static inline vec p_dot(vec sum, pairs a, pairs b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
/* 32 numbers in a row, rounded to the nearest, as 16 pairs */
static inline pairs p_join(vec low, vec high) { return (pairs)_mm512_cvtne2ps_pbh(high, low); }
/* the pairs of two vectors' lanes */
static inline pairs p_zip(vec first, vec second)
{
    const __m512i lanes =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(lanes, p_join(first, second));
}

#include <stddef.h>
/* AVX2 and FMA: eight floats, sixteen registers. */
#include <immintrin.h>
#include <stdint.h>

#include "touch.h"

#define VLEN 8
#define REAL_IS_DOUBLE 0
#define GATHER_MR 6
#define OUTER_MR 6

typedef __m256 vec;
typedef __m256 mask; /* all ones where true */
typedef int32_t ivec __attribute__((vector_size(32)));
typedef uint64_t lvec __attribute__((vector_size(32)));

/* n ones, then zeros: the mask of a tail */
static inline __m256i tail_lanes(ptrdiff_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vec v_set1(float a) { return _mm256_set1_ps(a); }
static inline vec v_zero(void) { return _mm256_setzero_ps(); }
static inline vec v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec a) { _mm256_storeu_ps(p, a); }
/* Past the caches, to an address that is a multiple of the vector; until the fence, other threads may
 * not see it. */
static inline void v_stream(float *p, vec a) { _mm256_stream_ps(p, a); }
static inline void v_fence(void) { _mm_sfence(); }
static inline vec v_load_tail(const float *p, ptrdiff_t n)
{
    touch(p, n);
    return _mm256_maskload_ps(p, tail_lanes(n));
}
static inline void v_store_tail(float *p, vec a, ptrdiff_t n)
{
    touch(p, n);
    _mm256_maskstore_ps(p, tail_lanes(n), a);
}
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline mask v_gt(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
static inline mask v_eq(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline mask v_nan(vec a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline mask v_first(ptrdiff_t n) { return _mm256_castsi256_ps(tail_lanes(n)); }
static inline mask v_or(mask a, mask b) { return _mm256_or_ps(a, b); }
static inline vec v_select(mask m, vec a, vec b) { return _mm256_blendv_ps(b, a, m); }
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); }
static inline vec v_sqrt(vec a) { return _mm256_sqrt_ps(a); }
static inline lvec l_mul_low(lvec a, lvec b) /* of the lanes' low words */
{
    return (lvec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}

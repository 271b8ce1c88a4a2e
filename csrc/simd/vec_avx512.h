#include <stddef.h>
/* AVX-512 F, DQ, BW, VL: sixteen floats, thirty-two registers, tails by mask registers. */
#include <immintrin.h>
#include <stdint.h>

#include "touch.h"

#define VLEN 16
#define REAL_IS_DOUBLE 0
#define GATHER_MR 14
#define OUTER_MR 14

typedef __m512 vec;
typedef __mmask16 mask;
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint64_t lvec __attribute__((vector_size(64)));

static inline mask tail_lanes(ptrdiff_t n) { return (mask)((1u << n) - 1); }
static inline vec v_set1(float a) { return _mm512_set1_ps(a); }
static inline vec v_zero(void) { return _mm512_setzero_ps(); }
static inline vec v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec a) { _mm512_storeu_ps(p, a); }
/* Past the caches, to an address that is a multiple of the vector; until the fence, other threads may
 * not see it. */
static inline void v_stream(float *p, vec a) { _mm512_stream_ps(p, a); }
static inline void v_fence(void) { _mm_sfence(); }
static inline vec v_load_tail(const float *p, ptrdiff_t n)
{
    touch(p, n);
    return _mm512_maskz_loadu_ps(tail_lanes(n), p);
}
static inline void v_store_tail(float *p, vec a, ptrdiff_t n)
{
    touch(p, n);
    _mm512_mask_storeu_ps(p, tail_lanes(n), a);
}
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline mask v_gt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline mask v_eq(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline mask v_nan(vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline mask v_first(ptrdiff_t n) { return tail_lanes(n); }
static inline mask v_or(mask a, mask b) { return (mask)(a | b); }
static inline vec v_select(mask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
static inline vec v_sqrt(vec a) { return _mm512_sqrt_ps(a); }
static inline lvec l_mul_low(lvec a, lvec b) /* of the lanes' low words */
{
    return (lvec)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}

/* Half a vector, for few channels: where 512 bits are two halves to the CPU, twice as fast. */
#define HALF 8
typedef __m256 hvec;
static inline __mmask8 half_lanes(ptrdiff_t n) { return (__mmask8)((1u << n) - 1); }
static inline hvec h_set1(float a) { return _mm256_set1_ps(a); }
static inline hvec h_load(const float *p) { return _mm256_loadu_ps(p); }
static inline hvec h_load_some(const float *p, ptrdiff_t n) /* 1 ≤ n ≤ HALF */
{
    touch(p, n);
    return _mm256_maskz_loadu_ps(half_lanes(n), p);
}
static inline void h_store_some(float *p, hvec a, ptrdiff_t n)
{
    touch(p, n);
    _mm256_mask_storeu_ps(p, half_lanes(n), a);
}
static inline hvec h_fma(hvec a, hvec b, hvec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec h_widen(hvec a) { return _mm512_castps256_ps512(a); }
static inline hvec h_of(vec a) { return _mm512_castps512_ps256(a); }

#include <stddef.h>
/* NEON (aarch64): four floats, thirty-two registers. */
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define VLEN 4
#define REAL_IS_DOUBLE 0
#define GATHER_MR 12
#define OUTER_MR 12

typedef float32x4_t vec;
typedef uint32x4_t mask; /* all ones where true */
typedef int32_t ivec __attribute__((vector_size(16)));
typedef uint64_t lvec __attribute__((vector_size(16)));

static inline vec v_set1(float a) { return vdupq_n_f32(a); }
static inline vec v_zero(void) { return vdupq_n_f32(0.0f); }
static inline vec v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vec a) { vst1q_f32(p, a); }
static inline void v_stream(float *p, vec a) { v_store(p, a); }
static inline void v_fence(void) {}
static inline vec v_load_tail(const float *p, ptrdiff_t n)
{
    vec a = v_zero();
    memcpy(&a, p, (size_t)n * sizeof(float));
    return a;
}
static inline void v_store_tail(float *p, vec a, ptrdiff_t n)
{
    memcpy(p, &a, (size_t)n * sizeof(float));
}
static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline mask v_gt(vec a, vec b) { return vcgtq_f32(a, b); }
static inline mask v_eq(vec a, vec b) { return vceqq_f32(a, b); }
static inline mask v_nan(vec a) { return vmvnq_u32(vceqq_f32(a, a)); }
static inline mask v_first(ptrdiff_t n) /* true in the first n lanes */
{
    const int32x4_t lane = {0, 1, 2, 3};
    return vcltq_s32(lane, vdupq_n_s32((int32_t)n));
}
static inline mask v_or(mask a, mask b) { return vorrq_u32(a, b); }
static inline vec v_select(mask m, vec a, vec b) { return vbslq_f32(m, a, b); }
static inline vec v_max(vec a, vec b) { return v_select(vcgtq_f32(a, b), a, b); }
static inline vec v_min(vec a, vec b) { return v_select(vcltq_f32(a, b), a, b); }
static inline vec v_sqrt(vec a) { return vsqrtq_f32(a); }
static inline lvec l_mul_low(lvec a, lvec b) /* of the lanes' low words */
{
    return (lvec)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
}

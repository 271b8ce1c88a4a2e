/* Vectors by the compilers' own vector types: 16 bytes, of float for the baseline table and
 * of double for reference_f64. The including file defines `real`, VLEN and REAL_IS_DOUBLE (0 or 1). */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef real vec __attribute__((vector_size(VLEN * sizeof(real))));
typedef real vec_any __attribute__((vector_size(VLEN * sizeof(real)), aligned(sizeof(real)),
                                    may_alias)); /* at any address */
#if REAL_IS_DOUBLE
typedef int64_t ivec __attribute__((vector_size(VLEN * sizeof(int64_t))));
#else
typedef int32_t ivec __attribute__((vector_size(VLEN * sizeof(int32_t))));
#endif
typedef ivec mask; /* all ones where true */
typedef uint64_t lvec __attribute__((vector_size(16)));

#define GATHER_MR 6
#define OUTER_MR 6

static inline vec v_set1(real a) { return (vec){0} + a; }
static inline vec v_zero(void) { return (vec){0}; }
static inline vec v_load(const real *p) { return *(const vec_any *)p; }
static inline void v_store(real *p, vec a) { *(vec_any *)p = a; }
static inline void v_stream(real *p, vec a) { v_store(p, a); }
static inline void v_fence(void) {}
static inline vec v_load_tail(const real *p, ptrdiff_t n)
{
    vec a = v_zero();
    memcpy(&a, p, (size_t)n * sizeof(real));
    return a;
}
static inline void v_store_tail(real *p, vec a, ptrdiff_t n)
{
    memcpy(p, &a, (size_t)n * sizeof(real));
}
static inline vec v_add(vec a, vec b) { return a + b; }
static inline vec v_sub(vec a, vec b) { return a - b; }
static inline vec v_mul(vec a, vec b) { return a * b; }
static inline vec v_div(vec a, vec b) { return a / b; }
static inline vec v_fma(vec a, vec b, vec c) { return a * b + c; } /* two roundings here */
static inline mask v_gt(vec a, vec b) { return a > b; }
static inline mask v_eq(vec a, vec b) { return a == b; }
static inline mask v_nan(vec a) { return a != a; }
static inline mask v_first(ptrdiff_t n) /* true in the first n lanes */
{
    mask m = {0};
    for (int i = 0; i < VLEN; i++)
        m[i] = -(i < n);
    return m;
}
static inline mask v_or(mask a, mask b) { return a | b; }
static inline vec v_select(mask m, vec a, vec b) { return (vec)(((ivec)a & m) | ((ivec)b & ~m)); }
/* max and min return b where either is NaN, as the x86 instructions do */
static inline vec v_max(vec a, vec b) { return v_select(a > b, a, b); }
static inline vec v_min(vec a, vec b) { return v_select(a < b, a, b); }
static inline vec v_sqrt(vec a)
{
    for (int i = 0; i < VLEN; i++)
        a[i] = REAL_IS_DOUBLE ? sqrt(a[i]) : sqrtf(a[i]);
    return a;
}
static inline lvec l_mul_low(lvec a, lvec b) /* of the lanes' low words */
{
    return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
}

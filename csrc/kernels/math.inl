/* Elementary functions on vectors. Float: range reduction and a polynomial, errors of one or two
 * units in the last place. Double, the reference: libm, lane by lane. NaN gives NaN. */
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

/* Unrolls the loop that follows, up to n times: a tile lives in registers only where every index
 * into it is a constant. clang takes gcc's pragma without a word and does nothing. */
#ifdef __clang__
#define UNROLL(n) _Pragma("clang loop unroll(full)")
#else
#define UNROLL(n) UNROLL_PRAGMA(GCC unroll n)
#define UNROLL_PRAGMA(text) _Pragma(#text)
#endif

#if REAL_IS_DOUBLE

INLINE vec v_exp(vec x)
{
    for (int i = 0; i < VLEN; i++)
        x[i] = exp(x[i]);
    return x;
}

INLINE vec v_expm1_negative(vec x)
{
    for (int i = 0; i < VLEN; i++)
        x[i] = expm1(x[i] > 0 ? 0 : x[i]);
    return x;
}

INLINE vec v_tanh(vec x)
{
    for (int i = 0; i < VLEN; i++)
        x[i] = tanh(x[i]);
    return x;
}

#else

/* x = k ln 2 + r with |r| ≤ ln 2 / 2: returns e^r − 1. Wants |x| < 2^22 or NaN. */
INLINE vec exp_reduced(vec x, ivec *k)
{
    const vec magic = v_set1(12582912.0f); /* 1.5 · 2^23: a sum with it is rounded to an integer */
    const vec shifted = v_add(v_mul(x, v_set1(1.44269504f)), magic);
    const vec whole = v_sub(shifted, magic);
    *k = (ivec)shifted - (ivec)magic;
    /* ln 2 in two parts; the product with the short first one is exact, fused or not */
    const vec r = v_fma(whole, v_set1(2.12194440e-4f), v_fma(whole, v_set1(-0.693359375f), x));
    vec p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    return v_fma(p, v_mul(r, r), r);
}

INLINE vec power_of_two(ivec k) { return (vec)((k + 127) << 23); }

/* inf above the largest float, 0 below the smallest normal one (denormals are flushed: the mode
 * that every kernel runs in). 2^k is applied in two factors, as neither 2^128 nor 2^-150 exists. */
INLINE vec v_exp(vec x)
{
    ivec k;
    const vec e = exp_reduced(v_max(v_set1(-104.0f), v_min(v_set1(89.0f), x)), &k);
    const ivec half = k >> 1;
    const vec scale = power_of_two(half);
    return v_mul(v_fma(e, scale, scale), power_of_two(k - half));
}

/* e^x − 1 for x ≤ 0, accurate near 0; above 0 it is 0. */
INLINE vec v_expm1_negative(vec x)
{
    ivec k;
    const vec e = exp_reduced(v_max(v_set1(-30.0f), v_min(v_zero(), x)), &k);
    const vec scale = power_of_two(k);
    return v_fma(e, scale, v_sub(scale, v_set1(1)));
}

/* tanh |x| = −t / (t + 2) with t = e^(−2|x|) − 1, then the sign of x */
INLINE vec v_tanh(vec x)
{
    const ivec sign = (ivec)x & INT32_MIN;
    const vec size = (vec)((ivec)x ^ sign);
    const vec t = v_expm1_negative(v_mul(size, v_set1(-2)));
    const vec y = v_div(v_sub(v_zero(), t), v_add(t, v_set1(2)));
    return (vec)((ivec)y | sign);
}

#endif

INLINE vec v_sigmoid(vec x)
{
    return v_div(v_set1(1), v_add(v_set1(1), v_exp(v_sub(v_zero(), x))));
}

/* Loads and stores of n ≤ VLEN lanes; with n known to be VLEN they are the whole-vector ones. */
INLINE vec load_part(const real *p, ptrdiff_t n)
{
    return n < VLEN ? v_load_tail(p, n) : v_load(p);
}
INLINE void store_part(real *p, vec a, ptrdiff_t n)
{
    if (n < VLEN)
        v_store_tail(p, a, n);
    else
        v_store(p, a);
}

/* Horizontal, in halves: one fixed order. */
INLINE real v_sum(vec a)
{
    real lane[VLEN];
    v_store(lane, a);
    for (int width = VLEN / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

INLINE real v_largest(vec a)
{
    real lane[VLEN];
    v_store(lane, a);
    for (int width = VLEN / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
}

/* What this machine can do at most, for a profile to compare with: multiply-adds on registers alone,
 * and a stream through memory. */

/* ``rounds`` times PEAK_CHAINS multiply-adds, none of which waits for another: as many sums as a
 * gather tile keeps. out = their total over the chains, (VLEN); flops: 2 · rounds · peak_chains ·
 * VLEN. */
#define PEAK_CHAINS (2 * GATHER_MR)

static void multiply_add(ptrdiff_t rounds, real scale, real offset, real *out)
{
    const vec a = v_set1(scale), b = v_set1(offset);
    vec sum[PEAK_CHAINS];
    UNROLL(32)
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum[i] = v_set1((real)i);
    for (ptrdiff_t r = 0; r < rounds; r++) {
        UNROLL(32)
        for (int i = 0; i < PEAK_CHAINS; i++)
            sum[i] = v_fma(sum[i], a, b);
    }
    vec total = v_zero();
    UNROLL(32)
    for (int i = 0; i < PEAK_CHAINS; i++)
        total = v_add(total, sum[i]);
    v_store(out, total);
}

/* McCalpin's triad, y = a + scale · b: two arrays read, one written. */
static void triad(ptrdiff_t count, real scale, const real *a, const real *b, real *y)
{
    const vec s = v_set1(scale);
    ptrdiff_t i = 0;
    for (; i + VLEN <= count; i += VLEN)
        v_store(y + i, v_fma(v_load(b + i), s, v_load(a + i)));
    if (i < count)
        v_store_tail(y + i, v_fma(v_load_tail(b + i, count - i), s, v_load_tail(a + i, count - i)),
                     count - i);
}

/* One step of an optimizer over a stretch of parameters w with gradients g; the formulas, and where
 * epsilon stands in them, are Keras 3's. Each reads and writes every array once. */

/* Without momentum (m NULL): w −= rate g. With: m = momentum m − rate g, then w += m or, Nesterov's
 * form, w += momentum m − rate g. */
static void sgd(ptrdiff_t count, real rate, real momentum, int nesterov, real *w, const real *g,
                real *m)
{
    const vec lr = v_set1(rate), mu = v_set1(momentum);
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec pull = v_mul(load_part(g + i, n), lr);
        vec step = v_sub(v_zero(), pull);
        if (m) {
            step = v_sub(v_mul(load_part(m + i, n), mu), pull);
            store_part(m + i, step, n);
            if (nesterov)
                step = v_sub(v_mul(step, mu), pull);
        }
        store_part(w + i, v_add(load_part(w + i, n), step), n);
    }
}

/* m += (g − m) rest1, v += (g² − v) rest2, w −= m alpha / (sqrt v + eps), where rest = 1 − beta and
 * alpha = rate sqrt(1 − beta2^t) / (1 − beta1^t). */
static void adam(ptrdiff_t count, real alpha, real rest1, real rest2, real eps, real *w,
                 const real *g, real *m, real *v)
{
    const vec a = v_set1(alpha), r1 = v_set1(rest1), r2 = v_set1(rest2), e = v_set1(eps);
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec gi = load_part(g + i, n);
        vec mi = load_part(m + i, n), vi = load_part(v + i, n);
        mi = v_add(mi, v_mul(v_sub(gi, mi), r1));
        vi = v_add(vi, v_mul(v_sub(v_mul(gi, gi), vi), r2));
        store_part(m + i, mi, n);
        store_part(v + i, vi, n);
        const vec step = v_div(v_mul(mi, a), v_add(v_sqrt(vi), e));
        store_part(w + i, v_sub(load_part(w + i, n), step), n);
    }
}

/* a = rho a + (1 − rho) g², u = g sqrt(d + eps) / sqrt(a + eps), d = rho d + (1 − rho) u²,
 * w −= rate u. */
static void adadelta(ptrdiff_t count, real rate, real rho, real rest, real eps, real *w,
                     const real *g, real *a, real *d)
{
    const vec lr = v_set1(rate), keep = v_set1(rho), take = v_set1(rest), e = v_set1(eps);
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec gi = load_part(g + i, n);
        vec ai = load_part(a + i, n), di = load_part(d + i, n);
        ai = v_add(v_mul(keep, ai), v_mul(take, v_mul(gi, gi)));
        const vec u = v_div(v_mul(v_sqrt(v_add(di, e)), gi), v_sqrt(v_add(ai, e)));
        di = v_add(v_mul(keep, di), v_mul(take, v_mul(u, u)));
        store_part(a + i, ai, n);
        store_part(d + i, di, n);
        store_part(w + i, v_sub(load_part(w + i, n), v_mul(lr, u)), n);
    }
}

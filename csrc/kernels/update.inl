/* One step of an optimizer over a stretch of parameters w with gradients g; the formulas, and where
 * epsilon stands in them, are Keras 3's. Each reads and writes every array once: what else is done
 * to gradients and weights (penalties, clipping, decay) happens on the way. */

typedef struct {
    int plain; /* the gradient as it is */
    vec l1, l2, scale, limit, decay;
} pull;

INLINE pull pull_of(const fc_pull *p)
{
    return (pull){
        .plain = p->l1 == 0 && p->l2 == 0 && p->scale == 1 && p->limit == (double)INFINITY,
        .l1 = v_set1((real)p->l1),
        .l2 = v_set1((real)p->l2),
        .scale = v_set1((real)p->scale),
        .limit = v_set1((real)p->limit),
        .decay = v_set1((real)p->decay),
    };
}

/* clamp((g + l1 sign w + l2 w) scale, −limit, limit); NaN stays NaN, as min and max return their
 * second argument for it. */
INLINE vec pulled(const pull *p, vec w, vec g)
{
    if (p->plain)
        return g;
    const vec one = v_set1(1), huge = v_set1(REAL_IS_DOUBLE ? (real)1e300 : (real)1e38);
    const vec sign = v_max(v_sub(v_zero(), one), v_min(one, v_mul(w, huge)));
    g = v_add(g, v_add(v_mul(p->l1, sign), v_mul(p->l2, w)));
    g = v_mul(g, p->scale);
    return v_max(v_sub(v_zero(), p->limit), v_min(p->limit, g));
}

INLINE vec decayed(const pull *p, vec w) { return v_sub(w, v_mul(w, p->decay)); }

/* Without momentum (first = 0): w −= rate g. With: m = first m − rate g, then w += m or, in
 * Nesterov's form, w += first m − rate g. */
static void sgd(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                real *const *state)
{
    const pull terms = pull_of(p);
    const vec lr = v_set1((real)r->rate), mu = v_set1((real)r->first);
    const int nesterov = r->form;
    real *m = r->first != 0 ? state[0] : NULL;
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n);
        const vec gi = v_mul(pulled(&terms, wi, load_part(g + i, n)), lr);
        vec step = v_sub(v_zero(), gi);
        if (m) {
            step = v_sub(v_mul(load_part(m + i, n), mu), gi);
            store_part(m + i, step, n);
            if (nesterov)
                step = v_sub(v_mul(step, mu), gi);
        }
        store_part(w + i, v_add(decayed(&terms, wi), step), n);
    }
}

/* m += (g − m) first, v += (g² − v) second, w −= m rate / (sqrt v + eps), where first = 1 − beta1,
 * second = 1 − beta2 and rate has sqrt(1 − beta2^t) / (1 − beta1^t) in it. With a maximum, u =
 * max(u, v) stands for v in w's step (AMSGrad). */
static void adam(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                 real *const *state)
{
    const pull terms = pull_of(p);
    const vec a = v_set1((real)r->rate), e = v_set1((real)r->eps);
    const vec r1 = v_set1((real)r->first), r2 = v_set1((real)r->second);
    real *m = state[0], *v = state[1], *u = r->form ? state[2] : NULL;
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n), gi = pulled(&terms, wi, load_part(g + i, n));
        vec mi = load_part(m + i, n), vi = load_part(v + i, n);
        mi = v_add(mi, v_mul(v_sub(gi, mi), r1));
        vi = v_add(vi, v_mul(v_sub(v_mul(gi, gi), vi), r2));
        store_part(m + i, mi, n);
        store_part(v + i, vi, n);
        if (u) {
            vi = v_max(load_part(u + i, n), vi);
            store_part(u + i, vi, n);
        }
        const vec step = v_div(v_mul(mi, a), v_add(v_sqrt(vi), e));
        store_part(w + i, v_sub(decayed(&terms, wi), step), n);
    }
}

/* m and v as adam's; w −= (third m + fourth g) / (sqrt(v rate) + eps), where rate = 1 / (1 −
 * beta2^t), third and fourth the learning rate times Nesterov's look ahead. */
static void nadam(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                  real *const *state)
{
    const pull terms = pull_of(p);
    const vec e = v_set1((real)r->eps), c = v_set1((real)r->rate);
    const vec r1 = v_set1((real)r->first), r2 = v_set1((real)r->second);
    const vec ahead = v_set1((real)r->third), now = v_set1((real)r->fourth);
    real *m = state[0], *v = state[1];
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n), gi = pulled(&terms, wi, load_part(g + i, n));
        vec mi = load_part(m + i, n), vi = load_part(v + i, n);
        mi = v_add(mi, v_mul(v_sub(gi, mi), r1));
        vi = v_add(vi, v_mul(v_sub(v_mul(gi, gi), vi), r2));
        store_part(m + i, mi, n);
        store_part(v + i, vi, n);
        const vec step =
            v_div(v_add(v_mul(ahead, mi), v_mul(now, gi)), v_add(v_sqrt(v_mul(vi, c)), e));
        store_part(w + i, v_sub(decayed(&terms, wi), step), n);
    }
}

/* m += (g − m) first, u = max(second u, |g|), w −= rate m / (u + eps), where 1 / (1 − beta1^t) is in
 * rate. */
static void adamax(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                   real *const *state)
{
    const pull terms = pull_of(p);
    const vec a = v_set1((real)r->rate), e = v_set1((real)r->eps);
    const vec r1 = v_set1((real)r->first), b2 = v_set1((real)r->second);
    real *m = state[0], *u = state[1];
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n), gi = pulled(&terms, wi, load_part(g + i, n));
        const vec size = v_max(v_sub(v_zero(), gi), gi);
        vec mi = load_part(m + i, n), ui = load_part(u + i, n);
        mi = v_add(mi, v_mul(v_sub(gi, mi), r1));
        ui = v_max(v_mul(b2, ui), size);
        store_part(m + i, mi, n);
        store_part(u + i, ui, n);
        const vec step = v_div(v_mul(a, mi), v_add(ui, e));
        store_part(w + i, v_sub(decayed(&terms, wi), step), n);
    }
}

/* v = first v + second g², second = 1 − first; step = rate g / sqrt(v + eps), in the centered form
 * rate g / sqrt(v − a² + eps) with a = first a + second g. Without momentum (third = 0) w −= step,
 * with it m = third m + step and w −= m. States: v, then m, then a, as far as there are. */
static void rmsprop(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                    real *const *state)
{
    const pull terms = pull_of(p);
    const vec lr = v_set1((real)r->rate), e = v_set1((real)r->eps), mu = v_set1((real)r->third);
    const vec keep = v_set1((real)r->first), take = v_set1((real)r->second);
    real *v = state[0], *m = r->third != 0 ? state[1] : NULL;
    real *a = r->form ? state[m ? 2 : 1] : NULL;
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n), gi = pulled(&terms, wi, load_part(g + i, n));
        const vec vi = v_add(v_mul(keep, load_part(v + i, n)), v_mul(take, v_mul(gi, gi)));
        vec spread = vi;
        store_part(v + i, vi, n);
        if (a) {
            const vec ai = v_add(v_mul(keep, load_part(a + i, n)), v_mul(take, gi));
            store_part(a + i, ai, n);
            spread = v_sub(vi, v_mul(ai, ai));
        }
        vec step = v_div(v_mul(lr, gi), v_sqrt(v_add(spread, e)));
        if (m) {
            step = v_add(v_mul(mu, load_part(m + i, n)), step);
            store_part(m + i, step, n);
        }
        store_part(w + i, v_sub(decayed(&terms, wi), step), n);
    }
}

/* a += g², w −= rate g / sqrt(a + eps). */
static void adagrad(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                    real *const *state)
{
    const pull terms = pull_of(p);
    const vec lr = v_set1((real)r->rate), e = v_set1((real)r->eps);
    real *a = state[0];
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n), gi = pulled(&terms, wi, load_part(g + i, n));
        const vec ai = v_add(load_part(a + i, n), v_mul(gi, gi));
        store_part(a + i, ai, n);
        const vec step = v_div(v_mul(lr, gi), v_sqrt(v_add(ai, e)));
        store_part(w + i, v_sub(decayed(&terms, wi), step), n);
    }
}

/* a = first a + second g², second = 1 − first, u = g sqrt(d + eps) / sqrt(a + eps),
 * d = first d + second u², w −= rate u. */
static void adadelta(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                     real *const *state)
{
    const pull terms = pull_of(p);
    const vec lr = v_set1((real)r->rate), e = v_set1((real)r->eps);
    const vec keep = v_set1((real)r->first), take = v_set1((real)r->second);
    real *a = state[0], *d = state[1];
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n), gi = pulled(&terms, wi, load_part(g + i, n));
        vec ai = load_part(a + i, n), di = load_part(d + i, n);
        ai = v_add(v_mul(keep, ai), v_mul(take, v_mul(gi, gi)));
        const vec u = v_div(v_mul(v_sqrt(v_add(di, e)), gi), v_sqrt(v_add(ai, e)));
        di = v_add(v_mul(keep, di), v_mul(take, v_mul(u, u)));
        store_part(a + i, ai, n);
        store_part(d + i, di, n);
        store_part(w + i, v_sub(decayed(&terms, wi), v_mul(lr, u)), n);
    }
}

/* w −= rate sign(first m + (1 − first) g), then m = second m + (1 − second) g. */
static void lion(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                 real *const *state)
{
    const pull terms = pull_of(p);
    const vec zero = v_zero(), lr = v_set1((real)r->rate), back = v_sub(zero, lr);
    const vec b1 = v_set1((real)r->first), rest1 = v_set1((real)(1 - r->first));
    const vec b2 = v_set1((real)r->second), rest2 = v_set1((real)(1 - r->second));
    real *m = state[0];
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec wi = load_part(w + i, n), gi = pulled(&terms, wi, load_part(g + i, n));
        const vec mi = load_part(m + i, n), mix = v_add(v_mul(b1, mi), v_mul(rest1, gi));
        vec step = v_select(v_gt(mix, zero), lr, v_select(v_gt(zero, mix), back, zero));
        step = v_select(v_nan(mix), mix, step);
        store_part(w + i, v_sub(decayed(&terms, wi), step), n);
        store_part(m + i, v_add(v_mul(b2, mi), v_mul(rest2, gi)), n);
    }
}

/* mean = momentum mean + (1 − momentum) w */
static void average(ptrdiff_t count, double momentum, const real *w, real *mean)
{
    const vec keep = v_set1((real)momentum), take = v_set1((real)(1 - momentum));
    for (ptrdiff_t i = 0; i < count; i += VLEN) {
        const ptrdiff_t n = count - i < VLEN ? count - i : VLEN;
        const vec mixed =
            v_add(v_mul(keep, load_part(mean + i, n)), v_mul(take, load_part(w + i, n)));
        store_part(mean + i, mixed, n);
    }
}

/* Σ g'² of what a rule would see, 1024 elements at a time in vectors and those in double. */
static double pull_square(ptrdiff_t count, const fc_pull *p, const real *w, const real *g)
{
    const pull terms = pull_of(p);
    double total = 0;
    for (ptrdiff_t i = 0; i < count;) {
        const ptrdiff_t end = count - i < 1024 ? count : i + 1024;
        vec sum = v_zero();
        for (; i < end; i += VLEN) {
            const ptrdiff_t n = end - i < VLEN ? end - i : VLEN;
            const vec wi = terms.plain ? v_zero() : load_part(w + i, n);
            const vec gi = pulled(&terms, wi, load_part(g + i, n));
            sum = v_fma(gi, gi, sum);
        }
        total += (double)v_sum(sum);
    }
    return total;
}

/* sums = Σ |w|, Σ w² */
static void weight_sums(ptrdiff_t count, const real *w, double *sums)
{
    sums[0] = sums[1] = 0;
    for (ptrdiff_t i = 0; i < count;) {
        const ptrdiff_t end = count - i < 1024 ? count : i + 1024;
        vec size = v_zero(), square = v_zero();
        for (; i < end; i += VLEN) {
            const ptrdiff_t n = end - i < VLEN ? end - i : VLEN;
            const vec wi = load_part(w + i, n);
            size = v_add(size, v_max(v_sub(v_zero(), wi), wi));
            square = v_fma(wi, wi, square);
        }
        sums[0] += (double)v_sum(size);
        sums[1] += (double)v_sum(square);
    }
}

/* Losses and hits. A row is one prediction of `cols` classes; a kernel returns the weighted sum of
 * the losses of its rows, in double, and writes their gradients.
 *
 * Cross-entropy is −Σ t log p, for targets t given whole (targets) or as one class (labels). Where
 * both might be, labels is NULL for targets and the reverse. Whole targets are smoothed on the way:
 * t stands for keep t + spread. */

enum {
    CROSS_ENTROPY_FUSED,         /* p is a softmax, the gradient is that of its logits */
    CROSS_ENTROPY_PROBABILITIES, /* p is scaled to sum 1 and clipped, as Keras does */
    CROSS_ENTROPY_LOGITS,
};

#define PROBABILITY_EPSILON 1e-7

INLINE double clipped(double p) /* NaN stays NaN */
{
    return p < PROBABILITY_EPSILON       ? PROBABILITY_EPSILON
           : p > 1 - PROBABILITY_EPSILON ? 1 - PROBABILITY_EPSILON
                                         : p;
}

typedef struct {
    real keep, spread;
} smoothing;

INLINE real smoothed(smoothing s, real t) { return s.keep * t + s.spread; }

/* −Σ t log clip(p / sum) */
INLINE double entropy_of_probabilities(ptrdiff_t cols, const real *p, double sum, ptrdiff_t label,
                                       const real *t, smoothing s)
{
    if (!t)
        return -log(clipped((double)p[label] / sum));
    double value = 0;
    for (ptrdiff_t j = 0; j < cols; j++) {
        const real target = smoothed(s, t[j]);
        value -=
            target == 0 && p[j] == p[j] ? 0 : (double)target * log(clipped((double)p[j] / sum));
    }
    return value;
}

/* Σ t (log Σ e^x − x) */
INLINE double entropy_of_logits(ptrdiff_t cols, const real *x, double log_sum, ptrdiff_t label,
                                const real *t, smoothing s)
{
    if (!t)
        return log_sum - (double)x[label];
    double value = 0;
    for (ptrdiff_t j = 0; j < cols; j++) {
        const real target = smoothed(s, t[j]);
        if (target != 0)
            value += (double)target * (log_sum - (double)x[j]);
    }
    return value;
}

/* With q = p / s, s = Σ p: dx = (g − Σ g q) / s, g = −t / q inside the clip and 0 outside. */
INLINE void probabilities_gradient(ptrdiff_t cols, const real *p, double sum, ptrdiff_t label,
                                   const real *t, smoothing s, double weight, real *dx)
{
    double dot = 0;
    for (ptrdiff_t j = 0; j < cols; j++) {
        const double q = (double)p[j] / sum;
        const double target = t ? (double)smoothed(s, t[j]) : j == label;
        const int inside = !(q < PROBABILITY_EPSILON || q > 1 - PROBABILITY_EPSILON);
        dot -= inside ? target : 0;
    }
    for (ptrdiff_t j = 0; j < cols; j++) {
        const double q = (double)p[j] / sum;
        const double target = t ? (double)smoothed(s, t[j]) : j == label;
        const int inside = !(q < PROBABILITY_EPSILON || q > 1 - PROBABILITY_EPSILON);
        dx[j] = (real)(((inside && target != 0 ? -target / q : 0) - dot) / sum * weight);
    }
}

/* dx = (p · scale · Σ t − t) · weight: the gradient at the logits; dx may be p. */
INLINE void logits_gradient(ptrdiff_t cols, const real *p, real scale, ptrdiff_t label,
                            const real *t, smoothing s, real weight, real *dx)
{
    real total = 1;
    if (t) {
        double sum = 0;
        for (ptrdiff_t j = 0; j < cols; j++)
            sum += (double)smoothed(s, t[j]);
        total = (real)sum;
    }
    for (ptrdiff_t j = 0; j < cols; j++) {
        const real target = t ? smoothed(s, t[j]) : (real)(j == label);
        dx[j] = (p[j] * scale * total - target) * weight;
    }
}

/* Rows [0, rows) of p and labels or targets; weights (or NULL) has one per rows_per_weight rows, of
 * which row 0 is number `first`. dx (or NULL) is the gradient of the sum, times scale; dx may be p
 * except in the probabilities mode. Labels lie in [0, cols), or are `ignore` and count nothing: the
 * caller has looked. */
static double cross_entropy(int mode, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t cols,
                            const real *p, ptrdiff_t p_stride, const int32_t *labels,
                            int32_t ignore, const real *targets, ptrdiff_t targets_stride,
                            double smooth, const real *weights, ptrdiff_t rows_per_weight,
                            double scale, real *dx, ptrdiff_t dx_stride)
{
    const smoothing s = {(real)(1 - smooth), (real)(smooth / (double)cols)};
    double total = 0;
    for (ptrdiff_t r = 0; r < rows; r++) {
        const real *x = p + r * p_stride, *t = targets ? targets + r * targets_stride : NULL;
        real *d = dx ? dx + r * dx_stride : NULL;
        const ptrdiff_t label = labels ? labels[r] : 0;
        const double weight = weights ? (double)weights[(first + r) / rows_per_weight] : 1;
        if (labels && label == ignore) {
            for (ptrdiff_t j = 0; d && j < cols; j++)
                d[j] = 0;
            continue;
        }
        const double slope = weight * scale;
        if (mode == CROSS_ENTROPY_FUSED) {
            total += weight * entropy_of_probabilities(cols, x, 1, label, t, s);
            if (d)
                logits_gradient(cols, x, 1, label, t, s, (real)slope, d);
        } else if (mode == CROSS_ENTROPY_PROBABILITIES) {
            double sum = 0;
            for (ptrdiff_t j = 0; j < cols; j++)
                sum += (double)x[j];
            total += weight * entropy_of_probabilities(cols, x, sum, label, t, s);
            if (d)
                probabilities_gradient(cols, x, sum, label, t, s, slope, d);
        } else {
            const real top = row_max(cols, x), sum = row_exp_sum(cols, top, x, NULL);
            const double log_sum = (double)top + log((double)sum);
            total += weight * entropy_of_logits(cols, x, log_sum, label, t, s);
            if (d) {
                row_exp_sum(cols, top, x, d);
                logits_gradient(cols, d, 1 / sum, label, t, s, (real)slope, d);
            }
        }
    }
    return total;
}

/* Σ −t log p − (1 − t) log(1 − p) over count elements of p (or, in the logits mode, of its logits);
 * dx (or NULL) is its gradient, times slope, and may be p. The targets move towards ½ by the share
 * `smooth`. */
static double binary_entropy(int mode, ptrdiff_t count, const real *p, const real *t, double smooth,
                             double slope, real *dx)
{
    double total = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        const double x = (double)p[i], target = (double)t[i] * (1 - smooth) + smooth / 2;
        double turn;
        if (mode == CROSS_ENTROPY_LOGITS) {
            const double tail = exp(-fabs(x)); /* of the sigmoid: above 0 it is 1 / (1 + tail) */
            total += (x > 0 ? x : 0) - x * target + log1p(tail);
            turn = (x > 0 ? 1 : tail) / (1 + tail) - target;
        } else {
            const double q = clipped(x);
            const double hit = target == 0 && q == q ? 0 : target * log(q);
            total -= hit + (target == 1 ? 0 : (1 - target) * log1p(-q));
            turn = mode == CROSS_ENTROPY_FUSED ? x - target
                   : q == x || q != q          ? (q - target) / (q * (1 - q))
                                               : 0;
        }
        if (dx)
            dx[i] = (real)(turn * slope);
    }
    return total;
}

/* Σ (p − t)² over count elements, 1024 at a time in vectors and those in double;
 * dx (or NULL) = slope · (p − t), and may be p. */
static double squared_error(ptrdiff_t count, const real *p, const real *t, real slope, real *dx)
{
    const vec s = v_set1(slope);
    double total = 0;
    for (ptrdiff_t i = 0; i < count;) {
        const ptrdiff_t end = count - i < 1024 ? count : i + 1024;
        vec sum = v_zero();
        for (; i < end; i += VLEN) {
            const ptrdiff_t n = end - i < VLEN ? end - i : VLEN;
            const vec d = v_sub(load_part(p + i, n), load_part(t + i, n));
            sum = v_fma(d, d, sum);
            if (dx)
                store_part(dx + i, v_mul(d, s), n);
        }
        total += (double)v_sum(sum);
    }
    return total;
}

/* The first maximum; a NaN counts as one, as in numpy. */
INLINE ptrdiff_t argmax(ptrdiff_t cols, const real *x)
{
    ptrdiff_t best = 0;
    for (ptrdiff_t j = 1; j < cols && x[best] == x[best]; j++)
        if (!(x[j] <= x[best]))
            best = j;
    return best;
}

/* How many rows have their largest p at the label, or at the largest target. */
static ptrdiff_t count_hits(ptrdiff_t rows, ptrdiff_t cols, const real *p, ptrdiff_t p_stride,
                            const int32_t *labels, const real *targets, ptrdiff_t targets_stride)
{
    ptrdiff_t hits = 0;
    for (ptrdiff_t r = 0; r < rows; r++)
        hits += argmax(cols, p + r * p_stride) ==
                (labels ? labels[r] : argmax(cols, targets + r * targets_stride));
    return hits;
}

/* How many elements are on their target's side: t = (p > threshold). */
static ptrdiff_t count_binary_hits(ptrdiff_t count, real threshold, const real *p, const real *t)
{
    ptrdiff_t hits = 0;
    for (ptrdiff_t i = 0; i < count; i++)
        hits += t[i] == (real)(p[i] > threshold);
    return hits;
}

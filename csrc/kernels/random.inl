/* Random numbers from counters: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011). A number is a pure
 * function of (key, step, element): nothing is stored, no order matters, every table gives the same
 * ones, and a backward pass makes the mask of its forward pass again. */

#define RANDOM_GROUP 64 /* elements of a group: 16 counters of four words */

#define LONGS ((ptrdiff_t)(sizeof(lvec) / sizeof(uint64_t)))

typedef uint32_t wordvec __attribute__((vector_size(sizeof(lvec) / 2)));

/* The words of counters (block + j, step), j < 16: word w of counter j is out[16 w + j], so that
 * neighbours in `out` are neighbours in a vector. Each counter has 64 bits of a vector for each of
 * its words: that is how the products come, and what stands in the upper half is never looked at. */
static void philox_group(uint64_t key, uint64_t block, uint64_t step, uint32_t *out)
{
    const lvec m0 = (lvec){0} + 0xD2511F53u, m2 = (lvec){0} + 0xCD9E8D57u;
    lvec lanes;
    for (ptrdiff_t i = 0; i < LONGS; i++)
        lanes[i] = (uint64_t)i;
    for (ptrdiff_t j = 0; j < 16; j += 2 * LONGS) { /* two vectors: one waits, one works */
        lvec c0[2], c1[2], c2[2], c3[2];
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        for (int i = 0; i < 2; i++) {
            c0[i] = lanes + (block + (uint64_t)(j + i * LONGS));
            c1[i] = c0[i] >> 32;
            c2[i] = (lvec){0} + step;
            c3[i] = (lvec){0} + (step >> 32);
        }
        UNROLL(10)
        for (int round = 0; round < 10; round++) {
            for (int i = 0; i < 2; i++) {
                const lvec a = l_mul_low(c0[i], m0), b = l_mul_low(c2[i], m2);
                c0[i] = (b >> 32) ^ c1[i] ^ k0;
                c2[i] = (a >> 32) ^ c3[i] ^ k1;
                c1[i] = b;
                c3[i] = a;
            }
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        for (int i = 0; i < 2; i++) {
            const lvec word[4] = {c0[i], c1[i], c2[i], c3[i]};
            for (int w = 0; w < 4; w++) {
                const wordvec low = __builtin_convertvector(word[w], wordvec);
                __builtin_memcpy(out + 16 * w + j + i * LONGS, &low, sizeof low);
            }
        }
    }
}

INLINE void dropout_words(const uint32_t *word, uint32_t threshold, real scale, ptrdiff_t count,
                          const real *x, real *y)
{
    for (ptrdiff_t j = 0; j < count; j++)
        y[j] = word[j] >= threshold ? x[j] * scale : 0;
}

/* Elements [first, last) of rows of `cols`, x_stride and y_stride apart: y = x · scale where the
 * element's word is at least threshold, else 0. Forward and backward are the same map; y may be x.
 * A range may begin and end anywhere, at a multiple of 64 no word is made for nobody. */
static void dropout(uint64_t key, uint64_t step, uint32_t threshold, real scale, ptrdiff_t first,
                    ptrdiff_t last, ptrdiff_t cols, const real *x, ptrdiff_t x_stride, real *y,
                    ptrdiff_t y_stride)
{
    uint32_t word[RANDOM_GROUP];
    const int flat = x_stride == cols && y_stride == cols;
    for (ptrdiff_t i = first, end; i < last; i = end) {
        const ptrdiff_t group = i / RANDOM_GROUP, start = group * RANDOM_GROUP;
        end = last - start < RANDOM_GROUP ? last : start + RANDOM_GROUP;
        philox_group(key, (uint64_t)group * 16, step, word);
        if (flat && end - i == RANDOM_GROUP)
            dropout_words(word, threshold, scale, RANDOM_GROUP, x + i, y + i);
        else if (flat)
            dropout_words(word + (i - start), threshold, scale, end - i, x + i, y + i);
        else
            for (ptrdiff_t j = i, n; j < end; j += n) {
                const ptrdiff_t row = j / cols, col = j - row * cols;
                n = cols - col < end - j ? cols - col : end - j;
                dropout_words(word + (j - start), threshold, scale, n, x + row * x_stride + col,
                              y + row * y_stride + col);
            }
    }
}

/* Random numbers from counters: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011). A number is a pure
 * function of (key, step, element): nothing is stored, no order matters, every table gives the same
 * ones, and a backward pass makes the mask of its forward pass again. */

#define RANDOM_GROUP 64 /* elements of a group: 16 counters of four words */

/* The words of counters (block + j, step), j < 16: word w of counter j is out[16 w + j], so that
 * neighbours in `out` are neighbours in a vector. */
static void philox_group(uint64_t key, uint64_t block, uint64_t step, uint32_t *out)
{
    uint32_t c0[16], c1[16], c2[16], c3[16];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int j = 0; j < 16; j++) {
        c0[j] = (uint32_t)(block + (uint64_t)j);
        c1[j] = (uint32_t)((block + (uint64_t)j) >> 32);
        c2[j] = (uint32_t)step;
        c3[j] = (uint32_t)(step >> 32);
    }
    UNROLL(10)
    for (int round = 0; round < 10; round++) {
        for (int j = 0; j < 16; j++) {
            const uint64_t a = (uint64_t)0xD2511F53u * c0[j], b = (uint64_t)0xCD9E8D57u * c2[j];
            c0[j] = (uint32_t)(b >> 32) ^ c1[j] ^ k0;
            c2[j] = (uint32_t)(a >> 32) ^ c3[j] ^ k1;
            c1[j] = (uint32_t)b;
            c3[j] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int j = 0; j < 16; j++) {
        out[j] = c0[j];
        out[16 + j] = c1[j];
        out[32 + j] = c2[j];
        out[48 + j] = c3[j];
    }
}

/* Elements [64 first, 64 last) of `count`: y = x · scale where the element's word is at least
 * threshold, else 0. Forward and backward are the same map; y may be x. */
static void dropout(uint64_t key, uint64_t step, uint32_t threshold, real scale, ptrdiff_t first,
                    ptrdiff_t last, ptrdiff_t count, const real *x, real *y)
{
    uint32_t word[RANDOM_GROUP];
    for (ptrdiff_t group = first; group < last; group++) {
        const ptrdiff_t start = group * RANDOM_GROUP, left = count - start;
        philox_group(key, (uint64_t)group * 16, step, word);
        if (left >= RANDOM_GROUP)
            for (int j = 0; j < RANDOM_GROUP; j++)
                y[start + j] = word[j] >= threshold ? x[start + j] * scale : 0;
        else
            for (ptrdiff_t j = 0; j < left; j++)
                y[start + j] = word[j] >= threshold ? x[start + j] * scale : 0;
    }
}

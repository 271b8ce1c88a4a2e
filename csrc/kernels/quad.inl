/* Four numbers, for the 4 × 4 transposes of packing. */
typedef real quad __attribute__((vector_size(4 * sizeof(real))));
typedef real quad_any
    __attribute__((vector_size(4 * sizeof(real)), aligned(sizeof(real)), may_alias));
#ifdef __clang__
#define QUAD(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#if REAL_IS_DOUBLE
typedef int64_t quad_index __attribute__((vector_size(4 * sizeof(int64_t))));
#else
typedef int32_t quad_index __attribute__((vector_size(4 * sizeof(int32_t))));
#endif
#define QUAD(a, b, i, j, k, l) __builtin_shuffle(a, b, (quad_index){i, j, k, l})
#endif

/* to[i * to_stride + j] = from[j * from_stride + i] for i, j < 4 */
INLINE void transpose_quad(const real *from, ptrdiff_t from_stride, real *to, ptrdiff_t to_stride)
{
    const quad a = *(const quad_any *)from, b = *(const quad_any *)(from + from_stride),
               c = *(const quad_any *)(from + 2 * from_stride),
               d = *(const quad_any *)(from + 3 * from_stride);
    const quad ab_low = QUAD(a, b, 0, 4, 1, 5), ab_high = QUAD(a, b, 2, 6, 3, 7),
               cd_low = QUAD(c, d, 0, 4, 1, 5), cd_high = QUAD(c, d, 2, 6, 3, 7);
    *(quad_any *)to = QUAD(ab_low, cd_low, 0, 1, 4, 5);
    *(quad_any *)(to + to_stride) = QUAD(ab_low, cd_low, 2, 3, 6, 7);
    *(quad_any *)(to + 2 * to_stride) = QUAD(ab_high, cd_high, 0, 1, 4, 5);
    *(quad_any *)(to + 3 * to_stride) = QUAD(ab_high, cd_high, 2, 3, 6, 7);
}

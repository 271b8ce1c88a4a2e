/* Copies and sums of rows (pixels) × cols (channels), and the cast that brings samples in. */
#include <string.h>

/* y = x; the two do not overlap. */
static void copy(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride, real *y,
                 ptrdiff_t y_stride)
{
    for (ptrdiff_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
        ptrdiff_t i = 0;
        for (; i + VLEN <= cols; i += VLEN)
            v_store(y + i, v_load(x + i));
        if (i < cols)
            v_store_tail(y + i, v_load_tail(x + i, cols - i), cols - i);
    }
}

/* y = value */
static void fill(ptrdiff_t rows, ptrdiff_t cols, real value, real *y, ptrdiff_t y_stride)
{
    const vec v = v_set1(value);
    for (ptrdiff_t r = 0; r < rows; r++, y += y_stride) {
        ptrdiff_t i = 0;
        for (; i + VLEN <= cols; i += VLEN)
            v_store(y + i, v);
        if (i < cols)
            v_store_tail(y + i, v, cols - i);
    }
}

INLINE void add_form(const int kind, ptrdiff_t rows, ptrdiff_t cols, const real *a,
                     ptrdiff_t a_stride, const real *b, ptrdiff_t b_stride, const fc_activation *f,
                     real *y, ptrdiff_t y_stride)
{
    const vec alpha = v_set1((real)f->alpha), cap = v_set1((real)f->beta);
    const vec threshold = v_set1((real)f->gamma);
    for (ptrdiff_t r = 0; r < rows; r++, a += a_stride, b += b_stride, y += y_stride)
        for (ptrdiff_t i = 0; i < cols; i += VLEN) {
            const ptrdiff_t n = cols - i < VLEN ? cols - i : VLEN;
            const vec sum = v_add(load_part(a + i, n), load_part(b + i, n));
            store_part(y + i, activation_value(kind, sum, alpha, cap, threshold), n);
        }
}

/* y = f(a + b); y may be either. */
static void add(ptrdiff_t rows, ptrdiff_t cols, const real *a, ptrdiff_t a_stride, const real *b,
                ptrdiff_t b_stride, const fc_activation *f, real *y, ptrdiff_t y_stride)
{
#define WITH(KIND) add_form(KIND, rows, cols, a, a_stride, b, b_stride, f, y, y_stride);
    FOR_KINDS(WITH)
#undef WITH
}

/* y = scale · x + offset; y may be x. */
static void affine(ptrdiff_t rows, ptrdiff_t cols, real scale, real offset, const real *x,
                   ptrdiff_t x_stride, real *y, ptrdiff_t y_stride)
{
    const vec s = v_set1(scale), o = v_set1(offset);
    for (ptrdiff_t r = 0; r < rows; r++, x += x_stride, y += y_stride) {
        ptrdiff_t i = 0;
        for (; i + VLEN <= cols; i += VLEN)
            v_store(y + i, v_add(v_mul(v_load(x + i), s), o));
        if (i < cols)
            v_store_tail(y + i, v_add(v_mul(v_load_tail(x + i, cols - i), s), o), cols - i);
    }
}

/* The element types that samples and labels come in. */
enum {
    KIND_F32,
    KIND_F64,
    KIND_I8,
    KIND_I16,
    KIND_I32,
    KIND_I64,
    KIND_U8,
    KIND_U16,
    KIND_U32,
    KIND_U64,
};

/* y[i] = (real)source[i]; source may lie at any address. */
static void cast(int kind, ptrdiff_t count, const void *source, real *y)
{
#define FORM(KIND, TYPE)                                                                           \
    case KIND:                                                                                     \
        for (ptrdiff_t i = 0; i < count; i++)                                                      \
            y[i] = (real)((const TYPE *)source)[i];                                                \
        break;
    switch (kind) {
        FORM(KIND_F32, float)
        FORM(KIND_F64, double)
        FORM(KIND_I8, int8_t)
        FORM(KIND_I16, int16_t)
        FORM(KIND_I32, int32_t)
        FORM(KIND_I64, int64_t)
        FORM(KIND_U8, uint8_t)
        FORM(KIND_U16, uint16_t)
        FORM(KIND_U32, uint32_t)
        FORM(KIND_U64, uint64_t)
    }
#undef FORM
}

/* y[i] = (int32_t)source[i]; a value that is no int32 becomes INT32_MIN, which is no class. */
static void cast_labels(int kind, ptrdiff_t count, const void *source, int32_t *y)
{
#define FORM(KIND, TYPE, FITS)                                                                     \
    case KIND:                                                                                     \
        for (ptrdiff_t i = 0; i < count; i++) {                                                    \
            const TYPE a = ((const TYPE *)source)[i];                                              \
            y[i] = (FITS) ? (int32_t)a : INT32_MIN;                                                \
        }                                                                                          \
        break;
    switch (kind) {
        FORM(KIND_F32, float, a >= -2147483648.0f && a < 2147483648.0f && a == (float)(int32_t)a)
        FORM(KIND_F64, double, a >= -2147483648.0 && a < 2147483648.0 && a == (double)(int32_t)a)
        FORM(KIND_I8, int8_t, 1)
        FORM(KIND_I16, int16_t, 1)
        FORM(KIND_I32, int32_t, 1)
        FORM(KIND_I64, int64_t, a >= INT32_MIN && a <= INT32_MAX)
        FORM(KIND_U8, uint8_t, 1)
        FORM(KIND_U16, uint16_t, 1)
        FORM(KIND_U32, uint32_t, a <= INT32_MAX)
        FORM(KIND_U64, uint64_t, a <= INT32_MAX)
    }
#undef FORM
}

/* The list of kernels. Read by kernels.h with real and fc_kernels defined; the contract of each
 * kernel stands above its body in kernels/<family>.inl. */
typedef struct {
    const char *isa;
    /* register tiles: rows and columns of the gather and of the outer-product micro-kernel */
    ptrdiff_t gather_mr, gather_nr, outer_mr, outer_nr;

    /* kernels/gemm.inl */
    void (*pack_panel)(const real *w, ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows,
                       ptrdiff_t cols, real *panel);
    void (*gather_tile)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t taps, ptrdiff_t ic,
                        const real *const *x, const real *const *w, ptrdiff_t w_stride,
                        const real *bias, int accumulate, int activation, real slope,
                        real *const *y);
    void (*outer_tile)(ptrdiff_t m, ptrdiff_t n, const fc_walk *walk, const real *x, const real *dy,
                       real *dw, ptrdiff_t dw_stride, int accumulate);
} fc_kernels;

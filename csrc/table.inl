/* The list of kernels. Read by kernels.h with real and fc_kernels defined; the contract of each
 * kernel stands above its body in kernels/<family>.inl. */
typedef struct {
    const char *isa;
    /* register tiles: rows and columns of the micro-kernels */
    ptrdiff_t gather_mr, gather_nr, outer_mr, outer_nr, dot_mr, dot_nr, sweep_mr, sweep_k;

    /* kernels/gemm.inl */
    void (*pack_panel)(const real *w, ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows,
                       ptrdiff_t cols, real *panel);
    void (*gather_tile)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t taps, ptrdiff_t ic,
                        const real *const *x, const real *const *next, const real *const *w,
                        ptrdiff_t w_stride, const fc_epilogue *e, int accumulate, int final,
                        const real *const *residual, int stream, real *const *y);
    void (*fence)(void);
    void (*pack_pixels)(const ptrdiff_t *count, const ptrdiff_t *step, ptrdiff_t cols,
                        ptrdiff_t width, ptrdiff_t pitch, const real *x, real *to,
                        ptrdiff_t stride);
    void (*fetch_pixels)(const ptrdiff_t *count, const ptrdiff_t *step, ptrdiff_t first,
                         ptrdiff_t last, ptrdiff_t cols, const real *x);
    void (*fetch_stretch)(const real *from, const real *to);
    void (*outer_tile)(ptrdiff_t m, ptrdiff_t n, const fc_walk *walk, const real *x, const real *dy,
                       const real *const *next, ptrdiff_t lines, real *dw, ptrdiff_t dw_stride,
                       int accumulate, int stream);
    void (*sweep_tile)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const real *x, ptrdiff_t x_stride,
                       const real *w, ptrdiff_t w_stride, real *y, ptrdiff_t y_stride);
    void (*dot_tile)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t depth, const real *x, ptrdiff_t x_stride,
                     const real *w, ptrdiff_t w_stride, real *y, ptrdiff_t y_stride);

    /* kernels/winograd.inl */
    void (*winograd_input)(const fc_tile *tile, ptrdiff_t channels, int pair, const real *x,
                           real *v, ptrdiff_t plane, ptrdiff_t block);
    void (*winograd_gradient)(int window, const fc_tile *tile, ptrdiff_t channels, int pair,
                              const real *dy, real *v, ptrdiff_t plane, ptrdiff_t block);
    void (*winograd_products)(ptrdiff_t planes, ptrdiff_t tiles, ptrdiff_t depth, ptrdiff_t cols,
                              const real *v, ptrdiff_t v_plane, const real *u, ptrdiff_t u_plane,
                              real *m, ptrdiff_t m_plane);
    void (*winograd_sums)(ptrdiff_t planes, ptrdiff_t tiles, ptrdiff_t depth, ptrdiff_t width,
                          const real *v, ptrdiff_t v_plane, ptrdiff_t v_block, const real *z,
                          ptrdiff_t z_plane, ptrdiff_t z_block, real *sums, ptrdiff_t plane,
                          ptrdiff_t stride, int accumulate);
    void (*winograd_output)(int window, const fc_tile *tile, ptrdiff_t channels, const real *m,
                            ptrdiff_t plane, const fc_epilogue *e, const real *residual, real *y,
                            ptrdiff_t count, real *moments);
    void (*winograd_window)(int window, ptrdiff_t count, ptrdiff_t cols, int first, int last,
                            const real *w, ptrdiff_t tap_step, ptrdiff_t row_step, real *u,
                            ptrdiff_t plane);
    void (*winograd_window_half)(int window, ptrdiff_t count, const real *u, ptrdiff_t plane,
                                 real *h, ptrdiff_t h_plane);
    void (*winograd_window_gradient)(int window, ptrdiff_t count, ptrdiff_t pieces, const real *h,
                                     ptrdiff_t plane, int accumulate, real *dw, ptrdiff_t tap_step);

    /* kernels/activation.inl */
    void (*activation_forward)(int kind, ptrdiff_t rows, ptrdiff_t cols, real alpha, real beta,
                               real gamma, const real *x, ptrdiff_t x_stride, real *y,
                               ptrdiff_t y_stride);
    void (*activation_backward)(int kind, ptrdiff_t rows, ptrdiff_t cols, real alpha, real beta,
                                const real *y, ptrdiff_t y_stride, const real *dy,
                                ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride);

    void (*activation_sums)(ptrdiff_t rows, ptrdiff_t cols, const fc_activation *f, const real *y,
                            ptrdiff_t y_stride, const real *dy, ptrdiff_t dy_stride, real *dz,
                            ptrdiff_t dz_stride, real *sum);
    void (*sums_merge)(ptrdiff_t pieces, ptrdiff_t channels, ptrdiff_t first, ptrdiff_t last,
                       int accumulate, real *scratch, real *out);

    /* kernels/softmax.inl */
    void (*softmax_forward)(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride,
                            real *y, ptrdiff_t y_stride);
    void (*softmax_backward)(ptrdiff_t rows, ptrdiff_t cols, const real *y, ptrdiff_t y_stride,
                             const real *dy, ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride);

    /* kernels/elementwise.inl */
    void (*copy)(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride, real *y,
                 ptrdiff_t y_stride);
    void (*fill)(ptrdiff_t rows, ptrdiff_t cols, real value, real *y, ptrdiff_t y_stride);
    void (*add)(ptrdiff_t rows, ptrdiff_t cols, const real *a, ptrdiff_t a_stride, const real *b,
                ptrdiff_t b_stride, const fc_activation *f, real *y, ptrdiff_t y_stride);
    void (*affine)(ptrdiff_t rows, ptrdiff_t cols, real scale, real offset, const real *x,
                   ptrdiff_t x_stride, real *y, ptrdiff_t y_stride);
    void (*cast)(int kind, ptrdiff_t count, const void *source, real *y);
    void (*cast_labels)(int kind, ptrdiff_t count, const void *source, int32_t *y);

    /* kernels/pool.inl */
    void (*max_pool_forward)(const fc_window *g, ptrdiff_t channels, const real *x,
                             ptrdiff_t x_stride, real *y, ptrdiff_t y_stride, void *index,
                             int bytes, ptrdiff_t first, ptrdiff_t last);
    void (*max_pool_backward)(const fc_window *g, ptrdiff_t channels, const real *dy,
                              ptrdiff_t dy_stride, const void *index, int bytes, real *dx,
                              ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last);
    void (*average_pool_forward)(const fc_window *g, ptrdiff_t channels, int count_padding,
                                 const real *x, ptrdiff_t x_stride, real *y, ptrdiff_t y_stride,
                                 ptrdiff_t first, ptrdiff_t last);
    void (*average_pool_backward)(const fc_window *g, ptrdiff_t channels, int count_padding,
                                  const real *dy, ptrdiff_t dy_stride, real *dx,
                                  ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last);
    void (*global_average_forward)(ptrdiff_t pixels, ptrdiff_t cols, const real *x,
                                   ptrdiff_t x_stride, real *y);
    void (*global_average_backward)(ptrdiff_t pixels, ptrdiff_t cols, const real *dy, real *dx,
                                    ptrdiff_t dx_stride);
    void (*global_max_forward)(ptrdiff_t pixels, ptrdiff_t cols, const real *x, ptrdiff_t x_stride,
                               real *y, int32_t *index);
    void (*global_max_backward)(ptrdiff_t pixels, ptrdiff_t cols, const real *dy,
                                const int32_t *index, real *dx, ptrdiff_t dx_stride);

    /* kernels/depthwise.inl */
    void (*depthwise_forward)(const fc_window *g, ptrdiff_t channels, const real *x,
                              ptrdiff_t x_stride, const real *w, const fc_epilogue *e, real *y,
                              ptrdiff_t y_stride, ptrdiff_t first, ptrdiff_t last);
    void (*depthwise_input_gradient)(const fc_window *g, ptrdiff_t channels, const real *dy,
                                     ptrdiff_t dy_stride, const real *w, real *dx,
                                     ptrdiff_t dx_stride, ptrdiff_t first, ptrdiff_t last);
    void (*depthwise_weight_gradient)(const fc_window *g, ptrdiff_t channels, const real *x,
                                      ptrdiff_t x_stride, const real *dy, ptrdiff_t dy_stride,
                                      real *dw, ptrdiff_t first, ptrdiff_t last);
    void (*sum_pieces)(ptrdiff_t pieces, ptrdiff_t size, ptrdiff_t first, ptrdiff_t last,
                       int accumulate, const real *copies, real *total);

    /* kernels/norm.inl */
    void (*moments)(ptrdiff_t rows, ptrdiff_t cols, const real *x, ptrdiff_t x_stride, real *mean,
                    real *m2);
    void (*moments_merge)(ptrdiff_t rows, ptrdiff_t piece, ptrdiff_t channels, ptrdiff_t first,
                          ptrdiff_t last, real *scratch, real *mean, real *variance);
    void (*moments_join)(ptrdiff_t cols, ptrdiff_t na, ptrdiff_t nb, real *a, const real *b,
                         ptrdiff_t stride);
    void (*norm_forward)(ptrdiff_t rows, ptrdiff_t cols, real eps, const real *x,
                         ptrdiff_t x_stride, const real *mean, const real *variance,
                         const real *gamma, const real *beta, const real *r, ptrdiff_t r_stride,
                         const fc_activation *f, real *y, ptrdiff_t y_stride);
    void (*norm_sums)(ptrdiff_t rows, ptrdiff_t cols, real eps, const real *x, ptrdiff_t x_stride,
                      const real *mean, const real *variance, const real *gamma, const real *beta,
                      const fc_activation *f, const real *y, ptrdiff_t y_stride, const real *dy,
                      ptrdiff_t dy_stride, real *dz, ptrdiff_t dz_stride, real *sum,
                      real *sum_xhat);
    void (*norm_sums_merge)(ptrdiff_t pieces, ptrdiff_t channels, ptrdiff_t first, ptrdiff_t last,
                            int accumulate, real *scratch, real *dgamma, real *dbeta);
    void (*norm_backward)(ptrdiff_t rows, ptrdiff_t cols, real eps, real weight, const real *x,
                          ptrdiff_t x_stride, const real *mean, const real *variance,
                          const real *gamma, const real *beta, const fc_activation *f,
                          const real *sum, const real *sum_xhat, const real *dy,
                          ptrdiff_t dy_stride, real *dx, ptrdiff_t dx_stride);
    void (*norm_scales)(ptrdiff_t channels, real eps, const real *variance, const real *gamma,
                        real *scale);
    void (*norm_update_running)(ptrdiff_t channels, real momentum, const real *batch,
                                real *running);

    /* kernels/random.inl */
    void (*philox_group)(uint64_t key, uint64_t block, uint64_t step, uint32_t *out);
    void (*dropout)(uint64_t key, uint64_t step, uint32_t threshold, real scale, ptrdiff_t first,
                    ptrdiff_t last, ptrdiff_t cols, const real *x, ptrdiff_t x_stride, real *y,
                    ptrdiff_t y_stride);

    /* kernels/sample.inl */
    void (*affine_sample)(int edge, int linear, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels,
                          const double *map, real fill, const real *x, real *y, ptrdiff_t first,
                          ptrdiff_t last);
    void (*affine_spread)(int edge, int linear, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t channels,
                          const double *map, const real *dy, real *dx);

    /* kernels/loss.inl */
    double (*cross_entropy)(int mode, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t cols,
                            const real *p, ptrdiff_t p_stride, const int32_t *labels,
                            int32_t ignore, const real *targets, ptrdiff_t targets_stride,
                            double smooth, const real *weights, ptrdiff_t rows_per_weight,
                            double scale, real *dx, ptrdiff_t dx_stride);
    double (*binary_entropy)(int mode, ptrdiff_t count, const real *p, const real *t, double smooth,
                             double slope, real *dx);
    double (*squared_error)(ptrdiff_t count, const real *p, const real *t, real slope, real *dx);
    ptrdiff_t (*count_hits)(ptrdiff_t rows, ptrdiff_t cols, const real *p, ptrdiff_t p_stride,
                            const int32_t *labels, const real *targets, ptrdiff_t targets_stride);
    ptrdiff_t (*count_binary_hits)(ptrdiff_t count, real threshold, const real *p, const real *t);

    /* kernels/update.inl */
    void (*sgd)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                real *const *state);
    void (*adam)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                 real *const *state);
    void (*nadam)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                  real *const *state);
    void (*adamax)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                   real *const *state);
    void (*rmsprop)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                    real *const *state);
    void (*adagrad)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                    real *const *state);
    void (*adadelta)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                     real *const *state);
    void (*lion)(ptrdiff_t count, const fc_rule *r, const fc_pull *p, real *w, const real *g,
                 real *const *state);
    void (*average)(ptrdiff_t count, double momentum, const real *w, real *mean);
    double (*pull_square)(ptrdiff_t count, const fc_pull *p, const real *w, const real *g);
    void (*weight_sums)(ptrdiff_t count, const real *w, double *sums);

    /* kernels/peak.inl */
    ptrdiff_t peak_flops; /* of one round of multiply_add */
    void (*multiply_add)(ptrdiff_t rounds, real scale, real offset, real *out);
    void (*triad)(ptrdiff_t count, real scale, const real *a, const real *b, real *y);
} fc_kernels;

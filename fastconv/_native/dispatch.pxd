"""The kernel tables and the thread count, for the other extensions."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, int32_t, uint8_t

ctypedef fused real:
    float
    double

cdef extern from "dispatch.h" nogil:
    ctypedef struct fc_window:
        Py_ssize_t[3] in_ "in"
        Py_ssize_t[3] out
        Py_ssize_t[3] window
        Py_ssize_t[3] stride
        Py_ssize_t[3] dilation
        Py_ssize_t[3] pad

    ctypedef struct fc_walk:
        Py_ssize_t[3] count
        Py_ssize_t[3] x_step
        Py_ssize_t[3] dy_step

    ctypedef struct fc_tile:
        Py_ssize_t row_step, pixel_step
        Py_ssize_t[2] first
        Py_ssize_t[2] last

    ctypedef struct fc_activation:
        int kind
        double alpha, beta, gamma

    ctypedef struct fc_epilogue:
        const void *bias
        const void *mean
        const void *scale
        const void *shift
        const void *residual
        void *moments
        Py_ssize_t residual_stride, moments_stride
        fc_activation f

    ctypedef struct fc_rule:
        double rate, first, second, third, fourth, eps
        int form

    ctypedef struct fc_pull:
        double l1, l2, scale, limit, decay

    ctypedef uint32_t fc_pair

    ctypedef struct fc_kernels_bf16:
        Py_ssize_t mr, nr, block
        void (*pack_rows)(Py_ssize_t m, Py_ssize_t depth, const float *const *x,
                          fc_pair *to) noexcept nogil
        void (*pack_pixels)(Py_ssize_t count, const float *const *x, Py_ssize_t first,
                            Py_ssize_t cols, Py_ssize_t pitch, fc_pair *to) noexcept nogil
        void (*pack_panel)(const float *w, Py_ssize_t row_stride, Py_ssize_t col_stride,
                           Py_ssize_t rows, Py_ssize_t cols, fc_pair *panel) noexcept nogil
        void (*gather_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t pairs,
                            const fc_pair *x, const fc_pair *const *w, const float *bias,
                            bint accumulate, bint stream, float *const *y) noexcept nogil
        void (*outer_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t pairs, const fc_pair *x,
                           const fc_pair *dy, float *dw, Py_ssize_t dw_stride,
                           bint accumulate) noexcept nogil

    ctypedef struct fc_kernels_f32:
        const char *isa
        Py_ssize_t gather_mr, gather_nr, outer_mr, outer_nr, dot_mr, dot_nr, sweep_mr, sweep_k
        void (*pack_panel)(const float *w, Py_ssize_t row_stride, Py_ssize_t col_stride,
                           Py_ssize_t rows, Py_ssize_t cols, float *panel) noexcept nogil
        void (*gather_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t ic,
                            const float *const *x, const float *const *next,
                            const float *const *w, Py_ssize_t w_stride, const fc_epilogue *e,
                            bint accumulate, bint final, const float *const *residual,
                            bint stream, float *const *y) noexcept nogil
        void (*fence)() noexcept nogil
        void (*pack_pixels)(const Py_ssize_t *count, const Py_ssize_t *step, Py_ssize_t cols,
                            Py_ssize_t width, Py_ssize_t pitch, const float *x, float *to,
                            Py_ssize_t stride) noexcept nogil
        void (*fetch_pixels)(const Py_ssize_t *count, const Py_ssize_t *step, Py_ssize_t first,
                             Py_ssize_t last, Py_ssize_t cols, const float *x) noexcept nogil
        void (*fetch_stretch)(const float *start, const float *end) noexcept nogil
        void (*outer_tile)(Py_ssize_t m, Py_ssize_t n, const fc_walk *walk, const float *x,
                           const float *dy, const float *const *next, Py_ssize_t lines,
                           float *dw, Py_ssize_t dw_stride, bint accumulate,
                           bint stream) noexcept nogil
        void (*sweep_tile)(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, const float *x,
                           Py_ssize_t x_stride, const float *w, Py_ssize_t w_stride, float *y,
                           Py_ssize_t y_stride) noexcept nogil
        void (*dot_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t depth, const float *x,
                         Py_ssize_t x_stride, const float *w, Py_ssize_t w_stride, float *y,
                         Py_ssize_t y_stride) noexcept nogil
        void (*winograd_input)(const fc_tile *tile, Py_ssize_t channels, int pair, const float *x,
                               float *v, Py_ssize_t plane, Py_ssize_t block) noexcept nogil
        void (*winograd_gradient)(int window, const fc_tile *tile, Py_ssize_t channels, int pair,
                                  const float *dy, float *v, Py_ssize_t plane,
                                  Py_ssize_t block) noexcept nogil
        void (*winograd_products)(Py_ssize_t planes, Py_ssize_t tiles, Py_ssize_t depth,
                                  Py_ssize_t cols, const float *v, Py_ssize_t v_plane,
                                  const float *u, Py_ssize_t u_plane, float *m,
                                  Py_ssize_t m_plane) noexcept nogil
        void (*winograd_sums)(Py_ssize_t planes, Py_ssize_t tiles, Py_ssize_t depth,
                              Py_ssize_t width, const float *v, Py_ssize_t v_plane,
                              Py_ssize_t v_block, const float *z, Py_ssize_t z_plane,
                              Py_ssize_t z_block, float *sums, Py_ssize_t plane,
                              Py_ssize_t stride, bint accumulate) noexcept nogil
        void (*winograd_output)(int window, const fc_tile *tile, Py_ssize_t channels,
                                const float *m, Py_ssize_t plane, const fc_epilogue *e,
                                const float *residual, float *y, Py_ssize_t count,
                                float *moments) noexcept nogil
        void (*winograd_window)(int window, Py_ssize_t count, Py_ssize_t cols, int first, int last,
                                const float *w, Py_ssize_t tap_step, Py_ssize_t row_step,
                                float *u, Py_ssize_t plane) noexcept nogil
        void (*winograd_window_half)(int window, Py_ssize_t count, const float *u,
                                     Py_ssize_t plane, float *h,
                                     Py_ssize_t h_plane) noexcept nogil
        void (*winograd_window_gradient)(int window, Py_ssize_t count, Py_ssize_t pieces,
                                         const float *h, Py_ssize_t plane, bint accumulate,
                                         float *dw, Py_ssize_t tap_step) noexcept nogil
        void (*activation_forward)(int kind, Py_ssize_t rows, Py_ssize_t cols, float alpha,
                                   float beta, float gamma, const float *x, Py_ssize_t x_stride,
                                   float *y, Py_ssize_t y_stride) noexcept nogil
        void (*activation_backward)(int kind, Py_ssize_t rows, Py_ssize_t cols, float alpha,
                                    float beta, const float *y, Py_ssize_t y_stride,
                                    const float *dy, Py_ssize_t dy_stride, float *dx,
                                    Py_ssize_t dx_stride) noexcept nogil
        void (*activation_sums)(Py_ssize_t rows, Py_ssize_t cols, const fc_activation *f,
                                const float *y, Py_ssize_t y_stride, const float *dy,
                                Py_ssize_t dy_stride, float *dz, Py_ssize_t dz_stride,
                                float *sum) noexcept nogil
        void (*sums_merge)(Py_ssize_t pieces, Py_ssize_t channels, Py_ssize_t first,
                           Py_ssize_t last, int accumulate, float *scratch,
                           float *out) noexcept nogil
        void (*softmax_forward)(Py_ssize_t rows, Py_ssize_t cols, const float *x,
                                Py_ssize_t x_stride, float *y, Py_ssize_t y_stride) noexcept nogil
        void (*softmax_backward)(Py_ssize_t rows, Py_ssize_t cols, const float *y,
                                 Py_ssize_t y_stride, const float *dy, Py_ssize_t dy_stride,
                                 float *dx, Py_ssize_t dx_stride) noexcept nogil
        void (*copy)(Py_ssize_t rows, Py_ssize_t cols, const float *x, Py_ssize_t x_stride,
                     float *y, Py_ssize_t y_stride) noexcept nogil
        void (*fill)(Py_ssize_t rows, Py_ssize_t cols, float value, float *y,
                     Py_ssize_t y_stride) noexcept nogil
        void (*add)(Py_ssize_t rows, Py_ssize_t cols, const float *a, Py_ssize_t a_stride,
                    const float *b, Py_ssize_t b_stride, const fc_activation *f, float *y,
                    Py_ssize_t y_stride) noexcept nogil
        void (*affine)(Py_ssize_t rows, Py_ssize_t cols, float scale, float offset, const float *x,
                       Py_ssize_t x_stride, float *y, Py_ssize_t y_stride) noexcept nogil
        void (*cast)(int kind, Py_ssize_t count, const void *source, float *y) noexcept nogil
        void (*cast_labels)(int kind, Py_ssize_t count, const void *source,
                            int32_t *y) noexcept nogil
        void (*max_pool_forward)(const fc_window *g, Py_ssize_t channels, const float *x,
                                 Py_ssize_t x_stride, float *y, Py_ssize_t y_stride,
                                 void *index, int bytes, Py_ssize_t first,
                                 Py_ssize_t last) noexcept nogil
        void (*max_pool_backward)(const fc_window *g, Py_ssize_t channels, const float *dy,
                                  Py_ssize_t dy_stride, const void *index, int bytes, float *dx,
                                  Py_ssize_t dx_stride, Py_ssize_t first,
                                  Py_ssize_t last) noexcept nogil
        void (*average_pool_forward)(const fc_window *g, Py_ssize_t channels, int count_padding,
                                     const float *x, Py_ssize_t x_stride, float *y,
                                     Py_ssize_t y_stride, Py_ssize_t first,
                                     Py_ssize_t last) noexcept nogil
        void (*average_pool_backward)(const fc_window *g, Py_ssize_t channels, int count_padding,
                                      const float *dy, Py_ssize_t dy_stride, float *dx,
                                      Py_ssize_t dx_stride, Py_ssize_t first,
                                      Py_ssize_t last) noexcept nogil
        void (*global_average_forward)(Py_ssize_t pixels, Py_ssize_t cols, const float *x,
                                       Py_ssize_t x_stride, float *y) noexcept nogil
        void (*global_average_backward)(Py_ssize_t pixels, Py_ssize_t cols, const float *dy,
                                        float *dx, Py_ssize_t dx_stride) noexcept nogil
        void (*global_max_forward)(Py_ssize_t pixels, Py_ssize_t cols, const float *x,
                                   Py_ssize_t x_stride, float *y, int32_t *index) noexcept nogil
        void (*global_max_backward)(Py_ssize_t pixels, Py_ssize_t cols, const float *dy,
                                    const int32_t *index, float *dx,
                                    Py_ssize_t dx_stride) noexcept nogil
        void (*depthwise_forward)(const fc_window *g, Py_ssize_t channels, const float *x,
                                  Py_ssize_t x_stride, const float *w, const fc_epilogue *e,
                                  float *y, Py_ssize_t y_stride, Py_ssize_t first,
                                  Py_ssize_t last) noexcept nogil
        void (*depthwise_input_gradient)(const fc_window *g, Py_ssize_t channels,
                                         const float *dy, Py_ssize_t dy_stride, const float *w,
                                         float *dx, Py_ssize_t dx_stride, Py_ssize_t first,
                                         Py_ssize_t last) noexcept nogil
        void (*depthwise_weight_gradient)(const fc_window *g, Py_ssize_t channels,
                                          const float *x, Py_ssize_t x_stride, const float *dy,
                                          Py_ssize_t dy_stride, float *dw, Py_ssize_t first,
                                          Py_ssize_t last) noexcept nogil
        void (*sum_pieces)(Py_ssize_t pieces, Py_ssize_t size, Py_ssize_t first,
                           Py_ssize_t last, bint accumulate, const float *copies,
                           float *total) noexcept nogil
        void (*moments)(Py_ssize_t rows, Py_ssize_t cols, const float *x, Py_ssize_t x_stride,
                        float *mean, float *m2) noexcept nogil
        void (*moments_merge)(Py_ssize_t rows, Py_ssize_t piece, Py_ssize_t channels,
                              Py_ssize_t first, Py_ssize_t last, float *scratch, float *mean,
                              float *variance) noexcept nogil
        void (*moments_join)(Py_ssize_t cols, Py_ssize_t na, Py_ssize_t nb, float *a,
                             const float *b, Py_ssize_t stride) noexcept nogil
        void (*norm_forward)(Py_ssize_t rows, Py_ssize_t cols, float eps, const float *x,
                             Py_ssize_t x_stride, const float *mean, const float *variance,
                             const float *gamma, const float *beta, const float *r,
                             Py_ssize_t r_stride, const fc_activation *f, float *y,
                             Py_ssize_t y_stride) noexcept nogil
        void (*norm_sums)(Py_ssize_t rows, Py_ssize_t cols, float eps, const float *x,
                          Py_ssize_t x_stride, const float *mean, const float *variance,
                          const float *gamma, const float *beta, const fc_activation *f,
                          const float *y, Py_ssize_t y_stride, const float *dy,
                          Py_ssize_t dy_stride, float *dz, Py_ssize_t dz_stride, float *sum,
                          float *sum_xhat) noexcept nogil
        void (*norm_sums_merge)(Py_ssize_t pieces, Py_ssize_t channels, Py_ssize_t first,
                                Py_ssize_t last, int accumulate, float *scratch, float *dgamma,
                                float *dbeta) noexcept nogil
        void (*norm_backward)(Py_ssize_t rows, Py_ssize_t cols, float eps, float weight,
                              const float *x, Py_ssize_t x_stride, const float *mean,
                              const float *variance, const float *gamma, const float *beta,
                              const fc_activation *f, const float *sum, const float *sum_xhat,
                              const float *dy, Py_ssize_t dy_stride, float *dx,
                              Py_ssize_t dx_stride) noexcept nogil
        void (*norm_scales)(Py_ssize_t channels, float eps, const float *variance,
                            const float *gamma, float *scale) noexcept nogil
        void (*norm_update_running)(Py_ssize_t channels, float momentum, const float *batch,
                                    float *running) noexcept nogil
        void (*philox_group)(uint64_t key, uint64_t block, uint64_t step,
                             uint32_t *out) noexcept nogil
        void (*dropout)(uint64_t key, uint64_t step, uint32_t threshold, float scale,
                        Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols, const float *x,
                        Py_ssize_t x_stride, float *y, Py_ssize_t y_stride) noexcept nogil
        void (*affine_sample)(int edge, int linear, Py_ssize_t rows, Py_ssize_t cols,
                              Py_ssize_t channels, const double *map, float fill, const float *x,
                              float *y, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*affine_spread)(int edge, int linear, Py_ssize_t rows, Py_ssize_t cols,
                              Py_ssize_t channels, const double *map, const float *dy,
                              float *dx) noexcept nogil
        double (*cross_entropy)(int mode, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t cols,
                                const float *p, Py_ssize_t p_stride, const int32_t *labels,
                                int32_t ignore, const float *targets, Py_ssize_t targets_stride,
                                double smooth, const float *weights, Py_ssize_t rows_per_weight,
                                double scale, float *dx, Py_ssize_t dx_stride) noexcept nogil
        double (*binary_entropy)(int mode, Py_ssize_t count, const float *p, const float *t,
                                 double smooth, double slope, float *dx) noexcept nogil
        double (*squared_error)(Py_ssize_t count, const float *p, const float *t, float slope,
                                float *dx) noexcept nogil
        Py_ssize_t (*count_hits)(Py_ssize_t rows, Py_ssize_t cols, const float *p,
                                 Py_ssize_t p_stride, const int32_t *labels, const float *targets,
                                 Py_ssize_t targets_stride) noexcept nogil
        Py_ssize_t (*count_binary_hits)(Py_ssize_t count, float threshold, const float *p,
                                        const float *t) noexcept nogil
        void (*sgd)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                    const float *g, float *const *state) noexcept nogil
        void (*adam)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                     const float *g, float *const *state) noexcept nogil
        void (*nadam)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                      const float *g, float *const *state) noexcept nogil
        void (*adamax)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                       const float *g, float *const *state) noexcept nogil
        void (*rmsprop)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                        const float *g, float *const *state) noexcept nogil
        void (*adagrad)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                        const float *g, float *const *state) noexcept nogil
        void (*adadelta)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                         const float *g, float *const *state) noexcept nogil
        void (*lion)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, float *w,
                     const float *g, float *const *state) noexcept nogil
        void (*average)(Py_ssize_t count, double momentum, const float *w,
                        float *mean) noexcept nogil
        double (*pull_square)(Py_ssize_t count, const fc_pull *p, const float *w,
                              const float *g) noexcept nogil
        void (*weight_sums)(Py_ssize_t count, const float *w, double *sums) noexcept nogil
        Py_ssize_t peak_flops
        void (*multiply_add)(Py_ssize_t rounds, float scale, float offset,
                             float *out) noexcept nogil
        void (*triad)(Py_ssize_t count, float scale, const float *a, const float *b,
                      float *y) noexcept nogil

    ctypedef struct fc_kernels_f64:
        const char *isa
        Py_ssize_t gather_mr, gather_nr, outer_mr, outer_nr, dot_mr, dot_nr, sweep_mr, sweep_k
        void (*pack_panel)(const double *w, Py_ssize_t row_stride, Py_ssize_t col_stride,
                           Py_ssize_t rows, Py_ssize_t cols, double *panel) noexcept nogil
        void (*gather_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t taps, Py_ssize_t ic,
                            const double *const *x, const double *const *next,
                            const double *const *w, Py_ssize_t w_stride, const fc_epilogue *e,
                            bint accumulate, bint final, const double *const *residual,
                            bint stream, double *const *y) noexcept nogil
        void (*fence)() noexcept nogil
        void (*pack_pixels)(const Py_ssize_t *count, const Py_ssize_t *step, Py_ssize_t cols,
                            Py_ssize_t width, Py_ssize_t pitch, const double *x, double *to,
                            Py_ssize_t stride) noexcept nogil
        void (*fetch_pixels)(const Py_ssize_t *count, const Py_ssize_t *step, Py_ssize_t first,
                             Py_ssize_t last, Py_ssize_t cols, const double *x) noexcept nogil
        void (*fetch_stretch)(const double *start, const double *end) noexcept nogil
        void (*outer_tile)(Py_ssize_t m, Py_ssize_t n, const fc_walk *walk, const double *x,
                           const double *dy, const double *const *next, Py_ssize_t lines,
                           double *dw, Py_ssize_t dw_stride, bint accumulate,
                           bint stream) noexcept nogil
        void (*sweep_tile)(Py_ssize_t m, Py_ssize_t k, Py_ssize_t n, const double *x,
                           Py_ssize_t x_stride, const double *w, Py_ssize_t w_stride, double *y,
                           Py_ssize_t y_stride) noexcept nogil
        void (*dot_tile)(Py_ssize_t m, Py_ssize_t n, Py_ssize_t depth, const double *x,
                         Py_ssize_t x_stride, const double *w, Py_ssize_t w_stride, double *y,
                         Py_ssize_t y_stride) noexcept nogil
        void (*winograd_input)(const fc_tile *tile, Py_ssize_t channels, int pair, const double *x,
                               double *v, Py_ssize_t plane, Py_ssize_t block) noexcept nogil
        void (*winograd_gradient)(int window, const fc_tile *tile, Py_ssize_t channels, int pair,
                                  const double *dy, double *v, Py_ssize_t plane,
                                  Py_ssize_t block) noexcept nogil
        void (*winograd_products)(Py_ssize_t planes, Py_ssize_t tiles, Py_ssize_t depth,
                                  Py_ssize_t cols, const double *v, Py_ssize_t v_plane,
                                  const double *u, Py_ssize_t u_plane, double *m,
                                  Py_ssize_t m_plane) noexcept nogil
        void (*winograd_sums)(Py_ssize_t planes, Py_ssize_t tiles, Py_ssize_t depth,
                              Py_ssize_t width, const double *v, Py_ssize_t v_plane,
                              Py_ssize_t v_block, const double *z, Py_ssize_t z_plane,
                              Py_ssize_t z_block, double *sums, Py_ssize_t plane,
                              Py_ssize_t stride, bint accumulate) noexcept nogil
        void (*winograd_output)(int window, const fc_tile *tile, Py_ssize_t channels,
                                const double *m, Py_ssize_t plane, const fc_epilogue *e,
                                const double *residual, double *y, Py_ssize_t count,
                                double *moments) noexcept nogil
        void (*winograd_window)(int window, Py_ssize_t count, Py_ssize_t cols, int first, int last,
                                const double *w, Py_ssize_t tap_step, Py_ssize_t row_step,
                                double *u, Py_ssize_t plane) noexcept nogil
        void (*winograd_window_half)(int window, Py_ssize_t count, const double *u,
                                     Py_ssize_t plane, double *h,
                                     Py_ssize_t h_plane) noexcept nogil
        void (*winograd_window_gradient)(int window, Py_ssize_t count, Py_ssize_t pieces,
                                         const double *h, Py_ssize_t plane, bint accumulate,
                                         double *dw, Py_ssize_t tap_step) noexcept nogil
        void (*activation_forward)(int kind, Py_ssize_t rows, Py_ssize_t cols, double alpha,
                                   double beta, double gamma, const double *x, Py_ssize_t x_stride,
                                   double *y, Py_ssize_t y_stride) noexcept nogil
        void (*activation_backward)(int kind, Py_ssize_t rows, Py_ssize_t cols, double alpha,
                                    double beta, const double *y, Py_ssize_t y_stride,
                                    const double *dy, Py_ssize_t dy_stride, double *dx,
                                    Py_ssize_t dx_stride) noexcept nogil
        void (*activation_sums)(Py_ssize_t rows, Py_ssize_t cols, const fc_activation *f,
                                const double *y, Py_ssize_t y_stride, const double *dy,
                                Py_ssize_t dy_stride, double *dz, Py_ssize_t dz_stride,
                                double *sum) noexcept nogil
        void (*sums_merge)(Py_ssize_t pieces, Py_ssize_t channels, Py_ssize_t first,
                           Py_ssize_t last, int accumulate, double *scratch,
                           double *out) noexcept nogil
        void (*softmax_forward)(Py_ssize_t rows, Py_ssize_t cols, const double *x,
                                Py_ssize_t x_stride, double *y, Py_ssize_t y_stride) noexcept nogil
        void (*softmax_backward)(Py_ssize_t rows, Py_ssize_t cols, const double *y,
                                 Py_ssize_t y_stride, const double *dy, Py_ssize_t dy_stride,
                                 double *dx, Py_ssize_t dx_stride) noexcept nogil
        void (*copy)(Py_ssize_t rows, Py_ssize_t cols, const double *x, Py_ssize_t x_stride,
                     double *y, Py_ssize_t y_stride) noexcept nogil
        void (*fill)(Py_ssize_t rows, Py_ssize_t cols, double value, double *y,
                     Py_ssize_t y_stride) noexcept nogil
        void (*add)(Py_ssize_t rows, Py_ssize_t cols, const double *a, Py_ssize_t a_stride,
                    const double *b, Py_ssize_t b_stride, const fc_activation *f, double *y,
                    Py_ssize_t y_stride) noexcept nogil
        void (*affine)(Py_ssize_t rows, Py_ssize_t cols, double scale, double offset,
                       const double *x, Py_ssize_t x_stride, double *y,
                       Py_ssize_t y_stride) noexcept nogil
        void (*cast)(int kind, Py_ssize_t count, const void *source, double *y) noexcept nogil
        void (*cast_labels)(int kind, Py_ssize_t count, const void *source,
                            int32_t *y) noexcept nogil
        void (*max_pool_forward)(const fc_window *g, Py_ssize_t channels, const double *x,
                                 Py_ssize_t x_stride, double *y, Py_ssize_t y_stride,
                                 void *index, int bytes, Py_ssize_t first,
                                 Py_ssize_t last) noexcept nogil
        void (*max_pool_backward)(const fc_window *g, Py_ssize_t channels, const double *dy,
                                  Py_ssize_t dy_stride, const void *index, int bytes, double *dx,
                                  Py_ssize_t dx_stride, Py_ssize_t first,
                                  Py_ssize_t last) noexcept nogil
        void (*average_pool_forward)(const fc_window *g, Py_ssize_t channels, int count_padding,
                                     const double *x, Py_ssize_t x_stride, double *y,
                                     Py_ssize_t y_stride, Py_ssize_t first,
                                     Py_ssize_t last) noexcept nogil
        void (*average_pool_backward)(const fc_window *g, Py_ssize_t channels, int count_padding,
                                      const double *dy, Py_ssize_t dy_stride, double *dx,
                                      Py_ssize_t dx_stride, Py_ssize_t first,
                                      Py_ssize_t last) noexcept nogil
        void (*global_average_forward)(Py_ssize_t pixels, Py_ssize_t cols, const double *x,
                                       Py_ssize_t x_stride, double *y) noexcept nogil
        void (*global_average_backward)(Py_ssize_t pixels, Py_ssize_t cols, const double *dy,
                                        double *dx, Py_ssize_t dx_stride) noexcept nogil
        void (*global_max_forward)(Py_ssize_t pixels, Py_ssize_t cols, const double *x,
                                   Py_ssize_t x_stride, double *y, int32_t *index) noexcept nogil
        void (*global_max_backward)(Py_ssize_t pixels, Py_ssize_t cols, const double *dy,
                                    const int32_t *index, double *dx,
                                    Py_ssize_t dx_stride) noexcept nogil
        void (*depthwise_forward)(const fc_window *g, Py_ssize_t channels, const double *x,
                                  Py_ssize_t x_stride, const double *w, const fc_epilogue *e,
                                  double *y, Py_ssize_t y_stride, Py_ssize_t first,
                                  Py_ssize_t last) noexcept nogil
        void (*depthwise_input_gradient)(const fc_window *g, Py_ssize_t channels,
                                         const double *dy, Py_ssize_t dy_stride, const double *w,
                                         double *dx, Py_ssize_t dx_stride, Py_ssize_t first,
                                         Py_ssize_t last) noexcept nogil
        void (*depthwise_weight_gradient)(const fc_window *g, Py_ssize_t channels,
                                          const double *x, Py_ssize_t x_stride, const double *dy,
                                          Py_ssize_t dy_stride, double *dw, Py_ssize_t first,
                                          Py_ssize_t last) noexcept nogil
        void (*sum_pieces)(Py_ssize_t pieces, Py_ssize_t size, Py_ssize_t first,
                           Py_ssize_t last, bint accumulate, const double *copies,
                           double *total) noexcept nogil
        void (*moments)(Py_ssize_t rows, Py_ssize_t cols, const double *x, Py_ssize_t x_stride,
                        double *mean, double *m2) noexcept nogil
        void (*moments_merge)(Py_ssize_t rows, Py_ssize_t piece, Py_ssize_t channels,
                              Py_ssize_t first, Py_ssize_t last, double *scratch, double *mean,
                              double *variance) noexcept nogil
        void (*moments_join)(Py_ssize_t cols, Py_ssize_t na, Py_ssize_t nb, double *a,
                             const double *b, Py_ssize_t stride) noexcept nogil
        void (*norm_forward)(Py_ssize_t rows, Py_ssize_t cols, double eps, const double *x,
                             Py_ssize_t x_stride, const double *mean, const double *variance,
                             const double *gamma, const double *beta, const double *r,
                             Py_ssize_t r_stride, const fc_activation *f, double *y,
                             Py_ssize_t y_stride) noexcept nogil
        void (*norm_sums)(Py_ssize_t rows, Py_ssize_t cols, double eps, const double *x,
                          Py_ssize_t x_stride, const double *mean, const double *variance,
                          const double *gamma, const double *beta, const fc_activation *f,
                          const double *y, Py_ssize_t y_stride, const double *dy,
                          Py_ssize_t dy_stride, double *dz, Py_ssize_t dz_stride, double *sum,
                          double *sum_xhat) noexcept nogil
        void (*norm_sums_merge)(Py_ssize_t pieces, Py_ssize_t channels, Py_ssize_t first,
                                Py_ssize_t last, int accumulate, double *scratch, double *dgamma,
                                double *dbeta) noexcept nogil
        void (*norm_backward)(Py_ssize_t rows, Py_ssize_t cols, double eps, double weight,
                              const double *x, Py_ssize_t x_stride, const double *mean,
                              const double *variance, const double *gamma, const double *beta,
                              const fc_activation *f, const double *sum, const double *sum_xhat,
                              const double *dy, Py_ssize_t dy_stride, double *dx,
                              Py_ssize_t dx_stride) noexcept nogil
        void (*norm_scales)(Py_ssize_t channels, double eps, const double *variance,
                            const double *gamma, double *scale) noexcept nogil
        void (*norm_update_running)(Py_ssize_t channels, double momentum, const double *batch,
                                    double *running) noexcept nogil
        void (*philox_group)(uint64_t key, uint64_t block, uint64_t step,
                             uint32_t *out) noexcept nogil
        void (*dropout)(uint64_t key, uint64_t step, uint32_t threshold, double scale,
                        Py_ssize_t first, Py_ssize_t last, Py_ssize_t cols, const double *x,
                        Py_ssize_t x_stride, double *y, Py_ssize_t y_stride) noexcept nogil
        void (*affine_sample)(int edge, int linear, Py_ssize_t rows, Py_ssize_t cols,
                              Py_ssize_t channels, const double *map, double fill, const double *x,
                              double *y, Py_ssize_t first, Py_ssize_t last) noexcept nogil
        void (*affine_spread)(int edge, int linear, Py_ssize_t rows, Py_ssize_t cols,
                              Py_ssize_t channels, const double *map, const double *dy,
                              double *dx) noexcept nogil
        double (*cross_entropy)(int mode, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t cols,
                                const double *p, Py_ssize_t p_stride, const int32_t *labels,
                                int32_t ignore, const double *targets, Py_ssize_t targets_stride,
                                double smooth, const double *weights, Py_ssize_t rows_per_weight,
                                double scale, double *dx, Py_ssize_t dx_stride) noexcept nogil
        double (*binary_entropy)(int mode, Py_ssize_t count, const double *p, const double *t,
                                 double smooth, double slope, double *dx) noexcept nogil
        double (*squared_error)(Py_ssize_t count, const double *p, const double *t, double slope,
                                double *dx) noexcept nogil
        Py_ssize_t (*count_hits)(Py_ssize_t rows, Py_ssize_t cols, const double *p,
                                 Py_ssize_t p_stride, const int32_t *labels, const double *targets,
                                 Py_ssize_t targets_stride) noexcept nogil
        Py_ssize_t (*count_binary_hits)(Py_ssize_t count, double threshold, const double *p,
                                        const double *t) noexcept nogil
        void (*sgd)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                    const double *g, double *const *state) noexcept nogil
        void (*adam)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                     const double *g, double *const *state) noexcept nogil
        void (*nadam)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                      const double *g, double *const *state) noexcept nogil
        void (*adamax)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                       const double *g, double *const *state) noexcept nogil
        void (*rmsprop)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                        const double *g, double *const *state) noexcept nogil
        void (*adagrad)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                        const double *g, double *const *state) noexcept nogil
        void (*adadelta)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                         const double *g, double *const *state) noexcept nogil
        void (*lion)(Py_ssize_t count, const fc_rule *r, const fc_pull *p, double *w,
                     const double *g, double *const *state) noexcept nogil
        void (*average)(Py_ssize_t count, double momentum, const double *w,
                        double *mean) noexcept nogil
        double (*pull_square)(Py_ssize_t count, const fc_pull *p, const double *w,
                              const double *g) noexcept nogil
        void (*weight_sums)(Py_ssize_t count, const double *w, double *sums) noexcept nogil
        Py_ssize_t peak_flops
        void (*multiply_add)(Py_ssize_t rounds, double scale, double offset,
                             double *out) noexcept nogil
        void (*triad)(Py_ssize_t count, double scale, const double *a, const double *b,
                      double *y) noexcept nogil

# The tables in use; a forced change of ISA is seen at once by everyone who cimports these.
cdef const fc_kernels_f32 *f32
cdef const fc_kernels_f64 *f64
cdef const fc_kernels_bf16 *bf16    # beside f32; NULL where the CPU or the table has none

cdef int thread_count() noexcept nogil

# Denormals are flushed to zero between on and restore; on returns the caller's mode. Each thread
# has its own mode, so every parallel region sets and restores it.
cdef unsigned flush_denormals_on() noexcept nogil
cdef void flush_denormals_restore(unsigned mode) noexcept nogil

/* The kernel tables: one struct of function pointers per real type.
 * table.inl is the one list of kernels; it is read once for float and once for double. */
#ifndef FC_KERNELS_H
#define FC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Extents of a pooling or convolution problem, always three spatial dims (D, H, W). */
typedef struct {
    ptrdiff_t in[3], out[3], window[3], stride[3], dilation[3], pad[3]; /* pad: before */
} fc_window;

/* The pixels that a weight gradient adds over: planes, rows and pixels, steps in elements. */
typedef struct {
    ptrdiff_t count[3], x_step[3], dy_step[3];
} fc_walk;

/* A tile of pixels in an image: steps in elements, and the rows and columns of the tile that lie
 * inside the image, first..last. */
typedef struct {
    ptrdiff_t row_step, pixel_step, first[2], last[2];
} fc_tile;

/* A pointwise activation that another kernel applies in its own pass: the arguments of
 * activation_forward in kernels/activation.inl. */
typedef struct {
    int kind;
    double alpha, beta, gamma;
} fc_activation;

/* What the sums of a product go through on their way out: the bias, a batch norm (mean, scale, shift),
 * a residual and an activation. Of `real`s, one a channel (the residual: one a pixel and channel,
 * pixels residual_stride apart); NULL: there is none. In kernels/epilogue.inl.
 *
 * moments, where it is not NULL, receives mean and Σ (y − mean)² of pieces of the results, for batch
 * norm: [piece][2], moments_stride reals from the one to the other. In kernels/winograd.inl. */
typedef struct {
    const void *bias, *mean, *scale, *shift, *residual;
    void *moments;
    ptrdiff_t residual_stride, moments_stride;
    fc_activation f;
} fc_epilogue;

/* One step of an optimizer: kernels/update.inl says what each rule reads of it. */
typedef struct {
    double rate, first, second, third, fourth, eps;
    int form; /* Nesterov's, with a maximum, centered … */
} fc_rule;

/* What a gradient goes through before a rule sees it, and what a weight does:
 * g' = clamp((g + l1 sign w + l2 w) scale, −limit, limit), and w' = w − decay w. */
typedef struct {
    double l1, l2, scale, limit, decay;
} fc_pull;

/* Products of operands rounded to bfloat16, sums in float: a table of its own, for the CPUs that have
 * such a product. In kernels/bf16.inl. */
typedef uint32_t fc_pair; /* two bfloat16, the first in the lower half */

typedef struct {
    ptrdiff_t mr, nr; /* of both tiles; the pairs of a row come in blocks of `block` */
    ptrdiff_t block;
    void (*pack_rows)(ptrdiff_t m, ptrdiff_t depth, const float *const *x, fc_pair *to);
    void (*pack_pixels)(ptrdiff_t count, const float *const *x, ptrdiff_t first, ptrdiff_t cols,
                        ptrdiff_t pitch, fc_pair *to);
    void (*pack_panel)(const float *w, ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows,
                       ptrdiff_t cols, fc_pair *panel);
    void (*gather_tile)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t taps, ptrdiff_t pairs, const fc_pair *x,
                        const fc_pair *const *w, const float *bias, int accumulate, int stream,
                        float *const *y);
    void (*outer_tile)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t pairs, const fc_pair *x,
                       const fc_pair *dy, float *dw, ptrdiff_t dw_stride, int accumulate);
} fc_kernels_bf16;

#define real float
#define fc_kernels fc_kernels_f32
#include "table.inl"
#undef real
#undef fc_kernels

#define real double
#define fc_kernels fc_kernels_f64
#include "table.inl"
#undef real
#undef fc_kernels

#endif

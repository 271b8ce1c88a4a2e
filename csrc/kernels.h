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

/* Every kernel family, then the one symbol that an isa/<isa>.c exports: its table.
 * Included after a vector header, with real, FC_TABLE, FC_KERNELS and FC_ISA defined.
 * The system's own vector types are never named here; `real` in kernels.h is a macro of its own. */
#pragma push_macro("real")
#undef real
#include "kernels.h"
#pragma pop_macro("real")

#include "math.inl"
#include "activation.inl"
#include "epilogue.inl"
#include "quad.inl"
#include "gemm.inl"
#include "winograd.inl"
#include "softmax.inl"
#include "elementwise.inl"
#include "pool.inl"
#include "depthwise.inl"
#include "norm.inl"
#include "random.inl"
#include "sample.inl"
#include "loss.inl"
#include "update.inl"
#include "peak.inl"

extern const FC_KERNELS FC_TABLE; /* declared before it is defined: visible to dispatch.c alone */
const FC_KERNELS FC_TABLE = {
    .isa = FC_ISA,
    .gather_mr = GATHER_MR,
    .gather_nr = GATHER_NR,
    .outer_mr = OUTER_MR,
    .outer_nr = OUTER_NR,
    .dot_mr = DOT_MR,
    .dot_nr = DOT_NR,
    .sweep_mr = SWEEP_MR,
    .sweep_k = SWEEP_K,
    .pack_panel = pack_panel,
    .gather_tile = gather_tile,
    .fence = fence,
    .pack_pixels = pack_pixels,
    .fetch_pixels = fetch_pixels,
    .fetch_stretch = fetch_stretch,
    .outer_tile = outer_tile,
    .sweep_tile = sweep_tile,
    .dot_tile = dot_tile,
    .winograd_input = winograd_input,
    .winograd_gradient = winograd_gradient,
    .winograd_products = winograd_products,
    .winograd_sums = winograd_sums,
    .winograd_output = winograd_output,
    .winograd_window = winograd_window,
    .winograd_window_half = winograd_window_half,
    .winograd_window_gradient = winograd_window_gradient,
    .activation_forward = activation_forward,
    .activation_backward = activation_backward,
    .activation_sums = activation_sums,
    .sums_merge = sums_merge,
    .softmax_forward = softmax_forward,
    .softmax_backward = softmax_backward,
    .copy = copy,
    .fill = fill,
    .add = add,
    .affine = affine,
    .cast = cast,
    .cast_labels = cast_labels,
    .max_pool_forward = max_pool_forward,
    .max_pool_backward = max_pool_backward,
    .average_pool_forward = average_pool_forward,
    .average_pool_backward = average_pool_backward,
    .global_average_forward = global_average_forward,
    .global_average_backward = global_average_backward,
    .global_max_forward = global_max_forward,
    .global_max_backward = global_max_backward,
    .depthwise_forward = depthwise_forward,
    .depthwise_input_gradient = depthwise_input_gradient,
    .depthwise_weight_gradient = depthwise_weight_gradient,
    .sum_pieces = sum_pieces,
    .moments = moments,
    .moments_merge = moments_merge,
    .moments_join = moments_join,
    .norm_forward = norm_forward,
    .norm_sums = norm_sums,
    .norm_sums_merge = norm_sums_merge,
    .norm_backward = norm_backward,
    .norm_scales = norm_scales,
    .norm_update_running = norm_update_running,
    .philox_group = philox_group,
    .dropout = dropout,
    .affine_sample = affine_sample,
    .affine_spread = affine_spread,
    .cross_entropy = cross_entropy,
    .binary_entropy = binary_entropy,
    .squared_error = squared_error,
    .count_hits = count_hits,
    .count_binary_hits = count_binary_hits,
    .sgd = sgd,
    .adam = adam,
    .nadam = nadam,
    .adamax = adamax,
    .rmsprop = rmsprop,
    .adagrad = adagrad,
    .adadelta = adadelta,
    .lion = lion,
    .average = average,
    .pull_square = pull_square,
    .weight_sums = weight_sums,
    .peak_flops = 2 * PEAK_CHAINS * VLEN,
    .multiply_add = multiply_add,
    .triad = triad,
};

/* Beside avx512.c: the products that its CPU may have. */
#define real float
#include "simd/vec_avx512.h"
#include "simd/pair_avx512.h"
#include "kernels/bf16.inl"

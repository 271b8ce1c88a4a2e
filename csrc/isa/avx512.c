#define real float
#define FC_TABLE fc_table_avx512
#define FC_KERNELS fc_kernels_f32
#define FC_ISA "avx512"
#include "simd/vec_avx512.h"
#include "kernels/all.inl"

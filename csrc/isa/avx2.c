#define real float
#define FC_TABLE fc_table_avx2
#define FC_KERNELS fc_kernels_f32
#define FC_ISA "avx2"
#include "simd/vec_avx2.h"
#include "kernels/all.inl"

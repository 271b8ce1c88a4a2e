#define real float
#define FC_TABLE fc_table_neon
#define FC_KERNELS fc_kernels_f32
#define FC_ISA "neon"
#include "simd/vec_neon.h"
#include "kernels/all.inl"

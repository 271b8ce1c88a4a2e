#define real float
#define VLEN 4
#define REAL_IS_DOUBLE 0
#define FC_TABLE fc_table_baseline
#define FC_KERNELS fc_kernels_f32
#define FC_ISA "baseline"
#include <stddef.h>
#include "simd/vec_gcc.h"
#include "kernels/all.inl"

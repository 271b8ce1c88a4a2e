#define real double
#define VLEN 2
#define REAL_IS_DOUBLE 1
#define FC_TABLE fc_table_reference_f64
#define FC_KERNELS fc_kernels_f64
#define FC_ISA "reference_f64"
#include <stddef.h>
#include "simd/vec_gcc.h"
#include "kernels/all.inl"

/* What Cython sees of csrc: the tables, by name, best first. */
#ifndef FC_DISPATCH_H
#define FC_DISPATCH_H
#include "kernels.h"

/* The name of table i, best first, or NULL past the end; only what this CPU can run. */
const char *fc_isa_name(int i);
/* The float32 table of that name, or NULL. */
const fc_kernels_f32 *fc_kernels_by_name(const char *name);
/* Products of bfloat16 beside a table, or NULL. */
const fc_kernels_bf16 *fc_bf16_beside(const fc_kernels_f32 *table);
/* The same text in double, the reference of every float table. */
const fc_kernels_f64 *fc_reference(void);
const char *fc_compiler(void);
const char *fc_flags(void);

/* Denormals are flushed to zero between on and restore; on returns the caller's mode. */
unsigned fc_flush_denormals_on(void);
void fc_flush_denormals_restore(unsigned mode);
#endif

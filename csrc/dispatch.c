/* Chooses a kernel table. Compiled without ISA flags and without link-time optimisation, or the
 * detector itself might die of an instruction that the CPU does not have. */
#include "dispatch.h"

#include <string.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

extern const fc_kernels_f32 fc_table_baseline, fc_table_avx2, fc_table_avx512, fc_table_neon;
extern const fc_kernels_f64 fc_table_reference_f64;
extern const fc_kernels_bf16 fc_table_avx512_bf16;

/* The tables that this build has and this CPU can run, best first; returns how many. */
static int runnable(const fc_kernels_f32 *tables[4])
{
    int n = 0;
#if defined(FC_HAVE_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("fma"))
        tables[n++] = &fc_table_avx512;
#endif
#if defined(FC_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables[n++] = &fc_table_avx2;
#endif
#if defined(FC_HAVE_NEON)
    tables[n++] = &fc_table_neon; /* every aarch64 has it */
#endif
    tables[n++] = &fc_table_baseline;
    return n;
}

const char *fc_isa_name(int i)
{
    const fc_kernels_f32 *tables[4];
    return i >= 0 && i < runnable(tables) ? tables[i]->isa : NULL;
}

const fc_kernels_f32 *fc_kernels_by_name(const char *name)
{
    const fc_kernels_f32 *tables[4];
    const int n = runnable(tables);
    for (int i = 0; i < n; i++)
        if (strcmp(tables[i]->isa, name) == 0)
            return tables[i];
    return NULL;
}

const fc_kernels_bf16 *fc_bf16_beside(const fc_kernels_f32 *table)
{
#if defined(FC_HAVE_AVX512_BF16)
    if (table == &fc_table_avx512 && __builtin_cpu_supports("avx512bf16"))
        return &fc_table_avx512_bf16;
#endif
    (void)table;
    return NULL;
}

const fc_kernels_f64 *fc_reference(void) { return &fc_table_reference_f64; }

const char *fc_compiler(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}

const char *fc_flags(void) { return FC_FLAGS; }

#if defined(__x86_64__)
unsigned fc_flush_denormals_on(void)
{
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040u); /* flush to zero, denormals are zero */
    return mode;
}
void fc_flush_denormals_restore(unsigned mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
unsigned fc_flush_denormals_on(void)
{
    uint64_t mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(mode | (1u << 24)));
    return (unsigned)mode;
}
void fc_flush_denormals_restore(unsigned mode)
{
    __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)mode));
}
#else
unsigned fc_flush_denormals_on(void) { return 0; }
void fc_flush_denormals_restore(unsigned mode) { (void)mode; }
#endif

/* Every kernel family, then the one symbol that an isa/<isa>.c exports: its table.
 * Included after a vector header, with real, FC_TABLE, FC_KERNELS and FC_ISA defined.
 * The system's own vector types are never named here; `real` in kernels.h is a macro of its own. */
#pragma push_macro("real")
#undef real
#include "kernels.h"
#pragma pop_macro("real")

#include "gemm.inl"

extern const FC_KERNELS FC_TABLE; /* declared before it is defined: visible to dispatch.c alone */
const FC_KERNELS FC_TABLE = {
    .isa = FC_ISA,
    .gather_mr = GATHER_MR,
    .gather_nr = GATHER_NR,
    .outer_mr = OUTER_MR,
    .outer_nr = OUTER_NR,
    .pack_panel = pack_panel,
    .gather_tile = gather_tile,
    .outer_tile = outer_tile,
};

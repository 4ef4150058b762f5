// The table of this instruction set: see table.h.
#include "table.h"

#define QUIRE_JOIN2(a, b) a##b
#define QUIRE_JOIN(a, b) QUIRE_JOIN2(a, b)

namespace quire {

extern const Kernels QUIRE_JOIN(kernels_, QUIRE_ISA) = {
#define QUIRE_POINTER(op, Args) &QUIRE_ISA::op,
    QUIRE_OPS(QUIRE_POINTER)
#undef QUIRE_POINTER
};

}  // namespace quire

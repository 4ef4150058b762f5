// linear with int4 weights, per channel or grouped, with or without offsets. Layout: qformat.h; order: qgemm.h.
#include "qlinear.h"

namespace quire::QUIRE_ISA {

void linear_int4(Runtime& runtime, const Linear& args) {
    if (args.group == 0) q_linear<Quantized<4, Scales::channel>>(runtime, args);
    else if (args.symmetric) q_linear<Quantized<4, Scales::group>>(runtime, args);
    else q_linear<Quantized<4, Scales::offset>>(runtime, args);
}

}  // namespace quire::QUIRE_ISA

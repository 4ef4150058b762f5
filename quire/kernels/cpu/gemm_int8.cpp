// linear with int8 weights, per channel or grouped. Layout: qformat.h; order: qgemm.h.
#include "qlinear.h"

namespace quire::QUIRE_ISA {

void linear_int8(Runtime& runtime, const Linear& args) {
    if (args.group == 0) q_linear<Quantized<8, Scales::channel>>(runtime, args);
    else q_linear<Quantized<8, Scales::group>>(runtime, args);
}

}  // namespace quire::QUIRE_ISA

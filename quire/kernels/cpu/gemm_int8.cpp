// linear with int8 weights, per channel or grouped. Layout: qformat.h; order and versions tried: qgemm.h, qlinear.h.
//
// Measured on one core of a 2.6 GHz AMD EPYC (Zen 4: vpdpbusd 0.46 TOP/s, DRAM read 26 GB/s), layers of 8160 x 2048 streamed from
// DRAM, rounding of the rows and scales included, thread CPU time, best of 5, on a machine busy with other work (+- 10 %):
//   rows                          1     2     4     8    16    32    64   512
//   per channel, avx512          22    26    22    20    11     6     3   0.4   GB/s of weights
//                                 -     -    38    71    86    89    88    87   per cent of the peak
//   groups of 128, per cent       -     -    34    60    70    74    75    77
//   groups of 32, per cent        -     -    25    68    75    74    74    74
#include "qlinear.h"

namespace quire::QUIRE_ISA {

void linear_int8(Runtime& runtime, const Linear& args) {
    if (args.group == 0) q_linear<Quantized<8, Scales::channel>>(runtime, args);
    else q_linear<Quantized<8, Scales::group>>(runtime, args);
}

}  // namespace quire::QUIRE_ISA

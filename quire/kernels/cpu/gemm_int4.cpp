// linear with int4 weights, per channel or grouped, with or without offsets. Layout: qformat.h; order and versions tried: qgemm.h,
// qlinear.h.
//
// Nibbles are widened in every tile: per step nine instructions beside 24 multiplies of four rows, on pipes that do not multiply.
// (Widening a cache block once into a buffer, as was planned, has nothing left to win: in L2 the tile runs at 96 % of the peak.)
// Measured as in gemm_int8.cpp, avx512:
//   rows                                 1     2     4     8    16    32    64   512
//   groups of 128                       25    21    18    11                           GB/s of weights
//                                        -     -    61    71    75    77    78    76   per cent of the peak
//   groups of 32                        21    23    20    11                           GB/s
//                                        -     -    62    68    74    74    72    75   per cent
//   groups of 32 with offsets            -     -    58    64    71    68    68    68   per cent
//   per channel                         27    25    21    12    85    84    85    86   GB/s, from 16 rows per cent
#include "qlinear.h"

namespace quire::QUIRE_ISA {

void linear_int4(Runtime& runtime, const Linear& args) {
    if (args.group == 0) q_linear<Quantized<4, Scales::channel>>(runtime, args);
    else if (args.symmetric) q_linear<Quantized<4, Scales::group>>(runtime, args);
    else q_linear<Quantized<4, Scales::offset>>(runtime, args);
}

}  // namespace quire::QUIRE_ISA

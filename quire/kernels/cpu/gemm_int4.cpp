// linear with int4 weights, per channel or grouped, with or without offsets. Layout: qformat.h; order and versions tried: qgemm.h,
// qlinear.h.
//
// Nibbles are widened in every tile: per step nine instructions beside 24 multiplies of four rows, on pipes that do not multiply.
// (Widening a cache block once into a buffer, as was planned, has nothing left to win: in L2 the tile runs at 96 % of the peak.)
// Measured as in gemm_int8.cpp, avx512, GB/s of weights, from 4 rows on per cent of the peak:
//   rows                          1     2     4     8    16    32    64   128   512
//   per channel                  31    29    74    84    89    85    88    89    88
//   groups of 128                31    28    70    77    79    78    78    78    78
//   groups of 32                 28    27    69    75    76    76    76    76    76
//   groups of 32 with offsets    26    28    63    68    70    69    69    70    69
//   avx2, groups of 128          17    10    18    20    20    19    18    20    18
// These are from before tiles over 3,072 inputs (qlinear.h). Since then, `quire bench kernels`, two threads, one run, per cent of the
// peak of the same minute: groups of 32, 32 rows: 1024 -> 4096 69, 2048 -> 1024 63; 1024 rows: 73, 74.
#include "qlinear.h"

namespace quire::QUIRE_ISA {

void linear_int4(Runtime& runtime, const Linear& args) {
    if (args.group == 0) q_linear<Quantized<4, Scales::channel>>(runtime, args);
    else if (args.symmetric) q_linear<Quantized<4, Scales::group>>(runtime, args);
    else q_linear<Quantized<4, Scales::offset>>(runtime, args);
}

}  // namespace quire::QUIRE_ISA

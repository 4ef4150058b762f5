// linear with int8 weights, per channel or grouped. Layout: qformat.h; order and versions tried: qgemm.h, qlinear.h.
//
// Measured on one core of a 2.6 GHz AMD EPYC (Zen 4: vpdpbusd 0.47 TOP/s, DRAM read 30 GB/s), layers of 8160 x 2048 streamed from
// DRAM, rounding of the rows and scales included, thread CPU time, best of 5:
//   rows                          1     2     4     8    16    32    64   128   512
//   per channel, avx512          29    30    25    23    11   5.5   2.8   1.4   0.4   GB/s of weights
//                                 -     -    43    77    89    86    89    90    88   per cent of the peak
//   groups of 128, per cent       -     -    40    74    79    78    78    79    79   (29 GB/s at 1 and 2 rows)
//   groups of 32, per cent        -     -    25    73    74    75    72    69    74   (18 GB/s)
//   avx2, per channel            24    12     9   6.1   3.2   1.6   0.8   0.4   0.1   GB/s (95 GOP/s from 8 rows on)
// These are from before tiles over 3,072 inputs (qlinear.h). Since then, `quire bench kernels`, two threads, one run, per cent of the
// peak of the same minute: per channel, 32 rows: 1024 -> 4096 76, 2048 -> 1024 71; 1024 rows: 83, 82.
#include "qlinear.h"

namespace quire::QUIRE_ISA {

void linear_int8(Runtime& runtime, const Linear& args) {
    if (args.group == 0) q_linear<Quantized<8, Scales::channel>>(runtime, args);
    else q_linear<Quantized<8, Scales::group>>(runtime, args);
}

}  // namespace quire::QUIRE_ISA

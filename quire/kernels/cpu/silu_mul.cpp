// silu_mul: out[t, i] = g / (1 + exp(-g)) * u,  g = gate_up[t, i], u = gate_up[t, I + i]        (float32; rowwise.h)
//
// Layout: the gate's half of a row, then the up's half. Rows are cut into pieces of kPiece columns, so that one row also
// spreads over the threads.
// Versions tried: this one only; it is bound by memory and the division.
#include "rowwise.h"
#include "table.h"

namespace quire::QUIRE_ISA {

void silu_mul(Runtime& runtime, const SiluMul& args) {
    constexpr int64_t kPiece = 4096;
    const int64_t pieces = (args.width + kPiece - 1) / kPiece;
    parallel(runtime.pool, args.rows * pieces, [&](int64_t chunk) {
        const int64_t row = chunk / pieces, first = chunk % pieces * kPiece;
        const int64_t width = args.width - first < kPiece ? args.width - first : kPiece;
        const float* gate = args.gate_up + row * 2 * args.width + first;
        silu_row(gate, gate + args.width, args.out + row * args.width + first, width);
    });
}

}  // namespace quire::QUIRE_ISA

// The rows that a linear op multiplies: those of x, or what a norm or a gated activation makes of them on the way.
// Knows: Linear's input. Does not know: how a row is then rounded or laid out.
#pragma once
#include "rowwise.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

// Row `row` as the product wants it, [k]. A plain row stays where it is; others are written to `buffer`, which has room for k.
inline const float* input_row(const Linear& g, int64_t row, float* buffer) {
    switch (g.input.kind) {
        case InputKind::plain: return g.x + row * g.k;
        case InputKind::rms_norm: norm_row(g.x + row * g.k, g.input.norm_weight, buffer, g.k, g.input.eps); break;
        case InputKind::silu_mul: silu_row(g.x + row * 2 * g.k, g.x + row * 2 * g.k + g.k, buffer, g.k); break;
    }
    return buffer;
}

}  // namespace
}  // namespace quire::QUIRE_ISA

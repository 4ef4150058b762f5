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

// What a part of a row cannot know by itself.
inline float row_scale(const Linear& g, int64_t row) {
    return g.input.kind == InputKind::rms_norm ? norm_scale(g.x + row * g.k, g.k, g.input.eps) : 0.0f;
}

// Inputs [first, first + count) of the row, which has this row_scale; the bits of input_row.
inline const float* input_part(const Linear& g, int64_t row, float scale, int64_t first, int64_t count, float* buffer) {
    const float* const gate = g.x + row * 2 * g.k + first;
    switch (g.input.kind) {
        case InputKind::plain: return g.x + row * g.k + first;
        case InputKind::rms_norm: norm_part(g.x + row * g.k + first, g.input.norm_weight + first, buffer, count, scale); break;
        case InputKind::silu_mul: silu_row(gate, gate + g.k, buffer, count); break;
    }
    return buffer;
}

}  // namespace
}  // namespace quire::QUIRE_ISA

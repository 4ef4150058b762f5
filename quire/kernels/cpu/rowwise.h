// What one row goes through outside of the products: the norm and the gated activation. rms_norm.cpp and silu_mul.cpp call these on
// rows of arrays, linear_input.h on the way into a product: the same bits either way.
//
//     norm_row: out[h] = x[h] / sqrt(mean_h(x[h]^2) + eps) * weight[h]                         (Zhang, Sennrich 2019)
//     silu_row: out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]                                 (SwiGLU, Shazeer 2020)
//
// Order: the squares in four accumulators over vectors of the row, added in one order, so that a row's bits depend on the row
// alone. Two passes; the second finds the row in L1 or L2.
// Knows: a row. Does not know: threads, who wants it.
#pragma once
#include "simd.h"

namespace quire::QUIRE_ISA {
namespace {

inline float sum_of_squares(const float* x, int64_t width) {
    Vec a0 = zero(), a1 = zero(), a2 = zero(), a3 = zero();
    int64_t i = 0;
    for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
        const Vec x0 = load(x + i), x1 = load(x + i + kLanes), x2 = load(x + i + 2 * kLanes), x3 = load(x + i + 3 * kLanes);
        a0 = fma(x0, x0, a0);
        a1 = fma(x1, x1, a1);
        a2 = fma(x2, x2, a2);
        a3 = fma(x3, x3, a3);
    }
    for (; i + kLanes <= width; i += kLanes) a0 = fma(load(x + i), load(x + i), a0);
    const Vec tail = load_n(x + i, int(width - i));
    return sum(add(add(fma(tail, tail, a0), a1), add(a2, a3)));
}

inline float norm_scale(const float* x, int64_t width, float eps) {
    return 1.0f / __builtin_sqrtf(sum_of_squares(x, width) / float(width) + eps);
}

// Any stretch of a row whose norm_scale is known.
inline void norm_part(const float* x, const float* weight, float* out, int64_t width, float row_scale) {
    const Vec scale = set1(row_scale);
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) store(out + i, mul(mul(load(x + i), scale), load(weight + i)));
    if (const int n = int(width - i)) store_n(out + i, mul(mul(load_n(x + i, n), scale), load_n(weight + i, n)), n);
}

inline void norm_row(const float* x, const float* weight, float* out, int64_t width, float eps) {
    norm_part(x, weight, out, width, norm_scale(x, width, eps));
}

inline Vec silu(Vec g) { return div(g, add(set1(1.0f), exp(sub(zero(), g)))); }

inline void silu_row(const float* gate, const float* up, float* out, int64_t width) {
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) store(out + i, mul(silu(load(gate + i)), load(up + i)));
    if (const int n = int(width - i)) store_n(out + i, mul(silu(load_n(gate + i, n)), load_n(up + i, n)), n);
}

}  // namespace
}  // namespace quire::QUIRE_ISA

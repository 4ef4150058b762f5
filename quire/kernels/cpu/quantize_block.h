// A panel's rows while they are quantized: a block of k of 48 rows is transposed once, then a lane is a column. What quantize.cpp and
// quantize_planes.cpp share.
// Knows: a matrix. Does not know: number formats.
#pragma once
#include "simd_int.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kBlockK = 128;  // a multiple of every group
constexpr float kSmallestScale = 1.17549435e-38f;

inline Vec negative(Vec a) { return sub(zero(), a); }
inline Vec rounded(Vec x) { return sub(add(x, set1(kRounder)), set1(kRounder)); }
inline Vec within(Vec x, float low, float high) { return min(max(x, set1(low)), set1(high)); }

// 1 / scale, or 0 where the scale is too small.
inline Vec inverse_of(Vec scale) {
    const Vec magnitude = max(scale, negative(scale)), one = set1(1.0f);
    const Vec safe = below(magnitude, set1(kSmallestScale), one, scale);
    return below(magnitude, set1(kSmallestScale), zero(), div(one, safe));
}

template <class T>
inline void transpose_row(const void* row, int64_t first, int64_t count, float* out, float (*value)(T)) {
    const char* from = static_cast<const char*>(row) + first * int64_t(sizeof(T));
    for (int64_t i = 0; i < count; ++i) {
        T bits;
        memcpy(&bits, from + i * int64_t(sizeof(T)), sizeof(T));
        out[i * kPanel] = value(bits);
    }
}

inline float same(float x) { return x; }

// The rows of a panel, a block of k at a time as [k][48]; zeros beyond the rows and beyond k.
struct Block {
    Row rows[kPanel];
    int64_t k, first = -1;
    alignas(64) float x[kBlockK * kPanel];

    const float* at(int64_t wanted) {
        if (wanted == first) return x;
        first = wanted;
        memset(x, 0, sizeof(x));
        const int64_t count = k - first < kBlockK ? k - first : kBlockK;
        for (int64_t j = 0; j < kPanel; ++j) {
            if (!rows[j].data) continue;
            if (rows[j].type == Number::bf16) transpose_row<uint16_t>(rows[j].data, first, count, x + j, bf16_value);
            else if (rows[j].type == Number::f16) transpose_row<uint16_t>(rows[j].data, first, count, x + j, f16_value);
            else transpose_row<float>(rows[j].data, first, count, x + j, same);
        }
        return x;
    }
};

// One group of a panel and what is found out about it, a number per column.
struct Group {
    int64_t first, length;
    alignas(64) float least[kPanel], most[kPanel], scale[kPanel], offset[kPanel];
};

// Calls f(rows [count][48], count) for the group, a block at a time.
template <class F>
inline void each_block(Block& block, const Group& group, const F& f) {
    for (int64_t k = group.first; k < group.first + group.length;) {
        const int64_t start = k / kBlockK * kBlockK, left = group.first + group.length - k;
        const int64_t count = start + kBlockK - k < left ? start + kBlockK - k : left;
        f(block.at(start) + (k - start) * kPanel, count);
        k += count;
    }
}

// Least and most weight of each column; false when one is infinite or NaN.
bool find_range(Block& block, Group& group) {
    Vec taint = zero();
    for (int64_t j = 0; j < kPanel; ++j) group.least[j] = group.most[j] = 0.0f;
    each_block(block, group, [&](const float* x, int64_t count) {
        for (int64_t c = 0; c < kPanel; c += kLanes) {
            Vec least = load(group.least + c), most = load(group.most + c);
            for (int64_t i = 0; i < count; ++i) {
                const Vec w = load(x + i * kPanel + c);
                least = min(w, least);
                most = max(w, most);
                taint = add(taint, mul(w, zero()));
            }
            store(group.least + c, least);
            store(group.most + c, most);
        }
    });
    return sum(taint) == 0.0f;
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// The low plane of a head (qplanes.h): rows rounded for it, and what one of its columns adds to a logit.
//
// Order: within a group of kInputGroup inputs exact integers; then, groups ascending, acc = fma(float(sum), scale_x, acc); the logit
// of the high plane + acc * (scale / 16). The same for every column, however it came to be wanted.
// A logit tells in its last bit what it is: 1 that both planes are in it, 0 that the high one alone is. The bit is a 2^-23 of it.
// Knows: one row, one column. Does not know: which columns are wanted, threads.
#pragma once
#include "linear_input.h"
#include "qinput.h"
#include "qplanes.h"
#include "simd_bytes.h"

namespace quire::QUIRE_ISA {
namespace {

typedef uint32_t __attribute__((may_alias)) FloatBits;

// A row of x as the low plane reads it: [groups * kInputGroup] q, and for each group its scale and -8 * sum of q.
struct LowRow {
    int8_t* q;
    float* scales;
    int32_t* starts;
};

inline int64_t low_scratch_bytes(int64_t k) { return (low_groups(k) * (kInputGroup + 8) + 63) / 64 * 64; }

inline LowRow low_row(char* scratch, int64_t k) {
    char* const behind = scratch + low_groups(k) * kInputGroup;
    return {reinterpret_cast<int8_t*>(scratch), reinterpret_cast<float*>(behind),
            reinterpret_cast<int32_t*>(behind + 4 * low_groups(k))};
}

inline void round_low(const Linear& g, int64_t row, const LowRow& to) {
    alignas(64) float made[kInputGroup], q[kInputGroup];
    const float scale = row_scale(g, row);
    for (int64_t i = 0; i < low_groups(g.k); ++i) {
        const int64_t first = i * kInputGroup, length = shorter(g.k - first, kInputGroup);
        to.scales[i] = round_group(input_part(g, row, scale, first, length, made), length, kInputGroup, q);
        int32_t total = 0;
        for (int64_t j = 0; j < kInputGroup; ++j) {
            to.q[first + j] = to.scales[i] == to.scales[i] ? int8_t(q[j]) : int8_t(0);
            total += to.q[first + j];
        }
        to.starts[i] = -8 * total;
    }
}

inline int32_t low_group_sum(const uint8_t* w, const int8_t* q) {
    Sums sums = sums_of(0);
    for (int64_t i = 0; i < kLowGroupBytes; i += 4 * kLanes) {
        const Bytes pair = load_bytes(reinterpret_cast<const uint32_t*>(w + i));
        sums = dot(sums, low_halves(pair), load_bytes(reinterpret_cast<const uint32_t*>(q + i)));
        sums = dot(sums, high_halves(pair), load_bytes(reinterpret_cast<const uint32_t*>(q + kLowGroupBytes + i)));
    }
    return total(sums);
}

inline float fused(float a, float b, float c) {
#if QUIRE_ISA_avx512 || QUIRE_ISA_avx2
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

inline float low_product(const uint8_t* w, const LowRow& row, int64_t groups) {
    float acc = 0.0f;
    for (int64_t i = 0; i < groups; ++i) {
        const int32_t sum = row.starts[i] + low_group_sum(w + i * kLowGroupBytes, row.q + i * kInputGroup);
        acc = fused(float(sum), row.scales[i], acc);
    }
    return acc;
}

// The planes of a weight.
struct Planes {
    const uint8_t *low, *scales;
    int64_t row_bytes, groups;

    Planes(const void* weight, int64_t n, int64_t k)
        : low(static_cast<const uint8_t*>(weight) + high_bytes(n, k)),
          scales(static_cast<const uint8_t*>(weight) + scales_begin(n, k)), row_bytes(low_row_bytes(k)), groups(low_groups(k)) {}

    void fetch(int64_t column) const {
        prefetch(scales + 2 * column);
        for (int64_t i = 0; i < row_bytes; i += 64) prefetch_l2(low + column * row_bytes + i);
    }
};

inline bool is_exact(const float* logit) { return *reinterpret_cast<const FloatBits*>(logit) & 1; }

inline void make_exact(const Planes& planes, const LowRow& row, int64_t column, float* logit) {
    uint16_t scale;
    memcpy(&scale, planes.scales + 2 * column, 2);
    *logit += low_product(planes.low + column * planes.row_bytes, row, planes.groups) * (bf16_value(scale) * 0.0625f);
    *reinterpret_cast<FloatBits*>(logit) |= 1;
}

}  // namespace
}  // namespace quire::QUIRE_ISA

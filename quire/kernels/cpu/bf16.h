// One bfloat16 value: the upper half of a float32, rounded to nearest, ties to even; NaN stays NaN.
// Knows: bits. Does not know: vectors (simd.h).
#pragma once
#include <cstdint>
#include <cstring>

namespace quire {
namespace {

[[maybe_unused]] inline uint16_t bf16_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40);  // quiet, not rounded to infinity
    return uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

[[maybe_unused]] inline float bf16_value(uint16_t bits) {
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

}  // namespace
}  // namespace quire

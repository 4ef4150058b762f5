// Some rows of a matrix as a checkpoint holds them.
// Knows: types of numbers. Does not know: files, packing.
#pragma once
#include <cstdint>
#include <cstring>

#include "bf16.h"

namespace quire {

enum class Number { bf16, f16, f32 };

// Contiguous [rows, k].
struct Part {
    const void* data;
    int64_t rows;
    Number type;
};

// One row of a part.
struct Row {
    const void* data;
    Number type;
};

namespace {

[[maybe_unused]] inline float f16_value(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * float(fraction) * 0x1p-24f;
    const uint32_t wide = sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | fraction << 13;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

// rows[j] = row first + j of the parts one below the other; null data where there is none.
[[maybe_unused]] inline void find_rows(const Part* parts, int64_t num_parts, int64_t k, int64_t first, int64_t count, Row* rows) {
    for (int64_t j = 0; j < count; ++j) {
        int64_t index = first + j;
        rows[j] = {nullptr, Number::f32};
        for (int64_t i = 0; i < num_parts; ++i) {
            if (index < parts[i].rows) {
                const int64_t row_bytes = k * (parts[i].type == Number::f32 ? 4 : 2);
                rows[j] = {static_cast<const char*>(parts[i].data) + index * row_bytes, parts[i].type};
                break;
            }
            index -= parts[i].rows;
        }
    }
}

}  // namespace
}  // namespace quire

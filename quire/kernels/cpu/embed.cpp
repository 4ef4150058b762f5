// embed: out[t, h] = W[ids[t], h] from packed weights (a tied head is kept once), widened to float32.
//
// A row lies in one column of its panel: one value, pair or quad every 192 bytes, so a row touches as many cache lines as it has
// steps. Versions tried: this one only. A row of 2048 costs 3.5 us when the cache holds it: thousandths of a step.
#include <cstring>

#include "bf16.h"
#include "pack.h"

namespace quire {
namespace {

void unpack_row(const PackedWeight& weight, int64_t row, float* out) {
    const int64_t offset = row / kPanel * weight.panel_elements() + row % kPanel * weight.depth();
    if (weight.type == WeightType::f32) {
        const float* from = weight.data.as<float>() + offset;
        for (int64_t i = 0; i < weight.k; ++i) out[i] = from[i * kPanel];
        return;
    }
    const uint16_t* from = weight.data.as<uint16_t>() + offset;
    for (int64_t i = 0; i < weight.k; ++i) out[i] = bf16_value(from[i / 2 * kPanel * 2 + i % 2]);
}

// q of input `k` of a column, before the zero is taken off.
int32_t stored(const QFormat& format, const uint8_t* panel, int64_t column, int64_t k) {
    const uint8_t* from = panel + q_weights_at(format, k / 8 * 8) + 4 * column + k % 4;
    if (format.bits == 8) return from[k % 8 / 4 * kQStepBytes];
    return k % 8 < 4 ? *from & 15 : *from >> 4;
}

void unpack_quantized_row(const PackedWeight& weight, int64_t row, float* out) {
    const QFormat format = weight.qformat();
    const uint8_t* panel = weight.data.as<uint8_t>() + row / kPanel * q_panel_bytes(format);
    const int64_t column = row % kPanel, length = q_group_length(format);
    const auto zero = int32_t(q_zero(format));
    for (int64_t first = 0; first < weight.k; first += length) {
        const uint8_t* numbers = panel + q_scales_at(format, first);
        uint16_t scale, offset = 0;
        memcpy(&scale, numbers + 2 * column, 2);
        if (!format.symmetric) memcpy(&offset, numbers + 2 * (kPanel + column), 2);
        for (int64_t k = first; k < weight.k && k < first + length; ++k) {
            const float scaled = bf16_value(scale) * float(stored(format, panel, column, k) - zero);
            out[k] = format.symmetric ? scaled : scaled + bf16_value(offset);
        }
    }
}

void unpack_planes_row(const PackedWeight& weight, int64_t row, float* out) {
    const QFormat format = weight.qformat();
    const uint8_t* panel = weight.data.as<uint8_t>() + row / kPanel * q_panel_bytes(format);
    const uint8_t* low = weight.data.as<uint8_t>() + high_bytes(weight.n, weight.k) + row * low_row_bytes(weight.k);
    uint16_t scale;
    memcpy(&scale, panel + q_scales_at(format, 0) + 2 * (row % kPanel), 2);
    for (int64_t k = 0; k < weight.k; ++k) {
        const uint8_t pair = low[k / kInputGroup * kLowGroupBytes + k % kLowGroupBytes];
        const int32_t part = (k % kInputGroup < kLowGroupBytes ? pair & 15 : pair >> 4) - 8;
        out[k] = bf16_value(scale) * 0.0625f * float(16 * (stored(format, panel, row % kPanel, k) - 8) + part);
    }
}

}  // namespace

void unpack_rows(Pool& pool, const PackedWeight& weight, const int32_t* rows, int64_t num_rows, float* out) {
    parallel(pool, num_rows, [&](int64_t i) {
        const int64_t row = rows ? rows[i] : i;
        if (weight.type == WeightType::planes) unpack_planes_row(weight, row, out + i * weight.k);
        else if (weight.quantized()) unpack_quantized_row(weight, row, out + i * weight.k);
        else unpack_row(weight, row, out + i * weight.k);
    });
}

}  // namespace quire

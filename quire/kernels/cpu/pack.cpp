// pack: from a checkpoint's rows to panels; layout in pack.h.
//
// A panel is one chunk. Within it, blocks of 32 k of 48 rows: reads are 64 to 128 contiguous bytes of a row, writes stay in L1.
// Measured on one core (see gemm_bf16.cpp), page faults included: 0.85 G elements/s from bf16, 0.49 from float32, 0.25 from float16
// to bf16. Versions tried: this one only; the disk is slower.
#include "pack.h"

#include <cstring>

#include "bf16.h"

namespace quire {
namespace {

constexpr int64_t kBlock = 32;

float element(const void* row, Number type, int64_t i) {
    if (type == Number::f32) {
        float value;
        memcpy(&value, static_cast<const char*>(row) + i * 4, 4);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, static_cast<const char*>(row) + i * 2, 2);
    return type == Number::bf16 ? bf16_value(bits) : f16_value(bits);
}

void read_bf16(const void* row, Number type, int64_t first, int64_t count, uint16_t* out) {
    if (type == Number::bf16) memcpy(out, static_cast<const char*>(row) + first * 2, size_t(count) * 2);
    else for (int64_t i = 0; i < count; ++i) out[i] = bf16_bits(element(row, type, first + i));
}

void read_f32(const void* row, Number type, int64_t first, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = element(row, type, first + i);
}

void pack_panel_bf16(const Row (&rows)[kPanel], int64_t k, uint32_t* out) {
    for (int64_t first = 0; first < k; first += kBlock) {
        const int64_t count = k - first < kBlock ? k - first : kBlock;
        for (int64_t j = 0; j < kPanel; ++j) {
            uint16_t values[kBlock] = {};
            if (rows[j].data) read_bf16(rows[j].data, rows[j].type, first, count, values);
            for (int64_t pair = 0; pair < (count + 1) / 2; ++pair) {
                memcpy(out + (first / 2 + pair) * kPanel + j, values + 2 * pair, 4);
            }
        }
    }
}

void pack_panel_f32(const Row (&rows)[kPanel], int64_t k, float* out) {
    for (int64_t first = 0; first < k; first += kBlock) {
        const int64_t count = k - first < kBlock ? k - first : kBlock;
        for (int64_t j = 0; j < kPanel; ++j) {
            float values[kBlock] = {};
            if (rows[j].data) read_f32(rows[j].data, rows[j].type, first, count, values);
            for (int64_t i = 0; i < count; ++i) out[(first + i) * kPanel + j] = values[i];
        }
    }
}

}  // namespace

PackedWeight::PackedWeight(int64_t n, int64_t k, WeightType type, int64_t group, bool symmetric)
    : n(n), k(k), type(type), group(group), symmetric(symmetric), data(expected_bytes()) {}

PackedWeight::PackedWeight(int64_t n, int64_t k, WeightType type, int64_t group, bool symmetric, const void* bytes)
    : n(n), k(k), type(type), group(group), symmetric(symmetric), data(bytes, expected_bytes()) {}

size_t PackedWeight::expected_bytes() const {
    if (type == WeightType::planes) return size_t(planes_bytes(n, k));
    if (quantized()) return size_t(panels() * q_panel_bytes(qformat()));
    return size_t(panels() * panel_elements()) * (type == WeightType::bf16 ? 2 : 4);
}

void pack(Pool& pool, const std::vector<Part>& parts, PackedWeight& weight) {
    parallel(pool, weight.panels(), [&](int64_t panel) {
        Row rows[kPanel];
        find_rows(parts.data(), int64_t(parts.size()), weight.k, panel * kPanel, kPanel, rows);
        const int64_t offset = panel * weight.panel_elements();
        if (weight.type == WeightType::bf16) pack_panel_bf16(rows, weight.k, weight.data.as<uint32_t>() + offset / 2);
        else pack_panel_f32(rows, weight.k, weight.data.as<float>() + offset);
    });
}

}  // namespace quire

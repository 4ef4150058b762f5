// Packed weights: panels of kPanel columns (kPanel successive rows of the checkpoint's [n, k] matrix), padded with zeros.
//   bf16        [ceil(n/48)][ceil(k/2)][48][2]   pairs of successive k, as vdpbf16ps wants them
//   float32     [ceil(n/48)][k][48]
//   int8, int4  qformat.h
//   planes      qplanes.h
// Knows: the layouts. Does not know: who multiplies (gemm.h, qgemm.h), files.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "memory.h"
#include "part.h"
#include "qplanes.h"
#include "table.h"

namespace quire {

enum class WeightType { bf16, f32, int8, int4, planes };

struct PackedWeight {
    // Zero-filled lazily; throws std::bad_alloc.
    PackedWeight(int64_t n, int64_t k, WeightType type, int64_t group = 0, bool symmetric = true);
    // On bytes that somebody else keeps, at least expected_bytes() of them.
    PackedWeight(int64_t n, int64_t k, WeightType type, int64_t group, bool symmetric, const void* bytes);

    bool quantized() const { return type != WeightType::bf16 && type != WeightType::f32; }
    int64_t panels() const { return (n + kPanel - 1) / kPanel; }
    int64_t depth() const { return type == WeightType::bf16 ? 2 : 1; }                   // of bf16 and float32
    int64_t panel_elements() const { return (k + depth() - 1) / depth() * kPanel * depth(); }  // likewise
    int64_t panel_bytes() const { return quantized() ? q_panel_bytes(qformat()) : panel_elements() * (type == WeightType::bf16 ? 2 : 4); }
    QFormat qformat() const { return {k, type == WeightType::int8 ? 8 : 4, int32_t(group), symmetric}; }  // of planes: the high one's
    size_t expected_bytes() const;

    const int64_t n, k;
    const WeightType type;
    const int64_t group;   // of int8 and int4: inputs per scale, 0 when per channel
    const bool symmetric;  // of int4: no offsets
    Mapping data;
};

// Fills a bf16 or float32 `weight` with the parts one below the other; float16 and float32 become bf16 by rounding to nearest,
// ties to even.
void pack(Pool& pool, const std::vector<Part>& parts, PackedWeight& weight);

// out[i, :] = row rows[i] of the matrix as float32 [num_rows, k]; `rows` null means 0, 1, 2, ...; rows are in [0, n).
void unpack_rows(Pool& pool, const PackedWeight& weight, const int32_t* rows, int64_t num_rows, float* out);

}  // namespace quire

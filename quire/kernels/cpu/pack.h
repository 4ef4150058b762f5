// Packed weights: panels of kPanel columns (kPanel successive rows of the checkpoint's [n, k] matrix), padded with zeros.
//   bf16     [ceil(n/48)][ceil(k/2)][48][2]   pairs of successive k, as vdpbf16ps wants them
//   float32  [ceil(n/48)][k][48]
// Knows: the layout. Does not know: who multiplies (gemm.h), files.
#pragma once
#include <cstdint>
#include <vector>

#include "memory.h"
#include "table.h"

namespace quire {

enum class Number { bf16, f16, f32 };

// Some rows of a matrix as a checkpoint holds them: contiguous [rows, k].
struct Part {
    const void* data;
    int64_t rows;
    Number type;
};

struct PackedWeight {
    PackedWeight(int64_t n, int64_t k, bool bf16);  // zero-filled lazily; throws std::bad_alloc

    int64_t panels() const { return (n + kPanel - 1) / kPanel; }
    int64_t depth() const { return bf16 ? 2 : 1; }
    int64_t steps() const { return (k + depth() - 1) / depth(); }
    int64_t panel_elements() const { return steps() * kPanel * depth(); }

    const int64_t n, k;
    const bool bf16;
    Mapping data;
};

// Fills `weight` with the parts one below the other; float16 and float32 become bf16 by rounding to nearest, ties to even.
void pack(Pool& pool, const std::vector<Part>& parts, PackedWeight& weight);

// out[i, :] = row rows[i] of the matrix as float32 [num_rows, k]; `rows` null means 0, 1, 2, ...; rows are in [0, n).
void unpack_rows(Pool& pool, const PackedWeight& weight, const int32_t* rows, int64_t num_rows, float* out);

}  // namespace quire

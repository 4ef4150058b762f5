// gather_rows: out[r, :] = x[rows[r], :], a memcpy per row.
#include "gather.h"

#include <cstring>

namespace quire {

void gather_rows(Pool& pool, const float* x, const int32_t* rows, int64_t num_rows, int64_t width, float* out) {
    parallel(pool, num_rows, [&](int64_t i) { memcpy(out + i * width, x + rows[i] * width, size_t(width) * sizeof(float)); });
}

}  // namespace quire

// Copies chosen rows. Knows: rows. Does not know: what they hold.
#pragma once
#include "threads.h"

namespace quire {

// out[i, :] = x[rows[i], :], float32 [num_rows, width]; the caller has checked the rows' range.
void gather_rows(Pool& pool, const float* x, const int32_t* rows, int64_t num_rows, int64_t width, float* out);

}  // namespace quire

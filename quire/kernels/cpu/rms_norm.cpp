// rms_norm: out[t, h] = x[t, h] / sqrt(mean_h(x[t, h]^2) + eps) * weight[h]                    (float32; rowwise.h)
//
// Layout: rows are contiguous; a chunk is as many rows as make about 2 us.
// Versions tried: this one only; it is bound by memory.
#include "rowwise.h"
#include "table.h"

namespace quire::QUIRE_ISA {

void rms_norm(Runtime& runtime, const RmsNorm& args) {
    const int64_t rows_per_chunk = args.width < 8192 ? 8192 / (args.width > 0 ? args.width : 1) : 1;  // 32 KiB: about 2 us
    const int64_t num_chunks = (args.rows + rows_per_chunk - 1) / rows_per_chunk;
    parallel(runtime.pool, num_chunks, [&](int64_t chunk) {
        const int64_t end = (chunk + 1) * rows_per_chunk < args.rows ? (chunk + 1) * rows_per_chunk : args.rows;
        for (int64_t row = chunk * rows_per_chunk; row < end; ++row) {
            norm_row(args.x + row * args.width, args.weight, args.out + row * args.width, args.width, args.eps);
        }
    });
}

}  // namespace quire::QUIRE_ISA

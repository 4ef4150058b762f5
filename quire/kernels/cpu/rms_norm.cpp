// rms_norm: out[t, h] = x[t, h] / sqrt(mean_h(x[t, h]^2) + eps) * weight[h]                    (float32; Zhang, Sennrich 2019)
//
// Layout: rows are contiguous; four accumulators over vectors of the row, added in one order, so that a row's bits depend on
// the row alone. Two passes; the second finds the row in L1 or L2.
// Versions tried: this one only; it is bound by memory.
#include "simd.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

float sum_of_squares(const float* x, int64_t width) {
    Vec a0 = zero(), a1 = zero(), a2 = zero(), a3 = zero();
    int64_t i = 0;
    for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
        const Vec x0 = load(x + i), x1 = load(x + i + kLanes), x2 = load(x + i + 2 * kLanes), x3 = load(x + i + 3 * kLanes);
        a0 = fma(x0, x0, a0);
        a1 = fma(x1, x1, a1);
        a2 = fma(x2, x2, a2);
        a3 = fma(x3, x3, a3);
    }
    for (; i + kLanes <= width; i += kLanes) a0 = fma(load(x + i), load(x + i), a0);
    const Vec tail = load_n(x + i, int(width - i));
    return sum(add(add(fma(tail, tail, a0), a1), add(a2, a3)));
}

void norm_row(const float* x, const float* weight, float* out, int64_t width, float eps) {
    const float mean = sum_of_squares(x, width) / float(width);
    const Vec scale = set1(1.0f / __builtin_sqrtf(mean + eps));
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) store(out + i, mul(mul(load(x + i), scale), load(weight + i)));
    const int n = int(width - i);
    store_n(out + i, mul(mul(load_n(x + i, n), scale), load_n(weight + i, n)), n);
}

}  // namespace

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

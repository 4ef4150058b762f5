// linear with float32 weights: one multiply-add per product (fused, but on generic). Layout and order: gemm.h.
//
// Measured as in gemm_bf16.cpp, GFLOP/s (peak of avx512 and avx2: 117):
//   rows        1    4    8   16   32   64  128
//   avx512     13   50  103  108  108  106  109      (1 row: 26 GB/s, the memory's rate)
//   avx2       13   34   49   62   77   82   80
//   generic     9   27   32   28   34   34   34
// Versions tried, avx2: tiles of 4 x 24 instead of 4 x 16: slower at 4 rows (31 against 38) and 64, faster at 16 (72 against 63).
#include "gemm.h"

namespace quire::QUIRE_ISA {
namespace {

struct F32 {
    using W = float;
    using A = float;
    using Weights = Vec;
    using Value = Vec;
    static constexpr int kDepth = 1;
    static constexpr int kRows = kLanes == 16 ? 8 : 4;
    static constexpr int vectors(int rows) { return kLanes == 16 || rows == 2 ? 3 : rows == 1 ? 6 : 2; }
    static inline Weights weights(const W* p) { return load(p); }
    static inline Value value(const A* p) { return set1(*p); }
    static inline Vec madd(Vec acc, Value x, Weights w) { return fma(x, w, acc); }
    static void round(const float* x, int64_t k, A* out) { memcpy(out, x, size_t(k) * sizeof(float)); }
};

}  // namespace

void linear_f32(Runtime& runtime, const Linear& args) { linear<F32>(runtime, args); }

}  // namespace quire::QUIRE_ISA

// linear with bf16 weights: activations rounded to bf16 once, products of pairs summed in float32. Layout and order: gemm.h.
//
// Measured on a 2.6 GHz AMD EPYC (Zen 4: one 512-bit vdpbf16ps a cycle, 230 GFLOP/s a core), two threads, layers of Qwen3-0.6B one
// after the other (1024 -> 4096 normalised, 2048 -> 1024, 1024 -> 6144 normalised, 3072 -> 1024 gated) and its head, packing of
// rows and the pool included, beside the peak and the plain read rate of the same second:
//   rows       1     2     8     32    512
//            101    99    87     -      -    % of DRAM read (30 GB/s)
//              -     -     -    90     92 90 92 85 (the four layers)    % of 454 GFLOP/s; at 512 each layer's best of six runs beside
// the median peak; the median over whole steps, the head with one row in it, is 87
// One thread, layers of 8160 x 2048, an earlier run: rows 1 4 8 16 32 64 128: avx512 25 97 179 204 208 209 213 GFLOP/s,
// avx2 23 79 92 90 92 96 97 (float32 peak 117), generic 23 33 31 33 32 33 31.
// Versions tried, avx512:
//   8 steps of 24 multiplies are 50 ns, less than the way to DRAM; and memory and arithmetic took turns. Now the first tiles fetch
//     the next cache block while they compute on this one: into L1 175 GFLOP/s at 16 rows, into L2 (prefetcht1) 215
//   6 to 8 rows: the next cache block into L2 208 at 8 rows, 32 steps ahead into L1 159
//   4 rows, one thread, % of DRAM read: 32 steps ahead into L1 89, 48 steps prefetchnta 93 (but it may keep small models out of
//     the last cache), 128 steps 83, next cache block into L2 69; another run: no prefetch 58, 32 steps ahead 70
//   1 row, one thread / two: no prefetch 99 / 99, 32 steps ahead into L1 89 / 96, 64 steps ahead into L2 75 / 97
//   cache blocks of 512 steps instead of 256: the same within 2 %
//   lines of the outputs asked for, to be written, before a block of rows computes their sums (as qgemm.h does): four pairs of runs on
//     a busy machine, 1024 rows 0.55 to 1.17 of the rate, 32 rows 0.6 to 0.9 in all four: left out
//   a last panel of 16 columns computed whole, and rows interleaved one by one: 84-88 % instead of 90 % at 512 rows, 1024 outputs
#if QUIRE_ISA_amx
#include "gemm_tiles.h"

namespace quire::QUIRE_ISA {

void linear_bf16(Runtime& runtime, const Linear& args) { linear_tiles(runtime, args); }

}  // namespace quire::QUIRE_ISA
#else
#include "gemm.h"

namespace quire::QUIRE_ISA {
namespace {

#if QUIRE_ISA_avx512
// vdpbf16ps: 8 rows x 48 columns are 24 accumulators, 3 weight vectors and a broadcast, 28 of 32 registers.
struct Bf16 {
    using W = uint16_t;
    using A = uint16_t;
    using Weights = Pairs;
    using Value = Pairs;
    static constexpr int kDepth = 2, kRows = 8;
    static constexpr int vectors(int) { return 3; }
    static inline Weights weights(const W* p) { return load_pairs(p); }
    static inline Value value(const A* p) { return broadcast_pair(p); }
    static inline Vec madd(Vec acc, Value x, Weights w) { return dot(acc, x, w); }
    static void round(const float* x, int64_t k, A* out) {
        for (int64_t i = 0; i < k; i += 2 * kLanes) {
            const int64_t n = smaller(k - i, 2 * kLanes);
            const Vec low = load_n(x + i, int(smaller(n, kLanes)));
            const Vec high = load_n(x + i + smaller(n, kLanes), int(n > kLanes ? n - kLanes : 0));
            const __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v);
            _mm512_mask_storeu_epi32(out + i, first_lanes(int(n + 1) / 2), pairs);
        }
    }
};
#else
// Without vdpbf16ps: both operands widened to float32, two multiply-adds a step, the even k first.
struct Bf16 {
    using W = uint16_t;
    using A = float;
    struct Weights { Vec even, odd; };
    using Value = const float*;
    static constexpr int kDepth = 2, kRows = 4;
    static constexpr int vectors(int rows) { return rows == 1 ? 6 : rows == 2 ? 3 : 2; }
    static inline Weights weights(const W* p) {
        const Pairs pairs = load_pairs(p);
        return {even_of(pairs), odd_of(pairs)};
    }
    static inline Value value(const A* p) { return p; }
    static inline Vec madd(Vec acc, Value x, Weights w) { return fma(set1(x[1]), w.odd, fma(set1(x[0]), w.even, acc)); }
    static void round(const float* x, int64_t k, A* out) {
        for (int64_t i = 0; i < k; ++i) out[i] = bf16_value(bf16_bits(x[i]));
        if (k % 2) out[k] = 0.0f;
    }
};
#endif

}  // namespace

void linear_bf16(Runtime& runtime, const Linear& args) { linear<Bf16>(runtime, args); }

}  // namespace quire::QUIRE_ISA
#endif

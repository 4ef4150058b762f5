// linear with bf16 weights: activations rounded to bf16 once, products of pairs summed in float32. Layout and order: gemm.h.
//
// Measured on one core of a 2.6 GHz AMD EPYC (Zen 4: one 512-bit vdpbf16ps a cycle, 234 GFLOP/s; DRAM read 26 GB/s), layers of
// 8160 x 2048 streamed from DRAM, thread CPU time, best of 3, one run on a machine that was busy with other work:
//   rows                    1      4      8     16     32     64    128
//   avx512               24.6   24.3   22.4   12.7    6.5    3.3    1.7   GB/s of weights
//                          25     97    179    204    208    209    213   GFLOP/s
//   the first version      22     82    128    156    183    198    207   every panel's first tile fetched 8 steps ahead of itself
//   avx2                   23     79     92     90     92     96     97   (float32 peak 117)
//   generic                23     33     31     33     32     33     31
// Versions tried, avx512, each in runs of their own (they differ by some 10 %):
//   8 steps of 24 multiplies are 50 ns, less than the way to DRAM; and memory and arithmetic took turns. Now the first tiles fetch
//     the next cache block while they compute on this one: into L1 175 GFLOP/s at 16 rows, into L2 (prefetcht1) 215
//   6 to 8 rows: the next cache block into L2 208 at 8 rows, 32 steps ahead into L1 159
//   up to 5 rows: 32 steps ahead into L1 25 GB/s, 8 steps 22, 96 steps 21, the next cache block into L2 20
//   cache blocks of 512 steps instead of 256: the same within 2 %
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
    static void interleave(const float* x, int64_t k, A* out, int64_t rows) {
        alignas(64) uint32_t pairs[kLanes];
        for (int64_t i = 0; i < k; i += 2 * kLanes) {
            const int64_t n = smaller(k - i, 2 * kLanes);
            const Vec low = load_n(x + i, int(smaller(n, kLanes)));
            const Vec high = load_n(x + i + smaller(n, kLanes), int(n > kLanes ? n - kLanes : 0));
            _mm512_store_si512(pairs, (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v));
            for (int64_t j = 0; j < (n + 1) / 2; ++j, out += 2 * rows) memcpy(out, pairs + j, 4);
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
    static void interleave(const float* x, int64_t k, A* out, int64_t rows) {
        for (int64_t i = 0; i < k; i += 2, out += 2 * rows) {
            out[0] = bf16_value(bf16_bits(x[i]));
            out[1] = i + 1 < k ? bf16_value(bf16_bits(x[i + 1])) : 0.0f;
        }
    }
};
#endif

}  // namespace

void linear_bf16(Runtime& runtime, const Linear& args) { linear<Bf16>(runtime, args); }

}  // namespace quire::QUIRE_ISA

// Probes of the roof: how fast every thread reads a buffer, and how fast it repeats the multiply that the kernels are made of.
//
// Reading: each thread takes whole chunks in order; every line is loaded and folded into registers, with a prefetch `ahead` bytes
// before it (0: none). Which distance is fastest differs by machine, so the caller tries some and keeps the best.
// Multiplying: as many independent accumulators as hide the latency, nothing else in the loop. What is repeated:
//            float32          bfloat16                    int8
//   amx      vfmadd           tdpbf16ps                   tdpbsud, on tiles of zeros
//   avx512   vfmadd           vdpbf16ps                   vpdpbusd
//   avx2     vfmadd           vfmadd (bf16 is widened)    vpmaddwd and vpaddd: exact products of 16-bit values
//   generic  multiply, add    the same                    the same as avx2, four lanes
// Knows: instructions. Does not know: clocks (the caller's), ops.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "simd.h"
#include "table.h"
#include "tiles.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kChunkBytes = 1 << 16;
constexpr int kTasks = 4;  // a thread; few enough to be long, enough to be taken over
// 32 bytes at a time also where 64 would do: 31 against 28 GB/s on one or two cores of a Zen 4 (medians of six, in turn).
typedef uint64_t Words __attribute__((vector_size(kLanes * 4 < 32 ? kLanes * 4 : 32)));

inline Words read_words(const char* p) {
    Words words;
    memcpy(&words, p, sizeof words);
    return words;
}

uint64_t fold(const char* p, int64_t bytes, int64_t ahead) {
    Words sums[4] = {};
    constexpr int64_t kWidth = sizeof(Words), kStep = kWidth * 4 > 64 ? kWidth * 4 : 64;
    int64_t i = 0;
    for (; i + kStep <= bytes; i += kStep) {
        if (ahead > 0) {
            for (int64_t line = 0; line < kStep; line += 64) prefetch(p + i + ahead + line);
        }
        for (int64_t j = 0; j < kStep; j += kWidth) sums[j / kWidth % 4] ^= read_words(p + i + j);
    }
    uint64_t folded = 0;
    for (; i < bytes; ++i) folded ^= uint64_t(uint8_t(p[i])) << (8 * (i % 8));
    for (int s = 0; s < 4; ++s) {
        for (size_t lane = 0; lane < sizeof(Words) / 8; ++lane) folded ^= sums[s][lane];
    }
    return folded;
}

struct Float32 {
    using Acc = Vec;
    static constexpr int64_t kOps = 2 * kLanes;
    static inline Acc start(int i) { return set1(1.0f + float(i)); }
    static inline Acc step(Acc acc, Acc a, Acc b) { return fma(a, b, acc); }
    static inline float value(Acc acc) { return sum(acc); }
};

#if QUIRE_ISA_avx512
struct Bfloat16 {
    using Acc = Vec;
    static constexpr int64_t kOps = 4 * kLanes;
    static inline Acc start(int i) { return set1(1.0f + float(i)); }
    static inline Acc step(Acc acc, Acc a, Acc b) {
        return dot(acc, {_mm512_castps_si512(a.v)}, {_mm512_castps_si512(b.v)});
    }
    static inline float value(Acc acc) { return sum(acc); }
};
struct Int8 {
    using Acc = __m512i;
    static constexpr int64_t kOps = 8 * kLanes;
    static inline Acc start(int i) { return _mm512_set1_epi8(char(i)); }
    // By hand: gcc 12 copies and stores the accumulators of the intrinsic (217 of 465 GOP/s).
    static inline Acc step(Acc acc, Acc a, Acc b) {
        asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
        return acc;
    }
    static inline float value(Acc acc) { return float(_mm_cvtsi128_si32(_mm512_castsi512_si128(acc))); }
};
#elif QUIRE_ISA_avx2
using Bfloat16 = Float32;
struct Int8 {
    using Acc = __m256i;
    static constexpr int64_t kOps = 4 * kLanes;
    static inline Acc start(int i) { return _mm256_set1_epi16(short(i)); }
    static inline Acc step(Acc acc, Acc a, Acc b) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
    static inline float value(Acc acc) { return float(_mm256_extract_epi32(acc, 0)); }
};
#else
using Bfloat16 = Float32;
#if defined(__SSE2__)
struct Int8 {
    using Acc = __m128i;
    static constexpr int64_t kOps = 4 * kLanes;
    static inline Acc start(int i) { return _mm_set1_epi16(short(i)); }
    static inline Acc step(Acc acc, Acc a, Acc b) { return _mm_add_epi32(acc, _mm_madd_epi16(a, b)); }
    static inline float value(Acc acc) { return float(_mm_cvtsi128_si32(acc)); }
};
#else
struct Int8 {
    using Acc = I4;
    static constexpr int64_t kOps = 2 * kLanes;
    static inline Acc start(int i) { return I4{i, i, i, i}; }
    static inline Acc step(Acc acc, Acc a, Acc b) { return acc + a * b; }
    static inline float value(Acc acc) { return float(acc[0]); }
};
#endif
#endif

#if QUIRE_ISA_avx512
constexpr int kAccumulators = 24;
#else
constexpr int kAccumulators = 12;
#endif

// Unrolled, and with an empty asm in each round: gcc 12 otherwise exchanges the two loops, which leaves one accumulator at a time
// (112 of 234 GFLOP/s in bfloat16). `a` and `b` pass through memory that it cannot see through, so that nothing is precomputed.
template <class P>
float multiply(int64_t rounds) {
    typename P::Acc acc[kAccumulators], a = P::start(1), b = P::start(2);
    for (int i = 0; i < kAccumulators; ++i) acc[i] = P::start(i);
    asm volatile("" : "+m"(a), "+m"(b));
    for (int64_t round = 0; round < rounds; ++round) {
        asm volatile("");
#pragma GCC unroll 24
        for (int i = 0; i < kAccumulators; ++i) acc[i] = P::step(acc[i], a, b);
    }
    float value = 0;
    for (int i = 0; i < kAccumulators; ++i) value += P::value(acc[i]);
    return value;
}

template <class P>
void multiply_everywhere(Runtime& runtime, const RoofMultiply& args) {
    const int64_t tasks = kTasks * runtime.pool.num_threads();
    parallel(runtime.pool, tasks, [&](int64_t) {
        volatile float sink = multiply<P>(args.rounds);
        (void)sink;
    });
    *args.num_ops = tasks * args.rounds * kAccumulators * P::kOps;
}

#if QUIRE_ISA_amx
// Products of tiles; a round is four of them into four sums.
template <bool kBytes>
void multiply_tiles(Runtime& runtime, const RoofMultiply& args) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.shape(tile, 16, 64);
    const int64_t tasks = kTasks * runtime.pool.num_threads();
    parallel(runtime.pool, tasks, [&](int64_t) {
        begin_tiles(config);  // all zero
        for (int64_t round = 0; round < args.rounds; ++round) {
            if constexpr (kBytes) {
                _tile_dpbsud(0, 4, 6);
                _tile_dpbsud(1, 4, 7);
                _tile_dpbsud(2, 5, 6);
                _tile_dpbsud(3, 5, 7);
            } else {
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        end_tiles();
    });
    constexpr int64_t kSums = 16 * 16;
    *args.num_ops = tasks * args.rounds * 4 * kSums * (kBytes ? 128 : 64);
}
#endif

}  // namespace

void roof_read(Runtime& runtime, const RoofRead& args) {
    const int64_t chunks = (args.bytes + kChunkBytes - 1) / kChunkBytes;
    parallel(runtime.pool, chunks, [&](int64_t chunk) {
        const int64_t begin = chunk * kChunkBytes, left = args.bytes - begin;
        volatile uint64_t sink = fold(args.data + begin, left < kChunkBytes ? left : kChunkBytes, args.ahead);
        (void)sink;
    });
}

void roof_multiply(Runtime& runtime, const RoofMultiply& args) {
#if QUIRE_ISA_amx
    if (args.type == RoofMultiply::bfloat16) return multiply_tiles<false>(runtime, args);
    if (args.type == RoofMultiply::int8) return multiply_tiles<true>(runtime, args);
#endif
    switch (args.type) {
        case RoofMultiply::bfloat16: return multiply_everywhere<Bfloat16>(runtime, args);
        case RoofMultiply::int8: return multiply_everywhere<Int8>(runtime, args);
        default: return multiply_everywhere<Float32>(runtime, args);
    }
}

}  // namespace quire::QUIRE_ISA

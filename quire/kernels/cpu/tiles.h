// The tile registers of AMX: eight matrices of up to 16 rows of 64 bytes, and their products.
//
//   bf16   C[m][n] += sum over pairs k of A[m][k] * B[k][n]: A 16 rows of 32 bf16, B 16 rows of 16 pairs (as vdpbf16ps has them), C
//          16 x 16 float32. One instruction sums the even and the odd products of its pairs apart, k ascending, each by fused
//          multiply-adds from zero, then adds both to each other and that to C. Denormals count as zero.
//   int8   the same with quads of bytes instead of pairs, sums exact.
// An element of C depends on its own row of A and column of B alone, so how many rows or columns a tile has never changes a bit.
//
// Tiles are configured for each task and released behind it (begin_tiles, end_tiles): a thread that has none of them costs the system nothing to switch.
// Measured on one core of a 3.5 GHz Xeon (Granite Rapids): 3.1 TFLOP/s and 6.3 TOP/s, 16 cycles a product whatever the depth of k.
// Knows: instructions. Does not know: what is multiplied.
#pragma once
#if QUIRE_ISA_amx
#include <immintrin.h>

#include <cstdint>

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kTileRows16 = 16, kTileRowBytes = 64, kTileBytes = 1024;

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    constexpr void shape(int tile, int num_rows, int bytes) {
        rows[tile] = uint8_t(num_rows);
        row_bytes[tile] = uint16_t(bytes);
    }
};

// The instructions, for tile numbers that are template arguments (the intrinsics take literals alone).
template <int kTile>
inline __attribute__((always_inline)) void load_tile(const void* from, int64_t stride) {
    // What is read is named, from here on, instead of all memory: a compiler that thinks all of it written reads its own again.
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile), "m"(*static_cast<const char(*)[]>(from)));
}
template <int kTile>
inline __attribute__((always_inline)) void store_tile(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline __attribute__((always_inline)) void clear_tile() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
// C += A * B of bytes: A signed, B signed or not.
template <int kC, int kA, int kB, bool kSigned>
inline __attribute__((always_inline)) void multiply_bytes() {
    if constexpr (kSigned) asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
    else asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
}

// This thread's tiles, from here to end_tiles. (An object whose destructor ends them would need the language's machinery of exceptions,
// which instruction sets may not share.) All of the configuration is named as read: gcc 12's intrinsic names its first eight bytes alone, and
// stores to the rest of one made on the spot may be dropped.
inline void begin_tiles(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
inline void end_tiles() { _tile_release(); }

// The way from tiles to memory falls asleep where nothing has gone it for some 2,200 cycles, whatever was multiplied, and the next store then
// waits 850 for it. What multiplies for longer stores a tile meanwhile that nobody reads, all its rows to one line.
struct Awake {
    alignas(64) char line[64];

    template <int kTile>
    inline __attribute__((always_inline)) void keep() { store_tile<kTile>(line, 0); }
};

// What is fetched into L2 meanwhile, some lines behind each product: where many are asked for at once, what is needed now waits for them (a
// core has sixteen lines on their way to L1, prefetched ones too).
constexpr int64_t kBytesAhead = 8 << 10;  // of a panel that one task reads; 2 KiB: 1.03, a panel: 1.02 (int8) and 1.05 (bf16) of the time
struct Ahead {
    const char* at;
    int lines;

    inline __attribute__((always_inline)) void fetch() {
        for (int i = 0; i < lines; ++i, at += 64) asm volatile("prefetcht1 (%0)" ::"r"(at));  // a plain prefetch is moved
    }
};

// 16 values past the caches. `to`: a whole line.
inline void stream(float* to, Vec values) { _mm512_stream_ps(to, values.v); }

// Whether outputs of this panel go past the caches: they are more than these hold, so whoever reads them reads memory anyway, and their
// lines need not be read first. Whole lines only.
constexpr int64_t kInCaches = 4 << 20;  // bytes
inline bool past_caches(const Linear& g, int64_t panel) {
    return g.rows * g.n * 4 > kInCaches && !g.accumulate && !g.bias && (panel + 1) * kPanel <= g.n && g.n % 16 == 0 &&
           reinterpret_cast<uintptr_t>(g.out) % 64 == 0;
}

}  // namespace
}  // namespace quire::QUIRE_ISA
#endif

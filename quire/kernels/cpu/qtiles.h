// Products of many rows with int8 and int4 weights on AMX tiles: the operations of qgemm.h in their order, so the same bits.
//
// Integer sums of a section are exact in any order; tiles make them for 16 rows and 16 columns, and the scales are put on them by
// vectors. int8 lies in a panel as tiles want it (pack.h), three lines apart, unsigned; int4 is widened for all rows of a task into a
// buffer in L1, signed, so that its sums begin with zero.
// For each group of inputs, each 32 rows, each 16 x 16 sums: products, then the scales of the 16 x 16 sums before, which the processor
// does meanwhile. Sums in float32 are in L1: kTiledRows rows by a panel.
// Tiles: 0 to 3 inputs of 16 rows of a group (as sections are 32 deep, four of 32, else two of 64), 4 and 5 weights, 6 and 7 sums.
// Knows: tiles, panels, one task. Does not know: how tasks are split (qlinear.h).
#pragma once
#include "qgemm.h"
#include "qtiles_input.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kTiledRows = 64;  // of a task

// Rows of one panel.
struct TiledTask {
    const QFormat& format;
    int64_t section;
    const char* a;       // the first row's block
    int64_t block_bytes;  // of 16 rows
    const uint8_t* w;    // the panel
    int64_t rows;
    float* acc;          // [rows][kPanel]
    const char* ahead;   // to be fetched meanwhile, from the panel's own length on
};

// How deep a tile is and how many make a group.
template <int kSections>
struct Depth {
    static constexpr int kTiles = kSections == 4 ? 4 : 2, kInputs = kInputGroup / kTiles, kRowsOfB = kInputs / 4;
    static constexpr int kEach = kTiles / kSections;  // tiles of a section
};

inline TileConfig byte_tiles(int64_t section, int64_t rows) {
    TileConfig config;
    const int deep = section == 32 ? 32 : 64, num_rows = int(smaller(rows, kTileRows16));
    for (int tile = 0; tile < 4; ++tile) config.shape(tile, num_rows, deep);
    for (int tile = 4; tile < 6; ++tile) config.shape(tile, deep / 4, 64);
    for (int tile = 6; tile < 8; ++tile) config.shape(tile, num_rows, 64);
    return config;
}

// Sums of a 16 x 16 tile for each section of a group, and where their outputs are.
template <int kSections>
struct TileEnd {
    alignas(64) int32_t sums[kSections][16 * 16];
    const char* group;      // of the block of rows: behind its tiles stand scales and starts
    const uint8_t* scales;  // of the group's first section, for these columns
    float* acc;
    int num_sections, rows;
};

// Scales of up to 16 rows. `kStart`: sums begin with what stands in the rows' sums.
template <class P, int kSections, bool kStart>
inline __attribute__((always_inline)) void put_scales(const TileEnd<kSections>& end) {
    const auto* x_scales = reinterpret_cast<const float*>(end.group + kTiledGroup);
    const auto* starts = reinterpret_cast<const int32_t*>(x_scales + 16);
    Vec scale[kSections], offset[kSections];
    for (int s = 0; s < kSections; ++s) {
        if constexpr (P::kScales == Scales::channel) continue;
        const auto* at = reinterpret_cast<const uint16_t*>(end.scales + (s < end.num_sections ? s : 0) * P::kScaleBytes);
        scale[s] = load_bf16(at);
        if constexpr (P::kScales == Scales::offset) offset[s] = load_bf16(at + kPanel);
    }
    for (int r = 0; r < end.rows; ++r) {
        float* const to = end.acc + r * kPanel;
        Vec value = zero();
        for (int s = 0; s < kSections; ++s) {
            if (kSections > 1 && s >= end.num_sections) break;
            Ints sum = {_mm512_load_si512(end.sums[s] + 16 * r)};
            if constexpr (kStart) sum.v = _mm512_add_epi32(sum.v, _mm512_set1_epi32(starts[16 * s + r]));
            const Vec here = as_float(sum);
            if constexpr (P::kScales == Scales::channel) value = here;
            else value = kSections == 1 ? mul(here, scale[s]) : fma(here, scale[s], value);
            if constexpr (P::kScales == Scales::offset) {
                float total;
                memcpy(&total, starts + 16 * s + r, 4);
                value = fma(offset[s], set1(total), value);
            }
        }
        store(to, fma(value, set1(x_scales[r]), load(to)));
    }
}

template <int kSections, int kTile, bool kSigned, int kC>
inline __attribute__((always_inline)) void tile_of_group(const char* b, int64_t stride) {
    constexpr int kB = 4 + kTile % 2;
    load_tile<kB>(b, stride);
    multiply_bytes<kC, kTile, kB, kSigned>();
}

// The sums of one 16 x 16 tile.
template <int kSections, bool kSigned>
inline __attribute__((always_inline)) void sum_tile(const char* b, TileEnd<kSections>& end) {
    using D = Depth<kSections>;
    constexpr int64_t kStride = 4 * kPanel, kDown = D::kRowsOfB * kStride;
    clear_tile<6>();
    tile_of_group<kSections, 0, kSigned, 6>(b, kStride);
    if constexpr (D::kEach == 1) {
        store_tile<6>(end.sums[0], 64);
        clear_tile<7>();
        tile_of_group<kSections, 1, kSigned, 7>(b + kDown, kStride);
        store_tile<7>(end.sums[1], 64);
    } else {
        tile_of_group<kSections, 1, kSigned, 6>(b + kDown, kStride);
        store_tile<6>(end.sums[0], 64);
    }
    if constexpr (kSections == 4) {
        clear_tile<6>();
        tile_of_group<kSections, 2, kSigned, 6>(b + 2 * kDown, kStride);
        store_tile<6>(end.sums[2], 64);
        clear_tile<7>();
        tile_of_group<kSections, 3, kSigned, 7>(b + 3 * kDown, kStride);
        store_tile<7>(end.sums[3], 64);
    }
}

template <int kSections>
inline __attribute__((always_inline)) void load_inputs(const char* group) {
    load_tile<0>(group, kTileRowBytes);
    if constexpr (kSections == 4) {
        load_tile<1>(group + 32, kTileRowBytes);
        load_tile<2>(group + kTileBytes, kTileRowBytes);
        load_tile<3>(group + kTileBytes + 32, kTileRowBytes);
    } else {
        load_tile<1>(group + kTileBytes, kTileRowBytes);
    }
}

// A group of a panel as bytes, [k/4][48][4]: int8 as it lies, if it is whole; else in `buffer`, zeros behind the last input.
template <class P>
inline const char* bytes_of_group(const uint8_t* w, int64_t length, bool symmetric, char* buffer) {
    const int64_t steps = q_padded(length) / (4 * P::kQuads);
    if constexpr (P::kBits == 8) {
        if (length == kInputGroup) return reinterpret_cast<const char*>(w);
        memcpy(buffer, w, size_t(steps * kQStepBytes));
    } else {
        const __m512i zero_point = _mm512_set1_epi8(symmetric ? 8 : 0);
        for (int64_t i = 0; i < steps; ++i) {
            for (int v = 0; v < 3; ++v) {
                const uint8_t* from = w + i * kQStepBytes + 64 * v;
                char* const to = buffer + 2 * i * kQStepBytes + 64 * v;
                _mm512_store_si512(to, _mm512_sub_epi8(low_nibbles(from).v, zero_point));
                _mm512_store_si512(to + kQStepBytes, _mm512_sub_epi8(high_nibbles(from).v, zero_point));
            }
        }
    }
    memset(buffer + steps * P::kQuads * kQStepBytes, 0, size_t((kInputGroup / 4 - steps * P::kQuads) * kQStepBytes));
    return buffer;
}

// Adds a group of inputs to the sums of all rows of a task.
template <class P, int kSections>
void tiled_group(const TiledTask& t, const char* a, const char* b, const uint8_t* scales, int num_sections, const char* ahead, int lines) {
    constexpr bool kSigned = P::kBits == 4, kStart = P::kBits == 8;
    TileEnd<kSections> ends[2];
    int now = 0;
    bool pending = false;
    for (int64_t row = 0; row < t.rows; row += kTileRows16, a += t.block_bytes) {
        load_inputs<kSections>(a);
        for (int v = 0; v < 3; ++v) {
            TileEnd<kSections>& end = ends[now];
            for (int line = 0; line < lines; ++line, ahead += 64) prefetch_l2(ahead);
            sum_tile<kSections, kSigned>(b + 64 * v, end);
            end.group = a;
            end.scales = scales + 32 * v;
            end.acc = t.acc + row * kPanel + 16 * v;
            end.num_sections = num_sections;
            end.rows = int(smaller(t.rows - row, kTileRows16));
            now ^= 1;
            if (pending) put_scales<P, kSections, kStart>(ends[now]);
            pending = true;
        }
    }
    put_scales<P, kSections, kStart>(ends[now ^ 1]);
}

// All inputs of a task.
template <class P, int kSections>
void tiled_task(const TiledTask& t) {
    alignas(64) char buffer[kInputGroup * kPanel];
    memset(t.acc, 0, size_t(t.rows * kPanel) * sizeof(float));
    const int64_t group_bytes = tiled_group_bytes(t.section), blocks = ceil_div(t.rows, kTileRows16);
    const int lines = int(ceil_div(kInputGroup * kPanel * P::kBits / 8 / 64, 3 * blocks));
    const char *a = t.a, *ahead = t.ahead;
    for (int64_t k = 0; k < t.format.k; k += kInputGroup, a += group_bytes, ahead += lines * 3 * blocks * 64) {
        const int64_t length = smaller(t.format.k - k, kInputGroup);
        const char* b = bytes_of_group<P>(t.w + q_weights_at(t.format, k), length, t.format.symmetric, buffer);
        const uint8_t* scales = P::kScales == Scales::channel ? t.w : t.w + q_scales_at(t.format, k);
        tiled_group<P, kSections>(t, a, b, scales, int(ceil_div(length, t.section)), ahead, lines);
    }
}

template <class P>
void any_tiled_task(const TiledTask& t) {
    if (t.section == kInputGroup) return tiled_task<P, 1>(t);
    if constexpr (P::kScales != Scales::channel) {
        if (t.section == 64) tiled_task<P, 2>(t);
        else tiled_task<P, 4>(t);
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// Attention on bf16 pages with AMX tiles, for any number of rows: attention_tile.h's scores and values, as products of tiles.
//
//   scores   keys as a page has them, times queries turned over: [16 tokens][32 dims] * [32 dims][rows], turned into rows afterwards
//   values   rows of weights times values: [rows][32 tokens] * [32 tokens][16 dims]
// Order for a row: scores over dims ascending, 32 to a product; values over tokens ascending, 32 to a product, which begin at fixed
// places (tiles.h says how a product adds; which side is the left one changes nothing). Keys that a row does not see weigh nothing, and
// values that no row here sees count as zero, whatever stands in their slots. So every row has the bits that it has alone.
// A page has values of 16 tokens, and a product takes as long for 16 as for 32: a tile's values are copied, two pages to a product.
// Tiles: 0 to 3 sums, 4 and 5 the left side (keys; weights of a block of rows), 6 and 7 the right side (queries of a block; values).
//
// Versions tried, two cores of a 3.3 GHz Xeon, 16 query and 8 kv heads of 128, against what stands here (32 requests on 160 tokens 0.70 ms): keys
// turned 0.98; all values copied before the first product 0.90; one shape of tiles for scores and values 0.80, prompts the same; every
// second or fourth line of the next page fetched 0.94 and 1.0; no pages fetched 2-4 % more for prompts.
// Included by attention_split.h alone; everything is in its unnamed namespace.
// Knows: rows, pages, tiles. Does not know: softmax, splits, items, threads.
#pragma once
#include "attention_tiles_score.h"

namespace quire::QUIRE_ISA {
namespace {

// ---- softmax ----------------------------------------------------------------------------------------------------------

// Two of a row's softmax passes over a tile, as soften_row has them: first the scaled scores and what is largest, for all rows, so that
// no row waits for the row before; then corrections, 16 rows at a time; then the weights.
inline void find_maxima(Work<Bf16>& work, int row, int limit, float scale, float& tile_max, float& guard_sum) {
    constexpr int kAll = kKeyTile / kLanes;
    float* const scores = work.scores + row * kKeyTile;
    const Vec by = set1(scale), lowest = set1(-__builtin_inff());
    Vec highest[2] = {lowest, lowest}, guard[2] = {zero(), zero()};
    for (int i = 0; i < kAll; ++i) {
        const int seen = limit - i * kLanes;
        if (seen <= 0) break;
        Vec s = mul(load(scores + i * kLanes), by);
        if (seen < kLanes) s.v = _mm512_mask_mov_ps(set1(kUnseen).v, first_lanes(seen), s.v);
        store(scores + i * kLanes, s);
        highest[i % 2] = max(highest[i % 2], s);
        guard[i % 2] = fma(s, zero(), guard[i % 2]);
    }
    tile_max = largest(max(highest[0], highest[1]));
    guard_sum = sum(add(guard[0], guard[1]));
}

inline void put_row_weights(Work<Bf16>& work, int row, int limit, float new_max, float correction, float guard) {
    float* const scores = work.scores + row * kKeyTile;
    float* const lanes = work.lanes + row * 16;
    Vec sums[2] = {add(mul(load(lanes), set1(correction)), set1(guard)), zero()};
    const Vec top = set1(new_max);
    const int end = (limit + kLanes - 1) / kLanes;
    for (int i = 0; i < end; ++i) {
        const Vec p = Bf16::put_weights(work, row, i * kLanes, exp2<Bf16::kDegree>(sub(load(scores + i * kLanes), top)));
        sums[i % 2] = add(sums[i % 2], p);
    }
    store(lanes, add(sums[0], sums[1]));
}

inline void soften_rows(Work<Bf16>& work, int first, int end, int tile_begin, float scale, float* running) {
    alignas(64) float tile_max[kTileRows], guard[kTileRows], now[kTileRows];
    const auto limit = [&](int row) { return least(kKeyTile, work.visible[row] - tile_begin); };
    for (int row = first; row < end; ++row) find_maxima(work, row, limit(row), scale, tile_max[row - first], guard[row - first]);
    for (int i = 0; i < end - first; i += kLanes) {
        const int n = least(kLanes, end - first - i);
        const Vec before = load_n(running + first + i, n), here = load_n(tile_max + i, n);
        const Vec top = below(here, before, before, here);
        store_n(work.correction + first + i, below(before, top, exp2<Bf16::kDegree>(sub(before, top)), set1(1.0f)), n);
        store_n(running + first + i, top, n);
        store_n(now + i, top, n);
    }
    for (int row = first; row < end; ++row) {
        put_row_weights(work, row, limit(row), now[row - first], work.correction[row], guard[row - first]);
    }
}

// ---- values -----------------------------------------------------------------------------------------------------------

inline TileConfig tiles_of_values(int rows) {
    TileConfig config;
    const int first = least(rows, kBlockRows), second = rows - first;
    for (int tile = 0; tile < 4; ++tile) config.shape(tile, second > 0 && tile > 1 ? second : first, 64);
    config.shape(4, first, 64);
    if (second > 0) config.shape(5, second, 64);
    for (int tile = 6; tile < 8; ++tile) config.shape(tile, kProductWords, 64);
    return config;
}

// The values of the first `num_tokens` tokens of a page, zeros from there on.
template <int kWidth>
inline void copy_some(const uint32_t* from, int stride, int num_tokens, uint32_t* values) {
    for (int word = 0; word < kTileTokens / 2; ++word, from += stride, values += kWidth) {
        const int seen = num_tokens - 2 * word;
        const __m512i mask = _mm512_set1_epi32(seen > 1 ? -1 : 0xffff);
        for (int d = 0; d < kWidth; d += 16) {
            if (seen > 0) _mm512_store_si512(values + d, _mm512_and_si512(mask, _mm512_loadu_si512(from + d)));
            else _mm512_store_si512(values + d, _mm512_setzero_si512());
        }
    }
}

// Values of a product, of the first `limit` keys of the tile, zeros from there on: [16 words][kWidth] from dim `dim` on. Meanwhile the
// next tiles' are fetched.
template <int kWidth, bool kFetch>
inline void copy_values(const Work<Bf16>& work, int product, int limit, int dim, uint32_t* values) {
    constexpr int kWordsPerTile = kTileTokens / 2;
    for (int half = 0; half < 2; ++half, values += kWordsPerTile * kWidth) {
        const int page = product * 2 + half, num_tokens = limit - page * kTileTokens;
        const uint32_t* const from = work.v[page] + dim;
        if (num_tokens >= kTileTokens) {
#pragma GCC unroll 8
            for (int word = 0; word < kWordsPerTile; ++word) {
                for (int d = 0; d < kWidth; d += 16)
                    _mm512_store_si512(values + word * kWidth + d, _mm512_loadu_si512(from + word * work.padded_dim + d));
            }
        } else {
            copy_some<kWidth>(from, work.padded_dim, num_tokens, values);
        }
        if (!kFetch || page >= work.num_next) continue;
        const uint32_t* const next = work.next[page] + work.k_words + dim;
#pragma GCC unroll 8
        for (int word = 0; word < kWordsPerTile; ++word) {
            for (int d = 0; d < kWidth; d += 16) fetch(next + word * work.padded_dim + d);
        }
    }
}

// What a pass over the values of some dims adds to: acc[rows][padded_dim], with the weights of these rows.
struct ValuePass {
    const Work<Bf16>& work;
    const uint32_t* weights;  // [rows][kKeyTile / 2]
    float* acc;
    int limit;
};

// kTiles tiles of 16 dims from `dim` on, for a block of rows (up to four) or for two (up to two). The values of the next product are
// copied before this one's are multiplied: what is stored is in L1 only when all before it has ended, and tiles are loaded from there.
// `primed`: the first product's are there already; `more`: the tiles behind these follow, and their first product's are to be.
template <int kTiles, bool kTwoBlocks>
inline void weigh_dims(const ValuePass& p, int dim, uint32_t* (&values)[2], bool primed, bool more) {
    constexpr int kStride = kKeyTile / 2, kWidth = 16 * kTiles;
    constexpr bool kFetch = !kTwoBlocks;
    const int width = p.work.padded_dim;
    Awake awake;
    float *const acc = p.acc + dim, *const below = acc + kBlockRows * width;
    if (!primed) copy_values<kWidth, kFetch>(p.work, 0, p.limit, dim, values[0]);
    load_tile<0>(acc, 4 * width);
    if constexpr (kTiles > 1) load_tile<1>(acc + 16, 4 * width);
    if constexpr (kTwoBlocks) load_tile<2>(below, 4 * width);
    if constexpr (kTwoBlocks && kTiles > 1) load_tile<3>(below + 16, 4 * width);
    if constexpr (kTiles > 2) load_tile<2>(acc + 32, 4 * width);
    if constexpr (kTiles > 3) load_tile<3>(acc + 48, 4 * width);
    for (int i = 0; i * kProductTokens < p.limit; ++i) {
        if ((i + 1) * kProductTokens < p.limit) copy_values<kWidth, kFetch>(p.work, i + 1, p.limit, dim, values[1]);
        else if (more) copy_values<kWidth, kFetch>(p.work, 0, p.limit, dim + kWidth, values[1]);
        const uint32_t* const b = values[0];
        load_tile<4>(p.weights + i * kProductWords, 4 * kStride);
        if constexpr (kTwoBlocks) load_tile<5>(p.weights + kBlockRows * kStride + i * kProductWords, 4 * kStride);
        load_tile<6>(b, 4 * kWidth);
        multiply_pairs<0, 4, 6>();
        if constexpr (kTwoBlocks) multiply_pairs<2, 5, 6>();
        if constexpr (kTiles > 1) {
            load_tile<7>(b + 16, 4 * kWidth);
            multiply_pairs<1, 4, 7>();
            if constexpr (kTwoBlocks) multiply_pairs<3, 5, 7>();
        }
        if constexpr (kTiles > 2) {
            load_tile<6>(b + 32, 4 * kWidth);
            multiply_pairs<2, 4, 6>();
        }
        if constexpr (kTiles > 3) {
            load_tile<7>(b + 48, 4 * kWidth);
            multiply_pairs<3, 4, 7>();
        }
        awake.keep<4>();
        uint32_t* const other = values[1];
        values[1] = values[0];
        values[0] = other;
    }
    store_tile<0>(acc, 4 * width);
    if constexpr (kTiles > 1) store_tile<1>(acc + 16, 4 * width);
    if constexpr (kTwoBlocks) store_tile<2>(below, 4 * width);
    if constexpr (kTwoBlocks && kTiles > 1) store_tile<3>(below + 16, 4 * width);
    if constexpr (kTiles > 2) store_tile<2>(acc + 32, 4 * width);
    if constexpr (kTiles > 3) store_tile<3>(acc + 48, 4 * width);
}

// All dims, kTiles tiles at a time, and one by one what is left.
template <int kTiles, bool kTwoBlocks>
inline void weigh_all_dims(const ValuePass& pass) {
    alignas(64) uint32_t buffer[2][kProductWords * 16 * kTiles];
    uint32_t* values[2] = {buffer[0], buffer[1]};
    constexpr int kWidth = 16 * kTiles;
    const int width = pass.work.padded_dim;
    int dim = 0;
    for (; dim + kWidth <= width; dim += kWidth) weigh_dims<kTiles, kTwoBlocks>(pass, dim, values, dim > 0, dim + 2 * kWidth <= width);
    for (; dim < width; dim += 16) weigh_dims<1, kTwoBlocks>(pass, dim, values, false, false);
}

// Rows [first, end) on the first `limit` keys of the tile.
inline void weigh_block(const Work<Bf16>& work, int first, int end, int limit, float* acc) {
    const ValuePass pass{work, work.row_weights(first), acc + first * work.padded_dim, limit};
    begin_tiles(tiles_of_values(end - first));
    if (end - first > kBlockRows) weigh_all_dims<2, true>(pass);
    else weigh_all_dims<4, false>(pass);
    end_tiles();
}

// Whether the values of keys [begin, end) of the tile are all numbers.
inline bool all_finite(const Work<Bf16>& work, int begin, int end) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    __mmask32 found = 0;
    for (int key = begin / 2 * 2; key < end; key += 2) {
        const uint32_t* const from = work.v[key / kTileTokens] + key % kTileTokens / 2 * work.padded_dim;
        const __mmask32 seen = key + 1 < end ? 0xffffffff : 0x55555555;
        for (int d = 0; d < work.padded_dim; d += 16) {
            found |= _mm512_mask_cmpeq_epi16_mask(seen, _mm512_and_si512(exponent, _mm512_loadu_si512(from + d)), exponent);
        }
    }
    return found == 0;
}

// As the template of attention_tile.h. A value that is not finite must not reach rows that do not see it, and zero times it would: the
// rows go one by one then, each with what it sees.
inline void weigh_rows(Work<Bf16>& work, int first, int end, int tile_begin, float* acc) {
    const auto limit = [&](int row) { return least(kKeyTile, work.visible[row] - tile_begin); };
    const int width = work.padded_dim, most = limit(end - 1);
    const int num_words = (most + kProductTokens - 1) / kProductTokens * kProductWords;
    for (int row = first; row < end; ++row) {
        uint32_t* const weights = work.row_weights(row);
        const int written = (limit(row) + 15) / 16 * 8;  // words, by the softmax
        if (written < num_words) memset(weights + written, 0, size_t(num_words - written) * 4);
        const Vec correction = set1(work.correction[row]);
        float* const own = acc + row * width;
        for (int d = 0; d < width; d += kLanes) store(own + d, mul(load(own + d), correction));
    }
    if (limit(first) == most || all_finite(work, limit(first), most)) return weigh_block(work, first, end, most, acc);
    for (int row = first; row < end; ++row) weigh_block(work, row, row + 1, limit(row), acc);
}

}  // namespace
}  // namespace quire::QUIRE_ISA

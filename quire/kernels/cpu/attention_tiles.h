// Attention on bf16 pages with AMX tiles, for any number of rows: attention_tile.h's scores and values, as products of tiles.
//
//   scores   rows of queries times keys turned over (attention_turn.h): [rows][32 dims] * [32 dims][16 tokens]
//   values   rows of weights times values: [rows][32 tokens] * [32 tokens][16 dims]
// Order for a row: scores over dims ascending, 32 to a product; values over tokens ascending, 32 to a product, which begin at fixed
// places (tiles.h says how a product adds). Keys that a row does not see weigh nothing, and values that no row here sees count as zero,
// whatever stands in their slots. So every row has the bits that it has alone.
// A page has values of 16 tokens, and a product takes as long for 16 as for 32: a tile's values are copied, two pages to a product.
// Tiles: 0 to 3 sums (two blocks of rows by two), 4 and 5 queries or weights of a block, 6 and 7 keys or values.
// Included by attention_split.h alone; everything is in its unnamed namespace.
// Knows: rows, pages, tiles. Does not know: softmax, splits, items, threads.
#pragma once
#include "attention_tile.h"
#include "tiles.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int kBlockRows = 16;
constexpr int kProductTokens = 32;
constexpr int kProductWords = kProductTokens / 2;

inline TileConfig tiles_of_rows(int rows) {
    TileConfig config;
    const int first = least(rows, kBlockRows), second = rows - first;
    for (int tile = 0; tile < 2; ++tile) config.shape(tile, first, 64);
    config.shape(4, first, 64);
    if (second > 0) {
        for (int tile = 2; tile < 4; ++tile) config.shape(tile, second, 64);
        config.shape(5, second, 64);
    }
    for (int tile = 6; tile < 8; ++tile) config.shape(tile, 16, 64);
    return config;
}

template <int kC, int kA, int kB>
inline __attribute__((always_inline)) void multiply_pairs() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
}

// One product for one or two blocks of rows, and one or two tiles b.
template <bool kTwoBlocks, bool kTwoTiles>
inline __attribute__((always_inline)) void product(const uint32_t* a, int a_stride, const uint32_t* b0, const uint32_t* b1, int b_stride) {
    load_tile<6>(b0, 4 * b_stride);
    load_tile<4>(a, 4 * a_stride);
    multiply_pairs<0, 4, 6>();
    if constexpr (kTwoTiles) {
        load_tile<7>(b1, 4 * b_stride);
        multiply_pairs<1, 4, 7>();
    }
    if constexpr (kTwoBlocks) {
        load_tile<5>(a + kBlockRows * a_stride, 4 * a_stride);
        multiply_pairs<2, 5, 6>();
        if constexpr (kTwoTiles) multiply_pairs<3, 5, 7>();
    }
}

template <bool kTwoBlocks, bool kTwoTiles>
inline __attribute__((always_inline)) void clear_sums() {
    clear_tile<0>();
    if constexpr (kTwoTiles) clear_tile<1>();
    if constexpr (kTwoBlocks) clear_tile<2>();
    if constexpr (kTwoBlocks && kTwoTiles) clear_tile<3>();
}

// The tile beside, 16 columns on; the block below, 16 rows on.
template <bool kTwoBlocks, bool kTwoTiles>
inline __attribute__((always_inline)) void load_sums(const float* from, int stride) {
    load_tile<0>(from, 4 * stride);
    if constexpr (kTwoTiles) load_tile<1>(from + 16, 4 * stride);
    if constexpr (kTwoBlocks) load_tile<2>(from + kBlockRows * stride, 4 * stride);
    if constexpr (kTwoBlocks && kTwoTiles) load_tile<3>(from + kBlockRows * stride + 16, 4 * stride);
}

template <bool kTwoBlocks, bool kTwoTiles>
inline __attribute__((always_inline)) void store_sums(float* to, int stride) {
    store_tile<0>(to, 4 * stride);
    if constexpr (kTwoTiles) store_tile<1>(to + 16, 4 * stride);
    if constexpr (kTwoBlocks) store_tile<2>(to + kBlockRows * stride, 4 * stride);
    if constexpr (kTwoBlocks && kTwoTiles) store_tile<3>(to + kBlockRows * stride + 16, 4 * stride);
}

// Words of a row of queries as products take them.
inline int words_of_row(const Work<Bf16>& work) { return (work.depth + kProductWords - 1) / kProductWords * kProductWords; }

// q[rows][words_of_row]: rows as they are, zeros behind the last dim.
inline const uint32_t* whole_rows(const Work<Bf16>& work, int first, int end, uint32_t* buffer) {
    const int words = words_of_row(work);
    if (words == work.q_stride && words == work.depth) return work.q + first * work.q_stride;
    for (int row = first; row < end; ++row) {
        uint32_t* const to = buffer + (row - first) * words;
        memcpy(to, work.q + row * work.q_stride, size_t(work.depth) * 4);
        memset(to + work.depth, 0, size_t(words - work.depth) * 4);
    }
    return buffer;
}

// Keys of a tile turned over, zeros behind the last dim.
inline void turn_whole(const Work<Bf16>& work, int tile, uint32_t* keys) {
    turn_keys(work, tile, keys);
    memset(keys + work.depth * 16, 0, size_t(words_of_row(work) - work.depth) * 64);
}

template <bool kTwoBlocks>
void score_blocks(Work<Bf16>& work, const uint32_t* q, int first, int num_tiles) {
    const int words = words_of_row(work);
    float* scores = work.scores + first * kKeyTile;
    int tile = 0;
    for (; tile + 2 <= num_tiles; tile += 2) {
        uint32_t* const keys = work.keys + tile % 4 * work.key_stride;
        for (int j = 0; j < 2; ++j) turn_whole(work, tile + j, keys + j * work.key_stride);
        clear_sums<kTwoBlocks, true>();
        for (int w = 0; w < words; w += kProductWords)
            product<kTwoBlocks, true>(q + w, words, keys + w * 16, keys + work.key_stride + w * 16, 16);
        store_sums<kTwoBlocks, true>(scores + tile * 16, kKeyTile);
    }
    if (tile == num_tiles) return;
    uint32_t* const keys = work.keys + tile % 4 * work.key_stride;
    turn_whole(work, tile, keys);
    clear_sums<kTwoBlocks, false>();
    for (int w = 0; w < words; w += kProductWords) product<kTwoBlocks, false>(q + w, words, keys + w * 16, nullptr, 16);
    store_sums<kTwoBlocks, false>(scores + tile * 16, kKeyTile);
}

// As the template of attention_tile.h.
inline void score_rows(Work<Bf16>& work, int first, int end, int num_tiles) {
    alignas(64) uint32_t buffer[kTileRows * kMaxHeadDim / 2];
    const uint32_t* const q = whole_rows(work, first, end, buffer);
    begin_tiles(tiles_of_rows(end - first));
    if (end - first > kBlockRows) score_blocks<true>(work, q, first, num_tiles);
    else score_blocks<false>(work, q, first, num_tiles);
    end_tiles();
}

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

// values[words][padded_dim] of the first `limit` keys of the tile, zeros from there to the end of a product; meanwhile the next
// tiles' values are fetched.
inline void copy_values(const Work<Bf16>& work, int limit, uint32_t* values) {
    constexpr int kWordsPerTile = kTileTokens / 2;
    const int whole = limit / 2, end = (limit + kProductTokens - 1) / kProductTokens * kProductWords, width = work.padded_dim;
    const auto copy = [&](int word, __m512i mask) {
        const int page = word / kWordsPerTile, line = word % kWordsPerTile * width;
        const uint32_t* const from = work.v[page] + line;
        for (int d = 0; d < width; d += 16) {
            _mm512_store_si512(values + word * width + d, _mm512_and_si512(mask, _mm512_loadu_si512(from + d)));
            if (page < work.num_next && d + line < work.v_lines * 16) fetch(work.next[page] + work.k_words + line + d);
        }
    };
    for (int word = 0; word < whole; ++word) copy(word, _mm512_set1_epi32(-1));
    if (limit % 2) copy(whole, _mm512_set1_epi32(0xffff));
    const int begin = (limit + 1) / 2;
    memset(values + begin * width, 0, size_t(end - begin) * size_t(width) * 4);
}

template <bool kTwoBlocks, bool kTwoTiles>
inline void weigh_dims(const uint32_t* weights, const uint32_t* values, int num_products, int width, float* acc) {
    constexpr int kStride = kKeyTile / 2;
    load_sums<kTwoBlocks, kTwoTiles>(acc, width);
    for (int i = 0; i < num_products; ++i) {
        const uint32_t* const b = values + i * kProductWords * width;
        product<kTwoBlocks, kTwoTiles>(weights + i * kProductWords, kStride, b, b + 16, width);
    }
    store_sums<kTwoBlocks, kTwoTiles>(acc, width);
}

template <bool kTwoBlocks>
void weigh_blocks(const uint32_t* weights, const uint32_t* values, int num_products, int width, float* acc) {
    int d = 0;
    for (; d + 32 <= width; d += 32) weigh_dims<kTwoBlocks, true>(weights, values + d, num_products, width, acc + d);
    if (d < width) weigh_dims<kTwoBlocks, false>(weights, values + d, num_products, width, acc + d);
}

// Whether the copied values of keys [least, limit) are all numbers.
inline bool all_finite(const Work<Bf16>& work, int least, int limit, const uint32_t* values) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    __mmask32 found = 0;
    for (int i = least / 2 * work.padded_dim; i < (limit + 1) / 2 * work.padded_dim; i += 16) {
        found |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(exponent, _mm512_load_si512(values + i)), exponent);
    }
    return found == 0;
}

// Rows [first, end), which see the first `limit` keys of the tile or fewer.
inline void weigh_copied(const Work<Bf16>& work, int first, int end, int limit, const uint32_t* values, float* acc) {
    const int width = work.padded_dim, num_products = (limit + kProductTokens - 1) / kProductTokens;
    begin_tiles(tiles_of_rows(end - first));
    if (end - first > kBlockRows) weigh_blocks<true>(work.row_weights(first), values, num_products, width, acc + first * width);
    else weigh_blocks<false>(work.row_weights(first), values, num_products, width, acc + first * width);
    end_tiles();
}

// As the template of attention_tile.h. A value that is not finite must not reach rows that do not see it, and zero times it would: the
// rows go one by one then, each with what it sees.
inline void weigh_rows(Work<Bf16>& work, int first, int end, int tile_begin, float* acc) {
    alignas(64) uint32_t values[kKeyTile / 2 * kMaxHeadDim];
    const auto limit = [&](int row) { return least(kKeyTile, work.visible[row] - tile_begin); };
    const int width = work.padded_dim, most = limit(end - 1);
    const int num_words = (most + kProductTokens - 1) / kProductTokens * kProductWords;
    copy_values(work, most, values);
    for (int row = first; row < end; ++row) {
        uint32_t* const weights = work.row_weights(row);
        const int written = (limit(row) + 15) / 16 * 8;  // words, by the softmax
        if (written < num_words) memset(weights + written, 0, size_t(num_words - written) * 4);
        const Vec correction = set1(work.correction[row]);
        float* const own = acc + row * width;
        for (int d = 0; d < width; d += kLanes) store(own + d, mul(load(own + d), correction));
    }
    if (limit(first) == most || all_finite(work, limit(first), most, values)) return weigh_copied(work, first, end, most, values, acc);
    work.num_next = 0;  // fetched already
    for (int row = first; row < end; ++row) {
        copy_values(work, limit(row), values);
        weigh_copied(work, row, row + 1, limit(row), values, acc);
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

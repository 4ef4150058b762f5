// Scores of attention on bf16 pages with AMX tiles: keys as a page has them, times queries turned over, and the sums turned into rows
// afterwards, those of many rows between the products of the next tiles. See attention_tiles.h for the order and the tiles.
// Included by attention_tiles.h alone; everything is in its unnamed namespace.
// Knows: rows, pages, tiles. Does not know: softmax, values, splits, threads.
#pragma once
#include "attention_tile.h"
#include "tiles.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int kBlockRows = 16;
constexpr int kProductTokens = 32;
constexpr int kProductWords = kProductTokens / 2;

template <int kC, int kA, int kB>
inline __attribute__((always_inline)) void multiply_pairs() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
}

// Words of a row of queries as products take them.
inline int words_of_row(const Work<Bf16>& work) { return (work.depth + kProductWords - 1) / kProductWords * kProductWords; }

// work.keys[words_of_row][kTileRows] = all queries turned over, zeros behind the last dim. (Keys stay as they lie.)
inline void turn_queries(Work<Bf16>& work) {
    alignas(64) uint32_t row_words[kBlockRows * kMaxHeadDim / 2];
    const int words = words_of_row(work);
    for (int row = 0; row < work.num_rows; row += kBlockRows) {
        const int num_rows = least(kBlockRows, work.num_rows - row);
        for (int r = 0; r < num_rows; ++r) {
            memcpy(row_words + r * words, work.q + (row + r) * work.q_stride, size_t(work.depth) * 4);
            memset(row_words + r * words + work.depth, 0, size_t(words - work.depth) * 4);
        }
        for (int w = 0; w < words; w += 16) turn<false>(row_words + w, words, num_rows - 1, work.keys + w * kTileRows + row, kTileRows);
    }
}

// Sums are [16 tokens][rows of a block]; with two blocks, 0 and 2 are of the first and 1 and 3 of the second.
inline TileConfig tiles_of_scores(int rows) {
    TileConfig config;
    const int first = least(rows, kBlockRows), second = rows - first;
    for (int tile = 0; tile < 4; ++tile) config.shape(tile, kTileTokens, 4 * (second > 0 && tile % 2 == 1 ? second : first));
    for (int tile = 4; tile < 6; ++tile) config.shape(tile, kTileTokens, 64);
    config.shape(6, kProductWords, 4 * first);
    if (second > 0) config.shape(7, kProductWords, 4 * second);
    return config;
}

// Keys of tile `tile`, words [w, w + 16) of each token, zeros behind the last; kFetch: meanwhile the same ones of the next tile are fetched.
template <bool kFetch>
inline const uint32_t* piece_of_keys(const Work<Bf16>& work, int tile, int w, uint32_t* buffer) {
    const int stride = piece_words(work.depth, w);
    const uint32_t* const from = work.k[tile] + w * kTileTokens;
    for (int i = 0; kFetch && i < work.next_tokens[tile]; ++i) fetch(work.next[tile] + w * kTileTokens + i * stride);
    if (stride == kPieceWords) return from;
    memset(buffer, 0, kTileBytes);
    for (int token = 0; token < kTileTokens; ++token) memcpy(buffer + token * kPieceWords, from + token * stride, size_t(stride) * 4);
    return buffer;
}

// Sums of the tiles of keys [tile, ...) to sums[kKeyTile tokens][stride]. They are read later: what is loaded behind a tile's store
// waits until the store is in L1.
template <int kTiles, bool kTwoBlocks>
inline void store_scores(int tile, float* sums, int stride) {
    float* const to = sums + tile * kTileTokens * stride;
    const int next = kTileTokens * stride;
    store_tile<0>(to, 4 * stride);
    if constexpr (kTwoBlocks) {
        store_tile<1>(to + kBlockRows, 4 * stride);
        if constexpr (kTiles > 1) {
            store_tile<2>(to + next, 4 * stride);
            store_tile<3>(to + next + kBlockRows, 4 * stride);
        }
        return;
    }
    if constexpr (kTiles > 1) store_tile<1>(to + next, 4 * stride);
    if constexpr (kTiles > 2) store_tile<2>(to + 2 * next, 4 * stride);
    if constexpr (kTiles > 3) store_tile<3>(to + 3 * next, 4 * stride);
}

// scores[rows][kKeyTile] = sums[tokens][stride] turned over, for rows [row, row + 16) of a tile.
inline void turn_block(int rows, int tile, int row, const float* sums, int stride, float* scores) {
    alignas(64) uint32_t turned[kBlockRows * kTileTokens];
    const auto* const from = reinterpret_cast<const uint32_t*>(sums + tile * kTileTokens * stride + row);
    auto* const to = reinterpret_cast<uint32_t*>(scores + row * kKeyTile + tile * kTileTokens);
    if (rows - row >= kBlockRows) return turn<true>(from, stride, 15, to, kKeyTile);
    turn<true>(from, stride, 15, turned, kTileTokens);
    for (int r = 0; r < rows - row; ++r) memcpy(to + r * kKeyTile, turned + r * kTileTokens, 64);
}

// Sums of two blocks of rows that wait to be turned: block i is of tile i / 2.
struct Turning {
    int rows;
    const float* sums;
    float* scores;
    int next, end;

    inline void one() {
        if (next == end) return;
        turn_block(rows, next / 2, next % 2 * kBlockRows, sums, kTileRows, scores);
        ++next;
    }
};

// Two tiles of keys against two blocks of rows, or four against one; kTiles: how many of them there are. Meanwhile sums of those before are
// turned.
template <int kTiles, bool kTwoBlocks>
inline void score_tiles(const Work<Bf16>& work, int first, int tile, float* sums, int stride, Turning& turning) {
    alignas(64) uint32_t last[4][kTileBytes / 4];
    Awake awake;
    const uint32_t* q = work.keys + first;
    constexpr int kStride = 4 * kTileRows;
    constexpr bool kFetch = !kTwoBlocks;  // many rows read their pages many times, and fetching takes them 3 % longer
    clear_tile<0>();
    if constexpr (kTwoBlocks || kTiles > 1) clear_tile<1>();
    if constexpr (kTiles > (kTwoBlocks ? 1 : 2)) clear_tile<2>();
    if constexpr (kTiles > (kTwoBlocks ? 1 : 3)) clear_tile<3>();
    for (int w = 0; w < work.depth; w += kPieceWords, q += kPieceWords * kTileRows) {
        load_tile<6>(q, kStride);
        load_tile<4>(piece_of_keys<kFetch>(work, tile, w, last[0]), kTileRowBytes);
        multiply_pairs<0, 4, 6>();
        if constexpr (kTwoBlocks) {
            load_tile<7>(q + kBlockRows, kStride);
            multiply_pairs<1, 4, 7>();
        }
        if constexpr (kTiles > 1) {
            load_tile<5>(piece_of_keys<kFetch>(work, tile + 1, w, last[1]), kTileRowBytes);
            multiply_pairs<kTwoBlocks ? 2 : 1, 5, 6>();
            if constexpr (kTwoBlocks) multiply_pairs<3, 5, 7>();
        }
        if constexpr (kTiles > 2) {
            load_tile<4>(piece_of_keys<kFetch>(work, tile + 2, w, last[2]), kTileRowBytes);
            multiply_pairs<2, 4, 6>();
        }
        if constexpr (kTiles > 3) {
            load_tile<5>(piece_of_keys<kFetch>(work, tile + 3, w, last[3]), kTileRowBytes);
            multiply_pairs<3, 5, 6>();
        }
        if constexpr (kTwoBlocks) turning.one();
        else awake.keep<4>();
    }
    store_scores<kTiles, kTwoBlocks>(tile, sums, stride);
    turning.end += kTwoBlocks ? 2 * kTiles : 0;
}

// All tiles of one block of rows.
inline void turn_scores(int rows, int num_tiles, const float* sums, int stride, float* scores) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int i = 0; i < num_tiles; ++i) {
        if (stride > 2) {
            turn_block(rows, i, 0, sums, stride, scores);
            continue;
        }
        float* const to = scores + i * kTileTokens;
        const __m512 low = _mm512_load_ps(sums + i * 32), high = _mm512_load_ps(sums + i * 32 + 16);
        store(to, Vec{_mm512_permutex2var_ps(low, even, high)});
        if (rows == 2) store(to + kKeyTile, Vec{_mm512_permutex2var_ps(low, odd, high)});
    }
}

// As the template of attention_tile.h.
inline void score_rows(Work<Bf16>& work, int first, int end, int num_tiles) {
    alignas(64) float sums[kKeyTile * kTileRows];
    const int rows = end - first, stride = rows <= 2 ? 2 : rows <= kBlockRows ? kBlockRows : kTileRows;
    begin_tiles(tiles_of_scores(rows));
    Turning turning{rows, sums, work.scores + first * kKeyTile, 0, 0};
    int tile = 0;
    if (rows > kBlockRows) {
        for (; tile + 2 <= num_tiles; tile += 2) score_tiles<2, true>(work, first, tile, sums, stride, turning);
        if (tile < num_tiles) score_tiles<1, true>(work, first, tile, sums, stride, turning);
    } else {
        for (; tile + 4 <= num_tiles; tile += 4) score_tiles<4, false>(work, first, tile, sums, stride, turning);
        for (; tile < num_tiles; ++tile) score_tiles<1, false>(work, first, tile, sums, stride, turning);
    }
    end_tiles();
    if (rows <= kBlockRows) turn_scores(rows, num_tiles, sums, stride, work.scores + first * kKeyTile);
    while (turning.next < turning.end) turning.one();
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// Attention on a range of keys within a split: the pages of its tiles, the running state of each row, records of it, and how the
// states of splits meet. See attention.cpp for the whole. Included by attention.cpp alone; everything is in its unnamed namespace.
// Knows: rows, pages, splits. Does not know: items, threads.
#pragma once
#include "attention_rows.h"
#if QUIRE_ISA_amx
#include "attention_tiles.h"
#endif

namespace quire::QUIRE_ISA {
namespace {

// What one split has come to, per row: running maximum, sum of weights, and acc[row][Dp]. Lies in a float array.
struct State {
    float *max, *sum, *acc;
};

State state_at(float* floats, int num_rows) {
    const int padded_rows = (num_rows + 15) / 16 * 16;
    return {floats, floats + padded_rows, floats + 2 * padded_rows};
}

// ---- one range of keys ------------------------------------------------------------------------------------------------

// The tile of 16 tokens that begins at `token`.
inline const uint32_t* page_of(const int32_t* table, const uint32_t* pages, const KvView& kv, int token) {
    return pages + table[token / kv.block_size] * kv.block_stride + token % kv.block_size / kTileTokens * kv.tile_stride;
}

// How many of the 16 tokens from `token` on are read.
inline int tokens_at(int num_keys, int token) {
    const int left = num_keys - token;
    return left < 0 ? 0 : least(left, kTileTokens);
}

// Pages of the key tile at `tile_begin`, of the first kv head.
template <class T>
void find_pages(Work<T>& work, const KvView& kv, int tile_begin, int num_tiles) {
    for (int i = 0; i < kTilesPerStep; ++i) {
        work.k[i] = i < num_tiles ? page_of(work.table, work.pages, kv, tile_begin + i * kTileTokens) : work.k[0];
        work.v[i] = work.k[i] + kv.k_words;
        work.tokens[i] = tokens_at(work.last_visible, tile_begin + i * kTileTokens);
    }
    work.scales.forget();
}

// On to the pages of the next kv head.
template <class T>
void next_head(Work<T>& work, const KvView& kv) {
    for (int i = 0; i < kTilesPerStep; ++i) {
        work.k[i] += kv.head_stride;
        work.v[i] += kv.head_stride;
    }
    work.scales.forget();
}

// What is to be fetched meanwhile: the same tokens of the next kv head; after the last head the next key tile of the first; after
// the last key the first key tile of the item that follows.
template <class T>
void find_next(Work<T>& work, const KvView& kv, int tile_begin, bool last_head) {
    const bool last = last_head && tile_begin + kKeyTile >= work.end && work.upcoming.table != nullptr;
    const Upcoming here{work.table, work.pages, tile_begin + (last_head ? kKeyTile : 0), work.last_visible};
    const Upcoming& from = last ? work.upcoming : here;
    work.num_next = 0;
    for (int i = 0; i < kTilesPerStep; ++i) {
        const int token = from.begin + i * kTileTokens;
        work.next_tokens[i] = tokens_at(from.last_visible, token);
        if (work.next_tokens[i] > 0) work.num_next = i + 1;
        work.next[i] = work.next_tokens[i] == 0 ? work.k[0]
                       : last_head             ? page_of(from.table, from.pages, kv, token)
                                               : work.k[i] + kv.head_stride;
    }
}

// One key tile for the rows of one kv head that see it.
template <class T>
void run_tile(Work<T>& work, int first, int end, int tile_begin, int num_tiles, float scale, State state) {
    score_rows(work, first, end, num_tiles);
#if QUIRE_ISA_amx
    if constexpr (T::kTiles) {
        soften_rows(work, first, end, tile_begin, scale, state.max);
        return weigh_rows(work, first, end, tile_begin, state.acc);
    }
#endif
    for (int r = first; r < end; ++r) {
        const int limit = least(work.visible[r] - tile_begin, kKeyTile);
        T::find_scales(work, limit);
        if (limit == kKeyTile) soften_row<T, true>(work, r, kKeyTile, scale, state.max[r]);
        else soften_row<T, false>(work, r, limit, scale, state.max[r]);
    }
    weigh_rows(work, first, end, tile_begin, state.acc);
}

// Keys [begin, end) for one kv head of an item of many rows; `first` is its first row. `work` is at the pages of that head.
template <class T>
void run_keys_across(Work<T>& work, const Attention& args, int begin, int end, int first, State state) {
    Across<T> x;
    begin_across(x, work, first, args.scale * kLog2E, state.max, state.acc);
    for (int tile_begin = begin; tile_begin < end; tile_begin += kKeyTile) {
        const int num_keys = least(kKeyTile, end - tile_begin);
        find_pages(work, args.kv, tile_begin, (num_keys + 15) / 16);
        for (int head = 0; head < first / work.head_rows; ++head) next_head(work, args.kv);
        run_across(x, work, tile_begin, num_keys);
    }
    end_across(x, work, state.max, state.acc);
}

// Whether an item of so many rows of a head goes by lanes of rows. bf16 pages on amx have one way for all: tiles.
template <class T>
inline bool goes_across(const Work<T>& work) {
#if QUIRE_ISA_amx
    if (T::kTiles) return false;
#endif
    return work.head_rows >= kManyRows;
}

// Keys [begin, end), begin at a key tile, the end of the split at most.
template <class T>
void run_keys(Work<T>& work, const Attention& args, int begin, int end, State state) {
    if (goes_across(work)) {
        for (int row = 0; row < work.num_rows; row += work.head_rows) run_keys_across(work, args, begin, end, row, state);
        return;
    }
    int first = 0;  // of the rows of a head, the first that sees the tile
    for (int tile_begin = begin; tile_begin < end; tile_begin += kKeyTile) {
        while (work.visible[first] <= tile_begin) ++first;
        const int num_tiles = (least(kKeyTile, end - tile_begin) + 15) / 16;
        find_pages(work, args.kv, tile_begin, num_tiles);
        for (int row = 0; row < work.num_rows; row += work.head_rows) {
            find_next(work, args.kv, tile_begin, row + work.head_rows == work.num_rows);
            run_tile(work, row + first, row + work.head_rows, tile_begin, num_tiles, args.scale * kLog2E, state);
            next_head(work, args.kv);
        }
    }
}

template <class T>
void begin_split(Work<T>& work, State state) {
    for (int r = 0; r < work.num_rows; ++r) state.max[r] = -__builtin_inff();
    for (int i = 0; i < work.num_rows * 16; ++i) work.lanes[i] = 0;
    for (int i = 0; i < work.num_rows * work.padded_dim; ++i) state.acc[i] = 0;
}

template <class T>
void end_split(const Work<T>& work, State state) {
    for (int r = 0; r < work.num_rows; ++r) {
        Vec lanes = load(work.lanes + r * 16);
        for (int i = kLanes; i < 16; i += kLanes) lanes = add(lanes, load(work.lanes + r * 16 + i));
        state.sum[r] = sum(lanes);
    }
}

template <class T>
void run_split(Work<T>& work, const Attention& args, int split, State state) {
    begin_split(work, state);
    run_keys(work, args, split * kSplitKeys, least((split + 1) * kSplitKeys, work.last_visible), state);
    end_split(work, state);
}

// ---- records ----------------------------------------------------------------------------------------------------------

inline void copy_lines(float* to, const float* from, int count) {  // count: a multiple of 16
    for (int i = 0; i < count; i += kLanes) store(to + i, load(from + i));
}

// A row within a split: what it takes to go on, or to end it.
template <class T>
void load_record(Work<T>& work, State state, int row, const float* record) {
    state.max[row] = record[0];
    copy_lines(work.lanes + row * 16, record + 16, 16);
    copy_lines(state.acc + row * work.padded_dim, record + 32, work.padded_dim);
}

template <class T>
void save_record(const Work<T>& work, State state, int row, float* record) {
    record[0] = state.max[row];
    copy_lines(record + 16, work.lanes + row * 16, 16);
    copy_lines(record + 32, state.acc + row * work.padded_dim, work.padded_dim);
}

// ---- splits meet ------------------------------------------------------------------------------------------------------

// total += part, for one row.
void combine_row(State total, State part, int row, int padded_dim) {
    const float new_max = total.max[row] > part.max[row] ? total.max[row] : part.max[row];
    const float a = exp2_of<6>(total.max[row] - new_max), b = exp2_of<6>(part.max[row] - new_max);
    total.max[row] = new_max;
    total.sum[row] = total.sum[row] * a + part.sum[row] * b;
    float* acc = total.acc + row * padded_dim;
    const float* more = part.acc + row * padded_dim;
    for (int d = 0; d < padded_dim; d += kLanes) store(acc + d, fma(load(more + d), set1(b), mul(load(acc + d), set1(a))));
}

}  // namespace
}  // namespace quire::QUIRE_ISA

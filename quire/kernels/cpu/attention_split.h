// Attention on a range of keys within a split: the pages of its tiles, the running state of each row, records of it, and how the
// states of splits meet. See attention.cpp for the whole. Included by attention.cpp alone; everything is in its unnamed namespace.
// Knows: rows, pages, splits. Does not know: items, threads.
#pragma once
#include "attention_tile.h"

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
template <class T>
const uint32_t* page_of(const Work<T>& work, const KvView& kv, int token) {
    return work.pages + work.table[token / kv.block_size] * kv.block_stride + token % kv.block_size / kTileTokens * kv.tile_stride;
}

// Pages of the key tile at `tile_begin`, of the first kv head.
template <class T>
void find_pages(Work<T>& work, const KvView& kv, int tile_begin, int num_tiles) {
    for (int i = 0; i < kTilesPerStep; ++i) {
        work.k[i] = i < num_tiles ? page_of(work, kv, tile_begin + i * kTileTokens) : work.k[0];
        work.v[i] = work.k[i] + kv.k_words;
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

// What is to be fetched meanwhile: the same tokens of the next kv head, or after the last head the next key tile of the first.
// Beyond the last key there is nothing more to fetch.
template <class T>
void find_next(Work<T>& work, const KvView& kv, int tile_begin, bool last_head) {
    for (int i = 0; i < kTilesPerStep; ++i) {
        const int token = tile_begin + kKeyTile + i * kTileTokens;
        if (!last_head) work.next[i] = work.k[i] + kv.head_stride;
        else work.next[i] = token < work.last_visible ? page_of(work, kv, token) : work.k[0];
    }
}

// One key tile for the rows of one kv head that see it.
template <class T>
void run_tile(Work<T>& work, int first, int end, int tile_begin, int num_tiles, float scale, State state) {
    score_rows(work, first, end, num_tiles);
    for (int r = first; r < end; ++r) {
        const int limit = least(work.visible[r] - tile_begin, kKeyTile);
        T::find_scales(work, limit);
        if (limit == kKeyTile) soften_row<T, true>(work, r, kKeyTile, scale, state.max[r]);
        else soften_row<T, false>(work, r, limit, scale, state.max[r]);
    }
    weigh_rows(work, first, end, tile_begin, state.acc);
}

// Keys [begin, end), begin at a key tile, the end of the split at most.
template <class T>
void run_keys(Work<T>& work, const Attention& args, int begin, int end, State state) {
    int first = 0;  // of the rows of a head, the first that sees the tile
    for (int tile_begin = begin; tile_begin < end; tile_begin += kKeyTile) {
        while (work.visible[first] <= tile_begin) ++first;
        const int num_tiles = (least(kKeyTile, end - tile_begin) + 15) / 16;
        find_pages(work, args.kv, tile_begin, num_tiles);
        for (int row = 0; row < work.num_rows; row += work.head_rows) {
            find_next(work, args.kv, tile_begin, row + work.head_rows == work.num_rows);
            run_tile(work, row + first, row + work.head_rows, tile_begin, num_tiles, args.scale, state);
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
    const float a = exp_of(total.max[row] - new_max), b = exp_of(part.max[row] - new_max);
    total.max[row] = new_max;
    total.sum[row] = total.sum[row] * a + part.sum[row] * b;
    float* acc = total.acc + row * padded_dim;
    const float* more = part.acc + row * padded_dim;
    for (int d = 0; d < padded_dim; d += kLanes) store(acc + d, fma(load(more + d), set1(b), mul(load(acc + d), set1(a))));
}

}  // namespace
}  // namespace quire::QUIRE_ISA

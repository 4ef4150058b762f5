// How one launch of attention is cut into items for the pool. The cut never changes a result: see attention.cpp.
//
// A query tile is up to kTileRows rows of one sequence that share a kv head: neighbouring positions times the query heads of
// the group, so that each page read serves them all. An item is a query tile, a run of kv heads and a range of key splits. A tile
// much longer than its share of the launch is cut along its splits; its partial states then meet in a second pass. A tile of few
// rows takes several kv heads into an item, which walks them together: their pages of one block are neighbours in memory, and one
// core reads 8 KiB pieces at 11 GB/s, 64 KiB pieces at 23 (30 GB/s when it reads straight on).
// Knows: integers. Does not know: what is computed.
#pragma once
#include <cstdint>

#include "memory.h"

namespace quire {

constexpr int kKeyTile = 128;    // keys per step of the online softmax; tiles begin at multiples of it
constexpr int kSplitKeys = 512;  // keys per online softmax; splits begin at multiples of it, and are combined ascending
constexpr int kTileRows = 32;

struct QueryTile {
    int32_t seq;
    int32_t first_row;      // row of q of the first position
    int32_t num_positions;  // rows of q
    int32_t first_visible;  // keys that the first position sees; one more for each further one
    int32_t first_head;     // within the group of query heads that share the kv head
    int32_t num_heads;
    int32_t num_splits;     // of kSplitKeys keys, up to the last position
    int32_t num_parts;      // items that its splits are divided into
    int32_t item_heads;     // kv heads of an item (the last may have fewer)
    int64_t cost;
};

struct AttentionItem {
    int32_t tile, kv_head, num_kv_heads, first_split, end_split;
    int64_t partial;  // offset (floats) of the state of split 0 in `partials`, or -1: the item holds all splits
};

// Arrays in the device's scratch, valid until the next launch.
struct AttentionPlan {
    QueryTile* tiles;
    AttentionItem* items;   // largest first
    AttentionItem* merges;  // one per tile and run of kv heads that was divided
    float* partials;
    int64_t num_tiles, num_items, num_merges;
};

struct AttentionShape {
    const int32_t* query_starts;  // [num_seqs + 1]
    const int32_t* seq_lens;      // [num_seqs]
    int64_t num_seqs;
    int32_t num_kv_heads, group, padded_dim, num_threads;
};

// Floats of the state of one split of a tile: maximum and sum per row, then acc[rows][padded_dim].
constexpr int64_t state_floats(int64_t num_rows, int64_t padded_dim) {
    const int64_t padded_rows = (num_rows + 15) / 16 * 16;
    return 2 * padded_rows + num_rows * padded_dim;
}

AttentionPlan plan_attention(const AttentionShape& shape, Scratch& scratch);

}  // namespace quire

// How one launch of attention is cut into items for the pool. The cut never changes a result: see attention.cpp.
//
// A query tile is up to kTileRows rows of one sequence that share a kv head: neighbouring positions times the query heads of
// the group, so that each page read serves them all. An item is a query tile, a run of kv heads and a range of key splits. A tile
// much longer than its share of the launch is cut along its splits; its partial states then meet in a second pass. A tile of few
// rows takes several kv heads into an item, which walks them together: their pages of one block are neighbours in memory, and one
// core reads 8 KiB pieces at 11 GB/s, 64 KiB pieces at 23 (30 GB/s when it reads straight on).
//
// Rows of different sequences that have pages in common (attention_sharing.h) read these pages together: the rows of a run of
// sequences times the query heads of the group make the query tiles, and an item ends with its split of keys. What a row has come
// to in a split is kept as a record; the row's own keys go on from there. A run that begins inside a split must wait for the run
// around it: key tile b of a split is stage b, one pass of the pool each, as far as there is such nesting.
//   pass      stage 0 pieces and plain items | stages 1, 2, 3 | own parts with all records, and plain merges
// Knows: integers. Does not know: what is computed.
#pragma once
#include <cstdint>

#include "memory.h"

namespace quire {

constexpr int kKeyTile = 128;    // keys per step of the online softmax; tiles begin at multiples of it
constexpr int kSplitKeys = 512;  // keys per online softmax; splits begin at multiples of it, and are combined ascending
constexpr int kTilesPerSplit = kSplitKeys / kKeyTile;
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

// A single row of q that shares pages.
struct SharedRow {
    int32_t seq, row, num_keys, own_tile;  // key tiles from own_tile on are its own
    int64_t records;                       // offset (floats) of its records in `partials`: [split][kv head][head of the group]
};

// Rows [first, first + num_rows) of `shared_rows` on key tiles [begin_tile, end_tile), for a run of kv heads.
struct SharedItem {
    int32_t first, num_rows, kv_head, num_kv_heads, begin_tile, end_tile;
};

// Arrays in the device's scratch, valid until the next launch.
struct AttentionPlan {
    QueryTile* tiles;
    AttentionItem* items;   // of many rows by sequence and head, then of few; within these largest first
    AttentionItem* merges;  // one per tile and run of kv heads that was divided
    SharedRow* shared_rows;
    SharedItem* pieces;  // of shared keys, each within a split, by stage
    SharedItem* owns;    // of one row, to its last key
    float* partials;
    int64_t num_tiles, num_items, num_merges, num_pieces, num_owns;
    int64_t stage_begins[kTilesPerSplit + 1];  // in pieces
};

struct AttentionShape {
    const int32_t* query_starts;  // [num_seqs + 1]
    const int32_t* seq_lens;      // [num_seqs]
    const int32_t* block_tables;  // [num_seqs, table_width]
    int64_t num_seqs, table_width;
    int32_t block_size, num_kv_heads, group, padded_dim, num_threads;
};

// Floats of the state of one split of a tile: maximum and sum per row, then acc[rows][padded_dim].
constexpr int64_t state_floats(int64_t num_rows, int64_t padded_dim) {
    const int64_t padded_rows = (num_rows + 15) / 16 * 16;
    return 2 * padded_rows + num_rows * padded_dim;
}

// Floats of a record: the maximum (of 16), the sum of weights by lane, then acc[padded_dim].
constexpr int64_t record_floats(int64_t padded_dim) { return 32 + padded_dim; }

AttentionPlan plan_attention(const AttentionShape& shape, Scratch& scratch);

}  // namespace quire

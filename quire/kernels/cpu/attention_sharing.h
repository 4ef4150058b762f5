// Which sequences of a launch begin with the same pages, and may therefore read them together.
//
// Taken into account are single rows (decoding): of a prompt's chunk every page read serves up to kTileRows rows already. Rows
// are sorted by their block tables, so that those that share stand side by side; neighbours a, b, c with these key tiles
//      a  |0 1 2 3 4 5|6 7 ...           give the runs   rows a-c, tiles 0-1      (in tiles of kKeyTile keys)
//      b  |0 1 2 3 4 5|8 9 ...                           rows a-b, tiles 2-5
//      c  |0 1|20 21 ...                 and own parts   a from 6, b from 6, c from 2
// Bounded: the first kMaxShared sequences of a launch, O(n log n) comparisons of table rows, arrays on the stack.
// Knows: block tables. Does not know: items, threads, vectors.
#pragma once
#include <bitset>
#include <cstdint>

#include "attention_plan.h"

namespace quire {

constexpr int kMaxShared = 1024;

// Rows [first, first + num_rows) of Sharing.rows have key tiles [begin_tile, end_tile) in common.
struct SharedRun {
    int32_t first, num_rows, begin_tile, end_tile;
};

struct Sharing {
    int32_t num_rows = 0, num_runs = 0;
    SharedRow rows[kMaxShared];
    SharedRun runs[kMaxShared];
    std::bitset<kMaxShared> takes_part;  // by sequence: those of rows with own_tile > 0
};

// Fills an empty `sharing`; leaves it empty where sharing would not pay.
void find_sharing(const AttentionShape& shape, Sharing& sharing);

}  // namespace quire

#include "attention_sharing.h"

#include <algorithm>
#include <cstring>

namespace quire {
namespace {

constexpr int32_t kLeastSaved = 4;    // key tiles not read: less does not pay for the second pass
constexpr int32_t kLargestOwn = 4;    // a row with more own tiles than this many times its shared ones reads alone

const int32_t* table_of(const AttentionShape& shape, const SharedRow& row) {
    return shape.block_tables + row.seq * shape.table_width;
}

int32_t full_tiles(const SharedRow& row) { return row.num_keys / kKeyTile; }

// Blocks that key tiles [0, tiles) lie in.
int64_t blocks_of(const AttentionShape& shape, int32_t tiles) {
    return (int64_t{tiles} * kKeyTile + shape.block_size - 1) / shape.block_size;
}

void collect(const AttentionShape& shape, Sharing& sharing) {
    const int64_t num_seqs = std::min<int64_t>(shape.num_seqs, kMaxShared);
    for (int64_t seq = 0; seq < num_seqs; ++seq) {
        const int32_t row = shape.query_starts[seq];
        if (shape.query_starts[seq + 1] - row == 1 && shape.seq_lens[seq] >= kKeyTile)
            sharing.rows[sharing.num_rows++] = {static_cast<int32_t>(seq), row, shape.seq_lens[seq], 0, 0};
    }
}

void sort(const AttentionShape& shape, Sharing& sharing) {
    std::sort(sharing.rows, sharing.rows + sharing.num_rows, [&](const SharedRow& a, const SharedRow& b) {
        const int64_t blocks = blocks_of(shape, std::min(full_tiles(a), full_tiles(b)));
        const int order = std::memcmp(table_of(shape, a), table_of(shape, b), static_cast<size_t>(blocks) * sizeof(int32_t));
        if (order != 0) return order < 0;
        return a.num_keys != b.num_keys ? a.num_keys < b.num_keys : a.seq < b.seq;
    });
}

// Key tiles that two rows have in common from the first on.
int32_t common_tiles(const AttentionShape& shape, const SharedRow& a, const SharedRow& b) {
    const int32_t most = std::min(full_tiles(a), full_tiles(b));
    const int32_t *x = table_of(shape, a), *y = table_of(shape, b);
    const int64_t blocks = std::mismatch(x, x + blocks_of(shape, most), y).first - x;
    return static_cast<int32_t>(std::min<int64_t>(most, blocks * shape.block_size / kKeyTile));
}

// common[i]: tiles that rows i - 1 and i have in common; 0 at both ends.
void compare_neighbours(const AttentionShape& shape, const Sharing& sharing, int32_t* common) {
    common[0] = common[sharing.num_rows] = 0;
    for (int32_t i = 1; i < sharing.num_rows; ++i) common[i] = common_tiles(shape, sharing.rows[i - 1], sharing.rows[i]);
}

// Keeps the rows for which enough is shared; `common` follows.
void keep_those_that_gain(Sharing& sharing, int32_t* common) {
    int32_t kept = 0, lowest = 0;  // of what lies between the last kept row and this one
    const int32_t num_rows = sharing.num_rows;
    for (int32_t i = 0; i < num_rows; ++i) {
        const int32_t shared = std::max(common[i], common[i + 1]), tiles = full_tiles(sharing.rows[i]);
        lowest = std::min(lowest, common[i]);
        if (shared == 0 || tiles - shared > kLargestOwn * shared) continue;
        sharing.rows[kept] = sharing.rows[i];
        common[kept++] = lowest;
        lowest = INT32_MAX;
    }
    common[kept] = 0;
    sharing.num_rows = kept;
}

// The runs, inner before outer: a run ends where its neighbours' common tiles fall below its own. Returns the tiles not read.
int64_t find_runs(Sharing& sharing, const int32_t* common) {
    struct Open {
        int32_t first, end_tile;
    } open[kMaxShared];
    int32_t depth = 0;
    int64_t saved = 0;
    for (int32_t i = 1; i <= sharing.num_rows; ++i) {
        int32_t first = i - 1;
        for (; depth > 0 && open[depth - 1].end_tile > common[i]; --depth) {
            const Open& top = open[depth - 1];
            const int32_t begin_tile = std::max(common[i], depth > 1 ? open[depth - 2].end_tile : 0);
            sharing.runs[sharing.num_runs++] = {top.first, i - top.first, begin_tile, top.end_tile};
            saved += int64_t{i - top.first - 1} * (top.end_tile - begin_tile);
            first = top.first;
        }
        if (common[i] > (depth > 0 ? open[depth - 1].end_tile : 0)) open[depth++] = {first, common[i]};
    }
    return saved;
}

}  // namespace

void find_sharing(const AttentionShape& shape, Sharing& sharing) {
    if (shape.group > kTileRows / 2) return;  // the heads of one row fill a query tile
    collect(shape, sharing);
    if (sharing.num_rows < 2) return;
    int32_t common[kMaxShared + 1];
    sort(shape, sharing);
    compare_neighbours(shape, sharing, common);
    keep_those_that_gain(sharing, common);
    if (find_runs(sharing, common) < kLeastSaved) sharing.num_rows = sharing.num_runs = 0;
    for (int32_t i = 0; i < sharing.num_rows; ++i) {
        sharing.rows[i].own_tile = std::max(common[i], common[i + 1]);
        sharing.takes_part.set(static_cast<size_t>(sharing.rows[i].seq), sharing.rows[i].own_tile > 0);
    }
}

}  // namespace quire

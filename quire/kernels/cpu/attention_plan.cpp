#include "attention_plan.h"

#include <algorithm>
#include <tuple>

#include "attention_sharing.h"

namespace quire {
namespace {

constexpr int64_t kItemsPerThread = 4;  // enough for stealing to even out, few enough to keep the second pass rare

struct Counts {
    int64_t tiles = 0, items = 0, merges = 0, pieces = 0, owns = 0, partial_floats = 0;
};

// Even shares of the passes (0: one thread, nothing need be divided).
struct Shares {
    int64_t main = 0, owns = 0;
};

int32_t ceil_div(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

// Reading a page costs about as much as four rows' arithmetic on it.
int64_t cost_of(int64_t num_keys, int64_t num_rows) { return num_keys * (num_rows + 4); }

// ---- rows that read alone ---------------------------------------------------------------------------------------------

// Calls f(tile) for every query tile of sequence `seq`, in order of rows.
template <class F>
void each_tile_of(const AttentionShape& shape, int64_t seq, const F& f) {
    const int32_t heads_per_tile = std::min<int32_t>(shape.group, kTileRows);
    const int32_t positions_per_tile = kTileRows / heads_per_tile;
    const int32_t begin = shape.query_starts[seq], end = shape.query_starts[seq + 1];
    for (int32_t row = begin; row < end; row += positions_per_tile) {
        QueryTile tile{};
        tile.seq = static_cast<int32_t>(seq);
        tile.first_row = row;
        tile.num_positions = std::min(positions_per_tile, end - row);
        tile.first_visible = shape.seq_lens[seq] - (end - row) + 1;
        const int32_t last_visible = tile.first_visible + tile.num_positions - 1;
        tile.num_splits = ceil_div(last_visible, kSplitKeys);
        for (int32_t head = 0; head < shape.group; head += heads_per_tile) {
            tile.first_head = head;
            tile.num_heads = std::min(heads_per_tile, shape.group - head);
            tile.cost = cost_of(last_visible, tile.num_positions * tile.num_heads);
            f(tile);
        }
    }
}

template <class F>
void each_tile(const AttentionShape& shape, const Sharing& sharing, const F& f) {
    for (int64_t seq = 0; seq < shape.num_seqs; ++seq) {
        if (seq >= kMaxShared || !sharing.takes_part[static_cast<size_t>(seq)]) each_tile_of(shape, seq, f);
    }
}

// Fixes the tile's heads per item and number of parts, when an even share of the launch is `share`.
void divide(const AttentionShape& shape, int64_t share, QueryTile& tile) {
    const int32_t num_rows = tile.num_positions * tile.num_heads;
    tile.item_heads = std::min(shape.num_kv_heads, kTileRows / num_rows);
    tile.num_parts = 1;
    if (share <= 0) return;
    while (tile.item_heads > 1 && tile.cost * tile.item_heads > share * tile.num_splits) tile.item_heads = (tile.item_heads + 1) / 2;
    const int64_t parts = (tile.cost * tile.item_heads + share - 1) / share;
    tile.num_parts = static_cast<int32_t>(std::clamp<int64_t>(parts, 1, tile.num_splits));
}

// Calls f(first head, number of heads) for runs of `item_heads` kv heads.
template <class F>
void each_head_run(const AttentionShape& shape, int32_t item_heads, const F& f) {
    for (int32_t head = 0; head < shape.num_kv_heads; head += item_heads) f(head, std::min(item_heads, shape.num_kv_heads - head));
}

// Floats of the states of all splits of a run of `num_heads` heads.
int64_t partial_floats(const AttentionShape& shape, const QueryTile& tile, int32_t num_heads) {
    return tile.num_splits * state_floats(int64_t{tile.num_positions} * tile.num_heads * num_heads, shape.padded_dim);
}

// ---- rows that share --------------------------------------------------------------------------------------------------

// kv heads of an item of `num_rows` rows of q.
int32_t heads_per_item(const AttentionShape& shape, int64_t share, int64_t num_keys, int32_t num_rows) {
    const int32_t rows = num_rows * shape.group;
    int32_t heads = std::min(shape.num_kv_heads, kTileRows / rows);
    while (share > 0 && heads > 1 && cost_of(num_keys, rows) * heads > share) heads = (heads + 1) / 2;
    return heads;
}

// Calls f(piece) for the pieces of a run of rows that begin at key tile `stage` of a split. Pieces that read the same pages
// follow each other: the second finds them in a cache.
template <class F>
void each_piece(const AttentionShape& shape, int64_t share, const SharedRun& run, int32_t stage, const F& f) {
    const int32_t num_groups = ceil_div(run.num_rows, kTileRows / shape.group), num_rows = ceil_div(run.num_rows, num_groups);
    for (int32_t begin = run.begin_tile, end = 0; begin < run.end_tile; begin = end) {
        end = std::min(run.end_tile, (begin / kTilesPerSplit + 1) * kTilesPerSplit);
        if (begin % kTilesPerSplit != stage) continue;
        each_head_run(shape, heads_per_item(shape, share, (end - begin) * kKeyTile, num_rows), [&](int32_t head, int32_t num_heads) {
            for (int32_t row = 0; row < run.num_rows; row += num_rows)
                f(SharedItem{run.first + row, std::min(num_rows, run.num_rows - row), head, num_heads, begin, end});
        });
    }
}

int64_t own_cost(const AttentionShape& shape, const SharedRow& row) {
    return row.own_tile > 0 ? cost_of(row.num_keys - row.own_tile * kKeyTile, shape.group) : 0;
}

// Calls f(item) for the own parts of the rows that share.
template <class F>
void each_own(const AttentionShape& shape, const Sharing& sharing, int64_t share, const F& f) {
    for (int32_t i = 0; i < sharing.num_rows; ++i) {
        const SharedRow& row = sharing.rows[i];
        if (row.own_tile == 0) continue;  // whoever it would share with reads alone
        each_head_run(shape, heads_per_item(shape, share, row.num_keys - row.own_tile * kKeyTile, 1), [&](int32_t head, int32_t num_heads) {
            f(SharedItem{i, 1, head, num_heads, row.own_tile, ceil_div(row.num_keys, kKeyTile)});
        });
    }
}

// Floats of the records of a row: all splits that it shares something of.
int64_t floats_of_records(const AttentionShape& shape, const SharedRow& row) {
    return int64_t{ceil_div(row.own_tile, kTilesPerSplit)} * shape.num_kv_heads * shape.group * record_floats(shape.padded_dim);
}

// ---- the plan ---------------------------------------------------------------------------------------------------------

Shares shares_of(const AttentionShape& shape, const Sharing& sharing) {
    if (shape.num_threads < 2) return {};
    int64_t main = 0, owns = 0;
    each_tile(shape, sharing, [&](const QueryTile& tile) { main += tile.cost; });
    for (int32_t i = 0; i < sharing.num_runs; ++i) {
        const SharedRun& run = sharing.runs[i];
        main += cost_of((run.end_tile - run.begin_tile) * kKeyTile, int64_t{run.num_rows} * shape.group);
    }
    for (int32_t i = 0; i < sharing.num_rows; ++i) owns += own_cost(shape, sharing.rows[i]);
    const int64_t num_shares = kItemsPerThread * shape.num_threads;
    return {main * shape.num_kv_heads / num_shares + 1, owns * shape.num_kv_heads / num_shares + 1};
}

Counts count(const AttentionShape& shape, const Sharing& sharing, const Shares& shares) {
    Counts counts;
    each_tile(shape, sharing, [&](QueryTile tile) {
        divide(shape, shares.main, tile);
        counts.tiles += 1;
        each_head_run(shape, tile.item_heads, [&](int32_t, int32_t num_heads) {
            counts.items += tile.num_parts;
            if (tile.num_parts == 1) return;
            counts.merges += 1;
            counts.partial_floats += partial_floats(shape, tile, num_heads);
        });
    });
    for (int32_t stage = 0; stage < kTilesPerSplit; ++stage) {
        for (int32_t i = 0; i < sharing.num_runs; ++i)
            each_piece(shape, shares.main, sharing.runs[i], stage, [&](const SharedItem&) { ++counts.pieces; });
    }
    each_own(shape, sharing, shares.owns, [&](const SharedItem&) { ++counts.owns; });
    for (int32_t i = 0; i < sharing.num_rows; ++i) counts.partial_floats += floats_of_records(shape, sharing.rows[i]);
    return counts;
}

template <class T>
T* carve(char*& at, int64_t count) {
    T* result = reinterpret_cast<T*>(at);
    at += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return result;
}

// Makes room for what was counted.
AttentionPlan empty_plan(const Counts& counts, int64_t num_shared_rows, Scratch& scratch) {
    const int64_t bytes = counts.tiles * int64_t{sizeof(QueryTile)} + counts.partial_floats * 4 + 7 * 64 +
                          (counts.items + counts.merges) * int64_t{sizeof(AttentionItem)} +
                          (counts.pieces + counts.owns) * int64_t{sizeof(SharedItem)} + num_shared_rows * int64_t{sizeof(SharedRow)};
    char* at = static_cast<char*>(scratch.at_least(static_cast<size_t>(bytes)));
    AttentionPlan plan{};
    plan.tiles = carve<QueryTile>(at, counts.tiles);
    plan.items = carve<AttentionItem>(at, counts.items);
    plan.merges = carve<AttentionItem>(at, counts.merges);
    plan.shared_rows = carve<SharedRow>(at, num_shared_rows);
    plan.pieces = carve<SharedItem>(at, counts.pieces);
    plan.owns = carve<SharedItem>(at, counts.owns);
    plan.partials = carve<float>(at, counts.partial_floats);
    return plan;
}

// Returns the floats of `partials` that are taken.
int64_t emit_items(const AttentionShape& shape, AttentionPlan& plan) {
    int64_t partial = 0;
    for (int64_t index = 0; index < plan.num_tiles; ++index) {
        const QueryTile& tile = plan.tiles[index];
        each_head_run(shape, tile.item_heads, [&](int32_t head, int32_t num_heads) {
            AttentionItem item{static_cast<int32_t>(index), head, num_heads, 0, tile.num_splits, -1};
            if (tile.num_parts > 1) {
                item.partial = partial;
                plan.merges[plan.num_merges++] = item;
                partial += partial_floats(shape, tile, num_heads);
            }
            for (int32_t part = 0; part < tile.num_parts; ++part) {
                item.first_split = static_cast<int32_t>(int64_t{tile.num_splits} * part / tile.num_parts);
                item.end_split = static_cast<int32_t>(int64_t{tile.num_splits} * (part + 1) / tile.num_parts);
                plan.items[plan.num_items++] = item;
            }
        });
    }
    return partial;
}

// Items of many rows, sequence by sequence and head by head: who has read a head's pages finds them in its cache for the next tile of
// rows (2,048 tokens of a head of 128 dims are 1 MiB). Behind them items of few rows as they came. Where the plan was in order of
// cost alone, a prompt of 2048 on amx read 20 times its pages from beyond L2, and took 1.5 times as long.
void order_by_pages(const AttentionPlan& plan) {
    const auto key = [&](const AttentionItem& item) {
        const QueryTile& tile = plan.tiles[item.tile];
        const bool many = tile.num_positions * tile.num_heads >= kTileRows / 2;
        return std::tuple(many ? tile.seq : INT32_MAX, many ? item.kv_head : 0);
    };
    std::stable_sort(plan.items, plan.items + plan.num_items, [&](const AttentionItem& a, const AttentionItem& b) { return key(a) < key(b); });
}

void emit_shared(const AttentionShape& shape, const Sharing& sharing, const Shares& shares, int64_t partial, AttentionPlan& plan) {
    for (int32_t i = 0; i < sharing.num_rows; ++i) {
        plan.shared_rows[i] = sharing.rows[i];
        plan.shared_rows[i].records = partial;
        partial += floats_of_records(shape, sharing.rows[i]);
    }
    for (int32_t stage = 0; stage < kTilesPerSplit; ++stage) {
        for (int32_t i = 0; i < sharing.num_runs; ++i) {
            each_piece(shape, shares.main, sharing.runs[i], stage,
                       [&](const SharedItem& piece) { plan.pieces[plan.num_pieces++] = piece; });
        }
        plan.stage_begins[stage + 1] = plan.num_pieces;
    }
    each_own(shape, sharing, shares.owns, [&](const SharedItem& item) { plan.owns[plan.num_owns++] = item; });
}

}  // namespace

AttentionPlan plan_attention(const AttentionShape& shape, Scratch& scratch) {
    Sharing sharing;
    find_sharing(shape, sharing);
    const Shares shares = shares_of(shape, sharing);
    AttentionPlan plan = empty_plan(count(shape, sharing, shares), sharing.num_rows, scratch);
    each_tile(shape, sharing, [&](QueryTile tile) {
        divide(shape, shares.main, tile);
        plan.tiles[plan.num_tiles++] = tile;
    });
    std::sort(plan.tiles, plan.tiles + plan.num_tiles, [](const QueryTile& a, const QueryTile& b) {
        return a.cost * a.item_heads * b.num_parts > b.cost * b.item_heads * a.num_parts;
    });
    const int64_t partial = emit_items(shape, plan);
    order_by_pages(plan);
    emit_shared(shape, sharing, shares, partial, plan);
    return plan;
}

}  // namespace quire

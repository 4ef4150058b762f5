#include "attention_plan.h"

#include <algorithm>

namespace quire {
namespace {

constexpr int64_t kItemsPerThread = 4;  // enough for stealing to even out, few enough to keep the second pass rare

struct Counts {
    int64_t tiles = 0, items = 0, merges = 0, partial_floats = 0;
};

int32_t ceil_div(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

// Calls f(tile) for every query tile, in order of rows.
template <class F>
void each_tile(const AttentionShape& shape, const F& f) {
    const int32_t heads_per_tile = std::min<int32_t>(shape.group, kTileRows);
    const int32_t positions_per_tile = kTileRows / heads_per_tile;
    for (int64_t seq = 0; seq < shape.num_seqs; ++seq) {
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
                // Reading a page costs about as much as four rows' arithmetic on it.
                tile.cost = int64_t{last_visible} * (tile.num_positions * tile.num_heads + 4);
                f(tile);
            }
        }
    }
}

// Fixes the tile's heads per item and number of parts, when an even share of the launch is `share` (0: one thread, no need).
void divide(const AttentionShape& shape, int64_t share, QueryTile& tile) {
    const int32_t num_rows = tile.num_positions * tile.num_heads;
    tile.item_heads = std::min(shape.num_kv_heads, kTileRows / num_rows);
    tile.num_parts = 1;
    if (share <= 0) return;
    while (tile.item_heads > 1 && tile.cost * tile.item_heads > share * tile.num_splits) tile.item_heads = (tile.item_heads + 1) / 2;
    const int64_t parts = (tile.cost * tile.item_heads + share - 1) / share;
    tile.num_parts = static_cast<int32_t>(std::clamp<int64_t>(parts, 1, tile.num_splits));
}

// Calls f(first head, number of heads) for the runs of kv heads of the tile's items.
template <class F>
void each_run(const AttentionShape& shape, const QueryTile& tile, const F& f) {
    for (int32_t head = 0; head < shape.num_kv_heads; head += tile.item_heads)
        f(head, std::min(tile.item_heads, shape.num_kv_heads - head));
}

// Floats of the states of all splits of a run of `num_heads` heads.
int64_t partial_floats(const AttentionShape& shape, const QueryTile& tile, int32_t num_heads) {
    return tile.num_splits * state_floats(int64_t{tile.num_positions} * tile.num_heads * num_heads, shape.padded_dim);
}

template <class T>
T* carve(char*& at, int64_t count) {
    T* result = reinterpret_cast<T*>(at);
    at += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return result;
}

void emit_items(const AttentionShape& shape, AttentionPlan& plan) {
    int64_t partial = 0;
    for (int64_t index = 0; index < plan.num_tiles; ++index) {
        const QueryTile& tile = plan.tiles[index];
        each_run(shape, tile, [&](int32_t head, int32_t num_heads) {
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
}

Counts count(const AttentionShape& shape, int64_t share) {
    Counts counts;
    each_tile(shape, [&](QueryTile tile) {
        divide(shape, share, tile);
        counts.tiles += 1;
        each_run(shape, tile, [&](int32_t, int32_t num_heads) {
            counts.items += tile.num_parts;
            if (tile.num_parts == 1) return;
            counts.merges += 1;
            counts.partial_floats += partial_floats(shape, tile, num_heads);
        });
    });
    return counts;
}

}  // namespace

AttentionPlan plan_attention(const AttentionShape& shape, Scratch& scratch) {
    int64_t total_cost = 0;
    each_tile(shape, [&](const QueryTile& tile) { total_cost += tile.cost * shape.num_kv_heads; });
    const int64_t share = shape.num_threads > 1 ? total_cost / (kItemsPerThread * shape.num_threads) + 1 : 0;
    const Counts counts = count(shape, share);
    const int64_t bytes = counts.tiles * int64_t{sizeof(QueryTile)} + counts.partial_floats * 4 + 4 * 64 +
                          (counts.items + counts.merges) * int64_t{sizeof(AttentionItem)};
    char* at = static_cast<char*>(scratch.at_least(static_cast<size_t>(bytes)));
    AttentionPlan plan{};
    plan.tiles = carve<QueryTile>(at, counts.tiles);
    plan.items = carve<AttentionItem>(at, counts.items);
    plan.merges = carve<AttentionItem>(at, counts.merges);
    plan.partials = carve<float>(at, counts.partial_floats);
    each_tile(shape, [&](QueryTile tile) {
        divide(shape, share, tile);
        plan.tiles[plan.num_tiles++] = tile;
    });
    std::sort(plan.tiles, plan.tiles + plan.num_tiles, [](const QueryTile& a, const QueryTile& b) {
        return a.cost * a.item_heads * b.num_parts > b.cost * b.item_heads * a.num_parts;
    });
    emit_items(shape, plan);
    return plan;
}

}  // namespace quire

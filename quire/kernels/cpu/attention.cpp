// attention: out[t, q] = sum_j p[j] v[j],  p = softmax_j(scale * q[t, q] . k[j]) over the keys j up to row t's own position.
// Paged, causal, grouped queries; prompt chunks and single tokens in one launch.       (online softmax: arXiv 1805.02867)
//
// Layout: pages as in kv_cache.h. Rows of one query tile share a kv head (attention_plan.h), so that every page read serves up
// to kTileRows rows; scores run over 16 tokens a vector with q broadcast, values over 16 dims a vector with p broadcast.
//
// Why a row's bits depend on the row alone. For one row the operations are, whatever rows stand beside it:
//   per split of 512 keys, per tile of 128 keys (both begin at fixed absolute positions, the last ends at the row's position):
//     s = sum over d ascending of q*k, times scale; m' = max(m, s); p = exp(s - m'), rounded to bf16 with bf16 pages;
//     l = l*exp(m - m') + p, lane by lane (16 lanes); acc = acc*exp(m - m'), then += p*v, keys ascending (in pairs with bf16)
//   splits meet ascending: m' = max, l and acc scaled by exp(m - m') and added; out = acc / l at the end.
// Keys after the row are never read for it: in the tile of its last key each row stops at its own key (weigh_rest), and the half
// of a bf16 pair beyond it is cleared, so that what lies in slots not yet written (NaN too) cannot matter.
// The sum l is of the rounded weights: weights add up to one, and a constant v comes back exactly but for one rounding.
//
// Versions tried (one thread of a Zen 4 core in company, 3.5 GHz, 64 flop x 1 vdpbf16ps a cycle = 0.23 TFLOP/s; bf16, avx512;
// 16 query and 8 kv heads of 128; thread time, best of several, +-10 %):
//   prompt of 2048    64 keys a step 0.134 TFLOP/s; scores kept in registers, values 64 dims at a time for all rows 0.144; 128 keys a
//                     step 0.157 (68 % of peak); 64 rows a tile instead of 32: no change
//   one token, 2048   no prefetch 13 GB/s; to L1 12; to L2, a key tile ahead, 18; kv heads walked together without prefetch 14.5, with
//                     it 18. A plain read of the same pages runs at 11 head by head and 23 a block at a time, 30 straight on.
//   32 tokens, 1024   12.7 GB/s; fetching to L2 15.3; kv heads walked together 16.8
// The rest of the prompt's time is the softmax: about a fifth at head_dim 128, a quarter at 64.
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

// ---- one split --------------------------------------------------------------------------------------------------------

// The tile of 16 tokens that begins at `token`.
template <class T>
const uint32_t* page_of(const Work<T>& work, const KvView& kv, int token) {
    return work.pages + work.table[token / kv.block_size] * kv.block_stride + token % kv.block_size / kTileTokens * kv.tile_stride;
}

// Pages of the key tile at `tile_begin`, of the first kv head; beyond the last key there is nothing more to fetch.
template <class T>
void find_pages(Work<T>& work, const KvView& kv, int tile_begin, int num_tiles) {
    for (int i = 0; i < kTilesPerStep; ++i) {
        const int token = tile_begin + i * kTileTokens, next = token + kKeyTile;
        work.k[i] = i < num_tiles ? page_of(work, kv, token) : work.k[0];
        work.v[i] = work.k[i] + kv.k_words;
        work.next[i] = next < work.last_visible ? page_of(work, kv, next) : work.k[0];
    }
}

// On to the pages of the next kv head.
template <class T>
void next_head(Work<T>& work, const KvView& kv) {
    for (int i = 0; i < kTilesPerStep; ++i) {
        work.k[i] += kv.head_stride;
        work.v[i] += kv.head_stride;
        work.next[i] += kv.head_stride;
    }
}

// One key tile for the rows of one kv head that see it.
template <class T>
void run_tile(Work<T>& work, int first, int end, int tile_begin, int num_tiles, float scale, State state) {
    score_rows(work, first, end, num_tiles);
    for (int r = first; r < end; ++r) {
        const int limit = work.visible[r] - tile_begin;
        if (limit >= kKeyTile) soften_row<T, true>(work, r, kKeyTile, scale, state.max[r]);
        else soften_row<T, false>(work, r, limit, scale, state.max[r]);
    }
    weigh_rows(work, first, end, tile_begin, state.acc);
}

template <class T>
void run_split(Work<T>& work, const Attention& args, int split, State state) {
    const int num_rows = work.num_rows, begin = split * kSplitKeys, end = least(begin + kSplitKeys, work.last_visible);
    for (int r = 0; r < num_rows; ++r) state.max[r] = -__builtin_inff();
    for (int i = 0; i < num_rows * 16; ++i) work.lanes[i] = 0;
    for (int i = 0; i < num_rows * work.padded_dim; ++i) state.acc[i] = 0;
    int first = 0;  // of the rows of a head, the first that sees the tile
    for (int tile_begin = begin; tile_begin < end; tile_begin += kKeyTile) {
        while (work.visible[first] <= tile_begin) ++first;
        const int num_tiles = (least(kKeyTile, end - tile_begin) + 15) / 16;
        find_pages(work, args.kv, tile_begin, num_tiles);
        for (int row = 0; row < num_rows; row += work.head_rows) {
            run_tile(work, row + first, row + work.head_rows, tile_begin, num_tiles, args.scale, state);
            next_head(work, args.kv);
        }
    }
    for (int r = 0; r < num_rows; ++r) {
        Vec lanes = load(work.lanes + r * 16);
        for (int i = kLanes; i < 16; i += kLanes) lanes = add(lanes, load(work.lanes + r * 16 + i));
        state.sum[r] = sum(lanes);
    }
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

// The rows of an item: kv heads, then positions, then query heads of the group.
struct Rows {
    const Attention& args;
    const QueryTile& tile;
    const AttentionItem& item;

    int per_head() const { return tile.num_positions * tile.num_heads; }
    int total() const { return per_head() * item.num_kv_heads; }
    int visible(int row) const { return tile.first_visible + row % per_head() / tile.num_heads; }
    int64_t offset(int row) const {  // in q and out
        const int64_t position = tile.first_row + row % per_head() / tile.num_heads, kv_head = item.kv_head + row / per_head();
        return (position * args.num_heads + kv_head * args.group + tile.first_head + row % tile.num_heads) * args.kv.head_dim;
    }
};

// total += part of split `split`, for the rows that see keys of it.
void combine(const Rows& rows, int split, State total, State part) {
    for (int r = 0; r < rows.total(); ++r) {
        if (rows.visible(r) > split * kSplitKeys) combine_row(total, part, r, rows.args.kv.padded_dim);
    }
}

void write_out(const Rows& rows, State state) {
    const int dim = rows.args.kv.head_dim;
    for (int r = 0; r < rows.total(); ++r) {
        float* out = rows.args.out + rows.offset(r);
        const float* acc = state.acc + r * rows.args.kv.padded_dim;
        const Vec sum = set1(state.sum[r]);
        for (int d = 0; d < dim; d += kLanes) store_n(out + d, div(load(acc + d), sum), least(kLanes, dim - d));
    }
}

// ---- items ------------------------------------------------------------------------------------------------------------

template <class T>
void load_queries(Work<T>& work, const Rows& rows) {
    const Attention& args = rows.args;
    const KvView& kv = args.kv;
    work.head_rows = rows.per_head();
    work.num_rows = rows.total();
    work.last_visible = rows.visible(work.num_rows - 1);
    work.q_stride = kv.padded_dim / T::kStep;
    work.depth = kv.head_dim / T::kStep;
    work.padded_dim = kv.padded_dim;
    work.k_words = int(kv.k_words);
    work.v_lines = kv.padded_dim / T::kStep;
    work.table = args.block_tables + rows.tile.seq * args.table_width;
    work.pages = kv.words + args.layer * kv.layer_stride + rows.item.kv_head * kv.head_stride;
    for (int r = 0; r < work.num_rows; ++r) {
        work.visible[r] = rows.visible(r);
        const float* q = args.q + rows.offset(r);
        for (int d = 0; d < kv.head_dim; d += kLanes)
            T::round_to(work.q + r * work.q_stride, d, load_n(q + d, least(kLanes, kv.head_dim - d)));
    }
}

template <class T>
void attend(const Attention& args, const AttentionPlan& plan, const AttentionItem& item) {
    const Rows rows{args, plan.tiles[item.tile], item};
    Work<T> work;
    load_queries(work, rows);
    const int num_rows = work.num_rows;
    if (item.partial >= 0) {
        float* partials = plan.partials + item.partial;
        for (int split = item.first_split; split < item.end_split; ++split)
            run_split(work, args, split, state_at(partials + split * state_floats(num_rows, work.padded_dim), num_rows));
        return;
    }
    alignas(64) float floats[2][state_floats(kTileRows, kMaxHeadDim)];
    const State total = state_at(floats[0], num_rows), part = state_at(floats[1], num_rows);
    run_split(work, args, 0, total);
    for (int split = 1; split < item.end_split; ++split) {
        run_split(work, args, split, part);
        combine(rows, split, total, part);
    }
    write_out(rows, total);
}

void merge(const Attention& args, const AttentionPlan& plan, const AttentionItem& item) {
    const Rows rows{args, plan.tiles[item.tile], item};
    const int64_t stride = state_floats(rows.total(), args.kv.padded_dim);
    float* partials = plan.partials + item.partial;
    const State total = state_at(partials, rows.total());
    for (int split = 1; split < item.end_split; ++split)
        combine(rows, split, total, state_at(partials + split * stride, rows.total()));
    write_out(rows, total);
}

}  // namespace

void attention(Runtime& runtime, const Attention& args) {
    const AttentionShape shape{args.query_starts, args.seq_lens,      args.num_seqs,             args.kv.num_kv_heads,
                               args.group,        args.kv.padded_dim, runtime.pool.num_threads()};
    const AttentionPlan plan = plan_attention(shape, runtime.scratch);
    const bool bf16 = args.kv.dtype == KvDtype::bfloat16;
    parallel(runtime.pool, plan.num_items, [&](int64_t i) {
        if (bf16) attend<Bf16>(args, plan, plan.items[i]);
        else attend<F32>(args, plan, plan.items[i]);
    });
    parallel(runtime.pool, plan.num_merges, [&](int64_t i) { merge(args, plan, plan.merges[i]); });
}

}  // namespace quire::QUIRE_ISA

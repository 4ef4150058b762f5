// attention: out[t, q] = sum_j p[j] v[j],  p = softmax_j(scale * q[t, q] . k[j]) over the keys j up to row t's own position.
// Paged, causal, grouped queries; prompt chunks and single tokens in one launch.       (online softmax: arXiv 1805.02867)
//
// Layout: pages as in kv_cache.h. Rows of one query tile share a kv head (attention_plan.h), so that every page read serves up
// to kTileRows rows. Few rows of a kv head (attention_tile.h): keys are turned over 16 x 16 words at a time, scores run over 16
// tokens a vector with q broadcast, values over 16 dims a vector with p broadcast. Many (attention_rows.h): lanes are rows, keys
// and values are broadcast as they lie, and the softmax needs nothing across lanes. Both do the same operations for a row.
//
// On amx, bf16 pages have one way for any number of rows, attention_tiles.h, with an order of its own: 32 dims or keys to a product.
//
// Why a row's bits depend on the row alone. For one row the operations are, whatever rows stand beside it:
//   per split of 512 keys, per tile of 128 keys (both begin at fixed absolute positions, the last ends at the row's position):
//     s = sum over d ascending of q*k, times scale * log2(e); m' = max(m, s); p = 2^(s - m'), rounded to bf16 with bf16 pages;
//     l = l*2^(m - m') + p, by 16 lanes of keys; acc = acc*2^(m - m'), then += p*v, keys ascending (in pairs with bf16)
//   splits meet ascending: m' = max, l and acc scaled by 2^(m - m') and added; out = acc / l at the end.
// Keys after the row are never read for it: in the tile of its last key each row stops at its own key (weigh_rest; where lanes
// are rows, by selecting lanes), and the half of a bf16 pair beyond it is cleared, so that what lies in slots not yet written (NaN too) cannot matter.
// The sum l is of the rounded weights: weights add up to one, and a constant v comes back exactly but for one rounding.
//
// Versions tried (one thread of a Zen 4 core in company, 3.5 GHz, 64 flop x 1 vdpbf16ps a cycle = 0.23 TFLOP/s; bf16, avx512;
// 16 query and 8 kv heads of 128; thread time, best of several, +-10 %):
//   prompt of 2048    64 keys a step 0.134 TFLOP/s; scores kept in registers, values 64 dims at a time for all rows 0.144; 128 keys a
//                     step 0.157 (68 % of peak); 64 rows a tile instead of 32: no change
//   one token, 2048   no prefetch 13 GB/s; to L1 12; to L2, a key tile ahead, 18; kv heads walked together without prefetch 14.5, with
//                     it 18. A plain read of the same pages runs at 11 head by head and 23 a block at a time, 30 straight on.
//   32 tokens, 1024   12.7 GB/s; fetching to L2 15.3; kv heads walked together 16.8
//   32 rows of decoding on 1024 keys, shared or not, and 80 own   each row by itself 10.5 ms, shared keys together 3.2; 256 and 64: 2.6 and
//                     0.6; 8 rows, 1024 and 80: 1.9 and 0.56. Nothing shared: the search for it costs less than can be measured.
//   32 tokens, 160    fetching the same tokens of the next kv head while one computes, no longer the next key tile of this head: 1.52 ms
//                     instead of 2.08 (short contexts have no next tile); longer contexts the same
//   int8 pages        prompt of 2048: as bf16 (0.157 and 0.159 TFLOP/s); one token, 2048: 322 us instead of 566; 32 tokens, 160: 1.06 ms
//                     instead of 1.6; 32 tokens, 1100: 5.4 ms instead of 9.8
//   to L1 as well, eight words before they are needed, by the rows that come first: one token, 2048: 566 us instead of 652; 32 tokens,
//                     160: 1.61 ms instead of 1.80, on two threads 0.84 and 0.96; 32 tokens, 1100, two threads: 5.6 ms instead of 6.9
//                     (26 GB/s). Prompts the same, though their first rows of four take three times the time of the others.
//   pages whose strides do not repeat modulo 4 KiB: no change
// Since a token's keys lie side by side in a page (kv_cache.h says why), two threads, DRAM at 24 to 36 GB/s, before and after in turn:
//   one token, 4096   by turning keys 1.00 to 1.03 of the time of keys that lay turned over; 512: 0.9 to 1.1
//   32 tokens, 160    0.98 to 1.1; 48 keys 0.8 to 0.97: values of the next pages are now fetched evenly (before, of short contexts
//                     24 of 64 lines), tokens not there are not, and an item's last keys fetch the first ones of the next item. Without
//                     fetching keys to L1 as well 48 keys took 1.3 times as long
//   int8, 32 x 192    1.0 to 1.15: bytes are half, turning is not
//   prompt of 2048    keys turned for 32 rows: 55 % of the bf16 peak (before: 60); lanes of rows 64; 2^x of degree 4 instead of exp 68;
//                     loops without masks where all rows see all keys, fetching within the loop of products 73 to 77
//   as lanes of rows  chunk of 1024 on 2048, bf16: 74 % of peak; prompt, int8 (two products for one) 68 instead of 60; float32 82 instead of 68
//   8 prompts of 128  ends that some rows see in part by masked products instead of products and selections, dims unrolled: 3.19 and
//                     2.99 ms in the quietest pair of runs, three pairs 0.8 to 1.2; the second half of a prompt of 2048 the same
// Of a prompt's time now: 76 % products, which run at 88 % of peak, 8 % softmax, 4 % loading and storing sums, 2 % masked ends.
#include "attention_split.h"

namespace quire::QUIRE_ISA {
namespace {

// ---- the rows of an item ----------------------------------------------------------------------------------------------

// Of one sequence: kv heads, then positions, then query heads of the group.
struct Rows {
    const Attention& args;
    const QueryTile& tile;
    int first_kv_head, num_kv_heads;

    int per_head() const { return tile.num_positions * tile.num_heads; }
    int total() const { return per_head() * num_kv_heads; }
    int seq() const { return tile.seq; }
    int visible(int row) const { return tile.first_visible + row % per_head() / tile.num_heads; }
    int64_t offset(int row) const {  // in q and out
        const int64_t position = tile.first_row + row % per_head() / tile.num_heads, kv_head = first_kv_head + row / per_head();
        return (position * args.num_heads + kv_head * args.group + tile.first_head + row % tile.num_heads) * args.kv.head_dim;
    }
};

// Of several sequences that share pages: kv heads, then sequences, then query heads of the group; all see the same keys.
struct SharedRows {
    const Attention& args;
    const SharedRow* shared;
    const SharedItem& item;
    int first_kv_head, num_visible;

    int per_head() const { return item.num_rows * args.group; }
    int total() const { return per_head() * item.num_kv_heads; }
    int seq() const { return shared->seq; }
    int visible(int) const { return num_visible; }
    const SharedRow& of(int row) const { return shared[row % per_head() / args.group]; }
    int64_t query_head(int row) const { return int64_t{first_kv_head + row / per_head()} * args.group + row % args.group; }
    int64_t offset(int row) const { return (of(row).row * args.num_heads + query_head(row)) * args.kv.head_dim; }
    int64_t record(int row, int split) const {  // in partials
        return of(row).records + (split * args.num_heads + query_head(row)) * record_floats(args.kv.padded_dim);
    }
};

SharedRows rows_of(const Attention& args, const AttentionPlan& plan, const SharedItem& item) {
    const SharedRow* shared = plan.shared_rows + item.first;
    return {args, shared, item, item.kv_head, least(item.end_tile * kKeyTile, shared->num_keys)};
}

// total += part of split `split`, for the rows that see keys of it.
template <class R>
void combine(const R& rows, int split, State total, State part) {
    for (int r = 0; r < rows.total(); ++r) {
        if (rows.visible(r) > split * kSplitKeys) combine_row(total, part, r, rows.args.kv.padded_dim);
    }
}

#if QUIRE_ISA_avx512
// Quotients by one number, which is 1 or more: the bits of divisions (of results that are not denormal), each of which takes as long as
// sixteen multiplications. What a times 1/b rounded lacks is known exactly, and added (Markstein 1990).
class By {
public:
    explicit By(float number) : inverse_(set1(1.0f / number)), negative_(set1(-number)) {}

    Vec operator()(Vec a) const {
        const Vec near = mul(a, inverse_), exact = fma(fma(near, negative_, a), inverse_, near);
        constexpr int kZeroOrInfinite = 0x1e;  // lacks nothing: an infinity would become NaN, -0 zero
        return {_mm512_mask_mov_ps(exact.v, _mm512_fpclass_ps_mask(near.v, kZeroOrInfinite), near.v)};
    }

private:
    Vec inverse_, negative_;
};
#else
class By {
public:
    explicit By(float number) : number_(set1(number)) {}
    Vec operator()(Vec a) const { return div(a, number_); }

private:
    Vec number_;
};
#endif

template <class R>
void write_out(const R& rows, State state) {
    const int dim = rows.args.kv.head_dim;
    for (int r = 0; r < rows.total(); ++r) {
        float* out = rows.args.out + rows.offset(r);
        const float* acc = state.acc + r * rows.args.kv.padded_dim;
        const By by_sum(state.sum[r]);
        for (int d = 0; d < dim; d += kLanes) store_n(out + d, by_sum(load(acc + d)), least(kLanes, dim - d));
    }
}

template <class T, class R>
void load_queries(Work<T>& work, const R& rows) {
    const Attention& args = rows.args;
    const KvView& kv = args.kv;
    work.head_rows = rows.per_head();
    work.num_rows = rows.total();
    work.last_visible = rows.visible(work.num_rows - 1);
    work.q_stride = kv.padded_dim * T::kParts / T::kStep;
    work.depth = kv.depth;
    work.key_stride = (kv.depth + kPieceWords - 1) / kPieceWords * kPieceWords * kTileTokens;
    work.padded_dim = kv.padded_dim;
    work.k_words = int(kv.k_words);
    work.v_lines = int(kv.tile_stride - kv.k_words) / 16;
    work.scale_words = int(kv.tile_stride) - kScaleWords;
    work.end = work.last_visible;
    work.upcoming = {};
    work.table = args.block_tables + rows.seq() * args.table_width;
    work.pages = kv.words + args.layer * kv.layer_stride + rows.first_kv_head * kv.head_stride;
    for (int r = 0; r < work.num_rows; ++r) {
        work.visible[r] = rows.visible(r);
        T::load_query(work, r, args.q + rows.offset(r), kv.head_dim);
    }
#if QUIRE_ISA_amx
    if constexpr (T::kTiles) turn_queries(work);
#endif
}

// ---- items of one sequence --------------------------------------------------------------------------------------------

Upcoming upcoming_of(const Attention& args, const QueryTile& tile, const AttentionItem& item) {
    return {args.block_tables + tile.seq * args.table_width,
            args.kv.words + args.layer * args.kv.layer_stride + item.kv_head * args.kv.head_stride, item.first_split * kSplitKeys,
            tile.first_visible + tile.num_positions - 1};
}

template <class T>
void attend(const Attention& args, const AttentionPlan& plan, int64_t index) {
    const AttentionItem& item = plan.items[index];
    const Rows rows{args, plan.tiles[item.tile], item.kv_head, item.num_kv_heads};
    Work<T> work;
    load_queries(work, rows);
    work.end = least(work.last_visible, item.end_split * kSplitKeys);
    if (index + 1 < plan.num_items) work.upcoming = upcoming_of(args, plan.tiles[plan.items[index + 1].tile], plan.items[index + 1]);
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
    const Rows rows{args, plan.tiles[item.tile], item.kv_head, item.num_kv_heads};
    const int64_t stride = state_floats(rows.total(), args.kv.padded_dim);
    float* partials = plan.partials + item.partial;
    const State total = state_at(partials, rows.total());
    for (int split = 1; split < item.end_split; ++split)
        combine(rows, split, total, state_at(partials + split * stride, rows.total()));
    write_out(rows, total);
}

// ---- items of rows that share -----------------------------------------------------------------------------------------

template <class T>
void load_records(Work<T>& work, const SharedRows& rows, const AttentionPlan& plan, int split, State state) {
    for (int r = 0; r < work.num_rows; ++r) load_record(work, state, r, plan.partials + rows.record(r, split));
}

// Shared keys within a split, on from where the run around this one has come to.
template <class T>
void attend_shared(const Attention& args, const AttentionPlan& plan, const SharedItem& piece) {
    const SharedRows rows = rows_of(args, plan, piece);
    Work<T> work;
    load_queries(work, rows);
    alignas(64) float floats[state_floats(kTileRows, kMaxHeadDim)];
    const State state = state_at(floats, work.num_rows);
    const int split = piece.begin_tile / kTilesPerSplit;
    if (piece.begin_tile % kTilesPerSplit == 0) begin_split(work, state);
    else load_records(work, rows, plan, split, state);
    run_keys(work, args, piece.begin_tile * kKeyTile, piece.end_tile * kKeyTile, state);
    for (int r = 0; r < work.num_rows; ++r) save_record(work, state, r, plan.partials + rows.record(r, split));
}

// Split `split` of a row that shares: its record, its record and own keys, or own keys alone.
template <class T>
void finish_split(Work<T>& work, const SharedRows& rows, const AttentionPlan& plan, int split, State state) {
    const int own = rows.item.begin_tile * kKeyTile, begin = split * kSplitKeys;
    const int end = least(begin + kSplitKeys, work.last_visible);
    if (own > begin) load_records(work, rows, plan, split, state);
    else begin_split(work, state);
    if (own < end) run_keys(work, rows.args, own > begin ? own : begin, end, state);
    end_split(work, state);
}

template <class T>
void attend_own(const Attention& args, const AttentionPlan& plan, const SharedItem& item) {
    const SharedRows rows = rows_of(args, plan, item);
    Work<T> work;
    load_queries(work, rows);
    alignas(64) float floats[2][state_floats(kTileRows, kMaxHeadDim)];
    const State total = state_at(floats[0], work.num_rows), part = state_at(floats[1], work.num_rows);
    finish_split(work, rows, plan, 0, total);
    for (int split = 1; split * kSplitKeys < work.last_visible; ++split) {
        finish_split(work, rows, plan, split, part);
        combine(rows, split, total, part);
    }
    write_out(rows, total);
}

template <class T>
void run_plan(Pool& pool, const Attention& args, const AttentionPlan& plan) {
    const int64_t* begins = plan.stage_begins;
    parallel(pool, begins[1] + plan.num_items, [&](int64_t i) {
        if (i < begins[1]) attend_shared<T>(args, plan, plan.pieces[i]);
        else attend<T>(args, plan, i - begins[1]);
    });
    for (int stage = 1; stage < kTilesPerSplit; ++stage) {
        parallel(pool, begins[stage + 1] - begins[stage],
                 [&](int64_t i) { attend_shared<T>(args, plan, plan.pieces[begins[stage] + i]); });
    }
    parallel(pool, plan.num_owns + plan.num_merges, [&](int64_t i) {
        if (i < plan.num_owns) attend_own<T>(args, plan, plan.owns[i]);
        else merge(args, plan, plan.merges[i - plan.num_owns]);
    });
}

}  // namespace

void attention(Runtime& runtime, const Attention& args) {
    const KvView& kv = args.kv;
    const AttentionShape shape{args.query_starts, args.seq_lens,   args.block_tables, args.num_seqs, args.table_width,
                               kv.block_size,     kv.num_kv_heads, args.group,        kv.padded_dim, runtime.pool.num_threads()};
    const AttentionPlan plan = plan_attention(shape, runtime.scratch);
    switch (kv.dtype) {
        case KvDtype::bfloat16: run_plan<Bf16>(runtime.pool, args, plan); break;
        case KvDtype::float32: run_plan<F32>(runtime.pool, args, plan); break;
        case KvDtype::int8: run_plan<Int8>(runtime.pool, args, plan); break;
    }
}

}  // namespace quire::QUIRE_ISA

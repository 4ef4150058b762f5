// The kinds of page that attention reads: what a word of keys, of values, of a query and of weights is, and how they multiply.
// Each kind gives attention_tile.h the same names:
//   kStep            neighbours in a word of keys (dims) and of values (tokens)
//   kParts           passes over the words: a query and its weights are the sum of so many parts, high part first
//   Sum              accumulator; score, weigh: += a word of keys or values times a word of the row
//   load_query       a row of q as words, [part][padded_dim / kStep]
//   find_scales      before the rows that see `limit` keys of a tile are weighed; row_scale: what a row's scores are scaled by
//   scaled           scores from accumulators, times scale        put_weights  weights as words, [part][kKeyTile / kStep], and
//                                                                              what of them enters the row's sum
//   open, close      the accumulator of values before and after a tile; raise: from one part to the next
//   kDegree          of the polynomial of its weights
//   query_scale, query_sum   what a row's scores are scaled by, what its integer sums begin with (attention_rows.h)
//   kTiles           on amx, products are those of tiles (attention_tiles.h)
//   num_words        words of values for rows that see from `least` to `most` keys of the tile
// Bf16, F32: accumulators are float32 throughout, words in ascending order; a row stops at its own key (weigh_rest).
//
// Int8: a page holds integers and a scale per token for keys and for values (kv_cache.h). The query is rounded to 15 bits by its
// largest element, q = s (128 hi + lo), weights times the values' scales to 16 bits by the tile's largest scale of values (of the
// keys that the row sees), so that vpdpbusd sums exact integers: finer than bfloat16's 8 bits, at the same number of
// multiplications, and nothing need be widened. Keys are stored plus 128, unsigned; -128 * sum(q) puts that right.
//     s = int(q . k) * (scale * s_q) * s_k;  p = 2^(s - m), 16 bits of p * s_v / max(s_v);  acc = acc * correction + int(p . v) * max(s_v) / 65535
// Integers do not care about order, keys beyond a row's last have weight 0 and cannot be NaN; a scale that is not finite
// (of a token that is not) makes its row NaN.
// Knows: words. Does not know: tiles' loops, rows' order.
#pragma once
#include "attention_exp.h"
#include "attention_plan.h"
#include "attention_turn.h"
#include "simd_bytes.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int kTilesPerStep = kKeyTile / kTileTokens;

constexpr int kVecs = 16 / kLanes;  // vectors for sixteen lanes
#if QUIRE_ISA_avx512
constexpr int kRows = 4, kWide = 4;  // register tile: kRows rows by kWide * 16 lanes
#elif QUIRE_ISA_avx2
constexpr int kRows = 4, kWide = 1;
#else
constexpr int kRows = 2, kWide = 1;
#endif

inline int least(int a, int b) { return a < b ? a : b; }

// What a thread is likely to read after its item: the keys from `begin` on of a sequence that has `last_visible`. No table: nothing.
struct Upcoming {
    const int32_t* table;
    const uint32_t* pages;
    int begin, last_visible;
};

// A query tile on the stack of the thread that computes it, and the pages of the current key tile.
template <class T>
struct Work {
    alignas(64) uint32_t q[kTileRows * kMaxHeadDim * T::kParts / T::kStep];
    alignas(64) uint32_t keys[kWide * kTileTokens * kMaxHeadDim / T::kStep];  // of kWide tiles, turned: lanes are tokens
    alignas(64) float scores[kTileRows * kKeyTile];
    alignas(64) uint32_t weights[kTileRows * kKeyTile * T::kParts / T::kStep];
    alignas(64) float lanes[kTileRows * 16];  // sums of weights by lane
    float correction[kTileRows];
    int visible[kTileRows];  // keys that a row sees
    int head_rows;           // rows of each kv head
    int num_rows, last_visible, q_stride, depth, key_stride, padded_dim;
    const int32_t* table;
    const uint32_t* pages;  // of this layer and the first kv head
    int end;                // of the item's keys
    Upcoming upcoming;
    const uint32_t *k[kTilesPerStep], *v[kTilesPerStep];
    const uint32_t* next[kTilesPerStep];        // pages that are read after these, keys first, to be fetched meanwhile
    int num_next;                                           // of the pages to be fetched, how many hold tokens to be read
    int tokens[kTilesPerStep], next_tokens[kTilesPerStep];  // tokens to be read of these pages, and of those to be fetched
    int k_words, v_lines, scale_words;          // of a tile of 16 tokens; scale_words: where its scales lie
    typename T::Scales scales;

    const float* scales_of_keys() const { return scales.of_keys(); }
    uint32_t* row_weights(int row) { return weights + row * (kKeyTile * T::kParts / T::kStep); }
    const uint32_t* row_weights(int row) const { return weights + row * (kKeyTile * T::kParts / T::kStep); }
};

// What Bf16 and F32 have in common: float32 accumulators.
struct FloatSums {
    static constexpr int kParts = 1;
    using Sum = Vec;
    struct Scales {
        void forget() {}
        const float* of_keys() const { return nullptr; }
    };
    template <class W> static float query_scale(const W&, int, float scale) { return scale; }
    template <class W> static int32_t query_sum(const W&, int) { return 0; }
    template <class W> static Vec first_score(const W&, int) { return zero(); }
    static Vec raise_score(Vec sum) { return sum; }
    static Vec raise(Vec sum) { return sum; }
    static Vec value(Vec sum) { return sum; }
    static Vec open(const float* acc, float correction) { return mul(load(acc), set1(correction)); }
    template <class W> static void close(const W&, int, float* acc, Vec sum, float) { store(acc, sum); }
    template <class W> static void find_scales(W&, int) {}
    template <class W> static Vec scaled(const W&, int, int, Vec score, float scale) { return mul(score, set1(scale)); }
    static float row_scale(Scales&, int, float scale) { return scale; }
};

struct Bf16 : FloatSums {
    static constexpr int kStep = 2, kDegree = 4;
    static constexpr bool kTiles = true;
    using Word = Pairs;
    static Pairs load(const uint32_t* p) { return load_pairs(reinterpret_cast<const uint16_t*>(p)); }
    static Pairs broadcast(const uint32_t* p) { return broadcast_pair(reinterpret_cast<const uint16_t*>(p)); }
    static Vec score(Vec acc, Pairs key, Pairs x) { return dot(acc, key, x); }
    static Vec weigh(Vec acc, Pairs value, Pairs p) { return dot(acc, value, p); }
    static void load_query(Work<Bf16>& work, int row, const float* q, int dim) {
        uint16_t* out = reinterpret_cast<uint16_t*>(work.q + row * work.q_stride);
        for (int d = 0; d < dim; d += kLanes) store_bf16(out + d, load_n(q + d, least(kLanes, dim - d)));
    }
    static Vec put_weights(Work<Bf16>& work, int row, int at, Vec p) {
        uint16_t* out = reinterpret_cast<uint16_t*>(work.row_weights(row)) + at;
        store_bf16(out, p);
        return load_bf16(out);
    }
    static int num_words(int least, int) { return least / kStep; }
};

struct F32 : FloatSums {
    static constexpr int kStep = 1, kDegree = 6;
    static constexpr bool kTiles = false;
    using Word = Vec;
    static Vec load(const uint32_t* p) { return QUIRE_ISA::load(reinterpret_cast<const float*>(p)); }
    static Vec broadcast(const uint32_t* p) {
        float x;
        memcpy(&x, p, 4);
        return set1(x);
    }
    static Vec score(Vec acc, Vec key, Vec x) { return fma(key, x, acc); }
    static Vec weigh(Vec acc, Vec value, Vec p) { return fma(value, p, acc); }
    static void load_query(Work<F32>& work, int row, const float* q, int dim) {
        float* out = reinterpret_cast<float*>(work.q + row * work.q_stride);
        for (int d = 0; d < dim; d += kLanes) store(out + d, load_n(q + d, QUIRE_ISA::least(kLanes, dim - d)));
    }
    static Vec put_weights(Work<F32>& work, int row, int at, Vec p) {
        store(reinterpret_cast<float*>(work.row_weights(row)) + at, p);
        return p;
    }
    static int num_words(int least, int) { return least; }
};

struct Int8 {
    static constexpr int kStep = 4, kParts = 2, kDegree = 4;
    static constexpr bool kTiles = false;
    static constexpr float kQueryTop = 127 * 128, kWeightTop = 65535, kTiny = 0x1p-100f;
    using Word = Bytes;
    using Sum = Sums;
    struct Scales {
        float query[kTileRows];     // of a row of q
        int32_t query_sum[kTileRows];
        float factor[kTileRows];    // of a row's integer sums of values
        alignas(64) float keys[kKeyTile], ratios[kKeyTile];  // of the first `limit` keys of the tile; zero beyond
        float unit;                 // factor of rows that see `limit` keys
        int limit;
        void forget() { limit = -1; }
        const float* of_keys() const { return keys; }
    };
    static Bytes load(const uint32_t* p) { return load_bytes(p); }
    static Bytes broadcast(const uint32_t* p) { return same_bytes(p); }
    static Sums score(Sums acc, Bytes key, Bytes x) { return dot(acc, key, x); }
    static Sums weigh(Sums acc, Bytes value, Bytes p) { return dot(acc, p, value); }
    static Sums first_score(const Work<Int8>& work, int row) { return sums_of(-work.scales.query_sum[row]); }
    static Sums raise_score(Sums sum) { return shift_left(sum, 7); }
    static Sums raise(Sums sum) { return shift_left(sum, 8); }
    static Vec value(Sums sum) { return as_float(sum); }
    static Sums open(const float*, float) { return sums_of(0); }
    static void close(const Work<Int8>& work, int row, float* acc, Sums sum, float correction) {
        store(acc, fma(as_float(sum), set1(work.scales.factor[row]), mul(QUIRE_ISA::load(acc), set1(correction))));
    }
    static float query_scale(const Work<Int8>& work, int row, float scale) { return scale * work.scales.query[row]; }
    static int32_t query_sum(const Work<Int8>& work, int row) { return work.scales.query_sum[row]; }
    static float row_scale(Scales& scales, int row, float scale) {
        scales.factor[row] = scales.unit;
        return scale * scales.query[row];
    }
    static Vec scaled(const Work<Int8>& work, int, int at, Vec score, float scale) {
        return mul(mul(score, set1(scale)), QUIRE_ISA::load(work.scales.keys + at));
    }
    static void load_query(Work<Int8>& work, int row, const float* q, int dim);
    static void find_scales(Work<Int8>& work, int limit);
    static Vec put_weights(Work<Int8>& work, int row, int at, Vec p) {
        uint8_t* out = reinterpret_cast<uint8_t*>(work.row_weights(row)) + at;
        const Sums weights = nearest(mul(p, QUIRE_ISA::load(work.scales.ratios + at)));
        store_low_bytes(out, shift_right(weights, 8));
        store_low_bytes(out + kKeyTile, weights);
        return p;
    }
    static int num_words(int, int most) { return (most + kStep - 1) / kStep; }
};

inline void Int8::load_query(Work<Int8>& work, int row, const float* q, int dim) {
    const int part_bytes = work.padded_dim;
    uint8_t* out = reinterpret_cast<uint8_t*>(work.q + row * work.q_stride);
    Vec most = set1(kTiny * kQueryTop), guard = zero();
    for (int d = 0; d < dim; d += kLanes) {
        const Vec x = load_n(q + d, least(kLanes, dim - d));
        most = max(most, max(x, sub(zero(), x)));
        guard = fma(x, zero(), guard);  // NaN if x is not finite
    }
    const float top = largest(most);
    Sums sum = sums_of(0);
    for (int d = 0; d < dim; d += kLanes) {
        const Sums x = nearest(mul(load_n(q + d, least(kLanes, dim - d)), set1(kQueryTop / top)));
        const Sums high = shift_right(plus(x, sums_of(64)), 7);
        store_low_bytes(out + d, high);
        store_low_bytes(out + part_bytes + d, minus(x, shift_left(high, 7)));
        sum = plus(sum, x);
    }
    uint32_t lanes[kLanes], total = 0;  // unsigned: of a q that is not finite the sum may wrap; the guard decides there
    memcpy(lanes, &sum, sizeof lanes);
    for (int i = 0; i < kLanes; ++i) total += lanes[i];
    work.scales.query_sum[row] = int32_t(total);
    work.scales.query[row] = top / kQueryTop + QUIRE_ISA::sum(guard);
}

// For rows that see the first `limit` keys of the tile.
inline void Int8::find_scales(Work<Int8>& work, int limit) {
    Scales& scales = work.scales;
    if (scales.limit == limit) return;
    scales.limit = limit;
    Vec most = zero(), guard = zero();
    for (int i = 0; i < kKeyTile; i += kLanes) {
        const int n = limit - i < 0 ? 0 : least(kLanes, limit - i);
        alignas(64) float keys[kLanes] = {}, values[kLanes] = {};
        if (n > 0) {
            const uint16_t* stored = reinterpret_cast<const uint16_t*>(work.k[i / 16] + work.scale_words) + i % 16;
            store(keys, load_bf16(stored));
            store(values, load_bf16(stored + kTileTokens));
        }
        const Vec v = load_n(values, n);
        most = max(most, v);
        guard = fma(v, zero(), guard);
        store(scales.keys + i, load_n(keys, n));
        store(scales.ratios + i, v);
    }
    const float top = largest(most);
    const Vec ratio = set1(top > 0 ? kWeightTop / top : 0.0f);
    for (int i = 0; i < kKeyTile; i += kLanes) store(scales.ratios + i, mul(QUIRE_ISA::load(scales.ratios + i), ratio));
    scales.unit = top / kWeightTop + QUIRE_ISA::sum(guard);
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// Attention on one key tile: scores, one step of each row's online softmax, values. See attention.cpp for the whole.
// Included by attention.cpp alone; everything is in its unnamed namespace.
// Knows: rows, pages, vectors. Does not know: splits, items, threads.
#pragma once
#include "attention_plan.h"
#include "simd.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int kVecs = 16 / kLanes;  // vectors for sixteen lanes
constexpr int kTilesPerStep = kKeyTile / kTileTokens;
#if QUIRE_ISA_avx512
constexpr int kRows = 4, kWide = 4;  // register tile: kRows rows by kWide * 16 lanes
#elif QUIRE_ISA_avx2
constexpr int kRows = 4, kWide = 1;
#else
constexpr int kRows = 2, kWide = 1;
#endif

// The two kinds of page: what a word is and how words multiply.
struct Bf16 {
    static constexpr int kStep = 2;
    using Word = Pairs;
    static Pairs load(const uint32_t* p) { return load_pairs(reinterpret_cast<const uint16_t*>(p)); }
    static Pairs broadcast(const uint32_t* p) { return broadcast_pair(reinterpret_cast<const uint16_t*>(p)); }
    static Vec multiply_add(Vec acc, Pairs a, Pairs b) { return dot(acc, a, b); }
    static void round_to(uint32_t* words, int at, Vec x) { store_bf16(reinterpret_cast<uint16_t*>(words) + at, x); }
    static Vec rounded(const uint32_t* words, int at) { return load_bf16(reinterpret_cast<const uint16_t*>(words) + at); }
};

struct F32 {
    static constexpr int kStep = 1;
    using Word = Vec;
    static Vec load(const uint32_t* p) { return QUIRE_ISA::load(reinterpret_cast<const float*>(p)); }
    static Vec broadcast(const uint32_t* p) {
        float x;
        memcpy(&x, p, 4);
        return set1(x);
    }
    static Vec multiply_add(Vec acc, Vec a, Vec b) { return fma(a, b, acc); }
    static void round_to(uint32_t* words, int at, Vec x) { store(reinterpret_cast<float*>(words) + at, x); }
    static Vec rounded(const uint32_t* words, int at) { return load(words + at); }
};

inline int least(int a, int b) { return a < b ? a : b; }

inline float exp_of(float x) {
    float lanes[kLanes];
    store(lanes, exp(set1(x)));
    return lanes[0];
}

// A query tile on the stack of the thread that computes it, and the pages of the current key tile.
template <class T>
struct Work {
    alignas(64) uint32_t q[kTileRows * kMaxHeadDim / T::kStep];
    alignas(64) float scores[kTileRows * kKeyTile];
    alignas(64) uint32_t weights[kTileRows * kKeyTile / T::kStep];
    alignas(64) float lanes[kTileRows * 16];  // sums of weights by lane
    float correction[kTileRows];
    int visible[kTileRows];  // keys that a row sees
    int head_rows;  // rows of each kv head
    int num_rows, last_visible, q_stride, depth, padded_dim;
    const int32_t* table;
    const uint32_t* pages;  // of this layer and the first kv head
    const uint32_t *k[kTilesPerStep], *v[kTilesPerStep];
    const uint32_t* next[kTilesPerStep];  // pages of the key tile after this one, keys first, to be fetched meanwhile
    int k_words, v_lines;                 // of a tile of 16 tokens
};

// Into L2 only: a core waits for at most some twenty lines into L1 (15 GB/s at DRAM's latency), and L1's own prefetchers follow.
inline void fetch(const uint32_t* p) { __builtin_prefetch(p, 0, 2); }

// scores[MR][NV * 16] = q[MR] . k[NV tiles of 16 tokens], `depth` words ascending. kFetch: the next tiles' keys meanwhile.
template <class T, int MR, int NV, bool kFetch>
inline void score_tile(const Work<T>& work, int row, int tile) {
    constexpr int kN = NV * kVecs;
    const uint32_t* q = work.q + row * work.q_stride;
    const uint32_t* const* k = work.k + tile;
    Vec acc[MR][kN];
    for (int r = 0; r < MR; ++r) {
        for (int j = 0; j < kN; ++j) acc[r][j] = zero();
    }
    for (int w = 0; w < work.depth; ++w) {
        typename T::Word keys[kN];
#pragma GCC unroll 16
        for (int j = 0; j < kN; ++j) keys[j] = T::load(k[j / kVecs] + w * 16 + j % kVecs * kLanes);
        if constexpr (kFetch) {
            for (int j = 0; j < NV; ++j) fetch(work.next[tile + j] + w * 16);
        }
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r) {
            const typename T::Word x = T::broadcast(q + r * work.q_stride + w);
#pragma GCC unroll 16
            for (int j = 0; j < kN; ++j) acc[r][j] = T::multiply_add(acc[r][j], keys[j], x);
        }
    }
    float* scores = const_cast<float*>(work.scores) + row * kKeyTile + tile * 16;
    for (int r = 0; r < MR; ++r) {
        for (int j = 0; j < kN; ++j) store(scores + r * kKeyTile + j * kLanes, acc[r][j]);
    }
}

// One step of a row's online softmax over its first `limit` keys of the tile; kFull: all of them.
template <class T, bool kFull>
inline void soften_row(Work<T>& work, int row, int limit, float scale, float& running_max) {
    float* scores = work.scores + row * kKeyTile;
    uint32_t* weights = work.weights + row * (kKeyTile / T::kStep);
    const int end = kFull ? kKeyTile : (limit + 15) / 16 * 16;
    for (int i = limit; i < end; ++i) scores[i] = -__builtin_inff();
    Vec s[kKeyTile / kLanes], lanes[kVecs];
    Vec highest = set1(-__builtin_inff());
    for (int i = 0; i < end / kLanes; ++i) {
        s[i] = mul(load(scores + i * kLanes), set1(scale));
        highest = max(highest, s[i]);
    }
    const float tile_max = largest(highest);
    const float new_max = running_max > tile_max ? running_max : tile_max;
    const float correction = running_max == new_max ? 1.0f : exp_of(running_max - new_max);  // exp(0) is exactly 1
    for (int i = 0; i < kVecs; ++i) lanes[i] = mul(load(work.lanes + row * 16 + i * kLanes), set1(correction));
    for (int i = 0; i < end / kLanes; ++i) {
        T::round_to(weights, i * kLanes, exp(sub(s[i], set1(new_max))));
        lanes[i % kVecs] = add(lanes[i % kVecs], T::rounded(weights, i * kLanes));
    }
    for (int i = 0; i < kVecs; ++i) store(work.lanes + row * 16 + i * kLanes, lanes[i]);
    work.correction[row] = correction;
    running_max = new_max;
}

// acc[MR][ND * 16 dims] = acc * correction + the first `num_words` words of weights times values, ascending.
// kFetch: meanwhile the next tiles' values, from their line `line` on.
template <class T, int MR, int ND, bool kFetch>
inline void weigh_tile(const Work<T>& work, int row, int num_words, int dim, int line, float* acc) {
    constexpr int kN = ND * kVecs, kWordsPerTile = kTileTokens / T::kStep, kStride = kKeyTile / T::kStep;
    const uint32_t* weights = work.weights + row * kStride;
    acc += row * work.padded_dim + dim;
    Vec sums[MR][kN];
    for (int r = 0; r < MR; ++r) {
        const Vec correction = set1(work.correction[row + r]);
        for (int j = 0; j < kN; ++j) sums[r][j] = mul(load(acc + r * work.padded_dim + j * kLanes), correction);
    }
    for (int w = 0; w < num_words; ++w) {
        const uint32_t* v = work.v[w / kWordsPerTile] + w % kWordsPerTile * work.padded_dim + dim;
        typename T::Word values[kN];
#pragma GCC unroll 16
        for (int j = 0; j < kN; ++j) values[j] = T::load(v + j * kLanes);
        if constexpr (kFetch) {
            if (line + w < work.v_lines) {
                for (int j = 0; j < kTilesPerStep; ++j) fetch(work.next[j] + work.k_words + (line + w) * 16);
            }
        }
#pragma GCC unroll 16
        for (int r = 0; r < MR; ++r) {
            const typename T::Word p = T::broadcast(weights + r * kStride + w);
#pragma GCC unroll 16
            for (int j = 0; j < kN; ++j) sums[r][j] = T::multiply_add(sums[r][j], values[j], p);
        }
    }
    for (int r = 0; r < MR; ++r) {
        for (int j = 0; j < kN; ++j) store(acc + r * work.padded_dim + j * kLanes, sums[r][j]);
    }
}

// The words of one row from `word` on, up to its own key: what weigh_tile left because a neighbour sees less.
template <class T>
void weigh_rest(const Work<T>& work, int row, int word, int limit, float* acc) {
    constexpr int kWordsPerTile = kTileTokens / T::kStep;
    const uint32_t* weights = work.weights + row * (kKeyTile / T::kStep);
    acc += row * work.padded_dim;
    for (; word * T::kStep < limit; ++word) {
        const uint32_t* v = work.v[word / kWordsPerTile] + word % kWordsPerTile * work.padded_dim;
        const typename T::Word p = T::broadcast(weights + word);
        if ((word + 1) * T::kStep <= limit) {
            for (int d = 0; d < work.padded_dim; d += kLanes) store(acc + d, T::multiply_add(load(acc + d), T::load(v + d), p));
            continue;
        }
        for (int d = 0; d < work.padded_dim; d += kLanes) {  // the second key of the pair is not ours
            alignas(64) uint32_t first_keys[kLanes];
            for (int i = 0; i < kLanes; ++i) first_keys[i] = v[d + i] & 0xffffu;
            store(acc + d, T::multiply_add(load(acc + d), T::load(first_keys), p));
        }
    }
}

// Calls f.operator()<MR>(row) over rows [row, end) in groups of kRows, 2 and 1.
template <class F>
inline void by_rows(int row, int end, const F& f) {
    for (; row + kRows <= end; row += kRows) f.template operator()<kRows>(row);
    if constexpr (kRows > 2) {
        for (; row + 2 <= end; row += 2) f.template operator()<2>(row);
    }
    for (; row < end; ++row) f.template operator()<1>(row);
}

// Scores of rows [first, end) for `num_tiles` tiles of 16 tokens. The first rows fetch for all.
template <class T>
void score_rows(Work<T>& work, int first, int end, int num_tiles) {
    int tile = 0;
    const auto group = [&]<int NV>() {
        by_rows(first, end, [&]<int MR>(int row) {
            if (row == first) score_tile<T, MR, NV, true>(work, row, tile);
            else score_tile<T, MR, NV, false>(work, row, tile);
        });
    };
    if constexpr (kWide > 1) {
        for (; tile + kWide <= num_tiles; tile += kWide) group.template operator()<kWide>();
    }
    for (; tile < num_tiles; ++tile) group.template operator()<1>();
}

// acc of rows [first, end) += weights * values; 16 * kWide dims at a time, so that their values stay in L1 for all rows.
template <class T>
void weigh_rows(Work<T>& work, int first, int end, int tile_begin, float* acc) {
    const auto limit = [&](int row) { return least(kKeyTile, work.visible[row] - tile_begin); };
    int dim = 0, line = 0;
    const auto group = [&]<int ND>() {
        by_rows(first, end, [&]<int MR>(int row) {
            const int common = limit(row) / T::kStep;  // rows see more keys as they go: the first sees the least
            if (row == first) weigh_tile<T, MR, ND, true>(work, row, common, dim, line, acc);
            else weigh_tile<T, MR, ND, false>(work, row, common, dim, line, acc);
        });
        dim += ND * 16;
        line += kKeyTile / T::kStep;
    };
    if constexpr (kWide > 1) {
        while (dim + kWide * 16 <= work.padded_dim) group.template operator()<kWide>();
    }
    while (dim < work.padded_dim) group.template operator()<1>();
    by_rows(first, end, [&]<int MR>(int row) {
        for (int r = row; r < row + MR; ++r) weigh_rest(work, r, limit(row) / T::kStep, limit(r), acc);
    });
}

}  // namespace
}  // namespace quire::QUIRE_ISA

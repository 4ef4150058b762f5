// Attention of few rows on one key tile, lanes are tokens, then dims: scores, one step of each row's online softmax, values. See attention.cpp for the whole.
// Included by attention_split.h alone; everything is in its unnamed namespace.
// Knows: rows, pages, vectors. Does not know: splits, items, threads.
#pragma once
#include "attention_page.h"

namespace quire::QUIRE_ISA {
namespace {

// Into L2 only: a core waits for at most some twenty lines into L1 (15 GB/s at DRAM's latency), and L1's own prefetchers follow.
inline void fetch(const uint32_t* p) { __builtin_prefetch(p, 0, 2); }

// From L2 to L1, kAhead words before they are needed: the first rows of a tile would wait for every line.
constexpr int kAhead = 8;
inline void fetch_near(const uint32_t* p) { __builtin_prefetch(p, 0, 3); }

// keys[words][16] = the keys of tile `tile`, lanes made tokens; the next tile's keys are fetched meanwhile. Of tokens beyond the
// last that is read the lanes hold the last one's keys.
template <class T>
inline void turn_keys(const Work<T>& work, int tile, uint32_t* keys) {
    const int last = work.tokens[tile] - 1, num_next = work.next_tokens[tile];
    for (int w = 0; w < work.depth; w += kPieceWords) {
        const int stride = piece_words(work.depth, w);
        const uint32_t *from = work.k[tile] + w * kTileTokens, *next = work.next[tile] + w * kTileTokens;
        for (int i = 0; i <= last; ++i) fetch_near(from + (kPieceWords * kTileTokens + i * kPieceWords));
        if (last == kTileTokens - 1) turn<true>(from, stride, last, keys + w * 16, 16);
        else turn<false>(from, stride, last, keys + w * 16, 16);
        for (int i = 0; i < num_next; ++i) fetch(next + i * stride);
    }
}

// scores[MR][NV * 16] = q[MR] . k[NV tiles of 16 tokens], `depth` words ascending.
template <class T, int MR, int NV>
inline void score_tile(Work<T>& work, int row, int tile) {
    constexpr int kN = NV * kVecs;
    const uint32_t* q = work.q + row * work.q_stride;
    typename T::Sum acc[MR][kN];
    for (int r = 0; r < MR; ++r) {
        for (int j = 0; j < kN; ++j) acc[r][j] = T::first_score(work, row + r);
    }
    for (int part = 0; part < T::kParts; ++part, q += work.padded_dim / T::kStep) {
        if (part > 0) {
            for (int r = 0; r < MR; ++r) {
                for (int j = 0; j < kN; ++j) acc[r][j] = T::raise_score(acc[r][j]);
            }
        }
        for (int w = 0; w < work.depth; ++w) {
            typename T::Word keys[kN];
#pragma GCC unroll 16
            for (int j = 0; j < kN; ++j) keys[j] = T::load(work.keys + j / kVecs * work.key_stride + w * 16 + j % kVecs * kLanes);
#pragma GCC unroll 16
            for (int r = 0; r < MR; ++r) {
                const typename T::Word x = T::broadcast(q + r * work.q_stride + w);
#pragma GCC unroll 16
                for (int j = 0; j < kN; ++j) acc[r][j] = T::score(acc[r][j], keys[j], x);
            }
        }
    }
    float* scores = work.scores + row * kKeyTile + tile * 16;
    for (int r = 0; r < MR; ++r) {
        for (int j = 0; j < kN; ++j) store(scores + r * kKeyTile + j * kLanes, T::value(acc[r][j]));
    }
}

// One step of a row's online softmax over its first `limit` keys of the tile; kFull: all of them.
template <class T, bool kFull>
inline void soften_row(Work<T>& work, int row, int limit, float scale, float& running_max) {
    constexpr int kAll = kKeyTile / kLanes;
    const int end = kFull ? kAll : (limit + 15) / 16 * kVecs;
    float* scores = work.scores + row * kKeyTile;
    Vec s[kAll], lanes[kVecs];
    scale = T::row_scale(work.scales, row, scale);
    for (int i = 0; i < end; ++i) s[i] = T::scaled(work, row, i * kLanes, load(scores + i * kLanes), scale);
    if (!kFull) {
        for (int i = 0; i < end; ++i) store(scores + i * kLanes, s[i]);
        for (int i = limit; i < end * kLanes; ++i) scores[i] = kUnseen;
        for (int i = 0; i < end; ++i) s[i] = load(scores + i * kLanes);
    }
    Vec highest = set1(-__builtin_inff()), guard = zero();
    for (int i = 0; i < end; ++i) {
        highest = max(highest, s[i]);
        guard = fma(s[i], zero(), guard);  // NaN if a score is not finite: a key that is not would weigh nothing where it is -inf
    }
    const float tile_max = largest(highest);
    const float new_max = running_max > tile_max ? running_max : tile_max;
    const float correction = running_max == new_max ? 1.0f : exp2_of<T::kDegree>(running_max - new_max);
    for (int i = 0; i < kVecs; ++i) lanes[i] = mul(load(work.lanes + row * 16 + i * kLanes), set1(correction));
    lanes[0] = add(lanes[0], guard);
    for (int i = 0; i < end; ++i)
        lanes[i % kVecs] = add(lanes[i % kVecs], T::put_weights(work, row, i * kLanes, exp2<T::kDegree>(sub(s[i], set1(new_max)))));
    if (!kFull && T::kParts > 1) {  // rows beside this one may see more keys
        for (int i = end; i < kAll; ++i) T::put_weights(work, row, i * kLanes, zero());
    }
    for (int i = 0; i < kVecs; ++i) store(work.lanes + row * 16 + i * kLanes, lanes[i]);
    work.correction[row] = correction;
    running_max = new_max;
}

// acc[MR][ND * 16 dims] = acc * correction + the first `num_words` words of weights times values, ascending.
// kFetch: meanwhile the next tiles' values, from their line `line` on, `pace` lines a word.
template <class T, int MR, int ND, bool kFetch>
inline void weigh_tile(const Work<T>& work, int row, int num_words, int dim, int line, int pace, float* acc) {
    constexpr int kN = ND * kVecs, kWordsPerTile = kTileTokens / T::kStep, kPart = kKeyTile / T::kStep;
    const uint32_t* weights = work.row_weights(row);
    acc += row * work.padded_dim + dim;
    typename T::Sum sums[MR][kN];
    for (int r = 0; r < MR; ++r) {
        for (int j = 0; j < kN; ++j) sums[r][j] = T::open(acc + r * work.padded_dim + j * kLanes, work.correction[row + r]);
    }
    for (int part = 0; part < T::kParts; ++part, weights += kPart) {
        if (part > 0) {
            for (int r = 0; r < MR; ++r) {
                for (int j = 0; j < kN; ++j) sums[r][j] = T::raise(sums[r][j]);
            }
        }
        for (int w = 0; w < num_words; ++w) {
            const uint32_t* v = work.v[w / kWordsPerTile] + w % kWordsPerTile * work.padded_dim + dim;
            typename T::Word values[kN];
#pragma GCC unroll 16
            for (int j = 0; j < kN; ++j) values[j] = T::load(v + j * kLanes);
            if (kFetch && part == 0) {
                const uint32_t* soon = work.v[(w + kAhead) / kWordsPerTile % kTilesPerStep] + (w + kAhead) % kWordsPerTile * work.padded_dim;
                for (int j = 0; j < ND; ++j) fetch_near(soon + dim + j * 16);
                for (int i = line + w * pace; i < least(line + (w + 1) * pace, work.v_lines); ++i) {
                    for (int j = 0; j < work.num_next; ++j) fetch(work.next[j] + work.k_words + i * 16);
                }
            }
#pragma GCC unroll 16
            for (int r = 0; r < MR; ++r) {
                const typename T::Word p = T::broadcast(weights + r * (kPart * T::kParts) + w);
#pragma GCC unroll 16
                for (int j = 0; j < kN; ++j) sums[r][j] = T::weigh(sums[r][j], values[j], p);
            }
        }
    }
    for (int r = 0; r < MR; ++r) {
        for (int j = 0; j < kN; ++j) T::close(work, row + r, acc + r * work.padded_dim + j * kLanes, sums[r][j], work.correction[row + r]);
    }
}

// The words of one row from `word` on, up to its own key: what weigh_tile left because a neighbour sees less. Float sums only.
template <class T>
void weigh_rest(const Work<T>& work, int row, int word, int limit, float* acc) {
    constexpr int kWordsPerTile = kTileTokens / T::kStep;
    const uint32_t* weights = work.row_weights(row);
    acc += row * work.padded_dim;
    for (; word * T::kStep < limit; ++word) {
        const uint32_t* v = work.v[word / kWordsPerTile] + word % kWordsPerTile * work.padded_dim;
        const typename T::Word p = T::broadcast(weights + word);
        if ((word + 1) * T::kStep <= limit) {
            for (int d = 0; d < work.padded_dim; d += kLanes) store(acc + d, T::weigh(load(acc + d), T::load(v + d), p));
            continue;
        }
        for (int d = 0; d < work.padded_dim; d += kLanes) {  // the second key of the pair is not ours
            alignas(64) uint32_t first_keys[kLanes];
            for (int i = 0; i < kLanes; ++i) first_keys[i] = v[d + i] & 0xffffu;
            store(acc + d, T::weigh(load(acc + d), T::load(first_keys), p));
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

// Scores of rows [first, end) for `num_tiles` tiles of 16 tokens.
template <class T>
void score_rows(Work<T>& work, int first, int end, int num_tiles) {
    int tile = 0;
    const auto group = [&]<int NV>() {
        for (int j = 0; j < NV; ++j) turn_keys(work, tile + j, work.keys + j * work.key_stride);
        by_rows(first, end, [&]<int MR>(int row) { score_tile<T, MR, NV>(work, row, tile); });
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
    const int num_words = T::num_words(limit(first), limit(least(first + kRows, end) - 1));
    const int num_groups = (work.padded_dim / 16 + kWide - 1) / kWide, pace = (work.v_lines - 1) / least(work.v_lines, num_words * num_groups + 1) + 1;
    int dim = 0, line = 0;
    const auto group = [&]<int ND>() {
        by_rows(first, end, [&]<int MR>(int row) {
            const int common = T::num_words(limit(row), limit(row + MR - 1));  // rows see more keys as they go
            if (row == first) weigh_tile<T, MR, ND, true>(work, row, common, dim, line, pace, acc);
            else weigh_tile<T, MR, ND, false>(work, row, common, dim, line, pace, acc);
        });
        dim += ND * 16;
        line += num_words * pace;
    };
    if constexpr (kWide > 1) {
        while (dim + kWide * 16 <= work.padded_dim) group.template operator()<kWide>();
    }
    while (dim < work.padded_dim) group.template operator()<1>();
    if constexpr (T::kParts == 1) {
        by_rows(first, end, [&]<int MR>(int row) {
            for (int r = row; r < row + MR; ++r) weigh_rest(work, r, T::num_words(limit(row), limit(r)), limit(r), acc);
        });
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// Attention of many rows of one kv head on a range of keys: lanes are rows, so that keys and values are broadcast as they lie in
// their pages and nothing of the softmax goes across lanes. Every row goes through the operations of attention_tile.h, in the same
// order: the same bits. Rows that see less than others of the last key tiles are left alone there by selection, lane by lane.
//
// Layout: everything has kTileRows lanes a line. q [part][depth][rows], scores [kKeyTile][rows], weights [part][kKeyTile / step][rows],
// acc [Dp][rows], sums of weights [16][rows]. A register tile is two vectors of rows by kAcross tokens, then by kAcross dims.
// Included by attention_split.h alone; everything is in its unnamed namespace.
// Knows: rows, pages, vectors. Does not know: splits, items, threads.
#pragma once
#include "attention_tile.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int kManyRows = 12;  // from so many rows of a head on, lanes of rows are better than lanes of tokens
#if QUIRE_ISA_avx512
constexpr int kAcross = 8;
#else
constexpr int kAcross = 4;
#endif

template <class T>
struct Across {
    static constexpr int kRowWords = kTileRows;
    alignas(64) uint32_t q[kMaxHeadDim * T::kParts / T::kStep * kTileRows];
    alignas(64) float scores[kKeyTile * kTileRows];
    alignas(64) uint32_t weights[kKeyTile * T::kParts / T::kStep * kTileRows];
    alignas(64) float acc[kMaxHeadDim * kTileRows], lanes[16 * kTileRows];
    alignas(64) float max[kTileRows], correction[kTileRows], tile_max[kTileRows], guard[kTileRows];
    alignas(64) float limits[kTileRows];  // keys of the tile that a row sees
    alignas(64) float row_scale[kTileRows], factor[kTileRows], ratio[kTileRows];  // scores, int8 sums of values, int8 weights
    alignas(64) int32_t query_sum[kTileRows];
    alignas(64) float values[kKeyTile];  // int8: scales of the tile's values
    int first, num_rows, num_vecs, padded_depth;
    int num_keys, least_keys;  // of the tile: what any row sees, what all see
};

// ---- kinds of page, by lanes of rows ----------------------------------------------------------------------------------

// A word of values whose lower part alone is left.
inline uint32_t first_half(const uint32_t* p) { return *p & 0xffffu; }

// p rounded to pairs, even key low; and what the halves are worth.
inline void put_pairs(uint32_t* out, Vec& even, Vec& odd) {
#if QUIRE_ISA_avx512
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19,
                                           3, 18, 2, 17, 1, 16, 0);
    const __m512i pairs = _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v));
    _mm512_storeu_si512(out, pairs);
    even.v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    odd.v = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(int(0xffff0000u))));
#else
    const Pairs pairs = round_pairs(even, odd);
    store_pairs(reinterpret_cast<uint16_t*>(out), pairs);
    even = even_of(pairs);
    odd = odd_of(pairs);
#endif
}

template <class T> struct Rowwise;

struct FloatRows {
    template <class X> static void begin_tile(X&, const Work<Bf16>&) {}
    template <class X> static void begin_tile(X&, const Work<F32>&) {}
    template <class X> static Vec first(const X&, int) { return zero(); }
    template <class X> static Vec scaled(const X&, const float*, int, Vec score, Vec scale) { return mul(score, scale); }
    template <class X> static Vec open(const X&, const float* acc, Vec correction) { return mul(load(acc), correction); }
    template <class X> static void close(const X&, int, float* acc, Vec sum) { store(acc, sum); }
};

template <> struct Rowwise<Bf16> : FloatRows {
    // The weights of step keys as words; p becomes what they are worth.
    static void put(Across<Bf16>& x, int key, int lane, Vec* p) { put_pairs(x.weights + key / 2 * kTileRows + lane, p[0], p[1]); }
#if QUIRE_ISA_avx512
    struct Seen { __mmask16 first, both; };
    static Seen seen(int key, Vec limits) {
        const __mmask16 both = _mm512_cmp_ps_mask(set1(float(key + 1)).v, limits.v, _CMP_LT_OQ);
        return {__mmask16(_mm512_cmp_ps_mask(set1(float(key)).v, limits.v, _CMP_LT_OQ) & ~both), both};
    }
    static Vec weigh_some(Vec acc, const uint32_t* value, Pairs p, Seen seen) {
        const __m512i both = _mm512_set1_epi32(int(*value)), first = _mm512_and_si512(both, _mm512_set1_epi32(0xffff));
        return masked_dot(masked_dot(acc, first, p, seen.first), both, p, seen.both);
    }
    // As inline assembly: gcc 12 declares the intrinsic's mask with 8 bits, and where it does move it as such (-O1 with sanitizers
    // did) the upper half of the lanes is lost.
    static Vec masked_dot(Vec acc, __m512i value, Pairs p, __mmask16 mask) {
        asm("vdpbf16ps %2, %1, %0%{%3%}" : "+v"(acc.v) : "v"(value), "v"(p.v), "Yk"(mask));
        return acc;
    }
#else
    struct Seen { int key; Vec limits; };
    static Seen seen(int key, Vec limits) { return {key, limits}; }
    static Vec weigh_some(Vec acc, const uint32_t* value, Pairs p, Seen seen) {
        const uint32_t half = first_half(value);
        const Vec one = below(set1(float(seen.key)), seen.limits, dot(acc, Bf16::broadcast(&half), p), acc);
        return below(set1(float(seen.key + 1)), seen.limits, dot(acc, Bf16::broadcast(value), p), one);
    }
#endif
};

template <> struct Rowwise<F32> : FloatRows {
    static void put(Across<F32>& x, int key, int lane, Vec* p) {
        for (int i = 0; i < 2; ++i) store(reinterpret_cast<float*>(x.weights + (key + i) * kTileRows + lane), p[i]);
    }
    struct Seen { int key; Vec limits; };
    static Seen seen(int key, Vec limits) { return {key, limits}; }
    static Vec weigh_some(Vec acc, const uint32_t* value, Vec p, Seen seen) {
        return below(set1(float(seen.key)), seen.limits, fma(F32::broadcast(value), p, acc), acc);
    }
};

template <> struct Rowwise<Int8> {
    // Scales of the tile's values, and for each row the largest of those that it sees.
    static void begin_tile(Across<Int8>& x, const Work<Int8>& work) {
        for (int key = 0; key < x.num_keys; key += 16) {
            const uint16_t* stored = reinterpret_cast<const uint16_t*>(work.k[key / 16] + work.scale_words) + kTileTokens;
            for (int i = 0; i < 16; i += kLanes) store(x.values + key + i, load_bf16(stored + i));
        }
        for (int lane = 0; lane < x.num_vecs * kLanes; lane += kLanes) {
            const Vec limits = load(x.limits + lane);
            Vec top = zero(), guard = zero();
            for (int key = 0; key < x.num_keys; ++key) {
                const Vec v = set1(x.values[key]), seen = set1(float(key));
                top = below(seen, limits, max(top, v), top);
                guard = below(seen, limits, fma(v, zero(), guard), guard);
            }
            store(x.factor + lane, add(div(top, set1(Int8::kWeightTop)), guard));
            store(x.ratio + lane, below(zero(), top, div(set1(Int8::kWeightTop), top), zero()));
        }
    }
    static Sums first(const Across<Int8>& x, int lane) {
        Sums sums;
        memcpy(&sums, x.query_sum + lane, sizeof sums);
        return minus(sums_of(0), sums);
    }
    static Vec scaled(const Across<Int8>&, const float* key_scale, int, Sums score, Vec scale) {
        return mul(mul(as_float(score), scale), set1(*key_scale));
    }
    static Sums open(const Across<Int8>&, const float*, Vec) { return sums_of(0); }
    static void close(const Across<Int8>& x, int lane, float* acc, Sums sum) {
        const Vec old = load(acc), next = fma(as_float(sum), load(x.factor + lane), mul(old, load(x.correction + lane)));
        store(acc, below(zero(), load(x.limits + lane), next, old));
    }
    static void put(Across<Int8>& x, int key, int lane, Vec* p) {
        Sums high = sums_of(0), low = sums_of(0);
        for (int i = 0; i < 4; ++i) {
            Vec ratio = mul(set1(x.values[key + i]), load(x.ratio + lane));
            if (key + 4 > x.least_keys) ratio = below(set1(float(key + i)), load(x.limits + lane), ratio, zero());
            const Sums w = nearest(mul(p[i], ratio));
            high = plus(high, shift_left(shift_right(w, 8), 8 * i));
            low = plus(low, shift_left(minus(w, shift_left(shift_right(w, 8), 8)), 8 * i));
        }
        memcpy(x.weights + key / 4 * kTileRows + lane, &high, sizeof high);
        memcpy(x.weights + (kKeyTile + key) / 4 * kTileRows + lane, &low, sizeof low);
    }
    struct Seen {};
    static Seen seen(int, Vec) { return {}; }
    static Sums weigh_some(Sums acc, const uint32_t* value, Bytes p, Seen) { return Int8::weigh(acc, Int8::broadcast(value), p); }
};

// ---- scores -----------------------------------------------------------------------------------------------------------

// acc[kAcross tokens][NV] += a piece of keys times the queries; kStride: words of a token in the piece, 0: `stride`. Meanwhile the
// tokens from `next` on are fetched.
template <class T, int NV, int kStride>
inline void score_piece(const uint32_t* keys, int stride, const uint32_t* next, const uint32_t* q, typename T::Sum (&acc)[kAcross][NV]) {
    if (kStride > 0) stride = kStride;
    for (int w = 0; w < stride; ++w) {
        fetch_near(next + w * kPieceWords);
        typename T::Word x[NV];
        for (int v = 0; v < NV; ++v) x[v] = T::load(q + w * kTileRows + v * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < kAcross; ++i) {
            const typename T::Word key = T::broadcast(keys + i * stride + w);
            for (int v = 0; v < NV; ++v) acc[i][v] = T::score(acc[i][v], key, x[v]);
        }
    }
}

// Scores of keys [key, key + kAcross) of the tile for NV vectors of rows from `lane` on, and the rows' maxima.
template <class T, int NV>
inline void score_across(Across<T>& x, const Work<T>& work, int key, int lane) {
    const uint32_t* tile = work.k[key / 16];
    const int token = key % 16, ahead = (key + kAcross) % 16;
    const uint32_t* next = key + kAcross < x.num_keys ? work.k[(key + kAcross) / 16] : tile;
    typename T::Sum acc[kAcross][NV];
    for (int i = 0; i < kAcross; ++i) {
        for (int v = 0; v < NV; ++v) acc[i][v] = Rowwise<T>::first(x, lane + v * kLanes);
    }
    for (int part = 0; part < T::kParts; ++part) {
        if (part > 0) {
            for (int i = 0; i < kAcross; ++i) {
                for (int v = 0; v < NV; ++v) acc[i][v] = T::raise_score(acc[i][v]);
            }
        }
        for (int w = 0; w < work.depth; w += kPieceWords) {
            const int stride = piece_words(work.depth, w);
            const uint32_t *keys = tile + w * kTileTokens + token * stride, *q = x.q + (part * x.padded_depth + w) * kTileRows + lane;
            const uint32_t* soon = next + w * kTileTokens + ahead * stride;
            if (stride == kPieceWords) score_piece<T, NV, kPieceWords>(keys, stride, soon, q, acc);
            else score_piece<T, NV, 0>(keys, stride, soon, q, acc);
        }
    }
    const float* key_scales = work.scales_of_keys() + key;
    for (int v = 0; v < NV; ++v) {
        const int at = lane + v * kLanes;
        const Vec scale = load(x.row_scale + at), limits = load(x.limits + at);
        Vec highest = load(x.tile_max + at), guard = zero();
        for (int i = 0; i < kAcross; ++i) {
            Vec s = Rowwise<T>::scaled(x, key_scales + i, key + i, acc[i][v], scale);
            if (key + kAcross > x.least_keys) s = below(set1(float(key + i)), limits, s, set1(kUnseen));
            store(x.scores + (key + i) * kTileRows + at, s);
            highest = max(highest, s);
            guard = fma(s, zero(), guard);  // NaN if a score is not finite, see soften_row
        }
        store(x.tile_max + at, highest);
        store(x.guard + at, add(load(x.guard + at), guard));
    }
}

// Calls f.operator()<vectors>(lane) over all vectors of rows, two at a time.
template <class T, class F>
inline void by_lanes(const Across<T>& x, const F& f) {
    int v = 0;
    for (; v + 2 <= x.num_vecs; v += 2) f.template operator()<2>(v * kLanes);
    if (v < x.num_vecs) f.template operator()<1>(v * kLanes);
}

// ---- softmax ----------------------------------------------------------------------------------------------------------

template <class T> constexpr int kSoften = T::kStep > 2 ? T::kStep : 2;

// Weights of keys [key, key + kSoften) for a vector of rows; kAll: all rows see them.
template <class T, bool kAll>
inline void weights_across(Across<T>& x, const Work<T>& work, int key, int lane, Vec new_max) {
    constexpr int kKeys = kSoften<T>, kWords = kTileTokens / T::kStep;
    const float* scores = x.scores + key * kTileRows + lane;
    float* sums = x.lanes + key % 16 * kTileRows + lane;
    Vec p[kKeys];
    const int w = key / T::kStep;
    if (lane == 0) fetch_near(work.v[w / kWords] + w % kWords * work.padded_dim);
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) {
        p[i] = exp2<T::kDegree>(sub(load(scores + i * kTileRows), new_max));
        if (!kAll) p[i] = below(set1(float(key + i)), load(x.limits + lane), p[i], zero());
    }
    Rowwise<T>::put(x, key, lane, p);
#pragma GCC unroll 4
    for (int i = 0; i < kKeys; ++i) store(sums + i * kTileRows, add(load(sums + i * kTileRows), p[i]));
}

// One step of the online softmax of a vector of rows.
template <class T>
inline void soften_across(Across<T>& x, const Work<T>& work, int lane) {
    const Vec running = load(x.max + lane), tile_max = load(x.tile_max + lane);
    const Vec new_max = below(tile_max, running, running, tile_max);
    const Vec correction = below(running, new_max, exp2<T::kDegree>(sub(running, new_max)), set1(1.0f));
    store(x.max + lane, new_max);
    store(x.correction + lane, correction);
    for (int i = 0; i < 16; ++i) store(x.lanes + i * kTileRows + lane, mul(load(x.lanes + i * kTileRows + lane), correction));
    store(x.lanes + lane, add(load(x.lanes + lane), load(x.guard + lane)));
    int key = 0;
    for (; key + kSoften<T> <= x.least_keys; key += kSoften<T>) weights_across<T, true>(x, work, key, lane, new_max);
    for (; key < x.num_keys; key += kSoften<T>) weights_across<T, false>(x, work, key, lane, new_max);
}

// ---- values -----------------------------------------------------------------------------------------------------------

// acc[kAcross dims from `dim` on][NV] = acc * correction + weights times values. Words that all rows see whole, then the others.
template <class T, int NV>
inline void weigh_across(Across<T>& x, const Work<T>& work, int dim, int lane) {
    constexpr int kWords = kTileTokens / T::kStep;
    typename T::Sum sums[kAcross][NV];
    float* acc = x.acc + dim * kTileRows + lane;
    Vec limits[NV];
    for (int v = 0; v < NV; ++v) {
        const Vec correction = load(x.correction + lane + v * kLanes);
        limits[v] = load(x.limits + lane + v * kLanes);
        for (int i = 0; i < kAcross; ++i) sums[i][v] = Rowwise<T>::open(x, acc + i * kTileRows + v * kLanes, correction);
    }
    const int num_words = (x.num_keys + T::kStep - 1) / T::kStep, whole = x.least_keys / T::kStep;
    for (int part = 0; part < T::kParts; ++part) {
        if (part > 0) {
            for (int i = 0; i < kAcross; ++i) {
                for (int v = 0; v < NV; ++v) sums[i][v] = T::raise(sums[i][v]);
            }
        }
        const uint32_t* weights = x.weights + part * (kKeyTile / T::kStep) * kTileRows + lane;
        for (int begin = 0; begin < num_words; begin += kWords) {
            const uint32_t* values = work.v[begin / kWords] + dim;
            const int end = least(begin + kWords, num_words), plain = least(end, whole);
            int w = begin;
            for (; w < plain; ++w, values += work.padded_dim, weights += kTileRows) {
                typename T::Word p[NV];
                for (int v = 0; v < NV; ++v) p[v] = T::load(weights + v * kLanes);
                fetch_near(values + 16);
#pragma GCC unroll 16
                for (int i = 0; i < kAcross; ++i) {
                    const typename T::Word value = T::broadcast(values + i);
                    for (int v = 0; v < NV; ++v) sums[i][v] = T::weigh(sums[i][v], value, p[v]);
                }
            }
            for (; w < end; ++w, values += work.padded_dim, weights += kTileRows) {
#pragma GCC unroll 2
                for (int v = 0; v < NV; ++v) {
                    const typename T::Word p = T::load(weights + v * kLanes);
                    const auto seen = Rowwise<T>::seen(w * T::kStep, limits[v]);
#pragma GCC unroll 16
                    for (int i = 0; i < kAcross; ++i) sums[i][v] = Rowwise<T>::weigh_some(sums[i][v], values + i, p, seen);
                }
            }
        }
    }
    for (int v = 0; v < NV; ++v) {
        for (int i = 0; i < kAcross; ++i) Rowwise<T>::close(x, lane + v * kLanes, acc + i * kTileRows + v * kLanes, sums[i][v]);
    }
}

// ---- rows in and out --------------------------------------------------------------------------------------------------

// to[word][kTileRows] = from[row][word], `num_words` of them.
template <class X>
void rows_to_lanes(const X& x, const void* from, int stride, int num_words, void* to) {
    for (int row = 0; row < x.num_rows; row += 16) {
        const uint32_t* at = static_cast<const uint32_t*>(from) + int64_t{row} * stride;
        for (int w = 0; w < num_words; w += 16)
            turn<false>(at + w, stride, x.num_rows - row - 1, static_cast<uint32_t*>(to) + w * kTileRows + row, kTileRows);
    }
}

// to[row][word] = from[word][kTileRows]; `num_words` is a multiple of 16.
template <class X>
void lanes_to_rows(const X& x, const float* from, int stride, int num_words, float* to) {
    alignas(64) uint32_t block[16 * 16];
    for (int row = 0; row < x.num_rows; row += 16) {
        for (int w = 0; w < num_words; w += 16) {
            turn<true>(reinterpret_cast<const uint32_t*>(from) + w * kTileRows + row, kTileRows, 15, block, 16);
            for (int i = 0; i < least(16, x.num_rows - row); ++i) memcpy(to + int64_t{row + i} * stride + w, block + i * 16, 64);
        }
    }
}

template <class T>
void begin_across(Across<T>& x, const Work<T>& work, int first, float scale, const float* max, const float* acc) {
    x.first = first;
    x.num_rows = work.head_rows;
    x.num_vecs = (x.num_rows + kLanes - 1) / kLanes;
    x.padded_depth = (work.depth + kPieceWords - 1) / kPieceWords * kPieceWords;
    for (int part = 0; part < T::kParts; ++part) {
        rows_to_lanes(x, work.q + first * work.q_stride + part * (work.padded_dim / T::kStep), work.q_stride, work.depth,
                      x.q + part * x.padded_depth * kTileRows);
    }
    rows_to_lanes(x, acc + first * work.padded_dim, work.padded_dim, work.padded_dim, x.acc);
    rows_to_lanes(x, work.lanes + first * 16, 16, 16, x.lanes);
    for (int i = 0; i < kTileRows; ++i) {
        const int row = first + least(i, x.num_rows - 1);
        x.max[i] = max[row];
        x.row_scale[i] = T::query_scale(work, row, scale);
        x.query_sum[i] = T::query_sum(work, row);
    }
}

template <class T>
void end_across(const Across<T>& x, Work<T>& work, float* max, float* acc) {
    for (int i = 0; i < x.num_rows; ++i) max[x.first + i] = x.max[i];
    lanes_to_rows(x, x.lanes, 16, 16, work.lanes + x.first * 16);
    lanes_to_rows(x, x.acc, work.padded_dim, work.padded_dim, acc + x.first * work.padded_dim);
}

// The key tile whose pages `work` holds, for the rows of one kv head.
template <class T>
void run_across(Across<T>& x, Work<T>& work, int tile_begin, int num_keys) {
    x.num_keys = num_keys;
    for (int i = 0; i < kTileRows; ++i) {
        const int limit = work.visible[x.first + least(i, x.num_rows - 1)] - tile_begin;
        x.limits[i] = float(limit < 0 ? 0 : least(limit, kKeyTile));
        x.tile_max[i] = -__builtin_inff();
        x.guard[i] = 0;
    }
    x.least_keys = int(x.limits[0]);  // rows see more keys as they go
    T::find_scales(work, num_keys);
    Rowwise<T>::begin_tile(x, work);
    for (int key = 0; key < num_keys; key += kAcross)
        by_lanes(x, [&]<int NV>(int lane) { score_across<T, NV>(x, work, key, lane); });
    for (int lane = 0; lane < x.num_vecs * kLanes; lane += kLanes) soften_across(x, work, lane);
    for (int dim = 0; dim < work.padded_dim; dim += kAcross)
        by_lanes(x, [&]<int NV>(int lane) { weigh_across<T, NV>(x, work, dim, lane); });
}

}  // namespace
}  // namespace quire::QUIRE_ISA

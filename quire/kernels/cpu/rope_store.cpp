// rope_store: of every token's [q heads | k heads | v heads], q and k are normed per head if weights are given, and rotated;
// q goes to q_out, k and v go to their pages.
//   norm    x * (1 / sqrt(mean(x^2) + eps)) * w                                          (float32; Zhang, Sennrich 2019; Qwen3)
//   rotate  x = (x1, x2), halves of the head: (x1*cos - x2*sin, x2*cos + x1*sin)         (arXiv 2104.09864; pairs (i, i + D/2))
// Multiplications and the subtraction are rounded one by one, no fma: the same bits on every instruction set, when not normed.
//
// Layout: pages as in kv_cache.h: of its K tile a token has whole lines and, with bf16, half the words of a row of its V tile (a
// quarter with int8). Stores are whole words (K) and parts of words (V), so two threads never write the same object. int8: every
// head is rounded by its own scale, as kv_cache.h says.
// Versions tried (Zen 4, two threads; 16 query, 8 kv heads of 128 with norms, avx512; 32 rows of 32 sequences a launch, through Python;
// pages, q and k in a cache | pages not; bf16):
//   K tile [D / 2][16 tokens][2], a token takes 4 bytes of each of 64 lines      62 us | 175-210
//   K tile in pieces of 64 bytes: 4 lines a token and head                       60    | 140
//   V by masked stores of 16 bits, 5 ns a head (one element at a time 130); whole vectors stored and loaded, as a load must wait for
//   a masked store; norm and rotation in one go; lines asked for, to be written, while the heads of q are computed    30 | 94-120
//   after a product, which leaves the rows in the caches of both cores: 128-160 us before all this, 61-113 with it; heads of a row
//   and their place in q_out asked for four heads ahead as well: 47-91
// Inside Qwen3-0.6B the median launch of 32 rows takes 62-70 us instead of 150-155. The mean is several times that: a few launches
// write blocks that were never written before, and the faults of their huge pages take milliseconds.
// q by one chunk and k and v by another, so that a single row has work for two threads, and each finds mostly what it wrote itself:
// with what waiting threads fetch (threads.h) a step of one row of Qwen3-0.6B int4 takes 0.94 to 0.95 of the time, int8 0.96 to 1.0.
// int8: 150 -> 92, float32: 230 -> 97-120 us.  1.7 us a row when all is in L2 (3.7 before), mostly the row's 24 KB on their way.
// Prompts: 16 rows a chunk, a head of all of them before the next.
#include "simd_bytes.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

inline int least(int a, int b) { return a < b ? a : b; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whole vectors where the heads allow it: what a masked store has written, a load cannot take from the store queue.
template <bool kWhole> inline Vec get(const float* p, int n) { return kWhole ? load(p) : load_n(p, n); }
template <bool kWhole> inline void put(float* p, Vec v, int n) {
    if (kWhole) store(p, v);
    else store_n(p, v, n);
}

template <bool kWhole>
inline float norm_scale(const float* x, int dim, float eps) {
    Vec squares = zero();
    for (int d = 0; d < dim; d += kLanes) {
        const Vec v = get<kWhole>(x + d, least(kLanes, dim - d));
        squares = fma(v, v, squares);
    }
    return 1.0f / __builtin_sqrtf(sum(squares) / float(dim) + eps);
}

// kWhole: half a head is whole vectors.
template <bool kWhole, bool kNorm>
inline void norm_and_rotate(const float* x, const float* weight, const float* cosines, const float* sines, int dim, float eps, float* out) {
    const int half = dim / 2;
    const Vec scale = kNorm ? set1(norm_scale<kWhole>(x, dim, eps)) : zero();
    for (int d = 0; d < half; d += kLanes) {
        const int n = least(kLanes, half - d);
        Vec x1 = get<kWhole>(x + d, n), x2 = get<kWhole>(x + half + d, n);
        if (kNorm) {
            x1 = mul(mul(x1, scale), get<kWhole>(weight + d, n));
            x2 = mul(mul(x2, scale), get<kWhole>(weight + half + d, n));
        }
        const Vec c = get<kWhole>(cosines + d, n), s = get<kWhole>(sines + d, n);
        put<kWhole>(out + d, sub(mul(x1, c), mul(x2, s)), n);
        put<kWhole>(out + half + d, add(mul(x2, c), mul(x1, s)), n);
    }
}

void rope_head(const float* x, const float* weight, const RopeStore& args, int64_t position, float* out) {
    const int dim = args.kv.head_dim;
    const float *cosines = args.cosines + position * (dim / 2), *sines = args.sines + position * (dim / 2);
    if (dim / 2 % kLanes != 0) {
        if (weight != nullptr) norm_and_rotate<false, true>(x, weight, cosines, sines, dim, args.eps, out);
        else norm_and_rotate<false, false>(x, weight, cosines, sines, dim, args.eps, out);
    } else {
        if (weight != nullptr) norm_and_rotate<true, true>(x, weight, cosines, sines, dim, args.eps, out);
        else norm_and_rotate<true, false>(x, weight, cosines, sines, dim, args.eps, out);
    }
}

// ---- pages ------------------------------------------------------------------------------------------------------------

// Calls f(x, n, to): the next n elements of a token's keys, at most kLanes, belong to `to`.
template <class F>
inline void each_key(const KvView& kv, uint32_t* tile, int in_tile, const float* k, const F& f) {
    const int step = step_of(kv.dtype);
    for (int w = 0; w < kv.depth; w += kPieceWords) {
        const int words = piece_words(kv.depth, w), num = least(words * step, kv.head_dim - w * step);
        char* to = reinterpret_cast<char*>(tile + w * kTileTokens + in_tile * words);
        for (int d = 0; d < num; d += kLanes) f(k + w * step + d, least(kLanes, num - d), to + d * 4 / step);
    }
}

#if QUIRE_ISA_avx512
// Part `part` of each of sixteen words; kBytes bytes, in the low ones of each lane.
template <int kBytes>
inline void put_parts(uint32_t* row, int part, __m512i x) {
    x = _mm512_sll_epi32(x, _mm_cvtsi32_si128(8 * kBytes * part));
    if (kBytes == 2) _mm512_mask_storeu_epi16(row, 0x55555555u << part, x);
    else _mm512_mask_storeu_epi8(row, 0x1111111111111111ull << part, x);
}
#endif

void store_bf16_head(const KvView& kv, uint32_t* tile, int in_tile, const float* k, const float* v) {
    each_key(kv, tile, in_tile, k, [](const float* x, int n, char* to) {
        uint16_t* out = reinterpret_cast<uint16_t*>(to);
        if (n == kLanes) store_bf16(out, load(x));
        else store_bf16_n(out, load_n(x, n), n);
    });
    uint32_t* row = tile + kv.k_words + int64_t{in_tile / 2} * kv.padded_dim;
#if QUIRE_ISA_avx512
    for (int d = 0; d < kv.head_dim; d += kLanes) {
        const Vec x = load_n(v + d, least(kLanes, kv.head_dim - d));
        put_parts<2>(row + d, in_tile % 2, _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x.v)));
    }
#else
    alignas(64) uint16_t rounded[kMaxHeadDim];
    for (int d = 0; d < kv.head_dim; d += kLanes) store_bf16(rounded + d, load_n(v + d, least(kLanes, kv.head_dim - d)));
    uint16_t* parts = reinterpret_cast<uint16_t*>(row) + in_tile % 2;
    for (int d = 0; d < kv.head_dim; ++d) parts[2 * d] = rounded[d];
#endif
}

void store_f32_head(const KvView& kv, uint32_t* tile, int in_tile, const float* k, const float* v) {
    each_key(kv, tile, in_tile, k, [](const float* x, int n, char* to) { memcpy(to, x, size_t(n) * 4); });
    memcpy(tile + kv.k_words + int64_t{in_tile} * kv.padded_dim, v, size_t(kv.head_dim) * 4);
}

// The bits of the scale by which a head is rounded to integers. See kv_cache.h.
uint16_t scale_of(const float* x, int dim) {
    Vec most = zero(), guard = zero();
    for (int d = 0; d < dim; d += kLanes) {
        const Vec v = load_n(x + d, least(kLanes, dim - d));
        most = max(most, max(v, sub(zero(), v)));
        guard = fma(v, zero(), guard);  // NaN if v is not finite
    }
    const float top = largest(most) / 127, floor = 0x1p-100f;
    const float wanted = (top > floor ? top : floor) + sum(guard);
    uint32_t bits;
    memcpy(&bits, &wanted, 4);
    if (wanted == wanted) bits += 0xffff;  // up
    return uint16_t(bits >> 16);
}

inline Sums round_by(const float* x, int n, Vec inverse, int offset) {
    return plus(nearest(mul(load_n(x, n), inverse)), sums_of(offset));
}

void store_int8_head(const KvView& kv, uint32_t* tile, int in_tile, const float* k, const float* v) {
    uint16_t* scales = reinterpret_cast<uint16_t*>(tile + kv.tile_stride - kScaleWords) + in_tile;
    scales[0] = scale_of(k, kv.head_dim);
    const Vec by_k = set1(1.0f / bf16_value(scales[0]));
    each_key(kv, tile, in_tile, k, [&](const float* x, int n, char* to) {
        const Sums rounded = round_by(x, n, by_k, 128);
        if (n == kLanes) return store_low_bytes(reinterpret_cast<uint8_t*>(to), rounded);
        uint8_t bytes[kLanes];
        store_low_bytes(bytes, rounded);
        memcpy(to, bytes, size_t(n));
    });
    scales[kTileTokens] = scale_of(v, kv.head_dim);
    const Vec by_v = set1(1.0f / bf16_value(scales[kTileTokens]));
    uint32_t* row = tile + kv.k_words + int64_t{in_tile / 4} * kv.padded_dim;
#if QUIRE_ISA_avx512
    for (int d = 0; d < kv.head_dim; d += kLanes)
        put_parts<1>(row + d, in_tile % 4, round_by(v + d, least(kLanes, kv.head_dim - d), by_v, 0).v);
#else
    alignas(64) uint8_t rounded[kMaxHeadDim];
    for (int d = 0; d < kv.head_dim; d += kLanes) store_low_bytes(rounded + d, round_by(v + d, least(kLanes, kv.head_dim - d), by_v, 0));
    uint8_t* parts = reinterpret_cast<uint8_t*>(row) + in_tile % 4;
    for (int d = 0; d < kv.head_dim; ++d) parts[4 * d] = rounded[d];
#endif
}

// Where a row's token stands: the tile of the first kv head, and the place in it.
struct Place {
    uint32_t* tile;
    int in_tile;
};

Place place_of(const RopeStore& args, int64_t row) {
    const KvView& kv = args.kv;
    const int64_t slot = args.slots[row], offset = slot % kv.block_size;
    uint32_t* block = kv.words + slot / kv.block_size * kv.block_stride + args.layer * kv.layer_stride;
    return {block + offset / kTileTokens * kv.tile_stride, int(offset % kTileTokens)};
}

// `guard` becomes NaN in some lane if an element of a token's keys or values is infinite or NaN. Both lie in L1; a sum across lanes
// for every head instead of one for the chunk costs ten times as much (22 ns).
template <bool kWhole>
inline Vec guard_of(const float* k, const float* v, int dim, Vec guard) {
    Vec guard_v = zero();
    for (int d = 0; d < dim; d += kLanes) {
        guard = fma(get<kWhole>(k + d, least(kLanes, dim - d)), zero(), guard);
        guard_v = fma(get<kWhole>(v + d, least(kLanes, dim - d)), zero(), guard_v);
    }
    return add(guard, guard_v);
}

inline Vec guard_of(const float* k, const float* v, int dim, Vec guard) {
    return dim % kLanes == 0 ? guard_of<true>(k, v, dim, guard) : guard_of<false>(k, v, dim, guard);
}

inline bool is_flawed(Vec guard) {
    const float any = sum(guard);
    return any != any;
}

void store_head(const RopeStore& args, int64_t row, int head, const float* k, const float* v, Vec& guard) {
    const KvView& kv = args.kv;
    const Place place = place_of(args, row);
    uint32_t* tile = place.tile + head * kv.head_stride;
    alignas(64) float rotated[kMaxHeadDim];
    rope_head(k, args.k_norm, args, args.positions[row], rotated);
    if (args.flaws != nullptr) guard = guard_of(rotated, v, kv.head_dim, guard);
    switch (kv.dtype) {
        case KvDtype::bfloat16: return store_bf16_head(kv, tile, place.in_tile, rotated, v);
        case KvDtype::float32: return store_f32_head(kv, tile, place.in_tile, rotated, v);
        case KvDtype::int8: return store_int8_head(kv, tile, place.in_tile, rotated, v);
    }
}

// Heads of a row are asked for so many before they are needed, as is their place in q_out: other threads have them in their caches.
constexpr int kAheadHeads = 4;

// Asks for the lines that a row's keys and values of kv head `head` go to, to be written.
inline void expect(const void* p) {
#if QUIRE_ISA_avx512 || QUIRE_ISA_avx2
    asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
    __builtin_prefetch(p, 1, 3);
#endif
}

void expect_head(const KvView& kv, const Place& place, int head) {
    const uint32_t* tile = place.tile + head * kv.head_stride;
    for (int w = 0; w < kv.depth; w += kPieceWords) expect(tile + w * kTileTokens + place.in_tile * piece_words(kv.depth, w));
    const uint32_t* v = tile + kv.k_words + int64_t{place.in_tile / step_of(kv.dtype)} * kv.padded_dim;
    for (int d = 0; d < kv.padded_dim; d += 16) expect(v + d);
    if (kv.dtype == KvDtype::int8) expect(tile + kv.tile_stride - kScaleWords);
}

// Several threads may say so at once.
inline void tell_flaw(int32_t* flaws, int64_t row) {
    __atomic_store_n(flaws, 1, __ATOMIC_RELAXED);
    __atomic_store_n(flaws + 1 + row, 1, __ATOMIC_RELAXED);
}

// Of rows [begin, end), of which one is flawed: which. Seldom called, so it may compute everything again.
void find_flaws(const RopeStore& args, int64_t begin, int64_t end) {
    const KvView& kv = args.kv;
    const int64_t dim = kv.head_dim, columns = (args.num_heads + 2 * int64_t{kv.num_kv_heads}) * dim;
    alignas(64) float rotated[kMaxHeadDim];
    for (int64_t row = begin; row < end; ++row) {
        Vec guard = zero();
        for (int head = 0; head < kv.num_kv_heads; ++head) {
            const float* k = args.qkv + row * columns + (args.num_heads + head) * dim;
            rope_head(k, args.k_norm, args, args.positions[row], rotated);
            guard = guard_of(rotated, k + kv.num_kv_heads * dim, kv.head_dim, guard);
        }
        if (is_flawed(guard)) tell_flaw(args.flaws, row);
    }
}

// Heads [first, last) of q of rows [begin, end).
void rotate_rows(const RopeStore& args, int64_t begin, int64_t end, int64_t first, int64_t last) {
    const int64_t dim = args.kv.head_dim, columns = (args.num_heads + 2 * int64_t{args.kv.num_kv_heads}) * dim;
    for (int64_t row = begin; row < end; ++row) {
        const float* q = args.qkv + row * columns;
        float* out = args.q_out + row * args.num_heads * dim;
        for (int64_t head = first; head < last; ++head) {
            for (int64_t d = kAheadHeads * dim; d < (kAheadHeads + 1) * dim; d += 16) {
                __builtin_prefetch(q + head * dim + d, 0, 3);
                if (head + kAheadHeads < args.num_heads) expect(out + head * dim + d);
            }
            rope_head(q + head * dim, args.q_norm, args, args.positions[row], out + head * dim);
        }
    }
}

// KV heads [first, last) of rows [begin, end): a head of all rows before the next head, so that the tile of neighbouring tokens
// stays in L1. The lines of the pages that the next head of a row goes to are on their way meanwhile.
void store_rows(const RopeStore& args, int64_t begin, int64_t end, int64_t first, int64_t last) {
    const KvView& kv = args.kv;
    const int64_t dim = kv.head_dim, columns = (args.num_heads + 2 * int64_t{kv.num_kv_heads}) * dim;
    for (int64_t row = begin; row < end; ++row) expect_head(kv, place_of(args, row), int(first));
    Vec guard = zero();
    for (int64_t head = first; head < last; ++head) {
        for (int64_t row = begin; row < end; ++row) {
            if (head + 1 < last) expect_head(kv, place_of(args, row), int(head + 1));
            const float* k = args.qkv + row * columns + (args.num_heads + head) * dim;
            store_head(args, row, int(head), k, k + kv.num_kv_heads * dim, guard);
        }
    }
    if (args.flaws != nullptr && is_flawed(guard)) find_flaws(args, begin, end);
}

// Heads of q, and of keys and values, that a chunk takes of its rows.
constexpr int64_t kQueryHeads = 16, kKeyHeads = 8;

}  // namespace

// The rows' q first, then their keys and values: each thread finds mostly what it wrote itself, as a product shares its columns alike.
void rope_store(Runtime& runtime, const RopeStore& args) {
    const int64_t heads = args.num_heads, kv_heads = args.kv.num_kv_heads, columns = (heads + 2 * kv_heads) * int64_t{args.kv.head_dim};
    const int64_t few = columns < 8192 ? 8192 / columns : 1;
    // Of a prompt, a tile's worth of tokens: two threads that take turns in a tile take its lines from each other.
    const int64_t rows_per_chunk = args.rows >= 4 * kTileTokens * runtime.pool.num_threads() ? kTileTokens : few;
    const int64_t blocks = ceil_div(args.rows, rows_per_chunk);
    const int64_t of_q = blocks * ceil_div(heads, kQueryHeads), of_kv = blocks * ceil_div(kv_heads, kKeyHeads);
    parallel(runtime.pool, of_q + of_kv, [&](int64_t chunk) {
        const int64_t begin = chunk % blocks * rows_per_chunk, end = smaller(begin + rows_per_chunk, args.rows);
        if (chunk < of_q) {
            const int64_t head = chunk / blocks * kQueryHeads;
            rotate_rows(args, begin, end, head, smaller(head + kQueryHeads, heads));
        } else {
            const int64_t head = (chunk - of_q) / blocks * kKeyHeads;
            store_rows(args, begin, end, head, smaller(head + kKeyHeads, kv_heads));
        }
    });
}

}  // namespace quire::QUIRE_ISA

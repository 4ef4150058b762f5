// rope_store: of every token's [q heads | k heads | v heads], q and k are normed per head if weights are given, and rotated;
// q goes to q_out, k and v go to their pages.
//   norm    x * (1 / sqrt(mean(x^2) + eps)) * w                                          (float32; Zhang, Sennrich 2019; Qwen3)
//   rotate  x = (x1, x2), halves of the head: (x1*cos - x2*sin, x2*cos + x1*sin)         (arXiv 2104.09864; pairs (i, i + D/2))
// Multiplications and the subtraction are rounded one by one, no fma: the same bits on every instruction set, when not normed.
//
// Layout: pages as in kv_cache.h: a token is a column of its K tile (a stride of 64 bytes) and, with bf16, half the words of a
// row of its V tile (a quarter with int8). Stores are by word (K) and by part of a word (V), so two threads never write the same
// object. int8: every head is rounded by its own scale, as kv_cache.h says.
// Versions tried (one thread of a Zen 4 core in company; 16 query, 8 kv heads of 128, avx512): bf16 1.1 us a token when its pages are
// in a cache and 0.8 more with norms; 8-10 us when 32 sequences' tokens go to 32 cold tiles: a token takes 4 bytes of each of 64 lines
// of its K tile, so that 36 KB are read (attention wants them next) and written back later; int8 6 us. Fetching these lines
// before the heads of q are computed: no change, it is the bytes. Pieces of 16 bytes, [D / 8][16][8], would touch a quarter of the lines at
// the price of a sum across lanes for every score: not tried. Prompts: 16 rows a chunk, a head of all of them before the next.
#include "simd_bytes.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

inline int least(int a, int b) { return a < b ? a : b; }

void norm_head(const float* x, const float* weight, int dim, float eps, float* out) {
    Vec squares = zero();
    for (int d = 0; d < dim; d += kLanes) {
        const Vec v = load_n(x + d, least(kLanes, dim - d));
        squares = fma(v, v, squares);
    }
    const Vec scale = set1(1.0f / __builtin_sqrtf(sum(squares) / float(dim) + eps));
    for (int d = 0; d < dim; d += kLanes) {
        const int n = least(kLanes, dim - d);
        store_n(out + d, mul(mul(load_n(x + d, n), scale), load_n(weight + d, n)), n);
    }
}

// out may be x.
void rotate_head(const float* x, const float* cosines, const float* sines, int dim, float* out) {
    const int half = dim / 2;
    for (int d = 0; d < half; d += kLanes) {
        const int n = least(kLanes, half - d);
        const Vec x1 = load_n(x + d, n), x2 = load_n(x + half + d, n), c = load_n(cosines + d, n), s = load_n(sines + d, n);
        store_n(out + d, sub(mul(x1, c), mul(x2, s)), n);
        store_n(out + half + d, add(mul(x2, c), mul(x1, s)), n);
    }
}

void norm_and_rotate(const float* x, const float* weight, const RopeStore& args, int64_t position, float* out) {
    const int dim = args.kv.head_dim;
    const float *cosines = args.cosines + position * (dim / 2), *sines = args.sines + position * (dim / 2);
    if (weight != nullptr) {
        norm_head(x, weight, dim, args.eps, out);
        x = out;
    }
    rotate_head(x, cosines, sines, dim, out);
}

inline void round_head(const float* x, int dim, uint16_t* out) {
    for (int d = 0; d < dim; d += kLanes) {
        const int n = least(kLanes, dim - d);
        store_bf16_n(out + d, load_n(x + d, n), n);
    }
}

void store_bf16_head(const KvView& kv, uint32_t* tile, int in_tile, const float* k, const float* v) {
    alignas(64) uint16_t rounded[kMaxHeadDim];
    round_head(k, kv.head_dim, rounded);
    for (int w = 0; w < kv.head_dim / 2; ++w) memcpy(tile + w * kTileTokens + in_tile, rounded + 2 * w, 4);
    round_head(v, kv.head_dim, rounded);
    uint16_t* row = reinterpret_cast<uint16_t*>(tile + kv.k_words + int64_t{in_tile / 2} * kv.padded_dim) + in_tile % 2;
    for (int d = 0; d < kv.head_dim; ++d) row[2 * d] = rounded[d];
}

void store_f32_head(const KvView& kv, uint32_t* tile, int in_tile, const float* k, const float* v) {
    for (int d = 0; d < kv.head_dim; ++d) memcpy(tile + d * kTileTokens + in_tile, k + d, 4);
    memcpy(tile + kv.k_words + int64_t{in_tile} * kv.padded_dim, v, size_t(kv.head_dim) * 4);
}

// Rounds a head to integers, stored plus `offset`; returns the scale's bits. See kv_cache.h.
uint16_t quantize_head(const float* x, int dim, int offset, uint8_t* out) {
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
    const uint16_t scale = uint16_t(bits >> 16);
    const Vec inverse = set1(1.0f / bf16_value(scale));
    for (int d = 0; d < dim; d += kLanes)
        store_low_bytes(out + d, plus(nearest(mul(load_n(x + d, least(kLanes, dim - d)), inverse)), sums_of(offset)));
    return scale;
}

void store_int8_head(const KvView& kv, uint32_t* tile, int in_tile, const float* k, const float* v) {
    alignas(64) uint8_t rounded[kMaxHeadDim + kLanes] = {};
    uint16_t* scales = reinterpret_cast<uint16_t*>(tile + kv.tile_stride - kScaleWords) + in_tile;
    scales[0] = quantize_head(k, kv.head_dim, 128, rounded);
    for (int w = 0; w < kv.k_words / kTileTokens; ++w) memcpy(tile + w * kTileTokens + in_tile, rounded + 4 * w, 4);
    scales[kTileTokens] = quantize_head(v, kv.head_dim, 0, rounded);
    uint8_t* row = reinterpret_cast<uint8_t*>(tile + kv.k_words + int64_t{in_tile / 4} * kv.padded_dim) + in_tile % 4;
    for (int d = 0; d < kv.head_dim; ++d) row[4 * d] = rounded[d];
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

void store_head(const RopeStore& args, int64_t row, int head, const float* k, const float* v) {
    const KvView& kv = args.kv;
    const Place place = place_of(args, row);
    uint32_t* tile = place.tile + head * kv.head_stride;
    alignas(64) float rotated[kMaxHeadDim];
    norm_and_rotate(k, args.k_norm, args, args.positions[row], rotated);
    switch (kv.dtype) {
        case KvDtype::bfloat16: return store_bf16_head(kv, tile, place.in_tile, rotated, v);
        case KvDtype::float32: return store_f32_head(kv, tile, place.in_tile, rotated, v);
        case KvDtype::int8: return store_int8_head(kv, tile, place.in_tile, rotated, v);
    }
}

// Rows [begin, end): a head of all rows before the next head, so that the tile of neighbouring tokens stays in L1.
void store_rows(const RopeStore& args, int64_t begin, int64_t end) {
    const int64_t dim = args.kv.head_dim, num_kv_heads = args.kv.num_kv_heads;
    const int64_t columns = (args.num_heads + 2 * num_kv_heads) * dim;
    for (int64_t row = begin; row < end; ++row) {
        const float* q = args.qkv + row * columns;
        for (int64_t head = 0; head < args.num_heads; ++head)
            norm_and_rotate(q + head * dim, args.q_norm, args, args.positions[row],
                            args.q_out + (row * args.num_heads + head) * dim);
    }
    for (int head = 0; head < num_kv_heads; ++head) {
        for (int64_t row = begin; row < end; ++row) {
            const float* k = args.qkv + row * columns + (args.num_heads + head) * dim;
            store_head(args, row, head, k, k + num_kv_heads * dim);
        }
    }
}

}  // namespace

void rope_store(Runtime& runtime, const RopeStore& args) {
    const int64_t columns = (args.num_heads + 2 * args.kv.num_kv_heads) * int64_t{args.kv.head_dim};
    const int64_t few = columns < 8192 ? 8192 / columns : 1;
    // Of a prompt, a tile's worth of tokens: two threads that take turns in a tile take its lines from each other.
    const int64_t rows_per_chunk = args.rows >= 4 * kTileTokens * runtime.pool.num_threads() ? kTileTokens : few;
    const int64_t num_chunks = (args.rows + rows_per_chunk - 1) / rows_per_chunk;
    parallel(runtime.pool, num_chunks, [&](int64_t chunk) {
        const int64_t last = (chunk + 1) * rows_per_chunk, end = last < args.rows ? last : args.rows;
        store_rows(args, chunk * rows_per_chunk, end);
    });
}

}  // namespace quire::QUIRE_ISA

// The paged key/value cache: geometry, memory and block copies. Knows nothing of Python, threads or instruction sets.
//
// Page layout. Everything is 32-bit words; a word holds step() neighbours along the axis that a dot product sums over:
// four int8, two bfloat16 (the lower index in the lower part) or one float32.
//
//   pool   [block][layer][kv head][tile of 16 tokens] -> K words, then V words, then, with int8, scales
//   K tile [depth / 16][16 tokens][16] depth = D / step words of a token in pieces of 64 bytes (the last piece of a token has
//                                      depth % 16 words if that is not 0): a token touches as few lines as it can, and
//                                      attention turns 16 x 16 words when it wants lanes to be tokens
//   V tile [16 / step][Dp]             lanes are dims, Dp = D rounded up to 16: p.v for 16 dims needs none either
//   scales [2][16 tokens] bfloat16     of keys, then of values: one each per token and kv head
//
// int8: x = scale * i, i from -127 to 127; the scale is the largest |x| / 127, rounded up to bfloat16, at least 2^-100. Keys are
// stored as i + 128, unsigned, values as i, signed: so the products of attention want them.
//
// Block first: one block of all layers is contiguous, so copy_blocks is one memcpy a pair, and blocks handed out in ascending
// order touch a contiguous run. That makes huge pages (Mapping advises them from 2 MiB up: fewer faults and TLB misses) safe for
// lazy touching: a run of used blocks rounds up by less than one huge page at each end. Layer first would spread each block
// over num_layers huge pages: 56 MiB resident after one 1.8 MB block of a 28-layer model.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "ahead.h"
#include "memory.h"

namespace quire {

enum class KvDtype { bfloat16, float32, int8 };

inline int step_of(KvDtype dtype) { return dtype == KvDtype::int8 ? 4 : dtype == KvDtype::bfloat16 ? 2 : 1; }

constexpr int kTileTokens = 16;
constexpr int kScaleWords = 16;  // of an int8 tile
constexpr int kPieceWords = 16;  // of a token's keys
constexpr int kMaxHeadDim = 256;
constexpr int kMaxBlockSize = 128;

// What a kernel needs to find a word. Strides are in words.
struct KvView {
    uint32_t* words;
    KvDtype dtype;
    int32_t num_layers, num_blocks, block_size, num_kv_heads, head_dim;
    int32_t padded_dim;  // Dp
    int32_t depth;       // words of a token's keys
    int64_t block_stride, layer_stride, head_stride, tile_stride;
    int64_t k_words;  // words of a K tile; its V tile follows
};

// Words of each token in the piece of a K tile that begins with word `word`, a multiple of kPieceWords. The piece begins at
// word * kTileTokens.
inline int piece_words(int depth, int word) { return depth - word < kPieceWords ? depth - word : kPieceWords; }

class KVCache {
public:
    // Throws std::invalid_argument on a size out of range or a pool too large to count, std::bad_alloc when refused.
    KVCache(int64_t num_layers, int64_t num_blocks, int64_t block_size, int64_t num_kv_heads, int64_t head_dim, KvDtype dtype);

    const KvView& view() const { return view_; }
    int64_t nbytes() const { return view_.num_blocks * block_nbytes(); }
    int64_t block_nbytes() const { return view_.block_stride * 4; }
    // pairs: `count` times (source, destination), applied in order to all layers; nothing is copied if an id is out of range.
    void copy_blocks(const int64_t* pairs, int64_t count);
    // k, v: [block_size, G, D] float32.
    void read(int64_t layer, int64_t block, float* k, float* v) const;

    // From now on as many blocks behind the last one ever written are made resident as cores have nothing else to do. Once only.
    void keep_ahead(int64_t num_blocks);
    // Somebody writes to `block`. One launch at a time: the caller holds the device.
    void wrote(int64_t block) {
        if (ahead_ && block >= num_written_) look_ahead(block + 1);
    }
    // Blocks, from the first on, that were written or made resident ahead of it.
    int64_t num_ready() const;

private:
    void look_ahead(int64_t num_written);

    KvView view_{};
    Mapping memory_;
    int64_t num_ahead_ = 0, num_written_ = 0;
    std::unique_ptr<Ahead> ahead_;  // ends before the memory does
};

}  // namespace quire

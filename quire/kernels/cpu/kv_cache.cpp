// Memory of the paged key/value cache; the layout is described in kv_cache.h.
#include "kv_cache.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>

namespace quire {
namespace {

constexpr int64_t kMaxPoolBytes = int64_t{1} << 50;

void require(const char* name, int64_t got, int64_t low, int64_t high) {
    if (got >= low && got <= high) return;
    throw std::invalid_argument(std::string("KVCache: ") + name + " is out of range; got " + std::to_string(got) +
                                "; allowed: " + std::to_string(low) + " to " + std::to_string(high) + ".");
}

void require_multiple(const char* name, int64_t got, int64_t of) {
    if (got % of == 0) return;
    throw std::invalid_argument(std::string("KVCache: ") + name + " does not fit the page layout; got " + std::to_string(got) +
                                "; allowed: multiples of " + std::to_string(of) + ".");
}

int64_t product(int64_t a, int64_t b) {
    int64_t result = 0;
    if (__builtin_mul_overflow(a, b, &result) || result > kMaxPoolBytes)
        throw std::invalid_argument("KVCache: the pool is too large; got more than 2^50 bytes; allowed: what the machine has.");
    return result;
}

float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Where word `word` of a token's keys stands in the tile.
int key_at(int depth, int token, int word) {
    const int first = word / kPieceWords * kPieceWords;
    return first * kTileTokens + token * piece_words(depth, first) + word - first;
}

// Element `part` of a word of keys or values.
float word_value(KvDtype dtype, uint32_t word, int part, bool key) {
    switch (dtype) {
        case KvDtype::bfloat16: return float_of(part ? (word & 0xFFFF0000u) : (word << 16));
        case KvDtype::int8: return static_cast<float>(static_cast<int8_t>((word >> 8 * part & 255u) ^ (key ? 128u : 0u)));
        case KvDtype::float32: break;
    }
    return float_of(word);
}

}  // namespace

KVCache::KVCache(int64_t num_layers, int64_t num_blocks, int64_t block_size, int64_t num_kv_heads, int64_t head_dim,
                 KvDtype dtype) {
    require("block_size", block_size, kTileTokens, kMaxBlockSize);
    require_multiple("block_size", block_size, kTileTokens);
    require("head_dim", head_dim, 2, kMaxHeadDim);
    require_multiple("head_dim", head_dim, 2);
    require("num_layers", num_layers, 1, INT32_MAX);
    require("num_kv_heads", num_kv_heads, 1, INT32_MAX);
    require("num_blocks", num_blocks, 1, INT32_MAX / block_size);  // a slot is an int32
    const int64_t step = step_of(dtype);
    view_.dtype = dtype;
    view_.num_layers = static_cast<int32_t>(num_layers);
    view_.num_blocks = static_cast<int32_t>(num_blocks);
    view_.block_size = static_cast<int32_t>(block_size);
    view_.num_kv_heads = static_cast<int32_t>(num_kv_heads);
    view_.head_dim = static_cast<int32_t>(head_dim);
    view_.padded_dim = static_cast<int32_t>((head_dim + 15) / 16 * 16);
    view_.depth = static_cast<int32_t>((head_dim + step - 1) / step);
    view_.k_words = int64_t{view_.depth} * kTileTokens;
    view_.tile_stride = view_.k_words + kTileTokens / step * view_.padded_dim + (dtype == KvDtype::int8 ? kScaleWords : 0);
    view_.head_stride = view_.tile_stride * (block_size / kTileTokens);
    view_.layer_stride = product(view_.head_stride, num_kv_heads);
    view_.block_stride = product(view_.layer_stride, num_layers);
    Mapping memory(static_cast<size_t>(product(product(view_.block_stride, num_blocks), 4)));
    memory_.swap(memory);
    view_.words = memory_.as<uint32_t>();
}

void KVCache::copy_blocks(const int64_t* pairs, int64_t count) {
    for (int64_t i = 0; i < 2 * count; ++i) require("block", pairs[i], 0, view_.num_blocks - 1);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t source = pairs[2 * i], destination = pairs[2 * i + 1];
        if (source == destination) continue;
        std::memcpy(view_.words + destination * view_.block_stride, view_.words + source * view_.block_stride,
                    static_cast<size_t>(block_nbytes()));
    }
}

void KVCache::keep_ahead(int64_t num_blocks) {
    require("blocks to keep ahead", num_blocks, 0, INT32_MAX);
    if (num_blocks == 0 || ahead_) return;
    try {
        ahead_ = std::make_unique<Ahead>(memory_.as<char>());
    } catch (const std::system_error&) {
        return;  // no more threads: blocks become resident as they are written
    }
    num_ahead_ = num_blocks;
    look_ahead(0);
}

void KVCache::look_ahead(int64_t num_written) {
    num_written_ = num_written;
    const int64_t wanted = std::min<int64_t>(view_.num_blocks, num_written + num_ahead_);
    ahead_->want(size_t(num_written * block_nbytes()), size_t(wanted * block_nbytes()));
}

int64_t KVCache::num_ready() const {
    return ahead_ ? std::max(num_written_, int64_t(ahead_->done()) / block_nbytes()) : 0;
}

void KVCache::read(int64_t layer, int64_t block, float* k, float* v) const {
    require("layer", layer, 0, view_.num_layers - 1);
    require("block", block, 0, view_.num_blocks - 1);
    const int step = step_of(view_.dtype);
    for (int token = 0; token < view_.block_size; ++token) {
        const int in_tile = token % kTileTokens;
        for (int head = 0; head < view_.num_kv_heads; ++head) {
            const uint32_t* k_tile = view_.words + block * view_.block_stride + layer * view_.layer_stride +
                                     head * view_.head_stride + token / kTileTokens * view_.tile_stride;
            const uint32_t* v_row = k_tile + view_.k_words + in_tile / step * view_.padded_dim;
            float k_scale = 1, v_scale = 1;
            if (view_.dtype == KvDtype::int8) {
                const uint32_t* scales = k_tile + view_.tile_stride - kScaleWords + in_tile / 2;
                k_scale = word_value(KvDtype::bfloat16, scales[0], in_tile % 2, true);
                v_scale = word_value(KvDtype::bfloat16, scales[kTileTokens / 2], in_tile % 2, false);
            }
            for (int d = 0; d < view_.head_dim; ++d) {
                *k++ = k_scale * word_value(view_.dtype, k_tile[key_at(view_.depth, in_tile, d / step)], d % step, true);
                *v++ = v_scale * word_value(view_.dtype, v_row[d], in_tile % step, false);
            }
        }
    }
}

}  // namespace quire

// Memory of the paged key/value cache; the layout is described in kv_cache.h.
#include "kv_cache.h"

#include <cstring>
#include <stdexcept>
#include <string>

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

float word_value(const KvView& view, uint32_t word, int half) {
    uint32_t bits = word;
    if (view.dtype == KvDtype::bfloat16) bits = half ? (word & 0xFFFF0000u) : (word << 16);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
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
    const int64_t step = dtype == KvDtype::bfloat16 ? 2 : 1;
    view_.dtype = dtype;
    view_.num_layers = static_cast<int32_t>(num_layers);
    view_.num_blocks = static_cast<int32_t>(num_blocks);
    view_.block_size = static_cast<int32_t>(block_size);
    view_.num_kv_heads = static_cast<int32_t>(num_kv_heads);
    view_.head_dim = static_cast<int32_t>(head_dim);
    view_.padded_dim = static_cast<int32_t>((head_dim + 15) / 16 * 16);
    view_.k_words = head_dim / step * kTileTokens;
    view_.tile_stride = view_.k_words + kTileTokens / step * view_.padded_dim;
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

void KVCache::read(int64_t layer, int64_t block, float* k, float* v) const {
    require("layer", layer, 0, view_.num_layers - 1);
    require("block", block, 0, view_.num_blocks - 1);
    const int step = view_.dtype == KvDtype::bfloat16 ? 2 : 1;
    for (int token = 0; token < view_.block_size; ++token) {
        const int in_tile = token % kTileTokens;
        for (int head = 0; head < view_.num_kv_heads; ++head) {
            const uint32_t* k_tile = view_.words + block * view_.block_stride + layer * view_.layer_stride +
                                     head * view_.head_stride + token / kTileTokens * view_.tile_stride;
            const uint32_t* v_row = k_tile + view_.k_words + in_tile / step * view_.padded_dim;
            for (int d = 0; d < view_.head_dim; ++d) {
                *k++ = word_value(view_, k_tile[d / step * kTileTokens + in_tile], d % step);
                *v++ = word_value(view_, v_row[d], in_tile % step);
            }
        }
    }
}

}  // namespace quire

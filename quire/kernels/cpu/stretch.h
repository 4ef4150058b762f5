// What a product of few rows reads of its weight, and how its threads share it.
// Knows: panels, chunks. Does not know: formats, threads' work.
#pragma once
#include <cstdint>

namespace quire {

// Chunks one behind the other in memory, split among threads as Pool::run splits them.
struct Stretch {
    const char* data = nullptr;
    int64_t chunk_bytes = 0, num_chunks = 0;
};

namespace {

constexpr int64_t kStreamedRows = 8;      // up to here a product waits for its weights
constexpr int64_t kChunkBytes = 1 << 18;  // what another thread can take over at most

// Panels that one chunk of few rows takes, as one stream: sixteen chunks a thread or more leave work to steal.
[[maybe_unused]] inline int64_t panels_of_chunk(int64_t panels, int64_t panel_bytes, int64_t num_threads) {
    const int64_t share = panels / (16 * num_threads), fit = kChunkBytes / panel_bytes, least = share < fit ? share : fit;
    return least > 1 ? least : 1;
}

// The stretch of a weight's panels.
[[maybe_unused]] inline Stretch stretch_of(const void* weight, int64_t panels, int64_t panel_bytes, int64_t num_threads) {
    const int64_t each = panels_of_chunk(panels, panel_bytes, num_threads);
    return {static_cast<const char*>(weight), each * panel_bytes, (panels + each - 1) / each};
}

}  // namespace
}  // namespace quire

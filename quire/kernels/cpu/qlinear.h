// linear with quantized weights: rounding the rows, splitting the work, cache blocks. Tiles and order: qgemm.h.
//
// Versions tried (measured as in gemm_int8.cpp): not fetching the scales with the weights ahead: groups of 128 at 16 rows 60 % of the
// peak instead of 70; few rows 2 KiB ahead of themselves 12 GB/s, 6 KiB 16, 12 KiB 18 to 22; scales behind the weights of a span,
// where they are wanted before they are fetched: int8 in groups of 32 at one row 12 GB/s instead of 20. Not fetching at all, 1 to 3
// rows: int8 per channel 23 to 25 GB/s instead of 16 to 20, int4 in groups of 128 26 instead of 24, but in groups of 32, where the
// scales are a second stream, 9 instead of 21. These 1 to 3 rows in blocks of 256 inputs, as more rows are: int8 at one row 77 to 84 %
// of the DRAM rate instead of 96 to 98.
// Knows: a Linear. Does not know: instructions.
#pragma once
#include "qgemm.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kQBlock = kSpan;          // inputs of a cache block: weights from L1 again for every block of rows
constexpr int64_t kQAheadBytes = 12 << 10;  // that few rows prefetch ahead of themselves

constexpr int64_t kQOwnPace = 3;  // up to here, if scales are few, rows leave fetching to the processor

// What all tasks of a product share.
struct QProduct {
    const Linear& g;
    QFormat format;
    int64_t section;  // inputs of a section
    const char* a;    // the rounded rows
};

// Few rows whose scales are few leave fetching to the processor, and the whole panel is one block: a stop every 12 KiB costs them
// a sixth of the rate.
inline bool at_own_pace(const QProduct& q, int64_t rows) { return rows <= kQOwnPace && q.section == kInputGroup; }

// Adds one cache block of a panel, inputs [begin, begin + block), to the sums of all rows of a task. Weights come from DRAM
// once: few rows see the processor do it or fetch them kQAheadBytes ahead of themselves, of more the first fetch the next block.
template <class P>
void q_cache_block(const QProduct& q, const uint8_t* w, int64_t begin, int64_t block, int64_t first, int64_t rows, float* acc) {
    const int64_t k = smaller(block, q.format.k - begin), blocks = ceil_div(rows, P::kRows);
    const int64_t weight_bytes = q_bytes_of(q.format, k);
    const char* ahead = reinterpret_cast<const char*>(w) + (blocks == 1 ? kQAheadBytes : weight_bytes);
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t row = i * P::kRows, in_block = smaller(P::kRows, rows - row);
        const int lines = at_own_pace(q, rows) ? 0 : blocks == 1 ? 3 : blocks == 2 ? 2 - int(i) : i < 3 ? 1 : 0;
        const char* a = q.a + (first + row) / P::kRows * q_block_bytes(q.section, q.format.k, P::kRows);
        any_q_block<P>(in_block, {a + q_block_bytes(q.section, begin, in_block), w, k, q.section, acc + row * kPanel, lines, ahead});
        ahead += weight_bytes / 3 * lines;
    }
}

inline void scale_row(float* acc, const uint8_t* scales) {
    for (int64_t i = 0; i < kPanel; i += kLanes) {
        store(acc + i, mul(load(acc + i), load_bf16(reinterpret_cast<const uint16_t*>(scales) + i)));
    }
}

// Rows [first, first + rows) of one panel.
template <class P>
void q_task(const QProduct& q, int64_t panel, int64_t first, int64_t rows) {
    alignas(64) float acc[kTaskRows * kPanel];
    for (int64_t i = 0; i < rows * kPanel; i += kLanes) store(acc + i, zero());
    const Linear& g = q.g;
    const uint8_t* w = static_cast<const uint8_t*>(g.weight) + panel * q_panel_bytes(q.format);
    const int64_t block = at_own_pace(q, rows) ? g.k : kQBlock;
    for (int64_t k = 0; k < g.k; k += block) q_cache_block<P>(q, w + q_bytes_of(q.format, k), k, block, first, rows, acc);
    const int64_t column = panel * kPanel, columns = smaller(kPanel, g.n - column);
    for (int64_t r = 0; r < rows; ++r) {
        if constexpr (P::kScales == Scales::channel) scale_row(acc + r * kPanel, w + q_scales_at(q.format, 0));
        finish_row(acc + r * kPanel, g.bias ? g.bias + column : nullptr, g.out + (first + r) * g.n + column, columns,
                   g.accumulate);
    }
}

// Chunks of blocks of rows, each with its own buffer: what a thread just made there is what it then rounds.
template <class P>
void round_rows(Pool& pool, const QProduct& q, char* out, float* buffers, int64_t num_chunks) {
    const int64_t blocks = ceil_div(q.g.rows, P::kRows);
    parallel(pool, num_chunks, [&](int64_t chunk) {
        for (int64_t i = blocks * chunk / num_chunks; i < blocks * (chunk + 1) / num_chunks; ++i) {
            const int64_t first = i * P::kRows, rows = smaller(P::kRows, q.g.rows - first);
            char* block = out + i * q_block_bytes(q.section, q.g.k, P::kRows);
            for (int64_t r = 0; r < rows; ++r) {
                round_row(q.format, input_row(q.g, first + r, buffers + chunk * q.g.k), r, rows, block);
            }
        }
    });
}

// The rows of q.g, rounded in the device's scratch.
template <class P>
const char* rounded_rows(Runtime& runtime, const QProduct& q) {
    const int64_t blocks = ceil_div(q.g.rows, P::kRows), most = kPackChunks * runtime.pool.num_threads();
    const int64_t num_chunks = q.g.rows * q.g.k <= kSmallPack ? 1 : smaller(blocks, most);
    const int64_t bytes = blocks * q_block_bytes(q.section, q.g.k, P::kRows), buffers_at = (bytes + 63) / 64 * 64;
    char* scratch = static_cast<char*>(runtime.scratch.at_least(size_t(buffers_at + num_chunks * q.g.k * 4)));
    round_rows<P>(runtime.pool, q, scratch, reinterpret_cast<float*>(scratch + buffers_at), num_chunks);
    return scratch;
}

template <class P>
void q_linear(Runtime& runtime, const Linear& g) {
    if (g.rows == 0 || g.n == 0) return;
    QProduct q{g, {g.k, P::kBits, g.group, g.symmetric}, 0, nullptr};
    q.section = q_section(q.format);
    q.a = rounded_rows<P>(runtime, q);
    const int64_t panels = ceil_div(g.n, kPanel), row_tasks = ceil_div(g.rows, kTaskRows);
    // Few rows: several panels a chunk, as one stream. Sixteen chunks a thread leave work to steal.
    const int64_t most = 16 * runtime.pool.num_threads();
    const int64_t panels_per_chunk = row_tasks == 1 && panels > most ? panels / most : 1;
    const int64_t panel_chunks = ceil_div(panels, panels_per_chunk);
    parallel(runtime.pool, panel_chunks * row_tasks, [&](int64_t chunk) {
        const int64_t begin = chunk / row_tasks * panels_per_chunk, first = chunk % row_tasks * kTaskRows;
        const int64_t end = smaller(begin + panels_per_chunk, panels);
        for (int64_t panel = begin; panel < end; ++panel) q_task<P>(q, panel, first, smaller(kTaskRows, g.rows - first));
    });
}

}  // namespace
}  // namespace quire::QUIRE_ISA

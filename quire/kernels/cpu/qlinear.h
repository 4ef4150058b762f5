// linear with quantized weights: rounding the rows, splitting the work, cache blocks. Tiles and order: qgemm.h.
//
// Versions tried (measured as in gemm_int8.cpp): not fetching the scales with the weights ahead: groups of 128 at 16 rows 60 % of the
// peak instead of 70; few rows 2 KiB ahead of themselves 12 GB/s, 6 KiB 16, 12 KiB 18 to 22; scales behind the weights of a span,
// where they are wanted before they are fetched: int8 in groups of 32 at one row 12 GB/s instead of 20. Not fetching at all, 1 to 3
// rows: int8 per channel 23 to 25 GB/s instead of 16 to 20, int4 in groups of 128 26 instead of 24, but in groups of 32, where the
// scales are a second stream, 9 instead of 21. These 1 to 3 rows in blocks of 256 inputs, as more rows are: int8 at one row 77 to 84 %
// of the DRAM rate instead of 96 to 98.
// Cache blocks of 256 inputs for every number of rows, sums of all rows in memory and a pass over them at the end: a tile then costs
// 120 cycles beside its 768 of multiplies. Against it, pairs of runs in turn, four layers of Qwen3-0.6B together, two threads, int8:
//   rows                                              1024    128     32     16      5
//   blocks of 1024, still with the pass              1.058  1.046  1.010  0.983  0.784
//   blocks of 1024, outputs from registers, their lines fetched for writing before the sums    1.113  1.105  1.057  1.018  0.806
//   blocks of 3072, likewise; 256 up to 8 rows       1.128  1.105  1.051  1.001  1.003
// The fetching of the next block of weights by the first three blocks of rows, or spread over all, both against the state before all
// this, with rows rounded as in qinput_avx512.h: 1.144 and 1.165 at 1024 rows, 1.068 and 1.079 at 32, 1.050 and 0.999 at 16; int4 in
// groups of 128 1.236 and 1.267, 1.130 and 1.152 (in the spread ones columns that do not exist cost nothing: 3 % of 1024 outputs).
// On a Xeon with AMX one row is quicker when it fetches 2 KiB ahead of itself: two threads, 6144 x 1024, GB/s of 33: int8 31.8 instead of
// 28.6 (12 KiB ahead 30.2, 4 KiB 27.6), int4 in groups of 128 28.2 instead of 26.7 (25.9, 28.0).
// Knows: a Linear. Does not know: instructions.
#pragma once
#include "qgemm.h"
#if QUIRE_ISA_amx
#include "qlinear_tiles.h"
#endif

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kQBlock = 12 * kSpan;      // inputs of a cache block: weights from L2 again for every block of rows
#if QUIRE_ISA_amx  // the Xeons that have it: see below
constexpr int64_t kQAheadBytes = 2 << 10;
constexpr bool kOwnPaceFetches = true;
#else
constexpr int64_t kQAheadBytes = 12 << 10;  // that few rows prefetch ahead of themselves
constexpr bool kOwnPaceFetches = false;     // or leave it to the processor
#endif

constexpr int64_t kQBurst = 4;    // more blocks of rows than this share the fetching: some lines at the end of each section
constexpr int64_t kQOwnPace = 3;  // up to here, if scales are few, rows leave fetching to the processor

// Inputs of a cache block for a task of so many rows.
inline int64_t q_block_of(int64_t rows) { return rows <= 8 ? kSpan : rows <= 16 ? 4 * kSpan : kQBlock; }

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

// Rows of one panel, and what all their cache blocks share.
struct QTask {
    int64_t panel, first, rows;  // rows [first, first + rows)
    const uint8_t* w;            // the panel
    float* acc;                  // [rows][kPanel]
};

inline QOut q_out(const QProduct& q, const QTask& t) {
    const int64_t column = t.panel * kPanel;
    return {q.g.out + t.first * q.g.n + column, q.g.n, smaller(kPanel, q.g.n - column),
            reinterpret_cast<const uint16_t*>(t.w + q_scales_at(q.format, 0)), q.g.bias ? q.g.bias + column : nullptr,
            q.g.accumulate};
}

// Adds one cache block of a panel, inputs [begin, begin + block), to the sums of all rows of a task. Weights come from DRAM
// once: few rows see the processor do it or fetch them kQAheadBytes ahead of themselves, of more the first fetch the next block, of
// many all do.
template <class P>
void q_cache_block(const QProduct& q, const QTask& t, int64_t begin, int64_t block) {
    const int64_t k = smaller(block, q.format.k - begin), blocks = ceil_div(t.rows, P::kRows);
    const int64_t weight_bytes = q_bytes_of(q.format, k);
    const uint8_t* w = t.w + q_bytes_of(q.format, begin);
    const char* ahead = reinterpret_cast<const char*>(w) + (blocks == 1 ? kQAheadBytes : weight_bytes);
    const int64_t sections = ceil_div(k, q.section);
    const int burst = blocks > kQBurst ? int(ceil_div(weight_bytes, 64 * blocks * sections)) : 0;
    QOut out = q_out(q, t);
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t row = i * P::kRows, in_block = smaller(P::kRows, t.rows - row);
        const bool leave = (at_own_pace(q, t.rows) && !kOwnPaceFetches) || burst;
        const int lines = leave ? 0 : blocks == 1 ? 3 : blocks == 2 ? 2 - int(i) : i < 3 ? 1 : 0;
        const char* a = q.a + (t.first + row) / P::kRows * q_block_bytes(q.section, q.format.k, P::kRows);
        any_q_block<P>(in_block, {a + q_block_bytes(q.section, begin, in_block), w, k, q.section, t.acc + row * kPanel, begin > 0,
                                  begin + k == q.format.k ? &out : nullptr, out.columns, lines, burst, ahead});
        ahead += lines ? weight_bytes / 3 * lines : 64 * burst * sections;
        out.to += P::kRows * out.stride;
    }
}

// Rows [first, first + rows) of one panel.
template <class P>
void q_task(const QProduct& q, int64_t panel, int64_t first, int64_t rows) {
    alignas(64) float acc[kTaskRows * kPanel];
    const QTask t{panel, first, rows, static_cast<const uint8_t*>(q.g.weight) + panel * q_panel_bytes(q.format), acc};
    const int64_t block = at_own_pace(q, rows) ? q.g.k : q_block_of(rows);
    for (int64_t k = 0; k < q.g.k; k += block) q_cache_block<P>(q, t, k, block);
}

// Rows [first, first + R), a group at a time: what was just made is what is then rounded.
template <int R>
void round_block(const QProduct& q, int64_t first, char* block) {
    alignas(64) float made[R * kInputGroup];
    float scales[R];
    for (int r = 0; r < R; ++r) scales[r] = row_scale(q.g, first + r);
    for (int64_t k = 0; k < q.g.k; k += kInputGroup) {
        const int64_t length = smaller(q.g.k - k, kInputGroup);
        round_parts<R>(q.format, length, block, [&](int r) {
            return input_part(q.g, first + r, scales[r], k, length, made + r * kInputGroup);
        });
        block += q_block_bytes(q.section, length, R);
    }
}

// The rows of q.g, rounded to `scratch`.
template <class P>
void round_rows(Runtime& runtime, const QProduct& q, char* scratch) {
    static_assert(P::kRows == 4);
    const int64_t blocks = ceil_div(q.g.rows, P::kRows), most = kPackChunks * runtime.pool.num_threads();
    const int64_t num_chunks = q.g.rows * q.g.k <= kSmallPack ? 1 : smaller(blocks, most);
    const int64_t block_bytes = q_block_bytes(q.section, q.g.k, P::kRows);
    parallel(runtime.pool, num_chunks, [&](int64_t chunk) {
        for (int64_t i = blocks * chunk / num_chunks; i < blocks * (chunk + 1) / num_chunks; ++i) {
            const int64_t first = i * P::kRows;
            switch (smaller(P::kRows, q.g.rows - first)) {
                case 1: round_block<1>(q, first, scratch + i * block_bytes); break;
                case 2: round_block<2>(q, first, scratch + i * block_bytes); break;
                case 3: round_block<3>(q, first, scratch + i * block_bytes); break;
                default: round_block<4>(q, first, scratch + i * block_bytes); break;
            }
        }
    });
}

// Bytes of scratch for the rounded rows of g, a multiple of 64.
template <class P>
int64_t rounded_bytes(const Linear& g) {
#if QUIRE_ISA_amx
    if (g.rows >= kFewestTiledRows) return tiled_bytes({g.k, P::kBits, g.group, g.symmetric}, g.rows);
#endif
    const int64_t section = q_section({g.k, P::kBits, g.group, g.symmetric});
    return ceil_div(ceil_div(g.rows, P::kRows) * q_block_bytes(section, g.k, P::kRows), 64) * 64;
}

// The product, with rounded_bytes(g) of scratch. made(panel, first, rows): the outputs of these rows in this panel are there.
template <class P, class Made>
void q_linear(Runtime& runtime, const Linear& g, char* scratch, const Made& made) {
    if (g.rows == 0 || g.n == 0) return;
#if QUIRE_ISA_amx
    if (g.rows >= kFewestTiledRows) return q_linear_tiles<P>(runtime, g, scratch, made);
#endif
    QProduct q{g, {g.k, P::kBits, g.group, g.symmetric}, 0, scratch};
    q.section = q_section(q.format);
    round_rows<P>(runtime, q, scratch);
    const int64_t panels = ceil_div(g.n, kPanel), row_tasks = ceil_div(g.rows, kTaskRows);
    const int64_t panels_per_chunk = row_tasks == 1 ? panels_of_chunk(panels, q_panel_bytes(q.format), runtime.pool.num_threads()) : 1;
    const int64_t panel_chunks = ceil_div(panels, panels_per_chunk);
    parallel(runtime.pool, panel_chunks * row_tasks, [&](int64_t chunk) {
        const int64_t begin = chunk / row_tasks * panels_per_chunk, first = chunk % row_tasks * kTaskRows;
        const int64_t end = smaller(begin + panels_per_chunk, panels);
        for (int64_t panel = begin; panel < end; ++panel) {
            q_task<P>(q, panel, first, smaller(kTaskRows, g.rows - first));
            made(panel, first, smaller(kTaskRows, g.rows - first));
        }
    });
}

template <class P>
void q_linear(Runtime& runtime, const Linear& g) {
    char* scratch = static_cast<char*>(runtime.scratch.at_least(size_t(rounded_bytes<P>(g))));
    q_linear<P>(runtime, g, scratch, [](int64_t, int64_t, int64_t) {});
}

}  // namespace
}  // namespace quire::QUIRE_ISA

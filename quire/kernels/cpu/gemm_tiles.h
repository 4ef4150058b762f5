// linear with bf16 weights on AMX tiles. Panels are those of every instruction set (pack.h): 16 pairs of k of 16 columns of a panel
// are a tile as they lie, three lines apart.
//
// Rows are rounded to bf16 and laid in blocks of 16 (fewer where there are no more), [block][ceil(k/32)][rows][32], zeros behind k.
// Order: one accumulator per output, 32 k at a time ascending (tiles.h says how these are added), whatever the number of rows. Then
// + bias, then + the old value. Two blocks of rows times three vectors of columns are six sums; a seventh tile holds what is multiplied
// by columns, the eighth by rows: the processor renames tiles, so that this waits for nothing.
// The last k, where 32 do not divide it, come from a copy with zeros behind them: what follows in memory may be NaN.
// Work is split over panels and rows only: rows of a task stay in L2 for all its panels.
//
// Versions tried, one core of a 3.3 GHz Xeon (3.2 TFLOP/s), 512 rows, 1024 -> 4096: as now 1.2 to 1.4 TFLOP/s (weights and rows from L2: a
// loop of its own on zeros makes 1.9; from L1 3.0); all rows in L2 at once 1.1; lines of the outputs fetched for writing before a pass
// 0.9 to 1.0 of the rate; rows or weights fetched into L1 one to four steps ahead 0.9 to 1.0; cache blocks of 128 to 512 k 0.8 to 1.05.
// Knows: tiles, panels. Does not know: Python, types of models.
#pragma once
#include "gemm.h"
#include "tiles.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kTileK = 32;                  // k of a product of tiles
constexpr int64_t kTileStep = 2 * kPanel * kTileK;  // bytes of them in a panel
constexpr int64_t kInL2 = 3 << 18;              // bytes of rounded rows that a task keeps there: of 2 MiB, beside weights and outputs
constexpr int64_t kPair = 2 * kTileRows16;      // rows of a pass
constexpr int64_t kAwakeSteps = 8;

inline int64_t tile_steps(int64_t k) { return ceil_div(k, kTileK); }

// Rows of the tiles of block `first / 16` of `rows`: all of the only block's rows, else 16.
inline int64_t rows_of_tile(int64_t rows) { return smaller(rows, kTileRows16); }

// One row rounded to bf16, 32 values every `stride` bytes.
inline void round_to_tiles(const float* x, int64_t k, char* out, int64_t stride) {
    for (int64_t i = 0; i < k; i += kTileK, out += stride) {
        const int64_t n = smaller(k - i, kTileK), in_low = smaller(n, kLanes);
        const Vec low = load_n(x + i, int(in_low)), high = load_n(x + i + in_low, int(n - in_low));
        _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v));
    }
}

// The rows of g in the device's scratch, as tiles.
inline const char* rows_as_tiles(Runtime& runtime, const Linear& g) {
    const int64_t rows_each = rows_of_tile(g.rows), stride = rows_each * kTileRowBytes, block_bytes = tile_steps(g.k) * stride;
    const int64_t packed_bytes = ceil_div(g.rows, rows_each) * block_bytes, made_bytes = ceil_div(4 * g.k, 64) * 64;
    const int64_t num_chunks = g.rows * g.k <= kSmallPack ? 1 : smaller(g.rows, kPackChunks * runtime.pool.num_threads());
    char* const packed = static_cast<char*>(runtime.scratch.at_least(size_t(packed_bytes + num_chunks * made_bytes)));
    parallel(runtime.pool, num_chunks, [&](int64_t chunk) {
        auto* const made = reinterpret_cast<float*>(packed + packed_bytes + chunk * made_bytes);
        for (int64_t row = g.rows * chunk / num_chunks; row < g.rows * (chunk + 1) / num_chunks; ++row) {
            char* const to = packed + row / rows_each * block_bytes + row % rows_each * kTileRowBytes;
            round_to_tiles(input_row(g, row, made), g.k, to, stride);
        }
    });
    return packed;
}

// Sums on their way out: finish_row, or past the caches.
struct Finished {
    const float* acc;  // [rows][kPanel]
    const float* bias;
    float* out;
    int64_t stride, columns, rows;
    bool accumulate, streams;

    void write(int64_t row) const {
        const float* const from = acc + row * kPanel;
        float* const to = out + row * stride;
        if (!streams) return finish_row(from, bias, to, columns, accumulate);
        for (int64_t i = 0; i < kPanel; i += kLanes) stream(to + i, load(from + i));
    }
};

// What a pass over the k of a panel reads: one block of rows, or two.
struct TilePass {
    const char *a, *b;        // the first block; the panel
    int64_t stride, second;   // bytes of a block's step; from the first block to the second
    int64_t steps, left;      // steps; of the last one so many k count, 0: all
    Ahead ahead;
};

template <int kBlocks, int kColumns>
inline __attribute__((always_inline)) void tile_step(const char* a0, const char* a1, const char* b, Ahead& ahead) {
    _tile_loadd(6, b, 4 * kPanel);
    _tile_loadd(7, a0, kTileRowBytes);
    _tile_dpbf16ps(0, 7, 6);
    ahead.fetch();
    if constexpr (kBlocks == 2) {
        _tile_loadd(7, a1, kTileRowBytes);
        _tile_dpbf16ps(3, 7, 6);
        ahead.fetch();
    }
    if constexpr (kColumns > 1) {
        _tile_loadd(6, b + 64, 4 * kPanel);
        if constexpr (kBlocks == 2) {
            _tile_dpbf16ps(4, 7, 6);
            ahead.fetch();
            _tile_loadd(7, a0, kTileRowBytes);
        }
        _tile_dpbf16ps(1, 7, 6);
        ahead.fetch();
    }
    if constexpr (kColumns > 2) {
        _tile_loadd(6, b + 128, 4 * kPanel);
        _tile_dpbf16ps(2, 7, 6);
        ahead.fetch();
        if constexpr (kBlocks == 2) {
            _tile_loadd(7, a1, kTileRowBytes);
            _tile_dpbf16ps(5, 7, 6);
            ahead.fetch();
        }
    }
}

// acc[16 kBlocks][kPanel] = all k of the pass, kColumns vectors of columns.
template <int kBlocks, int kColumns>
void tile_pass(const TilePass& p, const Finished& before, float* acc) {
    const int64_t rows_a_step = ceil_div(before.rows, p.steps > 0 ? p.steps : 1);
    int64_t written = 0;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    const char *a0 = p.a, *a1 = p.a + p.second, *b = p.b;
    Ahead ahead = p.ahead;
    Awake awake;
    for (int64_t i = 0; i < p.steps; ++i, a0 += p.stride, a1 += p.stride, b += kTileStep) {
        tile_step<kBlocks, kColumns>(a0, a1, b, ahead);
        if (i % kAwakeSteps == kAwakeSteps - 1) awake.keep<6>();
        for (const int64_t end = smaller(written + rows_a_step, before.rows); written < end; ++written) before.write(written);
    }
    for (; written < before.rows; ++written) before.write(written);
    if (p.left > 0) {
        alignas(64) char last[kTileStep] = {};
        memcpy(last, b, size_t(4 * kPanel * ceil_div(p.left, 2)));
        tile_step<kBlocks, kColumns>(a0, a1, last, ahead);
    }
    constexpr int64_t kSecond = kTileRows16 * kPanel;
    _tile_stored(0, acc, 4 * kPanel);
    if constexpr (kColumns > 1) _tile_stored(1, acc + 16, 4 * kPanel);
    if constexpr (kColumns > 2) _tile_stored(2, acc + 32, 4 * kPanel);
    if constexpr (kBlocks == 2) {
        _tile_stored(3, acc + kSecond, 4 * kPanel);
        if constexpr (kColumns > 1) _tile_stored(4, acc + kSecond + 16, 4 * kPanel);
        if constexpr (kColumns > 2) _tile_stored(5, acc + kSecond + 32, 4 * kPanel);
    }
}

template <int kBlocks>
void tile_columns(const TilePass& p, int64_t columns, const Finished& before, float* acc) {
    if (columns <= 16) tile_pass<kBlocks, 1>(p, before, acc);
    else if (columns <= 32) tile_pass<kBlocks, 2>(p, before, acc);
    else tile_pass<kBlocks, 3>(p, before, acc);
}

// Sums of a pass, and those of the pass before, which are written meanwhile.
struct Sums {
    alignas(64) float acc[2][kPair * kPanel];
    Finished before;
    int now;
};

// What pass `pass` of `passes` over a panel fetches: the only one what it reads soon, others a part of the next panel, until it is there.
inline Ahead ahead_of(const char* panel, int64_t panel_bytes, int64_t pass, int64_t passes, int64_t steps, int64_t products) {
    const int64_t lines = ceil_div(kTileStep / 64, passes * products), at = pass * steps * products * lines * 64;
    if (passes == 1) return {panel + kBytesAhead, int(lines)};
    return {panel + panel_bytes + at, at < panel_bytes ? int(lines) : 0};
}

// Rows [first, first + rows) of one panel. first is a multiple of 16.
inline void tile_task(const Linear& g, const char* packed, int64_t panel, int64_t first, int64_t rows, Sums& sums) {
    const int64_t rows_each = rows_of_tile(g.rows), stride = rows_each * kTileRowBytes, block_bytes = tile_steps(g.k) * stride;
    const int64_t panel_bytes = ceil_div(g.k, 2) * 4 * kPanel, column = panel * kPanel, columns = smaller(kPanel, g.n - column);
    const char* const b = static_cast<const char*>(g.weight) + panel * panel_bytes;
    const float* const bias = g.bias ? g.bias + column : nullptr;
    const bool streams = past_caches(g, panel);
    const int64_t passes = ceil_div(rows, kPair), steps = g.k / kTileK;
    for (int64_t row = 0; row < rows; row += kPair) {
        const int64_t in_pass = smaller(rows - row, kPair), products = ceil_div(in_pass, kTileRows16) * ceil_div(columns, 16);
        const TilePass pass{packed + (first + row) / rows_each * block_bytes, b, stride, block_bytes, steps, g.k % kTileK,
                            ahead_of(b, panel_bytes, row / kPair, passes, steps, products)};
        float* const acc = sums.acc[sums.now ^= 1];
        if (in_pass > kTileRows16) tile_columns<2>(pass, columns, sums.before, acc);
        else tile_columns<1>(pass, columns, sums.before, acc);
        sums.before = {acc, bias, g.out + (first + row) * g.n + column, g.n, columns, in_pass, g.accumulate, streams};
    }
}

inline TileConfig tiles_of(int64_t rows) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.shape(tile, tile == 6 ? 16 : int(rows_of_tile(rows)), 64);
    return config;
}

inline void linear_tiles(Runtime& runtime, const Linear& g) {
    if (g.rows == 0 || g.n == 0) return;
    const char* const packed = rows_as_tiles(runtime, g);
    const int64_t panels = ceil_div(g.n, kPanel), panel_bytes = ceil_div(g.k, 2) * 4 * kPanel;
    const int64_t most_rows = kInL2 / (tile_steps(g.k) * kTileRowBytes) / kPair * kPair;
    const int64_t row_tasks = ceil_div(g.rows, most_rows < 2 * kPair ? 2 * kPair : most_rows);
    const int64_t rows_each = ceil_div(ceil_div(g.rows, row_tasks), kPair) * kPair;
    const int64_t panels_each = row_tasks == 1 ? panels_of_chunk(panels, panel_bytes, runtime.pool.num_threads()) : 1;
    const int64_t panel_chunks = ceil_div(panels, panels_each);
    const TileConfig config = tiles_of(g.rows);
    parallel(runtime.pool, panel_chunks * row_tasks, [&](int64_t chunk) {
        const int64_t first = chunk / panel_chunks * rows_each, begin = chunk % panel_chunks * panels_each;
        Sums sums;
        sums.now = 0;
        sums.before.rows = 0;
        begin_tiles(config);
        for (int64_t panel = begin; panel < smaller(begin + panels_each, panels); ++panel) {
            if (first < g.rows) tile_task(g, packed, panel, first, smaller(rows_each, g.rows - first), sums);
        }
        end_tiles();
        for (int64_t row = 0; row < sums.before.rows; ++row) sums.before.write(row);
    });
}

}  // namespace
}  // namespace quire::QUIRE_ISA

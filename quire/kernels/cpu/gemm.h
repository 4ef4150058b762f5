// The matrix product that gemm_bf16.cpp and gemm_f32.cpp share: out[t, n] = sum_k x[t, k] * w[n, k] (+ bias[n]) (+ out[t, n]).
//
// Layout: weights in panels of 48 columns, [N/48][steps][48][kDepth] (pack.h); a step is kDepth successive k. Rows of x are rounded
// and interleaved in blocks of up to kRows rows, [rows/kRows][steps][rows][kDepth], in the device's scratch.
// Order: one accumulator per output, k ascending, whatever the number of rows; the block of k that stays in cache (kSteps)
// spills and reloads it, which is exact. Then + bias, then + the old value. Work is split over panels and blocks of rows only.
// Rows may be normalised or gated on their way in (linear_input.h): a thread makes one, then rounds it while it is in its cache.
// Knows: a Product (how one step multiplies), panels. Does not know: Python, types of models.
#pragma once
#include "gemm_pack.h"
#include "simd.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kSteps = 256;     // steps of a cache block: 48 KiB of weights, from L2 again for every block of rows
constexpr int64_t kTaskRows = 64;   // rows of a task: 12 KiB of accumulators on the stack
constexpr int64_t kStepBytes = 192;  // of weights, in both formats: three cache lines
constexpr int64_t kOwnPace = 3;     // up to here a single block of rows leaves fetching to the processor
constexpr int64_t kFewRows = 5;     // up to here it only waits for memory
constexpr int64_t kAhead = 32;      // and prefetches this many steps ahead of itself, into L1

// acc[R][V vectors] (+)= a[steps][R][kDepth] * w[steps][V vectors of a panel][kDepth]; prefetches kLines lines a step from `ahead`.
template <class P, int R, int V, int kLines>
void tile(const typename P::A* a, const typename P::W* w, int64_t steps, float* acc, bool resume, const char* ahead) {
    Vec c[R][V];
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) c[r][v] = resume ? load(acc + r * kPanel + v * kLanes) : zero();
    }
    for (int64_t s = 0; s < steps; ++s, w += kPanel * P::kDepth, a += R * P::kDepth, ahead += 64 * kLines) {
        typename P::Weights b[V];
        for (int v = 0; v < V; ++v) b[v] = P::weights(w + v * kLanes * P::kDepth);
        for (int line = 0; line < kLines; ++line) {
            if constexpr (kLines == 3 && R <= kFewRows) prefetch(ahead + 64 * line);
            else prefetch_l2(ahead + 64 * line);
        }
        for (int r = 0; r < R; ++r) {
            const typename P::Value x = P::value(a + r * P::kDepth);
            for (int v = 0; v < V; ++v) c[r][v] = P::madd(c[r][v], x, b[v]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) store(acc + r * kPanel + v * kLanes, c[r][v]);
    }
}

// What a block of rows does for one cache block of a panel.
template <class P>
struct Pass {
    const typename P::A* a;
    const typename P::W* w;
    int64_t steps;
    float* acc;
    bool resume;        // acc holds the sums of the steps before
    int lines;          // to prefetch per step
    const char* ahead;  // from here
    int64_t columns;    // of the panel that exist
};

// Groups of columns that R rows take a panel in: as many columns at a time as the registers hold.
template <class P>
constexpr int64_t groups(int64_t rows) {
    return kPanel / (P::vectors(int(rows)) * kLanes);
}

// R rows against a panel. The lines to prefetch per step are spread over the groups. Vectors of columns that do not exist are not
// computed; for fewer rows than a full block, which wait for memory anyway, whole groups of them only.
template <class P, int R>
void block(const Pass<P>& p) {
    constexpr int V = P::vectors(R);
    constexpr int64_t kGroups = groups<P>(R);
    if constexpr (R == P::kRows && V == 3) {
        if (p.columns <= kLanes) return tile<P, R, 1, 0>(p.a, p.w, p.steps, p.acc, p.resume, nullptr);
        if (p.columns <= 2 * kLanes) return tile<P, R, 2, 0>(p.a, p.w, p.steps, p.acc, p.resume, nullptr);
    }
    const char* ahead = p.ahead;
    int left = p.lines;
    for (int64_t i = 0; i < kGroups && i * V * kLanes < p.columns; ++i) {
        const int64_t column = i * V * kLanes;
        const typename P::W* group = p.w + column * P::kDepth;
        const int lines = int(ceil_div(left, kGroups - i));
        switch (lines) {
            case 0: tile<P, R, V, 0>(p.a, group, p.steps, p.acc + column, p.resume, ahead); break;
            case 1: tile<P, R, V, 1>(p.a, group, p.steps, p.acc + column, p.resume, ahead); break;
            case 2: tile<P, R, V, 2>(p.a, group, p.steps, p.acc + column, p.resume, ahead); break;
            default: tile<P, R, V, 3>(p.a, group, p.steps, p.acc + column, p.resume, ahead); break;
        }
        left -= lines;
        ahead += 64 * lines * p.steps;
    }
}

template <class P>
void any_block(int64_t rows, const Pass<P>& pass) {
    switch (rows) {
        case 1: return block<P, 1>(pass);
        case 2: return block<P, 2>(pass);
        case 3: return block<P, 3>(pass);
        case 4: return block<P, 4>(pass);
    }
    if constexpr (P::kRows == 8) {
        switch (rows) {
            case 5: return block<P, 5>(pass);
            case 6: return block<P, 6>(pass);
            case 7: return block<P, 7>(pass);
            case 8: return block<P, 8>(pass);
        }
    }
}

// What a task works on: rows of one panel.
template <class P>
struct Task {
    const typename P::A* a;
    const typename P::W* w;
    int64_t rows, steps, columns;
};

// Adds one cache block of a panel to the sums of all rows of a task. Weights come from DRAM once. One to three rows are so little
// work that the processor reads ahead by itself, at its full rate; up to five fetch kAhead steps ahead of themselves; of more,
// the first tiles fetch the next cache block into L2 while they compute on this one. (Panels of a thread lie one behind the
// other, so the next cache block is what follows in memory; behind the last one it is of no use.)
template <class P>
void cache_block(const Task<P>& t, int64_t begin, float* acc) {
    const int64_t steps = smaller(kSteps, t.steps - begin), blocks = ceil_div(t.rows, P::kRows);
    const auto* w = t.w + begin * kPanel * P::kDepth;
    const bool near = t.rows <= kFewRows && blocks == 1 && groups<P>(t.rows) == 1;
    const char* ahead = reinterpret_cast<const char*>(w) + kStepBytes * (near ? kAhead : steps);
    for (int64_t i = 0; i < blocks; ++i) {
        const int64_t first = i * P::kRows, in_block = smaller(P::kRows, t.rows - first);
        const int lines = near && t.rows <= kOwnPace ? 0 : blocks == 1 ? 3 : blocks == 2 ? 2 - int(i) : i < 3 ? 1 : 0;
        const auto* a = t.a + (first * t.steps + begin * in_block) * P::kDepth;
        any_block<P>(in_block, {a, w, steps, acc + first * kPanel, begin > 0, lines, ahead, t.columns});
        ahead += 64 * lines * steps;
    }
}

// out = acc (+ bias) (+ old out), for the `columns` of this panel that exist.
inline void finish_row(const float* acc, const float* bias, float* out, int64_t columns, bool accumulate) {
    for (int64_t i = 0; i < columns; i += kLanes) {
        const int n = int(smaller(columns - i, kLanes));
        Vec sum = load(acc + i);
        if (bias) sum = add(sum, load_n(bias + i, n));
        if (accumulate) sum = add(sum, load_n(out + i, n));
        store_n(out + i, sum, n);
    }
}

// Rows [first, first + rows) of one panel.
template <class P>
void task(const Linear& g, const typename P::A* a_packed, int64_t panel, int64_t first, int64_t rows) {
    alignas(64) float acc[kTaskRows * kPanel];
    const int64_t steps = ceil_div(g.k, P::kDepth);
    const auto* w = static_cast<const typename P::W*>(g.weight) + panel * steps * kPanel * P::kDepth;
    const int64_t column = panel * kPanel, columns = smaller(kPanel, g.n - column);
    const Task<P> t{a_packed + first * steps * P::kDepth, w, rows, steps, columns};
    for (int64_t s = 0; s < steps; s += kSteps) cache_block<P>(t, s, acc);
    for (int64_t r = 0; r < rows; ++r) {
        finish_row(acc + r * kPanel, g.bias ? g.bias + column : nullptr, g.out + (first + r) * g.n + column, columns,
                   g.accumulate);
    }
}

template <class P>
void linear(Runtime& runtime, const Linear& g) {
    if (g.rows == 0 || g.n == 0) return;
    const int64_t panels = ceil_div(g.n, kPanel);
    const typename P::A* a = packed_rows<P>(runtime, g);
    const int64_t row_tasks = ceil_div(g.rows, kTaskRows);
    const int64_t panel_bytes = ceil_div(g.k, P::kDepth) * kStepBytes;
    const int64_t panels_per_chunk = row_tasks == 1 ? panels_of_chunk(panels, panel_bytes, runtime.pool.num_threads()) : 1;
    const int64_t panel_chunks = ceil_div(panels, panels_per_chunk);
    parallel(runtime.pool, panel_chunks * row_tasks, [&](int64_t chunk) {
        const int64_t begin = chunk / row_tasks * panels_per_chunk, first = chunk % row_tasks * kTaskRows;
        const int64_t end = smaller(begin + panels_per_chunk, panels);
        for (int64_t panel = begin; panel < end; ++panel) task<P>(g, a, panel, first, smaller(kTaskRows, g.rows - first));
    });
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// linear with quantized weights and many rows on AMX: rounding the rows, splitting the work. Tiles and order: qtiles.h.
// Knows: a Linear. Does not know: instructions.
#pragma once
#include "linear_input.h"
#include "qtiles.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kFewestTiledRows = 9;  // up to eight rows wait for memory, and a tile has sixteen

// Where blocks of 16 rows lie: those of a task one behind the other for each group of inputs, in the order in which the task reads them.
struct TiledRows {
    int64_t rows, group_bytes, groups;

    TiledRows(const QFormat& format, int64_t rows)
        : rows(rows), group_bytes(tiled_group_bytes(q_section(format))), groups(ceil_div(format.k, kInputGroup)) {}
    int64_t bytes() const { return ceil_div(rows, kTileRows16) * groups * group_bytes; }
    // Of row `row`'s block: its first group, and the way from group to group.
    int64_t begin(int64_t row) const {
        const int64_t task = row / kTiledRows * kTiledRows;
        return task / kTileRows16 * groups * group_bytes + (row - task) / kTileRows16 * group_bytes;
    }
    int64_t stride(int64_t row) const {
        return ceil_div(smaller(kTiledRows, rows - row / kTiledRows * kTiledRows), kTileRows16) * group_bytes;
    }
};

inline int64_t tiled_bytes(const QFormat& format, int64_t rows) { return TiledRows(format, rows).bytes(); }

// R rows of g from `row` on, which stand in one block.
template <int R>
void tile_rows(const Linear& g, const QFormat& format, int64_t row, char* block, int64_t stride) {
    const int64_t section = q_section(format);
    alignas(64) float made[R * kInputGroup];
    float scales[R];
    const float* x[R];
    for (int r = 0; r < R; ++r) scales[r] = row_scale(g, row + r);
    for (int64_t k = 0; k < g.k; k += kInputGroup, block += stride) {
        const int64_t length = smaller(g.k - k, kInputGroup);
        const TiledRow to = tiled_row(block, row % kTileRows16);
        for (int r = 0; r < R; ++r) x[r] = input_part(g, row + r, scales[r], k, length, made + r * kInputGroup);
        if (length == kInputGroup) {
            tile_groups<R>(format, section, x, to);
        } else {
            for (int r = 0; r < R; ++r) tile_part(format, section, x[r], length, tiled_row(block, row % kTileRows16 + r));
        }
    }
}

inline void rows_to_tiles(Runtime& runtime, const Linear& g, const QFormat& format, char* scratch) {
    constexpr int64_t kFour = 4;
    const int64_t fours = ceil_div(g.rows, kFour), most = kPackChunks * runtime.pool.num_threads();
    const int64_t num_chunks = g.rows * g.k <= kSmallPack ? 1 : smaller(fours, most);
    const TiledRows layout(format, g.rows);
    parallel(runtime.pool, num_chunks, [&](int64_t chunk) {
        for (int64_t i = fours * chunk / num_chunks; i < fours * (chunk + 1) / num_chunks; ++i) {
            const int64_t first = i * kFour, end = smaller(first + kFour, g.rows);
            char* const block = scratch + layout.begin(first);
            if (end - first == kFour) tile_rows<4>(g, format, first, block, layout.stride(first));
            else for (int64_t row = first; row < end; ++row) tile_rows<1>(g, format, row, block, layout.stride(first));
        }
    });
}

// Rows [first, first + rows) of one panel.
template <class P>
void tiled_panel(const Linear& g, const QFormat& format, const char* a, int64_t panel, int64_t first, int64_t rows) {
    alignas(64) float acc[kTiledRows * kPanel];
    const int64_t column = panel * kPanel, panel_bytes = q_panel_bytes(format);
    const uint8_t* const w = static_cast<const uint8_t*>(g.weight) + panel * panel_bytes;
    const int64_t shares = ceil_div(g.rows, kTiledRows), share = panel_bytes / shares / 64 * 64;
    const char* const ahead = reinterpret_cast<const char*>(w) + panel_bytes + first / kTiledRows * share;
    const QOut out{g.out + first * g.n + column, g.n, smaller(kPanel, g.n - column),
                   reinterpret_cast<const uint16_t*>(w + q_scales_at(format, 0)), g.bias ? g.bias + column : nullptr, g.accumulate};
    for (int64_t r = 0; r < rows; ++r) fetch_outs<1>({out.to + r * out.stride, out.stride, out.columns, nullptr, nullptr, false});
    any_tiled_task<P>({format, q_section(format), a + TiledRows(format, g.rows).begin(first), w, rows, acc, ahead, shares});
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < out.columns; i += kLanes) {
            write_out<P>(out, load(acc + r * kPanel + i), out.to + r * out.stride + i, i, int(smaller(out.columns - i, kLanes)));
        }
    }
}

// As q_linear (qlinear.h), with tiled_bytes of scratch.
template <class P, class Made>
void q_linear_tiles(Runtime& runtime, const Linear& g, char* scratch, const Made& made) {
    const QFormat format{g.k, P::kBits, g.group, g.symmetric};
    rows_to_tiles(runtime, g, format, scratch);
    const int64_t panels = ceil_div(g.n, kPanel), row_tasks = ceil_div(g.rows, kTiledRows);
    const int64_t panels_each = row_tasks == 1 ? panels_of_chunk(panels, q_panel_bytes(format), runtime.pool.num_threads()) : 1;
    const int64_t panel_chunks = ceil_div(panels, panels_each);
    const TileConfig config = byte_tiles(q_section(format), g.rows);
    parallel(runtime.pool, panel_chunks * row_tasks, [&](int64_t chunk) {
        const int64_t begin = chunk / row_tasks * panels_each, first = chunk % row_tasks * kTiledRows;
        const int64_t rows = smaller(kTiledRows, g.rows - first);
        begin_tiles(config);
        for (int64_t panel = begin; panel < smaller(begin + panels_each, panels); ++panel) {
            tiled_panel<P>(g, format, scratch, panel, first, rows);
            made(panel, first, rows);
        }
        end_tiles();
    });
}

}  // namespace
}  // namespace quire::QUIRE_ISA

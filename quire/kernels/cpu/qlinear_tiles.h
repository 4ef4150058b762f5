// linear with quantized weights and many rows on AMX: rounding the rows, splitting the work. Tiles and order: qtiles.h.
// Knows: a Linear. Does not know: instructions.
#pragma once
#include "linear_input.h"
#include "qtiles.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kRowsInL2 = 3 << 18;        // bytes of rounded rows that a chunk keeps there: of 2 MiB, beside weights and outputs
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

// Where rows [first, first + rows) of a panel go.
inline QOut out_of(const Linear& g, const QFormat& format, int64_t panel, int64_t first) {
    const int64_t column = panel * kPanel;
    const uint8_t* const w = static_cast<const uint8_t*>(g.weight) + panel * q_panel_bytes(format);
    return {g.out + first * g.n + column, g.n, smaller(kPanel, g.n - column),
            reinterpret_cast<const uint16_t*>(w + q_scales_at(format, 0)), g.bias ? g.bias + column : nullptr, g.accumulate};
}

// How the work is split: chunks of panels and rows, those of the same rows one behind the other, so that a thread finds its rows in L2.
// Within a chunk tasks go by panels, then by kTiledRows rows.
struct TiledSplit {
    int64_t rows, panels, rows_each, panels_each;

    TiledSplit(const Linear& g, const QFormat& format, int64_t num_threads) : rows(g.rows), panels(ceil_div(g.n, kPanel)) {
        const int64_t row_bytes = ceil_div(tiled_bytes(format, kTiledRows), kTiledRows), some = kRowsInL2 / row_bytes;
        const int64_t fit = some > kTiledRows ? some : kTiledRows;
        rows_each = ceil_div(ceil_div(rows, ceil_div(rows, fit)), kTiledRows) * kTiledRows;
        panels_each = rows > kTiledRows ? 1 : panels_of_chunk(panels, q_panel_bytes(format), num_threads);
    }
    int64_t panel_chunks() const { return ceil_div(panels, panels_each); }
    int64_t num_chunks() const { return ceil_div(rows, rows_each) * panel_chunks(); }
};

// One of its tasks.
struct TiledPlace {
    int64_t panel, first, rows;  // rows [first, first + rows)
    int64_t share, num_shares;   // what it fetches of the panel that follows; alone on its panel, what it reads soon
};

// Calls f(place) for each task of a chunk.
template <class F>
void each_place(const TiledSplit& split, int64_t chunk, const F& f) {
    const int64_t begin = chunk % split.panel_chunks() * split.panels_each, first = chunk / split.panel_chunks() * split.rows_each;
    const int64_t end = smaller(first + split.rows_each, split.rows), num_shares = ceil_div(end - first, kTiledRows);
    for (int64_t panel = begin; panel < smaller(begin + split.panels_each, split.panels); ++panel) {
        for (int64_t row = first; row < end; row += kTiledRows) {
            f(TiledPlace{panel, row, smaller(kTiledRows, end - row), (row - first) / kTiledRows, num_shares});
        }
    }
}

// A panel of int4 widened, for the tasks on it, where it fits.
template <class P>
struct Widened {
    static constexpr int64_t kMost = P::kBits == 4 ? 1 << 19 : 0;
    alignas(64) char bytes[kMost > 0 ? kMost : 64];

    char* of(const QFormat& format, const TiledPlace& at) {
        return at.num_shares > 1 && ceil_div(format.k, kInputGroup) * kInputGroup * kPanel <= kMost ? bytes : nullptr;
    }
};

// Sums of a task in acc; those of the task before are written meanwhile.
template <class P>
TiledOut<P> tiled_panel(const Linear& g, const QFormat& format, const char* a, const TiledPlace& at, float* acc, TiledOut<P>& before,
                        Widened<P>& widened) {
    const int64_t panel_bytes = q_panel_bytes(format), share = panel_bytes / at.num_shares / 64 * 64;
    const uint8_t* const w = static_cast<const uint8_t*>(g.weight) + at.panel * panel_bytes;
    const char* const ahead = reinterpret_cast<const char*>(w) + (at.num_shares == 1 ? kBytesAhead : panel_bytes + at.share * share);
    const TiledOut<P> out{acc, out_of(g, format, at.panel, at.first), at.rows, 0, past_caches(g, at.panel)};
    const char* const rows = a + TiledRows(format, g.rows).begin(at.first);
    char* const wide = widened.of(format, at);
    any_tiled_task<P>({format, q_section(format), rows, w, at.rows, acc, ahead, at.num_shares, out, before, wide, wide && at.share > 0});
    return out;
}

// As q_linear (qlinear.h), with tiled_bytes of scratch.
template <class P, class Made>
void q_linear_tiles(Runtime& runtime, const Linear& g, char* scratch, const Made& made) {
    const QFormat format{g.k, P::kBits, g.group, g.symmetric};
    rows_to_tiles(runtime, g, format, scratch);
    const TiledSplit split(g, format, runtime.pool.num_threads());
    const TileConfig config = byte_tiles(q_section(format), g.rows);
    parallel(runtime.pool, split.num_chunks(), [&](int64_t chunk) {
        alignas(64) float sums[2][kTiledRows * kPanel];
        Widened<P> widened;
        TiledOut<P> before{};
        TiledPlace last{};
        int now = 0;
        begin_tiles(config);
        each_place(split, chunk, [&](const TiledPlace& at) {
            before = tiled_panel<P>(g, format, scratch, at, sums[now ^= 1], before, widened);
            if (last.rows > 0) made(last.panel, last.first, last.rows);
            last = at;
        });
        end_tiles();
        before.write(last.rows);
        made(last.panel, last.first, last.rows);
    });
}

}  // namespace
}  // namespace quire::QUIRE_ISA

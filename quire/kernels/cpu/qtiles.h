// Products of many rows with int8 and int4 weights on AMX tiles: the operations of qgemm.h in their order, so the same bits.
//
// Integer sums of a section are exact in any order; tiles make them for 16 rows and 16 columns, and the scales are put on them by
// vectors. int8 lies in a panel as tiles want it (pack.h), three lines apart, unsigned; int4 is widened into a buffer, a group at a time in
// L1 for the only task on its panel, the whole panel in L2 for many; signed, so that its sums begin with zero.
// For each group of inputs, each 32 rows, each section: products into six tiles (0 to 5; 6 takes weights, 7 inputs), between them the
// scales of the section before, which the processor does meanwhile. Sums in float32 are in L1: kTiledRows rows by a panel.
// Versions tried, one core of a 3.3 GHz Xeon, 512 rows, 1024 -> 4096, int8 per channel: one 16 x 16 tile at a time 1.3 TOP/s, without
// any scales 1.5 (a tile that is cleared waits for its last product: 140 cycles for 32 of multiplying).
// Knows: tiles, panels, one task. Does not know: how tasks are split (qlinear.h).
#pragma once
#include "qgemm.h"
#include "qtiles_input.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kTiledRows = 64;  // of a task

// Sums of rows of one panel, [rows][kPanel], on their way out.
template <class P>
struct TiledOut {
    const float* acc;
    QOut out;
    int64_t rows, written;
    bool streams;  // past the caches

    // `count` rows more, if there are so many.
    void write(int64_t count) {
        for (const int64_t end = smaller(written + count, rows); written < end; ++written) {
            const float* const from = acc + written * kPanel;
            float* const to = out.to + written * out.stride;
            if (streams) {
                for (int64_t i = 0; i < kPanel; i += kLanes) stream(to + i, in_scale(load(from + i), i));
                continue;
            }
            for (int64_t i = 0; i < out.columns; i += kLanes) {
                write_out<P>(out, load(from + i), to + i, i, int(smaller(out.columns - i, kLanes)));
            }
        }
    }
    QOut row(int64_t r) const { return {out.to + r * out.stride, out.stride, out.columns, nullptr, nullptr, false}; }
    Vec in_scale(Vec sum, int64_t column) const {
        if constexpr (P::kScales == Scales::channel) return mul(sum, load_bf16(out.scales + column));
        return sum;
    }
};

// Rows of one panel.
template <class P>
struct TiledTask {
    const QFormat& format;
    int64_t section;
    const char* a;       // the inputs: for each group the blocks of 16 rows (qtiles_input.h)
    const uint8_t* w;    // the panel
    int64_t rows;
    float* acc;          // [rows][kPanel]
    const char* ahead;   // to be fetched meanwhile, and how many tasks share that
    int64_t num_shares;
    const TiledOut<P>& out;  // where these sums will go
    TiledOut<P>& before;     // sums to be written meanwhile
    char* wide;              // where int4 is kept widened for the tasks of a panel, a group behind the other; null: nowhere
    bool widened;            // it is there
};

constexpr int64_t kPairRows = 2 * kTileRows16;

// How deep a tile is: a section of 32 is half a tile.
template <int kSections>
constexpr int64_t kDeep = kSections == 4 ? 32 : 64;

inline TileConfig byte_tiles(int64_t section, int64_t rows) {
    TileConfig config;
    const int deep = section == 32 ? 32 : 64, num_rows = int(smaller(rows, kTileRows16));
    for (int tile = 0; tile < 6; ++tile) config.shape(tile, num_rows, 64);
    config.shape(6, deep / 4, 64);
    config.shape(7, num_rows, deep);
    return config;
}

// Integer sums of a section for one or two blocks of rows, and what becomes of them.
struct SectionEnd {
    alignas(64) int32_t sums[kPairRows * kPanel];
    const char* group;      // of the first block: behind its tiles stand scales and starts
    int64_t block_bytes;
    const uint8_t* scales;  // of the section
    float *f, *acc;         // [rows][kPanel]
    int section, rows;
    bool first, last;       // of its group

    const float* x_scales(int64_t row) const {  // of the block that begins with this row
        return reinterpret_cast<const float*>(group + row / kTileRows16 * block_bytes + kTiledGroup);
    }
};

// The scales of a section, put on a row at a time. `kStart`: sums begin with what stands in the rows' sums.
template <class P, int kSections, bool kStart>
struct Scaling {
    static constexpr bool kWhole = kSections == 1;
    const int32_t* sums;
    const float *x_scales, *starts;  // of the first block
    int64_t block_bytes;
    float *f, *acc;
    bool first, last;
    Vec scale[3], offset[3];

    inline __attribute__((always_inline)) explicit Scaling(const SectionEnd& end)
        : sums(end.sums), x_scales(end.x_scales(0)), starts(x_scales + 16 * (1 + (kWhole ? 0 : end.section))), block_bytes(end.block_bytes),
          f(end.f), acc(end.acc), first(end.first), last(end.last) {
        if constexpr (P::kScales == Scales::channel) return;
        for (int v = 0; v < 3; ++v) {
            const auto* at = reinterpret_cast<const uint16_t*>(end.scales) + kLanes * v;
            scale[v] = load_bf16(at);
            if constexpr (P::kScales == Scales::offset) offset[v] = load_bf16(at + kPanel);
        }
    }

    // What a row has in `of` (x_scales or starts).
    inline __attribute__((always_inline)) Vec of_row(const float* of, int row) const {
        const char* const block = reinterpret_cast<const char*>(of) + (row < kTileRows16 ? 0 : block_bytes);
        return set1(reinterpret_cast<const float*>(block)[row % kTileRows16]);
    }

    inline __attribute__((always_inline)) void put(int row) const {
        const Vec x_scale = of_row(x_scales, row), start = kStart || P::kScales == Scales::offset ? of_row(starts, row) : zero();
        float *const to = acc + row * kPanel, *const within = kWhole ? to : f + row * kPanel;
#pragma GCC unroll 3
        for (int v = 0; v < 3; ++v) {
            Ints sum = {_mm512_load_si512(sums + row * kPanel + kLanes * v)};
            if constexpr (kStart) sum.v = _mm512_add_epi32(sum.v, _mm512_castps_si512(start.v));
            Vec value = as_float(sum);
            if constexpr (P::kScales != Scales::channel) {
                value = kWhole ? mul(value, scale[v]) : fma(value, scale[v], first ? zero() : load(within + kLanes * v));
            }
            if constexpr (P::kScales == Scales::offset) value = fma(offset[v], start, value);
            if (kWhole || last) store(to + kLanes * v, fma(value, x_scale, load(to + kLanes * v)));
            else store(within + kLanes * v, value);
        }
    }

    // Rows of share kShare of kShares of two blocks.
    template <int kShare, int kShares>
    inline __attribute__((always_inline)) void share() const {
#pragma GCC unroll 8
        for (int row = kShare * kPairRows / kShares; row < (kShare + 1) * kPairRows / kShares; ++row) put(row);
    }
};

template <class P, int kSections, bool kStart>
inline void put_scales(const SectionEnd& end) {
    if (end.rows == 0) return;
    const Scaling<P, kSections, kStart> scaling(end);
    for (int row = 0; row < end.rows; ++row) scaling.put(row);
}

// Nothing to do meanwhile.
struct Idle {
    template <int kShare, int kShares>
    inline __attribute__((always_inline)) void share() const {}
};

// One step of 64 or 32 inputs for one or two blocks of rows. Behind each product a share of `meanwhile`, from kShare on of kShares: a core
// looks no further ahead than some four products (75 cycles), and what stands behind all of them waits for all of them.
template <bool kTwo, bool kSigned, int kShare, int kShares, class Meanwhile>
inline __attribute__((always_inline)) void step_of_bytes(const char* a0, const char* a1, const char* b, Ahead& ahead, const Meanwhile& meanwhile) {
    load_tile<6>(b, 4 * kPanel);
    load_tile<7>(a0, kTileRowBytes);
    multiply_bytes<0, 7, 6, kSigned>();
    ahead.fetch();
    meanwhile.template share<kShare, kShares>();
    if constexpr (kTwo) {
        load_tile<7>(a1, kTileRowBytes);
        multiply_bytes<3, 7, 6, kSigned>();
        ahead.fetch();
        meanwhile.template share<kShare + 1, kShares>();
    }
    load_tile<6>(b + 64, 4 * kPanel);
    if constexpr (kTwo) {
        multiply_bytes<4, 7, 6, kSigned>();
        ahead.fetch();
        meanwhile.template share<kShare + 2, kShares>();
        load_tile<7>(a0, kTileRowBytes);
    }
    multiply_bytes<1, 7, 6, kSigned>();
    ahead.fetch();
    meanwhile.template share<kShare + 3, kShares>();
    load_tile<6>(b + 128, 4 * kPanel);
    multiply_bytes<2, 7, 6, kSigned>();
    ahead.fetch();
    meanwhile.template share<kShare + 4, kShares>();
    if constexpr (kTwo) {
        load_tile<7>(a1, kTileRowBytes);
        multiply_bytes<5, 7, 6, kSigned>();
        ahead.fetch();
        meanwhile.template share<kShare + 5, kShares>();
    }
}

// Products of a section, into tiles: `a` are its inputs in the group of the first block.
template <int kSections, bool kTwo, bool kSigned, class Meanwhile>
inline __attribute__((always_inline)) void sum_section(const char* a, int64_t block_bytes, const char* b, Ahead& ahead, const Meanwhile& meanwhile) {
    constexpr int kSteps = int(kInputGroup / kSections / kDeep<kSections>), kShares = 6 * kSteps;
    static_assert(kSteps == 1 || kSteps == 2);
    clear_tile<0>();
    clear_tile<1>();
    clear_tile<2>();
    if constexpr (kTwo) {
        clear_tile<3>();
        clear_tile<4>();
        clear_tile<5>();
    }
    step_of_bytes<kTwo, kSigned, 0, kShares>(a, a + block_bytes, b, ahead, meanwhile);
    if constexpr (kSteps == 2) {
        a += kTileBytes;
        step_of_bytes<kTwo, kSigned, 6, kShares>(a, a + block_bytes, b + kDeep<kSections> * kPanel, ahead, meanwhile);
    }
}

template <bool kTwo>
inline __attribute__((always_inline)) void store_section(int32_t* sums) {
    constexpr int64_t kSecond = kTileRows16 * kPanel;
    store_tile<0>(sums, 4 * kPanel);
    if constexpr (kTwo) store_tile<3>(sums + kSecond, 4 * kPanel);
    store_tile<1>(sums + 16, 4 * kPanel);
    if constexpr (kTwo) store_tile<4>(sums + kSecond + 16, 4 * kPanel);
    store_tile<2>(sums + 32, 4 * kPanel);
    if constexpr (kTwo) store_tile<5>(sums + kSecond + 32, 4 * kPanel);
}

// A group of a panel as bytes, [k/4][48][4]: int8 as it lies, if it is whole; else in `buffer`, zeros behind the last input.
template <class P>
inline const char* bytes_of_group(const uint8_t* w, int64_t length, bool symmetric, char* buffer) {
    const int64_t steps = q_padded(length) / (4 * P::kQuads);
    if constexpr (P::kBits == 8) {
        if (length == kInputGroup) return reinterpret_cast<const char*>(w);
        memcpy(buffer, w, size_t(steps * kQStepBytes));
    } else {
        const __m512i zero_point = _mm512_set1_epi8(symmetric ? 8 : 0);
        for (int64_t i = 0; i < steps; ++i) {
            for (int v = 0; v < 3; ++v) {
                const uint8_t* from = w + i * kQStepBytes + 64 * v;
                char* const to = buffer + 2 * i * kQStepBytes + 64 * v;
                _mm512_store_si512(to, _mm512_sub_epi8(low_nibbles(from).v, zero_point));
                _mm512_store_si512(to + kQStepBytes, _mm512_sub_epi8(high_nibbles(from).v, zero_point));
            }
        }
    }
    memset(buffer + steps * P::kQuads * kQStepBytes, 0, size_t((kInputGroup / 4 - steps * P::kQuads) * kQStepBytes));
    return buffer;
}

// A group of inputs of a task.
struct TiledGroup {
    const char *a, *b;      // inputs of the first block, weights as bytes
    const uint8_t* scales;  // of the first section
    int num_sections;
    int64_t rows;           // to be written with each section, and to be fetched for writing
    int64_t wanted;         // from here on
};

// Adds it to the sums of all rows. Two ends, in turn: of the section before, scales are put on while this one is multiplied, and before
// its tiles are stored: what is loaded behind a tile's store waits for the tile.
template <class P, int kSections>
void tiled_group(const TiledTask<P>& t, const TiledGroup& g, Ahead& to_fetch, SectionEnd (&ends)[2], int& now, float* f) {
    constexpr bool kSigned = P::kBits == 4, kStart = P::kBits == 8;
    constexpr int64_t kInputs = kInputGroup / kSections;
    const int64_t block_bytes = tiled_group_bytes(t.section);
    const char* a = g.a;
    Ahead ahead = to_fetch;
    int64_t wanted = g.wanted;
    const int64_t num_wanted = t.out.streams ? 0 : t.rows;
    for (int64_t row = 0; row < t.rows; row += kPairRows, a += 2 * block_bytes) {
        for (int s = 0; s < g.num_sections; ++s, now ^= 1) {
            SectionEnd &end = ends[now], &before = ends[now ^ 1];
            t.before.write(g.rows);
            for (const int64_t end = smaller(wanted + g.rows, num_wanted); wanted < end; ++wanted) fetch_outs<1>(t.out.row(wanted));
            const char* const inputs = a + s * kInputs / 64 * kTileBytes + s * kInputs % 64;
            const char* const b = g.b + s * kInputs * kPanel;
            const bool two = t.rows - row > kTileRows16;
            if (two && before.rows == kPairRows) {
                sum_section<kSections, true, kSigned>(inputs, block_bytes, b, ahead, Scaling<P, kSections, kStart>(before));
            } else {
                if (two) sum_section<kSections, true, kSigned>(inputs, block_bytes, b, ahead, Idle());
                else sum_section<kSections, false, kSigned>(inputs, block_bytes, b, ahead, Idle());
                put_scales<P, kSections, kStart>(before);
            }
            if (two) store_section<true>(end.sums);
            else store_section<false>(end.sums);
            end.group = a;
            end.block_bytes = block_bytes;
            end.scales = g.scales + s * P::kScaleBytes;
            end.f = f;
            end.acc = t.acc + row * kPanel;
            end.section = s;
            end.rows = int(smaller(t.rows - row, kPairRows));
            end.first = s == 0;
            end.last = s + 1 == g.num_sections;
        }
    }
    to_fetch = ahead;
}

// All inputs of a task.
template <class P, int kSections>
void tiled_task(const TiledTask<P>& t) {
    alignas(64) char buffer[kInputGroup * kPanel];
    alignas(64) float f[kSections == 1 ? 1 : kPairRows * kPanel];
    SectionEnd ends[2];
    ends[0].rows = ends[1].rows = 0;
    int now = 0;
    memset(t.acc, 0, size_t(t.rows * kPanel) * sizeof(float));
    const int64_t group_bytes = ceil_div(t.rows, kTileRows16) * tiled_group_bytes(t.section), passes = ceil_div(t.rows, kPairRows);
    const int64_t products = ceil_div(t.rows, kTileRows16) * 3 * (kInputGroup / kDeep<kSections>);  // of a group
    Ahead ahead{t.ahead, int(ceil_div(kInputGroup * kPanel * P::kBits / 8 / 64, products * t.num_shares))};
    const int64_t sections = ceil_div(t.format.k, t.section) * passes, rows = ceil_div(kTiledRows, sections);
    const char* a = t.a;
    int64_t wanted = 0;
    for (int64_t k = 0; k < t.format.k; k += kInputGroup, a += group_bytes) {
        const int64_t length = smaller(t.format.k - k, kInputGroup);
        const uint8_t* scales = P::kScales == Scales::channel ? t.w : t.w + q_scales_at(t.format, k);
        char* const to = t.wide ? t.wide + k * kPanel : buffer;
        const char* b = t.widened ? to : bytes_of_group<P>(t.w + q_weights_at(t.format, k), length, t.format.symmetric, to);
        const int num_sections = int(ceil_div(length, t.section));
        tiled_group<P, kSections>(t, {a, b, scales, num_sections, rows, wanted}, ahead, ends, now, f);
        wanted += num_sections * passes * rows;
    }
    t.before.write(kTiledRows);
    put_scales<P, kSections, P::kBits == 8>(ends[now ^ 1]);
}

template <class P>
void any_tiled_task(const TiledTask<P>& t) {
    if (t.section == kInputGroup) return tiled_task<P, 1>(t);
    if constexpr (P::kScales != Scales::channel) {
        if (t.section == 64) tiled_task<P, 2>(t);
        else tiled_task<P, 4>(t);
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// The matrix product of gemm_int8.cpp and gemm_int4.cpp: out[t, n] = sum_k x[t, k] * w[n, k] (+ bias[n]) (+ out[t, n]), with x rounded
// to int8 (qinput.h) and weights of 8 or 4 bits (qformat.h).
//
// Order, the same for every number of rows: within a section of k (a group of weights, at most kInputGroup) exact integers; then,
// sections ascending,
//     per channel     acc = fma(float(sum), scale_x, acc);  out = acc * scale_w
//     grouped         f = float(sum) * scale_w; of the later sections of a group of x f = fma(float(sum), scale_w, f);
//                     with offsets then f = fma(offset_w, sum of q_x, f);  after the group of x acc = fma(f, scale_x, acc)
// Two levels, so that groups of 32 cost one multiply-add and a quarter instead of two. Then + bias, then + the old value.
// Work is split over panels and blocks of rows only.
//
// Versions tried, avx512, one core of a 2.6 GHz AMD EPYC (Zen 4: one 512-bit vpdpbusd a cycle, 0.46 TOP/s), one block of rows on
// weights in L2, per cent of that peak:                   int8 per channel, groups of 128, of 32      int4 the same
//   8 x 48 tiles, float32 accumulators in memory                       90     85    65                 92     84    58
//   4 x 48 tiles, float32 accumulators in registers                    96     83    76                 96     93    78
//   and scales of a span together: no load across two lines            96     94    80                 96     93    80
// The scales of 8 x 3 sums are 72 instructions in a row that the next multiplies cannot pass; of 4 x 3, half of it, without stores.
// Knows: tiles, panels. Does not know: Python, how weights are chosen.
#pragma once
#include "gemm.h"
#include "qinput.h"

namespace quire::QUIRE_ISA {
namespace {

enum class Scales { channel, group, offset };

template <int kBitsOf, Scales kScalesOf>
struct Quantized {
    static constexpr int kBits = kBitsOf, kQuads = kBits == 8 ? 1 : 2;  // quads of k of a step of kQStepBytes
    static constexpr Scales kScales = kScalesOf;
    static constexpr int kRows = 4;
    static constexpr int vectors(int rows) { return kLanes == 16 || rows == 2 ? 3 : rows == 1 ? 6 : 2; }
    static constexpr int64_t kScaleBytes = kScales == Scales::channel ? 0 : kScales == Scales::group ? 2 * kPanel : 4 * kPanel;
};

// Outputs of a block of rows, in the columns of a panel.
struct QOut {
    float* to;               // of the first row
    int64_t stride, columns;  // floats from row to row; columns that exist
    const uint16_t* scales;  // [kPanel] bfloat16, of weights per channel
    const float* bias;       // [columns] or null
    bool accumulate;
};

// What a block of rows does for one cache block of a panel.
struct QPass {
    const char* a;        // the block of rows, from its first group on
    const uint8_t* w;     // the panel, likewise
    int64_t k, section;   // inputs from here on; inputs of a section
    float* acc;           // [rows][kPanel]: the sums of the blocks before, when there is one
    bool resume;          // there is one
    const QOut* out;      // where the last block leaves the outputs; null before, when acc takes the sums
    int64_t columns;      // of the panel that exist
    int lines;            // to prefetch per step
    int burst;            // or at the end of each section, when `lines` is 0
    const char* ahead;    // from here
};

template <int R, int V>
struct TileSums {
    Ints c[R][V];
};

// One step: 4 k (int8) or 8 (int4) of V vectors of columns.
template <class P, int R, int V>
inline __attribute__((always_inline)) void step(TileSums<R, V>& sums, const QuadData* x, const uint8_t* w) {
    for (int half = 0; half < P::kQuads; ++half) {
        Columns b[V];
        for (int v = 0; v < V; ++v) {
            const uint8_t* from = w + 4 * kLanes * v;
            b[v] = P::kBits == 8 ? bytes(from) : half == 0 ? low_nibbles(from) : high_nibbles(from);
        }
        for (int r = 0; r < R; ++r) {
            const Quad a = quad(x + half * R + r);
            for (int v = 0; v < V; ++v) sums.c[r][v] = dot(sums.c[r][v], b[v], a);
        }
    }
}

// Few rows that fetch all the weights themselves (kLines is 3) fetch them into L1.
template <int R, int kLines, int kCount>
inline void fetch(const char* ahead) {
    for (int line = 0; line < kCount; ++line) {
        if constexpr (kLines == 3 && R <= kFewRows) prefetch(ahead + 64 * line);
        else prefetch_l2(ahead + 64 * line);
    }
}

template <int R, int V>
struct Values {
    Vec v[R][V];
};

template <int R, int V>
inline __attribute__((always_inline)) void start_sums(TileSums<R, V>& sums, const float* x_sums, bool from_zero) {
    for (int r = 0; r < R; ++r) {
        int32_t start = 0;
        if (!from_zero) memcpy(&start, x_sums + r, 4);
        for (int v = 0; v < V; ++v) sums.c[r][v] = ints(start);
    }
}

// TileSums times the scales of a section, into f, or of a section that is all of a group of x (kWhole) into acc.
template <class P, int R, int V, bool kWhole>
inline __attribute__((always_inline)) void end_section(const TileSums<R, V>& sums, const uint8_t* scales, const float* x_sums,
                                                       const float* x_scales, Values<R, V>& f, Values<R, V>& acc) {
    for (int v = 0; v < V; ++v) {
        Vec scale = zero(), offset = zero();
        if constexpr (P::kScales != Scales::channel) scale = load_bf16(reinterpret_cast<const uint16_t*>(scales) + kLanes * v);
        if constexpr (P::kScales == Scales::offset) {
            offset = load_bf16(reinterpret_cast<const uint16_t*>(scales) + kPanel + kLanes * v);
        }
        for (int r = 0; r < R; ++r) {
            Vec value = as_float(sums.c[r][v]);
            if constexpr (P::kScales != Scales::channel) value = kWhole ? mul(value, scale) : fma(value, scale, f.v[r][v]);
            if constexpr (P::kScales == Scales::offset) value = fma(offset, set1(x_sums[r]), value);
            if constexpr (kWhole) acc.v[r][v] = fma(value, set1(x_scales[r]), acc.v[r][v]);
            else f.v[r][v] = value;
        }
    }
}

// Writes a vector of outputs in the `columns` of it that exist: sum (* scale) (+ bias) (+ old).
template <class P>
inline __attribute__((always_inline)) void write_out(const QOut& o, Vec sum, float* to, int64_t column, int n) {
    if constexpr (P::kScales == Scales::channel) sum = mul(sum, load_bf16(o.scales + column));
    if (o.bias) sum = add(sum, load_n(o.bias + column, n));
    if (o.accumulate) sum = add(sum, load_n(to, n));
    if (n == kLanes) store(to, sum);  // what a masked store wrote cannot be read before it is in the cache
    else store_n(to, sum, n);
}

template <class P, int R, int V>
inline __attribute__((always_inline)) void write_outs(const QOut& o, const Values<R, V>& acc, int64_t first) {
    for (int v = 0; v < V; ++v) {
        const int64_t column = first + v * kLanes;
        const int n = int(smaller(o.columns - column, kLanes));
        if (n <= 0) break;
        for (int r = 0; r < R; ++r) write_out<P>(o, acc.v[r][v], o.to + r * o.stride + column, column, n);
    }
}

// The lines that R rows of outputs stand on, wanted for writing once the sums are ready.
template <int R>
inline void fetch_outs(const QOut& o) {
    for (int r = 0; r < R; ++r) {
        const float* const row = o.to + r * o.stride;
        for (int64_t i = 0; i < o.columns; i += 16) prefetch_to_write(row + i);
    }
}

template <int R, int V>
inline __attribute__((always_inline)) void add_scaled(const Values<R, V>& f, const float* x_scales, float* acc) {
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) {
            float* const to = acc + r * kPanel + v * kLanes;
            store(to, fma(f.v[r][v], set1(x_scales[r]), load(to)));
        }
    }
}

template <int R, int V>
inline __attribute__((always_inline)) void load_sums(const float* from, Values<R, V>& acc) {
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) acc.v[r][v] = load(from + r * kPanel + v * kLanes);
    }
}

template <int R, int V>
inline __attribute__((always_inline)) void start(Values<R, V>& values) {
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) values.v[r][v] = zero();
    }
}

template <int R, int V>
inline __attribute__((always_inline)) void store_sums(const Values<R, V>& acc, float* to) {
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) store(to + r * kPanel + v * kLanes, acc.v[r][v]);
    }
}

// R rows against V vectors of columns of a panel. kWhole: sections are groups of x, and acc stays in registers; else f does.
template <class P, int R, int V, int kLines, bool kWhole>
void q_tile(const QPass& p, int64_t column, const char* ahead) {
    const char* a = p.a;
    const uint8_t *w = p.w + 4 * column, *scales = nullptr;
    Values<R, V> acc, f;
    start<R, V>(acc);
    if (p.resume && kWhole) load_sums<R, V>(p.acc + column, acc);
    if (!p.resume && !kWhole) store_sums<R, V>(acc, p.acc + column);
    for (int64_t k = 0; k < p.k; k += kInputGroup) {
        const int64_t length = smaller(p.k - k, kInputGroup);
        if (P::kScales != Scales::channel && k % kSpan == 0) {
            scales = w - 2 * column;  // w is 4 bytes a column further, scales are 2
            w += ceil_div(ceil_div(smaller(p.k - k, kSpan), p.section) * P::kScaleBytes, 64) * 64;
        }
        const auto* x_scales = reinterpret_cast<const float*>(a);
        const float* x_sums = x_scales + R;
        const auto* x = reinterpret_cast<const QuadData*>(a + q_head_bytes(p.section, length, R));
        if constexpr (!kWhole) start<R, V>(f);
        for (int64_t s = 0; s < length; s += p.section, x_sums += R) {
            TileSums<R, V> sums;
            start_sums<R, V>(sums, x_sums, P::kScales == Scales::offset);
            const int64_t steps = q_padded(smaller(length - s, p.section)) / (4 * P::kQuads);
            for (int64_t i = 0; i < steps; ++i, x += R * P::kQuads, w += kQStepBytes, ahead += 64 * kLines) {
                fetch<R, kLines, kLines>(ahead);
                step<P, R, V>(sums, x, w);
            }
            end_section<P, R, V, kWhole>(sums, scales, x_sums, x_scales, f, acc);
            scales += P::kScaleBytes;
            if constexpr (kLines == 0) {
                for (int i = 0; i < p.burst; ++i, ahead += 64) prefetch_l2(ahead);
            }
            constexpr int64_t kShare = P::kScaleBytes * kLines / 3;  // of the scales, to fetch with a share of the weights
            if constexpr (kShare > 0) fetch<R, kLines, kShare / 64 + 1>(ahead);
            ahead += kShare;
        }
        if constexpr (!kWhole) add_scaled<R, V>(f, x_scales, p.acc + column);
        a = reinterpret_cast<const char*>(x);
    }
    if constexpr (!kWhole) load_sums<R, V>(p.acc + column, acc);
    if (p.out) write_outs<P, R, V>(*p.out, acc, column);
    else if constexpr (kWhole) store_sums<R, V>(acc, p.acc + column);
}

template <class P, int R, int kLines, bool kWhole>
void q_tiles(const QPass& p) {
    constexpr int V = P::vectors(R);
    if (p.out) fetch_outs<R>(*p.out);
    if constexpr (R == P::kRows && V == 3 && kLines == 0) {
        if (p.columns <= kLanes) return q_tile<P, R, 1, 0, kWhole>(p, 0, p.ahead);
        if (p.columns <= 2 * kLanes) return q_tile<P, R, 2, 0, kWhole>(p, 0, p.ahead);
    }
    q_tile<P, R, V, kLines, kWhole>(p, 0, p.ahead);
    for (int64_t column = V * kLanes; column < kPanel; column += V * kLanes) q_tile<P, R, V, 0, kWhole>(p, column, p.ahead);
}

template <class P, int R, bool kWhole>
void q_lines(const QPass& p) {
    switch (p.lines) {
        case 0: return q_tiles<P, R, 0, kWhole>(p);
        case 1: return q_tiles<P, R, 1, kWhole>(p);
        case 2: return q_tiles<P, R, 2, kWhole>(p);
        default: return q_tiles<P, R, 3, kWhole>(p);
    }
}

// R rows against a whole panel.
template <class P, int R>
void q_block(const QPass& p) {
    if (P::kScales == Scales::channel || p.section == kInputGroup) return q_lines<P, R, true>(p);
    if constexpr (P::kScales != Scales::channel) q_lines<P, R, false>(p);
}

template <class P>
void any_q_block(int64_t rows, const QPass& pass) {
    static_assert(P::kRows == 4);
    switch (rows) {
        case 1: return q_block<P, 1>(pass);
        case 2: return q_block<P, 2>(pass);
        case 3: return q_block<P, 3>(pass);
        default: return q_block<P, 4>(pass);
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// The matrix product of gemm_int8.cpp and gemm_int4.cpp: out[t, n] = sum_k x[t, k] * w[n, k] (+ bias[n]) (+ out[t, n]), with x rounded
// to int8 (qinput.h) and weights of 8 or 4 bits (qformat.h).
//
// Order, the same for every number of rows: within a section of k (a group of weights, at most kInputGroup) exact integers; then,
// sections ascending,
//     per channel     acc = fma(float(sum), scale_x, acc);  out = acc * scale_w
//     grouped         f = float(sum) * scale_w, of later sections of the same group of x: f = fma(float(sum), scale_w, f);
//                     with offsets f = fma(offset_w, sum of q_x, f);  after the group of x: acc = fma(f, scale_x, acc)
// Two levels, so that groups of 32 cost one multiply-add and a quarter instead of two. Then + bias, then + the old value.
// Work is split over panels and blocks of rows only.
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
    static constexpr int kRows = kLanes == 16 ? 8 : 4;
    static constexpr int vectors(int rows) { return kLanes == 16 || rows == 2 ? 3 : rows == 1 ? 6 : 2; }
    static constexpr int64_t kScaleBytes = kScales == Scales::channel ? 0 : kScales == Scales::group ? 2 * kPanel : 4 * kPanel;
};

// What a block of rows does for one cache block of a panel.
struct QPass {
    const char* a;        // the block of rows, from its first group on
    const uint8_t* w;     // the panel, likewise
    int64_t k, section;   // inputs from here on; inputs of a section
    float* acc;           // [rows][kPanel]
    int lines;            // to prefetch per step
    const char* ahead;    // from here
};

template <int R, int V>
struct Sums {
    Ints c[R][V];
};

// One step: 4 k (int8) or 8 (int4) of V vectors of columns.
template <class P, int R, int V>
inline __attribute__((always_inline)) void step(Sums<R, V>& sums, const QuadData* x, const uint8_t* w) {
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

// Scales of a section: sums to f or, behind the last section of a group of x, to acc.
template <class P, int R, int V, bool kFirst, bool kLast>
inline __attribute__((always_inline)) void scale_sums(const Sums<R, V>& sums, const uint8_t* scales, const float* x_sums,
                                                      const float* x_scales, float* f, float* acc) {
    for (int v = 0; v < V; ++v) {
        const Vec scale = load_bf16(reinterpret_cast<const uint16_t*>(scales) + kLanes * v);
        for (int r = 0; r < R; ++r) {
            float* const at = f + (r * V + v) * kLanes;
            Vec value = as_float(sums.c[r][v]);
            value = kFirst ? mul(value, scale) : fma(value, scale, load(at));
            if constexpr (P::kScales == Scales::offset) {
                const Vec offset = load_bf16(reinterpret_cast<const uint16_t*>(scales) + kPanel + kLanes * v);
                value = fma(offset, set1(x_sums[r]), value);
            }
            if constexpr (kLast) {
                float* const to = acc + r * kPanel + v * kLanes;
                store(to, fma(value, set1(x_scales[r]), load(to)));
            } else {
                store(at, value);
            }
        }
    }
}

template <class P, int R, int V>
inline __attribute__((always_inline)) void end_section(const Sums<R, V>& sums, const uint8_t* scales, const float* x_sums,
                                                       const float* x_scales, float* f, float* acc, bool first, bool last) {
    if constexpr (P::kScales == Scales::channel) {
        for (int r = 0; r < R; ++r) {
            for (int v = 0; v < V; ++v) {
                float* const to = acc + r * kPanel + v * kLanes;
                store(to, fma(as_float(sums.c[r][v]), set1(x_scales[r]), load(to)));
            }
        }
    } else {
        if (first && last) scale_sums<P, R, V, true, true>(sums, scales, x_sums, x_scales, f, acc);
        else if (first) scale_sums<P, R, V, true, false>(sums, scales, x_sums, x_scales, f, acc);
        else if (last) scale_sums<P, R, V, false, true>(sums, scales, x_sums, x_scales, f, acc);
        else scale_sums<P, R, V, false, false>(sums, scales, x_sums, x_scales, f, acc);
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

// R rows against V vectors of columns of a panel.
template <class P, int R, int V, int kLines>
void q_tile(const QPass& p, int64_t column, const char* ahead) {
    alignas(64) float f[R * V * kLanes];
    const char* a = p.a;
    const uint8_t* w = p.w + 4 * column;
    for (int64_t k = 0; k < p.k; k += kInputGroup) {
        const int64_t length = smaller(p.k - k, kInputGroup);
        const auto* x_scales = reinterpret_cast<const float*>(a);
        const float* x_sums = x_scales + R;
        const auto* x = reinterpret_cast<const QuadData*>(a + q_head_bytes(p.section, length, R));
        for (int64_t s = 0; s < length; s += p.section, x_sums += R) {
            Sums<R, V> sums;
            for (int r = 0; r < R; ++r) {
                int32_t start = 0;
                if constexpr (P::kScales != Scales::offset) memcpy(&start, x_sums + r, 4);
                for (int v = 0; v < V; ++v) sums.c[r][v] = ints(start);
            }
            const int64_t steps = q_padded(smaller(length - s, p.section)) / (4 * P::kQuads);
            for (int64_t i = 0; i < steps; ++i, x += R * P::kQuads, w += kQStepBytes, ahead += 64 * kLines) {
                fetch<R, kLines, kLines>(ahead);
                step<P, R, V>(sums, x, w);
            }
            // w stands behind the weights of the group, but for 4 bytes a column where its scales have 2.
            end_section<P, R, V>(sums, w - 2 * column, x_sums, x_scales, f, p.acc + column, s == 0, s + p.section >= length);
            w += P::kScaleBytes;
            if constexpr (kLines == 3 && P::kScaleBytes > 0) {
                fetch<R, kLines, P::kScaleBytes / 64 + 1>(ahead);
                ahead += P::kScaleBytes;
            }
        }
        a = reinterpret_cast<const char*>(x);
    }
}

template <class P, int R, int kLines>
void q_tiles(const QPass& p) {
    constexpr int V = P::vectors(R);
    q_tile<P, R, V, kLines>(p, 0, p.ahead);
    for (int64_t column = V * kLanes; column < kPanel; column += V * kLanes) q_tile<P, R, V, 0>(p, column, p.ahead);
}

// R rows against a whole panel.
template <class P, int R>
void q_block(const QPass& p) {
    if (p.lines >= 3) return q_tiles<P, R, 3>(p);
    if constexpr (R == P::kRows) {
        if (p.lines == 2) return q_tiles<P, R, 2>(p);
        if (p.lines == 1) return q_tiles<P, R, 1>(p);
    }
    q_tiles<P, R, 0>(p);
}

template <class P>
void any_q_block(int64_t rows, const QPass& pass) {
    switch (rows) {
        case 1: return q_block<P, 1>(pass);
        case 2: return q_block<P, 2>(pass);
        case 3: return q_block<P, 3>(pass);
        case 4: return q_block<P, 4>(pass);
    }
    if constexpr (P::kRows == 8) {
        switch (rows) {
            case 5: return q_block<P, 5>(pass);
            case 6: return q_block<P, 6>(pass);
            case 7: return q_block<P, 7>(pass);
            case 8: return q_block<P, 8>(pass);
        }
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

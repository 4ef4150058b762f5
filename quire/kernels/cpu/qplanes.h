// Weights of a head in two planes of 4 bits: w ~ scale * (16 * high + low), high and low in -8..7, one scale a column.
//
//   high   panels as those of int4 per channel (qformat.h), their scale 16 times the weight's
//   low    behind them, a row for each column of the matrix: for every kInputGroup inputs 64 bytes, byte j holds input j in its low
//          nibble and input 64 + j in its high one, 8 added to each; the last group filled up with 8s (0)
//   scales behind that, the panels' scales once more, [n] bfloat16: those of few columns stay in L2, in the panels they are a line each
//
// A product reads the high plane of all columns and the low rows of few (planes.h).
// Knows: the layout. Does not know: how scales are chosen (quantize_planes.cpp), which columns are few.
#pragma once
#include "qformat.h"

namespace quire {
namespace {

constexpr int64_t kLowGroupBytes = kInputGroup / 2;

inline QFormat high_format(int64_t k) { return {k, 4, 0, true}; }
inline int64_t low_groups(int64_t k) { return (k + kInputGroup - 1) / kInputGroup; }
inline int64_t low_row_bytes(int64_t k) { return low_groups(k) * kLowGroupBytes; }
inline int64_t num_panels(int64_t n) { return (n + kPanel - 1) / kPanel; }
// Bytes of the high plane: where the low one begins.
inline int64_t high_bytes(int64_t n, int64_t k) { return num_panels(n) * q_panel_bytes(high_format(k)); }
inline int64_t scales_begin(int64_t n, int64_t k) { return high_bytes(n, k) + n * low_row_bytes(k); }
inline int64_t planes_bytes(int64_t n, int64_t k) { return scales_begin(n, k) + 2 * n; }

// Panels whose best columns are read in full: a sixth of all, at least 64.
inline int64_t num_best_panels(int64_t n) {
    const int64_t share = num_panels(n) / 6;
    return share < 64 ? 64 : share;
}

}  // namespace
}  // namespace quire

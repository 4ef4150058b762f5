// Packed int8 and int4 weights: how the bytes of a panel (48 columns, as in pack.h) lie, padded to 64 bytes.
//   spans   of kSpan k: [of every group its scales and, asymmetric only, its offsets], padded to 64 bytes, [weights]; per channel:
//           the weights alone, and the scales behind the last span. One stream in the order of its use, and weights at multiples
//           of 64 bytes: a row of scales is 96 bytes, and beside every group it would leave half of all loads across two lines.
//   weights int8: [k/4][48][4] bytes, w + 128;  int4: [k/8][48][4] bytes, w + 8 (asymmetric: w), the low nibbles for the first
//           four of eight k, the high nibbles for the other four; the last k padded with zeros to a multiple of 8
//   scales  [48] bfloat16: w ~ scale * q;  offsets [48] bfloat16: w ~ scale * q + offset
// A group is `group` successive k (32, 64 or 128; the last may be shorter), or all of k when `group` is 0 (per channel).
// Knows: the layout. Does not know: how scales are chosen (quantize.cpp), who multiplies (qgemm.h).
#pragma once
#include <cstdint>

#include "panel.h"

namespace quire {

struct QFormat {
    int64_t k;
    int32_t bits;   // 8 or 4
    int32_t group;  // k per scale, or 0
    bool symmetric;
};

namespace {

// Inputs whose activations share one scale, in every format; weight groups divide it.
constexpr int64_t kInputGroup = 128;
// Inputs whose scales stand together behind their weights.
constexpr int64_t kSpan = 256;
// Bytes of 48 columns x 4 bytes: one step of 4 k (int8) or two (int4).
constexpr int64_t kQStepBytes = 4 * kPanel;

inline int64_t q_padded(int64_t k) { return (k + 7) / 8 * 8; }
inline int64_t q_zero(const QFormat& f) { return f.bits == 8 ? 128 : f.symmetric ? 8 : 0; }
inline int64_t q_group_length(const QFormat& f) { return f.group ? f.group : f.k; }
inline int64_t q_weight_bytes(const QFormat& f, int64_t length) { return q_padded(length) * kPanel * f.bits / 8; }
inline int64_t q_scale_bytes(const QFormat& f) { return 2 * kPanel * (f.symmetric ? 1 : 2); }  // of a group

// Bytes in front of the weights of a span of `length` inputs.
inline int64_t q_span_scale_bytes(const QFormat& f, int64_t length) {
    return f.group ? ((length + f.group - 1) / f.group * q_scale_bytes(f) + 63) / 64 * 64 : 0;
}

// Bytes of `length` inputs of a panel, from the start of a span on.
inline int64_t q_bytes_of(const QFormat& f, int64_t length) {
    const int64_t spans = length / kSpan, rest = length % kSpan;
    return q_weight_bytes(f, length) + spans * q_span_scale_bytes(f, kSpan) + q_span_scale_bytes(f, rest);
}

// Where in a panel the weights of input `k` (a multiple of 8) and the scales of its group begin.
inline int64_t q_weights_at(const QFormat& f, int64_t k) {
    const int64_t first = k / kSpan * kSpan, length = f.k - first < kSpan ? f.k - first : kSpan;
    return q_bytes_of(f, first) + q_span_scale_bytes(f, length) + q_weight_bytes(f, k - first);
}
inline int64_t q_scales_at(const QFormat& f, int64_t k) {
    if (f.group == 0) return q_weight_bytes(f, f.k);
    return q_bytes_of(f, k / kSpan * kSpan) + k % kSpan / f.group * q_scale_bytes(f);
}

inline int64_t q_panel_bytes(const QFormat& f) {
    return (q_bytes_of(f, f.k) + (f.group ? 0 : q_scale_bytes(f)) + 63) / 64 * 64;
}

}  // namespace
}  // namespace quire

// Packed int8 and int4 weights: how the bytes of a panel lie. One stream: the scales of a group stand behind its weights.
//   panel   [groups of k][weights of the group][scales][offsets], padded to 64 bytes; a panel is 48 columns, as in pack.h
//   weights int8: [k/4][48][4] bytes, w + 128;  int4: [k/8][48][4] bytes, w + 8 (asymmetric: w), the low nibbles for the first
//           four of eight k, the high nibbles for the other four; the last k of a group padded with zeros to a multiple of 8
//   scales  [48] bfloat16: w ~ scale * q;  offsets, asymmetric only: [48] bfloat16: w ~ scale * q + offset
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
// Bytes of 48 columns x 4 bytes: one step of 4 k (int8) or two (int4).
constexpr int64_t kQStepBytes = 4 * kPanel;

inline int64_t q_padded(int64_t k) { return (k + 7) / 8 * 8; }
inline int64_t q_zero(const QFormat& f) { return f.bits == 8 ? 128 : f.symmetric ? 8 : 0; }
inline int64_t q_groups(const QFormat& f) { return f.group ? (f.k + f.group - 1) / f.group : 1; }
inline int64_t q_group_length(const QFormat& f) { return f.group ? f.group : f.k; }
inline int64_t q_weight_bytes(const QFormat& f, int64_t length) { return q_padded(length) * kPanel * f.bits / 8; }
inline int64_t q_scale_bytes(const QFormat& f) { return 2 * kPanel * (f.symmetric ? 1 : 2); }
inline int64_t q_group_bytes(const QFormat& f) { return q_weight_bytes(f, q_group_length(f)) + q_scale_bytes(f); }

inline int64_t q_panel_bytes(const QFormat& f) {
    const int64_t before = q_groups(f) - 1, last = f.k - before * q_group_length(f);
    const int64_t bytes = before * q_group_bytes(f) + q_weight_bytes(f, last) + q_scale_bytes(f);
    return (bytes + 63) / 64 * 64;
}

}  // namespace
}  // namespace quire

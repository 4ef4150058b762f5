// Activations of int8 and int4 products: rows rounded to int8 in groups of kInputGroup, laid out as the tiles of qgemm.h read them.
//
//     scale = max|x| / 127 over the group;  q = x * (127 / max|x|), rounded to nearest, ties to even
//
// A group whose largest magnitude is below 2^-119 becomes zeros; one that holds an infinity or a NaN gets a NaN for a scale.
// Layout: blocks of R rows; in a block, for each group [scales][sums of every section][pad to 8 bytes][k/4][R] quads. A section is
// what one pass of integer sums covers (weights may change scale behind it); its sum corrects for the zero of unsigned weights:
// an int32 that the sums start from, or for weights with offsets the float32 sum of q.
// Order: a row's bits depend on the row alone: maxima and integer sums are exact in any order.
// Knows: one row. Does not know: threads, weights but their QFormat.
#pragma once
#include "qformat.h"
#include "simd_int.h"

#if QUIRE_ISA_avx512
#include "qinput_avx512.h"
#endif

namespace quire::QUIRE_ISA {
namespace {

inline int64_t q_section(const QFormat& f) { return f.group && f.group < kInputGroup ? f.group : kInputGroup; }
inline int64_t shorter(int64_t a, int64_t b) { return a < b ? a : b; }

// Bytes in front of the quads of a group of `length` inputs of R rows.
inline int64_t q_head_bytes(int64_t section, int64_t length, int64_t rows) {
    return (4 * rows * (1 + (length + section - 1) / section) + 7) / 8 * 8;
}

// Bytes of a block of `rows` rows of k inputs.
inline int64_t q_block_bytes(int64_t section, int64_t k, int64_t rows) {
    const int64_t full = k / kInputGroup, rest = k % kInputGroup;
    const int64_t bytes = full * q_head_bytes(section, kInputGroup, rows) + (rest ? q_head_bytes(section, rest, rows) : 0);
    return bytes + (full * kInputGroup + q_padded(rest)) / 4 * rows * int64_t(sizeof(QuadData));
}

struct Peak {
    float largest;  // of the magnitudes that are numbers
    float taint;    // 0, or NaN when an element is infinite or NaN
};

inline Peak peak_of(const float* x, int64_t n) {
    Vec most = zero(), taint = zero();
    for (int64_t i = 0; i < n; i += kLanes) {
        const Vec v = load_n(x + i, int(shorter(n - i, kLanes)));
        most = max(max(v, sub(zero(), v)), most);
        taint = add(taint, mul(v, zero()));
    }
    return {largest(most), sum(taint)};
}

// q[i] = x[i] / scale as integers, zeros up to `padded`; returns the scale.
inline float round_group(const float* x, int64_t n, int64_t padded, float* q) {
    const Peak peak = peak_of(x, n);
    const bool some = peak.largest >= 0x1p-119f;
    const Vec inverse = set1(some ? 127.0f / peak.largest : 0.0f), rounder = set1(kRounder);
    for (int64_t i = 0; i < padded; i += kLanes) {
        const int64_t here = n - i < 0 ? 0 : shorter(n - i, kLanes);
        store(q + i, sub(add(mul(load_n(x + i, int(here)), inverse), rounder), rounder));
    }
    return (some ? peak.largest / 127.0f : 0.0f) + peak.taint;
}

inline float sum_of(const float* q, int64_t n) {
    Vec total = zero();
    for (int64_t i = 0; i < n; i += kLanes) total = add(total, load_n(q + i, int(shorter(n - i, kLanes))));
    return sum(total);
}

// Row `row` of a block of `rows`: a group of `length` inputs to its places in `block`.
inline void round_part(const QFormat& format, const float* x, int64_t length, int64_t row, int64_t rows, char* block) {
    alignas(64) float q[kInputGroup];
    const int64_t section = q_section(format), padded = q_padded(length);
    const int32_t zero_point = int32_t(q_zero(format));
    const float scale = round_group(x, length, padded, q);
    memcpy(block + 4 * row, &scale, 4);
    char* sums = block + 4 * rows + 4 * row;
    for (int64_t s = 0; s < length; s += section, sums += 4 * rows) {
        const float total = sum_of(q + s, shorter(length - s, section));
        const int32_t start = scale == scale ? -zero_point * int32_t(total) : 0;
        if (format.symmetric) memcpy(sums, &start, 4);
        else memcpy(sums, &total, 4);
    }
    store_quads(q, padded / 4, reinterpret_cast<QuadData*>(block + q_head_bytes(section, length, rows)) + row, rows);
}

// A group of `length` inputs of R rows to `block`. `part(r)` is where the inputs of row r stand.
template <int R, class Part>
inline void round_parts(const QFormat& format, int64_t length, char* block, const Part& part) {
#if QUIRE_ISA_avx512
    if constexpr (R == 1 || R == 4) {
        if (length == kInputGroup) {
            const float* x[R];
            for (int r = 0; r < R; ++r) x[r] = part(r);
            const int64_t section = q_section(format);
            return round_whole_group<R>(format, section, x, q_head_bytes(section, length, R), block);
        }
    }
#endif
    for (int r = 0; r < R; ++r) round_part(format, part(r), length, r, R, block);
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// A group of kInputGroup inputs of one or four rows, rounded in registers: what qinput.h defines, bit for bit, on AVX-512.
//
// Magnitudes are compared as integers: those of floats order alike, and what is infinite or NaN lies above all numbers. The rows of
// a block go together, so that the ends of their maxima, divisions and sums are one instruction for four, and quads need no
// stores of their own: bytes of four vectors are packed lane by lane, which leaves a row's quads in the order that unpacking
// four rows puts right.
// Measured on one core of Zen 4, in L1, cycles for 16 inputs of a row: 5.7 for four rows and 6.9 for one; a row at a time in floats,
// with a store for each quad (qinput.h) 18. A product with 1,024 outputs multiplies for 256 cycles meanwhile. Pairs of runs, 1,024
// rows, two threads, int8: 1024 -> 4096 1.03x, 2048 -> 1024 1.04x, 3072 -> 1024 gated 1.14x.
// Knows: instructions. Does not know: where rows come from.
#pragma once
#include "qformat.h"
#include "simd_int.h"

namespace quire::QUIRE_ISA {
namespace {

// Lane r: the largest of vector r.
inline __m128i largest_of(const __m512i (&v)[4]) {
    const __m512i low = _mm512_max_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i high = _mm512_max_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i all = _mm512_max_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    const __m256i half = _mm256_max_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
inline __m128i largest_of(const __m512i (&v)[1]) { return _mm_cvtsi32_si128(_mm512_reduce_max_epi32(v[0])); }

// Scales of R rows to `out`; what to multiply the rows with to `inverses`.
template <int R>
inline void choose_scales(const float* const (&x)[R], char* out, float (&inverses)[4]) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most[R];
    for (int r = 0; r < R; ++r) {
        most[r] = _mm512_and_si512(magnitude, _mm512_loadu_si512(x[r]));
        for (int i = 1; i < kInputGroup / kLanes; ++i) {
            most[r] = _mm512_max_epi32(most[r], _mm512_and_si512(magnitude, _mm512_loadu_si512(x[r] + i * kLanes)));
        }
    }
    const __m128i bits = largest_of(most);
    const __m128 largest = _mm_castsi128_ps(bits), top = _mm_set1_ps(127.0f);
    const __mmask8 some = _mm_cmp_ps_mask(largest, _mm_set1_ps(0x1p-119f), _CMP_GE_OQ);
    const __mmask8 tainted = _mm_cmpge_epi32_mask(bits, _mm_set1_epi32(0x7f800000));
    _mm_storeu_ps(inverses, _mm_maskz_div_ps(some, top, largest));
    const __m128 scales = _mm_mask_mov_ps(_mm_maskz_div_ps(some, largest, top), tainted, _mm_set1_ps(__builtin_nanf("")));
    _mm_mask_storeu_ps(out, __mmask8((1 << R) - 1), scales);
}

// 64 inputs of a row as bytes: the quad 4 v + l of them is number v in the l-th 128 bits.
inline __m512i packed_64(const float* x, float inverse) {
    const __m512 by = _mm512_set1_ps(inverse);
    __m512i q[4];
    for (int v = 0; v < 4; ++v) q[v] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + v * kLanes), by));
    return _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
}

// Those of R rows as a block holds them: 4 R vectors of quads / R, in order.
inline void in_order(const __m512i (&z)[4], __m512i (&out)[4]) {
    const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpacklo_epi32(z[2], z[3]);
    const __m512i c = _mm512_unpackhi_epi32(z[0], z[1]), d = _mm512_unpackhi_epi32(z[2], z[3]);
    out[0] = _mm512_unpacklo_epi64(a, b);
    out[1] = _mm512_unpackhi_epi64(a, b);
    out[2] = _mm512_unpacklo_epi64(c, d);
    out[3] = _mm512_unpackhi_epi64(c, d);
}
inline void in_order(const __m512i (&z)[1], __m512i (&out)[1]) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    out[0] = _mm512_permutexvar_epi32(order, z[0]);
}

// Lane r: the sum of row r over the last `inputs` of what was added (quads in order, R to a step).
template <int R>
inline __m128i row_sums(__m512i quads) {
    if (R == 1) return _mm_cvtsi32_si128(_mm512_reduce_add_epi32(quads));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(quads), _mm512_extracti64x4_epi64(quads, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

template <int R>
inline void store_row_sums(const QFormat& format, __m128i total, char* out) {
    const __m128i start = _mm_mullo_epi32(total, _mm_set1_epi32(-int32_t(q_zero(format))));
    const __m128i bits = format.symmetric ? start : _mm_castps_si128(_mm_cvtepi32_ps(total));
    _mm_mask_storeu_epi32(out, __mmask8((1 << R) - 1), bits);
}

// R rows of kInputGroup inputs each to `block`, whose quads begin `head` bytes further on.
template <int R>
inline void round_whole_group(const QFormat& format, int64_t section, const float* const (&x)[R], int64_t head, char* block) {
    alignas(16) float inverses[4];
    choose_scales<R>(x, block, inverses);
    constexpr int64_t kInputs = 64 / R;  // of all rows, in a vector of quads
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    char *quads = block + head, *to_sums = block + 4 * R;
    int64_t left = section;
    for (int64_t k = 0; k < kInputGroup; k += 64) {
        __m512i z[R], out[R];
        for (int r = 0; r < R; ++r) z[r] = packed_64(x[r] + k, inverses[r]);
        in_order(z, out);
        for (int v = 0; v < R; ++v, quads += 64) {
            _mm512_storeu_si512(quads, out[v]);
            if (kInputs > section) {  // one row: two sections in a vector
                const __m512i each = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, out[v]);
                store_row_sums<R>(format, row_sums<R>(_mm512_maskz_mov_epi32(0x00ff, each)), to_sums);
                store_row_sums<R>(format, row_sums<R>(_mm512_maskz_mov_epi32(0xff00, each)), to_sums + 4 * R);
                to_sums += 8 * R;
                continue;
            }
            sums = _mm512_dpbusd_epi32(sums, ones, out[v]);
            left -= kInputs;
            if (left > 0) continue;
            store_row_sums<R>(format, row_sums<R>(sums), to_sums);
            to_sums += 4 * R;
            sums = _mm512_setzero_si512();
            left = section;
        }
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

// Integer vectors for products of int8 activations with int8 and int4 weights, the same names on each instruction set.
//
//   Ints      kLanes int32.  ints(i) broadcast   as_float(v)   rounded_bits(x): x + 1.5 * 2^23 as bits, so that the low byte of the
//             result is x rounded to an integer (ties to even), |x| < 2^22   put_byte(acc, bits, shift): acc | (bits & 255) << shift
//   Columns   four successive k of kLanes columns, unsigned: bytes(p), low_nibbles(p), high_nibbles(p) from 4 * kLanes bytes
//   QuadData  four successive k of one row, as they stand in memory; Quad: that, in every lane.  quad(p)
//             store_quads(q, count, out, stride): from 4 * count floats that are integers in [-127, 127]
//   dot       acc + sum of the four products, exact: vpdpbusd on avx512; elsewhere bytes are widened to 16 bits and multiplied by
//             vpmaddwd (vpmaddubsw would saturate)
// Knows: instructions. Does not know: scales, layouts of panels.
#pragma once
#include "simd.h"

#if QUIRE_ISA_avx512 || QUIRE_ISA_avx2
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace quire::QUIRE_ISA {
namespace {

constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: x + kRounder - kRounder is x rounded, ties to even

#if QUIRE_ISA_avx512

struct Ints { __m512i v; };
struct Columns { __m512i v; };
struct Quad { __m512i v; };
using QuadData = int32_t;

inline Ints ints(int32_t i) { return {_mm512_set1_epi32(i)}; }
inline Vec as_float(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Ints rounded_bits(Vec x) { return {_mm512_castps_si512(add(x, set1(kRounder)).v)}; }
inline Ints put_byte(Ints acc, Ints bits, int shift) {
    const __m512i byte = _mm512_and_si512(bits.v, _mm512_set1_epi32(255));
    return {_mm512_or_si512(acc.v, _mm512_sll_epi32(byte, _mm_cvtsi32_si128(shift)))};
}
inline void store_ints(void* p, Ints a) { _mm512_storeu_si512(p, a.v); }
inline Columns bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline Columns low_nibbles(const uint8_t* p) { return {_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(15))}; }
inline Columns high_nibbles(const uint8_t* p) {
    return {_mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(15))};
}
inline Quad quad(const QuadData* p) { return {_mm512_set1_epi32(*p)}; }
// As inline assembly with a tied operand: from the intrinsic gcc 12 moves and spills the accumulators of a tile.
inline Ints dot(Ints acc, Columns w, Quad a) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(w.v), "v"(a.v));
    return acc;
}
inline void store_quads(const float* q, int64_t count, QuadData* out, int64_t stride) {
    alignas(16) int32_t quads[4];
    for (int64_t i = 0; i < count; i += 4) {
        _mm_store_si128((__m128i*)quads, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_loadu_ps(q + 4 * i))));
        const int64_t n = count - i < 4 ? count - i : 4;
        for (int64_t j = 0; j < n; ++j) out[(i + j) * stride] = quads[j];
    }
}

#else

// The four k of a row as 16-bit numbers in the order 0, 2, 1, 3: what stands in the even and in the odd bytes of Columns.
using QuadData = int64_t;

inline void store_quads(const float* q, int64_t count, QuadData* out, int64_t stride) {
    for (int64_t i = 0; i < count; ++i) {
        const int16_t quad[4] = {int16_t(q[4 * i]), int16_t(q[4 * i + 2]), int16_t(q[4 * i + 1]), int16_t(q[4 * i + 3])};
        memcpy(out + i * stride, quad, 8);
    }
}

#if QUIRE_ISA_avx2

struct Ints { __m256i v; };
struct Columns { __m256i even, odd; };
struct Quad { __m256i even, odd; };

inline Ints ints(int32_t i) { return {_mm256_set1_epi32(i)}; }
inline Vec as_float(Ints a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Ints rounded_bits(Vec x) { return {_mm256_castps_si256(add(x, set1(kRounder)).v)}; }
inline Ints put_byte(Ints acc, Ints bits, int shift) {
    const __m256i byte = _mm256_and_si256(bits.v, _mm256_set1_epi32(255));
    return {_mm256_or_si256(acc.v, _mm256_sll_epi32(byte, _mm_cvtsi32_si128(shift)))};
}
inline void store_ints(void* p, Ints a) { _mm256_storeu_si256((__m256i*)p, a.v); }
inline __m256i load_bytes(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline Columns bytes(const uint8_t* p) {
    return {_mm256_and_si256(load_bytes(p), _mm256_set1_epi16(255)), _mm256_srli_epi16(load_bytes(p), 8)};
}
inline Columns low_nibbles(const uint8_t* p) {
    const __m256i mask = _mm256_set1_epi16(15);
    return {_mm256_and_si256(load_bytes(p), mask), _mm256_and_si256(_mm256_srli_epi16(load_bytes(p), 8), mask)};
}
inline Columns high_nibbles(const uint8_t* p) {
    return {_mm256_and_si256(_mm256_srli_epi16(load_bytes(p), 4), _mm256_set1_epi16(15)), _mm256_srli_epi16(load_bytes(p), 12)};
}
inline Quad quad(const QuadData* p) {
    int32_t halves[2];
    memcpy(halves, p, 8);
    return {_mm256_set1_epi32(halves[0]), _mm256_set1_epi32(halves[1])};
}
inline Ints dot(Ints acc, Columns w, Quad a) {
    const __m256i even = _mm256_madd_epi16(w.even, a.even), odd = _mm256_madd_epi16(w.odd, a.odd);
    return {_mm256_add_epi32(acc.v, _mm256_add_epi32(even, odd))};
}

#else

typedef int16_t H8 __attribute__((vector_size(16)));
typedef uint16_t UH8 __attribute__((vector_size(16)));

struct Ints { I4 v; };
struct Columns { UH8 even, odd; };
struct Quad { I4 even, odd; };

inline Ints ints(int32_t i) { return {I4{i, i, i, i}}; }
inline Vec as_float(Ints a) { return {F4{float(a.v[0]), float(a.v[1]), float(a.v[2]), float(a.v[3])}}; }
inline Ints rounded_bits(Vec x) { return {(I4)add(x, set1(kRounder)).v}; }
inline Ints put_byte(Ints acc, Ints bits, int shift) { return {acc.v | (I4)((U4)(bits.v & 255) << uint32_t(shift))}; }
inline void store_ints(void* p, Ints a) { memcpy(p, &a.v, 16); }
inline UH8 load_bytes(const uint8_t* p) { UH8 v; memcpy(&v, p, 16); return v; }
inline Columns bytes(const uint8_t* p) { return {load_bytes(p) & 255, load_bytes(p) >> 8}; }
inline Columns low_nibbles(const uint8_t* p) { return {load_bytes(p) & 15, load_bytes(p) >> 8 & 15}; }
inline Columns high_nibbles(const uint8_t* p) { return {load_bytes(p) >> 4 & 15, load_bytes(p) >> 12}; }
inline Quad quad(const QuadData* p) {
    int32_t halves[2];
    memcpy(halves, p, 8);
    return {ints(halves[0]).v, ints(halves[1]).v};
}
inline I4 sums_of_pairs(UH8 w, I4 a) {
#if defined(__SSE2__)
    return (I4)_mm_madd_epi16((__m128i)w, (__m128i)a);
#else
    const H8 x = (H8)w, y = (H8)a;
    I4 sums;
    for (int i = 0; i < 4; ++i) sums[i] = int32_t(x[2 * i]) * y[2 * i] + int32_t(x[2 * i + 1]) * y[2 * i + 1];
    return sums;
#endif
}
inline Ints dot(Ints acc, Columns w, Quad a) { return {acc.v + sums_of_pairs(w.even, a.even) + sums_of_pairs(w.odd, a.odd)}; }

#endif
#endif

}  // namespace
}  // namespace quire::QUIRE_ISA

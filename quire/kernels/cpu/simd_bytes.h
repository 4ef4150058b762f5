// Vectors of bytes and their integer products, for int8 pages: the same names, and the same bits, on each instruction set.
//
//   Bytes     kLanes times four bytes.  load_bytes(p), same_bytes(p): the four bytes at p in every lane
//   Sums      kLanes int32.  sums_of(i) broadcast   dot(acc, a, b) = acc + the four products of each lane, a unsigned, b signed,
//             exact: vpdpbusd on avx512, elsewhere products of 16 bits (vpmaddubsw would saturate)
//             shift_left(a, n)   shift_right(a, n) arithmetic   plus(a, b)   minus(a, b)   as_float(a)   nearest(x): ties to even
//             store_low_bytes(p, a): the lowest byte of each lane, kLanes bytes   total(a): the sum of all lanes
//             low_halves(a), high_halves(a): the nibbles of each byte
// Knows: instructions. Does not know: scales, pages.
#pragma once
#include "simd.h"

namespace quire::QUIRE_ISA {
namespace {

#if QUIRE_ISA_avx512

struct Bytes { __m512i v; };
struct Sums { __m512i v; };

inline Bytes load_bytes(const uint32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Bytes same_bytes(const uint32_t* p) { return {_mm512_set1_epi32(int(*p))}; }
inline Sums sums_of(int32_t i) { return {_mm512_set1_epi32(i)}; }
inline Sums dot(Sums acc, Bytes a, Bytes b) {  // as assembly with a tied operand: gcc 12 moves accumulators about otherwise
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(a.v), "v"(b.v));
    return acc;
}
inline Sums shift_left(Sums a, int n) { return {_mm512_slli_epi32(a.v, unsigned(n))}; }
inline Sums shift_right(Sums a, int n) { return {_mm512_srai_epi32(a.v, unsigned(n))}; }
inline Sums plus(Sums a, Sums b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Sums minus(Sums a, Sums b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline Vec as_float(Sums a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Sums nearest(Vec x) { return {_mm512_cvtps_epi32(x.v)}; }
inline void store_low_bytes(uint8_t* p, Sums a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }
inline int32_t total(Sums a) { return _mm512_reduce_add_epi32(a.v); }
inline Bytes low_halves(Bytes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline Bytes high_halves(Bytes a) { return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))}; }

#elif QUIRE_ISA_avx2

struct Bytes { __m256i v; };
struct Sums { __m256i v; };

inline Bytes load_bytes(const uint32_t* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
inline Bytes same_bytes(const uint32_t* p) { return {_mm256_set1_epi32(int(*p))}; }
inline Sums sums_of(int32_t i) { return {_mm256_set1_epi32(i)}; }
inline Sums dot(Sums acc, Bytes a, Bytes b) {
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(a.v, _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(b.v, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a.v, 8), _mm256_srai_epi16(b.v, 8));
    return {_mm256_add_epi32(acc.v, _mm256_add_epi32(even, odd))};
}
inline Sums shift_left(Sums a, int n) { return {_mm256_slli_epi32(a.v, n)}; }
inline Sums shift_right(Sums a, int n) { return {_mm256_srai_epi32(a.v, n)}; }
inline Sums plus(Sums a, Sums b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Sums minus(Sums a, Sums b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline Vec as_float(Sums a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Sums nearest(Vec x) { return {_mm256_cvtps_epi32(x.v)}; }
inline void store_low_bytes(uint8_t* p, Sums a) {
    const __m256i low = _mm256_and_si256(a.v, _mm256_set1_epi32(255));
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words, words));
}
inline int32_t total(Sums a) {
    const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
    const __m128i quarter = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0xb1)));
}
inline Bytes low_halves(Bytes a) { return {_mm256_and_si256(a.v, _mm256_set1_epi8(15))}; }
inline Bytes high_halves(Bytes a) { return {_mm256_and_si256(_mm256_srli_epi16(a.v, 4), _mm256_set1_epi8(15))}; }

#else

typedef int16_t H8 __attribute__((vector_size(16)));
typedef uint16_t UH8 __attribute__((vector_size(16)));

struct Bytes { UH8 v; };
struct Sums { I4 v; };

inline Bytes load_bytes(const uint32_t* p) { Bytes r; memcpy(&r.v, p, 16); return r; }
inline Bytes same_bytes(const uint32_t* p) { return {(UH8)U4{*p, *p, *p, *p}}; }
inline Sums sums_of(int32_t i) { return {I4{i, i, i, i}}; }
inline Sums dot(Sums acc, Bytes a, Bytes b) {  // |u8 * s8| <= 255 * 128 fits 16 bits
    const I4 even = (I4)((H8)(a.v & 255) * ((H8)(b.v << 8) >> 8)), odd = (I4)((H8)(a.v >> 8) * ((H8)b.v >> 8));
    return {acc.v + ((I4)((U4)even << 16) >> 16) + (even >> 16) + ((I4)((U4)odd << 16) >> 16) + (odd >> 16)};
}
inline Sums shift_left(Sums a, int n) { return {(I4)((U4)a.v << uint32_t(n))}; }
inline Sums shift_right(Sums a, int n) { return {a.v >> n}; }
inline Sums plus(Sums a, Sums b) { return {(I4)((U4)a.v + (U4)b.v)}; }
inline Sums minus(Sums a, Sums b) { return {(I4)((U4)a.v - (U4)b.v)}; }
inline Vec as_float(Sums a) { return {F4{float(a.v[0]), float(a.v[1]), float(a.v[2]), float(a.v[3])}}; }
inline Sums nearest(Vec x) {  // |x| < 2^22
    const Vec shifter = set1(12582912.0f);
    return {(I4)((U4)add(x, shifter).v - (U4)shifter.v)};
}
inline void store_low_bytes(uint8_t* p, Sums a) { for (int i = 0; i < 4; ++i) p[i] = uint8_t(a.v[i]); }
inline int32_t total(Sums a) { return a.v[0] + a.v[1] + a.v[2] + a.v[3]; }
inline Bytes low_halves(Bytes a) { return {a.v & 0x0f0f}; }
inline Bytes high_halves(Bytes a) { return {a.v >> 4 & 0x0f0f}; }

#endif

}  // namespace
}  // namespace quire::QUIRE_ISA

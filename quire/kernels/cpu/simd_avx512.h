// Vectors of sixteen lanes: AVX-512 F, BW, VL, DQ, BF16 (and VNNI, for the integer products).
#pragma once
#include <immintrin.h>

#include "bf16.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int kLanes = 16;
struct Vec { __m512 v; };
struct Pairs { __m512i v; };

inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec set1(float x) { return {_mm512_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline __mmask16 first_lanes(int n) { return __mmask16((1u << n) - 1); }
inline Vec load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store_n(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec below(Vec a, Vec b, Vec x, Vec y) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
inline float sum(Vec a) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float largest(Vec a) {
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
// p * 2^i, where i is the integer that was added to the shifting constant to give `shifted` (see exp).
inline Vec scale_pow2(Vec p, Vec shifted, Vec shifter) {
    return {_mm512_scalef_ps(p.v, _mm512_sub_ps(shifted.v, shifter.v))};
}

inline Pairs load_pairs(const uint16_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_pairs(uint16_t* p, Pairs a) { _mm512_storeu_si512(p, a.v); }
inline Pairs broadcast_pair(const uint16_t* p) { int32_t w; memcpy(&w, p, 4); return {_mm512_set1_epi32(w)}; }
inline Pairs round_pairs(Vec even, Vec odd) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even.v));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd.v));
    return {_mm512_or_si512(low, _mm512_slli_epi32(high, 16))};
}
inline Vec dot(Vec acc, Pairs a, Pairs b) { return {_mm512_dpbf16_ps(acc.v, (__m512bh)a.v, (__m512bh)b.v)}; }
inline Vec load_bf16(const uint16_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
inline void store_bf16(uint16_t* p, Vec a) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(a.v)); }
inline void store_bf16_n(uint16_t* p, Vec a, int n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n), (__m256i)_mm512_cvtneps_pbh(a.v));
}
inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }
inline void prefetch_l2(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T1); }
inline void prefetch_to_write(const void* p) { asm volatile("prefetchw %0" : : "m"(*(const char*)p)); }

}  // namespace
}  // namespace quire::QUIRE_ISA

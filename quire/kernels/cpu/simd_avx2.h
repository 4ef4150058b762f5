// Vectors of eight lanes: AVX2, FMA, F16C. bf16 products by widening.
#pragma once
#include <immintrin.h>

#include "bf16.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int kLanes = 8;
struct Vec { __m256 v; };
struct Pairs { __m256i v; };

inline Vec zero() { return {_mm256_setzero_ps()}; }
inline Vec set1(float x) { return {_mm256_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline __m256i first_lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
inline Vec load_n(const float* p, int n) { return {_mm256_maskload_ps(p, first_lanes(n))}; }
inline void store_n(float* p, Vec a, int n) { _mm256_maskstore_ps(p, first_lanes(n), a.v); }
inline Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec below(Vec a, Vec b, Vec x, Vec y) { return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))}; }
inline Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
inline float sum(Vec a) {
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float largest(Vec a) {
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
// p * 2^i, where i is the integer that was added to the shifting constant to give `shifted` (see exp).
inline Vec scale_pow2(Vec p, Vec shifted, Vec shifter) {
    const __m256i i = _mm256_sub_epi32(_mm256_castps_si256(shifted.v), _mm256_castps_si256(shifter.v));
    const __m256i low = _mm256_srai_epi32(i, 1), high = _mm256_sub_epi32(i, low), bias = _mm256_set1_epi32(127);
    const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(low, bias), 23));
    const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(high, bias), 23));
    return {_mm256_mul_ps(_mm256_mul_ps(p.v, a), b)};
}

inline __m256i round_bits(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);  // the upper half is the bf16
}
inline Pairs load_pairs(const uint16_t* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
inline void store_pairs(uint16_t* p, Pairs a) { _mm256_storeu_si256((__m256i*)p, a.v); }
inline Pairs broadcast_pair(const uint16_t* p) { int32_t w; memcpy(&w, p, 4); return {_mm256_set1_epi32(w)}; }
inline Pairs round_pairs(Vec even, Vec odd) {
    return {_mm256_blend_epi16(_mm256_srli_epi32(round_bits(even.v), 16), round_bits(odd.v), 0xaa)};
}
inline Vec even_of(Pairs a) { return {_mm256_castsi256_ps(_mm256_slli_epi32(a.v, 16))}; }
inline Vec odd_of(Pairs a) { return {_mm256_castsi256_ps(_mm256_and_si256(a.v, _mm256_set1_epi32(int(0xffff0000u))))}; }
inline Vec dot(Vec acc, Pairs a, Pairs b) { return fma(odd_of(a), odd_of(b), fma(even_of(a), even_of(b), acc)); }
inline Vec load_bf16(const uint16_t* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16))};
}
inline void store_bf16(uint16_t* p, Vec a) {
    const __m256i upper = _mm256_srli_epi32(round_bits(a.v), 16);
    _mm_storeu_si128((__m128i*)p, _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1)));
}
inline void store_bf16_n(uint16_t* p, Vec a, int n) {
    uint16_t t[8];
    store_bf16(t, a);
    for (int i = 0; i < n; ++i) p[i] = t[i];
}
inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }
inline void prefetch_l2(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T1); }
inline void prefetch_to_write(const void* p) { asm volatile("prefetchw %0" : : "m"(*(const char*)p)); }

}  // namespace
}  // namespace quire::QUIRE_ISA

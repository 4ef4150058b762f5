// Weights of a softmax as integers: round(exp((x - peak) / temperature) * 2^42), so that sums have no order.
//
// exp is the polynomial of simd_math.h with a multiply and an add in place of each fma: every instruction set, and NumPy, give the
// same bits. A weight is at most 2^42 and a row has at most 2^20 of them, so that a sum fits 63 bits. What lies 29.8 below the
// peak weighs nothing; half a million such tokens together would miss 6e-8 of the peak's weight.
//
//   weigh(x, peak, inv_temperature)   float32 weight in [e^-30, 1]    fixed(w)  the integer, scalar; 0 for e^-30
//   store_fixed(p, w)                 fixed(lane) of every lane       Tally  no_tally() count(t, w) total(t)  sums of them
//   append_above(x, first, n, least, ids)  ids[...] = first + i for x[i] >= least, ascending; how many. May write kLanes more.
//   forbid(x, bits, n)                x[i] = -inf where bit i of `bits` is 0, n <= 32
// Versions tried: float64 sums in a fixed lane order (as fast, but tied to a lane count); scalar append (four times slower);
// vpcompressd straight to memory (microcoded on Zen 4, ten times slower than through a register).
#pragma once
#include "simd.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr int64_t kUnit = int64_t{1} << 42;  // the weight of the peak
constexpr double kMagic = 1536.0;            // 1.5 * 2^10: a double of this size has steps of 2^-42

inline Vec weigh(Vec x, Vec peak, Vec inv_temperature) {
    const Vec y = mul(sub(x, peak), inv_temperature), held = max(set1(-30.0f), y), shifter = set1(12582912.0f);
    const Vec shifted = add(mul(held, set1(1.44269504088896341f)), shifter), i = sub(shifted, shifter);
    const Vec r = sub(sub(held, mul(i, set1(0.693359375f))), mul(i, set1(-2.12194440e-4f)));
    Vec p = add(mul(set1(1.9875691500e-4f), r), set1(1.3981999507e-3f));
    p = add(mul(p, r), set1(8.3334519073e-3f));
    p = add(mul(p, r), set1(4.1665795894e-2f));
    p = add(mul(p, r), set1(1.6666665459e-1f));
    p = add(mul(p, r), set1(5.0000001201e-1f));
    p = add(add(mul(p, mul(r, r)), r), set1(1.0f));
    return scale_pow2(p, shifted, shifter);
}

inline uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}
inline uint64_t fixed(float w) { return bits_of(double(w) + kMagic) - bits_of(kMagic); }

#if QUIRE_ISA_avx512
struct Tally { __m512i low, high; };
inline Tally no_tally() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
inline Tally count(Tally t, Vec w) {
    const __m512 scaled = _mm512_mul_ps(w.v, _mm512_set1_ps(float(kUnit)));
    return {_mm512_add_epi64(t.low, _mm512_cvtps_epi64(_mm512_castps512_ps256(scaled))),
            _mm512_add_epi64(t.high, _mm512_cvtps_epi64(_mm512_extractf32x8_ps(scaled, 1)))};
}
inline uint64_t total(Tally t) { return uint64_t(_mm512_reduce_add_epi64(_mm512_add_epi64(t.low, t.high))); }
inline void store_fixed(uint64_t* p, Vec w) {
    const Tally t = count(no_tally(), w);
    _mm512_storeu_si512(p, t.low);
    _mm512_storeu_si512(p + 8, t.high);
}

inline int64_t append_above(const float* x, int64_t first, int64_t n, float least, int32_t* ids) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t found = 0;
    for (int64_t i = 0; i < n; i += kLanes) {
        const __mmask16 within = n - i < kLanes ? first_lanes(int(n - i)) : __mmask16(0xffff);
        const __mmask16 chosen = _mm512_mask_cmp_ps_mask(within, _mm512_maskz_loadu_ps(within, x + i), _mm512_set1_ps(least), _CMP_GE_OQ);
        _mm512_storeu_si512(ids + found, _mm512_maskz_compress_epi32(chosen, _mm512_add_epi32(lanes, _mm512_set1_epi32(int(first + i)))));
        found += __builtin_popcount(chosen);
    }
    return found;
}

inline void forbid(float* x, uint32_t bits, int n) {
    const uint32_t forbidden = n < 32 ? ~bits & ((1u << n) - 1) : ~bits;
    _mm512_mask_storeu_ps(x, __mmask16(forbidden), _mm512_set1_ps(-kInfinity));
    if (n > 16) _mm512_mask_storeu_ps(x + 16, __mmask16(forbidden >> 16), _mm512_set1_ps(-kInfinity));
}
#else
#if QUIRE_ISA_avx2
struct Tally { __m256i low, high; };
inline Tally no_tally() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline __m256i fixed_of(__m128 w) {
    const __m256d magic = _mm256_set1_pd(kMagic);
    return _mm256_sub_epi64(_mm256_castpd_si256(_mm256_add_pd(_mm256_cvtps_pd(w), magic)), _mm256_castpd_si256(magic));
}
inline Tally count(Tally t, Vec w) {
    return {_mm256_add_epi64(t.low, fixed_of(_mm256_castps256_ps128(w.v))),
            _mm256_add_epi64(t.high, fixed_of(_mm256_extractf128_ps(w.v, 1)))};
}
inline uint64_t total(Tally t) {
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i*)lanes, _mm256_add_epi64(t.low, t.high));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
inline void store_fixed(uint64_t* p, Vec w) {
    _mm256_storeu_si256((__m256i*)p, fixed_of(_mm256_castps256_ps128(w.v)));
    _mm256_storeu_si256((__m256i*)(p + 4), fixed_of(_mm256_extractf128_ps(w.v, 1)));
}
#else
struct Tally { uint64_t lanes[4]; };
inline Tally no_tally() { return {{0, 0, 0, 0}}; }
inline Tally count(Tally t, Vec w) {
    for (int i = 0; i < 4; ++i) t.lanes[i] += fixed(w.v[i]);
    return t;
}
inline uint64_t total(Tally t) { return t.lanes[0] + t.lanes[1] + t.lanes[2] + t.lanes[3]; }
inline void store_fixed(uint64_t* p, Vec w) {
    for (int i = 0; i < 4; ++i) p[i] = fixed(w.v[i]);
}
#endif

inline int64_t append_above(const float* x, int64_t first, int64_t n, float least, int32_t* ids) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; ++i) {  // no branch: most blocks hold few, at places that nobody can predict
        ids[found] = int32_t(first + i);
        found += x[i] >= least;
    }
    return found;
}

inline void forbid(float* x, uint32_t bits, int n) {
    for (int i = 0; i < n; ++i) x[i] = bits >> i & 1 ? x[i] : -kInfinity;
}
#endif

}  // namespace
}  // namespace quire::QUIRE_ISA

// Vectors of four lanes in the compiler's own vector types: SSE2, NEON or whatever the platform's baseline has.
#pragma once
#include "bf16.h"

namespace quire::QUIRE_ISA {
namespace {

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
typedef uint32_t U4 __attribute__((vector_size(16)));

constexpr int kLanes = 4;
struct Vec { F4 v; };
struct Pairs { U4 v; };

inline Vec set1(float x) { return {F4{x, x, x, x}}; }
inline Vec zero() { return set1(0.0f); }
inline Vec load(const float* p) { Vec r; memcpy(&r.v, p, 16); return r; }
inline void store(float* p, Vec a) { memcpy(p, &a.v, 16); }
inline Vec load_n(const float* p, int n) { float t[4] = {0, 0, 0, 0}; for (int i = 0; i < n; ++i) t[i] = p[i]; return load(t); }
inline void store_n(float* p, Vec a, int n) { for (int i = 0; i < n; ++i) p[i] = a.v[i]; }
inline Vec add(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec sub(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec mul(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec div(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
inline Vec select(I4 mask, Vec x, Vec y) { return {(F4)(((I4)x.v & mask) | ((I4)y.v & ~mask))}; }
inline Vec max(Vec a, Vec b) { return select(a.v > b.v, a, b); }
inline Vec min(Vec a, Vec b) { return select(a.v < b.v, a, b); }
inline Vec below(Vec a, Vec b, Vec x, Vec y) { return select(a.v < b.v, x, y); }
inline Vec sqrt(Vec a) { for (int i = 0; i < 4; ++i) a.v[i] = __builtin_sqrtf(a.v[i]); return a; }
inline float sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float largest(Vec a) {
    float m = a.v[0];
    for (int i = 1; i < 4; ++i) m = a.v[i] > m ? a.v[i] : m;
    return m;
}
// p * 2^i, where i is the integer that was added to the shifting constant to give `shifted` (see exp).
inline Vec scale_pow2(Vec p, Vec shifted, Vec shifter) {
    const I4 i = (I4)shifted.v - (I4)shifter.v, low = i >> 1, high = i - low;
    return {p.v * (F4)((low + 127) << 23) * (F4)((high + 127) << 23)};
}

inline U4 round_bits(F4 x) {
    const U4 bits = (U4)x, rounded = bits + 0x7fffu + (bits >> 16 & 1);
    const U4 nan = (U4)((I4)(bits & 0x7fffffffu) > (int32_t)0x7f800000);
    return ((bits | 0x400000u) & nan) | (rounded & ~nan);  // the upper half is the bf16
}
inline Pairs load_pairs(const uint16_t* p) { Pairs r; memcpy(&r.v, p, 16); return r; }
inline void store_pairs(uint16_t* p, Pairs a) { memcpy(p, &a.v, 16); }
inline Pairs broadcast_pair(const uint16_t* p) { uint32_t w; memcpy(&w, p, 4); return {U4{w, w, w, w}}; }
inline Pairs round_pairs(Vec even, Vec odd) { return {round_bits(even.v) >> 16 | (round_bits(odd.v) & 0xffff0000u)}; }
inline Vec even_of(Pairs a) { return {(F4)(a.v << 16)}; }
inline Vec odd_of(Pairs a) { return {(F4)(a.v & 0xffff0000u)}; }
inline Vec dot(Vec acc, Pairs a, Pairs b) { return fma(odd_of(a), odd_of(b), fma(even_of(a), even_of(b), acc)); }
inline Vec load_bf16(const uint16_t* p) { return {(F4)(U4{p[0], p[1], p[2], p[3]} << 16)}; }
inline void store_bf16_n(uint16_t* p, Vec a, int n) { for (int i = 0; i < n; ++i) p[i] = bf16_bits(a.v[i]); }
inline void store_bf16(uint16_t* p, Vec a) { store_bf16_n(p, a, 4); }
inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
inline void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }
inline void prefetch_to_write(const void* p) { __builtin_prefetch(p, 1, 3); }

}  // namespace
}  // namespace quire::QUIRE_ISA

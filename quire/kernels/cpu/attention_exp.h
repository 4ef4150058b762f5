// 2^x for the softmax of attention: scores are scaled by log2(e) as well, so that nothing but 2^x is needed.
//
// 2^x = 2^i * 2^f, i = round(x), f = x - i exactly, |f| <= 1/2; 2^f by a polynomial 1 + f (c1 + f (c2 + ...)) with the least largest
// relative error: of degree 6 2e-9 (1.3 units of the last place with roundings), of degree 4 2.9e-6, a thousandth of what rounding
// a weight to bfloat16 costs and a fifth of int8 pages' 16 bits. 2^0 is exactly 1. Below -150 0, also for -inf; NaN stays NaN.
// The same operations in every lane. Instructions of a vector: 10, simd_math.h's exp takes 17 and a multiplication more.
// Included by attention_page.h alone; everything is in its unnamed namespace.
// Knows: simd.h's names. Does not know: scores.
#pragma once
#include "simd.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kUnseen = -3.40282347e38f;  // the score of a key that a row does not see: weighs nothing, and is finite

template <int kDegree>
inline Vec exp2(Vec x) {
    static_assert(kDegree == 4 || kDegree == 6);
    const Vec shifter = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const Vec held = max(set1(-150.0f), x);
    const Vec shifted = add(held, shifter);
    const Vec f = sub(held, sub(shifted, shifter));
    Vec p;
    if (kDegree == 6) {
        p = fma(set1(1.535336196e-4f), f, set1(1.339887502e-3f));
        p = fma(p, f, set1(9.618436918e-3f));
        p = fma(p, f, set1(5.550332367e-2f));
        p = fma(p, f, set1(2.402264774e-1f));
        p = fma(p, f, set1(6.931471825e-1f));
    } else {
        p = fma(set1(9.582852945e-3f), f, set1(5.590642616e-2f));
        p = fma(p, f, set1(2.402409911e-1f));
        p = fma(p, f, set1(6.931241751e-1f));
    }
    return scale_pow2(fma(p, f, set1(1.0f)), shifted, shifter);
}

// One value; by whoever wants the same bits as a lane.
template <int kDegree>
inline float exp2_of(float x) {
    float lanes[kLanes];
    store(lanes, exp2<kDegree>(set1(x)));
    return lanes[0];
}

}  // namespace
}  // namespace quire::QUIRE_ISA

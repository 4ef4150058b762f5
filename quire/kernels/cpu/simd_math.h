// exp for any Vec: the same sequence of operations on every instruction set and in every lane.
//
// exp(x) = 2^i * exp(r), i = round(x / ln 2), |r| <= ln(2)/2; exp(r) by the polynomial of degree 7 of the Cephes library's expf.
// Largest error against double exp, every 97th float of [-87.33, 88.72]: 1.01 ulp (0.96 on generic).
// Below -87.33654 (the least normal result) exactly 0, also for -inf; above 88.72284 +inf; NaN stays NaN.
// Knows: simd.h's names. Does not know: the instruction set.
#pragma once

namespace quire::QUIRE_ISA {
namespace {

inline Vec exp(Vec x) {
    const Vec shifter = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const Vec held = max(set1(-88.0f), min(set1(89.0f), x));
    const Vec shifted = fma(held, set1(1.44269504088896341f), shifter);
    const Vec i = sub(shifted, shifter);
    const Vec r = fma(i, set1(2.12194440e-4f), fma(i, set1(-0.693359375f), held));
    Vec p = fma(set1(1.9875691500e-4f), r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = add(fma(p, mul(r, r), r), set1(1.0f));
    return below(x, set1(-87.33654f), zero(), scale_pow2(p, shifted, shifter));
}

}  // namespace
}  // namespace quire::QUIRE_ISA

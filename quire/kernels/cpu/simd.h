// Vectors of one instruction set, the same names on each: the file compiled decides by QUIRE_ISA_<isa> which one.
//
//   Vec             kLanes float32 lanes.  zero() set1(x) load(p) store(p, v) load_n(p, n) store_n(p, v, n)  (0 <= n <= kLanes;
//                   lanes from n on read as 0 and are not touched in memory; any alignment)
//                   add sub mul div fma(a, b, c) = a*b + c  max min sqrt  sum(v) largest(v)  (fixed order)
//                   below(a, b, x, y) = a < b ? x : y       exp(v) silu parts in simd_math.h
//   Pairs           kLanes pairs of bf16, the even element in the low half.  load_pairs(p) store_pairs(p, v) (2*kLanes values)
//                   broadcast_pair(p)  round_pairs(even, odd)   dot(acc, a, b) = acc + a.even*b.even + a.odd*b.odd
//   bf16            load_bf16(p) -> Vec   store_bf16(p, v)   store_bf16_n(p, v, n)   one: bf16_bits(float)
//
// Lane i of every function depends on lane i of its arguments alone (but sum and largest), so a tail gives the same bits as a
// full vector. fma is one rounding on avx2 and avx512, two on generic; dot is vdpbf16ps on avx512 (which takes denormal bf16 as
// zero), two fma's, even first, elsewhere. max and min return their second argument when either is NaN.
// amx has the vectors of avx512 (both QUIRE_ISA_amx and QUIRE_ISA_avx512 are defined there) and tiles besides (tiles.h).
// Everything is in an unnamed namespace: nothing of it may be shared between instruction sets by the linker.
// Knows: instructions. Does not know: ops.
#pragma once
#include <cstdint>
#include <cstring>

#if QUIRE_ISA_avx512
#include "simd_avx512.h"
#elif QUIRE_ISA_avx2
#include "simd_avx2.h"
#else
#include "simd_generic.h"
#endif

#include "simd_math.h"

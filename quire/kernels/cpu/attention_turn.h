// Turns 16 rows of 16 words over, so that lanes become rows: keys as a page holds them (a token's words side by side) into what
// lanes of tokens want, queries into what lanes of rows want.
//     turn<kFull>(from, stride, last, to, to_stride):  to[w * to_stride + i] = from[min(i, last) * stride + w],  w, i from 0 to 15
// 16 x 16 words on avx512: 64 shuffles, about 70 cycles.
// Included by attention_page.h alone; everything is in its unnamed namespace.
// Knows: words. Does not know: what they mean.
#pragma once
#include "simd.h"

namespace quire::QUIRE_ISA {
namespace {

#if QUIRE_ISA_avx512

template <bool kFull>
inline void turn(const uint32_t* from, int stride, int last, uint32_t* to, int to_stride) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + int64_t{kFull || i < last ? i : last} * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // a[i + j]: 128 bits L hold word 4 L + j of rows i to i + 3
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const __m512i even0 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88), even1 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
        const __m512i odd0 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd), odd1 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
        _mm512_storeu_si512(to + j * to_stride, _mm512_shuffle_i32x4(even0, even1, 0x88));
        _mm512_storeu_si512(to + (4 + j) * to_stride, _mm512_shuffle_i32x4(odd0, odd1, 0x88));
        _mm512_storeu_si512(to + (8 + j) * to_stride, _mm512_shuffle_i32x4(even0, even1, 0xdd));
        _mm512_storeu_si512(to + (12 + j) * to_stride, _mm512_shuffle_i32x4(odd0, odd1, 0xdd));
    }
}

#elif QUIRE_ISA_avx2

// Eight rows of eight words; `first` is the number of the first row.
template <bool kFull>
inline void turn_eight(const uint32_t* from, int stride, int first, int last, uint32_t* to, int to_stride) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps((const float*)(from + int64_t{kFull || first + i < last ? first + i : last} * stride));
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {  // a[i + j]: 128 bits L hold word 4 L + j of rows i to i + 3
        a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
        a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
        a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
        a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
    for (int j = 0; j < 4; ++j) {
        _mm256_storeu_ps((float*)(to + j * to_stride), _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
        _mm256_storeu_ps((float*)(to + (4 + j) * to_stride), _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
    }
}

template <bool kFull>
inline void turn(const uint32_t* from, int stride, int last, uint32_t* to, int to_stride) {
    for (int row = 0; row < 16; row += 8) {
        for (int w = 0; w < 16; w += 8) turn_eight<kFull>(from + w, stride, row, last, to + w * to_stride + row, to_stride);
    }
}

#else

template <bool kFull>
inline void turn(const uint32_t* from, int stride, int last, uint32_t* to, int to_stride) {
    for (int w = 0; w < 16; ++w) {
        for (int i = 0; i < 16; ++i) to[w * to_stride + i] = from[int64_t{kFull || i < last ? i : last} * stride + w];
    }
}

#endif

}  // namespace
}  // namespace quire::QUIRE_ISA

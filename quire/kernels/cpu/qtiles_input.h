// Activations of int8 and int4 products as AMX tiles read them: rounded as qinput.h says, bit for bit, in blocks of 16 rows.
//
// Layout: for each group of kInputGroup inputs, for each block of a task (qlinear_tiles.h)
//     [2][16 rows][64] int8, zeros behind the last input | [16] float32 scales | [sections][16] int32 or float32
// The last is what qinput.h calls the sum of a section: what integer sums begin with, or with offsets the sum of q.
// Knows: rows. Does not know: threads, weights but their QFormat.
#pragma once
#include "qinput.h"
#include "tiles.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kTiledGroup = 2 * kTileBytes;  // bytes of a block's inputs of one group

inline int64_t tiled_group_bytes(int64_t section) { return kTiledGroup + 64 * (1 + kInputGroup / section); }

// Where a row's part of a group stands.
struct TiledRow {
    char* quads;    // 64 bytes in each of two tiles
    float* scale;
    int32_t* sums;  // every 16th
};

inline TiledRow tiled_row(char* group, int64_t row) {
    return {group + row * kTileRowBytes, reinterpret_cast<float*>(group + kTiledGroup) + row,
            reinterpret_cast<int32_t*>(group + kTiledGroup + 64) + row};
}

// A sum of q as the epilogue wants it.
inline int32_t section_start(const QFormat& format, int32_t total) {
    if (format.symmetric) return -int32_t(q_zero(format)) * total;
    const float sum = float(total);
    int32_t bits;
    memcpy(&bits, &sum, 4);
    return bits;
}

// A group that is not whole.
inline void tile_part(const QFormat& format, int64_t section, const float* x, int64_t length, const TiledRow& to) {
    alignas(64) float q[kInputGroup] = {};
    const float scale = round_group(x, length, q_padded(length), q);
    *to.scale = scale;
    for (int64_t i = 0; i < kInputGroup; i += kLanes) {
        const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_load_ps(q + i)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to.quads + i / 64 * kTileBytes + i % 64), bytes);
    }
    for (int64_t s = 0; s < length; s += section) {
        const float total = sum_of(q + s, shorter(length - s, section));
        to.sums[s / section * 16] = section_start(format, scale == scale ? int32_t(total) : 0);
    }
}

// Whole groups of R rows, one or four, whose places follow each other.
template <int R>
inline void tile_groups(const QFormat& format, int64_t section, const float* const (&x)[R], const TiledRow& to) {
    alignas(16) float inverses[4];
    choose_scales<R>(x, reinterpret_cast<char*>(to.scale), inverses);
    const __m512i ones = _mm512_set1_epi8(1);
    for (int r = 0; r < R; ++r) {
        __m512i quads[2], sums[2];
        for (int half = 0; half < 2; ++half) {
            const __m512i packed[1] = {packed_64(x[r] + 64 * half, inverses[r])};
            __m512i in_place[1];
            in_order(packed, in_place);
            quads[half] = in_place[0];
            _mm512_storeu_si512(to.quads + r * kTileRowBytes + half * kTileBytes, quads[half]);
            sums[half] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, quads[half]);
        }
        int32_t* const out = to.sums + r;
        if (section == kInputGroup) {
            *out = section_start(format, _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1])));
            continue;
        }
        for (int half = 0; half < 2; ++half) {
            if (section == 64) {
                out[16 * half] = section_start(format, _mm512_reduce_add_epi32(sums[half]));
                continue;
            }
            out[32 * half] = section_start(format, _mm512_mask_reduce_add_epi32(0x00ff, sums[half]));
            out[32 * half + 16] = section_start(format, _mm512_mask_reduce_add_epi32(0xff00, sums[half]));
        }
    }
}

}  // namespace
}  // namespace quire::QUIRE_ISA

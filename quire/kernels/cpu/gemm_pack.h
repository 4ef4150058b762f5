// Rows of x on their way into gemm.h: made (linear_input.h), rounded, and interleaved in blocks of up to P::kRows rows,
// [rows / kRows][steps][rows of the block][kDepth]; a last step that k does not fill is filled with zeros.
//
// A thread makes one row, rounds it while it is in L1, and interleaves a block while it is in L2. A block of one row is interleaved
// as it stands. Eight rows of 4-byte steps are turned in registers on avx512.
// Measured on two cores of a 2.6 GHz AMD EPYC (Zen 4), share of a product of 512 rows, 2048 -> 1024 / 3072 -> 1024 with silu_mul:
//   now                                                      2 %    8 % (the gate's and up's 12.6 MB come from DRAM)
//   every row by itself, one 4-byte copy a step              6 %   11 %
// Knows: a Product's step. Does not know: weights.
#pragma once
#include "linear_input.h"
#include "simd.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kSmallPack = 1 << 14;  // elements of x that one thread rounds by itself
constexpr int64_t kPackChunks = 4;       // chunks a thread of what is more

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

#if QUIRE_ISA_avx512
// Sixteen steps of eight rows, a 4-byte step each: in[row] is sixteen steps of a row, out[step][row].
inline void turn_8x16(const char* in, int64_t row_bytes, char* out) {
    __m512i r[8], t[8];
    for (int i = 0; i < 8; ++i) r[i] = _mm512_loadu_si512(in + i * row_bytes);
    for (int i = 0; i < 8; i += 2) {  // t: rows i, i + 1 of steps 0, 1 (even) and 2, 3 (odd) of every quarter
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {  // r: rows i to i + 3 of step j of every quarter, j = 0 to 3
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // A quarter of r[j] is half of a step's eight rows, the same quarter of r[4 + j] the other half: steps 4 * quarter + j.
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (int j = 0; j < 4; ++j) {
        const __m512i first = _mm512_permutex2var_epi64(r[j], low, r[4 + j]), last = _mm512_permutex2var_epi64(r[j], high, r[4 + j]);
        _mm256_storeu_si256((__m256i*)(out + 32 * j), _mm512_castsi512_si256(first));
        _mm256_storeu_si256((__m256i*)(out + 32 * (4 + j)), _mm512_extracti64x4_epi64(first, 1));
        _mm256_storeu_si256((__m256i*)(out + 32 * (8 + j)), _mm512_castsi512_si256(last));
        _mm256_storeu_si256((__m256i*)(out + 32 * (12 + j)), _mm512_extracti64x4_epi64(last, 1));
    }
}
#endif

// `in` is [rows][steps][kBytes], `out` [steps][rows][kBytes].
template <int kBytes>
void interleave(const char* in, int64_t rows, int64_t steps, char* out) {
    int64_t s = 0;
#if QUIRE_ISA_avx512
    if (kBytes == 4 && rows == 8) {
        for (; s + 16 <= steps; s += 16) turn_8x16(in + s * 4, steps * 4, out + s * 32);
    }
#endif
    for (; s < steps; ++s) {
        for (int64_t r = 0; r < rows; ++r) memcpy(out + (s * rows + r) * kBytes, in + (r * steps + s) * kBytes, kBytes);
    }
}

// Where a chunk of blocks makes its rows: [k] as they are, [kRows][steps][kDepth] rounded.
template <class P>
struct PackBuffer {
    static int64_t bytes(int64_t k) {
        const int64_t row = ceil_div(k, P::kDepth) * P::kDepth;
        return ceil_div(k * int64_t(sizeof(float)), 64) * 64 + ceil_div(P::kRows * row * int64_t(sizeof(typename P::A)), 64) * 64;
    }
    float* made;
    typename P::A* rounded;
    PackBuffer(char* at, int64_t k)
        : made(reinterpret_cast<float*>(at)),
          rounded(reinterpret_cast<typename P::A*>(at + ceil_div(k * int64_t(sizeof(float)), 64) * 64)) {}
};

// One block of rows.
template <class P>
void pack_block(const Linear& g, int64_t first, int64_t rows, typename P::A* out, const PackBuffer<P>& buffer) {
    const int64_t steps = ceil_div(g.k, P::kDepth);
    typename P::A* rounded = rows == 1 ? out : buffer.rounded;
    for (int64_t r = 0; r < rows; ++r) P::round(input_row(g, first + r, buffer.made), g.k, rounded + r * steps * P::kDepth);
    if (rows == 1) return;
    constexpr int kBytes = P::kDepth * sizeof(typename P::A);
    interleave<kBytes>(reinterpret_cast<const char*>(rounded), rows, steps, reinterpret_cast<char*>(out));
}

// The rows of g, packed in the device's scratch.
template <class P>
const typename P::A* packed_rows(Runtime& runtime, const Linear& g) {
    const int64_t steps = ceil_div(g.k, P::kDepth), blocks = ceil_div(g.rows, P::kRows);
    const int64_t num_chunks = g.rows * g.k <= kSmallPack ? 1 : smaller(blocks, kPackChunks * runtime.pool.num_threads());
    const int64_t packed_bytes = ceil_div(g.rows * steps * P::kDepth * int64_t(sizeof(typename P::A)), 64) * 64;
    char* scratch = static_cast<char*>(runtime.scratch.at_least(size_t(packed_bytes + num_chunks * PackBuffer<P>::bytes(g.k))));
    auto* packed = reinterpret_cast<typename P::A*>(scratch);
    parallel(runtime.pool, num_chunks, [&](int64_t chunk) {
        const PackBuffer<P> buffer(scratch + packed_bytes + chunk * PackBuffer<P>::bytes(g.k), g.k);
        for (int64_t i = blocks * chunk / num_chunks; i < blocks * (chunk + 1) / num_chunks; ++i) {
            const int64_t first = i * P::kRows;
            pack_block<P>(g, first, smaller(P::kRows, g.rows - first), packed + first * steps * P::kDepth, buffer);
        }
    });
    return packed;
}

}  // namespace
}  // namespace quire::QUIRE_ISA

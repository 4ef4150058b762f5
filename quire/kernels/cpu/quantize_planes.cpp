// quantize_planes: from a checkpoint's rows to the two planes of qplanes.h.
//
//   scale   (largest magnitude) / 128 or, where the other sign's is near it, that / 119, whichever is larger, rounded up to bfloat16;
//           negative when the largest magnitude is positive, so that what it becomes is -128
//   q       w / scale rounded to nearest, ties to even, in -128..119;  high = floor((q + 8) / 16) in -8..7;  low = q - 16 * high
// Stored is 16 * scale, which is exact. A scale below the smallest normal float32 leaves zeros.
//
// Bytes are the same on every instruction set and for any number of threads, as in quantize.cpp.
// Knows: a matrix. Does not know: layers, files.
#include "qplanes.h"
#include "quantize_block.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr float kLeast = -128.0f, kMost = 119.0f;

// Scales of the columns into `group.scale`, 16 times that into `out` as bfloat16.
void choose_scales(Group& group, uint8_t* out) {
    for (int64_t j = 0; j < kPanel; ++j) {
        const float most = group.most[j], least = -group.least[j];
        const bool positive = most > least;
        const float large = (positive ? most : least) / -kLeast, small = (positive ? least : most) / kMost;
        const float exact = large > small ? large : small;
        uint32_t bits;
        memcpy(&bits, &exact, 4);
        const float scale = bf16_value(uint16_t((bits + 0xffff) >> 16));
        group.scale[j] = positive ? -scale : scale;
        const uint16_t stored = bf16_bits(16.0f * group.scale[j]);
        memcpy(out + 2 * j, &stored, 2);
    }
}

// floor((q + 8) / 16): the quarter keeps it from ties.
inline Vec high_of(Vec q) { return rounded(mul(add(q, set1(0.25f)), set1(0.0625f))); }

// Both planes of a block of `count` k: steps of the panel's high one, and [k][48] of the low one, 8 added.
void encode(const Group& group, const float* x, int64_t count, uint8_t* high, uint8_t* low) {
    for (int64_t c = 0; c < kPanel; c += kLanes) {
        const Vec inverse = inverse_of(load(group.scale + c));
        for (int64_t s = 0; s < q_padded(count) / 8; ++s) {
            Ints bytes = ints(0);
            for (int64_t i = 0; i < 8; ++i) {
                const int64_t k = s * 8 + i;
                const Vec w = k < count ? load(x + k * kPanel + c) : zero();
                const Vec q = within(rounded(mul(w, inverse)), kLeast, kMost), top = high_of(q);
                bytes = put_byte(bytes, rounded_bits(add(top, set1(8.0f))), int(i % 4 * 8 + i / 4 * 4));
                alignas(64) float rest[kLanes];
                store(rest, add(sub(q, mul(top, set1(16.0f))), set1(8.0f)));
                for (int64_t j = 0; j < kLanes; ++j) low[k * kPanel + c + j] = uint8_t(int32_t(rest[j]));
            }
            store_ints(high + s * kQStepBytes + 4 * c, bytes);
        }
    }
}

// A group of the low rows of a panel, from [k][48].
void put_low(const uint8_t* low, int64_t columns, int64_t row_bytes, uint8_t* out) {
    for (int64_t j = 0; j < columns; ++j, out += row_bytes) {
        for (int64_t i = 0; i < kLowGroupBytes; ++i) {
            out[i] = uint8_t(low[i * kPanel + j] | low[(i + kLowGroupBytes) * kPanel + j] << 4);
        }
    }
}

void quantize_panel(const Quantize& g, int64_t panel) {
    const int64_t k = g.format.k, first = panel * kPanel, columns = g.n - first < kPanel ? g.n - first : kPanel;
    Block block;
    Group group;
    block.k = k;
    find_rows(g.parts, g.num_parts, k, first, kPanel, block.rows);
    group.first = 0;
    group.length = k;
    if (!find_range(block, group)) __atomic_store_n(g.not_finite, 1, __ATOMIC_RELAXED);
    uint8_t* high = g.out + panel * q_panel_bytes(g.format);
    uint8_t* low = g.out + high_bytes(g.n, k) + first * low_row_bytes(k);
    choose_scales(group, high + q_scales_at(g.format, 0));
    memcpy(g.out + scales_begin(g.n, k) + 2 * first, high + q_scales_at(g.format, 0), size_t(2 * columns));
    each_block(block, group, [&](const float* x, int64_t count) {
        uint8_t lows[kBlockK * kPanel];
        memset(lows, 8, sizeof(lows));
        encode(group, x, count, high, lows);
        put_low(lows, columns, low_row_bytes(k), low);
        high += q_padded(count) / 8 * kQStepBytes;
        low += kLowGroupBytes;
    });
}

}  // namespace

void quantize_planes(Runtime& runtime, const Quantize& args) {
    static_assert(kBlockK == kInputGroup);
    parallel(runtime.pool, num_panels(args.n), [&](int64_t panel) { quantize_panel(args, panel); });
}

}  // namespace quire::QUIRE_ISA

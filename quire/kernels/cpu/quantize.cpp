// quantize: from a checkpoint's rows to panels of int8 or int4; layout in qformat.h.
//
//   int8              scale = max|w| / 127, rounded up to bfloat16 so that nothing is clipped
//   int4              q in -8..7; for each of kTries divisors d, q = w * (-d / extreme) rounded, where extreme is the weight of
//                     largest magnitude, and the scale that fits these q best in least squares; the d of least error wins
//   int4 with offset  q in 0..15; the range [min, max] narrowed on both sides in kTries ways, scale and offset fitted likewise
// Then q = w / scale (or (w - offset) / scale) rounded to nearest, ties to even, with scale and offset as stored in bfloat16.
// A scale below the smallest normal float32 is zero, and so are its weights. Weights that are infinite or NaN are reported.
//
// A lane is a column: a block of k of 48 rows is transposed once, then everything goes down the columns, k ascending, in
// multiplies and adds that are never fused: the bytes are the same on every instruction set and for any number of threads.
//
// Measured on one core of a 2.6 GHz AMD EPYC (Zen 4), avx512, from bfloat16 in memory, page faults included, G weights/s: int8 per
// channel 0.45, in groups of 128 0.57; int4 with 12 tries per channel 0.26, in groups of 128 0.34, of 32 0.32, with offsets 0.25.
// Error of int4, root of mean squares over that of the weights, per cent; Gaussian weights in groups of 32 / 128 / 1024, and with
// heavy tails (Student's t of 5 degrees) in groups of 128:
//   d = 8 alone                                 8.39   10.18   12.31   14.65
//   12 tries of d, from 8.75 in steps of 0.25   8.09    9.76   11.48   14.11
//   and 12 more of negative d                   8.09    9.76   11.48   14.10
//   12 from 9 in steps of 0.4                   8.09    9.72   11.28   14.03   better for long groups: for the next layout
// Knows: a matrix. Does not know: layers, files.
#include "quantize_block.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kVectors = kPanel / kLanes;
constexpr int kTries = 12;

void choose_int8(Group& group) {
    for (int64_t j = 0; j < kPanel; ++j) {
        const float largest = group.most[j] > -group.least[j] ? group.most[j] : -group.least[j];
        const float exact = largest / 127.0f;
        uint32_t bits;
        memcpy(&bits, &exact, 4);
        group.scale[j] = bf16_value(uint16_t((bits + 0xffff) >> 16));
    }
}

// Divisors of the largest magnitude: from clipping none of it to a quarter.
inline float divisor(int i) { return 8.75f - 0.25f * float(i); }

// Sums of w * q and of q * q of one column vector over all tries, then the best scale.
void choose_symmetric(Block& block, Group& group) {
    alignas(64) float products[kTries][kPanel] = {}, squares[kTries][kPanel] = {}, inverses[kTries][kPanel];
    for (int64_t c = 0; c < kPanel; c += kLanes) {
        const Vec least = load(group.least + c), most = load(group.most + c);
        const Vec inverse = inverse_of(below(most, negative(least), least, most));
        for (int t = 0; t < kTries; ++t) store(inverses[t] + c, mul(inverse, set1(-divisor(t))));
    }
    each_block(block, group, [&](const float* x, int64_t count) {
        for (int64_t c = 0; c < kPanel; c += kLanes) {
            for (int t = 0; t < kTries; ++t) {
                const Vec inverse = load(inverses[t] + c);
                Vec product = load(products[t] + c), square = load(squares[t] + c);
                for (int64_t i = 0; i < count; ++i) {
                    const Vec w = load(x + i * kPanel + c), q = within(rounded(mul(w, inverse)), -8.0f, 7.0f);
                    product = add(product, mul(w, q));
                    square = add(square, mul(q, q));
                }
                store(products[t] + c, product);
                store(squares[t] + c, square);
            }
        }
    });
    for (int64_t c = 0; c < kPanel; c += kLanes) {
        Vec best = set1(-1.0f), scale = zero();
        for (int t = 0; t < kTries; ++t) {
            const Vec product = load(products[t] + c), square = max(load(squares[t] + c), set1(1.0f));
            const Vec fit = div(product, square), gain = mul(product, fit);
            scale = below(best, gain, fit, scale);
            best = max(gain, best);
        }
        store(group.scale + c, scale);
    }
}

// The part of the range that try t keeps.
inline float kept(int t) { return 1.0f - 0.03f * float(t); }

struct Fit {
    Vec scale, offset, error;
};

// Least squares for w ~ scale * q + offset over n weights.
inline Fit fit(Vec n, Vec q, Vec qq, Vec wq, Vec w) {
    const Vec spread = sub(mul(n, qq), mul(q, q)), level = below(set1(0.5f), spread, spread, set1(1.0f));
    const Vec slope = below(set1(0.5f), spread, div(sub(mul(n, wq), mul(w, q)), level), zero());
    const Vec offset = div(sub(w, mul(slope, q)), n);
    return {slope, offset, negative(add(mul(offset, w), mul(slope, wq)))};  // without the sum of w * w, which all tries share
}

// One try of one column vector of a group that lies in one block.
inline Fit try_range(const float* x, int64_t count, Vec least, Vec inverse) {
    Vec q_sum = zero(), qq_sum = zero(), wq_sum = zero(), w_sum = zero();
    for (int64_t i = 0; i < count; ++i) {
        const Vec w = load(x + i * kPanel), q = within(rounded(mul(sub(w, least), inverse)), 0.0f, 15.0f);
        q_sum = add(q_sum, q);
        qq_sum = add(qq_sum, mul(q, q));
        wq_sum = add(wq_sum, mul(w, q));
        w_sum = add(w_sum, w);
    }
    return fit(set1(float(count)), q_sum, qq_sum, wq_sum, w_sum);
}

void choose_asymmetric(Block& block, Group& group) {
    each_block(block, group, [&](const float* x, int64_t count) {
        for (int64_t c = 0; c < kPanel; c += kLanes) {
            const Vec least = load(group.least + c), most = load(group.most + c);
            const Vec middle = mul(add(least, most), set1(0.5f)), half = mul(sub(most, least), set1(0.5f));
            Fit best = {zero(), zero(), set1(3.0e38f)};
            for (int t = 0; t < kTries; ++t) {
                const Vec reach = mul(half, set1(kept(t)));
                const Vec inverse = inverse_of(mul(reach, set1(2.0f / 15.0f)));
                const Fit now = try_range(x + c, count, sub(middle, reach), inverse);
                best.scale = below(now.error, best.error, now.scale, best.scale);
                best.offset = below(now.error, best.error, now.offset, best.offset);
                best.error = min(now.error, best.error);
            }
            store(group.scale + c, best.scale);
            store(group.offset + c, best.offset);
        }
    });
}

// Scales and offsets to their stored form, and back into `group` as what they now are.
void store_scales(const QFormat& format, Group& group, uint8_t* out) {
    for (int64_t j = 0; j < kPanel; ++j) {
        const uint16_t scale = bf16_bits(group.scale[j]);
        memcpy(out + 2 * j, &scale, 2);
        group.scale[j] = bf16_value(scale);
        if (format.symmetric) continue;
        const uint16_t offset = bf16_bits(group.offset[j]);
        memcpy(out + 2 * (kPanel + j), &offset, 2);
        group.offset[j] = bf16_value(offset);
    }
}

// q of every weight of the group, with its zero added, into `out`.
void encode(const QFormat& format, Block& block, const Group& group, uint8_t* out) {
    const float least = format.bits == 8 ? -127.0f : format.symmetric ? -8.0f : 0.0f;
    const float most = format.bits == 8 ? 127.0f : format.symmetric ? 7.0f : 15.0f;
    const Vec zero_point = set1(float(q_zero(format)));
    each_block(block, group, [&](const float* x, int64_t count) {
        const int64_t depth = 32 / format.bits, steps = (q_padded(count) + depth - 1) / depth;
        for (int64_t c = 0; c < kPanel; c += kLanes) {
            const Vec inverse = inverse_of(load(group.scale + c)), offset = load(group.offset + c);
            for (int64_t s = 0; s < steps; ++s) {
                Ints bytes = ints(0);
                for (int64_t i = 0; i < depth; ++i) {
                    const int64_t k = s * depth + i;
                    const Vec w = k < count ? load(x + k * kPanel + c) : offset;
                    const Vec q = within(rounded(mul(sub(w, offset), inverse)), least, most);
                    bytes = put_byte(bytes, rounded_bits(add(q, zero_point)), int(i % 4 * 8 + i / 4 * 4));
                }
                store_ints(out + s * kQStepBytes + 4 * c, bytes);
            }
        }
        out += steps * kQStepBytes;
    });
}

bool quantize_group(const QFormat& format, Block& block, Group& group, uint8_t* panel) {
    for (int64_t j = 0; j < kPanel; ++j) group.offset[j] = 0.0f;
    const bool finite = find_range(block, group);
    if (format.bits == 8) choose_int8(group);
    else if (format.symmetric) choose_symmetric(block, group);
    else choose_asymmetric(block, group);
    store_scales(format, group, panel + q_scales_at(format, group.first));
    encode(format, block, group, panel + q_weights_at(format, group.first));
    return finite;
}

void quantize_panel(const Quantize& g, int64_t panel) {
    Block block;
    Group group;
    block.k = g.format.k;
    find_rows(g.parts, g.num_parts, g.format.k, panel * kPanel, kPanel, block.rows);
    uint8_t* out = g.out + panel * q_panel_bytes(g.format);
    const int64_t length = q_group_length(g.format);
    for (int64_t k = 0; k < g.format.k; k += length) {
        group.first = k;
        group.length = g.format.k - k < length ? g.format.k - k : length;
        if (!quantize_group(g.format, block, group, out)) __atomic_store_n(g.not_finite, 1, __ATOMIC_RELAXED);
    }
}

}  // namespace

void quantize(Runtime& runtime, const Quantize& args) {
    const int64_t panels = (args.n + kPanel - 1) / kPanel;
    parallel(runtime.pool, panels, [&](int64_t panel) { quantize_panel(args, panel); });
}

}  // namespace quire::QUIRE_ISA

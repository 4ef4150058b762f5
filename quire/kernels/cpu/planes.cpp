// linear_planes and refine: logits from a head in two planes (qplanes.h).
//
//     every column    the product with the high plane, as int4 per channel makes it; the last bit of the logit cleared
//     the best        by the rule of planes_best.h: plus the product with the low plane (planes_low.h)
// refine makes more columns exact: those that are named, the best of those that a mask allows (chosen in the same way among them
// alone), or all. Asking twice changes nothing, and no column's bits depend on how it came to be exact.
//
// Versions tried, Qwen3-0.6B's head (151,936 x 1,024), two threads, with groups of 32 in the high plane: 1.61 ms for one row instead
// of 1.41 (int8 2.99), 13.8 for 32 instead of 12.5 (12.5).
// Knows: heads. Does not know: what a logit is for.
#include "planes_best.h"
#include "planes_low.h"
#include "qlinear.h"
#include "sample_weights.h"

namespace quire::QUIRE_ISA {
namespace {

using High = Quantized<4, Scales::channel>;

constexpr int64_t kSegment = 128;  // panels that one chunk looks through
constexpr int64_t kFetched = 12;  // columns whose low rows are on their way

// Scratch of one launch.
struct Workings {
    float *maxima, *least;  // [rows][panels] largest logit of a panel; [rows] what a chosen column reaches
    char* lows;             // [rows] of low_scratch_bytes(k)
    int64_t panels;

    static int64_t numbers_bytes(const Linear& g) { return (4 * g.rows * (num_panels(g.n) + 1) + 63) / 64 * 64; }
    static int64_t bytes(const Linear& g) { return numbers_bytes(g) + g.rows * low_scratch_bytes(g.k); }

    Workings(const Linear& g, char* scratch)
        : maxima(reinterpret_cast<float*>(scratch)), least(maxima + g.rows * num_panels(g.n)), lows(scratch + numbers_bytes(g)),
          panels(num_panels(g.n)) {}
    float* maxima_of(int64_t row) const { return maxima + row * panels; }
    LowRow low(const Linear& g, int64_t row) const { return low_row(lows + row * low_scratch_bytes(g.k), g.k); }
};

struct Head {
    const Linear& g;
    const Planes planes;
    const Workings& workings;
};

inline int64_t end_of(const Linear& g, int64_t panel) { return smaller((panel + 1) * kPanel, g.n); }

// Makes columns ids[0..count) of a row exact that are not.
void make_all_exact(const Head& head, int64_t row, const int32_t* ids, int64_t count) {
    const LowRow low = head.workings.low(head.g, row);
    float* const logits = head.g.out + row * head.g.n;
    for (int64_t i = 0; i < smaller(kFetched, count); ++i) head.planes.fetch(ids[i]);
    for (int64_t i = 0; i < count; ++i) {
        if (i + kFetched < count) head.planes.fetch(ids[i + kFetched]);
        if (!is_exact(logits + ids[i])) make_exact(head.planes, low, ids[i], logits + ids[i]);
    }
}

// The chosen columns of a segment of a row, among those that the mask (if any) allows.
void refine_segment(const Head& head, int64_t row, int64_t segment, const uint32_t* mask) {
    int32_t ids[kSegment * kPanel + kLanes];
    const float* const logits = head.g.out + row * head.g.n;
    const float* const maxima = head.workings.maxima_of(row);
    const float least = head.workings.least[row];
    int64_t panels[kSegment], num_found = 0, count = 0;
    for (int64_t panel = segment * kSegment; panel < smaller((segment + 1) * kSegment, head.workings.panels); ++panel) {
        if (!(maxima[panel] >= least) || maxima[panel] == kNoLeast) continue;
        for (int64_t i = 0; i < kPanel; i += 16) prefetch(logits + panel * kPanel + i);
        panels[num_found++] = panel;
    }
    for (int64_t i = 0; i < num_found; ++i) {
        const int64_t first = panels[i] * kPanel;
        const int64_t found = append_above(logits + first, first, end_of(head.g, panels[i]) - first, least, ids + count);
        count += mask ? keep_allowed(ids + count, found, mask) : found;
    }
    make_all_exact(head, row, ids, count);
}

// f(row, segment) over all of them.
template <class F>
void each_segment(Runtime& runtime, const Head& head, const F& f) {
    const int64_t segments = ceil_div(head.workings.panels, kSegment);
    parallel(runtime.pool, head.g.rows * segments, [&](int64_t chunk) { f(chunk / segments, chunk % segments); });
}

inline const uint32_t* mask_of(const Refine& args, int64_t row) {
    return args.how[row] == kBestAllowed ? args.mask + row * ((args.product.n + 31) / 32) : nullptr;
}

// A row of refine: its rounded inputs, and which logits are large enough.
void begin_row(const Refine& args, const Workings& workings, int64_t row) {
    const Linear& g = args.product;
    if (args.how[row] == kNamedAlone && args.starts[row] == args.starts[row + 1]) return;
    round_low(g, row, workings.low(g, row));
    if (args.how[row] == kNamedAlone) return;
    const uint32_t* const mask = mask_of(args, row);
    float* const maxima = workings.maxima_of(row);
    for (int64_t panel = 0; panel < workings.panels; ++panel) {
        maxima[panel] = mask ? largest_allowed(g.out + row * g.n, panel * kPanel, end_of(g, panel), mask) : -kNoLeast;
    }
    workings.least[row] = mask ? least_of(maxima, g.n) : kNoLeast;
}

inline Vec cleared(Vec a) {
    typedef uint32_t Bits __attribute__((vector_size(sizeof(Vec))));
    return {(decltype(a.v))((Bits)a.v & ~1u)};
}

// Clears the last bits of a panel's logits; the largest of them.
inline float begin_panel(float* logits, int64_t columns) {
    if (columns == kPanel) {
        Vec most = set1(kNoLeast);
        for (int64_t i = 0; i < kPanel; i += kLanes) {
            const Vec here = cleared(load(logits + i));
            store(logits + i, here);
            most = max(here, most);
        }
        return largest(most);
    }
    auto* const bits = reinterpret_cast<FloatBits*>(logits);
    for (int64_t i = 0; i < columns; ++i) bits[i] &= ~1u;
    return largest_of(logits, columns);
}

}  // namespace

void linear_planes(Runtime& runtime, const Linear& g) {
    if (g.rows == 0) return;
    const int64_t rounded = rounded_bytes<High>(g);
    char* const scratch = static_cast<char*>(runtime.scratch.at_least(size_t(rounded + Workings::bytes(g))));
    const Workings workings(g, scratch + rounded);
    q_linear<High>(runtime, g, scratch, [&](int64_t panel, int64_t first, int64_t rows) {
        const int64_t column = panel * kPanel, columns = end_of(g, panel) - column;
        for (int64_t row = first; row < first + rows; ++row) {
            workings.maxima_of(row)[panel] = begin_panel(g.out + row * g.n + column, columns);
        }
    });
    parallel(runtime.pool, g.rows, [&](int64_t row) {
        round_low(g, row, workings.low(g, row));
        workings.least[row] = least_of(workings.maxima_of(row), g.n);
    });
    const Head head{g, Planes(g.weight, g.n, g.k), workings};
    each_segment(runtime, head, [&](int64_t row, int64_t segment) { refine_segment(head, row, segment, nullptr); });
}

void refine(Runtime& runtime, const Refine& args) {
    const Linear& g = args.product;
    if (g.rows == 0) return;
    const Workings workings(g, static_cast<char*>(runtime.scratch.at_least(size_t(Workings::bytes(g)))));
    parallel(runtime.pool, g.rows, [&](int64_t row) { begin_row(args, workings, row); });
    const Head head{g, Planes(g.weight, g.n, g.k), workings};
    each_segment(runtime, head, [&](int64_t row, int64_t segment) {
        if (args.how[row] != kNamedAlone) refine_segment(head, row, segment, mask_of(args, row));
    });
    parallel(runtime.pool, g.rows, [&](int64_t row) {  // a row's names by one thread: a column may be named twice
        const int32_t begin = args.starts[row], count = args.starts[row + 1] - begin;
        if (count > 0) make_all_exact(head, row, args.named + begin, count);
    });
}

}  // namespace quire::QUIRE_ISA

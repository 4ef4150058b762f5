// One row of logits under the op `sample`: its blocks, and the choice of the best tokens without sorting the row.
//
//   logits   |-- block 0 --|-- block 1 --| ... |-- last --|      blocks of 256
//   peaks     largest of each, found in the one pass that every row needs
//   sums      weight of each, where a draw or a log probability needs the whole row
//
// The k best: the k-th largest peak is a lower bound of the k-th largest logit, so only blocks whose peak reaches it are looked at
// and little more than k candidates come out; a radix selection (11, 11, 10 bits of the ordered float) cuts them to k. The nucleus is
// cut the same way by weight instead of number. Candidates always lie by ascending id, so equal logits break by the lower id.
// Knows: one row. Does not know: parameters of a draw (sample.cpp), other rows.
#pragma once
#include "sample_weights.h"
#include "table.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr int64_t kBlock = 256;
constexpr int64_t kBlocksPerChunk = 32;  // a row that is shared between threads is handed out in pieces of 8192
constexpr int kBins = 2048;

struct Row {
    float* x;
    int64_t vocab, num_blocks;
    Pool* pool;  // null: this row is one thread's
    float* peaks;       // [num_blocks]
    uint64_t* sums;     // [num_blocks]
    uint8_t* touched;   // [num_blocks]
    uint64_t* bins;     // [kBins]
    int32_t* ids;       // [vocab + kLanes] candidates, ascending
    float* values;      // [vocab + kLanes]
    uint64_t* weights;  // [vocab + kLanes]
    float* few_values;  // [vocab + kLanes] those of them that a cut is searched among
    uint64_t* few_weights;
    float* undo;        // what adjusted logits were before
    float* raw;         // [vocab] all of them, where a masked row tells log probabilities
    float summed_at;    // the inverse temperature of `sums`; 0: they are of other logits
    uint64_t summed;    // the weight of the whole row there

    int64_t size_of(int64_t block) const { return block + 1 < num_blocks ? kBlock : vocab - block * kBlock; }
};

template <class F>
void over_blocks(const Row& row, const F& f) {
    if (row.pool == nullptr) {
        f(int64_t{0}, row.num_blocks);
        return;
    }
    parallel(*row.pool, (row.num_blocks + kBlocksPerChunk - 1) / kBlocksPerChunk, [&](int64_t chunk) {
        const int64_t begin = chunk * kBlocksPerChunk, end = begin + kBlocksPerChunk;
        f(begin, end < row.num_blocks ? end : row.num_blocks);
    });
}

// Largest of x[0, n); `flaw` becomes NaN in some lane if any is NaN or infinite.
inline float peak_of(const float* x, int64_t n, Vec& flaw) {
    Vec a = set1(-kInfinity), b = a, c = a, d = a, flaw_b = zero();
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        const Vec x0 = load(x + i), x1 = load(x + i + kLanes), x2 = load(x + i + 2 * kLanes), x3 = load(x + i + 3 * kLanes);
        a = max(a, x0);
        b = max(b, x1);
        c = max(c, x2);
        d = max(d, x3);
        flaw = fma(x0, zero(), fma(x1, zero(), flaw));
        flaw_b = fma(x2, zero(), fma(x3, zero(), flaw_b));
    }
    float peak = largest(max(max(a, b), max(c, d)));
    flaw = add(flaw, flaw_b);
    for (; i < n; ++i) {
        peak = x[i] > peak ? x[i] : peak;
        flaw = fma(set1(x[i]), zero(), flaw);
    }
    return peak;
}

inline float peak_of(const float* x, int64_t n) {
    Vec flaw = zero();
    return peak_of(x, n, flaw);
}

inline float row_peak(const Row& row) { return peak_of(row.peaks, row.num_blocks); }

// Fills peaks; true if any logit is NaN or +-inf.
inline bool find_peaks(const Row& row) {
    int flawed = 0;
    over_blocks(row, [&](int64_t begin, int64_t end) {
        Vec flaw = zero();
        for (int64_t b = begin; b < end; ++b) row.peaks[b] = peak_of(row.x + b * kBlock, row.size_of(b), flaw);
        const float any = sum(flaw);
        if (any != any) __atomic_store_n(&flawed, 1, __ATOMIC_RELAXED);
    });
    return flawed != 0;
}

// The lowest id of the row's largest value.
inline int32_t first_of(const Row& row, float peak) {
    int64_t b = 0, i = 0;
    while (row.peaks[b] != peak) ++b;
    for (i = b * kBlock; row.x[i] != peak;) ++i;
    return int32_t(i);
}

// Fills sums; the weight of the whole row.
inline uint64_t find_sums(Row& row, float peak, float inv_temperature) {
    if (row.summed_at == inv_temperature) return row.summed;
    over_blocks(row, [&](int64_t begin, int64_t end) {
        const Vec top = set1(peak), scale = set1(inv_temperature);
        for (int64_t b = begin; b < end; ++b) {
            const float* x = row.x + b * kBlock;
            const int64_t n = row.size_of(b);
            if ((row.peaks[b] - peak) * inv_temperature <= -30.0f) {  // as in weigh: no weight in it is more than 0
                row.sums[b] = 0;
                continue;
            }
            Tally tally = no_tally();
            int64_t i = 0;
            for (; i + kLanes <= n; i += kLanes) tally = count(tally, weigh(load(x + i), top, scale));
            uint64_t weight = total(tally);
            if (i < n) {
                float tail[kLanes];
                store(tail, weigh(load_n(x + i, int(n - i)), top, scale));
                for (int64_t j = 0; j < n - i; ++j) weight += fixed(tail[j]);
            }
            row.sums[b] = weight;
        }
    });
    uint64_t weight = 0;
    for (int64_t b = 0; b < row.num_blocks; ++b) weight += row.sums[b];
    row.summed_at = inv_temperature;
    return row.summed = weight;
}

// Floats as integers of the same order; -0 is 0.
inline uint32_t key_of(float x) {
    const float y = x + 0.0f;
    uint32_t bits;
    memcpy(&bits, &y, 4);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
inline float value_of(uint32_t key) {
    const uint32_t bits = key ^ (key >> 31 ? 0x80000000u : 0xffffffffu);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// Everything above `key` is in; of what equals it, by ascending id, as much as reaches `need`.
struct Cut {
    uint32_t key;
    uint64_t need;
};

// Where the largest of values[0, n), each of its weight (null: of 1), first reach `target`, 1 <= target <= their sum.
inline Cut find_cut(const float* values, const uint64_t* weights, int64_t n, uint64_t target, uint64_t* bins) {
    uint32_t prefix = 0, known = 0;
    for (int pass = 0; pass < 3; ++pass) {
        const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
        const uint32_t last = pass < 2 ? kBins - 1 : 1023;
        memset(bins, 0, kBins * sizeof(uint64_t));
        for (int64_t i = 0; i < n; ++i) {
            const uint32_t key = key_of(values[i]);
            if ((key & known) == prefix) bins[key >> shift & last] += weights ? weights[i] : 1;
        }
        uint32_t bin = last;
        while (bins[bin] < target) target -= bins[bin--];
        prefix |= bin << shift;
        known |= last << shift;
    }
    return {prefix, target};
}

// Which of kBins equal steps below the peak each of x[0, n) stands in, n <= 64; `scale` is steps per unit.
inline void find_bins(const float* x, int n, float peak, float scale, int32_t* bins) {
    for (int i = 0; i < n; ++i) {
        const float steps = (peak - x[i]) * scale;
        bins[i] = steps < float(kBins - 1) ? int32_t(steps) : kBins - 1;
    }
}

// find_cut of n weighted candidates. Where there are many, one pass over equal steps of the logit leaves few for the exact search: the
// upper bits of a float tell too little about them.
inline Cut find_weighted_cut(const Row& row, int64_t n, uint64_t target, float peak, float inv_temperature) {
    if (n < 2 * kBins) return find_cut(row.values, row.weights, n, target, row.bins);
    const float scale = float(kBins) / 30.0f * inv_temperature;
    int32_t bins[64];
    memset(row.bins, 0, kBins * sizeof(uint64_t));
    for (int64_t i = 0; i < n; i += 64) {
        const int num = int(n - i < 64 ? n - i : 64);
        find_bins(row.values + i, num, peak, scale, bins);
        for (int j = 0; j < num; ++j) row.bins[bins[j]] += row.weights[i + j];
    }
    int32_t bin = 0;
    while (row.bins[bin] < target) target -= row.bins[bin++];
    int64_t few = 0;
    for (int64_t i = 0; i < n; i += 64) {
        const int num = int(n - i < 64 ? n - i : 64);
        find_bins(row.values + i, num, peak, scale, bins);
        for (int j = 0; j < num; ++j) {
            row.few_values[few] = row.values[i + j];
            row.few_weights[few] = row.weights[i + j];
            few += bins[j] == bin;
        }
    }
    return find_cut(row.few_values, row.few_weights, few, target, row.bins);
}

// Drops the candidates beyond the cut (of a search without weights); how many are left.
inline int64_t keep(const Row& row, Cut cut, int64_t n) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t key = key_of(row.values[i]);
        if (key < cut.key || (key == cut.key && cut.need == 0)) continue;
        cut.need -= key == cut.key;
        row.ids[kept] = row.ids[i];
        row.values[kept++] = row.values[i];
    }
    return kept;
}

// Candidates: all tokens whose logit is at least `least`; how many.
inline int64_t collect(const Row& row, float least) {
    int64_t n = 0;
    for (int64_t b = 0; b < row.num_blocks; ++b) {
        if (row.peaks[b] >= least && row.peaks[b] > -kInfinity) n += append_above(row.x + b * kBlock, b * kBlock, row.size_of(b), least, row.ids + n);
    }
    for (int64_t i = 0; i < n; ++i) row.values[i] = row.x[row.ids[i]];
    return n;
}

// How many logits are at least `least`.
inline int64_t count_above(const Row& row, float least) {
    int64_t n = 0;
    for (int64_t b = 0; b < row.num_blocks; ++b) {
        if (row.peaks[b] < least) continue;
        const float* x = row.x + b * kBlock;
        const int64_t size = row.size_of(b);
        Vec lanes = zero();
        int64_t i = 0;
        for (; i + kLanes <= size; i += kLanes) lanes = add(lanes, below(load(x + i), set1(least), zero(), set1(1.0f)));
        n += int64_t(sum(lanes));
        for (; i < size; ++i) n += x[i] >= least;
    }
    return n;
}

// A value that at least k logits reach, and not many more; -inf where such a one is not found soon. Bisection over [.., peak].
inline float bisect(const Row& row, float peak, int64_t k) {
    float low = peak - 1.0f, high = peak;
    for (int step = 0; count_above(row, low) < k; ++step) {
        if (step == 8) return -kInfinity;
        high = low;
        low = peak - 2.0f * (peak - low);
    }
    for (int step = 0; step < 6; ++step) {
        const float middle = low + (high - low) * 0.5f;
        const int64_t n = count_above(row, middle);
        if (n < k) high = middle;
        else low = middle;
        if (n >= k && n < k + k / 4) break;
    }
    return low;
}

// Candidates: the k largest, 1 <= k.
inline int64_t collect_best(const Row& row, float peak, int64_t k) {
    if (k >= row.vocab) return collect(row, -kInfinity);
    const bool few = 4 * k <= 3 * row.num_blocks;  // else the k-th largest peak bounds little, or there is none
    const float least = few ? value_of(find_cut(row.peaks, nullptr, row.num_blocks, uint64_t(k), row.bins).key) : bisect(row, peak, k);
    const int64_t n = collect(row, least);
    return n <= k ? n : keep(row, find_cut(row.values, nullptr, n, uint64_t(k), row.bins), n);  // a mask may leave fewer than k
}

// Weights of n candidates; those below `least` become 0. Their sum.
inline uint64_t weigh_candidates(const Row& row, int64_t n, float peak, float inv_temperature, uint64_t least) {
    const Vec top = set1(peak), scale = set1(inv_temperature);
    for (int64_t i = 0; i < n; i += kLanes) {
        const Vec x = n - i < kLanes ? load_n(row.values + i, int(n - i)) : load(row.values + i);
        store_fixed(row.weights + i, weigh(x, top, scale));
    }
    uint64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (least > 0) row.weights[i] = row.weights[i] < least ? 0 : row.weights[i];
        sum += row.weights[i];
    }
    return sum;
}

}  // namespace
}  // namespace quire::QUIRE_ISA

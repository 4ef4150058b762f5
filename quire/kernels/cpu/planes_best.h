// Which columns of a row of logits are large enough to be read in full.
//
//     t = the num_best_panels(n)-th largest of the panels' largest logits; a column is chosen whose logit is at least t
//
// So at least as many columns are chosen as panels are asked for, and the choice is the row's own affair: not its neighbours', nor the
// threads'. A row that has no more panels than that is chosen whole.
// Knows: logits. Does not know: weights, threads.
#pragma once
#include "qplanes.h"
#include "simd.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr float kNoLeast = -__builtin_inff();

// Larger for larger numbers.
inline uint32_t order_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The rank-th largest of the numbers, 1 <= rank <= count.
inline float ranked(const float* x, int64_t count, int64_t rank) {
    constexpr int kBits = 11;
    constexpr uint32_t kLast = (1u << kBits) - 1;
    uint32_t found = 0, known = 0;
    for (int shift = 32 - kBits;; shift = shift > kBits ? shift - kBits : 0) {  // the last digits overlap what is known: there all agree
        int32_t bins[kLast + 1] = {};
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t order = order_of(x[i]);
            bins[order >> shift & kLast] += (order & known) == found;
        }
        uint32_t bin = kLast;
        for (; bins[bin] < rank && bin > 0; --bin) rank -= bins[bin];
        found |= bin << shift;
        known |= kLast << shift;
        if (shift == 0) break;
    }
    const uint32_t bits = found >> 31 ? found & 0x7fffffffu : ~found;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

// t of a row with these largest logits of its panels; minus infinity where all columns are wanted.
inline float least_of(const float* maxima, int64_t n) {
    const int64_t panels = num_panels(n), best = num_best_panels(n);
    return best >= panels ? kNoLeast : ranked(maxima, panels, best);
}

inline float largest_of(const float* logits, int64_t columns) {
    Vec most = set1(kNoLeast);
    int64_t i = 0;
    for (; i + kLanes <= columns; i += kLanes) most = max(load(logits + i), most);
    float result = largest(most);
    for (; i < columns; ++i) result = logits[i] > result ? logits[i] : result;
    return result;
}

// The largest of logits [first, last) among those that the mask allows (bit 1); minus infinity where it allows none.
inline float largest_allowed(const float* logits, int64_t first, int64_t last, const uint32_t* mask) {
    float result = kNoLeast;
    for (int64_t i = first; i < last;) {
        const uint32_t bits = mask[i / 32] >> i % 32;
        const int64_t here = 32 - i % 32 < last - i ? 32 - i % 32 : last - i;
        if (bits == ~0u >> i % 32) {  // most masks allow nearly all or nearly none
            const float found = largest_of(logits + i, here);
            result = found > result ? found : result;
            i += here;
            continue;
        }
        if (bits == 0) {
            i = (i / 32 + 1) * 32;
            continue;
        }
        i += __builtin_ctz(bits);
        if (i < last && logits[i] > result) result = logits[i];
        ++i;
    }
    return result;
}

inline int64_t keep_allowed(int32_t* ids, int64_t count, const uint32_t* mask) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int32_t id = ids[i];
        ids[kept] = id;
        kept += mask[id / 32] >> id % 32 & 1;
    }
    return kept;
}

}  // namespace
}  // namespace quire::QUIRE_ISA

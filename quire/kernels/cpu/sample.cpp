// sample: penalties, bias, bans, mask; temperature, min_p, top_k, top_p; the draw; log probabilities. Row by row.
//
//   once a row        largest logit of every block of 256 and whether all are finite: one read of the row
//   greedy            nothing more
//   log probabilities the weight of the whole row, and the k best, of the raw logits
//   penalties, bias   the few logits that they touch are changed in place, the blocks' peaks after them, and put back at the end
//   top_k             candidates by a bound from the peaks, cut to k (sample_row.h); weights of these alone
//   min_p             candidates by a bound from the logarithm; weights of these alone
//   top_p             without top_k and min_p it needs the weight of the row; a token lighter than the mean of what top_p leaves
//                     outside cannot be in the nucleus, so only heavier ones become candidates
//   draw              weights are integers, so the sums are exact: r * sum >> 53, and the first token, by id, that reaches beyond
//
// A row's result depends on the row and its parameters alone: not on other rows, threads, or the instruction set.
// Threads: rows are handed out one at a time; where there are fewer rows than threads, each row is shared, pass by pass.
// Figures (Zen 4, one thread, 151,936 tokens, microseconds a row with the row in L2): greedy 18, of which reading is 8; temperature
// alone 100, the weights of the whole row; with top_k 40 and top_p 30; top_k 1000 110; top_p alone 165 where the model is sure of a
// few tokens, 1100 where it takes nearly all of them into the nucleus.
// A block of 256 without an allowed token, or in which nothing weighs more than 0, is not looked into: under a mask of few tokens a row
// costs 32 (before: 134), under one of half the tokens 145.
// Versions tried: radix selection of large k over the whole row (650; now a bisection finds a bound first); the nucleus by three radix
// passes over all candidates (1850 where nearly all are in; now one pass over equal steps of the logit). What is left there is the
// traffic of the candidates' lists, which outgrow L2: the next idea is to build the histogram block by block without lists.
// Knows: the order of the chain. Does not know: how the best are found (sample_row.h), requests.
#include "philox.h"
#include "sample_row.h"

namespace quire::QUIRE_ISA {
namespace {

constexpr float kLargest = 3.40282347e38f;
constexpr int kMaxSlots = 64;  // rows in work at a time: each has 28 bytes a token of scratch

// ---- penalties, bias, mask ----------------------------------------------------------------------------------------------------------

void change(Row& row, int32_t id, float value, int64_t& num_undo) {
    const float old = row.x[id];
    float& peak = row.peaks[id / kBlock];
    value = value < kLargest ? value : kLargest;  // a penalty may push a logit of 1e38 to infinity: not to be drawn for sure
    row.undo[num_undo++] = old;
    row.x[id] = value;
    if (value >= peak) peak = value;
    else if (old == peak) row.touched[id / kBlock] = 1;  // only then must the block be searched again
}

int64_t adjust(Row& row, const Sample& args, const SampleRow& how, TokenCountsView counts) {
    int64_t num_undo = 0;
    for (int64_t i = 0; i < counts.size; ++i) {
        const TokenCount seen = counts.data[i];
        float value = row.x[seen.id];
        if (how.repetition != 1.0f) value = value > 0.0f ? value / how.repetition : value * how.repetition;
        if (seen.in_answer > 0) value -= float(how.presence + how.frequency * double(seen.in_answer));
        change(row, seen.id, value, num_undo);
    }
    for (int64_t i = how.first_bias; i < how.first_bias + how.num_bias; ++i) {
        const int32_t id = args.bias_ids[i];
        change(row, id, row.x[id] + args.bias_values[i], num_undo);
    }
    return num_undo;
}

void put_back(Row& row, const Sample& args, const SampleRow& how, TokenCountsView counts, int64_t num_undo) {
    for (int64_t i = how.first_bias + how.num_bias; i-- > how.first_bias;) row.x[args.bias_ids[i]] = row.undo[--num_undo];
    for (int64_t i = counts.size; i-- > 0;) row.x[counts.data[i].id] = row.undo[--num_undo];
}

void find_peaks_again(Row& row) {
    for (int64_t b = 0; b < row.num_blocks; ++b) {
        if (row.touched[b]) row.peaks[b] = peak_of(row.x + b * kBlock, row.size_of(b));
    }
}

uint32_t first_bits(int64_t n) { return n < 32 ? (1u << n) - 1 : 0xffffffffu; }

// A block without a bit is left as it is and marked by its peak: from here on nobody looks into blocks whose peak is -inf.
void apply_mask(Row& row, const uint32_t* mask) {
    over_blocks(row, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
            const int64_t n = row.size_of(b);
            float* x = row.x + b * kBlock;
            uint32_t any = 0;
            for (int64_t i = 0; i < n; i += 32) any |= mask[(b * kBlock + i) / 32] & first_bits(n - i);
            if (any == 0) {
                row.peaks[b] = -kInfinity;
                continue;
            }
            for (int64_t i = 0; i < n; i += 32) {
                const uint32_t bits = mask[(b * kBlock + i) / 32];
                if (bits != 0xffffffffu) forbid(x + i, bits, int(n - i < 32 ? n - i : 32));
            }
            row.peaks[b] = peak_of(x, n);
        }
    });
}

// ---- the draw -----------------------------------------------------------------------------------------------------------------------

uint64_t point(const SampleRow& how, int32_t index, uint64_t sum) {
    return uint64_t((unsigned __int128)random_bits(how.seed, uint32_t(index), uint64_t(how.position)) * sum >> 53);
}

int32_t pick_among(const Row& row, Cut cut, uint64_t at) {
    for (int64_t i = 0;; ++i) {
        const uint32_t key = key_of(row.values[i]);
        uint64_t weight = row.weights[i];
        if (key == cut.key) {
            weight = cut.need == 0 ? 0 : weight;
            cut.need -= weight;
        }
        weight = key < cut.key ? 0 : weight;
        if (weight > at) return row.ids[i];
        at -= weight;
    }
}

int32_t pick_anywhere(const Row& row, float peak, float inv_temperature, uint64_t at) {
    int64_t b = 0;
    while (row.sums[b] <= at) at -= row.sums[b++];
    const float* x = row.x + b * kBlock;
    const int64_t n = row.size_of(b);
    for (int64_t i = 0;; i += kLanes) {
        float some[kLanes];
        store(some, weigh(load_n(x + i, int(n - i < kLanes ? n - i : kLanes)), set1(peak), set1(inv_temperature)));
        for (int j = 0; j < kLanes; ++j) {
            const uint64_t weight = fixed(some[j]);
            if (weight > at) return int32_t(b * kBlock + i + j);
            at -= weight;
        }
    }
}

// The least logit that may have `share` of the peak's weight, with a margin for rounding.
float bound(float peak, float inv_temperature, double share) {
    const double least = double(peak) + (__builtin_log(share) - 0.01) / double(inv_temperature);
    return least < -double(kLargest) ? -kInfinity : float(least);
}

// The least logit that can be in the nucleus: what lies outside weighs (1 - top_p) of the sum, so the heaviest of it at least the mean
// of that, and whatever is inside is no lighter. A quarter of it is a margin for rounding.
float nucleus_bound(const Row& row, const SampleRow& how, float peak, uint64_t sum) {
    const double outside = (1.0 - how.top_p) * double(sum);
    if (outside < 4096.0) return -kInfinity;  // the sum's own rounding is not small beside it
    return bound(peak, how.inv_temperature, outside / double(row.vocab) / 4.0 / double(kUnit));
}

struct Candidates {
    uint64_t sum;
    Cut cut;
};

// The fewest of n candidates, largest first, whose weight reaches top_p of `sum`, theirs all.
Candidates cut_nucleus(const Row& row, const SampleRow& how, int64_t n, float peak, uint64_t sum) {
    if (how.top_p == 1.0) return {sum, {0, 0}};
    uint64_t target = uint64_t(__builtin_ceil(how.top_p * double(sum)));
    target = target < sum ? target : sum;
    Cut cut = find_weighted_cut(row, n, target, peak, how.inv_temperature);
    float equal[kLanes];  // equal logits weigh the same: whole ones are taken until the need is met
    store(equal, weigh(set1(value_of(cut.key)), set1(peak), set1(how.inv_temperature)));
    const uint64_t above = target - cut.need, weight = fixed(equal[0]);
    cut.need = (cut.need + weight - 1) / weight * weight;
    return {above + cut.need, cut};
}

// Candidates with their weights and the cut among them; min_p, top_k, top_p.
Candidates find_candidates(Row& row, const SampleRow& how, float peak) {
    const uint64_t least = uint64_t(__builtin_ceil(how.min_p * double(kUnit)));
    int64_t n = 0;
    if (how.top_k > 0) {
        n = collect_best(row, peak, how.top_k);
    } else if (least > 0) {
        n = collect(row, bound(peak, how.inv_temperature, how.min_p));
    } else {
        const uint64_t sum = find_sums(row, peak, how.inv_temperature);
        n = collect(row, nucleus_bound(row, how, peak, sum));
        weigh_candidates(row, n, peak, how.inv_temperature, 0);
        return cut_nucleus(row, how, n, peak, sum);
    }
    return cut_nucleus(row, how, n, peak, weigh_candidates(row, n, peak, how.inv_temperature, least));
}

void draw(Row& row, const Sample& args, const SampleRow& how, float peak) {
    int32_t* tokens = args.tokens + how.first_draw;
    const int32_t* indices = args.indices + how.first_draw;
    if (how.inv_temperature == 0.0f) {
        const int32_t best = first_of(row, peak);
        for (int i = 0; i < how.num_draws; ++i) tokens[i] = best;
        return;
    }
    if (how.top_k == 0 && how.top_p == 1.0 && how.min_p == 0.0) {
        const uint64_t sum = find_sums(row, peak, how.inv_temperature);
        for (int i = 0; i < how.num_draws; ++i) tokens[i] = pick_anywhere(row, peak, how.inv_temperature, point(how, indices[i], sum));
        return;
    }
    const Candidates among = find_candidates(row, how, peak);
    for (int i = 0; i < how.num_draws; ++i) tokens[i] = pick_among(row, among.cut, point(how, indices[i], among.sum));
}

int32_t choose(Row& row, const Sample& args, int64_t r, float peak) {
    const SampleRow& how = args.params[r];
    const bool penalised = how.repetition != 1.0f || how.presence != 0.0 || how.frequency != 0.0;
    const TokenCountsView counts = penalised && args.counts != nullptr ? args.counts[r] : TokenCountsView{nullptr, 0};
    if (counts.size == 0 && how.num_bias == 0 && !how.has_mask()) {
        draw(row, args, how, peak);
        return kSampled;
    }
    const bool keeps = how.has_mask() && how.num_top >= 0;  // ranks are counted after the draw, among the raw logits
    if (keeps) memcpy(row.raw, row.x, size_t(row.vocab) * 4);
    memset(row.touched, 0, size_t(row.num_blocks));
    const int64_t num_undo = adjust(row, args, how, counts);
    row.summed_at = 0.0f;
    if (how.has_mask()) apply_mask(row, args.mask + r * ((row.vocab + 31) / 32));
    else find_peaks_again(row);
    peak = row_peak(row);
    const bool any = peak > -kInfinity;
    if (any) draw(row, args, how, peak);
    if (keeps) memcpy(row.x, row.raw, size_t(row.vocab) * 4);
    else put_back(row, args, how, counts, num_undo);
    return any ? kSampled : kNothingAllowed;
}

// ---- log probabilities --------------------------------------------------------------------------------------------------------------

// log of the sum of exp of the raw logits; and the num_top best of them, best first.
double tell(Row& row, const Sample& args, int64_t r, float peak) {
    const double normaliser = double(peak) + __builtin_log(double(find_sums(row, peak, 1.0f)) / double(kUnit));
    const int64_t n = args.params[r].num_top > 0 ? collect_best(row, peak, args.params[r].num_top) : 0;
    int32_t* ids = args.top_ids + r * args.top_width;
    for (int64_t i = 0; i < n; ++i) {  // insertion: an equal one, of a higher id, stays behind
        int64_t place = i;
        for (; place > 0 && row.x[ids[place - 1]] < row.values[i]; --place) ids[place] = ids[place - 1];
        ids[place] = row.ids[i];
    }
    for (int64_t i = 0; i < n; ++i) args.top_logprobs[r * args.top_width + i] = double(row.x[ids[i]]) - normaliser;
    return normaliser;
}

// 1 and how many tokens are likelier; of equally likely ones those of lower ids are.
int32_t rank_of(const Row& row, int32_t token) {
    const float x = row.x[token];
    int32_t rank = 1;
    for (int64_t i = 0; i < token; ++i) rank += row.x[i] >= x;
    for (int64_t i = token + 1; i < row.vocab; ++i) rank += row.x[i] > x;
    return rank;
}

// Where something forbids tokens by it -inf is no flaw of a logit, as long as there is another.
bool all_finite(const Row& row, const SampleRow& how, bool flawed, float peak) {
    if (!flawed) return true;
    if (!how.may_forbid()) return false;
    if (!(peak > -kInfinity && peak < kInfinity)) return false;
    for (int64_t i = 0; i < row.vocab; ++i) {
        if (row.x[i] != row.x[i]) return false;
    }
    return true;
}

int32_t sample_row(Row& row, const Sample& args, int64_t r) {
    const SampleRow& how = args.params[r];
    const bool flawed = find_peaks(row);
    const float peak = row_peak(row);
    if (!all_finite(row, how, flawed, peak)) return kNotFinite;
    const double normaliser = how.num_top >= 0 ? tell(row, args, r, peak) : 0.0;
    if (how.given >= 0) {
        for (int i = 0; i < how.num_draws; ++i) args.tokens[how.first_draw + i] = how.given;
    } else {
        const int32_t status = choose(row, args, r, peak);
        if (status != kSampled) return status;
    }
    for (int i = how.first_draw; how.num_top >= 0 && i < how.first_draw + how.num_draws; ++i) {
        args.logprobs[i] = double(row.x[args.tokens[i]]) - normaliser;
        args.ranks[i] = rank_of(row, args.tokens[i]);
    }
    return kSampled;
}

// ---- scratch ------------------------------------------------------------------------------------------------------------------------

int64_t padded(int64_t size_bytes) { return (size_bytes + 63) / 64 * 64; }

bool keeps_any(const Sample& args) {
    for (int64_t r = 0; r < args.rows; ++r) {
        if (args.params[r].has_mask() && args.params[r].num_top >= 0) return true;
    }
    return false;
}

int64_t undo_floats(const Sample& args) {
    int64_t most = 0;
    for (int64_t r = 0; r < args.rows; ++r) {
        const int64_t num = args.params[r].num_bias + (args.counts != nullptr ? args.counts[r].size : 0);
        most = num > most ? num : most;
    }
    return most;
}

// Divides `memory` into a row's arrays (or only counts, where it is null); the bytes that they need.
int64_t divide(Row& row, char* memory, int64_t num_undo, bool keeps) {
    const int64_t tokens = row.vocab + 16, blocks = row.num_blocks;
    int64_t used = 0;
    const auto take = [&](int64_t size_bytes) {
        char* at = memory == nullptr ? nullptr : memory + used;
        used += padded(size_bytes);
        return (void*)at;
    };
    row.peaks = (float*)take(blocks * 4);
    row.sums = (uint64_t*)take(blocks * 8);
    row.touched = (uint8_t*)take(blocks);
    row.bins = (uint64_t*)take(kBins * 8);
    row.ids = (int32_t*)take(tokens * 4);
    row.values = (float*)take(tokens * 4);
    row.weights = (uint64_t*)take(tokens * 8);
    row.few_values = (float*)take(tokens * 4);
    row.few_weights = (uint64_t*)take(tokens * 8);
    row.undo = (float*)take(num_undo * 4);
    row.raw = (float*)take(keeps ? tokens * 4 : 0);
    return used;
}

void sample_into(Row& row, const Sample& args, int64_t r) {
    row.x = args.logits + r * args.vocab;
    row.summed_at = 0.0f;
    args.status[r] = sample_row(row, args, r);
    if (args.status[r] == kSampled) return;
    for (int i = 0; i < args.params[r].num_draws; ++i) args.tokens[args.params[r].first_draw + i] = -1;
}

}  // namespace

void sample(Runtime& runtime, const Sample& args) {
    Row like{};
    like.vocab = args.vocab;
    like.num_blocks = (args.vocab + kBlock - 1) / kBlock;
    const bool keeps = keeps_any(args);
    const int64_t num_undo = undo_floats(args), share_bytes = divide(like, nullptr, num_undo, keeps);
    const bool shared = args.rows < runtime.pool.num_threads();
    int64_t num_slots = shared ? 1 : runtime.pool.num_threads();
    num_slots = num_slots < kMaxSlots ? num_slots : kMaxSlots;
    char* memory = (char*)runtime.scratch.at_least(size_t(num_slots * share_bytes));
    if (shared) {
        like.pool = &runtime.pool;
        divide(like, memory, num_undo, keeps);
        for (int64_t r = 0; r < args.rows; ++r) sample_into(like, args, r);
        return;
    }
    int64_t next = 0;
    parallel(runtime.pool, num_slots, [&](int64_t slot) {
        Row row = like;
        divide(row, memory + slot * share_bytes, num_undo, keeps);
        for (;;) {
            const int64_t r = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
            if (r >= args.rows) return;
            sample_into(row, args, r);
        }
    });
}

}  // namespace quire::QUIRE_ISA

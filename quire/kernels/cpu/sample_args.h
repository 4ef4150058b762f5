// Arguments of the op `sample`, and the counts of a sequence's tokens that its penalties look at.
// Knows: layouts; `quire.ops.sample.ROW` is the first of them in NumPy's words. Does not know: Python, vectors.
#pragma once
#include <cstdint>

namespace quire {

// How one row is drawn from. Byte for byte a record of quire.ops.sample.ROW.
struct SampleRow {
    uint64_t seed;                               // key of the random numbers
    int64_t position;                            // of the token to be drawn
    double top_p, min_p;                         // 1 and 0: off
    double presence, frequency;                  // 0: off
    float repetition;                            // 1: off; at least the least normal float
    float inv_temperature;                       // 0: the likeliest token
    int32_t top_k;                               // 0: off
    int32_t num_top;                             // likeliest tokens to be told; -1: no log probabilities at all
    int32_t given;                               // a token to be told about instead of a draw; -1: draw
    int32_t masked;                              // 1: the row of the mask counts; + 2: -inf forbids a token and is no flaw
    int32_t first_draw, num_draws;               // among indices and tokens
    int32_t first_bias, num_bias;                // among bias_ids and bias_values

    bool has_mask() const { return masked & 1; }
    bool may_forbid() const { return masked & 2; }
};
static_assert(sizeof(SampleRow) == 88, "quire.ops.sample.ROW has 88 bytes");

// A token that a sequence holds, and how often it stands in the answer.
struct TokenCount {
    int32_t id, in_answer;
};

struct TokenCountsView {
    const TokenCount* data;
    int64_t size;
};

struct Sample {
    float* logits;                  // [rows, vocab]; where nothing is told, masked tokens may become -inf; all else is left as it was
    const SampleRow* params;        // [rows]; all ranges checked by the binding
    const TokenCountsView* counts;  // [rows] or null
    const int32_t* indices;         // [draws]
    const int32_t* bias_ids;        // added to the logits; a ban is a bias of -inf
    const float* bias_values;
    const uint32_t* mask;   // [rows, (vocab + 31) / 32], bit 1: allowed; or null
    int32_t* tokens;        // [draws]; -1 where the status is not 0
    double* logprobs;       // [draws]
    int32_t* ranks;         // [draws]
    int32_t* top_ids;       // [rows, top_width]
    double* top_logprobs;   // [rows, top_width]
    int32_t* status;        // [rows]
    int64_t rows, vocab, top_width;
};

enum SampleStatus : int32_t { kSampled = 0, kNotFinite = 1, kNothingAllowed = 2 };

}  // namespace quire

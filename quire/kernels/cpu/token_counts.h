// The distinct tokens of one sequence and how often each stands in its answer: grows with the sequence, a few ns a token.
//
//   slots_   open addressing, a power of two, at most half full: places in seen_, or -1
//   seen_    (id, times in the answer), in the order of first appearance: what the kernel walks
// Knows: ids. Does not know: logits, Python.
#pragma once
#include <cstddef>
#include <vector>

#include "sample_args.h"

namespace quire {

class TokenCounts {
public:
    explicit TokenCounts(int64_t num_prompt) : num_prompt_(num_prompt) {}

    void add(int32_t id);
    int64_t num_tokens() const { return num_tokens_; }
    int32_t largest_id() const { return largest_; }
    TokenCountsView view() const { return {seen_.data(), int64_t(seen_.size())}; }

private:
    void grow();
    std::size_t slot_of(int32_t id) const;

    int64_t num_prompt_, num_tokens_ = 0;
    int32_t largest_ = -1;
    std::vector<int32_t> slots_;
    std::vector<TokenCount> seen_;
};

}  // namespace quire

#include "token_counts.h"

#include <algorithm>

namespace quire {

void TokenCounts::add(int32_t id) {
    if (2 * (seen_.size() + 1) > slots_.size()) grow();
    int32_t& place = slots_[slot_of(id)];
    if (place < 0) {
        place = int32_t(seen_.size());
        seen_.push_back({id, 0});
    }
    seen_[size_t(place)].in_answer += num_tokens_ >= num_prompt_;
    largest_ = std::max(largest_, id);
    ++num_tokens_;
}

std::size_t TokenCounts::slot_of(int32_t id) const {
    const size_t last = slots_.size() - 1;
    size_t slot = uint32_t(id) * size_t{0x9E3779B1} >> 7 & last;  // Fibonacci hashing: neighbouring ids lie apart
    while (slots_[slot] >= 0 && seen_[size_t(slots_[slot])].id != id) slot = (slot + 1) & last;
    return slot;
}

void TokenCounts::grow() {
    slots_.assign(std::max<std::size_t>(64, 2 * slots_.size()), -1);
    for (std::size_t i = 0; i < seen_.size(); ++i) slots_[slot_of(seen_[i].id)] = int32_t(i);
}

}  // namespace quire

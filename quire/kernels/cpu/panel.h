// Columns of a panel of packed weights, the same in every format and on every instruction set.
#pragma once
#include <cstdint>

namespace quire {

constexpr int64_t kPanel = 48;

}  // namespace quire

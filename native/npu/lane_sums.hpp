// Sums that a lane left in its output, beside those that the CPU makes of the same operands.
#pragma once

#include <cstdint>

#include "npu.h"

namespace rl::npu {

// As rl_npu_wrong_sums; -1 and a sentence when memory ran out, or a number is not the lane's.
std::int64_t wrong_sums(const rl_npu_lane &lane, const std::int32_t *vectors, int n_vectors, const std::int32_t *columns,
                        int n_columns, std::int32_t *where);

}  // namespace rl::npu

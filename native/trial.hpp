// Which of two kernels this processor runs faster: what no flag of it says. Wide vectors may be executed in two halves.
#pragma once

#include "kernels.hpp"

namespace rl {

// Whether a linear takes `one` at least a twentieth less time than `other`: the least of some turns each, a few
// milliseconds in all. Chance may decide between kernels that are nearly alike; all of them give the same bits.
bool is_faster(const Kernels &one, const Kernels &other);

}  // namespace rl

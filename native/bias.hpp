// Kernels whose dot product takes unsigned weights add a bias to every weight: their sums are too large by kBias times
// the sum of the row of x, which excess_of finds. It comes off modulo 2^32, and so exactly.
//
// The including file has defined kBias (0: none) and excess_of in this namespace.
#pragma once

#include "lanes.hpp"

namespace rl::RL_ISA {

// The sums [8] of a row of x whose excess is *over.
RL_INLINE V8i exact(const std::int32_t *sums, const std::int32_t *over) {
  return kBias == 0 ? load<V8i>(sums) : difference(load<V8i>(sums), splat(*over));
}

}  // namespace rl::RL_ISA

// Reading memory as fast as it comes: the loop that a machine's read bandwidth is measured with.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

// The exclusive or of all words of `bytes` (a multiple of 256) at p: eight sums, so that memory is the only limit.
static std::int32_t read_all(const std::uint8_t *p, std::int64_t bytes) {
  V8i found[8];
  for (auto &f : found) f = splat(std::int32_t{0});
  for (const std::uint8_t *end = p + bytes; p != end; p += sizeof found)
    for (int i = 0; i < 8; ++i) found[i] ^= load<V8i>(p + i * sizeof(V8i));
  for (int i = 1; i < 8; ++i) found[0] ^= found[i];
  std::int32_t all = 0;
  for (int i = 0; i < kLanes; ++i) all ^= found[0][i];
  return all;
}

}  // namespace rl::RL_ISA

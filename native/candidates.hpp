// Tokens of a row of logits that are still in question, and how the largest of many logits are found fast.
#pragma once

#include <algorithm>
#include <cstdint>

#define RL_ISA drawing
#include "lanes.hpp"

namespace rl {

struct Candidate {
  float weight;  // any measure of how likely the token is
  std::int32_t token;
};

// Likelier first, equally likely ones by token. A type, so that sorting does not call it by its address.
struct Before {
  bool operator()(const Candidate &a, const Candidate &b) const {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  }
};
constexpr Before before{};

static inline bool is_number(float x) { return x == x && x > -__builtin_inff(); }

constexpr int kLogitsBlock = 256;  // logits looked at together

// The largest number of up to kLogitsBlock logits, -inf if there is none.
static inline float largest_of(const float *logits, int count) {
  using namespace drawing;
  V8f most[4];
  for (V8f &m : most) m = splat(-__builtin_inff());
  int i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) most[j] = larger(load<V8f>(logits + i + j * kLanes), most[j]);
  float found = maximum(larger(larger(most[0], most[1]), larger(most[2], most[3])));
  for (; i < count; ++i) found = logits[i] > found ? logits[i] : found;
  return found;
}

// The first of the largest logits, -1 if none is a number.
static inline int first_largest(const float *logits, int n) {
  float most = -__builtin_inff();
  int block = -1;
  for (int i = 0; i < n; i += kLogitsBlock) {
    const float found = largest_of(logits + i, std::min(kLogitsBlock, n - i));
    if (!(found > most)) continue;
    most = found;
    block = i;
  }
  while (block >= 0 && logits[block] != most) ++block;
  return block;
}

// With at least so many candidates it is worth cutting them back to the `keep` best. More than n: never.
static inline int worth_cutting(int keep, int n) { return keep < n / 2 ? 2 * keep + kLogitsBlock : n + 1; }

}  // namespace rl

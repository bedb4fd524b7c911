// Drawing a token from logits.
#pragma once

#include <cstdint>

#include "rockledge.h"

namespace rl {

struct Candidate;

// The token, or -1 if none of the logits is a number. Room for n candidates.
int sample(const float *logits, int n, const rl_sampling &sampling, std::uint64_t draw, Candidate *candidates);
bool sane(const rl_sampling &sampling);

}  // namespace rl

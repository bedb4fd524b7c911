// Drawing a token from logits.
#pragma once

#include <cstdint>

#include "rockledge.h"

namespace rl {

// The token, or -1 with a sentence in last_error().
int sample(const float *logits, int n, const rl_sampling &sampling, std::uint64_t draw);

}  // namespace rl

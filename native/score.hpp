// Log probabilities of a row of logits: log softmax in double.
#pragma once

#include <cstdint>

namespace rl {

struct Candidate;

// log p = (logit - largest) - log_total. `largest` is -inf where no logit is a number.
struct Softmax {
  float largest;
  double log_total;
};

Softmax softmax_of(const float *logits, int n);
double log_probability(const Softmax &softmax, float logit);
// The `count` most probable tokens that are numbers, best first, equal logits by rising token; returns how many there are.
// Room for n candidates.
int most_probable(const float *logits, int n, int count, const Softmax &softmax, Candidate *candidates,
                  std::int32_t *tokens, double *logprobs);

}  // namespace rl

// Temperature, then top-k, then min-p and top-p on what is left; the draw is fixed by (seed, draw).
#include "sample.hpp"

#include <algorithm>

#include "candidates.hpp"

namespace rl {
namespace {

// What is left of all tokens after temperature, top-k and min-p, in no order that matters; returns how many.
int weigh(const float *logits, int n, float largest, const rl_sampling &sampling, Candidate *candidates) {
  using namespace drawing;
  const int keep = sampling.top_k > 0 ? std::min(sampling.top_k, n) : n;
  const int full = worth_cutting(keep, n);
  float least = -__builtin_inff();  // `keep` candidates before this token have logits of at least as much
  int count = 0;
  const auto cut = [&] {
    std::nth_element(candidates, candidates + keep - 1, candidates + count, before);
    count = keep;
  };
  for (int start = 0; start < n; start += kLogitsBlock) {
    const int end = std::min(n, start + kLogitsBlock);
    if (largest_of(logits + start, end - start) < least) continue;
    for (int i = start; i < end; i += kLanes) {
      const V8f weights = exponential((load_part(logits + i, end - i) - splat(largest)) / splat(sampling.temperature));
      for (int j = i; j < std::min(end, i + kLanes); ++j) {
        if (!is_number(logits[j]) || logits[j] < least) continue;
        // Equal logits need no difference: that of two infinities is not a number.
        const float weight = logits[j] == largest ? 1.0f : weights[j - i];
        // The likeliest candidate has weight 1, so min_p is a bound on the weights themselves.
        if (weight >= sampling.min_p) candidates[count++] = Candidate{weight, j};
      }
    }
    if (count < full) continue;
    cut();
    least = logits[candidates[keep - 1].token];
  }
  if (count > keep) cut();
  return count;
}

// A uniform number in [0, 1) of the pair: two rounds of the splitmix64 mixer.
double uniform(std::uint64_t seed, std::uint64_t draw) {
  std::uint64_t z = seed;
  for (const std::uint64_t add : {draw, std::uint64_t{0}}) {
    z += (add + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
  }
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

double total_of(const Candidate *first, const Candidate *last) {
  double total = 0.0;
  for (; first != last; ++first) total += first->weight;
  return total;
}

// Sorts as much of the front as reaches `share` of the total, and returns how many that takes.
int nucleus(Candidate *candidates, int count, double share) {
  const double wanted = share * total_of(candidates, candidates + count);
  double reached = 0.0;
  int sorted = 0;
  while (sorted < count) {
    const int until = std::min(count, std::max(64, 4 * sorted));
    std::partial_sort(candidates + sorted, candidates + until, candidates + count, before);
    for (; sorted < until; ++sorted) {
      reached += candidates[sorted].weight;
      if (reached >= wanted) return sorted + 1;
    }
  }
  return count;
}

}  // namespace

bool sane(const rl_sampling &sampling) {
  return sampling.temperature == sampling.temperature && sampling.top_p > 0.0f && sampling.min_p >= 0.0f &&
         sampling.min_p <= 1.0f && sampling.top_k >= 0;
}

int sample(const float *logits, int n, const rl_sampling &sampling, std::uint64_t draw, Candidate *candidates) {
  const int best = first_largest(logits, n);
  if (best < 0 || !(sampling.temperature > 0.0f)) return best;

  int count = weigh(logits, n, logits[best], sampling, candidates);
  if (sampling.top_p < 1.0f) count = nucleus(candidates, count, sampling.top_p);

  double left = uniform(sampling.seed, draw) * total_of(candidates, candidates + count);
  for (int i = 0; i < count; ++i) {
    left -= candidates[i].weight;
    if (left < 0.0) return candidates[i].token;
  }
  return best;
}

}  // namespace rl

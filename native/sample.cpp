// Temperature, then top-k, then min-p and top-p on what is left; the draw is fixed by (seed, draw).
#define RL_ISA drawing
#include "sample.hpp"

#include <algorithm>

#include "error.hpp"
#include "lanes.hpp"
#include "memory.hpp"

namespace rl {
namespace {

struct Candidate {
  float weight;  // exp((logit - largest) / temperature)
  std::int32_t token;
};

// Likelier first, equally likely ones by token.
bool before(const Candidate &a, const Candidate &b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

bool is_number(float x) { return x == x && x > -__builtin_inff(); }

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

int sample(const float *logits, int n, const rl_sampling &sampling, std::uint64_t draw) {
  int best = -1;
  for (int i = 0; i < n; ++i)
    if (is_number(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
  if (best < 0) return fail("none of the %d logits is a number; the model's output is broken", n);
  if (!(sampling.temperature > 0.0f)) return best;

  Array<Candidate> candidates;
  if (!candidates.allocate(static_cast<std::size_t>(n))) return fail("there is no memory to sample %d tokens", n);
  int count = 0;
  const float largest = logits[best];
  for (int i = 0; i < n; ++i) {
    if (!is_number(logits[i])) continue;
    // Equal logits need no division: the difference of two infinities is no number.
    const float distance = logits[i] == largest ? 0.0f : (logits[i] - largest) / sampling.temperature;
    candidates[static_cast<std::size_t>(count++)] = Candidate{drawing::exponential(distance), i};
  }
  Candidate *c = candidates.data();
  if (sampling.top_k > 0 && sampling.top_k < count) {
    std::nth_element(c, c + sampling.top_k - 1, c + count, before);
    count = sampling.top_k;
  }
  // The likeliest candidate has weight 1, so min_p is a bound on the weights themselves.
  if (sampling.min_p > 0.0f)
    count = static_cast<int>(std::partition(c, c + count, [&](const Candidate &x) { return x.weight >= sampling.min_p; }) - c);
  if (sampling.top_p < 1.0f) count = nucleus(c, count, sampling.top_p);

  double left = uniform(sampling.seed, draw) * total_of(c, c + count);
  for (int i = 0; i < count; ++i) {
    left -= c[i].weight;
    if (left < 0.0) return c[i].token;
  }
  return best;
}

}  // namespace rl

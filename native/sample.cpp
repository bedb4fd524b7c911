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

constexpr int kBlock = 256;  // logits looked at together

// The largest number of up to kBlock logits, -inf if there is none.
float largest_of(const float *logits, int count) {
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
int first_largest(const float *logits, int n) {
  float most = -__builtin_inff();
  int block = -1;
  for (int i = 0; i < n; i += kBlock) {
    const float found = largest_of(logits + i, std::min(kBlock, n - i));
    if (!(found > most)) continue;
    most = found;
    block = i;
  }
  while (block >= 0 && logits[block] != most) ++block;
  return block;
}

// What is left of all tokens after temperature, top-k and min-p, in no order that matters; returns how many.
int weigh(const float *logits, int n, float largest, const rl_sampling &sampling, Candidate *candidates) {
  using namespace drawing;
  const int keep = sampling.top_k > 0 ? std::min(sampling.top_k, n) : n;
  const int full = keep < n / 2 ? 2 * keep + kBlock : n + 1;  // candidates that are worth cutting back to `keep`
  float least = -__builtin_inff();  // `keep` candidates before this token have logits of at least as much
  int count = 0;
  const auto cut = [&] {
    std::nth_element(candidates, candidates + keep - 1, candidates + count, before);
    count = keep;
  };
  for (int start = 0; start < n; start += kBlock) {
    const int end = std::min(n, start + kBlock);
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

int sample(const float *logits, int n, const rl_sampling &sampling, std::uint64_t draw) {
  const int best = first_largest(logits, n);
  if (best < 0) return fail("none of the %d logits is a number; the model's output is broken", n);
  if (!(sampling.temperature > 0.0f)) return best;

  Array<Candidate> candidates;
  if (!candidates.allocate(static_cast<std::size_t>(n))) {
    return fail("not enough memory to sample from %d logits; free some", n);
  }
  Candidate *c = candidates.data();
  int count = weigh(logits, n, logits[best], sampling, c);
  if (sampling.top_p < 1.0f) count = nucleus(c, count, sampling.top_p);

  double left = uniform(sampling.seed, draw) * total_of(c, c + count);
  for (int i = 0; i < count; ++i) {
    left -= c[i].weight;
    if (left < 0.0) return c[i].token;
  }
  return best;
}

}  // namespace rl

// Temperature, then top-k, then min-p and top-p on what is left; the draw is fixed by (seed, draw).
#include "sample.hpp"

#include <algorithm>
#include <bit>

#include "candidates.hpp"

namespace rl {
namespace {

// Whether all of up to kLogitsBlock logits are: the difference of another one from itself is not 0.
bool all_finite(const float *logits, int count) {
  using namespace drawing;
  V8f none = splat(0.0f);
  for (int i = 0; i < count; i += kLanes) {
    const V8f some = load_part(logits + i, count - i);
    none += some - some;
  }
  for (int j = 0; j < kLanes; ++j)
    if (none[j] != 0.0f) return false;
  return true;
}

// All tokens of a block of finite logits; returns how many.
int weigh_all(const float *logits, int start, int end, float largest, float temperature, Candidate *candidates) {
  using namespace drawing;
  for (int i = start; i < end; i += kLanes) {
    const V8f weights = exponential((load_part(logits + i, end - i) - splat(largest)) / splat(temperature));
    Candidate *eight = candidates + (i - start);
    if (i + kLanes <= end)
      for (int j = 0; j < kLanes; ++j) eight[j] = Candidate{weights[j], i + j};
    else
      for (int j = 0; j < end - i; ++j) eight[j] = Candidate{weights[j], i + j};
  }
  return end - start;
}

// What is left of all tokens after temperature, top-k and min-p, in no order that matters; returns how many.
int weigh(const float *logits, int n, float largest, const rl_sampling &sampling, Candidate *candidates) {
  using namespace drawing;
  const int keep = sampling.top_k > 0 ? std::min(sampling.top_k, n) : n;
  const int full = worth_cutting(keep, n);
  float least = -__builtin_inff();  // `keep` candidates before this token have logits of at least as much
  int count = 0;
  const bool filtered = keep < n || sampling.min_p > 0.0f || !(largest < __builtin_inff());
  const auto cut = [&] {
    std::nth_element(candidates, candidates + keep - 1, candidates + count, before);
    count = keep;
  };
  for (int start = 0; start < n; start += kLogitsBlock) {
    const int end = std::min(n, start + kLogitsBlock);
    if (!filtered && all_finite(logits + start, end - start)) {
      count += weigh_all(logits, start, end, largest, sampling.temperature, candidates + count);
      continue;
    }
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

// Weights from 1 down, 64 buckets for each halving, the last for all that is smaller.
constexpr int kBuckets = 1024;
int bucket_of(const Candidate &candidate) {
  constexpr std::int32_t kOne = 0x3F800000;  // 1.0f, whose bits rise with the number
  return std::clamp((kOne - std::bit_cast<std::int32_t>(candidate.weight)) >> 17, 0, kBuckets - 1);
}

// Moves the candidates into their buckets, in place; bucket b ends before ends[b].
void part(Candidate *candidates, int count, std::int32_t (&ends)[kBuckets]) {
  std::int32_t next[kBuckets] = {};
  for (int i = 0; i < count; ++i) ++next[bucket_of(candidates[i])];
  std::int32_t start = 0;
  for (int b = 0; b < kBuckets; ++b) {
    ends[b] = start + next[b];
    next[b] = start;
    start = ends[b];
  }
  for (int b = 0; b < kBuckets; ++b)
    while (next[b] < ends[b]) {
      Candidate moved = candidates[next[b]];
      for (int to = bucket_of(moved); to != b; to = bucket_of(moved)) std::swap(moved, candidates[next[to]++]);
      candidates[next[b]++] = moved;
    }
}

// Sorts as much of the front as reaches `share` of the total, and returns how many that takes. It is mostly a few of
// many; where it is not, only whole buckets are sorted.
int nucleus(Candidate *candidates, int count, double share) {
  constexpr int kFew = 64;
  const double wanted = share * total_of(candidates, candidates + count);
  double reached = 0.0;
  int sorted = 0;
  const auto enough = [&](int until) {
    while (sorted < until && reached < wanted) reached += candidates[sorted++].weight;
    return reached >= wanted;
  };
  const int few = std::min(kFew, count);
  std::partial_sort(candidates, candidates + few, candidates + count, before);
  if (enough(few) || few == count) return sorted;
  std::int32_t ends[kBuckets];
  Candidate *rest = candidates + few;
  part(rest, count - few, ends);
  std::int32_t start = 0;
  for (const std::int32_t end : ends) {
    std::sort(rest + start, rest + end, before);
    if (enough(few + end)) break;
    start = end;
  }
  return sorted;
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

#include "score.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "candidates.hpp"

namespace rl {
namespace {

// exp and log of doubles: the C library's are newer than the one that wheels promise to run with, and a loop of these
// becomes vectors.

// exp(x) for x <= 0 (NaN: nearly 0), to two units in the last place: 2^k times the Taylor series of the rest, which is at
// most ln(2) / 2 away from 0. Below -700 it stays at exp(-700), nothing beside the 1 of the largest.
inline double exponential_below(double x) {
  constexpr double kShift = 0x1.8p52;  // adding it rounds to the nearest integer, which is then in the low bits
  const double clamped = x > -700.0 ? x : -700.0;
  const double shifted = clamped * 1.4426950408889634 + kShift, k = shifted - kShift;
  const double r = (clamped - k * 0x1.62e42fefap-1) - k * 0x1.cf79abc9e3b3ap-40;  // ln(2) in two parts
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const std::uint64_t power = (std::bit_cast<std::uint64_t>(shifted) << 52) + (std::uint64_t{1023} << 52);
  return p * std::bit_cast<double>(power);
}

// log(x) for a normal x >= 1: of 2^e m it is e log(2) + 2 atanh((m - 1) / (m + 1)), with m near 1.
double logarithm(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & ((std::uint64_t{1} << 52) - 1)) | (std::uint64_t{1023} << 52));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 0.0;
  for (int i = 23; i >= 1; i -= 2) p = p * z + 1.0 / i;
  return exponent * 0x1.62e42fefap-1 + (exponent * 0x1.cf79abc9e3b3ap-40 + 2.0 * s * p);
}

}  // namespace

Softmax softmax_of(const float *logits, int n) {
  const int best = first_largest(logits, n);
  if (best < 0) return Softmax{-__builtin_inff(), 0.0};
  const float largest = logits[best];
  if (largest == __builtin_inff())  // infinite ones share all of it
    return Softmax{largest, logarithm(static_cast<double>(std::count(logits, logits + n, largest)))};
  constexpr int kSums = 8;
  double sums[kSums] = {};
  int i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int j = 0; j < kSums; ++j) sums[j] += exponential_below(static_cast<double>(logits[i + j]) - largest);
  for (; i < n; ++i) sums[0] += exponential_below(static_cast<double>(logits[i]) - largest);
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return Softmax{largest, logarithm(total)};
}

double log_probability(const Softmax &softmax, float logit) {
  if (!is_number(softmax.largest)) return std::numeric_limits<double>::quiet_NaN();
  // Two infinities have no difference.
  return (logit == softmax.largest ? 0.0 : static_cast<double>(logit) - softmax.largest) - softmax.log_total;
}

int most_probable(const float *logits, int n, int count, const Softmax &softmax, Candidate *candidates,
                  std::int32_t *tokens, double *logprobs) {
  const int keep = std::min(count, n), full = worth_cutting(keep, n);
  if (keep == 0) return 0;
  float least = -__builtin_inff();
  int found = 0;
  const auto cut = [&] {
    std::nth_element(candidates, candidates + keep - 1, candidates + found, before);
    found = keep;
  };
  for (int start = 0; start < n; start += kLogitsBlock) {
    const int end = std::min(n, start + kLogitsBlock);
    if (largest_of(logits + start, end - start) < least) continue;
    for (int i = start; i < end; ++i)
      if (is_number(logits[i]) && logits[i] >= least) candidates[found++] = Candidate{logits[i], i};
    if (found < full) continue;
    cut();
    least = candidates[keep - 1].weight;
  }
  if (found > keep) cut();
  std::sort(candidates, candidates + found, before);
  for (int i = 0; i < found; ++i) {
    tokens[i] = candidates[i].token;
    logprobs[i] = log_probability(softmax, candidates[i].weight);
  }
  return found;
}

}  // namespace rl

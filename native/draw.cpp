#include "draw.hpp"

#include <algorithm>

#include "candidates.hpp"
#include "error.hpp"
#include "sample.hpp"
#include "score.hpp"

namespace rl {
namespace {

constexpr int kWordBits = 32;

bool all_below(const std::int32_t *tokens, int count, int vocab) {
  bool good = true;
  for (int i = 0; i < count; ++i) good &= static_cast<std::uint32_t>(tokens[i]) < static_cast<std::uint32_t>(vocab);
  return good;
}

bool is_list(const void *list, int count) { return count == 0 || (count > 0 && list != nullptr); }

bool finite(float x) { return x - x == 0.0f; }

bool changes(const rl_draw &d) {
  const bool penalised = d.repetition != 1.0f || d.presence != 0.0f || d.frequency != 0.0f;
  return (penalised && d.seen_count > 0) || d.bias_count > 0 || d.banned_count > 0 || d.allowed != nullptr;
}

// A bias first and penalties after it, as vLLM (`Sampler.apply_logits_processors`) and transformers
// (`_get_logits_processor`) have them. What cannot be drawn is minus infinity, which none of them changes.
void change(float *logits, int vocab, const rl_draw &d) {
  constexpr float kNever = -__builtin_inff();
  if (d.allowed != nullptr)
    for (int start = 0; start < vocab; start += kWordBits) {
      const std::uint32_t word = d.allowed[start / kWordBits];
      const int end = std::min(vocab, start + kWordBits);
      if (word == 0)
        std::fill(logits + start, logits + end, kNever);
      else if (word != ~std::uint32_t{0})
        for (int i = start; i < end; ++i)
          if ((word >> (i - start) & 1) == 0) logits[i] = kNever;
    }
  for (int i = 0; i < d.banned_count; ++i) logits[d.banned[i]] = kNever;
  for (int i = 0; i < d.bias_count; ++i) logits[d.bias_tokens[i]] += d.bias[i];
  if (d.repetition == 1.0f && d.presence == 0.0f && d.frequency == 0.0f) return;
  for (int i = 0; i < d.seen_count; ++i) {
    float &logit = logits[d.seen[i]];
    if (d.repetition != 1.0f) logit = logit > 0.0f ? logit / d.repetition : logit * d.repetition;
    if (d.seen_times[i] == 0) continue;
    logit -= d.frequency * static_cast<float>(d.seen_times[i]);
    logit -= d.presence;
  }
}

}  // namespace

std::int64_t drawing_bytes(int vocab) {
  return static_cast<std::int64_t>(vocab) * static_cast<std::int64_t>(sizeof(Candidate) + sizeof(float));
}

int check_draw(const rl_draw &d, int number, int vocab) {
  if (!sane(d.sampling))
    return fail("the sampling settings of draw %d are out of range: top-p in (0, 1], min-p in [0, 1], top-k from 0", number);
  if (!(d.repetition > 0.0f) || !finite(d.repetition) || !finite(d.presence) || !finite(d.frequency))
    return fail("draw %d has the penalties %g (repetition), %g (presence) and %g (frequency), expected finite numbers, the "
                "first above 0",
                number, static_cast<double>(d.repetition), static_cast<double>(d.presence),
                static_cast<double>(d.frequency));
  if (d.given < -1 || d.given >= vocab)
    return fail("draw %d is of the given token %d; the model has tokens 0 to %d", number, d.given, vocab - 1);
  const bool whole = is_list(d.seen, d.seen_count) && is_list(d.seen_times, d.seen_count) &&
                     is_list(d.bias_tokens, d.bias_count) && is_list(d.bias, d.bias_count) &&
                     is_list(d.banned, d.banned_count) && is_list(d.top_tokens, d.top_count) &&
                     is_list(d.top_logprobs, d.top_count);
  if (!whole) return fail("draw %d lacks one of its lists, or the length of one is below 0", number);
  if (!all_below(d.seen, d.seen_count, vocab) || !all_below(d.bias_tokens, d.bias_count, vocab) ||
      !all_below(d.banned, d.banned_count, vocab))
    return fail("draw %d names a token that the model lacks; it has tokens 0 to %d", number, vocab - 1);
  if (d.allowed != nullptr && std::int64_t{d.allowed_words} * kWordBits < vocab)
    return fail("draw %d has a mask of %d words of %d tokens each, expected bits for %d tokens", number, d.allowed_words,
                kWordBits, vocab);
  return 0;
}

void draw(float *logits, int vocab, rl_draw &d, void *scratch) {
  auto *candidates = static_cast<Candidate *>(scratch);
  Softmax softmax{};
  d.top_found = 0;
  if (d.scored != 0) {
    softmax = softmax_of(logits, vocab);
    d.top_found = most_probable(logits, vocab, d.top_count, softmax, candidates, d.top_tokens, d.top_logprobs);
  }
  if (d.given >= 0) {
    d.token = d.given;
  } else if (!changes(d)) {
    d.token = sample(logits, vocab, d.sampling, d.number, candidates);
  } else {
    float *changed = logits;
    if (d.scored != 0) {  // the score of the token is that of the logit it had
      changed = reinterpret_cast<float *>(candidates + vocab);
      std::copy_n(logits, vocab, changed);
    }
    change(changed, vocab, d);
    d.token = sample(changed, vocab, d.sampling, d.number, candidates);
  }
  if (d.scored != 0 && d.token >= 0) d.logprob = log_probability(softmax, logits[d.token]);
}

}  // namespace rl

// What a step is checked for: its sizes when it is made, its rows when they are to run.
#include <algorithm>

#include "draw.hpp"
#include "error.hpp"
#include "step.hpp"

namespace rl {
namespace {

constexpr int kMaxThreads = 64;

}  // namespace

int Step::check_sizes() const {
  const rl_shape &shape = program_.shape();
  if (sizes_.threads < 1 || sizes_.threads > kMaxThreads)
    return fail("a step cannot have %d threads; use 1 to %d", sizes_.threads, kMaxThreads);
  if (sizes_.max_rows < 1 || sizes_.max_rows > shape.max_rows)
    return fail("a step of up to %d rows, expected 1 to %d, those of the program", sizes_.max_rows, shape.max_rows);
  if (sizes_.logit_rows < 0 || sizes_.logit_rows > sizes_.max_rows)
    return fail("a step that draws from %d rows, expected 0 to %d, its rows", sizes_.logit_rows, sizes_.max_rows);
  return 0;
}

int Step::check_batch(const rl_batch &batch, int first, int last) {
  bool tokens = false, cache = false;
  for (int i = first; i < last; ++i) {
    const rl_op &op = program_.ops()[static_cast<std::size_t>(i)];
    tokens |= op.code == RL_EMBED;
    cache |= op.code == RL_ROPE_KV || op.code == RL_ATTENTION;
    if (op.out[0] == kStepLogits && batch.logit_count > 0 && batch.logits == nullptr && batch.draws == nullptr)
      return fail("the step asks for the logits of %d rows but gives no array for them", batch.logit_count);
  }
  if (batch.rows < 1 || batch.rows > sizes_.max_rows)
    return fail("the step has %d rows, expected 1 to %d", batch.rows, sizes_.max_rows);
  if (batch.logit_count < 0 || batch.logit_count > sizes_.max_rows || (batch.logit_count > 0 && batch.logit_rows == nullptr))
    return fail("the step asks for the logits of %d rows, expected at most %d, with their numbers", batch.logit_count,
                sizes_.max_rows);
  for (int i = 0; i < batch.logit_count; ++i)
    if (batch.logit_rows[i] < 0 || batch.logit_rows[i] >= batch.rows)
      return fail("logit row %d is row %d of a step of %d rows", i, batch.logit_rows[i], batch.rows);
  if (batch.draws != nullptr && check_draws(batch, last) < 0) return -1;
  if (tokens) {
    if (batch.tokens == nullptr) return fail("the step has no tokens");
    for (int i = first; i < last; ++i) {
      const rl_op &op = program_.ops()[static_cast<std::size_t>(i)];
      if (op.code != RL_EMBED) continue;
      const int vocab = program_.logits_width(op);
      for (int r = 0; r < batch.rows; ++r)
        if (batch.tokens[r] < 0 || batch.tokens[r] >= vocab)
          return fail("row %d is token %d; the model has tokens 0 to %d", r, batch.tokens[r], vocab - 1);
    }
  }
  if (!cache) return 0;
  if (batch.positions == nullptr || batch.sequences == nullptr || batch.block_tables == nullptr)
    return fail("the step lacks positions, sequences or block tables");
  if (batch.sequences_count < 1 || batch.sequences_count > sizes_.max_rows || batch.table_width < 1)
    return fail("the step has %d sequences with %d pages each, expected 1 to %d sequences of at least one page",
                batch.sequences_count, batch.table_width, sizes_.max_rows);
  std::fill_n(reach_.data(), batch.sequences_count, Reach{0, -1});
  for (int r = 0; r < batch.rows; ++r) {
    const int s = batch.sequences[r], p = batch.positions[r];
    if (s < 0 || s >= batch.sequences_count)
      return fail("row %d belongs to sequence %d of %d", r, s, batch.sequences_count);
    if (p < 0 || p / program_.shape().page_tokens >= batch.table_width)
      return fail("row %d is at position %d; the block table reaches to %lld", r, p,
                  static_cast<long long>(batch.table_width) * program_.shape().page_tokens - 1);
    if (p >= program_.shape().context)
      return fail("row %d is at position %d; the program has a context of %d tokens", r, p, program_.shape().context);
    Reach &reach = reach_[static_cast<std::size_t>(s)];
    if (p <= reach.last) return fail("row %d is at position %d after %d, expected a later position", r, p, reach.last);
    if (reach.last < 0) reach.first = p;
    reach.last = p;
  }
  return check_tables(batch);
}

int Step::check_draws(const rl_batch &batch, int last) const {
  if (batch.logits != nullptr) return fail("the step has draws and an array for the logits; give one of them");
  if (program_.vocab() == 0 || static_cast<std::size_t>(last) != program_.ops().size())
    return fail("the step has draws, but no logits: its operations end before, or none of the program writes any");
  if (batch.logit_count > sizes_.logit_rows)
    return fail("the step draws from %d rows; it has memory for %d", batch.logit_count, sizes_.logit_rows);
  for (int i = 0; i < batch.logit_count; ++i) {
    if (batch.draws[i] == nullptr) return fail("the step has no draw for logit row %d", i);
    if (check_draw(*batch.draws[i], i, program_.vocab()) < 0) return -1;
  }
  return 0;
}

// Every page in reach is one of its pool.
int Step::check_tables(const rl_batch &batch) const {
  const std::int32_t *pages = batch.block_tables;
  for (const rl_pool &pool : program_.pools())
    for (int s = 0; s < batch.sequences_count; ++s, pages += batch.table_width) {
      const Reach &reach = reach_[static_cast<std::size_t>(s)];
      if (reach.last < 0) continue;
      for (int i = first_seen(pool, reach.first) / program_.shape().page_tokens; i <= reach.last / program_.shape().page_tokens; ++i)
        if (pages[i] < 0 || pages[i] >= pool.pages)
          return fail("page %d of sequence %d is %d; the pool has pages 0 to %d", i, s, pages[i], pool.pages - 1);
    }
  return 0;
}

}  // namespace rl

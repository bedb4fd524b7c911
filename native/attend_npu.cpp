// Attention on the NPU: which rows of a step go there, and what the threads do for them. The order of it all is that of
// npu/attention.hpp.
#include <algorithm>
#include <cstring>
#include <utility>

#include "error.hpp"
#include "step.hpp"

namespace rl {
namespace {

constexpr int kMostGroup = 128;  // query heads to a KV head

// Positions of a cache that a run sees, of which others may not even have pages.
struct Reachable {
  const KvLayer &kv;
  const std::int32_t *pages;
  int begin, end;
};

// Where eight positions from `position` on have their keys, or values, of a KV head; null where nobody sees one of them.
const std::int8_t *eight_keys(const Reachable &from, int head, int position) {
  const int tokens = from.kv.page_tokens;
  if (position + kKeys <= from.begin || position >= from.end) return nullptr;
  const auto *page = reinterpret_cast<const std::int8_t *>(from.kv.base + from.pages[position / tokens] * from.kv.page_bytes);
  return page + (std::int64_t{head} * tokens + position % tokens) * from.kv.head_stride;
}
const std::int8_t *eight_values(const Reachable &from, int head, int position) {
  const int tokens = from.kv.page_tokens;
  if (position + kKeys <= from.begin || position >= from.end) return nullptr;
  const auto *page = reinterpret_cast<const std::int8_t *>(from.kv.base + from.pages[position / tokens] * from.kv.page_bytes);
  return page + std::int64_t{from.kv.kv_heads + head} * tokens * from.kv.head_stride + position % tokens * kColumns;
}

// Of a page's [input / 4][8 positions][4 inputs] the NPU's [input / 32][32 positions][32 inputs].
void lay_eight_keys(const std::int8_t *from, int stride, std::int8_t *to) {
  constexpr int kRun = npu::Attention::kRun;
  for (int k = 0; k < stride; k += kQuad)
    for (int p = 0; p < kKeys; ++p) {
      std::int8_t *at = to + k / kRun * kRun * kRun + p * kRun + k % kRun;
      if (from == nullptr)
        std::memset(at, 0, kQuad);
      else
        std::memcpy(at, from + k * kKeys + p * kQuad, kQuad);
    }
}

// Of a page's [column / 16][position / 4][16 columns][4 positions] the NPU's [column / 32][512 / 32][32 columns][32
// positions].
void lay_eight_values(const std::int8_t *from, int stride, int tokens, std::int8_t *to) {
  constexpr int kRun = npu::Attention::kRun;
  for (int c = 0; c < stride; ++c)
    for (int p = 0; p < kKeys; p += kQuad) {
      std::int8_t *at = to + c / kRun * kRun * kSplit + c % kRun * kRun + p;
      if (from == nullptr)
        std::memset(at, 0, kQuad);
      else
        std::memcpy(at, from + c / kColumns * std::int64_t{kColumns} * tokens + p * kColumns + c % kColumns * kQuad, kQuad);
    }
}

}  // namespace

int Step::attend_on_npu(const rl_npu_attention *plan) {
  if (busy_.exchange(true)) return fail("this step is running; wait for it before its NPU changes");
  int result = 0;
  attention_.reset();
  if (plan != nullptr) {
    const rl_shape &shape = program_.shape();
    const npu::AttentionFacts facts{program_.head_stride(), shape.kv_heads > 0 ? shape.heads / shape.kv_heads : 0,
                                    sizes_.max_rows};
    const auto rows = static_cast<std::size_t>(sizes_.max_rows);
    if (offload_ == nullptr)
      result = fail("the step uses no NPU, expected one; give it linears first");
    else if (!program_.has_cache() || facts.group < 1 || facts.group > kMostGroup)
      result = fail("a KV head has %d query heads, expected 1 to %d for attention on the NPU", facts.group, kMostGroup);
    else if (!on_npu_.allocate(rows) || !runs_.allocate(rows) ||
             !partials_.allocate(2 * rows * static_cast<std::size_t>(partial_floats(facts.group, facts.stride)) * sizeof(float)))
      result = fail("not enough memory for attention on the NPU; free some memory");
    else
      attention_ = npu::Attention::create(offload_->plan().shared_npu(), *plan, facts, offload_->plan().held());
    if (result == 0 && attention_ == nullptr) result = -1;
  }
  busy_.store(false);
  return result;
}

// The rows of an attention that go to the NPU, in runs.
void Step::find_runs(const rl_op &op) {
  runs_count_ = 0;
  if (attention_ == nullptr || offload_->stopped()) return;
  const int rows = rows_of(op), most = std::min(attention_->most_rows(), sizes_.max_rows);
  std::fill_n(on_npu_.data(), rows, std::uint8_t{0});
  for (int r = 0, end = 0; r < rows; r = end) {
    for (end = r + 1; end < rows && end - r < most && batch_.sequences[end] == batch_.sequences[r] &&
                      batch_.positions[end] == batch_.positions[end - 1] + 1 && batch_.positions[r] >= attention_->from();)
      ++end;
    if (batch_.positions[r] < attention_->from() || end - r < attention_->least_rows()) continue;
    std::fill_n(on_npu_.data() + r, end - r, std::uint8_t{1});
    runs_[static_cast<std::size_t>(runs_count_++)] = Run{r, end - r};
  }
  if (runs_count_ == 0) return;
  attending_ = true;
  run_ = 0;
  begin_run(op);
}

// The positions that some of a run's rows see: from the first to before the second.
Step::Reach Step::seen_by_run(const rl_op &op) const {
  const Run run = runs_[static_cast<std::size_t>(run_)];
  return {first_seen(program_.pool_of(op), batch_.positions[run.first]), batch_.positions[run.first + run.rows - 1] + 1};
}

void Step::begin_run(const rl_op &op) {
  const auto [begin, end] = seen_by_run(op);
  const int first = begin / kSplit, last = (end - 1) / kSplit;
  attention_->begin(runs_[static_cast<std::size_t>(run_)].rows, program_.shape().kv_heads, first, last - first + 1);
}

// The next phase of the runs; no units when they are done, or the CPU has to do what is left of them.
Phase Step::npu_attention_phase() {
  const rl_op &op = current_op();
  for (;;) {
    const std::int64_t jobs = attention_->jobs();
    const bool more = attention_->next();
    offload_->count_attention(0, attention_->jobs() - jobs);
    if (more) return Phase{static_cast<std::uint32_t>(attention_units()), 1};
    if (attention_->failed() || attention_->wrong()) {
      if (attention_->failed())
        offload_->leave();
      else
        offload_->attention_was_wrong(std::exchange(wrong_once_, true));
      for (; run_ < runs_count_; ++run_) {
        const Run run = runs_[static_cast<std::size_t>(run_)];
        std::fill_n(on_npu_.data() + run.first, run.rows, std::uint8_t{0});
      }
      break;
    }
    if (!attended_) offload_->count_attention(runs_[static_cast<std::size_t>(run_)].rows, 0);
    if (++run_ == runs_count_) break;
    begin_run(op);
  }
  attended_ = true;
  attending_ = false;
  return Phase{0, 1};
}

// In this order: rows whose values are folded and whose scores become weights, runs of keys and of values, rows of
// queries, and check sums of queries and weights.
int Step::attention_units() const {
  const npu::Attention::Duty &duty = attention_->duty();
  constexpr int kRuns = npu::Attention::kRuns;
  return (duty.weigh >= 0 || duty.fold >= 0 ? attention_->rows() : 0) + (duty.lay_keys >= 0 ? kRuns : 0) +
         (duty.lay_values >= 0 ? kRuns : 0) + (duty.place_queries ? attention_->rows() : 0) +
         (duty.expect_scores >= 0 ? attention_->expect_units(1) : 0) + (duty.expect_sums >= 0 ? attention_->expect_units(2) : 0);
}

void Step::npu_attention_work(const rl_op &op, std::uint32_t first, std::uint32_t count, Scratch &scratch) {
  const npu::Attention::Duty &duty = attention_->duty();
  constexpr int kRuns = npu::Attention::kRuns;
  for (int unit = static_cast<int>(first), end = unit + static_cast<int>(count); unit < end; ++unit) {
    int left = unit;
    const auto among = [&](bool there, int units) {
      if (!there) return false;
      if (left < units) return true;
      left -= units;
      return false;
    };
    if (among(duty.weigh >= 0 || duty.fold >= 0, attention_->rows()))
      npu_attention_row(op, left, scratch);
    else if (among(duty.lay_keys >= 0, kRuns))
      lay_keys(op, left);
    else if (among(duty.lay_values >= 0, kRuns))
      lay_values(op, left);
    else if (among(duty.place_queries, attention_->rows()))
      place_queries(op, left);
    else if (among(duty.expect_scores >= 0, attention_->expect_units(1)))
      expect_attention(1, left);
    else
      expect_attention(2, left);
  }
}

// Values of the turn that has ended, then the weights of the one that follows, which take their place in the partial.
void Step::npu_attention_row(const rl_op &op, int r, Scratch &scratch) {
  const npu::Attention::Duty &duty = attention_->duty();
  const rl_shape &shape = program_.shape();
  const Kernels &kernels = program_.kernels();
  const int row = runs_[static_cast<std::size_t>(run_)].first + r, group = shape.heads / shape.kv_heads;
  const int lane = attention_->lane_of(r), vector = attention_->vector_of(r);
  const AttentionTask task = attention_task(op, row);
  const std::int64_t floats = partial_floats(group, program_.head_stride());
  float *state = reinterpret_cast<float *>(partials_.data()) + 2 * r * floats, *next = state + floats;
  const int first = task.first / kSplit, last = task.position / kSplit;
  std::uint64_t checks[2 * kMostGroup];
  if (duty.fold >= 0) {
    const auto [head, split] = attention_->turn(duty.fold);
    if (split >= first && split <= last) {
      kernels.npu_values(task, attention_->vectors(lane, duty.fold), vector, next, checks);
      attention_->compare(checks, attention_->expected_sums(lane, 2 * vector), 2 * group);
      if (split == first)
        std::memcpy(state, next, static_cast<std::size_t>(floats) * sizeof(float));
      else
        kernels.attend_fold(task, state, next);
      if (split == last) kernels.attend_finish(task, state, at<float>(op.out[0], row) + head * group * shape.head_dim);
    }
  }
  if (duty.weigh >= 0) {
    const auto [head, split] = attention_->turn(duty.weigh);
    if (split >= first && split <= last) {
      kernels.npu_weights(task, head, split, attention_->vectors(lane, duty.weigh), vector, next, checks, scratch);
      attention_->compare(checks, attention_->expected_scores(lane, vector, duty.weigh), group);
    }
  }
}

// Thirty-two positions of a turn's keys, or values, for every address space.
void Step::lay_keys(const rl_op &op, int part) const {
  constexpr int kRun = npu::Attention::kRun;
  const auto [head, split] = attention_->turn(attention_->duty().lay_keys);
  const KvLayer kv = program_.layer(op.dim[1], op.dim[0]);
  const auto [begin, end] = seen_by_run(op);
  const Reachable from{kv, table(op.dim[1], batch_.sequences[runs_[static_cast<std::size_t>(run_)].first]), begin, end};
  const std::int64_t offset = std::int64_t{part} * kRun * kv.head_stride;
  std::int8_t *to = attention_->keys(0) + offset;
  for (int p = 0; p < kRun; p += kKeys)
    lay_eight_keys(eight_keys(from, head, split * kSplit + part * kRun + p), kv.head_stride, to + p * kRun);
  for (int copy = 1; copy < attention_->copies(); ++copy)
    std::memcpy(attention_->keys(copy) + offset, to, static_cast<std::size_t>(kRun) * static_cast<std::size_t>(kv.head_stride));
  attention_->check_keys(part);
}

void Step::lay_values(const rl_op &op, int part) const {
  constexpr int kRun = npu::Attention::kRun;
  const auto [head, split] = attention_->turn(attention_->duty().lay_values);
  const KvLayer kv = program_.layer(op.dim[1], op.dim[0]);
  const auto [begin, end] = seen_by_run(op);
  const Reachable from{kv, table(op.dim[1], batch_.sequences[runs_[static_cast<std::size_t>(run_)].first]), begin, end};
  const std::int64_t offset = std::int64_t{part} * kRun * kRun;
  for (int p = 0; p < kRun; p += kKeys)
    lay_eight_values(eight_values(from, head, split * kSplit + part * kRun + p), kv.head_stride, kv.page_tokens,
                     attention_->values(0) + offset + p);
  for (int copy = 1; copy < attention_->copies(); ++copy)
    for (std::int64_t c = offset; c < std::int64_t{kSplit} * kv.head_stride; c += std::int64_t{kRun} * kSplit)
      std::memcpy(attention_->values(copy) + c, attention_->values(0) + c, kRun * kRun);
  attention_->check_values(part);
}

void Step::place_queries(const rl_op &op, int r) const {
  const int head = attention_->turn(attention_->duty().lay_keys).head, stride = program_.head_stride();
  const int group = program_.shape().heads / program_.shape().kv_heads, lane = attention_->lane_of(r);
  const std::int8_t *q = at<std::int8_t>(op.in[0], runs_[static_cast<std::size_t>(run_)].first + r) +
                         std::int64_t{head} * group * stride;
  for (int h = 0; h < group; ++h, q += stride)
    for (int k = 0; k < stride; k += kAtom)
      std::memcpy(attention_->query(lane, attention_->vector_of(r) + h, k), q + k, kAtom);
}

void Step::expect_attention(int planes, int unit) const {
  constexpr int kVectors = npu::Attention::kExpectVectors;
  const int of_lane = attention_->expect_units(planes) / attention_->lanes(), lane = unit / of_lane;
  const int first = unit % of_lane * kVectors, end = std::min(first + kVectors, attention_->used_vectors(lane, planes));
  for (int v = first; v < end; v += kCheckVectors) {
    if (planes == 1)
      program_.kernels().expect_checks(attention_->score_task(lane, v),
                                       attention_->expected_scores(lane, v, attention_->duty().expect_scores));
    else
      program_.kernels().expect_checks(attention_->sum_task(lane, v), attention_->expected_sums(lane, v));
  }
}

}  // namespace rl

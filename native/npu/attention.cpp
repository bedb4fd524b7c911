#include "attention.hpp"

#include <algorithm>

#include "../error.hpp"

namespace rl::npu {
namespace {

constexpr int kMostSizes = 64, kMostVectors = 1 << 16;

int no_memory() { return fail("not enough memory for attention on the NPU; free some memory"); }

}  // namespace

Owned<Attention> Attention::create(const Shared<Npu> &npu, const rl_npu_attention &plan, const AttentionFacts &facts,
                                   const Held &beside) {
  Owned<Attention> made = make_owned<Attention>();
  if (made == nullptr) {
    no_memory();
    return nullptr;
  }
  made->npu_ = npu;
  made->held_ = make_owned<Held>(npu);
  made->facts_ = facts;
  if (made->held_ == nullptr || plan.sizes == nullptr || plan.n_sizes < 1 || plan.n_sizes > kMostSizes ||
      !made->sizes_.allocate(static_cast<std::size_t>(plan.n_sizes))) {
    fail("attention on the NPU has %d sizes, expected 1 to %d of them, and memory for a copy", plan.n_sizes, kMostSizes);
    return nullptr;
  }
  made->plan_ = plan;
  std::copy_n(plan.sizes, plan.n_sizes, made->sizes_.data());
  made->plan_.sizes = nullptr;
  if (made->check(plan) < 0 || made->hold(beside) < 0 || made->bind() < 0) return nullptr;
  if (!made->allocate()) {
    no_memory();
    return nullptr;
  }
  return made;
}

int Attention::check(const rl_npu_attention &plan) const {
  rl_npu_description device{};
  npu_->describe(device);
  if (plan.lanes < 1 || plan.lanes > device.cores || plan.lanes > RL_NPU_CORES)
    return fail("attention on the NPU has %d lanes, expected 1 to %d, the cores of the NPU", plan.lanes, device.cores);
  if (plan.from < 0 || plan.least_rows < 1 || plan.timeout_ms < 1 || plan.timeout_ms > 60000)
    return fail("attention on the NPU is for %d rows from position %d on with jobs of %d ms, expected at least 1, 0, and 1 to 60000",
                plan.least_rows, plan.from, plan.timeout_ms);
  for (int i = 0; i < plan.n_sizes; ++i) {
    const rl_npu_attention_size &size = plan.sizes[i];
    const int before = i == 0 ? 0 : plan.sizes[i - 1].rows;
    if (size.rows <= before || size.rows > kMostVectors / facts_.group)
      return fail("attention on the NPU has a size of %d rows after one of %d, expected rising ones", size.rows, before);
    for (const int tile : {size.score_tile, size.sum_tile})
      if (tile < 4 || tile % 4 != 0 || tile > kMostVectors)
        return fail("attention on the NPU has tiles of %d vectors, expected multiples of 4", tile);
  }
  return 0;
}

int Attention::hold(const Held &beside) {
  std::int64_t scores = 0, sums = 0;  // vectors
  for (const rl_npu_attention_size &size : sizes_) {
    const std::int64_t queries = std::int64_t{size.rows} * facts_.group;
    scores = std::max(scores, padded(queries, size.score_tile));
    sums = std::max(sums, padded(2 * queries, size.sum_tile));
  }
  const std::int64_t stride = facts_.stride, split = std::int64_t{kSplit} * stride;
  constexpr std::int64_t kSum = sizeof(std::int32_t);
  for (int c = 0; c < plan_.lanes; ++c) {
    if (held_->place("the queries", plan_.queries[c], c, scores * stride) < 0 ||
        held_->place("the scores", plan_.scores[0][c], c, scores * kSplit * kSum) < 0 ||
        held_->place("the scores", plan_.scores[1][c], c, scores * kSplit * kSum) < 0 ||
        held_->place("the weights", plan_.weights[c], c, sums * kSplit) < 0 ||
        held_->place("the sums", plan_.sums[c], c, sums * stride * kSum) < 0)
      return -1;
    for (const auto *place : {&plan_.keys, &plan_.values}) {
      const rl_npu_place &own = (*place)[c], &first = (*place)[0];
      if (c == 0 || npu_->spaces() > 1) {
        if (held_->place("a split", own, c, split) < 0) return -1;
      } else if (own.buffer != first.buffer || own.offset != first.offset) {
        return fail("lane %d has keys or values of its own; lanes of one address space share them", c);
      }
    }
    for (const rl_npu_attention_size &size : sizes_)
      for (const std::int32_t program : {size.score_programs[0][c], size.score_programs[1][c], size.sum_programs[c]})
        if (held_->program(program) < 0) return -1;
  }
  most_scores_ = scores;
  most_sums_ = sums;
  return held_->check_overlaps(&beside);
}

// Addresses never change.
int Attention::bind() {
  const std::int64_t stride = facts_.stride, split = std::int64_t{kSplit} * stride;
  const auto one = [&](std::int32_t program, const rl_npu_place &input, std::int64_t in, const rl_npu_place &weight,
                       const rl_npu_place &output, std::int64_t out) {
    const rl_npu_binding bindings[] = {{input.buffer, 0, 0, input.offset, in},
                                       {weight.buffer, 0, 0, weight.offset, split},
                                       {output.buffer, 1, 0, output.offset, out},
                                       {-1, 0, 0, 0, 0}};
    static_assert(RL_NPU_INPUT == 0 && RL_NPU_WEIGHT == 1 && RL_NPU_OUTPUT == 2 && RL_NPU_SCRATCH == 3);
    return npu_->bind(program, bindings, sizeof bindings / sizeof *bindings);
  };
  for (const rl_npu_attention_size &size : sizes_) {
    const std::int64_t queries = std::int64_t{size.rows} * facts_.group, scores = padded(queries, size.score_tile),
                       sums = padded(2 * queries, size.sum_tile);
    for (int c = 0; c < plan_.lanes; ++c) {
      for (int parity = 0; parity < 2; ++parity)
        if (one(size.score_programs[parity][c], plan_.queries[c], scores * stride, plan_.keys[c], plan_.scores[parity][c],
                scores * kSplit * 4) < 0)
          return -1;
      if (one(size.sum_programs[c], plan_.weights[c], sums * kSplit, plan_.values[c], plan_.sums[c], sums * stride * 4) < 0)
        return -1;
    }
  }
  return 0;
}

bool Attention::allocate() {
  const auto count = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const std::int64_t columns = std::max(kSplit, facts_.stride);
  if (!factors_.allocate(count(columns)) || !key_parts_.allocate(count(std::int64_t{kRuns} * facts_.stride)) ||
      !key_low_.allocate(count(facts_.stride)) || !key_high_.allocate(count(facts_.stride)) ||
      !value_low_.allocate(count(kSplit)) || !value_high_.allocate(count(kSplit)) ||
      !expected_scores_.allocate(count(2 * plan_.lanes * most_scores_)) ||
      !expected_sums_.allocate(count(plan_.lanes * most_sums_)))
    return false;
  for (std::size_t c = 0; c < factors_.size(); ++c) factors_[c] = check_factor(static_cast<std::uint32_t>(c));
  return true;
}

void Attention::begin(int rows, int heads, int first_split, int splits) {
  rows_ = rows;
  lane_rows_ = (rows + plan_.lanes - 1) / plan_.lanes;
  size_ = sizes_.data();
  while (size_->rows < lane_rows_) ++size_;
  first_split_ = first_split;
  splits_ = splits;
  turns_ = heads * splits;
  step_ = -1;
  failed_ = false;
  wrong_.store(false, std::memory_order_relaxed);
  duty_ = kNoDuty;
}

// Step 2 n runs the scores of turn n, step 2 n + 1 the sums of turn n - 1.
bool Attention::next() {
  settle();
  for (;;) {
    if (running_) {
      running_ = false;
      if (npu_->wait() < 0)
        failed_ = true;
      else
        ++jobs_;
    }
    if (failed_ || wrong() || step_ > 2 * turns_ + 2) return false;
    const bool scores = step_ % 2 == 0;
    const int n = (step_ + 1) / 2 - (scores ? 0 : 1);
    ++step_;
    if (scores) {
      if (exists(n) && start_scores(n) < 0) failed_ = true;
      duty_ = Duty{-1, existing(n - 1), existing(n - 1), existing(n - 2), existing(n), -1, false};
    } else {
      if (exists(n - 1) && start_sums(n - 1) < 0) failed_ = true;
      duty_ = Duty{existing(n + 1), -1, -1, -1, -1, existing(n - 1), exists(n + 1) && (n + 1) % splits_ == 0};
    }
    if (failed_) return false;
    if (duty_.lay_keys >= 0 || duty_.weigh >= 0 || duty_.fold >= 0 || duty_.expect_scores >= 0 || duty_.expect_sums >= 0)
      return true;
  }
}

// What the threads were to do is done.
void Attention::settle() {
  placed_ |= duty_.place_queries;
  if (duty_.lay_keys >= 0)
    for (int k = 0; k < facts_.stride; ++k) {
      std::uint64_t v = 0;
      for (int run = 0; run < kRuns; ++run) v += static_cast<std::uint64_t>(key_parts_.data()[run * facts_.stride + k]);
      split_factor(v, key_low_.data()[k], key_high_.data()[k]);
    }
  duty_ = kNoDuty;
}

int Attention::submit(const std::int32_t *programs) {
  if (npu_->submit(programs, lanes(), plan_.timeout_ms) < 0) return -1;
  running_ = true;
  return 0;
}

int Attention::start_scores(int turn) {
  const auto clean = [&](const rl_npu_place &place, std::int64_t bytes) {
    return npu_->sync(place.buffer, place.offset, bytes, RL_NPU_TO_DEVICE);
  };
  for (int c = 0; c < lanes(); ++c)
    if (placed_ && clean(plan_.queries[c], std::int64_t{used_vectors(c, 1)} * facts_.stride) < 0) return -1;
  placed_ = false;
  for (int c = 0; c < copies(); ++c)
    if (clean(plan_.keys[c], std::int64_t{kSplit} * facts_.stride) < 0) return -1;
  return submit(size_->score_programs[turn % 2]);
}

int Attention::start_sums(int) {
  const auto clean = [&](const rl_npu_place &place, std::int64_t bytes) {
    return npu_->sync(place.buffer, place.offset, bytes, RL_NPU_TO_DEVICE);
  };
  for (int c = 0; c < lanes(); ++c)
    if (clean(plan_.weights[c], std::int64_t{used_vectors(c, 2)} * kSplit) < 0) return -1;
  for (int c = 0; c < copies(); ++c)
    if (clean(plan_.values[c], std::int64_t{kSplit} * facts_.stride) < 0) return -1;
  return submit(size_->sum_programs);
}

// Of the tiles in which a lane's vectors lie.
int Attention::used_vectors(int lane, int planes) const {
  const int rows = std::min(lane_rows_, rows_ - lane * lane_rows_), tile = planes == 1 ? size_->score_tile : size_->sum_tile;
  return static_cast<int>(padded(std::int64_t{planes} * rows * facts_.group, tile));
}

NpuVectors Attention::vectors(int lane, int turn) const {
  return NpuVectors{at<std::int32_t>(plan_.scores[turn % 2][lane]), at<std::int8_t>(plan_.weights[lane]),
                    at<std::int32_t>(plan_.sums[lane]), size_->score_tile, size_->sum_tile, factors_.data()};
}

// Run r of the keys is [stride / 32][32 positions][32 inputs]; position and input of it multiply factor and query.
void Attention::check_keys(int run) {
  const std::int8_t *tile = keys(0) + std::ptrdiff_t{run} * kRun * facts_.stride;
  const std::int32_t *factor = factors_.data() + run * kRun;
  std::int64_t *parts = key_parts_.data() + run * facts_.stride;
  for (int k = 0; k < facts_.stride; k += kRun, tile += kRun * kRun) {
    std::int64_t more[kRun] = {};
    for (int p = 0; p < kRun; ++p)
      for (int i = 0; i < kRun; ++i) more[i] += std::int64_t{factor[p]} * std::int32_t{tile[p * kRun + i]};
    std::copy_n(more, kRun, parts + k);
  }
}

// Run r of the values is a part [32 columns][32 positions] of each [512 / 32][32][32]; here columns have the factors.
void Attention::check_values(int run) {
  std::int64_t more[kRun] = {};
  for (int c = 0; c < facts_.stride; c += kRun) {
    const std::int8_t *tile = values(0) + (c / kRun * kRuns + run) * kRun * kRun;
    for (int i = 0; i < kRun; ++i)
      for (int p = 0; p < kRun; ++p) more[p] += std::int64_t{factors_.data()[c + i]} * std::int32_t{tile[i * kRun + p]};
  }
  for (int p = 0; p < kRun; ++p)
    split_factor(static_cast<std::uint64_t>(more[p]), value_low_.data()[run * kRun + p], value_high_.data()[run * kRun + p]);
}

// Of each lane, also where the last one has fewer vectors.
int Attention::expect_units(int planes) const {
  return lanes() * ((used_vectors(0, planes) + kExpectVectors - 1) / kExpectVectors);
}

ExpectTask Attention::score_task(int lane, int vector) const {
  return ExpectTask{query(lane, vector, 0), std::int64_t{kAtom} * size_->score_tile, facts_.stride, key_low_.data(),
                    key_high_.data()};
}

ExpectTask Attention::sum_task(int lane, int vector) const {
  return ExpectTask{at<std::int8_t>(plan_.weights[lane]) + in_tile(size_->sum_tile, kSplit, vector),
                    std::int64_t{kAtom} * size_->sum_tile, kSplit, value_low_.data(), value_high_.data()};
}

void Attention::compare(const std::uint64_t *found, const std::uint64_t *expected, int count) {
  if (!std::equal(found, found + count, expected)) wrong_.store(true, std::memory_order_relaxed);
}

}  // namespace rl::npu

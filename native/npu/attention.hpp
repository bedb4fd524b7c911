// The pipeline of attention on the NPU: while it multiplies, the CPU makes weights of the scores of the turn before, and
// partial values of the sums of the one before that.
//
// A turn is one split of one KV head, for all rows of a run: a product of queries and keys, weights made of the scores, a
// product of weights and values, and values folded into those of the splits before. Everything here but the check sums is
// called by one thread at a time, between phases of the threads. Nothing that a run reads is changed by it, so when the
// NPU fails or its sums are wrong, the CPU does the whole operation, to the same bits.
#pragma once

#include <atomic>

#include "checksum.hpp"
#include "held.hpp"

namespace rl::npu {

// What a plan is checked against.
struct AttentionFacts {
  std::int32_t stride;  // inputs of a head, rounded up to 32
  std::int32_t group;   // query heads to a KV head
  std::int32_t rows;    // of a step, at most
};

class Attention {
 public:
  static constexpr int kRun = 32;              // positions that a unit lays out: a run of the NPU's kernels
  static constexpr int kRuns = kSplit / kRun;  // of a split
  static constexpr int kExpectVectors = 32;    // whose check sums a unit expects
  struct Turn {
    int head, split;
  };
  // What the threads shall do; turns by their numbers, or -1.
  struct Duty {
    int lay_keys, lay_values, weigh, fold, expect_scores, expect_sums;
    bool place_queries;  // of the head of lay_keys
  };

  // `beside`: what else is held of the device. Null and a sentence when something does not fit.
  static Owned<Attention> create(const Shared<Npu> &npu, const rl_npu_attention &plan, const AttentionFacts &facts,
                                 const Held &beside);

  int from() const { return plan_.from; }
  int least_rows() const { return plan_.least_rows; }
  int most_rows() const { return plan_.lanes * sizes_[sizes_.size() - 1].rows; }

  // A run of so many rows over these splits; then `next` until it is false.
  void begin(int rows, int heads, int first_split, int splits);
  // True when there is something for the threads: `duty`. False when the run is done, or broken off.
  bool next();
  const Duty &duty() const { return duty_; }
  // Why it was broken off: a job failed, or sums were wrong.
  bool failed() const { return failed_; }
  bool wrong() const { return wrong_.load(std::memory_order_relaxed); }
  std::int64_t jobs() const { return jobs_; }

  Turn turn(int number) const { return {number / splits_, first_split_ + number % splits_}; }
  int rows() const { return rows_; }
  int lanes() const { return (rows_ + lane_rows_ - 1) / lane_rows_; }
  int lane_of(int row) const { return row / lane_rows_; }
  // The first query vector of a row, in its lane.
  int vector_of(int row) const { return row % lane_rows_ * facts_.group; }

  // Where the threads read and write. Copies of keys and values: one for each address space.
  int copies() const { return npu_->spaces() == 1 ? 1 : lanes(); }
  std::int8_t *keys(int copy) const { return at<std::int8_t>(plan_.keys[copy]); }
  std::int8_t *values(int copy) const { return at<std::int8_t>(plan_.values[copy]); }
  // Input `k` (a multiple of 16) of a query vector of a lane.
  std::int8_t *query(int lane, int vector, int k) const {
    return at<std::int8_t>(plan_.queries[lane]) + in_tile(size_->score_tile, facts_.stride, vector) +
           std::int64_t{k} * size_->score_tile;
  }
  // Of a turn's scores, weights and sums.
  NpuVectors vectors(int lane, int turn) const;

  // Check sums. What was laid out in run `run` of a turn's keys or values adds to what is expected of it.
  void check_keys(int run);
  void check_values(int run);
  int expect_units(int planes) const;
  ExpectTask score_task(int lane, int vector) const;
  ExpectTask sum_task(int lane, int vector) const;
  std::uint64_t *expected_scores(int lane, int vector, int turn) {
    return expected_scores_.data() + (std::int64_t{turn % 2} * plan_.lanes + lane) * most_scores_ + vector;
  }
  std::uint64_t *expected_sums(int lane, int vector) {
    return expected_sums_.data() + std::int64_t{lane} * most_sums_ + vector;
  }
  // Whether `count` check sums are those expected; if not, the run is broken off.
  void compare(const std::uint64_t *found, const std::uint64_t *expected, int count);

  // Vectors that a size has room for: whole tiles.
  static std::int64_t padded(std::int64_t vectors, int tile) { return (vectors + tile - 1) / tile * tile; }
  int used_vectors(int lane, int planes) const;

 private:
  template <typename T>
  T *at(const rl_npu_place &place) const {
    return reinterpret_cast<T *>(npu_->memory(place.buffer)->data + place.offset);
  }
  static std::int64_t in_tile(int tile, std::int64_t inputs, int vector) {
    return vector / tile * inputs * tile + std::int64_t{vector % tile} * kAtom;
  }
  int check(const rl_npu_attention &plan) const;
  int hold(const Held &beside);
  int bind();
  bool allocate();
  void settle();
  int start_scores(int turn);
  int start_sums(int turn);
  int submit(const std::int32_t *programs);
  bool exists(int turn) const { return turn >= 0 && turn < turns_; }
  int existing(int turn) const { return exists(turn) ? turn : -1; }

  Shared<Npu> npu_;
  Owned<Held> held_;
  rl_npu_attention plan_{};
  AttentionFacts facts_{};
  Array<rl_npu_attention_size> sizes_;
  Array<std::int32_t> factors_;                     // of columns
  Array<std::int64_t> key_parts_;                   // [kRuns][stride]: what the runs of the keys add
  Array<std::int32_t> key_low_, key_high_;          // [stride]: 64-bit factors of a query's inputs
  Array<std::int32_t> value_low_, value_high_;      // [kSplit]: of a weight's
  Array<std::uint64_t> expected_scores_, expected_sums_;
  std::int64_t most_scores_ = 0, most_sums_ = 0;    // vectors of a lane

  // The run.
  const rl_npu_attention_size *size_ = nullptr;
  int rows_ = 0, lane_rows_ = 1, first_split_ = 0, splits_ = 1, turns_ = 0;
  int step_ = 0;          // of the pipeline
  bool running_ = false;  // a job
  bool placed_ = false;   // queries, which the device has not got
  bool failed_ = false;
  std::atomic<bool> wrong_{false};
  Duty duty_ = kNoDuty;
  static constexpr Duty kNoDuty{-1, -1, -1, -1, -1, -1, false};
  std::atomic<std::int64_t> jobs_{0};
};

}  // namespace rl::npu

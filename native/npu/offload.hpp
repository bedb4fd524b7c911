// The pipeline of a program's linears on the NPU: while one block runs, the sums of the one before it are handed to the
// CPU and become floats, and the weights of a later one are unpacked and handed to the NPU.
//
// Everything here is called by one thread at a time, between phases of the threads. What becomes floats is checked when
// a linear ends. If it was wrong, the step begins anew after a reset; what is wrong twice in a step, or fails, ends the
// use of the NPU, and the step begins anew on the CPU.
#pragma once

#include <atomic>

#include "checksum.hpp"

namespace rl::npu {

class Offload {
 public:
  // Null and a sentence when memory ran out.
  static Owned<Offload> create(Owned<Plan> plan, int threads);
  explicit Offload(Owned<Plan> plan) : plan_(std::move(plan)) {}

  const Plan &plan() const { return *plan_; }
  Checksum &checksum() { return checksum_; }
  bool takes(int rows);
  bool stopped() const { return stopped_.load(std::memory_order_acquire); }
  // Also for a thread that does nothing else here.
  void work(rl_npu_work &work) const;

  void begin_step(int rows);
  // The input of a linear is in its places; then `next` until it is false.
  void begin_linear(int linear);
  // True when there is something for the threads: `duty`. False when the linear is done, or the step is `broken`.
  bool next();
  // Nothing that this step has computed counts: it begins anew, after begin_step_again.
  bool broken() const { return broken_; }
  void begin_step_again();

  // Attention (npu/attention.hpp), whose inputs are still there when it fails: the step goes on. After a job that failed;
  // after wrong sums, once more in the same step; and what it has done.
  void leave() { stop(); }
  void attention_was_wrong(bool again);
  void count_attention(int rows, std::int64_t jobs);

  // What a phase shall do, -1 or a block each: the epilogue of one, whose sums are in output `parity`, and the unpacking
  // of another; or, where the driver hands over ranges, first `collect` the sums. What was unpacked is the next phase's to
  // `clean`. At the end of a linear also what the sums of its first `expected` vectors should be.
  struct Duty {
    int epilogue, parity, unpack, collect, clean, expected;
  };
  const Duty &duty() const { return duty_; }
  // Pieces of a duty that are handed over, and one of them; for several threads at once.
  int syncs() const;
  void sync(int number);

 private:
  void settle();
  bool assign(int unpack);
  bool follow();
  void expect();
  int unpackable() const;
  void prepare();
  void start();
  void finish();
  void retry_after_reset();
  void stop();
  bool resident(int block) const { return holder_[static_cast<std::size_t>(plan_->slot_of(block))] == block; }

  Owned<Plan> plan_;
  Checksum checksum_;
  Array<std::int32_t> holder_;   // of each slot: the block whose weights are there, or -1
  int held_ = 0;                 // slots that hold one
  int rows_ = 0;                 // of this step
  bool counted_ = false;         // this step
  bool broken_ = false, retried_ = false;  // it has to begin anew, or once had to
  int linear_ = 0;
  int next_ = 0, end_ = 0;       // blocks of it that are to be started
  int running_ = -1;
  bool used_ = false;            // the time while it runs, for a phase
  int parity_ = 0;               // of the next to be started, in programs and outputs
  int prepared_ = -1;            // its programs are bound with that
  int finished_ = -1;            // came back with the other one, and wants its epilogue
  int collected_ = -1;           // the same, when its sums are the CPU's
  int unpacked_block_ = -1;      // and wants to be cleaned
  Duty duty_ = kNoDuty;
  static constexpr Duty kNoDuty{-1, 0, -1, -1, -1, 0};
  std::atomic<bool> unsynced_{false};  // a piece was not handed over, for:
  char unsynced_reason_[sizeof(rl_npu_work::reason)] = "";

  std::atomic<std::int64_t> steps_{0}, step_rows_{0}, blocks_{0}, unpacked_{0}, waited_{0}, busy_{0}, fallbacks_{0};
  std::atomic<std::int64_t> attention_rows_{0}, attention_jobs_{0};
  std::int64_t started_ = 0;
  std::atomic<bool> stopped_{false};
  char reason_[sizeof(rl_npu_work::reason)] = "";
};

}  // namespace rl::npu

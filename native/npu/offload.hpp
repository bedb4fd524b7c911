// The pipeline of a program's linears on the NPU: while one block runs, the sums of the one before it are handed to the
// CPU and become floats, and the weights of a later one are unpacked and handed to the NPU.
//
// Everything here is called by one thread at a time, between phases of the threads. What fails once ends the use of the
// NPU: blocks that came back are done, the others are left to the CPU.
#pragma once

#include <atomic>

#include "plan.hpp"

namespace rl::npu {

class Offload {
 public:
  // Null and a sentence when there is no memory.
  static Owned<Offload> create(Owned<Plan> plan);
  explicit Offload(Owned<Plan> plan) : plan_(std::move(plan)) {}

  const Plan &plan() const { return *plan_; }
  bool takes(int rows) const { return !stopped() && rows >= plan_->from_rows() && rows <= plan_->to_rows(); }
  bool stopped() const { return stopped_.load(std::memory_order_acquire); }
  // Also for a thread that does nothing else here.
  void work(rl_npu_work &work) const;

  void begin_step(int rows);
  // The input of a linear is in its places; then `next` until it is false.
  void begin_linear(int linear);
  // True when there is something for the threads: `duty`.
  bool next();
  // The blocks of the linear before this one are done.
  int end() const { return end_; }

  // What a phase shall do, -1 or a block each: the epilogue of one, whose sums are in output `parity`, and the unpacking
  // of another; or, where the driver hands over ranges, first `collect` the sums. What was unpacked is the next phase's to
  // `clean`.
  struct Duty {
    int epilogue, parity, unpack, collect, clean;
  };
  const Duty &duty() const { return duty_; }
  // Pieces of a duty that are handed over, and one of them; for several threads at once.
  int syncs() const;
  void sync(int number);

 private:
  void settle();
  bool assign(int unpack);
  bool follow();
  int unpackable() const;
  void prepare();
  void start();
  void finish();
  void stop();
  bool resident(int block) const { return holder_[static_cast<std::size_t>(plan_->slot_of(block))] == block; }

  Owned<Plan> plan_;
  Array<std::int32_t> holder_;   // of each slot: the block whose weights are there, or -1
  int held_ = 0;                 // slots that hold one
  int rows_ = 0;                 // of this step
  bool counted_ = false;         // this step
  int linear_ = 0;
  int next_ = 0, end_ = 0;       // blocks of it that are to be started
  int running_ = -1;
  bool used_ = false;            // the time while it runs, for a phase
  int parity_ = 0;               // of the next to be started, in programs and outputs
  int prepared_ = -1;            // its programs are bound with that
  int finished_ = -1;            // came back with the other one, and wants its epilogue
  int lost_ = -1;                // came back, but its sums did not
  int collected_ = -1;           // the same, when its sums are the CPU's
  int unpacked_block_ = -1;      // and wants to be cleaned
  Duty duty_ = kNoDuty;
  static constexpr Duty kNoDuty{-1, 0, -1, -1, -1};
  std::atomic<bool> unsynced_{false};  // a piece was not handed over, for:
  char unsynced_reason_[sizeof(rl_npu_work::reason)] = "";

  std::atomic<std::int64_t> steps_{0}, step_rows_{0}, blocks_{0}, unpacked_{0}, waited_{0}, fallbacks_{0};
  std::atomic<bool> stopped_{false};
  char reason_[sizeof(rl_npu_work::reason)] = "";
};

}  // namespace rl::npu

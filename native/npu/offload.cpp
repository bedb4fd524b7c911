#include "offload.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "../clock.hpp"
#include "../error.hpp"

namespace rl::npu {

Owned<Offload> Offload::create(Owned<Plan> plan, int threads) {
  Owned<Offload> made = make_owned<Offload>(std::move(plan));
  if (made == nullptr || !made->checksum_.allocate(*made->plan_, threads) ||
      !made->holder_.allocate(static_cast<std::size_t>(made->plan_->slots()))) {
    fail("not enough memory for a plan of the NPU; free some memory");
    return nullptr;
  }
  std::fill(made->holder_.begin(), made->holder_.end(), -1);
  return made;
}

void Offload::work(rl_npu_work &work) const {
  work.steps = steps_;
  work.rows = step_rows_;
  work.blocks = blocks_;
  work.unpacked_bytes = unpacked_;
  work.waited_ns = waited_;
  work.busy_ns = busy_;
  work.fallbacks = fallbacks_;
  work.attention_rows = attention_rows_;
  work.attention_jobs = attention_jobs_;
  work.stopped = stopped();
  if (work.stopped != 0) std::memcpy(work.reason, reason_, sizeof reason_);
}

bool Offload::takes(int rows) {
  if (stopped() || rows < plan_->from_rows() || rows > plan_->to_rows()) return false;
  if (plan_->npu().check_process() < 0) stop();
  return !stopped();
}

void Offload::begin_step(int rows) {
  rows_ = rows;
  counted_ = retried_ = false;
  begin_step_again();
}

void Offload::begin_step_again() {
  broken_ = false;
  prepared_ = finished_ = collected_ = unpacked_block_ = -1;
}

void Offload::begin_linear(int linear) {
  if (!counted_) {
    ++steps_;
    step_rows_ += rows_;
    counted_ = true;
  }
  linear_ = linear;
  next_ = plan_->linear(linear).first_block;
  end_ = next_ + plan_->linear(linear).blocks;
  checksum_.begin_linear(rows_ * plan_->shape_of(linear).planes);
  if (plan_->sync_input(linear, rows_) < 0) stop();
}

bool Offload::next() {
  settle();
  if (!broken_ && follow()) return true;
  for (;;) {
    if (running_ >= 0) {
      if (!used_) {
        used_ = true;
        if (assign(stopped() ? -1 : unpackable())) return true;
      }
      prepare();
      finish();
      continue;
    }
    if (broken_) return false;
    if (next_ == end_) return assign(-1);
    if (!resident(next_)) return assign(next_);
    start();
  }
}

// What the threads were to do is done.
void Offload::settle() {
  if (unsynced_.exchange(false)) {
    fail("%s", unsynced_reason_);
    stop();
    duty_.clean = -1;
  } else {
    collected_ = duty_.collect;
  }
  if (duty_.epilogue >= 0) finished_ = -1;
  if (duty_.expected > 0 && !checksum_.agrees()) retry_after_reset();
  unpacked_block_ = duty_.unpack;
  if (duty_.unpack >= 0 && !checksum_.has(duty_.unpack)) checksum_.finish_weights(*plan_, duty_.unpack);
  if (duty_.clean >= 0) {
    holder_[static_cast<std::size_t>(plan_->slot_of(duty_.clean))] = duty_.clean;
    ++held_;
    unpacked_ += plan_->unpacked_bytes(duty_.clean);
  }
  duty_ = kNoDuty;
}

// A duty: the epilogue that is due, or the collecting before it, and this unpacking. False if it is none.
bool Offload::assign(int unpack) {
  // What came back has the parity of the start before the last while something runs, of the last one otherwise.
  const bool collect = finished_ >= 0 && plan_->sum_pieces(finished_, rows_) > 0;
  duty_ = Duty{collect ? -1 : finished_, running_ >= 0 ? parity_ : 1 - parity_, unpack, collect ? finished_ : -1, -1, 0};
  expect();
  if (unpack >= 0) {
    std::int32_t &holder = holder_[static_cast<std::size_t>(plan_->slot_of(unpack))];
    held_ -= holder >= 0;
    holder = -1;
  }
  return duty_.epilogue >= 0 || duty_.unpack >= 0 || duty_.collect >= 0;
}

// The second half of a duty.
bool Offload::follow() {
  duty_ = Duty{collected_, running_ >= 0 ? parity_ : 1 - parity_, -1, -1, unpacked_block_, 0};
  expect();
  collected_ = unpacked_block_ = -1;
  return duty_.epilogue >= 0 || duty_.clean >= 0;
}

// With the last floats of a linear goes what it is checked by.
void Offload::expect() {
  if (duty_.epilogue >= 0 && duty_.epilogue == end_ - 1) duty_.expected = rows_ * plan_->shape_of(linear_).planes;
}

int Offload::syncs() const {
  return (duty_.collect < 0 ? 0 : plan_->sum_pieces(duty_.collect, rows_)) +
         (duty_.clean < 0 ? 0 : plan_->weight_pieces(duty_.clean));
}

void Offload::sync(int number) {
  const int result = duty_.collect >= 0 ? plan_->sync_sums(duty_.collect, rows_, duty_.parity, number)
                                        : plan_->sync_weights(duty_.clean, number);
  if (result < 0 && !unsynced_.exchange(true)) std::snprintf(unsynced_reason_, sizeof unsynced_reason_, "%s", last_error());
}

// The first block, in the order of steps that repeat, whose weights are missing: if what lies in its slot is neither
// running nor needed before. Else -1.
int Offload::unpackable() const {
  const int blocks = plan_->blocks();
  if (held_ == blocks) return -1;
  int ahead = 0;
  while (resident((next_ + ahead) % blocks)) ++ahead;
  const int block = (next_ + ahead) % blocks;
  const int there = holder_[static_cast<std::size_t>(plan_->slot_of(block))];
  if (there >= 0 && (there == running_ || (there - next_ + blocks) % blocks < ahead)) return -1;
  return block;
}

// Binds what will be started next, maybe for the next linear: while another one runs, this costs no time.
void Offload::prepare() {
  const bool last = next_ == end_;
  if (stopped() || (last && linear_ + 1 == plan_->linears())) return;
  const int block = last ? plan_->linear(linear_ + 1).first_block : next_;
  if (prepared_ == block) return;
  prepared_ = block;
  if (plan_->bind(block, plan_->size_of(plan_->linear_of(block), rows_), parity_) < 0) stop();
}

void Offload::start() {
  prepare();
  if (stopped()) return;
  const rl_npu_size &size = plan_->size_of(linear_, rows_);
  if (plan_->npu().submit(size.programs[parity_], plan_->active_lanes(next_), plan_->timeout_ms()) < 0) return stop();
  running_ = next_++;
  started_ = nanoseconds();
  used_ = false;
  prepared_ = -1;
  parity_ = 1 - parity_;
}

void Offload::finish() {
  const std::int64_t begun = nanoseconds();
  const bool good = plan_->npu().wait() == 0;
  const std::int64_t ended = nanoseconds();
  waited_ += ended - begun;
  busy_ += ended - started_;
  if (good) {
    finished_ = running_;
    ++blocks_;
  } else {
    stop();
  }
  running_ = -1;
}

// What the NPU said is wrong: a reset may help, once.
void Offload::retry_after_reset() {
  if (plan_->npu().reset_for_wrong_sums(retried_) < 0) return stop();
  retried_ = broken_ = true;
}

void Offload::attention_was_wrong(bool again) {
  if (plan_->npu().reset_for_wrong_sums(again) < 0) stop();
}

void Offload::count_attention(int rows, std::int64_t jobs) {
  attention_rows_ += rows;
  attention_jobs_ += jobs;
}

void Offload::stop() {
  broken_ = true;
  if (stopped()) return;
  std::snprintf(reason_, sizeof reason_, "%s", last_error());
  ++fallbacks_;
  stopped_.store(true, std::memory_order_release);
}

}  // namespace rl::npu

#include "npu.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "../clock.hpp"
#include "../error.hpp"

namespace rl::npu {
namespace {

constexpr int kProbeRuns = 3;
constexpr int kLongestTimeout = 60000;

}  // namespace

Shared<Npu> Npu::open(int flavour) {
  char node[64] = "";
  Owned<Device> device = open_device(flavour, node, sizeof node);
  if (device == nullptr) return {};
  Shared<Npu> npu = Shared<Npu>::make(std::move(device));
  if (!npu) {
    fail("not enough memory for the NPU; free some memory");
    return {};
  }
  std::memcpy(npu->node_, node, sizeof node);
  return npu;
}

Npu::~Npu() {
  const bool ours = getpid() == process_;
  if (ours && running_ && started_) static_cast<void>(device_->wait());
  for (Loaded *program : programs_) Owned<Loaded>{program}.reset();
  for (const rl_npu_expected &e : expected_) std::free(const_cast<std::uint8_t *>(e.data));
  for (const Slot &slot : slots_)
    if (ours && slot.serial != 0) device_->release(slot.memory);
  if (!ours) static_cast<void>(device_.release());  // its thread is the other process's, as are its buffers
}

int Npu::check_process() const {
  return getpid() == process_ ? 0 : fail("the NPU belongs to the process that this one was forked from; use it there");
}

void Npu::describe(rl_npu_description &d) const {
  d = rl_npu_description{};
  device_->describe(d);
  device_->count_syncs(d);
  d.spaces = device_->spaces();
  d.cores = n_cores_;
  for (int i = 0; i < n_cores_; ++i) d.core_mask |= 1 << cores_[i];
  std::memcpy(d.node, node_, sizeof node_);
  d.failed = failed_;
  d.allocated_bytes = allocated_;
  d.submits = submits_;
  d.faults = faults_;
  d.resets = resets_;
  d.job_ns = job_ns_;
  d.device_ns = device_ns_;
}

int Npu::use_cores(int core_mask) {
  if (running_) return fail("the cores cannot be chosen while a job is running; wait for it first");
  // rknpu_job.c of 0.9.8 commits no others.
  static constexpr int kMasks[] = {1, 2, 4, 3, 7};
  if (std::find(std::begin(kMasks), std::end(kMasks), core_mask) == std::end(kMasks))
    return fail("the core mask of the NPU is %#x, expected one core (1, 2 or 4), the first two (3) or all (7)", core_mask);
  n_cores_ = 0;
  for (int core = 0; core < RL_NPU_CORES; ++core)
    if ((core_mask >> core & 1) != 0) cores_[n_cores_++] = core;
  return 0;
}

int Npu::allocate(int space, std::int64_t bytes) {
  if (check_process() < 0) return -1;
  if (space < 0 || space >= device_->spaces())
    return fail("the address space is %d, expected one below %d", space, device_->spaces());
  if (bytes < 1 || bytes > static_cast<std::int64_t>(kAddressLimit))
    return fail("a buffer has %lld bytes, expected 1 byte to 4 GiB", static_cast<long long>(bytes));
  int number = 0;
  while (number < slots_.size() && slots_[number].serial != 0) ++number;
  if (number == slots_.size() && !slots_.append(Slot{}))
    return fail("not enough memory for another buffer; free some memory");
  Memory memory{};
  if (device_->allocate(space, round_up(bytes, kPage), memory) < 0) return -1;
  slots_[number] = Slot{memory, ++serial_, 0};
  allocated_ += memory.bytes;
  return number;
}

int Npu::release(int buffer) {
  if (check_process() < 0 || memory(buffer) == nullptr) return -1;
  if (running_) return fail("a buffer cannot be released while a job is running; wait for it first");
  if (slots_[buffer].holders > 0) return fail("a program uses buffer %d; take the NPU away from it first", buffer);
  allocated_ -= slots_[buffer].memory.bytes;
  device_->release(slots_[buffer].memory);
  slots_[buffer] = Slot{};
  return 0;
}

const Memory *Npu::memory(int buffer) const {
  if (buffer >= 0 && buffer < slots_.size() && slots_[buffer].serial != 0) return &slots_[buffer].memory;
  fail("there is no buffer %d", buffer);
  return nullptr;
}

int Npu::sync(int buffer, std::int64_t offset, std::int64_t bytes, int direction) {
  if (check_process() < 0) return -1;
  const Memory *found = memory(buffer);
  if (found == nullptr) return -1;
  if (offset < 0 || bytes < 0 || bytes > found->bytes || offset > found->bytes - bytes)
    return fail("a sync covers bytes %lld to %lld of a buffer of %lld, expected bytes inside it",
                static_cast<long long>(offset),
                static_cast<long long>(offset + bytes), static_cast<long long>(found->bytes));
  if (direction != RL_NPU_TO_DEVICE && direction != RL_NPU_FROM_DEVICE)
    return fail("the direction of a sync is %d, expected 1 (to the device) or 2 (from it)", direction);
  if (bytes == 0 || device_->sync(*found, offset, bytes, direction) == 0) return 0;
  ++faults_;
  return -1;
}

int Npu::create_program(const rl_npu_chain &chain, int buffer, std::int64_t offset) {
  if (memory(buffer) == nullptr) return -1;
  Owned<Loaded> loaded = Loaded::create(chain, buffer, slots_[buffer], offset);
  if (loaded == nullptr) return -1;
  int number = 0;
  while (number < programs_.size() && programs_[number] != nullptr) ++number;
  if (number == programs_.size() && !programs_.append(nullptr))
    return fail("not enough memory for another program; free some memory");
  programs_[number] = loaded.release();
  return number;
}

const Loaded *Npu::program(int number) const {
  if (number >= 0 && number < programs_.size() && programs_[number] != nullptr) return programs_[number];
  fail("there is no program %d", number);
  return nullptr;
}

int Npu::destroy_program(int program) {
  if (this->program(program) == nullptr) return -1;
  if (programs_[program]->held()) return fail("program %d is used by a plan; take the NPU away from it first", program);
  if (running_) return fail("a program cannot be destroyed while a job is running; wait for it first");
  for (int i = 0; i < probe_.count; ++i)
    if (probe_.programs[i] == program) return fail("program %d belongs to the probe; set another one first", program);
  Owned<Loaded>{programs_[program]}.reset();
  programs_[program] = nullptr;
  return 0;
}

int Npu::bind(int program, const rl_npu_binding *bindings, int roles) {
  if (check_process() < 0 || this->program(program) == nullptr) return -1;
  Loaded &loaded = *programs_[program];
  if (loaded.bind(slots_, bindings, roles) < 0) return -1;
  return sync(loaded.buffer(), loaded.offset(), loaded.bytes(), RL_NPU_TO_DEVICE);
}

int Npu::check(const std::int32_t *programs, int count, int timeout_ms, Launch &launch) const {
  if (count < 1 || count > n_cores_ || programs == nullptr)
    return fail("%d programs were submitted, expected 1 to %d, one for each core", count, n_cores_);
  if (timeout_ms < 1 || timeout_ms > kLongestTimeout)
    return fail("the timeout of a job is %d ms, expected 1 to %d", timeout_ms, kLongestTimeout);
  bool used[RL_NPU_CORES] = {};
  launch = Launch{{}, {}, count, timeout_ms};
  for (int i = 0; i < count; ++i) {
    const int program = programs[i];
    if (this->program(program) == nullptr) return -1;
    for (int j = 0; j < i; ++j)
      if (programs[j] == program) return fail("program %d is twice in one job, expected different programs", program);
    if (programs_[program]->check(slots_) < 0) return -1;
    const int space = programs_[program]->job(slots_).space;
    if (device_->spaces() > 1 && used[space])
      return fail("a job has two programs of address space %d, expected one for each space", space);
    used[space] = true;
    launch.programs[i] = program;
    launch.cores[i] = device_->spaces() > 1 ? space : cores_[i];
  }
  return 0;
}

int Npu::start(const Launch &launch) {
  CoreJob jobs[RL_NPU_CORES];
  for (int i = 0; i < launch.count; ++i) {
    Loaded &program = *programs_[launch.programs[i]];
    if (!program.marked() && program.mark(*device_, slots_) < 0) return -1;
    program.used_mark();
    jobs[i] = program.job(slots_);
    jobs[i].core = launch.cores[i];
  }
  ++submits_;
  began_ = nanoseconds();
  return device_->submit(jobs, launch.count, launch.timeout_ms);
}

Outcome Npu::finish(const Launch &launch) {
  const Outcome outcome = device_->wait();
  ended_ = nanoseconds();
  job_ns_ = ended_ - began_;
  device_ns_ = device_->elapsed_ns();
  if (outcome != Outcome::kDone) return outcome;
  int untouched = 0;
  for (int i = 0; i < launch.count; ++i) {
    const Loaded &program = *programs_[launch.programs[i]];
    if (program.collect(*device_, slots_) < 0) return Outcome::kFailed;
    untouched += program.untouched(slots_);
  }
  if (untouched == 0) return Outcome::kDone;
  fail("the NPU reported success but left %d results untouched", untouched);
  return Outcome::kFailed;
}

int Npu::submit(const std::int32_t *programs, int count, int timeout_ms) {
  if (check_process() < 0) return -1;
  if (failed_) return fail("%s", reason_);
  if (running_) return fail("a job is already running; wait for it first");
  if (check(programs, count, timeout_ms, launch_) < 0) return -1;
  if (slept() && prove() < 0) return give_up();
  started_ = start(launch_) == 0;
  running_ = true;  // also if it was refused: wait() repeats it
  if (!started_) std::snprintf(reason_, sizeof reason_, "%s", last_error());
  return 0;
}

// Drivers power the cores off when there is nothing to do, and what runs first on cores that were off may not run at all.
bool Npu::slept() const { return probe_.count > 0 && idle_ns_ > 0 && nanoseconds() - ended_ >= idle_ns_; }

int Npu::wait() {
  if (check_process() < 0) return -1;
  if (!running_) return fail("no job is running; submit one first");
  if (!started_) fail("%s", reason_);
  const Outcome outcome = started_ ? finish(launch_) : Outcome::kFailed;
  running_ = false;
  return outcome == Outcome::kDone ? 0 : repeat(launch_, outcome);
}

int Npu::repeat(const Launch &launch, Outcome outcome) {
  ++faults_;
  if (outcome == Outcome::kGone) return give_up();
  ++resets_;
  if (device_->reset() < 0) return give_up();
  if (probe_.count > 0 && prove() < 0) return give_up();
  if (start(launch) < 0 || finish(launch) != Outcome::kDone) {
    ++faults_;
    return give_up();
  }
  return 0;
}

int Npu::reset_for_wrong_sums(bool give_up) {
  ++faults_;
  fail("the NPU reported success but its sums are wrong");
  if (give_up) return this->give_up();
  ++resets_;
  if (device_->reset() < 0 || (probe_.count > 0 && prove() < 0)) return this->give_up();
  return 0;
}

int Npu::give_up() {
  char last[384];
  std::snprintf(last, sizeof last, "%s", last_error());
  std::snprintf(reason_, sizeof reason_, "the NPU %s was given up: %s", node_, last);
  failed_ = true;
  return fail("%s", reason_);
}

int Npu::check_expected(const rl_npu_expected *expected, int n_expected) const {
  if (n_expected < 1 || expected == nullptr) return fail("a probe has no results to compare with, expected at least one");
  for (int i = 0; i < n_expected; ++i) {
    const rl_npu_expected &e = expected[i];
    const Memory *found = memory(e.buffer);
    if (found == nullptr) return -1;
    if (e.data == nullptr || e.offset < 0 || e.bytes < 1 || e.bytes > found->bytes || e.offset > found->bytes - e.bytes)
      return fail("a probe compares bytes %lld to %lld of a buffer of %lld, expected bytes inside it",
                  static_cast<long long>(e.offset),
                  static_cast<long long>(e.offset + e.bytes), static_cast<long long>(found->bytes));
  }
  return 0;
}

int Npu::probe(const std::int32_t *programs, int count, const rl_npu_expected *expected, int n_expected,
               int timeout_ms, int idle_ms) {
  if (check_process() < 0) return -1;
  if (failed_) return fail("%s", reason_);
  if (running_) return fail("a job is already running; wait for it first");
  if (idle_ms < 0) return fail("the idle time before a probe is %d ms, expected at least 0 (never)", idle_ms);
  Launch launch{};
  if (check(programs, count, timeout_ms, launch) < 0) return -1;
  if (check_expected(expected, n_expected) < 0) return -1;
  for (const rl_npu_expected &e : expected_) std::free(const_cast<std::uint8_t *>(e.data));
  expected_.clear();
  for (int i = 0; i < n_expected; ++i) {
    rl_npu_expected e = expected[i];
    auto *copy = static_cast<std::uint8_t *>(std::malloc(static_cast<std::size_t>(e.bytes)));
    if (copy == nullptr || !expected_.append(rl_npu_expected{e.buffer, 0, e.offset, e.bytes, copy})) {
      std::free(copy);
      return fail("not enough memory for a probe; free some memory");
    }
    std::memcpy(copy, e.data, static_cast<std::size_t>(e.bytes));
  }
  probe_ = launch;
  idle_ns_ = idle_ms * std::int64_t{1000000};
  const int runs = prove();
  return runs < 0 ? give_up() : runs;
}

int Npu::try_job(const std::int32_t *programs, int count, const rl_npu_expected *expected, int n_expected, int timeout_ms,
                 int runs) {
  if (check_process() < 0) return -1;
  if (failed_) return fail("%s", reason_);
  if (running_) return fail("a job is already running; wait for it first");
  if (check_expected(expected, n_expected) < 0) return -1;
  bool gone = false;
  const int ran = run_known(programs, count, timeout_ms, expected, n_expected, runs, gone);
  return ran < 0 && gone ? give_up() : ran;
}

int Npu::prove() {
  bool gone = false;
  return run_known(probe_.programs, probe_.count, probe_.timeout_ms, expected_.data(), expected_.size(), kProbeRuns, gone);
}

int Npu::run_known(const std::int32_t *programs, int count, int timeout_ms, const rl_npu_expected *expected, int n_expected,
                   int most_runs, bool &gone) {
  for (int run = 1; run <= most_runs; ++run) {
    Launch launch{};
    if (check(programs, count, timeout_ms, launch) < 0) return -1;
    const Outcome outcome = start(launch) == 0 ? finish(launch) : Outcome::kFailed;
    if (outcome == Outcome::kDone && are_expected(expected, n_expected)) return run;
    ++faults_;
    gone = outcome == Outcome::kGone;
    if (gone) return -1;
    if (outcome == Outcome::kDone) {
      fail("the results of the NPU's first jobs are wrong");
      continue;
    }
    ++resets_;
    char why[384];
    std::snprintf(why, sizeof why, "%s", last_error());
    gone = device_->reset() < 0;
    if (gone) return -1;
    fail("%s", why);
  }
  return -1;
}

bool Npu::are_expected(const rl_npu_expected *expected, int n_expected) const {
  for (int i = 0; i < n_expected; ++i) {
    const rl_npu_expected &e = expected[i];
    if (std::memcmp(slots_[e.buffer].memory.data + e.offset, e.data, static_cast<std::size_t>(e.bytes)) != 0) return false;
  }
  return true;
}

}  // namespace rl::npu

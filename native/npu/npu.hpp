// A device with its buffers and programs, and what becomes of a job that fails.
//
// A job is marked, started and waited for. If it fails, is late or leaves a mark untouched, the device is reset, the
// probe has to come out right, and the job runs once more; if that fails too, the device is given up. After a while
// without a job the probe goes first.
#pragma once

#include <unistd.h>

#include <atomic>

#include "loaded.hpp"

namespace rl::npu {

class Npu {
 public:
  static Shared<Npu> open(int flavour);
  explicit Npu(Owned<Device> device) : device_(std::move(device)) {}
  Npu(const Npu &) = delete;
  Npu &operator=(const Npu &) = delete;
  ~Npu();

  void describe(rl_npu_description &description) const;
  // Fails in a process that was forked from the one that opened this. It shares the device's memory, so it may not write
  // there, and the device's calls would work on the other's buffers.
  int check_process() const;
  int allocate(int space, std::int64_t bytes);
  int release(int buffer);
  const Memory *memory(int buffer) const;  // null and a sentence for one that does not exist
  int sync(int buffer, std::int64_t offset, std::int64_t bytes, int direction);
  int create_program(const rl_npu_chain &chain, int buffer, std::int64_t offset);
  int destroy_program(int program);
  int bind(int program, const rl_npu_binding *bindings, int roles);
  int spaces() const { return device_->spaces(); }
  bool syncs_ranges() const { return device_->syncs_ranges(); }
  // Marks a bound program for its next start, while another one runs: nobody else may write its results before.
  int mark(int program) { return programs_[program]->mark(*device_, slots_); }
  const Loaded *program(int number) const;  // null and a sentence for one that does not exist
  // What a plan relies on can neither be released nor destroyed while somebody holds it.
  void hold_buffer(int buffer, int by) { slots_[buffer].holders += by; }
  void hold_program(int program, int by) { programs_[program]->hold(by); }
  // False when another program uses the device.
  [[nodiscard]] bool take() { return !taken_.exchange(true); }
  void give_back() { taken_.store(false); }
  int submit(const std::int32_t *programs, int count, int timeout_ms);
  int wait();
  int use_cores(int core_mask);
  // A job with known results that may fail; the number of runs, or -1.
  int try_job(const std::int32_t *programs, int count, const rl_npu_expected *expected, int n_expected, int timeout_ms,
              int runs);
  // The results of a job that succeeded are wrong: a fault. The device is reset and proven, or given up if that is asked
  // for, or does not help.
  int reset_for_wrong_sums(bool give_up);
  int probe(const std::int32_t *programs, int count, const rl_npu_expected *expected, int n_expected, int timeout_ms,
            int idle_ms);

 private:
  struct Launch {
    std::int32_t programs[RL_NPU_CORES];
    int cores[RL_NPU_CORES];
    int count, timeout_ms;
  };
  int check(const std::int32_t *programs, int count, int timeout_ms, Launch &launch) const;
  int start(const Launch &launch);
  // Waits, collects what was written and looks at the marks.
  Outcome finish(const Launch &launch);
  int repeat(const Launch &launch, Outcome outcome);
  bool slept() const;
  bool are_expected(const rl_npu_expected *expected, int n_expected) const;
  // Runs a job with known results until they are right; the number of runs, or -1. `gone`: a further one cannot help.
  int run_known(const std::int32_t *programs, int count, int timeout_ms, const rl_npu_expected *expected, int n_expected,
                int most_runs, bool &gone);
  int prove();
  int check_expected(const rl_npu_expected *expected, int n_expected) const;
  int give_up();

  Owned<Device> device_;
  const pid_t process_ = getpid();
  int cores_[RL_NPU_CORES] = {0, 1, 2};  // in use
  int n_cores_ = RL_NPU_CORES;
  List<Slot> slots_;
  List<Loaded *> programs_;
  Launch launch_{};
  Launch probe_{};
  List<rl_npu_expected> expected_;  // each owns its data
  char node_[64] = "";
  std::int64_t serial_ = 0;
  // Of these a second thread may want to know.
  std::atomic<std::int64_t> allocated_{0}, submits_{0}, faults_{0}, resets_{0}, job_ns_{0}, device_ns_{0};
  std::atomic<bool> failed_{false}, taken_{false};
  std::int64_t idle_ns_ = 0;     // after which the probe goes first
  std::int64_t began_ = 0, ended_ = 0;  // the latest job
  bool running_ = false;  // a submit was not waited for
  bool started_ = false;  // and the device took it
  char reason_[512] = "";
};

}  // namespace rl::npu

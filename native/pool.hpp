// The threads of a program, and how they share a step.
//
// A step is a chain of phases. Units of a phase are handed out through one atomic word, large chunks first, so a
// thread that is late simply takes less; whoever finishes the last unit runs what one thread does alone (Job::next)
// and opens the next phase. No thread waits for one that has no work. Idle threads spin briefly, then sleep.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "memory.hpp"

namespace rl {

struct Phase {
  std::uint32_t units;  // 0: the job is done
  std::uint32_t grain;  // least units worth a chunk
};

class Job {
 public:
  // Called by one thread at a time, after all units of the phase before.
  virtual Phase next(int thread) = 0;
  // Units first .. first+count-1 of the current phase.
  virtual void work(std::uint32_t first, std::uint32_t count, int thread) = 0;

 protected:
  ~Job() = default;
};

class Pool {
 public:
  Pool() = default;
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;
  ~Pool();

  // The caller of run() is thread 0; threads - 1 more are created. False when the system refuses.
  [[nodiscard]] bool start(int threads);
  int threads() const { return threads_; }
  // How many of them take work from now on, the caller of run() among them; the others sleep. Between runs.
  void use(int threads);
  void run(Job &job);

 private:
  struct Worker {
    Pool *pool;
    int number;
    pthread_t id;
  };
  static void *main_of(void *worker);
  void serve(int thread);
  void publish(Phase phase);
  void wait_beyond(std::uint32_t generation);
  void wait_until_used(int thread);

  int threads_ = 1;
  int started_ = 0;
  Array<Worker> workers_;
  Job *job_ = nullptr;          // stable while a phase is open
  std::uint32_t total_ = 0;     // units of the open phase
  std::atomic<std::uint32_t> grain_{1};
  alignas(64) std::atomic<std::uint64_t> open_{0};  // generation << 32 | units not handed out yet
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<std::uint32_t> finish_{0};  // the generation that ended the latest job
  std::atomic<std::uint32_t> used_{1};  // threads that take work
  std::atomic<bool> stop_{false};
};

}  // namespace rl

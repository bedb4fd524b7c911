#include "pool.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

// glibc 2.34 moved these two into libc under a new version; the old one is in every glibc, so that a library built on a
// new system loads on one as old as 2.28. (Sanitizers intercept the plain names.)
#if defined(ROCKLEDGE_OLD_GLIBC) && defined(__GLIBC__)
#if defined(__x86_64__)
__asm__(".symver pthread_create,pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver pthread_create,pthread_create@GLIBC_2.17");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.17");
#endif
#endif

namespace rl {
namespace {

constexpr int kSpins = 3000;  // some tens of microseconds: longer than a phase, shorter than a time slice

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

// Sleeps on, or wakes, the generation: the upper half of the word on these little-endian processors.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
void futex(void *word, int operation, std::uint32_t value) {
  syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}
void futex(std::atomic<std::uint64_t> &open, int operation, std::uint32_t value) {
  futex(reinterpret_cast<std::uint32_t *>(&open) + 1, operation, value);
}

std::uint32_t generation_of(std::uint64_t open) { return static_cast<std::uint32_t>(open >> 32); }
std::uint32_t units_of(std::uint64_t open) { return static_cast<std::uint32_t>(open); }

}  // namespace

bool Pool::start(int threads) {
  threads_ = threads;
  used_.store(static_cast<std::uint32_t>(threads));
  if (!workers_.allocate(static_cast<std::size_t>(threads))) return false;
  for (int i = 1; i < threads; ++i) {
    Worker &worker = workers_[static_cast<std::size_t>(i)];
    worker = Worker{this, i, {}};
    if (pthread_create(&worker.id, nullptr, main_of, &worker) != 0) return false;
    started_ = i;
  }
  return true;
}

Pool::~Pool() {
  stop_.store(true);
  use(threads_);
  publish(Phase{0, 1});
  for (int i = 1; i <= started_; ++i) pthread_join(workers_[static_cast<std::size_t>(i)].id, nullptr);
}

void *Pool::main_of(void *worker) {
  const Worker &self = *static_cast<Worker *>(worker);
  self.pool->serve(self.number);
  return nullptr;
}

void Pool::use(int threads) {
  used_.store(static_cast<std::uint32_t>(threads), std::memory_order_seq_cst);
  futex(&used_, FUTEX_WAKE, INT32_MAX);
}

void Pool::wait_until_used(int thread) {
  for (;;) {
    const std::uint32_t used = used_.load(std::memory_order_seq_cst);
    if (static_cast<std::uint32_t>(thread) < used) return;
    futex(&used_, FUTEX_WAIT, used);
  }
}

void Pool::run(Job &job) {
  const Phase first = job.next(0);
  if (first.units == 0) return;
  job_ = &job;
  publish(first);
  serve(0);
}

void Pool::publish(Phase phase) {
  total_ = phase.units;
  grain_.store(phase.grain == 0 ? 1 : phase.grain, std::memory_order_relaxed);
  const std::uint32_t generation = generation_of(open_.load(std::memory_order_relaxed)) + 1;
  if (phase.units == 0) finish_.store(generation, std::memory_order_relaxed);
  open_.store(std::uint64_t{generation} << 32 | phase.units, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) futex(open_, FUTEX_WAKE, INT32_MAX);
}

void Pool::wait_beyond(std::uint32_t generation) {
  for (int i = 0; i < kSpins; ++i) {
    if (generation_of(open_.load(std::memory_order_acquire)) != generation) return;
    relax();
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (generation_of(open_.load(std::memory_order_seq_cst)) == generation) futex(open_, FUTEX_WAIT, generation);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

void Pool::serve(int thread) {
  for (;;) {
    if (static_cast<std::uint32_t>(thread) >= used_.load(std::memory_order_relaxed)) wait_until_used(thread);
    std::uint64_t open = open_.load(std::memory_order_acquire);
    const std::uint32_t left = units_of(open);
    if (left == 0) {
      // Nothing to take: the phase is running out elsewhere, or the job (for the caller) or the pool is finished.
      if (thread == 0 ? finish_.load(std::memory_order_relaxed) == generation_of(open)
                      : stop_.load(std::memory_order_relaxed))
        return;
      wait_beyond(generation_of(open));
      continue;
    }
    const std::uint32_t share = left / (2 * used_.load(std::memory_order_relaxed));
    const std::uint32_t grain = grain_.load(std::memory_order_relaxed);
    const std::uint32_t wanted = share > grain ? share : grain;
    const std::uint32_t taken = wanted < left ? wanted : left;
    if (!open_.compare_exchange_weak(open, open - taken, std::memory_order_acq_rel)) continue;
    const std::uint32_t total = total_;  // the phase cannot end, nor this change, before these units are done
    job_->work(total - left, taken, thread);
    if (done_.fetch_add(taken, std::memory_order_acq_rel) + taken == total) {
      done_.store(0, std::memory_order_relaxed);
      publish(job_->next(thread));
    }
  }
}

}  // namespace rl

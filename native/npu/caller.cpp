#include "caller.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "../clock.hpp"
#include "../error.hpp"
#include "drm.hpp"

// As in pool.cpp: the version of these that every glibc since 2.28 has.
#if defined(ROCKLEDGE_OLD_GLIBC) && defined(__GLIBC__)
#if defined(__x86_64__)
__asm__(".symver pthread_create,pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.2.5");
__asm__(".symver pthread_detach,pthread_detach@GLIBC_2.2.5");
__asm__(".symver pthread_sigmask,pthread_sigmask@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver pthread_create,pthread_create@GLIBC_2.17");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.17");
__asm__(".symver pthread_detach,pthread_detach@GLIBC_2.17");
__asm__(".symver pthread_sigmask,pthread_sigmask@GLIBC_2.17");
#endif
#endif

namespace rl::npu {

Owned<Caller> Caller::start(int fd) {
  Owned<Caller> caller = make_owned<Caller>();
  if (caller == nullptr) {
    fail("not enough memory for the NPU's thread; free some memory");
    return nullptr;
  }
  caller->fd_ = fd;
  // A signal would interrupt the ioctl: they all go to other threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t id{};
  const int error = pthread_create(&id, nullptr, main_of, caller.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    fail("the thread for the NPU cannot be started: %s", std::strerror(error));
    return nullptr;
  }
  caller->thread_ = id;
  return caller;
}

void Caller::stop(Owned<Caller> caller) {
  if (caller == nullptr) return;
  if (caller->busy()) {
    pthread_detach(caller->thread_);
    static_cast<void>(caller.release());
    return;
  }
  caller->become(kStop);
  pthread_join(caller->thread_, nullptr);
}

void Caller::begin(unsigned long request, const void *argument, std::size_t bytes) {
  request_ = request;
  std::memcpy(argument_, argument, bytes);
  become(kCalling);
}

int Caller::end(std::int64_t timeout_ns, void *argument, std::size_t bytes) {
  const std::int64_t deadline = nanoseconds() + timeout_ns;
  while (state_.load() == kCalling) {
    const std::int64_t left = deadline - nanoseconds();
    if (left <= 0) return -1;
    sleep_while(kCalling, left);
  }
  std::memcpy(argument, argument_, bytes);
  state_.store(kIdle);
  return error_;
}

void *Caller::main_of(void *caller) {
  static_cast<Caller *>(caller)->serve();
  return nullptr;
}

void Caller::serve() {
  for (;;) {
    const std::uint32_t state = state_.load();
    if (state == kStop) return;
    if (state != kCalling) {
      sleep_while(state, -1);
      continue;
    }
    error_ = call(fd_, request_, argument_);
    become(kReturned);
  }
}

void Caller::become(std::uint32_t state) {
  state_.store(state);
  syscall(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

void Caller::sleep_while(std::uint32_t from, std::int64_t timeout_ns) {
  timespec timeout{};
  timeout.tv_sec = timeout_ns / 1000000000;
  timeout.tv_nsec = timeout_ns % 1000000000;
  syscall(SYS_futex, &state_, FUTEX_WAIT_PRIVATE, from, timeout_ns < 0 ? nullptr : &timeout, nullptr, 0);
}

}  // namespace rl::npu

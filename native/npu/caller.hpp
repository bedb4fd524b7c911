// A thread that makes one blocking ioctl at a time, so that whoever submits a job can do something else meanwhile.
#pragma once

#include <atomic>
#include <cstdint>

#include "../memory.hpp"

namespace rl::npu {

class Caller {
 public:
  // Null and a sentence when there is no thread to be had.
  static Owned<Caller> start(int fd);
  // Ends the thread. One that is stuck in the kernel is left behind with its memory: joining it would never end.
  static void stop(Owned<Caller> caller);

  // `argument` is copied; at most kArgument bytes.
  void begin(unsigned long request, const void *argument, std::size_t bytes);
  // The errno of the call (0: done), or -1 when it has not returned after `timeout_ns`; then `argument` is untouched.
  int end(std::int64_t timeout_ns, void *argument, std::size_t bytes);
  bool busy() const { return state_.load() == kCalling; }

  static constexpr std::size_t kArgument = 128;

 private:
  enum : std::uint32_t { kIdle, kCalling, kReturned, kStop };
  static void *main_of(void *caller);
  void serve();
  // Sleeps while the state is `from`, for at most timeout_ns (negative: any time).
  void sleep_while(std::uint32_t from, std::int64_t timeout_ns);
  void become(std::uint32_t state);

  int fd_ = -1;
  unsigned long thread_ = 0;
  unsigned long request_ = 0;
  int error_ = 0;
  std::atomic<std::uint32_t> state_{kIdle};
  alignas(8) std::uint8_t argument_[kArgument] = {};
};

}  // namespace rl::npu

// Monotonic time.
#pragma once

#include <time.h>

#include <cstdint>

namespace rl {

inline std::int64_t nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

}  // namespace rl

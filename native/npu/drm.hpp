// The two calls that every DRM driver answers, and an ioctl that neither a signal nor a busy moment ends.
#pragma once

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "../clock.hpp"

namespace rl::npu {

struct DrmVersion {
  std::int32_t major, minor, patch;
  std::size_t name_bytes;
  char *name;
  std::size_t date_bytes;
  char *date;
  std::size_t about_bytes;
  char *about;
};
static_assert(sizeof(DrmVersion) == 64);
struct GemClose {
  std::uint32_t handle, reserved;
};
inline constexpr unsigned long kDrmVersion = 0xc0406400, kGemClose = 0x40086409;

// So long a driver may ask for a call to be repeated; one that always does would never let go.
inline constexpr std::int64_t kAgainFor = 100000000;  // ns

// 0, or the errno.
inline int call(int fd, unsigned long request, void *argument) {
  if (ioctl(fd, request, argument) == 0) return 0;
  for (const std::int64_t end = nanoseconds() + kAgainFor; errno == EINTR || errno == EAGAIN;) {
    const int error = errno;
    if (nanoseconds() > end) return error;
    if (ioctl(fd, request, argument) == 0) return 0;
  }
  return errno;
}

// A file descriptor that closes itself.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File &operator=(File &&other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

}  // namespace rl::npu

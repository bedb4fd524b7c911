// The two calls that every DRM driver answers, and an ioctl that a signal does not end.
#pragma once

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

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

// 0, or the errno.
inline int call(int fd, unsigned long request, void *argument) {
  for (;;) {
    if (ioctl(fd, request, argument) == 0) return 0;
    if (errno != EINTR && errno != EAGAIN) return errno;
  }
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

// The system calls of a program that uses the NPU, answered by an emulator in another process.
//
// Preloaded into the program, this takes the calls on nodes in /dev/dri and /dev/accel, and hands all others to the
// kernel. A file is the socket that opened it; device memory is a memfd of the emulator, mapped here too.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "arguments.hpp"
#include "channel.hpp"
#include "user_memory.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace rl::virtual_npu {
namespace {

constexpr int kFiles = 256, kMappings = 16384;

struct OpenFile {
  int fd;  // 0: free
  ino_t inode;  // of the socket: tells it from a later file of the same number
  std::uint32_t file;
};
struct Mapping {
  std::uintptr_t address;  // 0: free
  std::size_t length;
  std::uint32_t file;
  std::uint64_t offset;
};
OpenFile files[kFiles];
Mapping mappings[kMappings];
int n_files, n_mappings;  // entries that were ever used
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

class Locked {
 public:
  Locked() { pthread_mutex_lock(&lock); }
  Locked(const Locked &) = delete;
  Locked &operator=(const Locked &) = delete;
  ~Locked() { pthread_mutex_unlock(&lock); }
};

int answer(int error) {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

ino_t inode_of(int fd) {
  struct stat about {};
  return syscall(SYS_fstat, fd, &about) == 0 ? about.st_ino : 0;
}

// The file behind a descriptor of ours.
bool is_virtual(int fd, std::uint32_t &file) {
  if (fd <= 0 || n_files == 0) return false;
  const Locked guard;
  for (int i = 0; i < n_files; ++i)
    if (files[i].fd == fd && files[i].inode == inode_of(fd)) {
      file = files[i].file;
      return true;
    }
  return false;
}

bool is_node(const char *path) {
  return std::strncmp(path, "/dev/dri/", 9) == 0 || std::strncmp(path, "/dev/accel/", 11) == 0;
}

int open_node(const char *path, int flags) {
  Channel channel;
  if (!channel.ok()) return answer(ENODEV);
  const std::size_t bytes = std::strlen(path);
  if (bytes >= kMostBytes) return answer(ENAMETOOLONG);
  std::memcpy(channel.bytes(), path, bytes);
  const Reply reply = channel.exchange(Request{kOpen, 0, 0, 0, 0, static_cast<std::uint32_t>(bytes)});
  if (reply.error != 0) return answer(reply.error);
  const int fd = channel.take();
  if ((flags & O_CLOEXEC) == 0) fcntl(fd, F_SETFD, 0);
  const Locked guard;
  int at = 0;
  while (at < n_files && files[at].fd != 0 && files[at].fd != fd) ++at;
  if (at == kFiles) {
    close_descriptor(fd);
    return answer(EMFILE);
  }
  files[at] = OpenFile{fd, inode_of(fd), static_cast<std::uint32_t>(reply.number)};
  if (at == n_files) ++n_files;
  return fd;
}

int open_any(int folder, const char *path, int flags, mode_t mode) {
  if (is_served() && path != nullptr && is_node(path)) return open_node(path, flags);
  return static_cast<int>(syscall(SYS_openat, folder, path, flags, mode));
}

void *map_any(void *address, std::size_t length, int protection, int flags, int fd, off_t offset) {
  std::uint32_t file = 0;
  if ((flags & MAP_ANONYMOUS) != 0 || !is_virtual(fd, file))
    return reinterpret_cast<void *>(syscall(SYS_mmap, address, length, protection, flags, fd, offset));
  int memory = -1;
  Reply reply{};
  {
    Channel channel;
    if (!channel.ok()) return answer(ENODEV), MAP_FAILED;
    reply = channel.exchange(Request{kMap, file, static_cast<std::uint64_t>(offset), length, 0, 0}, &memory);
  }
  if (reply.error != 0 || memory < 0) return answer(reply.error != 0 ? reply.error : ENODEV), MAP_FAILED;
  void *found = reinterpret_cast<void *>(syscall(SYS_mmap, address, length, protection, flags, memory, reply.number));
  const int error = errno;
  close_descriptor(memory);
  if (found == MAP_FAILED) return answer(error), MAP_FAILED;
  const Locked guard;
  int at = 0;
  while (at < n_mappings && mappings[at].address != 0) ++at;
  if (at == kMappings) {
    syscall(SYS_munmap, found, length);
    return answer(ENOMEM), MAP_FAILED;
  }
  mappings[at] = Mapping{reinterpret_cast<std::uintptr_t>(found), length, file, static_cast<std::uint64_t>(offset)};
  if (at == n_mappings) ++n_mappings;
  return found;
}

// The mapping that begins at an address, which is forgotten.
Mapping forget(void *address) {
  if (n_mappings == 0) return Mapping{};
  const Locked guard;
  for (int i = 0; i < n_mappings; ++i)
    if (mappings[i].address == reinterpret_cast<std::uintptr_t>(address)) {
      const Mapping found = mappings[i];
      mappings[i] = Mapping{};
      return found;
    }
  return Mapping{};
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace
}  // namespace rl::virtual_npu

using namespace rl::virtual_npu;

#define OPEN_WITH_MODE(folder)                 \
  va_list arguments;                           \
  va_start(arguments, flags);                  \
  const mode_t mode = mode_of(flags, arguments); \
  va_end(arguments);                           \
  return open_any(folder, path, flags, mode)

EXPORT int open(const char *path, int flags, ...) { OPEN_WITH_MODE(AT_FDCWD); }
EXPORT int open64(const char *path, int flags, ...) { OPEN_WITH_MODE(AT_FDCWD); }
EXPORT int openat(int folder, const char *path, int flags, ...) { OPEN_WITH_MODE(folder); }
EXPORT int openat64(int folder, const char *path, int flags, ...) { OPEN_WITH_MODE(folder); }
EXPORT int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }

EXPORT int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  std::uint32_t file = 0;
  if (!is_virtual(fd, file)) return static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
  // The kernel sees 32 bits of a request; callers with a signed int extend it.
  return answer(perform(file, request & 0xffffffff, reinterpret_cast<std::uintptr_t>(argument)));
}

EXPORT void *mmap(void *address, std::size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  return map_any(address, length, protection, flags, fd, offset);
}
EXPORT void *mmap64(void *address, std::size_t length, int protection, int flags, int fd, off64_t offset) noexcept {
  return map_any(address, length, protection, flags, fd, offset);
}

EXPORT int munmap(void *address, std::size_t length) noexcept {
  const Mapping mapping = forget(address);
  const int result = static_cast<int>(syscall(SYS_munmap, address, length));
  if (mapping.address != 0) {
    Channel channel;
    if (channel.ok()) channel.exchange(Request{kUnmap, mapping.file, mapping.offset, mapping.length, 0, 0});
  }
  return result;
}

// Nothing ever happens on these files: they count as silent, whatever goes through their sockets.
EXPORT int poll(pollfd *files_asked, nfds_t count, int timeout) {
  std::uint32_t file = 0;
  bool any = false;
  for (nfds_t i = 0; i < count && n_files > 0; ++i) any = any || is_virtual(files_asked[i].fd, file);
  timespec time{timeout / 1000, timeout % 1000 * 1000000L};
  timespec *limit = timeout < 0 ? nullptr : &time;
  if (!any) return static_cast<int>(syscall(SYS_ppoll, files_asked, count, limit, nullptr, 0));
  auto *asked = static_cast<pollfd *>(std::malloc(count * sizeof(pollfd)));
  if (asked == nullptr) return answer(ENOMEM);
  std::memcpy(asked, files_asked, count * sizeof(pollfd));
  for (nfds_t i = 0; i < count; ++i)
    if (is_virtual(asked[i].fd, file)) asked[i].fd = -1;
  const int result = static_cast<int>(syscall(SYS_ppoll, asked, count, limit, nullptr, 0));
  const int error = errno;
  for (nfds_t i = 0; i < count && result >= 0; ++i) files_asked[i].revents = asked[i].revents;
  std::free(asked);
  errno = error;
  return result;
}

EXPORT int close(int fd) {
  std::uint32_t file = 0;
  if (is_virtual(fd, file)) {
    const Locked guard;
    for (int i = 0; i < n_files; ++i)
      if (files[i].fd == fd) files[i].fd = 0;
  }
  return close_descriptor(fd);
}

EXPORT int flock(int fd, int operation) noexcept {
  std::uint32_t file = 0;
  if (!is_virtual(fd, file)) return static_cast<int>(syscall(SYS_flock, fd, operation));
  Channel channel;
  if (!channel.ok()) return answer(ENODEV);
  return answer(channel.exchange(Request{kLock, file, 0, 0, operation, 0}).error);
}

// Talking with the emulator: a request with bytes after it, a reply with bytes after it, over a Unix socket.
//
// The emulator (rockledge_npu_lab.virtual.serve_device) reads and writes the same structures. One connection carries one request
// at a time; a connection that opened a device file does nothing else, and its end is the end of the file.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rl::virtual_npu {

enum Operation : std::uint32_t { kOpen = 1, kIoctl = 2, kMap = 3, kUnmap = 4, kLock = 5 };

struct Request {
  std::uint32_t operation, file;
  std::uint64_t number;  // the ioctl's request code, or an offset of mmap
  std::uint64_t length;  // of a mapping
  std::int32_t flags;    // of flock
  std::uint32_t bytes;   // after this structure
};
struct Reply {
  std::int32_t error;   // an errno, or 0
  std::uint32_t bytes;  // after this structure
  std::uint64_t number; // the file that was opened, or where in the descriptor a mapping begins
};
static_assert(sizeof(Request) == 32 && sizeof(Reply) == 16);
inline constexpr std::size_t kMostBytes = 128 << 10;

// A connection in use; it goes back into a pool when this ends.
class Channel {
 public:
  Channel();
  Channel(const Channel &) = delete;
  Channel &operator=(const Channel &) = delete;
  ~Channel();

  bool ok() const { return slot_ >= 0; }
  // What goes after the request, and what came after the reply: kMostBytes.
  std::uint8_t *bytes() const;
  // Sends and waits. A lost emulator is ENODEV. `descriptor` takes one that comes with the reply, or -1.
  Reply exchange(const Request &request, int *descriptor = nullptr);
  // The connection itself, which leaves the pool.
  int take();

 private:
  int slot_ = -1;
};

// Whether this process was started by `rockledge npu emulate`.
bool is_served();

// The kernel's own close, whatever is preloaded.
int close_descriptor(int fd);

}  // namespace rl::virtual_npu

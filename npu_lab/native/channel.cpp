#include "channel.hpp"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace rl::virtual_npu {
namespace {

constexpr int kSlots = 64;  // calls that may block at once
struct Slot {
  int fd;
  bool used;
  char path[sizeof(sockaddr_un::sun_path)];  // what it is connected to: a test changes the environment's address
  std::uint8_t *buffer;  // room for a message, header included
};
Slot slots[kSlots];
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const char *address() { return std::getenv("ROCKLEDGE_VIRTUAL_NPU"); }

// A child has the parent's connections, and would take its replies.
void forget_all() {
  for (Slot &slot : slots) {
    if (slot.fd > 0) close_descriptor(slot.fd);
    slot.fd = 0;
    slot.used = false;
  }
  pthread_mutex_init(&lock, nullptr);
}
__attribute__((constructor)) void expect_children() { pthread_atfork(nullptr, nullptr, forget_all); }

int connected(const char *path) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::strcpy(to.sun_path, path);
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<sockaddr *>(&to), sizeof to) != 0) {
    close_descriptor(fd);
    return -1;
  }
  return fd;
}

}  // namespace

bool is_served() { return address() != nullptr; }

int close_descriptor(int fd) { return static_cast<int>(syscall(SYS_close, fd)); }

Channel::Channel() {
  pthread_mutex_lock(&lock);
  int free = -1;
  for (int i = 0; i < kSlots; ++i) {
    if (slots[i].used) continue;
    if (free < 0 || (slots[i].fd > 0 && slots[free].fd <= 0)) free = i;
  }
  if (free >= 0) slots[free].used = true;
  pthread_mutex_unlock(&lock);
  if (free < 0) return;
  Slot &slot = slots[free];
  if (slot.buffer == nullptr) slot.buffer = static_cast<std::uint8_t *>(std::malloc(sizeof(Request) + kMostBytes));
  const char *path = address();
  if (slot.fd > 0 && (path == nullptr || std::strcmp(path, slot.path) != 0)) {
    close_descriptor(slot.fd);
    slot.fd = 0;
  }
  if (slot.fd <= 0 && path != nullptr && std::strlen(path) < sizeof slot.path) {
    std::strcpy(slot.path, path);
    slot.fd = connected(path);
  }
  slot_ = free;
  if (slot.buffer != nullptr && slot.fd > 0) return;
  slot_ = -1;
  slot.fd = 0;
  pthread_mutex_lock(&lock);
  slot.used = false;
  pthread_mutex_unlock(&lock);
}

Channel::~Channel() {
  if (slot_ < 0) return;
  pthread_mutex_lock(&lock);
  slots[slot_].used = false;
  pthread_mutex_unlock(&lock);
}

std::uint8_t *Channel::bytes() const { return slots[slot_].buffer + sizeof(Request); }

int Channel::take() {
  const int fd = slots[slot_].fd;
  slots[slot_].fd = 0;
  return fd;
}

Reply Channel::exchange(const Request &request, int *descriptor) {
  Slot &slot = slots[slot_];
  if (descriptor != nullptr) *descriptor = -1;
  std::memcpy(slot.buffer, &request, sizeof request);
  ssize_t done = 0;
  do done = send(slot.fd, slot.buffer, sizeof request + request.bytes, MSG_NOSIGNAL);
  while (done < 0 && errno == EINTR);
  if (done < 0) return Reply{errno == EMSGSIZE ? EINVAL : ENODEV, 0, 0};

  Reply reply{};
  iovec parts[] = {{&reply, sizeof reply}, {bytes(), kMostBytes}};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  do done = recvmsg(slot.fd, &message, MSG_CMSG_CLOEXEC);
  while (done < 0 && errno == EINTR);
  if (done < static_cast<ssize_t>(sizeof reply) || reply.bytes != static_cast<std::size_t>(done) - sizeof reply) {
    close_descriptor(slot.fd);
    slot.fd = 0;
    return Reply{ENODEV, 0, 0};
  }
  const cmsghdr *passed = CMSG_FIRSTHDR(&message);
  if (passed != nullptr && passed->cmsg_type == SCM_RIGHTS) {
    int found = -1;
    std::memcpy(&found, CMSG_DATA(passed), sizeof found);
    if (descriptor != nullptr) *descriptor = found;
    else close_descriptor(found);
  }
  return reply;
}

}  // namespace rl::virtual_npu

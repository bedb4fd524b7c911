// What a process says when a mapped file is cut short while it is read: without this, nothing but "Bus error".
#include "bus_error.hpp"

#include <atomic>
#include <csignal>
#include <cstring>
#include <unistd.h>

namespace rl {
namespace {

// Written before the handler is installed, and only read by it.
struct Watched {
  std::uintptr_t begin = 0, end = 0;
  char sentence[1024] = {};
  std::size_t length = 0;
  int exit_code = 1;
};
Watched watched;
std::atomic_flag said = ATOMIC_FLAG_INIT;

void explain(int, siginfo_t *info, void *) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (address < watched.begin || address >= watched.end) {
    std::signal(SIGBUS, SIG_DFL);  // not ours: the access is repeated, and ends the process as ever
    return;
  }
  if (said.test_and_set())  // several threads can run into it at once
    for (;;) pause();
  const ssize_t written = write(STDERR_FILENO, watched.sentence, watched.length);
  static_cast<void>(written);  // nobody is left to be told
  _exit(watched.exit_code);
}

}  // namespace

void explain_bus_errors(const void *begin, std::int64_t bytes, const char *sentence, int exit_code) {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &action, nullptr);
  if (begin == nullptr) return;
  watched.begin = reinterpret_cast<std::uintptr_t>(begin);
  watched.end = watched.begin + static_cast<std::uintptr_t>(bytes);
  watched.exit_code = exit_code;
  std::strncpy(watched.sentence, sentence, sizeof watched.sentence - 1);
  watched.length = std::strlen(watched.sentence);
  action.sa_sigaction = explain;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace rl

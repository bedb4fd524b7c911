// What a process says when a mapped file is cut short while it is read: without this, nothing but "Bus error".
#include "bus_error.hpp"

#include <atomic>
#include <csignal>
#include <cstring>
#include <unistd.h>

namespace rl {
namespace {

// The handler reads entries whose end is not 0; everything else of them is written before that.
struct Watched {
  std::atomic<std::uintptr_t> begin = 0, end = 0;
  char sentence[1024] = {};
  std::size_t length = 0;
  int exit_code = 1;
};
Watched watched[kMostMappings];
std::atomic_flag said = ATOMIC_FLAG_INIT;

void explain(int, siginfo_t *info, void *) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const Watched &one : watched) {
    if (address >= one.end.load() || address < one.begin.load()) continue;
    if (said.test_and_set())  // several threads can run into it at once
      for (;;) pause();
    const ssize_t written = write(STDERR_FILENO, one.sentence, one.length);
    static_cast<void>(written);  // nobody is left to be told
    _exit(one.exit_code);
  }
  std::signal(SIGBUS, SIG_DFL);  // not ours: the access is repeated, and ends the process as ever
}

void handle(bool ours) {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  if (ours) {
    action.sa_sigaction = explain;
    action.sa_flags = SA_SIGINFO;
  }
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

void explain_bus_errors(const void *begin, std::int64_t bytes, const char *sentence, int exit_code) {
  for (Watched &one : watched) {
    if (one.end.load() != 0) continue;
    const auto first = reinterpret_cast<std::uintptr_t>(begin);
    one.begin.store(first);
    one.exit_code = exit_code;
    std::strncpy(one.sentence, sentence, sizeof one.sentence - 1);
    one.length = std::strlen(one.sentence);
    one.end.store(first + static_cast<std::uintptr_t>(bytes));
    handle(true);
    return;
  }
}

void leave_bus_errors(const void *begin) {
  bool any = false;
  for (Watched &one : watched) {
    if (one.begin.load() == reinterpret_cast<std::uintptr_t>(begin)) one.end.store(0);
    any = any || one.end.load() != 0;
  }
  if (!any) handle(false);
}

}  // namespace rl

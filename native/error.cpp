#include "error.hpp"

#include <cstdarg>
#include <cstdio>

namespace rl {
namespace {
thread_local char sentence[512];
}

int fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(sentence, sizeof sentence, format, arguments);
  va_end(arguments);
  return -1;
}

const char *last_error() { return sentence; }

}  // namespace rl

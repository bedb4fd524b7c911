// What a process says when a mapped file is cut short while it is read.
#pragma once

#include <cstdint>

namespace rl {

// From now on a bus error at the `bytes` from `begin` on writes `sentence` (of at most 1,023 bytes) to stderr and ends the
// process with `exit_code`; `begin` null goes back to the system's way. One mapping at a time, of the whole process.
void explain_bus_errors(const void *begin, std::int64_t bytes, const char *sentence, int exit_code);

}  // namespace rl

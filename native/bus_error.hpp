// What a process says when a mapped file is cut short while it is read.
#pragma once

#include <cstdint>

namespace rl {

constexpr int kMostMappings = 64;

// From now on a bus error at the `bytes` from `begin` on writes `sentence` (of at most 1,023 bytes) to stderr and ends the
// process with `exit_code`; others end it in the system's way. Beyond `kMostMappings` mappings
// nothing changes. One call at a time.
void explain_bus_errors(const void *begin, std::int64_t bytes, const char *sentence, int exit_code);

// No longer those of the mapping from `begin` on.
void leave_bus_errors(const void *begin);

}  // namespace rl

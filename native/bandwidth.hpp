// How fast this machine's threads can read memory together: the roof over everything that streams weights.
#pragma once

#include <cstdint>

namespace rl {

// Bytes per second, the best of `repeats` passes over `bytes` of anonymous memory, in pages of the usual size or (huge)
// as large as the system gives. Negative with a sentence in last_error().
double read_bandwidth(std::int64_t bytes, int threads, int repeats, bool huge);

}  // namespace rl

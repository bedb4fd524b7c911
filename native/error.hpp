// The sentence of this thread's last failure.
#pragma once

namespace rl {

// Stores the sentence and returns -1, so that callers can `return fail(...)`.
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *last_error();

}  // namespace rl

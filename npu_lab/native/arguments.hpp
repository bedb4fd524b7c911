// The arguments of an ioctl as bytes: the structure, and what the pointers in it name.
#pragma once

#include "channel.hpp"

namespace rl::virtual_npu {

// Performs an ioctl on a virtual file: 0, or an errno. `argument` is the caller's address, good or bad.
int perform(std::uint32_t file, unsigned long request, std::uint64_t argument);

}  // namespace rl::virtual_npu

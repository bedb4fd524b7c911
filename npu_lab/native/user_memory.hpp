// Copies from and to addresses that a program handed to the "kernel": a bad one is EFAULT, not the end of the process.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rl::virtual_npu {

// False for addresses that cannot be read (written).
bool copy_in(void *to, std::uint64_t from, std::size_t bytes);
bool copy_out(std::uint64_t to, const void *from, std::size_t bytes);

}  // namespace rl::virtual_npu

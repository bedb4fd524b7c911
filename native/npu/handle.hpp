// What is behind the C interface's pointer to an NPU: one of its owners, programs that use it are others.
#pragma once

#include "npu.hpp"

struct rl_npu {
  rl::Shared<rl::npu::Npu> core;
};

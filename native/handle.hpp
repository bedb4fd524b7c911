// What the pointers of the C interface to a program, a step and a stream point to.
#pragma once

#include "step.hpp"
#include "stream.hpp"

struct rl_program {
  rl::Shared<rl::Program> core;
};

struct rl_step {
  rl::Owned<rl::Step> core;
};

struct rl_stream {
  rl::Shared<rl::Stream> core;
};

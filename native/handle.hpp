// What the pointers of the C interface to a program and a step point to.
#pragma once

#include "step.hpp"

struct rl_program {
  rl::Shared<rl::Program> core;
};

struct rl_step {
  rl::Owned<rl::Step> core;
};

// What the C interface's pointer to a program points to.
#pragma once

#include "program.hpp"

struct rl_program {
  rl::Owned<rl::Program> core;
};

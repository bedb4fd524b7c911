// What is behind the C interface's pointer to a program.
#pragma once

#include "program.hpp"

struct rl_program {
  rl::Owned<rl::Program> core;
};

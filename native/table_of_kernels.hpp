// The last lines of every kernel's source file: its table.
#pragma once

#include "attention.hpp"
#include "lane.hpp"
#include "linear.hpp"
#include "npu_attention.hpp"
#include "read.hpp"
#include "round.hpp"
#include "rows.hpp"

namespace rl::RL_ISA {

constexpr Kernels table_of(int id) {
  return Kernels{id,       linear, finish_lane, expect_checks, unpack, embed,      soft_cap,     inverse_root, norm,
                 norm_add, quant,  norm_quant,  gated_quant,   rotate, head_quant, attend_split, attend_fold,  attend_finish,
                 npu_weights, npu_values, read_all, hadamard, round_row};
}

}  // namespace rl::RL_ISA

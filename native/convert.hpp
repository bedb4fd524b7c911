// Rows of a checkpoint on their way into an artifact: turned, and rounded to table codes.
#pragma once

#include <cstdint>

#include "rockledge.h"

namespace rl {

// Both return 0, or -1 with a sentence.
int turn_rows(float *x, int rows, int width, int block, const float *signs, const float *mix, int kernel);
int round_rows(const float *w, int rows, int width, const rl_round_tables &tables, std::uint8_t *codes,
               std::uint8_t *index, float *scale, int kernel);

}  // namespace rl

// What becomes of the logits of one row: scored as they are, changed as the request wants, and a token drawn from them.
#pragma once

#include <cstdint>

#include "rockledge.h"

namespace rl {

// Bytes that draw() needs beside the logits, of which there are `vocab`.
std::int64_t drawing_bytes(int vocab);
// 0, or -1 with a sentence: every number and length that draw() relies on.
int check_draw(const rl_draw &draw, int number, int vocab);
// Fills in the results. May change the logits.
void draw(float *logits, int vocab, rl_draw &draw, void *scratch);

}  // namespace rl

#include "convert.hpp"

#include <cstring>

#include "error.hpp"
#include "kernels.hpp"
#include "memory.hpp"

namespace rl {
namespace {

const Kernels *chosen(int kernel) {
  const Kernels *found = kernels(kernel == RL_KERNEL_AUTO ? best_kernel() : kernel);
  if (found == nullptr) fail("this processor cannot run the %s kernel; choose another", kernel_name(kernel));
  return found;
}

}  // namespace

int turn_rows(float *x, int rows, int width, int block, const float *signs, const float *mix, int kernel) {
  if (rows < 0 || width < 1 || block < 1 || (block & (block - 1)) != 0 || width % block != 0)
    return fail("%d rows of %d values cannot be turned in blocks of %d, expected a power of two that divides them", rows,
                width, block);
  const Kernels *with = chosen(kernel);
  if (with == nullptr) return -1;
  const int odd = width / block;
  Array<float> row;
  if (signs != nullptr && mix != nullptr && !row.allocate(static_cast<std::size_t>(width)))
    return fail("not enough memory for a row of %d values", width);
  if ((signs == nullptr) != (mix == nullptr)) return fail("a rotation needs both its signs and its mix");
  Scratch scratch{};
  scratch.row = row.data();
  for (; rows > 0; --rows, x += width) {
    if (signs != nullptr)
      with->rotate(x, block, odd, false, signs, mix, nullptr, x, scratch);
    else
      for (int i = 0; i < width; i += block) with->hadamard(x + i, block);
  }
  return 0;
}

int round_rows(const float *w, int rows, int width, const rl_round_tables &given, std::uint8_t *codes,
               std::uint8_t *index, float *scale, int kernel) {
  if (rows < 0 || width < 1 || given.shares < 1)
    return fail("%d rows of %d weights cannot be rounded at %d scales; give some of each", rows, width, given.shares);
  const Kernels *with = chosen(kernel);
  if (with == nullptr) return -1;
  const int groups = (width + kGroup - 1) / kGroup;
  Array<std::uint8_t> tried;
  if (!tried.allocate(2 * static_cast<std::size_t>(groups))) return fail("not enough memory for %d groups", groups);
  const RoundTables tables{given.errors, given.nearest, given.entries, given.share, given.shares};
  for (int row = 0; row < rows; ++row, w += width, codes += width, index += groups) {
    scale[row] = with->round_row(w, width, tables, tried.data(), codes, index);
    if (!(scale[row] > 0.0f)) return fail("the weights of a row are too large to be rounded; their squares overflow");
  }
  return 0;
}

}  // namespace rl

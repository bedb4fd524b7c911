// Whether the sums of a linear are those of its activations and weights: one sum of all of a row's results.
//
// With a random factor r[n] for every column, sum_n r[n] C[m][n] is sum_k A[m][k] v[k], where v[k] = sum_n r[n] B[n][k]:
// a column more of the product (K.-H. Huang, J. A. Abraham, Algorithm-Based Fault Tolerance for Matrix Operations, 1984).
// All is modulo 2^64, so exact. An error e of an int32 is less than 2^32 and a factor less than 2^31, so r e is less than
// 2^63 and no bit of it is lost: one wrong sum of a row always shows, and two cancel out only if r1 e1 = -r2 e2. All
// factors differ, so the same bit wrong in two columns shows too, the highest included. Of each wrong sum's factors at
// most one makes up for the errors beside it: any errors that know nothing of the factors pass with a chance of 2^-31.
// v is made once, while the weights are unpacked for the first time, from what the CPU wrote: so what the NPU did not
// run, ran with old operands, or left as it was before, shows as well as what it got wrong.
#pragma once

#include "kernels.hpp"
#include "plan.hpp"

namespace rl::npu {

// The factor of a column: positive, and another one for each.
std::int32_t check_factor(std::uint32_t column);

// A 64-bit factor v as low + 2^32 high, modulo 2^64.
void split_factor(std::uint64_t v, std::int32_t &low, std::int32_t &high);

class Checksum {
 public:
  // False when there is no memory. `threads` work at once, each in places of its own.
  [[nodiscard]] bool allocate(const Plan &plan, int threads);

  // Factors of the columns of a linear's strips from `strip` on.
  const std::int32_t *factors(int strip) const { return factors_.data() + std::ptrdiff_t{strip} * Plan::kColumns; }

  // Weights. Whether those of a block are in its linear's v; a thread adds a strip's, and the last one says that all are.
  bool has(int block) const { return has_[static_cast<std::size_t>(block)] != 0; }
  // `tiles` tiles int8 [8][32] of a strip, `apart` bytes from each other, from input `start` on.
  void add_weights(int strip, const std::int8_t *tile, int tiles, std::int64_t apart, int start, int thread);
  void finish_weights(const Plan &plan, int block);
  // v of a linear is low + 2^32 high, modulo 2^64.
  const std::int32_t *low_weights(int linear) const { return low_.data() + first_input(linear); }
  const std::int32_t *high_weights(int linear) const { return high_.data() + first_input(linear); }

  // Sums. begin_linear forgets those of the linear before; a thread adds what it sees to its own [vectors][kCheckLanes].
  void begin_linear(int vectors);
  std::uint64_t *sums(int thread) { return sums_.data() + std::ptrdiff_t{thread} * vectors_most_ * kCheckLanes; }

  // What the sums of kCheckVectors vectors should be.
  void expect(int vector, const std::uint64_t *expected);
  // Whether they all are.
  bool agrees() const;

 private:
  std::int64_t first_input(int linear) const { return first_input_[static_cast<std::size_t>(linear)]; }

  Array<std::int32_t> factors_;
  Array<std::int64_t> first_input_;  // of each linear in v
  Array<std::int32_t> low_, high_;   // v of each linear
  Array<std::uint8_t> has_;          // of each block
  Array<std::uint64_t> adding_;      // v of the block that is being unpacked, of each thread
  Array<std::uint64_t> sums_;
  Array<std::uint64_t> expected_;    // of each vector
  int threads_ = 0, inputs_most_ = 0, vectors_most_ = 0, vectors_ = 0;
};

}  // namespace rl::npu

#include "checksum.hpp"

#include <algorithm>
#include <utility>

namespace rl::npu {

// It looks like chance: the finalizer of MurmurHash3 (public domain) on 31 bits, of which every step can be undone.
std::int32_t check_factor(std::uint32_t column) {
  constexpr std::uint32_t kMask = 0x7fffffffU;
  std::uint32_t x = column + 1;
  x = (x ^ (x >> 16)) * 0x85ebca6bU & kMask;
  x = (x ^ (x >> 13)) * 0xc2b2ae35U & kMask;
  return static_cast<std::int32_t>(x ^ (x >> 16));
}

void split_factor(std::uint64_t v, std::int32_t &low, std::int32_t &high) {
  low = static_cast<std::int32_t>(v);
  high = static_cast<std::int32_t>((v - static_cast<std::uint64_t>(std::int64_t{low})) >> 32);
}

bool Checksum::allocate(const Plan &plan, int threads) {
  threads_ = threads;
  int strips = 0;
  std::int64_t inputs = 0;
  const auto linears = static_cast<std::size_t>(plan.linears());
  if (!first_input_.allocate(linears)) return false;
  for (int i = 0; i < plan.linears(); ++i) {
    const rl_npu_shape &shape = plan.shape_of(i);
    first_input_[static_cast<std::size_t>(i)] = inputs;
    inputs += shape.inputs;
    inputs_most_ = std::max(inputs_most_, shape.inputs);
    vectors_most_ = std::max(vectors_most_, shape.sizes[shape.n_sizes - 1].rows * shape.planes);
    strips = std::max(strips, plan.linear(i).blocks * plan.lanes() * plan.strips_in_lane(i));
  }
  const auto own = [&](int count) { return static_cast<std::size_t>(threads) * static_cast<std::size_t>(count); };
  if (!factors_.allocate(static_cast<std::size_t>(strips) * Plan::kColumns) ||
      !low_.allocate(static_cast<std::size_t>(inputs)) || !high_.allocate(static_cast<std::size_t>(inputs)) ||
      !has_.allocate(static_cast<std::size_t>(plan.blocks())) || !adding_.allocate(own(inputs_most_)) ||
      !sums_.allocate(own(vectors_most_ * kCheckLanes)) ||
      !expected_.allocate(static_cast<std::size_t>(vectors_most_)))
    return false;
  for (std::size_t column = 0; column < factors_.size(); ++column)
    factors_[column] = check_factor(static_cast<std::uint32_t>(column));
  return true;
}

void Checksum::add_weights(int strip, const std::int8_t *tile, int tiles, std::int64_t apart, int start, int thread) {
  const std::int32_t *r = factors(strip);
  std::uint64_t *v = adding_.data() + std::ptrdiff_t{thread} * inputs_most_ + start;
  for (int t = 0; t < tiles; ++t, tile += apart, v += kTile) {
    std::int64_t more[kTile] = {};
    for (int column = 0; column < Plan::kColumns; ++column)
      for (int k = 0; k < kTile; ++k) more[k] += std::int64_t{r[column]} * std::int32_t{tile[column * kTile + k]};
    for (int k = 0; k < kTile; ++k) v[k] += static_cast<std::uint64_t>(more[k]);
  }
}

void Checksum::finish_weights(const Plan &plan, int block) {
  const int linear = plan.linear_of(block), inputs = plan.shape_of(linear).inputs;
  std::int32_t *low = low_.data() + first_input(linear), *high = high_.data() + first_input(linear);
  const auto extended = [](std::int32_t half) { return static_cast<std::uint64_t>(std::int64_t{half}); };
  for (int k = 0; k < inputs; ++k) {
    std::uint64_t v = extended(low[k]) + (extended(high[k]) << 32);
    for (int thread = 0; thread < threads_; ++thread)
      v += std::exchange(adding_.data()[std::ptrdiff_t{thread} * inputs_most_ + k], 0U);
    split_factor(v, low[k], high[k]);
  }
  has_[static_cast<std::size_t>(block)] = 1;
}

void Checksum::begin_linear(int vectors) {
  vectors_ = vectors;
  for (int thread = 0; thread < threads_; ++thread) std::fill_n(sums(thread), vectors * kCheckLanes, 0U);
}

void Checksum::expect(int vector, const std::uint64_t *expected) {
  const int count = std::min(kCheckVectors, vectors_ - vector);
  std::copy_n(expected, count, expected_.data() + vector);
}

bool Checksum::agrees() const {
  for (int vector = 0; vector < vectors_; ++vector) {
    std::uint64_t sum = 0;
    for (int thread = 0; thread < threads_; ++thread) {
      const std::uint64_t *own = sums_.data() + (std::ptrdiff_t{thread} * vectors_most_ + vector) * kCheckLanes;
      for (int i = 0; i < kCheckLanes; ++i) sum += own[i];
    }
    if (sum != expected_[static_cast<std::size_t>(vector)]) return false;
  }
  return true;
}

}  // namespace rl::npu

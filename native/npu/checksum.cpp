#include "checksum.hpp"

#include <algorithm>

namespace rl::npu {
namespace {

constexpr int kTile = 32;  // inputs

// An odd number that looks like chance, another one for each column: the finalizer of MurmurHash3 (public domain).
std::int32_t factor(std::uint32_t column) {
  std::uint32_t x = column + 1;
  x = (x ^ (x >> 16)) * 0x85ebca6bU;
  x = (x ^ (x >> 13)) * 0xc2b2ae35U;
  return static_cast<std::int32_t>((x ^ (x >> 16)) | 1U);
}

}  // namespace

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
      !weights_.allocate(static_cast<std::size_t>(inputs)) || !has_.allocate(static_cast<std::size_t>(plan.blocks())) ||
      !adding_.allocate(own(inputs_most_)) || !sums_.allocate(own(vectors_most_ * Plan::kColumns)) ||
      !expected_.allocate(static_cast<std::size_t>(vectors_most_)))
    return false;
  for (std::size_t column = 0; column < factors_.size(); ++column) factors_[column] = factor(static_cast<std::uint32_t>(column));
  return true;
}

void Checksum::add_weights(int strip, const std::int8_t *tile, int tiles, std::int64_t apart, int start, int thread) {
  const std::int32_t *r = factors(strip);
  std::uint32_t *v = adding_.data() + std::ptrdiff_t{thread} * inputs_most_ + start;
  for (int t = 0; t < tiles; ++t, tile += apart, v += kTile)
    for (int column = 0; column < Plan::kColumns; ++column) {
      const auto by = static_cast<std::uint32_t>(r[column]);
      for (int k = 0; k < kTile; ++k) v[k] += by * static_cast<std::uint32_t>(std::int32_t{tile[column * kTile + k]});
    }
}

void Checksum::finish_weights(const Plan &plan, int block) {
  const int linear = plan.linear_of(block), inputs = plan.shape_of(linear).inputs;
  std::uint32_t *v = weights_.data() + first_input_[static_cast<std::size_t>(linear)];
  for (int thread = 0; thread < threads_; ++thread) {
    std::uint32_t *more = adding_.data() + std::ptrdiff_t{thread} * inputs_most_;
    for (int k = 0; k < inputs; ++k) v[k] += more[k];
    std::fill_n(more, inputs, 0U);
  }
  has_[static_cast<std::size_t>(block)] = 1;
}

void Checksum::begin_linear(int vectors) {
  vectors_ = vectors;
  for (int thread = 0; thread < threads_; ++thread) std::fill_n(sums(thread), vectors * Plan::kColumns, 0);
}

void Checksum::expect(int linear, int inputs, int vector, const std::int8_t *atoms, std::int64_t atom_stride) {
  const std::uint32_t *v = weights_.data() + first_input_[static_cast<std::size_t>(linear)];
  std::uint32_t total[kVectors][kAtom] = {};
  for (int k = 0; k < inputs; k += kAtom, atoms += atom_stride)
    for (int i = 0; i < kVectors; ++i)
      for (int j = 0; j < kAtom; ++j)
        total[i][j] += v[k + j] * static_cast<std::uint32_t>(std::int32_t{atoms[i * kAtom + j]});
  for (int i = 0; i < kVectors && vector + i < vectors_; ++i) {
    std::uint32_t sum = 0;
    for (const std::uint32_t one : total[i]) sum += one;
    expected_[static_cast<std::size_t>(vector + i)] = sum;
  }
}

bool Checksum::agrees() const {
  for (int vector = 0; vector < vectors_; ++vector) {
    std::uint32_t sum = 0;
    for (int thread = 0; thread < threads_; ++thread) {
      const std::int32_t *own =
          sums_.data() + (std::ptrdiff_t{thread} * vectors_most_ + vector) * Plan::kColumns;
      for (int i = 0; i < Plan::kColumns; ++i) sum += static_cast<std::uint32_t>(own[i]);
    }
    if (sum != expected_[static_cast<std::size_t>(vector)]) return false;
  }
  return true;
}

}  // namespace rl::npu

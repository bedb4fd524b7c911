// Sums of weighted int8 values in fp32.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

constexpr int kValues = 2 * kLanes;  // columns at a time

// sums[h][0..kValues-1] of `Heads` heads += weights[h][i] * values[i], i rising from 0 to count - 1: a product and a sum
// each.
template <int Heads>
RL_INLINE void add_values(const std::int8_t *values, int stride, int count, const float *weights, float *sums,
                          int sums_stride) {
  V8f acc[Heads][2];
  for (int h = 0; h < Heads; ++h)
    for (int i = 0; i < 2; ++i) acc[h][i] = load<V8f>(sums + h * sums_stride + i * kLanes);
  for (int i = 0; i < count; ++i, values += stride) {
    const V8f a = to_float(widen(values));
    const V8f b = to_float(widen(values + kLanes));
    for (int h = 0; h < Heads; ++h) {
      const V8f w = splat(weights[h * kSplit + i]);
      acc[h][0] += w * a;
      acc[h][1] += w * b;
    }
  }
  for (int h = 0; h < Heads; ++h)
    for (int i = 0; i < 2; ++i) store(sums + h * sums_stride + i * kLanes, acc[h][i]);
}

}  // namespace rl::RL_ISA

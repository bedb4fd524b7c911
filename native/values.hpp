// Sums of weighted int8 values in fp32.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

constexpr int kValues = 2 * kLanes;  // columns at a time

// sums[h][0..kValues-1] of `Heads` heads += weights[h][i] * values[i], i rising from 0 to count - 1: a product and a sum
// each.
template <int Heads>
static void add_values(const std::int8_t *values, int stride, int count, const float *weights, float *sums,
                       int sums_stride) {
  V8f acc[Heads][2];
  for (int h = 0; h < Heads; ++h)
    for (int i = 0; i < 2; ++i) acc[h][i] = load<V8f>(sums + h * sums_stride + i * kLanes);
  for (int i = 0; i < count; ++i, values += stride) {
    const V8f a = to_float(widen(values));
    const V8f b = to_float(widen(values + kLanes));
    for (int h = 0; h < Heads; ++h) {
      const V8f w = splat(weights[h * kScoreStride + i]);
      acc[h][0] += w * a;
      acc[h][1] += w * b;
    }
  }
  for (int h = 0; h < Heads; ++h)
    for (int i = 0; i < 2; ++i) store(sums + h * sums_stride + i * kLanes, acc[h][i]);
}

constexpr int kWide = 32;     // positions whose values are widened at a time: they stay in the first cache
constexpr int kQueries = 6;  // queries that share a walk over them: so many sums fit the registers

// `count` positions of kValues columns as fp32 [kWide][kValues].
RL_INLINE void widen_values(const std::int8_t *values, int stride, int count, float *wide) {
  for (int i = 0; i < count; ++i, values += stride, wide += kValues)
    for (int c = 0; c < kValues; c += kLanes) store(wide + c, to_float(widen(values + c)));
}

// sums[q][column ..] of `Queries` += weights[q][i] * wide[i], as add_values does for one row's heads.
template <int Queries>
RL_INLINE void add_wide(const float *wide, int count, const float *weights, float *const *sums, int column) {
  V8f acc[Queries][2];
  for (int q = 0; q < Queries; ++q)
    for (int i = 0; i < 2; ++i) acc[q][i] = load<V8f>(sums[q] + column + i * kLanes);
  for (int i = 0; i < count; ++i, wide += kValues) {
    const V8f a = load<V8f>(wide), b = load<V8f>(wide + kLanes);
    for (int q = 0; q < Queries; ++q) {
      const V8f w = splat(weights[q * kScoreStride + i]);
      acc[q][0] += w * a;
      acc[q][1] += w * b;
    }
  }
  for (int q = 0; q < Queries; ++q)
    for (int i = 0; i < 2; ++i) store(sums[q] + column + i * kLanes, acc[q][i]);
}

// The same for any number of queries, groups of them in turn.
static void add_wide_values(const float *wide, int count, const float *weights, int queries, float *const *sums, int column) {
  for (int groups = (queries + kQueries - 1) / kQueries; groups > 0; --groups) {
    const int group = (queries + groups - 1) / groups;
    switch (group) {
      case 1: add_wide<1>(wide, count, weights, sums, column); break;
      case 2: add_wide<2>(wide, count, weights, sums, column); break;
      case 3: add_wide<3>(wide, count, weights, sums, column); break;
      case 4: add_wide<4>(wide, count, weights, sums, column); break;
      case 5: add_wide<5>(wide, count, weights, sums, column); break;
      default: add_wide<6>(wide, count, weights, sums, column); break;
    }
    queries -= group;
    weights += group * kScoreStride;
    sums += group;
  }
}

}  // namespace rl::RL_ISA

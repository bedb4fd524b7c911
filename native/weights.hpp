// Weights of a split's values: what becomes of one query's scores, in their place (formats/attention_spec.py).
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

// Scores of `Blocks` blocks of eight positions become weights: their powers of two, which `total` adds up, times the scales
// of the values; `most` keeps the running maxima.
template <int Blocks>
RL_INLINE void weigh(float *scores, const float *scales, V8f top, V8f &total, V8f &most) {
  V8f e[Blocks];
  for (int b = 0; b < Blocks; ++b) e[b] = load<V8f>(scores + b * kLanes) - top;
  powers_of_two<Blocks>(e);
  for (int b = 0; b < Blocks; ++b) {
    total += e[b];
    const V8f weight = e[b] * load<V8f>(scales + b * kLanes);
    most = larger(weight, most);
    store(scores + b * kLanes, weight);
  }
}

// Weights of the positions from `first` to `end` as codes, in their place.
RL_INLINE void round_weights(float *weights, int first, int end, float inverse) {
  auto *codes = reinterpret_cast<std::int8_t *>(weights);
#pragma GCC unroll 2
  for (int i = first; i < end; i += kLanes) store_planes(codes + 2 * i, load<V8f>(weights + i) * splat(inverse));
}

// The scores of one query of a split, of which it sees the blocks from position `first` to `end`, become codes, which are
// 0 for the others from `all_first` to `all_end`. Keeps maximum and sum of the powers of two in `extra`; gives what sums
// of codes times values are multiplied by.
static float code_weights(float *scores, const float *scales, int first, int end, int all_first, int all_end, float top,
                          float *extra) {
  V8f total = splat(0.0f), most = splat(0.0f);
  int i = first;
  for (; i + 2 * kLanes <= end; i += 2 * kLanes) weigh<2>(scores + i, scales + i, splat(top), total, most);
  if (i < end) weigh<1>(scores + i, scales + i, splat(top), total, most);
  extra[0] = top;
  extra[1] = sum(total);
  const float largest = maximum(most), inverse = kMostCode / largest;
  const bool usable = inverse <= 3.402823466e38f;  // else all of them count as 0
  round_weights(scores, first, end, usable ? inverse : 0.0f);
  auto *codes = reinterpret_cast<std::int8_t *>(scores);
  if (first > all_first) std::memset(codes + 2 * all_first, 0, static_cast<std::size_t>(2 * (first - all_first)));
  if (end < all_end) std::memset(codes + 2 * end, 0, static_cast<std::size_t>(2 * (all_end - end)));
  return usable ? largest / kMostCode : 0.0f;
}

}  // namespace rl::RL_ISA

// One row of a matrix in the code of sixteen tables: the best row scale of a few, the best table of every group, the
// nearest entry for every weight (conversion/nearest.py is the specification).
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace rl::RL_ISA {

// Whole numbers of x >= 0, rounded down.
#if defined(__AVX2__)
RL_INLINE V8i truncated(V8f x) { return __builtin_convertvector(x, V8i); }
#else
RL_INLINE V8i truncated(V8f x) { return {__builtin_convertvector(x.low, V4i), __builtin_convertvector(x.high, V4i)}; }
#endif

// The place floor(x * steps) + zero in a list of `count` places, the nearest one beyond its ends.
RL_INLINE V8i places(V8f x, float steps, float zero, int count) {
  const V8f place = x * splat(steps) + splat(zero);
  return truncated(smaller(larger(place, splat(0.0f)), splat(static_cast<float>(count - 1))));
}

// The table that loses least on each group, and what all of them lose, in units of the row's scale.
static double choose_tables(const float *w, int width, float inverse, const float *errors, std::uint8_t *index) {
  double lost = 0.0;
  for (int first = 0; first < width; first += kGroup) {
    V8f low = splat(0.0f), high = splat(0.0f);
    const int count = width - first < kGroup ? width - first : kGroup;
    each_eight(count, [&](int i, auto n) {
      const V8i cell = places(load_part(w + first + i, n) * splat(inverse), kCellsAUnit, kErrorCells / 2, kErrorCells);
      std::int32_t at[kLanes];
      store(at, cell);
      for (int k = 0; k < (n < kLanes ? static_cast<int>(n) : kLanes); ++k) {
        const float *of_cell = errors + std::int64_t{at[k]} * kTables;
        low += load<V8f>(of_cell);
        high += load<V8f>(of_cell + kLanes);
      }
    });
    float of_table[kTables];
    store(of_table, low);
    store(of_table + kLanes, high);
    int best = 0;
    for (int t = 1; t < kTables; ++t)
      if (of_table[t] < of_table[best]) best = t;
    lost += static_cast<double>(of_table[best]);
    index[first / kGroup] = static_cast<std::uint8_t>(best);
  }
  return lost;
}

// The nearest entries of the chosen tables, and the scale that fits them best.
static float nearest_entries(const float *w, int width, float scale, const RoundTables &tables, const std::uint8_t *index,
                             std::uint8_t *codes) {
  const V8f inverse = splat(1.0f / scale);
  V8f with_weights = splat(0.0f), with_itself = splat(0.0f);
  each_eight(width, [&](int i, auto n) {
    const int table = index[i / kGroup];
    const std::uint8_t *nearest = tables.nearest + std::int64_t{table} * kNearestCells;
    const std::int8_t *entries = tables.entries + std::int64_t{table} * kTables;
    const V8f x = load_part(w + i, n);
    std::int32_t at[kLanes];
    float decoded[kLanes] = {};
    store(at, places(x * inverse, 2.0f, kNearestCells / 2, kNearestCells));
    for (int k = 0; k < (n < kLanes ? static_cast<int>(n) : kLanes); ++k) {
      codes[i + k] = nearest[at[k]];
      decoded[k] = static_cast<float>(entries[nearest[at[k]]]);
    }
    const V8f q = load<V8f>(decoded);
    with_weights += x * q;
    with_itself += q * q;
  });
  const float fitted = sum(with_weights) / sum(with_itself);
  return fitted > 0.0f && fitted <= 3.402823466e38f ? fitted : scale;
}

// `tried` has room for two indices of the row. Gives the scale; not above 0 where the row's squares overflow.
static float round_row(const float *w, int width, const RoundTables &tables, std::uint8_t *tried, std::uint8_t *codes,
                       std::uint8_t *index) {
  V8f squares = splat(0.0f);
  each_eight(width, [&](int i, auto n) {
    const V8f x = load_part(w + i, n);
    squares += x * x;
  });
  const float rms = __builtin_sqrtf(sum(squares) / static_cast<float>(width));
  if (!(rms <= 3.402823466e38f)) return 0.0f;
  const float base = (rms > 1e-30f ? rms : 1e-30f) / kUnitsPerRms;
  const int groups = (width + kGroup - 1) / kGroup;
  std::uint8_t *best = tried, *other = tried + groups;
  double least = 0.0;
  float scale = 0.0f;
  for (int share = 0; share < tables.shares; ++share) {
    const float candidate = base * tables.share[share];
    const double lost = choose_tables(w, width, 1.0f / candidate, tables.errors, other) *
                        (static_cast<double>(candidate) * static_cast<double>(candidate));
    if (share > 0 && !(lost < least)) continue;
    least = lost;
    scale = candidate;
    std::uint8_t *const loser = best;
    best = other;
    other = loser;
  }
  std::memcpy(index, best, static_cast<std::size_t>(groups));
  return nearest_entries(w, width, scale, tables, index, codes);
}

}  // namespace rl::RL_ISA

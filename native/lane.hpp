// What a linear on the NPU leaves to the CPU: weights unpacked in its layout, and floats made of its sums.
//
// The including file has defined, in this namespace: prepare_tables and unpack_apart.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"
#include "linear.hpp"
#include "tiles.hpp"

namespace rl::RL_ISA {

static void unpack(const rl_band &band, int strip, int first_tile, int tiles, std::int64_t stride, std::int8_t *out,
                   Scratch &scratch) {
  const std::int8_t *tables = prepare_tables(band, scratch);
  const std::uint8_t *index = strip_index(band, strip);
  unpack_apart(band.bits, strip_codes(band, strip) + static_cast<std::int64_t>(first_tile) * tile_bytes(band.bits),
               index == nullptr ? nullptr : index + static_cast<std::int64_t>(first_tile) * kStrip, tables, tiles, stride,
               out);
}

// The sums of eight columns of one vector, of which four lie `upper` int32s after the other four. Parts that the NPU got
// wrong may add up to more than an int32.
RL_INLINE V8i lane_sums(const LaneSums &lane, const std::int32_t *at, std::int64_t upper) {
  V8i all = load_halves(at, at + upper);
  for (int part = 1; part < lane.parts; ++part) {
    at += lane.part_stride;
    all = plus(all, load_halves(at, at + upper));
  }
  return all;
}

// Rows of y lie far apart, so no processor prefetches the next one by itself.
constexpr int kRowsAhead = 8;
RL_INLINE void fetch_row(const LinearTask &task, int row, int first, int last) {
  if (row >= task.rows) return;
  for (int strip = first; strip < last; strip += 2) {
    if (task.residual != nullptr) __builtin_prefetch(task.residual + row * task.residual_stride + strip * kStrip);
    __builtin_prefetch(task.y + row * task.y_stride + strip * kStrip, 1);
  }
}

// By value: the compiler then knows that its stores do not alias it.
template <int Planes>
RL_INLINE void finish_lane_of(LinearTask task, const LaneSums lane, int column, int first, int last) {
  const rl_band band = *task.band;
  task.band = &band;
  for (int t = 0; t < lane.tiles; ++t) {
    const int start = lane.tile_starts[t], vectors = lane.tile_starts[t + 1] - start;
    const std::int64_t upper = std::int64_t{4} * vectors;
    const std::int32_t *tile = lane.sums + static_cast<std::int64_t>(start) * lane.columns +
                               static_cast<std::int64_t>(column) * vectors;
    for (int v = 0; v < vectors; v += Planes) {
      const int row = (start + v) / Planes;
      if (row >= task.rows) return;
      fetch_row(task, row + kRowsAhead, first, last);
      const V8f sx = splat(task.sx[row]);
      const std::int32_t *at = tile + 4 * v, *factors = lane.factors;
      std::uint64_t *checks = lane.checks + std::ptrdiff_t{kCheckLanes} * (start + v);
      V4u64 check = load<V4u64>(checks), check_low = Planes == 1 ? check : load<V4u64>(checks + kCheckLanes);
      for (int strip = first; strip < last; ++strip, at += 2 * upper, factors += kStrip) {
        const int done = strip * kStrip, left = band.rows - done;
        const V8i high = lane_sums(lane, at, upper);
        const V8i low = Planes == 1 ? high : lane_sums(lane, at + 4, upper);
        check = plus_long_products(check, high, load<V8i>(factors));
        if (Planes == 2) check_low = plus_long_products(check_low, low, load<V8i>(factors));
        const V8f value = Planes == 1 ? to_float(high) : to_float(high, low);
        const Epilogue epilogue(task, done, row);
        each_eight(left < kStrip ? left : kStrip, [&](int i, auto n) {
          store_part(task.y + row * task.y_stride + done + i, epilogue(value, sx, i, n), n);
        });
      }
      store(checks, check);
      if (Planes == 2) store(checks + kCheckLanes, check_low);
    }
  }
}

static void finish_lane(const LinearTask &task, const LaneSums &lane, int column, int first, int last) {
  if (task.planes == 1)
    finish_lane_of<1>(task, lane, column, first, last);
  else
    finish_lane_of<2>(task, lane, column, first, last);
}

static void expect_checks(const ExpectTask &task, std::uint64_t *expected) {
  constexpr int kEights = kAtom / kLanes;
  V4u64 low[kCheckVectors] = {};
  V8i high[kCheckVectors] = {};
  const std::int8_t *atoms = task.atoms;
  for (int k = 0; k < task.inputs; k += kAtom, atoms += task.atom_stride)
    for (int i = 0; i < kCheckVectors; ++i)
      for (int e = 0; e < kEights; ++e) {
        const V8i codes = widen(atoms + i * kAtom + e * kLanes);
        low[i] = plus_long_products(low[i], codes, load<V8i>(task.low + k + e * kLanes));
        high[i] = plus_product(high[i], codes, load<V8i>(task.high + k + e * kLanes));
      }
  for (int i = 0; i < kCheckVectors; ++i) {
    std::uint32_t sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<std::uint32_t>(high[i][lane]);
    expected[i] = total(low[i]) + (std::uint64_t{sum} << 32);
  }
}

}  // namespace rl::RL_ISA

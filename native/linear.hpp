// One linear: packed weights times int8 rows, and the epilogue that makes floats of the exact sums.
//
// The including file has defined, in this namespace: prepare_tables, kStreamed and strip_dots, Unpacked and
// unpack_strip, kMultiplied and multiply; all sums are biased (bias.hpp).
// Up to kStreamed rows of x (two planes are two rows) multiply while the codes stream in; more rows unpack a block of
// strips into the scratch and multiply from there, kMultiplied at a time.
#pragma once

#include "bias.hpp"
#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::RL_ISA {

// Turns a row's sums into floats, from column i of a strip on; `n` as each_eight gives it.
struct Epilogue {
  const float *scale, *bias, *residual;  // of the strip's first column; the last two may be null

  Epilogue(const LinearTask &task, int first, int row)
      : scale(task.band->scale + first),
        bias(task.band->bias == nullptr ? nullptr : task.band->bias + first),
        residual(task.residual == nullptr ? nullptr : task.residual + row * task.residual_stride + first) {}

  template <typename N>
  __attribute__((always_inline)) V8f operator()(V8f value, V8f sx, int i, N n) const {
    value = value * (load_part(scale + i, n) * sx);
    if (bias != nullptr) value = value + load_part(bias + i, n);
    if (residual != nullptr) value = value + load_part(residual + i, n);
    return value;
  }
};

// Successive strips of the rows of x from `first_vector` on, whose sums are in `sums` [strips][vectors][8]; `over` is
// the excess of every vector of the task. y = float(sum) * (scale * sx), + bias, + residual.
RL_INLINE void finish(const LinearTask &task, int strip, int strips, int first_vector, int vectors,
                      const std::int32_t *sums, const std::int32_t *over) {
  const rl_band &band = *task.band;
  const int planes = task.planes, first = strip * kStrip, left = band.rows - first;
  const int count = left < strips * kStrip ? left : strips * kStrip;
  for (int v = 0; v < vectors; v += planes) {
    const int vector = first_vector + v, row = planes == 1 ? vector : vector / 2;
    const std::int32_t *high = sums + v * kStrip, *low = high + kStrip;
    float *y = task.y + row * task.y_stride + first;
    const Epilogue epilogue(task, first, row);
    const V8f sx = splat(task.sx[row]);
    each_eight(count, [&](int i, auto n) {
      const V8i all = exact(high + i * vectors, over + vector);
      // Both planes together round once, as the int64 of the specification does.
      const V8f value = planes == 1 ? to_float(all) : to_float(all, exact(low + i * vectors, over + vector + 1));
      store_part(y + i, epilogue(value, sx, i, n), n);
    });
  }
}

constexpr int kStreamedStrips = 16;  // strips whose sums wait for the epilogue together

RL_INLINE void linear_few(const LinearTask &task, int vectors, int first, int last, const std::int8_t *tables,
                          const std::int32_t *over) {
  const rl_band &band = *task.band;
  alignas(32) std::int32_t sums[kStreamedStrips * kStreamed * kStrip];
  for (int s = first; s < last; s += kStreamedStrips) {
    const int strips = last - s < kStreamedStrips ? last - s : kStreamedStrips;
    strip_dots(band.bits, vectors, strip_codes(band, s), strip_index(band, s), tables, task.x, task.x_stride,
               tiles_of(band.cols), strips, sums);
    finish(task, s, strips, 0, vectors, sums, over);
  }
}

RL_INLINE void linear_many(const LinearTask &task, int first, int last, const std::int8_t *tables,
                           Unpacked *weights, const std::int32_t *over) {
  const rl_band &band = *task.band;
  const int tiles = tiles_of(band.cols), cols = tiles * kTile;
  const int block = block_strips(band.cols), vectors = task.rows * task.planes;
  static_assert(kMultiplied % 2 == 0, "the planes of a row are multiplied together");
  alignas(32) std::int32_t sums[kBlockStrips * kMultiplied * kStrip];
  for (int s = first; s < last; s += block) {
    const int strips = last - s < block ? last - s : block;
    for (int b = 0; b < strips; ++b)
      unpack_strip(band.bits, strip_codes(band, s + b), strip_index(band, s + b), tables, tiles,
                   weights + b * kStrip * cols);
    for (int v = 0; v < vectors; v += kMultiplied) {
      const int count = vectors - v < kMultiplied ? vectors - v : kMultiplied;
      const std::int8_t *x = task.x + static_cast<std::int64_t>(v) * task.x_stride;
      multiply(weights, strips, count, x, task.x_stride, tiles, sums);
      finish(task, s, strips, v, count, sums, over);
    }
  }
}

static void linear(const LinearTask &task, int first, int last, Scratch &scratch) {
  const std::int8_t *tables = prepare_tables(*task.band, scratch);
  const int vectors = task.rows * task.planes;
  excess_of(task.x, task.x_stride, tiles_of(task.band->cols), vectors, scratch.excess);
  if (vectors <= kStreamed)
    linear_few(task, vectors, first, last, tables, scratch.excess);
  else
    linear_many(task, first, last, tables, static_cast<Unpacked *>(scratch.weights), scratch.excess);
}

static void embed(const rl_band &band, int row, float *out, Scratch &) {
  const int strip = row / kStrip, r = row % kStrip;
  const std::uint8_t *codes = strip_codes(band, strip), *index = strip_index(band, strip);
  const float scale = band.scale[row];
  for (int k = 0; k < band.cols; ++k) {
    const int tile = k / kTile;
    const int w = decode(band.bits, codes + tile * tile_bytes(band.bits),
                         index == nullptr ? nullptr : index + tile * kStrip, band.tables, r, k % kTile);
    out[k] = scale * static_cast<float>(w);
  }
}

}  // namespace rl::RL_ISA

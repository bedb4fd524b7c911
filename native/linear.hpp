// One linear: packed weights times int8 rows, and the epilogue that makes floats of the exact sums.
//
// The including file has defined, in this namespace: prepare_tables, kStreamed and strip_dots, Unpacked and
// unpack_strip, kMultiplied and multiply; kBias and excess_of: where the bias is not 0, sums are too large by kBias times
// the sum of the row of x, which comes off here, modulo 2^32 and so exactly.
// Up to kStreamed rows of x (two planes are two rows) multiply while the codes stream in; more rows unpack a block of
// strips into the scratch and multiply from there, kMultiplied at a time.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::RL_ISA {

// The sums [8] of one row of x.
RL_INLINE V8i exact(const std::int32_t *sums, const std::int32_t *over) {
  if constexpr (kBias == 0) return load<V8i>(sums);
  typedef std::uint32_t V8u __attribute__((vector_size(32)));
  const std::uint32_t o = static_cast<std::uint32_t>(*over);
  return (V8i)(load<V8u>(sums) - V8u{o, o, o, o, o, o, o, o});
}

// y[0..7] of one strip and row: float(sum) * (scale * sx), + bias, + residual. `sums` are those of its planes.
RL_INLINE void epilogue(const LinearTask &task, int strip, int row, const std::int32_t *sums,
                        const std::int32_t *over) {
  const rl_band &band = *task.band;
  const int first = strip * kStrip;
  const int count = band.rows - first < kStrip ? band.rows - first : kStrip;
  const V8i high = exact(sums, over);
  if (task.sums != nullptr) {
    std::memcpy(task.sums + row * task.y_stride + first, &high, sizeof(std::int32_t) * static_cast<unsigned>(count));
    return;
  }
  V8f value;
  if (task.planes == 1) {
    value = to_float(high);
  } else {
    // 256 * hi + lo is exact in double, so this rounds once, as the int64 of the specification does.
    const V8d whole = __builtin_convertvector(high, V8d) * 256.0 +
                      __builtin_convertvector(exact(sums + kStrip, over + 1), V8d);
    value = __builtin_convertvector(whole, V8f);
  }
  value = value * (load_part(band.scale + first, count) * splat(task.sx[row]));
  if (band.bias != nullptr) value = value + load_part(band.bias + first, count);
  if (task.residual != nullptr) value = value + load_part(task.residual + row * task.residual_stride + first, count);
  store_part(task.y + row * task.y_stride + first, value, count);
}

// Rows row .. of x whose sums stand in `sums` [vectors][8]; `over` is the excess of every vector of the task.
RL_INLINE void finish_rows(const LinearTask &task, int strip, int first_vector, int vectors, const std::int32_t *sums,
                           const std::int32_t *over) {
  for (int v = 0; v < vectors; v += task.planes)
    epilogue(task, strip, (first_vector + v) / task.planes, sums + v * kStrip, over + first_vector + v);
}

RL_INLINE void linear_few(const LinearTask &task, int vectors, int first, int last, const std::int8_t *tables,
                          const std::int32_t *over) {
  const rl_band &band = *task.band;
  alignas(32) std::int32_t sums[kStreamed * kStrip];
  for (int s = first; s < last; ++s) {
    strip_dots(band.bits, vectors, strip_codes(band, s), strip_index(band, s), tables, task.x, task.x_stride,
               tiles_of(band.cols), sums);
    finish_rows(task, s, 0, vectors, sums, over);
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
      for (int b = 0; b < strips; ++b) finish_rows(task, s + b, v, count, sums + b * count * kStrip, over);
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

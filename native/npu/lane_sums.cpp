#include "lane_sums.hpp"

#include <algorithm>
#include <cstring>

#include "../error.hpp"
#include "../memory.hpp"

namespace rl::npu {
namespace {

constexpr int kAtom = 16, kRun = 32, kSumsInAtom = 4;

// The tile in which a vector lies, by number.
int tile_of(const rl_npu_lane &lane, int vector) {
  return static_cast<int>(std::upper_bound(lane.tile_starts, lane.tile_starts + lane.n_tiles, vector) - lane.tile_starts) - 1;
}

// The inputs of a vector, which lie in atoms, one after the other.
void gather(const rl_npu_lane &lane, int inputs, int vector, std::int8_t *row) {
  const std::int32_t *tile = lane.tile_starts + tile_of(lane, vector);
  const std::int64_t apart = std::int64_t{kAtom} * (tile[1] - tile[0]);
  const std::int8_t *from = lane.input + std::int64_t{tile[0]} * inputs + std::int64_t{kAtom} * (vector - tile[0]);
  for (int k = 0; k < inputs; k += kAtom, from += apart) std::memcpy(row + k, from, kAtom);
}

std::int32_t dot(const rl_npu_lane &lane, const std::int8_t *row, int column) {
  std::int32_t sum = 0;
  for (int p = 0; p < lane.n_parts; ++p) {
    const int start = lane.part_starts[p], size = lane.part_starts[p + 1] - start;
    const std::int8_t *run = lane.weight + std::int64_t{start} * lane.columns + std::int64_t{column / kRun} * kRun * size +
                             std::int64_t{column % kRun} * kRun;
    for (int k = 0; k < size; k += kRun, run += kRun * kRun)
      for (int i = 0; i < kRun; ++i) sum += row[start + k + i] * run[i];
  }
  return sum;
}

std::int32_t found(const rl_npu_lane &lane, int vector, int column) {
  const std::int32_t *tile = lane.tile_starts + tile_of(lane, vector);
  const std::int64_t vectors = tile[1] - tile[0];
  const std::int32_t *at = lane.output + std::int64_t{tile[0]} * lane.columns +
                           std::int64_t{column / kSumsInAtom} * kSumsInAtom * vectors +
                           kSumsInAtom * (vector - tile[0]) + column % kSumsInAtom;
  std::uint32_t sum = 0;
  for (int plane = 0; plane < lane.sums; ++plane, at += std::int64_t{lane.tile_starts[lane.n_tiles]} * lane.columns)
    sum += static_cast<std::uint32_t>(*at);
  return static_cast<std::int32_t>(sum);
}

}  // namespace

std::int64_t wrong_sums(const rl_npu_lane &lane, const std::int32_t *vectors, int n_vectors, const std::int32_t *columns,
                        int n_columns, std::int32_t *where) {
  const int inputs = lane.part_starts[lane.n_parts], rows = lane.tile_starts[lane.n_tiles];
  for (int v = 0; v < n_vectors; ++v)
    if (vectors[v] < 0 || vectors[v] >= rows) return fail("vector %d of %d was requested", vectors[v], rows);
  for (int c = 0; c < n_columns; ++c)
    if (columns[c] < 0 || columns[c] >= lane.columns) return fail("column %d of %d was requested", columns[c], lane.columns);
  Array<std::int8_t> row;
  if (!row.allocate(static_cast<std::size_t>(inputs)))
    return fail("not enough memory for comparing the NPU's sums; free some memory");
  std::int64_t wrong = 0;
  for (int v = 0; v < n_vectors; ++v) {
    gather(lane, inputs, vectors[v], row.data());
    for (int c = 0; c < n_columns; ++c) {
      if (found(lane, vectors[v], columns[c]) == dot(lane, row.data(), columns[c])) continue;
      if (wrong++ == 0) where[0] = vectors[v], where[1] = columns[c];
    }
  }
  return wrong;
}

}  // namespace rl::npu

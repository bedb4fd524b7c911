// The twin of every other kernel: plain loops that any compiler turns into correct code for any processor.
#define RL_ISA portable
#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::portable {

RL_INLINE const std::int8_t *prepare_tables(const rl_band &band, Scratch &) { return band.tables; }

RL_INLINE std::int32_t dot(const std::int8_t *w, const std::int8_t *x, int count) {
  std::int32_t total = 0;
  for (int k = 0; k < count; ++k) total += w[k] * x[k];
  return total;
}

// Eight rows of w times one x: sums[0..7].
static void dot8(const std::int8_t *w, std::int64_t w_stride, const std::int8_t *x, int tiles, std::int32_t *sums) {
  for (int r = 0; r < kStrip; ++r) sums[r] = dot(w + r * w_stride, x, tiles * kTile);
}

constexpr int kKeyBlocks = 2, kValueQueries = 1;  // blocks of keys, and queries, that are multiplied together

// Blocks of eight keys [tiles * 8][8 positions][4 inputs] times `Vectors` queries: sums[blocks][Vectors][8].
template <int Vectors>
RL_INLINE void key_dots(const std::int8_t *keys, int blocks, const std::int8_t *x, std::int64_t x_stride, int tiles,
                        std::int32_t *sums) {
  std::int8_t tile[kKeys * kTile];
  for (int i = 0; i < blocks * Vectors * kKeys; ++i) sums[i] = 0;
  for (int t = 0; t < blocks * tiles; ++t, keys += kKeys * kTile) {
    for (int i = 0; i < kKeys * kTile; i += kQuad)
      std::memcpy(tile + i / kQuad % kKeys * kTile + i / kKeys / kQuad * kQuad, keys + i, kQuad);
    for (int v = 0; v < Vectors; ++v)
      for (int r = 0; r < kKeys; ++r)
        sums[(t / tiles * Vectors + v) * kKeys + r] += dot(tile + r * kTile, x + v * x_stride + t % tiles * kTile, kTile);
  }
}

// Values of kColumns columns from `column` bytes behind their runs on, times the weights of `Queries` queries:
// sums[Queries][kColumns] = 128 times the first plane's and the second's.
template <int Queries>
static void value_dots(const ValueRun *run, int runs, std::int64_t column, const std::int8_t *codes, std::int32_t *sums) {
  static_assert(Queries == 1);
  std::int32_t high[kColumns] = {}, low[kColumns] = {};
  for (const ValueRun *end = run + runs; run != end; ++run) {
    const std::int8_t *v = run->values + column;
    for (int quad = 0; quad < 2 * run->blocks; ++quad, v += kColumns * kQuad) {
      const std::int8_t *code = codes + quad / 2 * 2 * kLanes + quad % 2 * kQuad;
      for (int c = 0; c < kColumns; ++c) {
        high[c] += dot(v + c * kQuad, code, kQuad);
        low[c] += dot(v + c * kQuad, code + kLanes, kQuad);
      }
    }
    codes += run->blocks * 2 * kLanes;
  }
  for (int c = 0; c < kColumns; ++c) sums[c] = 128 * high[c] + low[c];
}

using Unpacked = std::int8_t;

constexpr int kBias = 0;  // so there is no excess
RL_INLINE void excess_of(const std::int8_t *, std::int64_t, int, int, std::int32_t *) {}

constexpr int kStreamed = 2, kMultiplied = 4;  // rows of x at a time: while codes stream, and from unpacked strips

// Unpacked strips times 1 to kMultiplied rows of x: sums[strip][vectors][8].
static void multiply(const Unpacked *w, int strips, int vectors, const std::int8_t *x, std::int64_t x_stride, int tiles,
                     std::int32_t *sums) {
  for (int i = 0; i < strips * vectors; ++i)
    dot8(w + i / vectors * kStrip * tiles * kTile, tiles * kTile, x + i % vectors * x_stride, tiles, sums + i * kStrip);
}

template <int Bits>
RL_INLINE void unpack_tiles(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                            int tiles, std::int8_t *out) {
  const int cols = tiles * kTile;
  for (int t = 0; t < tiles; ++t) {
    for (int r = 0; r < kStrip; ++r)
      for (int k = 0; k < kTile; ++k) out[r * cols + t * kTile + k] = decode(Bits, codes, index, tables, r, k);
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
}

// A strip as int8 [8][tiles * 32].
static void unpack_strip(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                         int tiles, std::int8_t *out) {
  switch (bits) {
    case 2: unpack_tiles<2>(codes, index, tables, tiles, out); break;
    case 3: unpack_tiles<3>(codes, index, tables, tiles, out); break;
    case 4: unpack_tiles<4>(codes, index, tables, tiles, out); break;
    default: unpack_tiles<8>(codes, index, tables, tiles, out); break;
  }
}

// Tiles of a strip as int8 [8][32], `stride` bytes apart.
static void unpack_apart(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                         int tiles, std::int64_t stride, std::int8_t *out) {
  for (; tiles > 0; --tiles, codes += tile_bytes(bits), out += stride) {
    unpack_strip(bits, codes, index, tables, 1, out);
    if (bits < 8) index += kStrip;
  }
}

// Successive packed strips times 1 to kStreamed rows of x: sums[strips][vectors][8].
static void strip_dots(int bits, int vectors, const std::uint8_t *codes, const std::uint8_t *index,
                       const std::int8_t *tables, const std::int8_t *x, std::int64_t x_stride, int tiles, int strips,
                       std::int32_t *sums) {
  std::int8_t tile[kStrip * kTile];
  for (int i = 0; i < strips * vectors * kStrip; ++i) sums[i] = 0;
  for (int t = 0; t < strips * tiles; ++t) {
    unpack_strip(bits, codes, index, tables, 1, tile);
    for (int v = 0; v < vectors; ++v)
      for (int r = 0; r < kStrip; ++r)
        sums[(t / tiles * vectors + v) * kStrip + r] +=
            dot(tile + r * kTile, x + v * x_stride + t % tiles * kTile, kTile);
    codes += tile_bytes(bits);
    if (bits < 8) index += kStrip;
  }
}

}  // namespace rl::portable

#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels portable_kernels;
const Kernels portable_kernels = portable::table_of(RL_KERNEL_PORTABLE);
}  // namespace rl

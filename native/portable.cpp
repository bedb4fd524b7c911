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

using Unpacked = std::int8_t;

// An unpacked strip times one x (sums[0..7]), and times four (sums[v * 8 + r]).
static void multiply1(const Unpacked *w, const std::int8_t *x, int tiles, std::int32_t *sums) {
  dot8(w, tiles * kTile, x, tiles, sums);
}
static void multiply4(const Unpacked *w, const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  for (int v = 0; v < 4; ++v) dot8(w, tiles * kTile, x + v * x_stride, tiles, sums + v * kStrip);
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

// A packed strip times one x: sums[0..7].
static void strip_dot(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                      const std::int8_t *x, int tiles, std::int32_t *sums) {
  std::int8_t tile[kStrip * kTile];
  for (int r = 0; r < kStrip; ++r) sums[r] = 0;
  for (int t = 0; t < tiles; ++t) {
    unpack_strip(bits, codes, index, tables, 1, tile);
    for (int r = 0; r < kStrip; ++r) sums[r] += dot(tile + r * kTile, x + t * kTile, kTile);
    codes += tile_bytes(bits);
    if (bits < 8) index += kStrip;
  }
}

// The same for two rows of x: sums[0..7] and sums[8..15].
static void strip_dot2(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                       const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  strip_dot(bits, codes, index, tables, x, tiles, sums);
  strip_dot(bits, codes, index, tables, x + x_stride, tiles, sums + kStrip);
}

}  // namespace rl::portable

#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels portable_kernels;
const Kernels portable_kernels = portable::table_of(RL_KERNEL_PORTABLE);
}  // namespace rl

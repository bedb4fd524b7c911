// aarch64 with the dot-product instructions (Cortex-A76): tables by tbl, products by sdot.
#define RL_ISA neon
#include <arm_neon.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::neon {

RL_INLINE const std::int8_t *prepare_tables(const rl_band &band, Scratch &) { return band.tables; }

// The weights of row R and group L of a tile.
template <int Bits, int R, int L>
RL_INLINE int8x16_t weights_of(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables) {
  if constexpr (Bits == 8) {
    return vreinterpretq_s8_u8(vld1q_u8(codes + R * kTile + L * 16));
  } else {
    uint8x16_t code;
    if constexpr (Bits == 4) {
      const uint8x16_t both = vld1q_u8(codes + R / 2 * kTile + L * 16);
      if constexpr (R % 2 == 0)
        code = vandq_u8(both, vdupq_n_u8(15));
      else
        code = vshrq_n_u8(both, 4);
    } else {
      const uint8x16_t four = vld1q_u8(codes + R / 4 * kTile + L * 16);
      code = vandq_u8(vshlq_u8(four, vdupq_n_s8(-(R % 4 * 2))), vdupq_n_u8(3));
      if constexpr (Bits == 3) {
        const uint8x16_t eight = vld1q_u8(codes + 2 * kTile + L * 16);
        code = vorrq_u8(code, vandq_u8(vshlq_u8(eight, vdupq_n_s8(2 - R)), vdupq_n_u8(4)));
      }
    }
    const int table = L == 0 ? index[R] & 15 : index[R] >> 4;
    return vqtbl1q_s8(vld1q_s8(tables + table * 16), code);
  }
}

RL_INLINE void store_sums(const int32x4_t (&acc)[kStrip], std::int32_t *sums) {
  const int32x4_t a = vpaddq_s32(vpaddq_s32(acc[0], acc[1]), vpaddq_s32(acc[2], acc[3]));
  const int32x4_t b = vpaddq_s32(vpaddq_s32(acc[4], acc[5]), vpaddq_s32(acc[6], acc[7]));
  vst1q_s32(sums, a);
  vst1q_s32(sums + 4, b);
}

// acc of `Count` rows of x += their products with group L of a tile.
template <int Bits, int L, int R, int Count>
RL_INLINE void add_row(int32x4_t (&acc)[Count][kStrip], const std::uint8_t *codes, const std::uint8_t *index,
                       const std::int8_t *tables, const int8x16_t (&x)[Count]) {
  const int8x16_t w = weights_of<Bits, R, L>(codes, index, tables);
  for (int v = 0; v < Count; ++v) acc[v][R] = vdotq_s32(acc[v][R], w, x[v]);
}
template <int Bits, int L, int Count>
RL_INLINE void add_group(int32x4_t (&acc)[Count][kStrip], const std::uint8_t *codes, const std::uint8_t *index,
                         const std::int8_t *tables, const std::int8_t *inputs, std::int64_t x_stride) {
  int8x16_t x[Count];
  for (int v = 0; v < Count; ++v) x[v] = vld1q_s8(inputs + v * x_stride + L * 16);
  add_row<Bits, L, 0>(acc, codes, index, tables, x);
  add_row<Bits, L, 1>(acc, codes, index, tables, x);
  add_row<Bits, L, 2>(acc, codes, index, tables, x);
  add_row<Bits, L, 3>(acc, codes, index, tables, x);
  add_row<Bits, L, 4>(acc, codes, index, tables, x);
  add_row<Bits, L, 5>(acc, codes, index, tables, x);
  add_row<Bits, L, 6>(acc, codes, index, tables, x);
  add_row<Bits, L, 7>(acc, codes, index, tables, x);
}

constexpr int kAhead = 1024;  // bytes of codes fetched ahead of their use

template <int Bits, int Count>
RL_INLINE void strip_dot_bits(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                              const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  int32x4_t acc[Count][kStrip];
  for (auto &row : acc)
    for (auto &a : row) a = vdupq_n_s32(0);
  for (int t = 0; t < tiles; ++t, x += kTile) {
    for (int line = 0; line < tile_bytes(Bits); line += 64) __builtin_prefetch(codes + kAhead + line);
    add_group<Bits, 0>(acc, codes, index, tables, x, x_stride);
    add_group<Bits, 1>(acc, codes, index, tables, x, x_stride);
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
  for (int v = 0; v < Count; ++v) store_sums(acc[v], sums + v * kStrip);
}

template <int Count>
RL_INLINE void strip_dots(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                          const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  switch (bits) {
    case 2: strip_dot_bits<2, Count>(codes, index, tables, x, x_stride, tiles, sums); break;
    case 3: strip_dot_bits<3, Count>(codes, index, tables, x, x_stride, tiles, sums); break;
    case 4: strip_dot_bits<4, Count>(codes, index, tables, x, x_stride, tiles, sums); break;
    default: strip_dot_bits<8, Count>(codes, index, tables, x, x_stride, tiles, sums); break;
  }
}

static void strip_dot(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                      const std::int8_t *x, int tiles, std::int32_t *sums) {
  strip_dots<1>(bits, codes, index, tables, x, 0, tiles, sums);
}

static void strip_dot2(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                       const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  strip_dots<2>(bits, codes, index, tables, x, x_stride, tiles, sums);
}

using Unpacked = std::int8_t;

template <int Bits, int R>
RL_INLINE void unpack_row(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                          std::int8_t *out) {
  vst1q_s8(out, weights_of<Bits, R, 0>(codes, index, tables));
  vst1q_s8(out + 16, weights_of<Bits, R, 1>(codes, index, tables));
}

template <int Bits>
RL_INLINE void unpack_strip_bits(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                                 int tiles, std::int8_t *out) {
  const std::int64_t cols = static_cast<std::int64_t>(tiles) * kTile;
  for (int t = 0; t < tiles; ++t, out += kTile) {
    unpack_row<Bits, 0>(codes, index, tables, out);
    unpack_row<Bits, 1>(codes, index, tables, out + cols);
    unpack_row<Bits, 2>(codes, index, tables, out + 2 * cols);
    unpack_row<Bits, 3>(codes, index, tables, out + 3 * cols);
    unpack_row<Bits, 4>(codes, index, tables, out + 4 * cols);
    unpack_row<Bits, 5>(codes, index, tables, out + 5 * cols);
    unpack_row<Bits, 6>(codes, index, tables, out + 6 * cols);
    unpack_row<Bits, 7>(codes, index, tables, out + 7 * cols);
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
}

static void unpack_strip(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                         int tiles, std::int8_t *out) {
  switch (bits) {
    case 2: unpack_strip_bits<2>(codes, index, tables, tiles, out); break;
    case 3: unpack_strip_bits<3>(codes, index, tables, tiles, out); break;
    case 4: unpack_strip_bits<4>(codes, index, tables, tiles, out); break;
    default: unpack_strip_bits<8>(codes, index, tables, tiles, out); break;
  }
}

static void dot8(const std::int8_t *w, std::int64_t w_stride, const std::int8_t *x, int tiles, std::int32_t *sums) {
  int32x4_t acc[kStrip];
  for (auto &a : acc) a = vdupq_n_s32(0);
  for (int t = 0; t < tiles; ++t, w += kTile) {
    const int8x16_t x0 = vld1q_s8(x + t * kTile), x1 = vld1q_s8(x + t * kTile + 16);
    for (int r = 0; r < kStrip; ++r) {
      acc[r] = vdotq_s32(acc[r], vld1q_s8(w + r * w_stride), x0);
      acc[r] = vdotq_s32(acc[r], vld1q_s8(w + r * w_stride + 16), x1);
    }
  }
  store_sums(acc, sums);
}

static void multiply1(const Unpacked *w, const std::int8_t *x, int tiles, std::int32_t *sums) {
  dot8(w, std::int64_t{tiles} * kTile, x, tiles, sums);
}

// All eight rows of a strip times four of x: 4 rows x 4 at a time keep sixteen sums in registers.
static void multiply4(const Unpacked *w, const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  const std::int64_t cols = std::int64_t{tiles} * kTile;
  for (int row = 0; row < kStrip; row += 4) {
    int32x4_t acc[4][4];
    for (auto &vector : acc)
      for (auto &a : vector) a = vdupq_n_s32(0);
    const std::int8_t *rows = w + row * cols;
    for (std::int64_t k = 0; k < cols; k += 16) {
      int8x16_t weights[4];
      for (int r = 0; r < 4; ++r) weights[r] = vld1q_s8(rows + r * cols + k);
      for (int v = 0; v < 4; ++v) {
        const int8x16_t input = vld1q_s8(x + v * x_stride + k);
        for (int r = 0; r < 4; ++r) acc[v][r] = vdotq_s32(acc[v][r], weights[r], input);
      }
    }
    for (int v = 0; v < 4; ++v)
      vst1q_s32(sums + v * kStrip + row,
                vpaddq_s32(vpaddq_s32(acc[v][0], acc[v][1]), vpaddq_s32(acc[v][2], acc[v][3])));
  }
}

}  // namespace rl::neon

#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels neon_kernels;
const Kernels neon_kernels = neon::table_of(RL_KERNEL_NEON);
}  // namespace rl

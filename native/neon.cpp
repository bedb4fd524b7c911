// aarch64 with the dot-product instructions (Cortex-A76): tables by tbl, products by sdot.
//
// The core issues two vector operations a cycle and every weight needs a tbl and a sdot, so what is left to save is the
// work of getting codes out of their bytes. A tbl register has 16 entries and a pair of them 32: below 4 bits the index
// may carry bits of other rows along, and prepare_tables repeats entries so that they do not matter.
// bench/kernel_cycles.py finds the inner loops by the names of the functions marked RL_LOOP.
#define RL_ISA neon
#include <arm_neon.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::neon {

#define RL_LOOP static __attribute__((noinline))

// Which code stands in an index that prepare_tables spreads: its low two bits at `low`, its third at `high`.
struct Window {
  int entries, low, high;
};
constexpr int kNoHigh = -1;
// 2 bits: two neighbouring rows share a nibble.
constexpr Window kLowerPair = {16, 0, kNoHigh}, kUpperPair = {16, 2, kNoHigh};
// 3 bits: see each_row.
constexpr Window kOuterLow = {32, 0, 4}, kOuterHigh = {32, 3, 0}, kInnerLow = {16, 2, 1}, kInnerHigh = {16, 0, 2};
// Where their sixteen tables each stand in Scratch::tables.
constexpr int kUpperPairs = 256, kOuterHighs = 512, kInnerLows = 1024, kInnerHighs = 1280;

static void spread(const std::int8_t *tables, Window window, std::int8_t *out) {
  for (int i = 0; i < 16 * window.entries; i += 16) {
    std::uint8_t code[16];
    for (int j = 0; j < 16; ++j) {
      const int index = (i + j) % window.entries;
      const int high = window.high == kNoHigh ? 0 : index >> window.high & 1;
      code[j] = static_cast<std::uint8_t>((index >> window.low & 3) | high << 2);
    }
    vst1q_s8(out + i, vqtbl1q_s8(vld1q_s8(tables + i / window.entries * 16), vld1q_u8(code)));
  }
}

static const std::int8_t *prepare_tables(const rl_band &band, Scratch &scratch) {
  if (band.bits >= 4) return band.tables;
  if (scratch.tables_of == band.tables) return scratch.tables;
  if (band.bits == 2) {
    spread(band.tables, kLowerPair, scratch.tables);
    spread(band.tables, kUpperPair, scratch.tables + kUpperPairs);
  } else {
    spread(band.tables, kOuterLow, scratch.tables);
    spread(band.tables, kOuterHigh, scratch.tables + kOuterHighs);
    spread(band.tables, kInnerLow, scratch.tables + kInnerLows);
    spread(band.tables, kInnerHigh, scratch.tables + kInnerHighs);
  }
  scratch.tables_of = band.tables;
  return scratch.tables;
}

// The same address, but news to the compiler: it loads a vector again instead of copying its register, and keeps the
// address of a table in a register of its own.
template <typename T>
RL_INLINE const T *again(const T *p) {
  asm("" : "+r"(p));
  return p;
}

// The tables of one band as the loops use them.
struct Tables {
  const std::int8_t *first, *upper_pairs, *outer_highs, *inner_lows, *inner_highs;
};
template <int Bits>
RL_INLINE Tables tables_at(const std::int8_t *p) {
  if (Bits >= 4) return Tables{p, p, p, p, p};
  return Tables{p, again(p + kUpperPairs), again(p + kOuterHighs), again(p + kInnerLows), again(p + kInnerHighs)};
}

// Where the table of row R and group L stands among tables of `Entries` bytes: the tile's eight index bytes name it in
// a nibble. One instruction, which the compiler does not find.
template <int R, int L, int Entries>
RL_INLINE std::int64_t offset_of(std::uint64_t index) {
  constexpr int kShift = 8 * R + 4 * L - (Entries == 16 ? 4 : 5);
  const std::uint64_t mask = 15 * Entries;
  std::int64_t offset;
  if constexpr (kShift < 0)
    asm("and %0, %1, %2, lsl %3" : "=r"(offset) : "r"(mask), "r"(index), "n"(-kShift));
  else
    asm("and %0, %1, %2, lsr %3" : "=r"(offset) : "r"(mask), "r"(index), "n"(kShift));
  return offset;
}
template <int R, int L>
RL_INLINE int8x16_t look_up(const std::int8_t *tables, std::uint64_t index, uint8x16_t code) {
  return vqtbl1q_s8(vld1q_s8(tables + offset_of<R, L, 16>(index)), code);
}
template <int R, int L>
RL_INLINE int8x16_t look_up_two(const std::int8_t *tables, std::uint64_t index, uint8x16_t code) {
  typedef std::int8_t Two[32];
  const Two &two = *reinterpret_cast<const Two *>(tables + offset_of<R, L, 32>(index));
  int8x16_t weights;  // by hand, because the compiler moves the pair around
  asm("ldp q30, q31, %1\n\ttbl %0.16b, {v30.16b, v31.16b}, %2.16b"
      : "=w"(weights)
      : "Q"(two), "w"(code)
      : "v30", "v31");
  return weights;
}

// use(row, weights) for rows First .. First + 3 of group L of a tile; `twin` is `codes`, again.
template <int Bits, int L, int First, typename Use>
RL_INLINE void four_rows(const std::uint8_t *codes, const std::uint8_t *twin, std::uint64_t index,
                         const Tables &tables, Use use) {
  codes += L * 16, twin += L * 16;
  const uint8x16_t nibble = vdupq_n_u8(15);
  if constexpr (Bits == 8) {
    for (int r = First; r < First + 4; ++r) use(r, vreinterpretq_s8_u8(vld1q_u8(codes + r * kTile)));
  } else if constexpr (Bits == 4) {
    const uint8x16_t a = vld1q_u8(codes + First / 2 * kTile), b = vld1q_u8(codes + (First / 2 + 1) * kTile);
    use(First, look_up<First, L>(tables.first, index, vandq_u8(a, nibble)));
    use(First + 1, look_up<First + 1, L>(tables.first, index, vshrq_n_u8(a, 4)));
    use(First + 2, look_up<First + 2, L>(tables.first, index, vandq_u8(b, nibble)));
    use(First + 3, look_up<First + 3, L>(tables.first, index, vshrq_n_u8(b, 4)));
  } else if constexpr (Bits == 2) {
    const uint8x16_t four = vld1q_u8(codes + First / 4 * kTile);
    const uint8x16_t low = vandq_u8(four, nibble), high = vshrq_n_u8(four, 4);
    use(First, look_up<First, L>(tables.first, index, low));
    use(First + 1, look_up<First + 1, L>(tables.upper_pairs, index, low));
    use(First + 2, look_up<First + 2, L>(tables.first, index, high));
    use(First + 3, look_up<First + 3, L>(tables.upper_pairs, index, high));
  } else {
    // `thirds` holds the third bits of rows 0 to 3 (or 4 to 7) twice: 3210 3210. Put in the place of other rows' bits
    // they meet all four rows:
    //   outer, bits 76.10 kept:  row 3 in bits 7 .. 3 (its third bit at 3), row 0 in bits 4 .. 0 (at 4);
    //   inner, bits ..5432.. kept:  row 2 in bits 7 .. 4 (at 6), row 1 in bits 3 .. 0 (at 1).
    const uint8x16_t eight = vld1q_u8(codes + 2 * kTile);
    const uint8x16_t thirds =
        First == 0 ? vsliq_n_u8(vld1q_u8(twin + 2 * kTile), eight, 4) : vsriq_n_u8(eight, eight, 4);
    const uint8x16_t outer = vbslq_u8(vdupq_n_u8(0x18), thirds, vld1q_u8(codes + First / 4 * kTile));
    const uint8x16_t inner = vbslq_u8(vdupq_n_u8(0x3c), vld1q_u8(twin + First / 4 * kTile), thirds);
    use(First, look_up_two<First, L>(tables.first, index, vandq_u8(outer, vdupq_n_u8(31))));
    use(First + 1, look_up<First + 1, L>(tables.inner_lows, index, vandq_u8(inner, nibble)));
    use(First + 2, look_up<First + 2, L>(tables.inner_highs, index, vshrq_n_u8(inner, 4)));
    use(First + 3, look_up_two<First + 3, L>(tables.outer_highs, index, vshrq_n_u8(outer, 3)));
  }
}

// vdotq_s32 that adds in place: with the intrinsic the compiler copies sums.
RL_INLINE int32x4_t dot(int32x4_t acc, int8x16_t w, int8x16_t x) {
  asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(w), "w"(x));
  return acc;
}

template <int Bits>
RL_INLINE std::uint64_t index_of(const std::uint8_t *index) {
  return Bits == 8 ? 0 : load<std::uint64_t>(index);
}

RL_INLINE int32x4_t sums_of(const int32x4_t *acc) {
  return vpaddq_s32(vpaddq_s32(acc[0], acc[1]), vpaddq_s32(acc[2], acc[3]));
}

constexpr int kAhead = 1024;  // bytes of codes fetched ahead of their use

// Rows First .. First + Rows - 1 of a strip times `Vectors` rows of x, while the codes stream in.
template <int Bits, int Vectors, int First, int Rows>
RL_LOOP void stream_rows(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                         const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  const Tables at = tables_at<Bits>(tables);
  const std::uint8_t *twin = again(codes);
  int32x4_t acc[Vectors][Rows];
  for (auto &row : acc)
    for (auto &a : row) a = vdupq_n_s32(0);
  do {
    for (int line = 0; First == 0 && line < tile_bytes(Bits); line += 64) __builtin_prefetch(codes + kAhead + line);
    const std::uint64_t word = index_of<Bits>(index);
    int8x16_t inputs[Vectors];
    const auto add = [&](int row, int8x16_t w) {
      for (int v = 0; v < Vectors; ++v) acc[v][row - First] = dot(acc[v][row - First], w, inputs[v]);
    };
    for (int v = 0; v < Vectors; ++v) inputs[v] = vld1q_s8(x + v * x_stride);
    four_rows<Bits, 0, First>(codes, twin, word, at, add);
    if constexpr (Rows == 8) four_rows<Bits, 0, First + 4>(codes, twin, word, at, add);
    for (int v = 0; v < Vectors; ++v) inputs[v] = vld1q_s8(x + v * x_stride + 16);
    four_rows<Bits, 1, First>(codes, twin, word, at, add);
    if constexpr (Rows == 8) four_rows<Bits, 1, First + 4>(codes, twin, word, at, add);
    x += kTile;
    codes += tile_bytes(Bits), twin += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  } while (--tiles != 0);
  for (int v = 0; v < Vectors; ++v)
    for (int r = 0; r < Rows; r += 4) vst1q_s32(sums + v * kStrip + First + r, sums_of(acc[v] + r));
}

constexpr int kBias = 0;  // so there is no excess
RL_INLINE void excess_of(const std::int8_t *, std::int64_t, int, int, std::int32_t *) {}

constexpr int kStreamed = 4;  // rows of x that multiply while the codes stream in

template <int Bits>
RL_INLINE void strip_dots_bits(int vectors, const std::uint8_t *codes, const std::uint8_t *index,
                               const std::int8_t *tables, const std::int8_t *x, std::int64_t x_stride, int tiles,
                               std::int32_t *sums) {
  switch (vectors) {
    case 1: stream_rows<Bits, 1, 0, 8>(codes, index, tables, x, x_stride, tiles, sums); break;
    case 2: stream_rows<Bits, 2, 0, 8>(codes, index, tables, x, x_stride, tiles, sums); break;
    case 3:
      stream_rows<Bits, 3, 0, 4>(codes, index, tables, x, x_stride, tiles, sums);
      stream_rows<Bits, 3, 4, 4>(codes, index, tables, x, x_stride, tiles, sums);
      break;
    default:
      stream_rows<Bits, 4, 0, 4>(codes, index, tables, x, x_stride, tiles, sums);
      stream_rows<Bits, 4, 4, 4>(codes, index, tables, x, x_stride, tiles, sums);
      break;
  }
}

static void strip_dots(int bits, int vectors, const std::uint8_t *codes, const std::uint8_t *index,
                       const std::int8_t *tables, const std::int8_t *x, std::int64_t x_stride, int tiles,
                       std::int32_t *sums) {
  switch (bits) {
    case 2: strip_dots_bits<2>(vectors, codes, index, tables, x, x_stride, tiles, sums); break;
    case 3: strip_dots_bits<3>(vectors, codes, index, tables, x, x_stride, tiles, sums); break;
    case 4: strip_dots_bits<4>(vectors, codes, index, tables, x, x_stride, tiles, sums); break;
    default: strip_dots_bits<8>(vectors, codes, index, tables, x, x_stride, tiles, sums); break;
  }
}

// An unpacked tile: eight times four inputs, [8 rows][4 inputs] each, so that one vector of four rows meets any four
// inputs of x by an indexed sdot and nothing is left to add up across a register.
using Unpacked = std::int8_t;

// Four rows of sixteen inputs as four times [4 rows][4 inputs].
RL_INLINE void store_quads(const int8x16_t (&w)[4], Unpacked *out) {
  const int32x4_t a = vreinterpretq_s32_s8(w[0]), b = vreinterpretq_s32_s8(w[1]);
  const int32x4_t c = vreinterpretq_s32_s8(w[2]), d = vreinterpretq_s32_s8(w[3]);
  const int64x2_t ab02 = vreinterpretq_s64_s32(vtrn1q_s32(a, b)), ab13 = vreinterpretq_s64_s32(vtrn2q_s32(a, b));
  const int64x2_t cd02 = vreinterpretq_s64_s32(vtrn1q_s32(c, d)), cd13 = vreinterpretq_s64_s32(vtrn2q_s32(c, d));
  vst1q_s8(out, vreinterpretq_s8_s64(vtrn1q_s64(ab02, cd02)));
  vst1q_s8(out + 4 * kStrip, vreinterpretq_s8_s64(vtrn1q_s64(ab13, cd13)));
  vst1q_s8(out + 8 * kStrip, vreinterpretq_s8_s64(vtrn2q_s64(ab02, cd02)));
  vst1q_s8(out + 12 * kStrip, vreinterpretq_s8_s64(vtrn2q_s64(ab13, cd13)));
}

template <int Bits, int L, int First>
RL_INLINE void unpack_rows(const std::uint8_t *codes, const std::uint8_t *twin, std::uint64_t index,
                           const Tables &tables, Unpacked *out) {
  int8x16_t w[4];
  four_rows<Bits, L, First>(codes, twin, index, tables, [&](int row, int8x16_t weights) { w[row - First] = weights; });
  store_quads(w, out + L * 4 * 4 * kStrip + First * 4);
}

template <int Bits>
RL_LOOP void unpack_tiles(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables, int tiles,
                          Unpacked *out) {
  const Tables at = tables_at<Bits>(tables);
  const std::uint8_t *twin = again(codes);
  do {
    for (int line = 0; line < tile_bytes(Bits); line += 64) __builtin_prefetch(codes + kAhead + line);
    const std::uint64_t word = index_of<Bits>(index);
    unpack_rows<Bits, 0, 0>(codes, twin, word, at, out);
    unpack_rows<Bits, 0, 4>(codes, twin, word, at, out);
    unpack_rows<Bits, 1, 0>(codes, twin, word, at, out);
    unpack_rows<Bits, 1, 4>(codes, twin, word, at, out);
    out += kStrip * kTile;
    codes += tile_bytes(Bits), twin += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  } while (--tiles != 0);
}

static void unpack_strip(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                         int tiles, Unpacked *out) {
  switch (bits) {
    case 2: unpack_tiles<2>(codes, index, tables, tiles, out); break;
    case 3: unpack_tiles<3>(codes, index, tables, tiles, out); break;
    case 4: unpack_tiles<4>(codes, index, tables, tiles, out); break;
    default: unpack_tiles<8>(codes, index, tables, tiles, out); break;
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
  vst1q_s32(sums, sums_of(acc));
  vst1q_s32(sums + 4, sums_of(acc + 4));
}

constexpr int kMultiplied = 8;  // rows of x that an unpacked strip meets at a time: sixteen sums

// acc of all rows += the products of four inputs, Quad of the sixteen in each of `inputs`.
template <int Quad, int Vectors>
RL_INLINE void add_quad(int32x4_t (&acc)[Vectors][2], const Unpacked *w, const int8x16_t (&inputs)[Vectors]) {
  const int8x16_t low = vld1q_s8(w + Quad * 4 * kStrip), high = vld1q_s8(w + Quad * 4 * kStrip + 16);
  for (int v = 0; v < Vectors; ++v) {
    acc[v][0] = vdotq_laneq_s32(acc[v][0], low, inputs[v], Quad);
    acc[v][1] = vdotq_laneq_s32(acc[v][1], high, inputs[v], Quad);
  }
}

template <int Vectors>
RL_LOOP void multiply_rows(const Unpacked *w, const std::int8_t *x, std::int64_t x_stride, int tiles,
                           std::int32_t *sums) {
  int32x4_t acc[Vectors][2];
  for (auto &row : acc) row[0] = row[1] = vdupq_n_s32(0);
  int groups = 2 * tiles;
  do {
    int8x16_t inputs[Vectors];
    for (int v = 0; v < Vectors; ++v) inputs[v] = vld1q_s8(x + v * x_stride);
    add_quad<0>(acc, w, inputs);
    add_quad<1>(acc, w, inputs);
    add_quad<2>(acc, w, inputs);
    add_quad<3>(acc, w, inputs);
    w += kStrip * 16;
    x += 16;
  } while (--groups != 0);
  for (int v = 0; v < Vectors; ++v) {
    vst1q_s32(sums + v * kStrip, acc[v][0]);
    vst1q_s32(sums + v * kStrip + 4, acc[v][1]);
  }
}

// Unpacked strips times 1 to kMultiplied rows of x: sums[strip][vectors][8].
static void multiply(const Unpacked *w, int strips, int vectors, const std::int8_t *x, std::int64_t x_stride, int tiles,
                     std::int32_t *sums) {
  for (; strips > 0; --strips, w += std::int64_t{tiles} * kTile * kStrip, sums += vectors * kStrip) switch (vectors) {
      case 1: multiply_rows<1>(w, x, x_stride, tiles, sums); break;
      case 2: multiply_rows<2>(w, x, x_stride, tiles, sums); break;
      case 3: multiply_rows<3>(w, x, x_stride, tiles, sums); break;
      case 4: multiply_rows<4>(w, x, x_stride, tiles, sums); break;
      case 5: multiply_rows<5>(w, x, x_stride, tiles, sums); break;
      case 6: multiply_rows<6>(w, x, x_stride, tiles, sums); break;
      case 7: multiply_rows<7>(w, x, x_stride, tiles, sums); break;
      default: multiply_rows<8>(w, x, x_stride, tiles, sums); break;
    }
}

}  // namespace rl::neon

#include "table_of_kernels.hpp"

namespace rl {
extern const Kernels neon_kernels;
const Kernels neon_kernels = neon::table_of(RL_KERNEL_NEON);
}  // namespace rl

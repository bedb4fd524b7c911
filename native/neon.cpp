// aarch64 with the dot-product instructions (Cortex-A76): tables by tbl, products by sdot.
//
// The core decodes four instructions a cycle and issues two vector operations, and every sixteen weights need a table's
// place, the table, a tbl and a sdot: what is left to save is the work of getting codes out of their bytes, and loads,
// which come in pairs. A tbl register has 16 entries: below 4 bits the index may carry bits of other rows along, and
// prepare_tables repeats entries so that they do not matter.
// bench/kernel_cycles.py finds the inner loops by the names of the functions marked RL_LOOP.
#define RL_ISA neon
#include <arm_neon.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::neon {

#define RL_LOOP static __attribute__((noinline))

// Where a row's code is in the four bits that look it up: its low two bits at `low`, its third at `high`,
// which is negative where codes have none.
struct Window {
  int low, high;
};
constexpr int kWindows = 4;
constexpr int kTablesBytes = 16 * 16;  // a band's tables, as one window sees them
// 2 bits: two neighbouring rows share a nibble. 3 bits: rows 0 and 4, 1 and 5, 2 and 6, 3 and 7, see four_rows.
constexpr Window kPairWindows[] = {{0, -1}, {2, -1}};
constexpr Window kMergedWindows[kWindows] = {{2, 0}, {2, 1}, {0, 2}, {0, 3}};

template <const Window &W>
RL_INLINE void spread(const std::int8_t *tables, std::int8_t *out) {
  alignas(16) std::uint8_t code[16];
  for (int i = 0; i < 16; ++i)
    code[i] = static_cast<std::uint8_t>((i >> W.low & 3) | (W.high < 0 ? 0 : i >> W.high & 1) << 2);
  const uint8x16_t codes = vld1q_u8(code);
  for (int i = 0; i < kTablesBytes; i += 16) vst1q_s8(out + i, vqtbl1q_s8(vld1q_s8(tables + i), codes));
}

static const std::int8_t *prepare_tables(const rl_band &band, Scratch &scratch) {
  if (band.bits >= 4) return band.tables;
  if (scratch.tables_of == band.tables) return scratch.tables;
  if (band.bits == 2) {
    spread<kPairWindows[0]>(band.tables, scratch.tables);
    spread<kPairWindows[1]>(band.tables, scratch.tables + kTablesBytes);
  } else {
    spread<kMergedWindows[0]>(band.tables, scratch.tables);
    spread<kMergedWindows[1]>(band.tables, scratch.tables + kTablesBytes);
    spread<kMergedWindows[2]>(band.tables, scratch.tables + 2 * kTablesBytes);
    spread<kMergedWindows[3]>(band.tables, scratch.tables + 3 * kTablesBytes);
  }
  scratch.tables_of = band.tables;
  return scratch.tables;
}

// The tables of one band as the loops use them, each window's address in a register of its own.
template <int Bits>
struct Tables {
  const std::int8_t *window[Bits == 3 ? kWindows : Bits == 2 ? 2 : 1];
};
template <int Bits>
RL_INLINE Tables<Bits> tables_at(const std::int8_t *p) {
  Tables<Bits> at;
  for (auto &window : at.window) {
    window = p;
    asm("" : "+r"(window));  // or the compiler adds to one register again and again
    p += kTablesBytes;
  }
  return at;
}

// Where the table of row R and group L is among tables of 16 bytes: the tile's eight index bytes name it in a
// nibble. One instruction, which the compiler does not find.
template <int R, int L>
RL_INLINE std::int64_t offset_of(std::uint64_t index) {
  constexpr int kShift = 8 * R + 4 * L - 4;
  const std::uint64_t mask = 15 * 16;
  std::int64_t offset;
  if constexpr (kShift < 0)
    asm("and %0, %1, %2, lsl %3" : "=r"(offset) : "r"(mask), "r"(index), "n"(-kShift));
  else
    asm("and %0, %1, %2, lsr %3" : "=r"(offset) : "r"(mask), "r"(index), "n"(kShift));
  return offset;
}
template <int R, int L>
RL_INLINE int8x16_t look_up(const std::int8_t *tables, std::uint64_t index, uint8x16_t code) {
  return vqtbl1q_s8(vld1q_s8(tables + offset_of<R, L>(index)), code);
}

// 32 bytes in one instruction, and p moved on by Step; the compiler does not pair loads of vectors.
struct Halves32 {
  uint8x16_t first, second;
};
RL_INLINE const uint8x16_t &vector_at(const void *p) { return *static_cast<const uint8x16_t *>(p); }
template <int Step, typename T>
RL_INLINE Halves32 take_pair(const T *&p) {
  Halves32 pair;
  asm("ldp %q0, %q1, [%2], %3"
      : "=w"(pair.first), "=w"(pair.second), "+r"(p)
      : "n"(Step), "m"(vector_at(p)), "m"(vector_at(p + 16)));
  return pair;
}
// The same at p + At, leaving p; loads with another Copy are not merged into one.
template <int At, int Copy = 0>
RL_INLINE Halves32 load_pair(const std::uint8_t *p) {
  Halves32 pair;
  asm("ldp %q0, %q1, [%2, %3]  // %4"
      : "=w"(pair.first), "=w"(pair.second)
      : "r"(p), "n"(At), "n"(Copy), "m"(vector_at(p + At)), "m"(vector_at(p + At + 16)));
  return pair;
}

// The codes of one group of a tile, as they are stored: 32 bytes apart, each vector with codes of one to four rows.
template <int Bits>
struct Codes {
  uint8x16_t bytes[Bits];
  uint8x16_t twin;  // 3 bits: bytes[0] again, because what mixes codes overwrites one of them
};

// Both groups of the tile at p, and p moved on to the next.
template <int Bits>
RL_INLINE void take_tile(const std::uint8_t *&p, Codes<Bits> (&group)[2]) {
  constexpr int kBytes = kStrip * kTile * Bits / 8;
  const auto keep = [&](int i, Halves32 pair) { group[0].bytes[i] = pair.first, group[1].bytes[i] = pair.second; };
  keep(0, take_pair<kBytes>(p));
  keep(1, load_pair<32 - kBytes>(p));
  if constexpr (Bits >= 3) keep(2, load_pair<64 - kBytes>(p));
  if constexpr (Bits >= 4) keep(3, load_pair<96 - kBytes>(p));
  if constexpr (Bits == 8) {
    keep(4, load_pair<128 - kBytes>(p));
    keep(5, load_pair<160 - kBytes>(p));
    keep(6, load_pair<192 - kBytes>(p));
    keep(7, load_pair<224 - kBytes>(p));
  }
  if constexpr (Bits == 3) {
    const Halves32 twins = load_pair<-kBytes, 1>(p);
    group[0].twin = twins.first, group[1].twin = twins.second;
  }
}

// Group L of the tile at p: with many sums in registers there is no room for both groups.
template <int Bits, int L>
RL_INLINE Codes<Bits> load_group(const std::uint8_t *p) {
  Codes<Bits> codes;
  for (int i = 0; i < Bits; ++i) codes.bytes[i] = vld1q_u8(p + i * kTile + L * 16);
  codes.twin = codes.bytes[0];
  return codes;
}

// Half a strip's rows: 0, 1, 4, 5 or 2, 3, 6, 7.
template <int Half>
constexpr int kRowOf[4] = {2 * Half, 2 * Half + 1, 2 * Half + 4, 2 * Half + 5};

// use(row, weights) for half of the rows of group L of a tile.
template <int Bits, int L, int Half, typename Use>
RL_INLINE void four_rows(const Codes<Bits> &codes, std::uint64_t index, const Tables<Bits> &tables, Use use) {
  constexpr int a = 2 * Half, b = a + 1, c = a + 4, d = a + 5;
  const uint8x16_t nibble = vdupq_n_u8(15);
  if constexpr (Bits == 8) {
    for (int row : kRowOf<Half>) use(row, vreinterpretq_s8_u8(codes.bytes[row]));
  } else if constexpr (Bits == 4) {
    const uint8x16_t ab = codes.bytes[Half], cd = codes.bytes[Half + 2];
    use(a, look_up<a, L>(tables.window[0], index, vandq_u8(ab, nibble)));
    use(b, look_up<b, L>(tables.window[0], index, vshrq_n_u8(ab, 4)));
    use(c, look_up<c, L>(tables.window[0], index, vandq_u8(cd, nibble)));
    use(d, look_up<d, L>(tables.window[0], index, vshrq_n_u8(cd, 4)));
  } else if constexpr (Bits == 2) {
    const auto pair = [&](uint8x16_t four) { return Half == 0 ? vandq_u8(four, nibble) : vshrq_n_u8(four, 4); };
    const uint8x16_t ab = pair(codes.bytes[0]), cd = pair(codes.bytes[1]);
    use(a, look_up<a, L>(tables.window[0], index, ab));
    use(b, look_up<b, L>(tables.window[1], index, ab));
    use(c, look_up<c, L>(tables.window[0], index, cd));
    use(d, look_up<d, L>(tables.window[1], index, cd));
  } else {
    // The two bits of rows d c b a, two bits each, are joined with the third bits of all rows, 7 to 0, where those are:
    //   first half:   d . b . and, moved up, c . a . , the third bits at 5 and 1, at 4 and 0;
    //   second half:  . c . a and, moved down, . d . b, the third bits at 6 and 2, at 7 and 3.
    const uint8x16_t thirds = codes.bytes[2], lower = vdupq_n_u8(0x33);
    uint8x16_t ac, bd;
    if constexpr (Half == 0) {
      const uint8x16_t lows = vsliq_n_u8(codes.twin, codes.bytes[1], 4);
      ac = vbslq_u8(lower, thirds, vshlq_n_u8(lows, 2));
      bd = vbslq_u8(lower, thirds, lows);
    } else {
      const uint8x16_t lows = vsriq_n_u8(codes.bytes[1], codes.bytes[0], 4);
      bd = vbslq_u8(lower, vshrq_n_u8(lows, 2), thirds);
      ac = vbslq_u8(lower, lows, thirds);
    }
    use(a, look_up<a, L>(tables.window[a], index, vandq_u8(ac, nibble)));
    use(b, look_up<b, L>(tables.window[b], index, vandq_u8(bd, nibble)));
    use(c, look_up<c, L>(tables.window[a], index, vshrq_n_u8(ac, 4)));
    use(d, look_up<d, L>(tables.window[b], index, vshrq_n_u8(bd, 4)));
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

template <int Bits>
RL_INLINE void fetch_ahead(const std::uint8_t *codes) {
  for (int line = 0; line < tile_bytes(Bits); line += 64) __builtin_prefetch(codes + kAhead + line);
}

// Successive strips times one row of x, while the codes stream in: sums[strips][8].
template <int Bits>
RL_LOOP void stream_row(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                        const std::int8_t *x, int tiles, int strips, std::int32_t *sums) {
  const Tables<Bits> at = tables_at<Bits>(tables);
  const std::int8_t *end = x + tiles * kTile;
  do {
    int32x4_t acc[kStrip] = {};
    const std::int8_t *here = x;
    do {
      fetch_ahead<Bits>(codes);
      const std::uint64_t word = index_of<Bits>(index);
      if (Bits < 8) index += kStrip;
      const Halves32 inputs = take_pair<kTile>(here);
      Codes<Bits> group[2];
      take_tile<Bits>(codes, group);
      int8x16_t input = vreinterpretq_s8_u8(inputs.first);
      const auto add = [&](int row, int8x16_t w) { acc[row] = dot(acc[row], w, input); };
      four_rows<Bits, 0, 0>(group[0], word, at, add);
      four_rows<Bits, 0, 1>(group[0], word, at, add);
      input = vreinterpretq_s8_u8(inputs.second);
      four_rows<Bits, 1, 0>(group[1], word, at, add);
      four_rows<Bits, 1, 1>(group[1], word, at, add);
    } while (here != end);
    vst1q_s32(sums, sums_of(acc));
    vst1q_s32(sums + 4, sums_of(acc + 4));
    sums += kStrip;
  } while (--strips != 0);
}

// One strip times `Vectors` rows of x; with half of its rows where the sums of all would not fit the registers.
template <int Bits, int Vectors, int First, int Last>
RL_LOOP void stream_rows(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                         const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  const Tables<Bits> at = tables_at<Bits>(tables);
  int32x4_t acc[Vectors][kStrip];
  for (auto &row : acc)
    for (auto &a : row) a = vdupq_n_s32(0);
  const std::int8_t *end = x + tiles * kTile;
  do {
    if (First == 0) fetch_ahead<Bits>(codes);
    const std::uint64_t word = index_of<Bits>(index);
    if (Bits < 8) index += kStrip;
    int8x16_t inputs[Vectors];
    const auto add = [&](int row, int8x16_t w) {
      for (int v = 0; v < Vectors; ++v) acc[v][row] = dot(acc[v][row], w, inputs[v]);
    };
    for (int v = 0; v < Vectors; ++v) inputs[v] = vld1q_s8(x + v * x_stride);
    Codes<Bits> group = load_group<Bits, 0>(codes);
    if constexpr (First == 0) four_rows<Bits, 0, 0>(group, word, at, add);
    if constexpr (Last == 1) four_rows<Bits, 0, 1>(group, word, at, add);
    for (int v = 0; v < Vectors; ++v) inputs[v] = vld1q_s8(x + v * x_stride + 16);
    group = load_group<Bits, 1>(codes);
    if constexpr (First == 0) four_rows<Bits, 1, 0>(group, word, at, add);
    if constexpr (Last == 1) four_rows<Bits, 1, 1>(group, word, at, add);
    x += kTile;
    codes += tile_bytes(Bits);
  } while (x != end);
  for (int v = 0; v < Vectors; ++v, sums += kStrip) {
    const int32x4_t low = sums_of(acc[v]), high = sums_of(acc[v] + 4);
    if (First == 0 && Last == 1) {
      vst1q_s32(sums, low);
      vst1q_s32(sums + 4, high);
    } else if (First == 0) {
      vst1_s32(sums, vget_low_s32(low));
      vst1_s32(sums + 4, vget_low_s32(high));
    } else {
      vst1_s32(sums + 2, vget_high_s32(low));
      vst1_s32(sums + 6, vget_high_s32(high));
    }
  }
}

constexpr int kBias = 0;  // so there is no excess
RL_INLINE void excess_of(const std::int8_t *, std::int64_t, int, int, std::int32_t *) {}

constexpr int kStreamed = 4;  // rows of x that multiply while the codes stream in

template <int Bits>
RL_INLINE void strip_dots_bits(int vectors, const std::uint8_t *codes, const std::uint8_t *index,
                               const std::int8_t *tables, const std::int8_t *x, std::int64_t x_stride, int tiles,
                               int strips, std::int32_t *sums) {
  if (vectors == 1) return stream_row<Bits>(codes, index, tables, x, tiles, strips, sums);
  for (; strips > 0; --strips, sums += vectors * kStrip, codes += tiles * tile_bytes(Bits)) {
    if (vectors == 2) {
      stream_rows<Bits, 2, 0, 1>(codes, index, tables, x, x_stride, tiles, sums);
    } else if (vectors == 3) {
      stream_rows<Bits, 3, 0, 0>(codes, index, tables, x, x_stride, tiles, sums);
      stream_rows<Bits, 3, 1, 1>(codes, index, tables, x, x_stride, tiles, sums);
    } else {
      stream_rows<Bits, 4, 0, 0>(codes, index, tables, x, x_stride, tiles, sums);
      stream_rows<Bits, 4, 1, 1>(codes, index, tables, x, x_stride, tiles, sums);
    }
    if (Bits < 8) index += tiles * kStrip;
  }
}

// Successive packed strips times 1 to kStreamed rows of x: sums[strips][vectors][8].
static void strip_dots(int bits, int vectors, const std::uint8_t *codes, const std::uint8_t *index,
                       const std::int8_t *tables, const std::int8_t *x, std::int64_t x_stride, int tiles, int strips,
                       std::int32_t *sums) {
  switch (bits) {
    case 2: strip_dots_bits<2>(vectors, codes, index, tables, x, x_stride, tiles, strips, sums); break;
    case 3: strip_dots_bits<3>(vectors, codes, index, tables, x, x_stride, tiles, strips, sums); break;
    case 4: strip_dots_bits<4>(vectors, codes, index, tables, x, x_stride, tiles, strips, sums); break;
    default: strip_dots_bits<8>(vectors, codes, index, tables, x, x_stride, tiles, strips, sums); break;
  }
}

// An unpacked tile: eight times four inputs, [8 rows][4 inputs] each, so that an indexed sdot multiplies four rows by any
// four inputs of x and nothing is left to add up across a register.
using Unpacked = std::int8_t;

// Four rows of sixteen inputs as four times [4 rows][4 inputs].
RL_INLINE void store_quads(const int8x16_t *w, Unpacked *out) {
  const int32x4_t a = vreinterpretq_s32_s8(w[0]), b = vreinterpretq_s32_s8(w[1]);
  const int32x4_t c = vreinterpretq_s32_s8(w[2]), d = vreinterpretq_s32_s8(w[3]);
  const int64x2_t ab02 = vreinterpretq_s64_s32(vtrn1q_s32(a, b)), ab13 = vreinterpretq_s64_s32(vtrn2q_s32(a, b));
  const int64x2_t cd02 = vreinterpretq_s64_s32(vtrn1q_s32(c, d)), cd13 = vreinterpretq_s64_s32(vtrn2q_s32(c, d));
  vst1q_s8(out, vreinterpretq_s8_s64(vtrn1q_s64(ab02, cd02)));
  vst1q_s8(out + 4 * kStrip, vreinterpretq_s8_s64(vtrn1q_s64(ab13, cd13)));
  vst1q_s8(out + 8 * kStrip, vreinterpretq_s8_s64(vtrn2q_s64(ab02, cd02)));
  vst1q_s8(out + 12 * kStrip, vreinterpretq_s8_s64(vtrn2q_s64(ab13, cd13)));
}

template <int Bits, int L>
RL_INLINE void unpack_group(const Codes<Bits> &codes, std::uint64_t index, const Tables<Bits> &tables, Unpacked *out) {
  int8x16_t w[kStrip];
  const auto keep = [&](int row, int8x16_t weights) { w[row] = weights; };
  four_rows<Bits, L, 0>(codes, index, tables, keep);
  four_rows<Bits, L, 1>(codes, index, tables, keep);
  store_quads(w, out + L * 4 * 4 * kStrip);
  store_quads(w + 4, out + L * 4 * 4 * kStrip + 16);
}

template <int Bits>
RL_LOOP void unpack_tiles(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables, int tiles,
                          Unpacked *out) {
  const Tables<Bits> at = tables_at<Bits>(tables);
  do {
    fetch_ahead<Bits>(codes);
    const std::uint64_t word = index_of<Bits>(index);
    Codes<Bits> group[2];
    take_tile<Bits>(codes, group);
    unpack_group<Bits, 0>(group[0], word, at, out);
    unpack_group<Bits, 1>(group[1], word, at, out);
    out += kStrip * kTile;
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

// Tiles of a strip as int8 [8][32], `stride` bytes apart.
template <int Bits>
RL_LOOP void unpack_tiles_apart(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                                int tiles, std::int64_t stride, std::int8_t *out) {
  const Tables<Bits> at = tables_at<Bits>(tables);
  do {
    fetch_ahead<Bits>(codes);
    const std::uint64_t word = index_of<Bits>(index);
    Codes<Bits> group[2];
    take_tile<Bits>(codes, group);
    int8x16_t w[kStrip][2];
    four_rows<Bits, 0, 0>(group[0], word, at, [&](int row, int8x16_t weights) { w[row][0] = weights; });
    four_rows<Bits, 0, 1>(group[0], word, at, [&](int row, int8x16_t weights) { w[row][0] = weights; });
    four_rows<Bits, 1, 0>(group[1], word, at, [&](int row, int8x16_t weights) { w[row][1] = weights; });
    four_rows<Bits, 1, 1>(group[1], word, at, [&](int row, int8x16_t weights) { w[row][1] = weights; });
    for (int r = 0; r < kStrip; ++r) {
      vst1q_s8(out + r * kTile, w[r][0]);
      vst1q_s8(out + r * kTile + 16, w[r][1]);
    }
    out += stride;
    if (Bits < 8) index += kStrip;
  } while (--tiles != 0);
}

static void unpack_apart(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *tables,
                         int tiles, std::int64_t stride, std::int8_t *out) {
  switch (bits) {
    case 2: unpack_tiles_apart<2>(codes, index, tables, tiles, stride, out); break;
    case 3: unpack_tiles_apart<3>(codes, index, tables, tiles, stride, out); break;
    case 4: unpack_tiles_apart<4>(codes, index, tables, tiles, stride, out); break;
    default: unpack_tiles_apart<8>(codes, index, tables, tiles, stride, out); break;
  }
}

constexpr int kMultiplied = 8;  // rows of x that an unpacked strip is multiplied by at a time: sixteen sums

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

// Blocks of eight keys, which lie like unpacked strips, times `Vectors` queries: sums[blocks][Vectors][8].
template <int Vectors>
RL_INLINE void key_dots(const std::int8_t *keys, int blocks, const std::int8_t *x, std::int64_t x_stride, int tiles,
                        std::int32_t *sums) {
  for (; blocks > 0; --blocks, keys += tiles * kTile * kKeys, sums += Vectors * kKeys)
    multiply_rows<Vectors>(keys, x, x_stride, tiles, sums);
}

constexpr int kKeyBlocks = 2, kValueQueries = 2;  // of the latter sixteen sums

// Both planes' sums += the products of the four positions that are Quad of a block's two.
template <int Quad, int Queries>
RL_INLINE void add_positions(int32x4_t (&acc)[Queries][2][4], const std::int8_t *v, const int8x16_t (&codes)[Queries]) {
  for (int i = 0; i < 4; ++i) {
    const int8x16_t four = vld1q_s8(v + Quad * kColumns * kQuad + i * 16);
    for (int q = 0; q < Queries; ++q) {
      acc[q][0][i] = vdotq_laneq_s32(acc[q][0][i], four, codes[q], Quad);
      acc[q][1][i] = vdotq_laneq_s32(acc[q][1][i], four, codes[q], 2 + Quad);
    }
  }
}

// Values of kColumns columns from `column` bytes behind their runs on, times the weights of `Queries` queries:
// sums[Queries][kColumns] = 128 times the first plane's and the second's.
template <int Queries>
RL_LOOP void value_dots(const ValueRun *run, int runs, std::int64_t column, const std::int8_t *codes, std::int32_t *sums) {
  int32x4_t acc[Queries][2][4];
  for (auto &query : acc)
    for (auto &plane : query)
      for (auto &a : plane) a = vdupq_n_s32(0);
  for (const ValueRun *end = run + runs; run != end; ++run) {
    const std::int8_t *v = run->values + column;
    int blocks = run->blocks;
    do {
      int8x16_t weights[Queries];
      for (int q = 0; q < Queries; ++q) weights[q] = vld1q_s8(codes + q * kCodeStride);
      add_positions<0>(acc, v, weights);
      add_positions<1>(acc, v, weights);
      v += 2 * kColumns * kQuad;
      codes += 2 * kLanes;
    } while (--blocks != 0);
  }
  for (int q = 0; q < Queries; ++q, sums += kColumns)
    for (int i = 0; i < 4; ++i) vst1q_s32(sums + 4 * i, vaddq_s32(vshlq_n_s32(acc[q][0][i], 7), acc[q][1][i]));
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

// What the x86-64 kernels share: tables by byte shuffle, and the loops that multiply while the codes stream in.
//
// The including file has defined, in this namespace: kBias (added to every weight, so that it may count as unsigned: 0
// or 128), kSums (sums that registers can hold), kTogether and kStreamed (rows of x that share a decoded weight, and that
// multiply while the codes stream in), Input (32 inputs of x in registers) with input_of and four_inputs (four of x for
// every lane), accumulate (acc + products, summed by fours), excess (acc + what the bias adds to every row), kValueQueries
// (queries that share a walk over values) and accumulate_unsigned (acc + products of 7 bits with signed bytes, likewise).
#pragma once

#include <immintrin.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::RL_ISA {

RL_INLINE __m256i load_bytes(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }

RL_INLINE __m256i biased(__m256i w) { return kBias == 0 ? w : _mm256_xor_si256(w, _mm256_set1_epi8(-128)); }

// All 256 pairs of tables, so that one index byte names one 32-byte load: the table of the first group in the lower
// lane, of the second group in the upper one.
static const std::int8_t *prepare_tables(const rl_band &band, Scratch &scratch) {
  if (band.bits == 8 || scratch.tables_of == band.tables) return scratch.tables;
  for (int second = 0; second < 16; ++second) {
    const __m128i upper = _mm_loadu_si128(reinterpret_cast<const __m128i *>(band.tables + second * 16));
    for (int first = 0; first < 16; ++first) {
      const __m128i lower = _mm_loadu_si128(reinterpret_cast<const __m128i *>(band.tables + first * 16));
      _mm256_store_si256(reinterpret_cast<__m256i *>(scratch.tables + (second * 16 + first) * 32),
                         biased(_mm256_set_m128i(upper, lower)));
    }
  }
  scratch.tables_of = band.tables;
  return scratch.tables;
}

// The weights of row R of a tile, biased.
template <int Bits, int R>
RL_INLINE __m256i weights_of(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs) {
  if constexpr (Bits == 8) {
    return biased(load_bytes(codes + R * kTile));
  } else {
    __m256i code;
    if constexpr (Bits == 4) {
      const __m256i both = load_bytes(codes + R / 2 * kTile);
      code = _mm256_and_si256(R % 2 == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
    } else {
      const __m256i four = load_bytes(codes + R / 4 * kTile);
      code = _mm256_and_si256(_mm256_srli_epi16(four, R % 4 * 2), _mm256_set1_epi8(3));
      if constexpr (Bits == 3) {
        const __m256i eight = load_bytes(codes + 2 * kTile);
        const __m256i bit = R < 2 ? _mm256_slli_epi16(eight, 2 - R) : _mm256_srli_epi16(eight, R - 2);
        code = _mm256_or_si256(code, _mm256_and_si256(bit, _mm256_set1_epi8(4)));
      }
    }
    return _mm256_shuffle_epi8(load_bytes(pairs + std::size_t{index[R]} * 32), code);
  }
}

// use(row, weights) for `Rows` rows of a tile from First on.
template <int Bits, int First, int Rows, typename Use>
RL_INLINE void each_row(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs, Use use) {
  use(First, weights_of<Bits, First>(codes, index, pairs));
  if constexpr (Rows > 1) each_row<Bits, First + 1, Rows - 1>(codes, index, pairs, use);
}

// The sums of the lanes of each of eight accumulators.
RL_INLINE __m256i reduce8(const __m256i *a) {
  const __m256i s0 = _mm256_hadd_epi32(a[0], a[1]), s1 = _mm256_hadd_epi32(a[2], a[3]);
  const __m256i s2 = _mm256_hadd_epi32(a[4], a[5]), s3 = _mm256_hadd_epi32(a[6], a[7]);
  const __m256i t0 = _mm256_hadd_epi32(s0, s1), t1 = _mm256_hadd_epi32(s2, s3);
  return _mm256_add_epi32(_mm256_permute2x128_si256(t0, t1, 0x20), _mm256_permute2x128_si256(t0, t1, 0x31));
}
RL_INLINE void store_half(std::int32_t *to, __m128i half) { _mm_storeu_si128(reinterpret_cast<__m128i *>(to), half); }
RL_INLINE void add_half(std::int32_t *to, __m128i half) {
  store_half(to, _mm_add_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(to)), half));
}

// Bytes of codes fetched ahead of their use, into the second cache: the first waits for too few lines at a time to keep
// memory busy. Only below 8 bits: those streams are too slow for the hardware to notice in time, while at 8 bits it does
// better alone.
constexpr int kAhead = 16384;

// sums[vector][row] += rows First .. First + Rows - 1 (four or eight) of some tiles of a strip times `Vectors` rows of x.
template <int Bits, int Vectors, int First, int Rows>
RL_INLINE void stream_rows(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                           const std::int8_t *x, std::int64_t x_stride, int tiles, bool fetch, std::int32_t *sums) {
  static_assert(Vectors * Rows % kStrip == 0, "reduce8 takes eight");
  __m256i acc[Vectors * Rows];
  for (auto &a : acc) a = _mm256_setzero_si256();
  for (int t = 0; t < tiles; ++t, x += kTile) {
    for (int line = 0; fetch && First == 0 && Bits < 8 && line < tile_bytes(Bits); line += 64)
      _mm_prefetch(reinterpret_cast<const char *>(codes) + kAhead + line, _MM_HINT_T1);
    Input inputs[Vectors];
    for (int v = 0; v < Vectors; ++v) inputs[v] = input_of(x + v * x_stride);
    each_row<Bits, First, Rows>(codes, index, pairs, [&](int row, __m256i w) {
      for (int v = 0; v < Vectors; ++v)
        acc[v * Rows + row - First] = accumulate(acc[v * Rows + row - First], w, inputs[v]);
    });
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
  for (int i = 0; i < Vectors * Rows; i += kStrip) {
    const __m256i found = reduce8(acc + i);
    std::int32_t *to = sums + i / Rows * kStrip + First;
    add_half(to, _mm256_castsi256_si128(found));
    add_half(Rows == kStrip ? to + 4 : to + kStrip, _mm256_extracti128_si256(found, 1));
  }
}

template <int Bits, int Vectors>
static void stream_tiles(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                         const std::int8_t *x, std::int64_t x_stride, int tiles, bool fetch, std::int32_t *sums) {
  if constexpr (Vectors * kStrip <= kSums) {
    stream_rows<Bits, Vectors, 0, kStrip>(codes, index, pairs, x, x_stride, tiles, fetch, sums);
  } else {
    stream_rows<Bits, Vectors, 0, kStrip / 2>(codes, index, pairs, x, x_stride, tiles, fetch, sums);
    stream_rows<Bits, Vectors, kStrip / 2, kStrip / 2>(codes, index, pairs, x, x_stride, tiles, fetch, sums);
  }
}

template <int Bits>
RL_INLINE void stream_group(int vectors, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                            const std::int8_t *x, std::int64_t x_stride, int tiles, bool fetch, std::int32_t *sums) {
  switch (vectors) {
    case 1: stream_tiles<Bits, 1>(codes, index, pairs, x, x_stride, tiles, fetch, sums); break;
    case 2: stream_tiles<Bits, 2>(codes, index, pairs, x, x_stride, tiles, fetch, sums); break;
    case 3:
      if constexpr (kTogether >= 3) stream_tiles<Bits, 3>(codes, index, pairs, x, x_stride, tiles, fetch, sums);
      break;
    default:
      if constexpr (kTogether >= 4) stream_tiles<Bits, 4>(codes, index, pairs, x, x_stride, tiles, fetch, sums);
  }
}

// Groups of at most kTogether rows of x walk over the same codes; while there are several walks, they take turns at
// so many tiles that the codes and inputs of one turn stay in the first cache.
constexpr int kTurnTiles = 64;

template <int Bits>
static void strip_dots_of(int vectors, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                          const std::int8_t *x, std::int64_t x_stride, int tiles, std::int32_t *sums) {
  for (int i = 0; i < vectors; ++i) store(sums + i * kStrip, splat(0));
  const int groups = (vectors + kTogether - 1) / kTogether;
  const int turn = vectors * kStrip <= kSums ? tiles : kTurnTiles;
  for (int done = 0; done < tiles; done += turn) {
    const int count = tiles - done < turn ? tiles - done : turn;
    for (int g = 0, v = 0; g < groups; ++g) {
      const int group = (vectors - v + groups - g - 1) / (groups - g);
      stream_group<Bits>(group, codes, index, pairs, x + v * x_stride, x_stride, count, g == 0, sums + v * kStrip);
      v += group;
    }
    codes += count * tile_bytes(Bits);
    if (Bits < 8) index += count * kStrip;
    x += count * kTile;
  }
}

// Successive packed strips times 1 to kStreamed rows of x: sums[strips][vectors][8], biased.
static void strip_dots(int bits, int vectors, const std::uint8_t *codes, const std::uint8_t *index,
                       const std::int8_t *pairs, const std::int8_t *x, std::int64_t x_stride, int tiles, int strips,
                       std::int32_t *sums) {
  for (; strips > 0; --strips, sums += vectors * kStrip, codes += tiles * tile_bytes(bits)) {
    switch (bits) {
      case 2: strip_dots_of<2>(vectors, codes, index, pairs, x, x_stride, tiles, sums); break;
      case 3: strip_dots_of<3>(vectors, codes, index, pairs, x, x_stride, tiles, sums); break;
      case 4: strip_dots_of<4>(vectors, codes, index, pairs, x, x_stride, tiles, sums); break;
      default: strip_dots_of<8>(vectors, codes, index, pairs, x, x_stride, tiles, sums); break;
    }
    if (bits < 8) index += tiles * kStrip;
  }
}

// What the bias adds to every sum of each of `vectors` rows of x: kBias times the sum of the row.
static void excess_of(const std::int8_t *x, std::int64_t x_stride, int tiles, int vectors, std::int32_t *over) {
  if constexpr (kBias == 0) return;
  for (int v = 0; v < vectors; ++v, x += x_stride) {
    __m256i acc[kStrip];
    for (auto &a : acc) a = _mm256_setzero_si256();
    int t = 0;
    for (; t + 4 <= tiles; t += 4)
      for (int i = 0; i < 4; ++i) acc[i] = excess(acc[i], input_of(x + (t + i) * kTile));
    for (; t < tiles; ++t) acc[0] = excess(acc[0], input_of(x + t * kTile));
    for (int i = 1; i < 4; ++i) acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    for (int i = 1; i < 4; ++i) acc[i] = _mm256_setzero_si256();
    over[v] = _mm256_cvtsi256_si32(reduce8(acc));
  }
}

// One or two blocks of eight keys times `Vectors` queries; both blocks share the inputs.
template <int Blocks, int Vectors>
RL_INLINE void dots_of_keys(const std::int8_t *keys, const std::int8_t *x, std::int64_t x_stride, int tiles,
                            std::int32_t *sums) {
  const std::int64_t block_bytes = std::int64_t{tiles} * kTile * kKeys;
  __m256i acc[Blocks][Vectors];
  for (auto &block : acc)
    for (auto &a : block) a = _mm256_setzero_si256();
  for (const std::int8_t *end = keys + block_bytes; keys != end; keys += kKeys * kQuad, x += kQuad) {
    __m256i w[Blocks];
    for (int b = 0; b < Blocks; ++b) w[b] = biased(load_bytes(keys + b * block_bytes));
    for (int v = 0; v < Vectors; ++v) {
      const Input input = four_inputs(x + v * x_stride);
      for (int b = 0; b < Blocks; ++b) acc[b][v] = accumulate(acc[b][v], w[b], input);
    }
  }
  __m256i *to = reinterpret_cast<__m256i *>(sums);
  for (auto &block : acc)
    for (auto &a : block) _mm256_storeu_si256(to++, a);
}

// Blocks of eight keys [tiles * 8][8 positions][4 inputs] times `Vectors` queries: sums[blocks][Vectors][8], biased.
template <int Vectors>
RL_INLINE void key_dots(const std::int8_t *keys, int blocks, const std::int8_t *x, std::int64_t x_stride, int tiles,
                        std::int32_t *sums) {
  const std::int64_t block_bytes = std::int64_t{tiles} * kTile * kKeys;
  for (; blocks >= 2; blocks -= 2, keys += 2 * block_bytes, sums += 2 * Vectors * kKeys)
    dots_of_keys<2, Vectors>(keys, x, x_stride, tiles, sums);
  if (blocks == 1) dots_of_keys<1, Vectors>(keys, x, x_stride, tiles, sums);
}

// Values of kColumns columns from `column` bytes behind their runs on, times the weights of `Queries` queries:
// sums[Queries][kColumns] = 128 times the first plane's and the second's.
template <int Queries>
static void value_dots(const ValueRun *run, int runs, std::int64_t column, const std::int8_t *codes, std::int32_t *sums) {
  __m256i acc[Queries][2][2];
  for (auto &query : acc)
    for (auto &plane : query) plane[0] = plane[1] = _mm256_setzero_si256();
  for (const ValueRun *end = run + runs; run != end; ++run) {
    const std::int8_t *v = run->values + column;
    for (int b = 0; b < run->blocks; ++b, codes += 2 * kLanes)
      for (int quad = 0; quad < 2; ++quad, v += kColumns * kQuad) {
        const __m256i low = load_bytes(v), high = load_bytes(v + 32);
        for (int q = 0; q < Queries; ++q)
          for (int plane = 0; plane < 2; ++plane) {
            const std::int8_t *four = codes + q * kCodeStride + plane * kLanes + quad * kQuad;
            const __m256i weights = _mm256_set1_epi32(load<std::int32_t>(four));
            acc[q][plane][0] = accumulate_unsigned(acc[q][plane][0], weights, low);
            acc[q][plane][1] = accumulate_unsigned(acc[q][plane][1], weights, high);
          }
      }
  }
  __m256i *to = reinterpret_cast<__m256i *>(sums);
  for (auto &query : acc)
    for (int half = 0; half < 2; ++half)
      _mm256_storeu_si256(to++, _mm256_add_epi32(_mm256_slli_epi32(query[0][half], 7), query[1][half]));
}

// Bytes of codes fetched ahead while a block is unpacked: they arrive while it is multiplied.
constexpr int kBlockAhead = 8192;

// put(tile, row, weights) for every row of every tile of a strip.
template <int Bits, typename Put>
RL_INLINE void each_tile(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs, int tiles,
                         Put put) {
  for (int t = 0; t < tiles; ++t) {
    for (int line = 0; line < tile_bytes(Bits); line += 64)
      _mm_prefetch(reinterpret_cast<const char *>(codes) + kBlockAhead + line, _MM_HINT_T1);
    __m256i w[kStrip];
    each_row<Bits, 0, kStrip>(codes, index, pairs, [&](int row, __m256i weights) { w[row] = weights; });
    put(t, w);
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
}
template <typename Put>
RL_INLINE void each_tile(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                         int tiles, Put put) {
  switch (bits) {
    case 2: each_tile<2>(codes, index, pairs, tiles, put); break;
    case 3: each_tile<3>(codes, index, pairs, tiles, put); break;
    case 4: each_tile<4>(codes, index, pairs, tiles, put); break;
    default: each_tile<8>(codes, index, pairs, tiles, put); break;
  }
}

// Tiles of a strip as int8 [8][32], `stride` bytes apart. Past the caches: somebody else will read them, much later.
static void unpack_apart(int bits, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                         int tiles, std::int64_t stride, std::int8_t *out) {
  each_tile(bits, codes, index, pairs, tiles, [&](int tile, const __m256i (&w)[kStrip]) {
    __m256i *to = reinterpret_cast<__m256i *>(out + tile * stride);
    for (int r = 0; r < kStrip; ++r) _mm256_stream_si256(to + r, biased(w[r]));  // which takes a bias off, too
  });
  _mm_sfence();
}

}  // namespace rl::RL_ISA

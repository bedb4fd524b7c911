// What the x86-64 kernels share: the loops that multiply while codes, keys and values stream in, whatever the width of
// a vector.
//
// The including file has defined, in this namespace: what x86_weights.hpp does; Wide, the vectors to be used
// (Ymm or Zmm); kSums (sums of rows that registers can hold), kTogether and kStreamed (rows of x that share a decoded weight,
// and that multiply while the codes stream in), input_of (32 inputs of x on each side of a vector) and four_inputs (four of x
// in every lane), accumulate (acc + products, summed by fours), kValueQueries (queries that share a walk over values) and
// accumulate_unsigned (acc + products of 7 bits with signed bytes, likewise).
#pragma once

#include <immintrin.h>

#include "kernels.hpp"
#include "lanes.hpp"
#include "tiles.hpp"

namespace rl::RL_ISA {

// use(row, weights of the rows from `row` on that fill a vector) for `Rows` rows of a tile from First on.
template <int Bits, int First, int Rows, typename Use>
RL_INLINE void each_row(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs, Use use) {
  use(First, Wide::weights<Bits, First>(codes, index, pairs));
  if constexpr (Rows > Wide::kSides)
    each_row<Bits, First + Wide::kSides, Rows - Wide::kSides>(codes, index, pairs, use);
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
  constexpr int kAccumulators = Vectors * Rows / Wide::kSides, kEight = kStrip / Wide::kSides;
  static_assert(kAccumulators % kEight == 0, "eight sides are added up at a time");
  typename Wide::V acc[kAccumulators];
  for (auto &a : acc) a = Wide::zero();
  for (int t = 0; t < tiles; ++t, x += kTile) {
    for (int line = 0; fetch && First == 0 && Bits < 8 && line < tile_bytes(Bits); line += 64)
      _mm_prefetch(reinterpret_cast<const char *>(codes) + kAhead + line, _MM_HINT_T1);
    decltype(input_of(x)) inputs[Vectors];
    for (int v = 0; v < Vectors; ++v) inputs[v] = input_of(x + v * x_stride);
    each_row<Bits, First, Rows>(codes, index, pairs, [&](int row, Wide::V w) {
      for (int v = 0; v < Vectors; ++v) {
        auto &sum = acc[(v * Rows + row - First) / Wide::kSides];
        sum = accumulate(sum, w, inputs[v]);
      }
    });
    codes += tile_bytes(Bits);
    if (Bits < 8) index += kStrip;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kAccumulators; i += kEight) {
    const __m256i found = Wide::eight_sums(acc + i);
    std::int32_t *to = sums + i * Wide::kSides / Rows * kStrip + First;
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

template <int Bits, int Vectors = 1>
RL_INLINE void stream_group(int vectors, const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs,
                            const std::int8_t *x, std::int64_t x_stride, int tiles, bool fetch, std::int32_t *sums) {
  if (vectors == Vectors)
    stream_tiles<Bits, Vectors>(codes, index, pairs, x, x_stride, tiles, fetch, sums);
  else if constexpr (Vectors < kTogether)
    stream_group<Bits, Vectors + 1>(vectors, codes, index, pairs, x, x_stride, tiles, fetch, sums);
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

// `Wides` vectors of blocks of eight keys times `Vectors` queries; all of them share the inputs.
template <typename W, int Wides, int Vectors>
RL_INLINE void dots_of_keys(const std::int8_t *keys, const std::int8_t *x, std::int64_t x_stride, int tiles,
                            std::int32_t *sums) {
  const std::int64_t block_bytes = std::int64_t{tiles} * kTile * kKeys;
  typename W::V acc[Wides][Vectors];
  for (auto &wide : acc)
    for (auto &a : wide) a = W::zero();
  for (const std::int8_t *end = keys + block_bytes; keys != end; keys += kKeys * kQuad, x += kQuad) {
    typename W::V w[Wides];
    for (int b = 0; b < Wides; ++b) w[b] = W::biased(W::load_sides(keys + b * W::kSides * block_bytes, block_bytes));
    for (int v = 0; v < Vectors; ++v) {
      const auto input = four_inputs<W>(x + v * x_stride);
      for (int b = 0; b < Wides; ++b) acc[b][v] = accumulate(acc[b][v], w[b], input);
    }
  }
  for (int b = 0; b < Wides; ++b)
    for (int v = 0; v < Vectors; ++v)
      W::store_sides(sums + (b * W::kSides * Vectors + v) * kKeys, Vectors * kKeys, acc[b][v]);
}

constexpr int kKeyBlocks = 2 * Wide::kSides;

// Up to kKeyBlocks blocks of eight keys [tiles * 8][8 positions][4 inputs] times `Vectors` queries: sums[blocks][Vectors][8],
// biased.
template <int Vectors>
RL_INLINE void key_dots(const std::int8_t *keys, int blocks, const std::int8_t *x, std::int64_t x_stride, int tiles,
                        std::int32_t *sums) {
  if (blocks == kKeyBlocks) return dots_of_keys<Wide, 2, Vectors>(keys, x, x_stride, tiles, sums);
  if (blocks >= Wide::kSides) {
    dots_of_keys<Wide, 1, Vectors>(keys, x, x_stride, tiles, sums);
    keys += std::int64_t{tiles} * kTile * kKeys * Wide::kSides;
    sums += Wide::kSides * Vectors * kKeys;
  }
  if constexpr (Wide::kSides > 1)
    if (blocks % Wide::kSides != 0) dots_of_keys<Ymm, 1, Vectors>(keys, x, x_stride, tiles, sums);
}

// Values of kColumns columns from `column` bytes behind their runs on, times the weights of `Queries` queries:
// sums[Queries][kColumns] = 128 times the first plane's and the second's.
template <int Queries>
static void value_dots(const ValueRun *run, int runs, std::int64_t column, const std::int8_t *codes, std::int32_t *sums) {
  using V = Wide::V;
  constexpr int kParts = kColumns * kQuad / sizeof(V);
  V acc[Queries][2][kParts];
  for (auto &query : acc)
    for (auto &plane : query)
      for (auto &part : plane) part = Wide::zero();
  for (const ValueRun *end = run + runs; run != end; ++run) {
    const std::int8_t *v = run->values + column;
    for (int b = 0; b < run->blocks; ++b, codes += 2 * kLanes)
      for (int quad = 0; quad < 2; ++quad, v += kColumns * kQuad) {
        V values[kParts];
        for (int part = 0; part < kParts; ++part) values[part] = Wide::load(v + part * sizeof(V));
        for (int q = 0; q < Queries; ++q)
          for (int plane = 0; plane < 2; ++plane) {
            const V weights = Wide::in_every_lane(codes + q * kCodeStride + plane * kLanes + quad * kQuad);
            for (int part = 0; part < kParts; ++part)
              acc[q][plane][part] = accumulate_unsigned(acc[q][plane][part], weights, values[part]);
          }
      }
  }
  for (const auto &query : acc)
    for (int part = 0; part < kParts; ++part, sums += kColumns / kParts)
      Wide::store(sums, Wide::both_planes(query[0][part], query[1][part]));
}

}  // namespace rl::RL_ISA

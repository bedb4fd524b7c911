// Weights of the x86-64 kernels: tables by byte shuffle, a row of a tile, 32 weights, in each vector.
//
// The including file has defined kBias (bias.hpp) in this namespace: 0, or 128, which makes weights unsigned.
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

// The weights of rows Row to 7 of a tile, biased.
template <int Bits, int Row = 0>
RL_INLINE void tile_rows(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs, __m256i *w) {
  w[Row] = weights_of<Bits, Row>(codes, index, pairs);
  if constexpr (Row + 1 < kStrip) tile_rows<Bits, Row + 1>(codes, index, pairs, w);
}

// Bytes of codes fetched ahead while a block is unpacked: they arrive while it is multiplied.
constexpr int kBlockAhead = 8192;

// put(tile, weights of its rows) for every tile of a strip.
template <int Bits, typename Put>
RL_INLINE void each_tile(const std::uint8_t *codes, const std::uint8_t *index, const std::int8_t *pairs, int tiles,
                         Put put) {
  for (int t = 0; t < tiles; ++t) {
    for (int line = 0; line < tile_bytes(Bits); line += 64)
      _mm_prefetch(reinterpret_cast<const char *>(codes) + kBlockAhead + line, _MM_HINT_T1);
    __m256i w[kStrip];
    tile_rows<Bits>(codes, index, pairs, w);
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

// The sums of the lanes of each of eight accumulators.
RL_INLINE __m256i reduce8(const __m256i *a) {
  const __m256i s0 = _mm256_hadd_epi32(a[0], a[1]), s1 = _mm256_hadd_epi32(a[2], a[3]);
  const __m256i s2 = _mm256_hadd_epi32(a[4], a[5]), s3 = _mm256_hadd_epi32(a[6], a[7]);
  const __m256i t0 = _mm256_hadd_epi32(s0, s1), t1 = _mm256_hadd_epi32(s2, s3);
  return _mm256_add_epi32(_mm256_permute2x128_si256(t0, t1, 0x20), _mm256_permute2x128_si256(t0, t1, 0x31));
}
}  // namespace rl::RL_ISA
